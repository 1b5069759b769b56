//! People, for operators: who they are, and whether they may sign in.

use uuid::Uuid;

use crate::catalog;
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::identities::Identity;
use crate::catalog::outbox::{self, Letter};
use crate::catalog::sessions::SessionEntry;
use crate::catalog::{
    address_changes, guesses, idempotency, identities, memberships, password_resets, sessions,
    sign_ups,
};
use crate::control::{check_after, clamp_page};
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::audit::AuditAction;
use crate::model::context::{OperatorContext, check_reason};
use crate::model::ids::{Email, IdentityId};
use crate::model::mail::MailKind;
use crate::sign_in::{invitations, proof};
use crate::tx::CatalogTx;

pub use crate::catalog::identities::Person;

/// A person with their tenants and sessions.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PersonDetail {
    /// The person.
    #[serde(flatten)]
    pub person: Person,
    /// Slug of each of their tenants and their role there, in the order of slugs; 1,000 at most.
    pub tenants: Vec<(String, &'static str)>,
    /// Their active sessions, the newest first; 200 at most.
    pub sessions: Vec<SessionEntry>,
}

/// The person whom an operator refers to by an address.
#[derive(Clone, Default)]
pub struct PersonRef {
    /// As it was typed.
    pub email: String,
    /// The password of a new person: the operator vouches that the address is theirs.
    pub password: Option<String>,
    /// True for a known person with this address, false for a new one.
    pub existing: bool,
}

impl std::fmt::Debug for PersonRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PersonRef")
            .field("email", &self.email)
            .field("existing", &self.existing)
            .finish_non_exhaustive()
    }
}

/// A [`PersonRef`] after the look-up. No field of it is ignored.
pub(super) enum ResolvedPerson {
    Known(Email),
    /// With a password the caller vouches for them; without one they are to be invited.
    New {
        email: Email,
        password_hash: Option<String>,
    },
}

/// Handle for listing, disabling, resetting and removing people, as an operator: [`Freehold::people`].
#[derive(Clone, Copy)]
pub struct People<'a>(&'a Freehold);

impl Freehold {
    /// Lists, disables, resets and removes people, as an operator.
    pub fn people(&self) -> People<'_> {
        People(self)
    }
}

impl People<'_> {
    /// Pages through people in the order of e-mails, beginning after `after`. `limit` defaults to 50 and is
    /// at most [`PAGE_MAX`](crate::control::PAGE_MAX).
    pub async fn list(
        self,
        context: &OperatorContext,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<Person>> {
        self.0.page_of_people(context, false, after, limit).await
    }

    /// The identity of the person with this address.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn find_id(self, context: &OperatorContext, email: &str) -> Result<IdentityId> {
        let email: Email = email.parse()?;
        let mut tx = self.0.catalog(context).await?;
        let found = identities::find_by_email(&mut tx, email.as_str()).await?;
        tx.commit().await?;
        found.map(|identity| identity.id).ok_or_else(no_such_person)
    }

    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn get(self, context: &OperatorContext, id: IdentityId) -> Result<PersonDetail> {
        let mut tx = self.0.catalog(context).await?;
        let person = identities::find_person(&mut tx, id).await?.ok_or_else(no_such_person)?;
        let tenants = memberships::list_tenants(&mut tx, id, None, 1000).await?;
        let sessions = sessions::list(&mut tx, id).await?;
        tx.commit().await?;
        let tenants = tenants.into_iter().map(|(t, role)| (t.slug.into(), role.as_str())).collect();
        Ok(PersonDetail { person, tenants, sessions })
    }

    /// Locks a person out, within a second on every server: sign-in, sessions, tokens, API. Their memberships
    /// stay; invitations that they made end.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] for the last operator. Disabling a disabled person is
    /// no error.
    pub async fn disable(self, context: &OperatorContext, id: IdentityId) -> Result<Person> {
        let mut tx = self.0.catalog(context).await?;
        require_not_last_operator(&mut tx, id).await?;
        let identity = lock(&mut tx, id).await?;
        if !identity.is_disabled {
            identities::set_disabled(&mut tx, id, true).await?;
            let ended = in_tenants(context, "the person was disabled");
            invitations::end_of_person(&mut tx, id, ended).await?;
            proof::end_everything(&mut tx, &identity, None).await?;
            audit::record(
                &mut tx,
                AuditEvent::of(AuditAction::PersonDisable, context).to(id, &identity.email),
            )
            .await?;
        }
        finish(tx, id).await
    }

    /// Allows a disabled person to sign in again. Their former sessions stay ended.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]. Enabling a person who is not disabled is no error.
    pub async fn enable(self, context: &OperatorContext, id: IdentityId) -> Result<Person> {
        let mut tx = self.0.catalog(context).await?;
        let identity = lock(&mut tx, id).await?;
        if identity.is_disabled {
            identities::set_disabled(&mut tx, id, false).await?;
            audit::record(
                &mut tx,
                AuditEvent::of(AuditAction::PersonEnable, context).to(id, &identity.email),
            )
            .await?;
        }
        finish(tx, id).await
    }

    /// Removes a person with password, sessions and memberships. Their entries in the record stay for as long
    /// as the record is kept.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] for the last operator, and for the only owner of a
    /// tenant, which needs another owner first.
    pub async fn remove(self, context: &OperatorContext, id: IdentityId) -> Result<()> {
        let mut tx = self.0.catalog(context).await?;
        require_not_last_operator(&mut tx, id).await?;
        let identity = lock(&mut tx, id).await?;
        let alone = memberships::list_owned_alone(&mut tx, id).await?;
        if !alone.is_empty() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "this person is the only owner of {}; give each another owner first",
                    alone.join(", ")
                ),
            ));
        }
        let ended = in_tenants(context, "the person was removed");
        invitations::end_of_person(&mut tx, id, &ended).await?;
        proof::end_memberships(&mut tx, &identity, &ended).await?;
        proof::end_everything(&mut tx, &identity, None).await?;
        audit::record(
            &mut tx,
            AuditEvent::of(AuditAction::PersonRemove, context).to(id, &identity.email),
        )
        .await?;
        identities::delete(&mut tx, id).await?;
        tx.commit().await
    }

    /// Deletes a person's password and ends all their sessions and outstanding tokens. If a new password is
    /// given, it is set, and the operator vouches for the address; otherwise a message is sent with which the
    /// person chooses one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::InvalidInput`]; [`ErrorKind::Forbidden`] for a disabled person.
    pub async fn reset(
        self,
        context: &OperatorContext,
        id: IdentityId,
        password: Option<String>,
    ) -> Result<Person> {
        if password.is_some() {
            self.0.require_voucher(context)?;
        }
        let hash = match password {
            Some(password) => Some(self.0.hash_password(password).await?),
            None => None,
        };
        let mut tx = self.0.catalog(context).await?;
        let identity = lock(&mut tx, id).await?;
        if identity.is_disabled {
            return Err(proof::disabled());
        }
        match hash {
            Some(hash) => {
                let by = proof::by_word(context.actor(), context.reason());
                let proven = proof::prove(&mut tx, &identity.email.parse()?, "", &by).await?;
                proof::replace_password(&mut tx, &proven, &hash, None).await?;
            }
            None => {
                proof::end_everything(&mut tx, &identity, None).await?;
                identities::delete_password(&mut tx, id).await?;
                outbox::insert(&mut tx, &Letter::new(MailKind::Reset, &identity.email)).await?;
            }
        }
        audit::record(
            &mut tx,
            AuditEvent::of(AuditAction::PersonReset, context).to(id, &identity.email),
        )
        .await?;
        finish(tx, id).await
    }

    /// Vouches that a person's address is theirs. If it was never proven, everything that was stored under it
    /// before is deleted, and the person chooses a password by mail.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::InvalidInput`] without a reason; [`ErrorKind::Forbidden`] for a
    /// disabled person.
    pub async fn vouch_for(
        self,
        context: &OperatorContext,
        id: IdentityId,
        why: &str,
    ) -> Result<Person> {
        self.0.require_voucher(context)?;
        let why = check_reason(why)?;
        let mut tx = self.0.catalog(context).await?;
        let identity = lock(&mut tx, id).await?;
        let by = proof::by_word(context.actor(), why);
        proof::prove(&mut tx, &identity.email.parse()?, "", &by).await?;
        finish(tx, id).await
    }

    /// Deletes what has expired: sessions, links, messages, guesses, idempotency keys, old entries of the
    /// record. Any server may call it, periodically.
    pub async fn prune(self) -> Result<()> {
        let mut tx = self.0.catalog(&OperatorContext::system("forget what has ended")).await?;
        sessions::prune_all(&mut tx).await?;
        sign_ups::prune(&mut tx).await?;
        password_resets::prune(&mut tx).await?;
        address_changes::prune(&mut tx).await?;
        catalog::invitations::prune(&mut tx).await?;
        idempotency::prune(&mut tx).await?;
        outbox::prune(&mut tx).await?;
        guesses::prune(&mut tx).await?;
        audit::prune(&mut tx).await?;
        tx.commit().await
    }

    /// Ends one session of a person, or all of them.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn end_sessions(
        self,
        context: &OperatorContext,
        id: IdentityId,
        session: Option<Uuid>,
    ) -> Result<()> {
        let mut tx = self.0.catalog(context).await?;
        let identity = lock(&mut tx, id).await?;
        let event = AuditEvent::of(AuditAction::SessionEnd, context).to(id, &identity.email);
        match session {
            Some(session) => {
                if !sessions::revoke(&mut tx, session, id).await? {
                    return Err(no_such_session());
                }
            }
            None => {
                sessions::revoke_all(&mut tx, id, None).await?;
            }
        }
        audit::record(&mut tx, event.detail(serde_json::json!({"session": session}))).await?;
        tx.commit().await
    }
}

impl Freehold {
    pub(super) async fn page_of_people(
        &self,
        context: &OperatorContext,
        operators: bool,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<Person>> {
        let after = check_after(after)?;
        let mut tx = self.catalog(context).await?;
        let list = identities::list_people(&mut tx, operators, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// Looks up the person meant by an address, before anything is changed. A given password is either used
    /// or refused.
    pub(super) async fn understand(
        &self,
        context: &OperatorContext,
        named: PersonRef,
    ) -> Result<ResolvedPerson> {
        let email: Email = named.email.parse()?;
        let mut tx = self.catalog(context).await?;
        let found = identities::find_by_email(&mut tx, email.as_str()).await?;
        tx.commit().await?;
        let proven = found.is_some_and(|identity| identity.is_proven);
        match (named.existing, proven, named.password) {
            (true, _, Some(_)) => Err(Error::new(
                ErrorKind::InvalidInput,
                "a known person keeps their own password: leave it out, or reset the person's password",
            )
            .field("password")),
            (true, false, None) => Err(Error::new(
                ErrorKind::NotFound,
                "no person has proven this e-mail: vouch for it first, or leave `existing` out to name a new person",
            )
            .field("email")),
            (true, true, None) => Ok(ResolvedPerson::Known(email)),
            (false, true, _) => Err(Error::new(
                ErrorKind::EmailTaken,
                "a person with this e-mail is known; say `existing` to mean this person",
            )
            .field("email")),
            (false, false, None) => Ok(ResolvedPerson::New { email, password_hash: None }),
            (false, false, Some(password)) => {
                self.require_voucher(context)?;
                let password_hash = Some(self.hash_password(password).await?);
                Ok(ResolvedPerson::New { email, password_hash })
            }
        }
    }

    /// Only an operator who has signed in, or a caller with the owner's URL, may vouch.
    fn require_voucher(&self, context: &OperatorContext) -> Result<()> {
        match context.actor() {
            IdentityId::SYSTEM => self.owner_pool().map(drop).map_err(|_| {
                Error::new(
                    ErrorKind::Setup,
                    "to vouch for an address takes the owner's connection: set DATABASE_OWNER_URL",
                )
            }),
            _ => Ok(()),
        }
    }
}

/// The known person with this address. Its proof was checked before, and is checked again.
pub(super) async fn known(tx: &mut CatalogTx, email: &Email) -> Result<Identity> {
    let found = identities::lock_by_email(tx, email.as_str()).await?;
    let identity = found.filter(|identity| identity.is_proven).ok_or_else(no_such_person)?;
    if identity.is_disabled {
        return Err(proof::disabled());
    }
    Ok(identity)
}

/// Creates a person with a password, for whom the caller vouches.
pub(super) async fn vouched(
    tx: &mut CatalogTx,
    context: &OperatorContext,
    email: &Email,
    name: &str,
    password_hash: &str,
) -> Result<Identity> {
    if proof::hold(tx, email, name).await?.is_proven {
        return Err(Error::new(
            ErrorKind::EmailTaken,
            "a person with this e-mail has become known meanwhile; say `existing` to mean this person",
        ));
    }
    let by = proof::by_word(context.actor(), context.reason());
    let identity = proof::prove(tx, email, name, &by).await?;
    identities::set_password(tx, identity.id, password_hash).await?;
    let event = AuditEvent::of(AuditAction::PasswordSet, context).to(identity.id, &identity.email);
    audit::record(tx, event).await?;
    Ok(identity)
}

async fn lock(tx: &mut CatalogTx, id: IdentityId) -> Result<Identity> {
    identities::lock(tx, id).await?.ok_or_else(no_such_person)
}

pub(super) async fn finish(mut tx: CatalogTx, id: IdentityId) -> Result<Person> {
    let person = identities::find_person(&mut tx, id).await?.ok_or_else(no_such_person)?;
    tx.commit().await?;
    Ok(person)
}

pub(super) fn no_such_person() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such person")
}

pub(super) fn no_such_session() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such session")
}

/// What an operator's change to a person ends in tenants. Their owners read the record, and not what the operator
/// says about the person.
pub(super) fn in_tenants(
    context: &OperatorContext,
    why: &'static str,
) -> impl Fn(AuditAction) -> AuditEvent {
    let actor = context.actor();
    move |action| AuditEvent::by(action, actor).because(why)
}

/// Refuses to remove the last operator.
pub(super) async fn require_not_last_operator(tx: &mut CatalogTx, id: IdentityId) -> Result<()> {
    if identities::lock_operators(tx).await? == [id] {
        return Err(Error::new(
            ErrorKind::Conflict,
            "this is the last operator; make another one first",
        ));
    }
    Ok(())
}
