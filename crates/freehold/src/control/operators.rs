//! Operators: the people who run the platform.

use super::people::{
    Person, PersonRef, ResolvedPerson, finish, in_tenants, known, require_not_last_operator,
    vouched,
};
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::{identities, sessions};
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::audit::AuditAction;
use crate::model::context::OperatorContext;
use crate::model::ids::IdentityId;
use crate::sign_in::invitations;

/// Handle for listing, creating and revoking operators: [`Freehold::operators`].
#[derive(Clone, Copy)]
pub struct Operators<'a>(&'a Freehold);

impl Freehold {
    /// Lists, creates and revokes operators.
    pub fn operators(&self) -> Operators<'_> {
        Operators(self)
    }
}

impl Operators<'_> {
    /// [`list`](crate::control::people::People::list) for operators only.
    pub async fn list(
        self,
        context: &OperatorContext,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<Person>> {
        self.0.page_of_people(context, true, after, limit).await
    }

    /// Makes a person an operator: a new person with a password, for whom the caller vouches, or a known
    /// person whose address is proven.
    ///
    /// # Errors
    /// [`ErrorKind::EmailTaken`] if the address is known and [`PersonRef::existing`] is false;
    /// [`ErrorKind::NotFound`] if it is unknown and `existing` is true; [`ErrorKind::InvalidInput`];
    /// [`ErrorKind::Forbidden`] for a disabled person.
    pub async fn create(self, context: &OperatorContext, named: PersonRef) -> Result<Person> {
        let meant = self.0.understand(context, named).await?;
        let mut tx = self.0.catalog(context).await?;
        let identity = match meant {
            ResolvedPerson::Known(email) => known(&mut tx, &email).await?,
            ResolvedPerson::New { email, password_hash: Some(hash) } => {
                vouched(&mut tx, context, &email, "", &hash).await?
            }
            ResolvedPerson::New { password_hash: None, .. } => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "no person has proven this e-mail: give a password too, for a new person, and tell it to them",
                )
                .field("password"));
            }
        };
        if !identity.is_operator {
            identities::set_operator(&mut tx, identity.id, true).await?;
            let event = AuditEvent::of(AuditAction::OperatorCreate, context)
                .to(identity.id, &identity.email);
            audit::record(&mut tx, event).await?;
        }
        finish(tx, identity.id).await
    }

    /// Revokes a person's operator rights, within a second on every server, and ends their sessions; their
    /// memberships stay.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a person who is not an operator; [`ErrorKind::Conflict`] for the last
    /// operator.
    pub async fn revoke(self, context: &OperatorContext, id: IdentityId) -> Result<Person> {
        let none = || Error::new(ErrorKind::NotFound, "there is no such operator");
        let mut tx = self.0.catalog(context).await?;
        require_not_last_operator(&mut tx, id).await?;
        let identity = identities::lock(&mut tx, id).await?;
        let identity = identity.filter(|identity| identity.is_operator).ok_or_else(none)?;
        identities::set_operator(&mut tx, id, false).await?;
        sessions::revoke_all(&mut tx, id, None).await?;
        let ended = in_tenants(context, "the person is no operator any more");
        invitations::end_of_person(&mut tx, id, ended).await?;
        audit::record(
            &mut tx,
            AuditEvent::of(AuditAction::OperatorRevoke, context).to(id, &identity.email),
        )
        .await?;
        finish(tx, id).await
    }
}
