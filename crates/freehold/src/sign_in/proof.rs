//! Addresses and what follows from their proof. An address that somebody typed is a claim; power goes to
//! who has proven it.

use uuid::Uuid;

use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::identities::{self, Identity, Proof};
use crate::catalog::outbox::{self, Letter};
use crate::catalog::{
    address_changes, invitations, memberships, password_resets, sessions, sign_ups,
};
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::{Email, IdentityId};
use crate::model::mail::MailKind;
use crate::tx::CatalogTx;

/// The person whose address has just been proven, or was vouched for. The first proof makes them: what
/// was there under the address before — password, sessions, memberships, tokens, invitations — was
/// somebody's who only typed it, and goes.
///
/// # Errors
/// [`ErrorKind::Forbidden`] for somebody who is disabled.
pub(crate) async fn prove(
    tx: &mut CatalogTx,
    email: &Email,
    name: &str,
    proof: &Proof,
) -> Result<Identity> {
    let found = match identities::insert(tx, email, name).await? {
        Some(new) => Some(new),
        None => identities::lock_by_email(tx, email.as_str()).await?,
    };
    let identity = found.ok_or_else(|| {
        Error::new(ErrorKind::Retryable, "this e-mail was given away meanwhile; try again")
    })?;
    if identity.is_disabled {
        return Err(disabled());
    }
    if identity.is_proven {
        return Ok(identity);
    }
    drop_past(tx, &identity).await?;
    identities::set_proven(tx, identity.id, proof).await?;
    if !name.is_empty() {
        identities::set_name(tx, identity.id, name).await?;
    }
    let event = match proof.by {
        Some(by) => AuditEvent::by("person.vouch", by),
        None => AuditEvent::by("person.prove", identity.id),
    };
    audit::record(tx, event.to(identity.id, &identity.email).because(&proof.why)).await?;
    Ok(Identity { is_proven: true, epoch: identity.epoch + 1, ..identity })
}

/// What somebody left who never proved the address.
async fn drop_past(tx: &mut CatalogTx, identity: &Identity) -> Result<()> {
    identities::delete_password(tx, identity.id).await?;
    memberships::delete_of(tx, identity.id).await?;
    end_everything(tx, identity, None).await
}

/// Ends all sessions and outstanding tokens of a person, but the session that is named; and the
/// invitations that they made, if they lose their rights with it.
pub(crate) async fn end_everything(
    tx: &mut CatalogTx,
    identity: &Identity,
    except: Option<Uuid>,
) -> Result<()> {
    identities::raise_epoch(tx, identity.id).await?;
    sessions::revoke_all(tx, identity.id, except).await?;
    password_resets::delete_of(tx, identity.id).await?;
    address_changes::delete_of(tx, identity.id).await?;
    sign_ups::delete_of(tx, &identity.email).await?;
    if !identity.is_proven {
        invitations::delete_by(tx, identity.id, None).await?;
    }
    Ok(())
}

/// Sets a password, after which nothing that the former one opened goes on. The person is told.
pub(crate) async fn replace_password(
    tx: &mut CatalogTx,
    identity: &Identity,
    password_hash: &str,
    except: Option<Uuid>,
) -> Result<()> {
    end_everything(tx, identity, except).await?;
    identities::set_password(tx, identity.id, password_hash).await?;
    outbox::insert(tx, &Letter::new(MailKind::PasswordChanged, &identity.email)).await
}

/// Whether the address is a proven person's who has a password.
pub(crate) async fn is_known(tx: &mut CatalogTx, email: &str) -> Result<bool> {
    Ok(identities::find_credential(tx, email).await?.is_some_and(|found| found.is_known()))
}

/// A token from a letter that opens nothing, or nothing any more.
pub(crate) fn unknown_link() -> Error {
    Error::new(ErrorKind::NotFound, "the link is unknown, used or expired")
}

pub(crate) fn disabled() -> Error {
    Error::new(ErrorKind::Forbidden, "this person is disabled; an operator can enable them")
}

/// How an address was proven by what was sent to it.
pub(crate) fn by_letter(kind: MailKind) -> Proof {
    Proof { by: None, why: format!("a token that was sent to the address: {}", kind.as_str()) }
}

/// Somebody vouches for the address.
pub(crate) fn by_word(by: IdentityId, why: &str) -> Proof {
    Proof { by: Some(by), why: why.to_owned() }
}
