//! Operators: who runs the platform.

use super::people::{Person, PersonRef, ResolvedPerson, finish, known, vouched};
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::{identities, invitations, sessions};
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::context::OperatorContext;
use crate::model::ids::IdentityId;
use crate::tx::CatalogTx;

/// Handle over the people who run the platform: [`Freehold::operators`].
#[derive(Clone, Copy)]
pub struct Operators<'a>(&'a Freehold);

impl Freehold {
    /// The people who run the platform.
    pub fn operators(&self) -> Operators<'_> {
        Operators(self)
    }
}

impl Operators<'_> {
    /// [`list`](crate::control::people::People::list) who run the platform.
    pub async fn list(
        self,
        context: &OperatorContext,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<Person>> {
        self.0.page_of_people(context, true, after, limit).await
    }

    /// Makes somebody an operator: somebody new, with a password, for whom the caller vouches; or the
    /// person who is known and whose address is proven.
    ///
    /// # Errors
    /// [`ErrorKind::EmailTaken`] if the address is known and that was not said;
    /// [`ErrorKind::NotFound`] if it is not and that was said; [`ErrorKind::InvalidInput`];
    /// [`ErrorKind::Forbidden`] for somebody who is disabled.
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
                    "nobody has proven this e-mail yet; give a password too, and tell it them",
                )
                .field("password"));
            }
        };
        if !identity.is_operator {
            identities::set_operator(&mut tx, identity.id, true).await?;
            let event = AuditEvent::of("operator.create", context).to(identity.id, &identity.email);
            audit::record(&mut tx, event).await?;
        }
        finish(tx, identity.id).await
    }

    /// Takes the platform out of a person's hands, within a second, and ends their sessions; what they
    /// belong to stays.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for somebody who is no operator; [`ErrorKind::Conflict`] for the last.
    pub async fn revoke(self, context: &OperatorContext, id: IdentityId) -> Result<Person> {
        let none = || Error::new(ErrorKind::NotFound, "there is no such operator");
        let mut tx = self.0.catalog(context).await?;
        require_not_last_operator(&mut tx, id).await?;
        let identity = identities::lock(&mut tx, id).await?;
        let identity = identity.filter(|identity| identity.is_operator).ok_or_else(none)?;
        identities::set_operator(&mut tx, id, false).await?;
        sessions::revoke_all(&mut tx, id, None).await?;
        invitations::delete_by(&mut tx, id, None).await?;
        audit::record(&mut tx, AuditEvent::of("operator.revoke", context).to(id, &identity.email))
            .await?;
        finish(tx, id).await
    }
}

/// The platform is never without somebody who runs it, unless nobody ever did.
pub(super) async fn require_not_last_operator(tx: &mut CatalogTx, id: IdentityId) -> Result<()> {
    if identities::lock_operators(tx).await? == [id] {
        return Err(Error::new(
            ErrorKind::Conflict,
            "this is the last operator; make another one first",
        ));
    }
    Ok(())
}
