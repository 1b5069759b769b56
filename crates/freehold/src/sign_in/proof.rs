//! Proofs of addresses and their consequences. An address that was only typed is a claim; rights belong to
//! the person who has proven it.

use serde_json::json;
use uuid::Uuid;

use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::identities::{self, Identity, Proof};
use crate::catalog::outbox::{self, Letter};
use crate::catalog::{
    address_changes, invitations, memberships, password_resets, sessions, sign_ups,
};
use crate::error::{Error, ErrorKind, Result};
use crate::model::audit::AuditAction;
use crate::model::ids::{Email, IdentityId};
use crate::model::mail::MailKind;
use crate::tx::CatalogTx;

/// The row of an address, locked; a new one, not proven, if there was none. Two that name an address at once
/// take turns, and the second sees what the first has made of it.
pub(crate) async fn hold(tx: &mut CatalogTx, email: &Email, name: &str) -> Result<Identity> {
    let found = match identities::insert(tx, email, name).await? {
        Some(new) => Some(new),
        None => identities::lock_by_email(tx, email.as_str()).await?,
    };
    found.ok_or_else(|| {
        Error::new(ErrorKind::Retryable, "this e-mail was given away meanwhile; try again")
    })
}

/// Records the proof of an address, or that an operator vouches for it, and returns the person. The first
/// proof deletes everything that was stored under the address before (password, sessions, memberships,
/// tokens, invitations), since the person who entered it never proved the address.
///
/// # Errors
/// [`ErrorKind::Forbidden`] for a disabled person.
pub(crate) async fn prove(
    tx: &mut CatalogTx,
    email: &Email,
    name: &str,
    proof: &Proof,
) -> Result<Identity> {
    let identity = hold(tx, email, name).await?;
    if identity.is_disabled {
        return Err(disabled());
    }
    if identity.is_proven {
        return Ok(identity);
    }
    drop_past(tx, &identity, proof).await?;
    identities::set_proven(tx, identity.id, proof).await?;
    if !name.is_empty() {
        identities::set_name(tx, identity.id, name).await?;
    }
    let event = match proof.by {
        Some(by) => AuditEvent::by(AuditAction::PersonVouch, by),
        None => AuditEvent::by(AuditAction::PersonProve, identity.id),
    };
    audit::record(tx, event.to(identity.id, &identity.email).because(&proof.why)).await?;
    Ok(Identity { is_proven: true, epoch: identity.epoch + 1, ..identity })
}

/// Deletes what was stored under the address before it was proven.
async fn drop_past(tx: &mut CatalogTx, identity: &Identity, proof: &Proof) -> Result<()> {
    let by = proof.by.unwrap_or(identity.id);
    identities::delete_password(tx, identity.id).await?;
    end_memberships(tx, identity, |action| without_proof(action, by)).await?;
    super::invitations::end_of_person(tx, identity.id, |action| without_proof(action, by)).await?;
    end_everything(tx, identity, None).await
}

/// Ends all memberships of a person. The owners of each tenant find that in their record.
pub(crate) async fn end_memberships(
    tx: &mut CatalogTx,
    identity: &Identity,
    event: impl Fn(AuditAction) -> AuditEvent,
) -> Result<()> {
    for (tenant, role) in memberships::delete_of(tx, identity.id).await? {
        let event = event(AuditAction::MemberRemove).to(identity.id, &identity.email);
        audit::record(tx, event.tenant(tenant).detail(json!({ "role": role }))).await?;
    }
    Ok(())
}

fn without_proof(action: AuditAction, by: IdentityId) -> AuditEvent {
    AuditEvent::by(action, by).because("an address without proof")
}

/// Ends all sessions and outstanding tokens of a person, except the session `except`; and the invitations
/// that they made, if the address was never proven.
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
    if identity.is_proven {
        // A thief of the person's mail may hold one of these.
        invitations::forget_tokens(tx, &identity.email).await?;
    } else {
        let ended = |action| without_proof(action, identity.id);
        super::invitations::end_of_person(tx, identity.id, ended).await?;
    }
    Ok(())
}

/// Sets a password, and ends everything that the former one gave access to. The person is informed by mail.
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

/// Whether the address belongs to a person who has proven it and has a password.
pub(crate) async fn is_known(tx: &mut CatalogTx, email: &str) -> Result<bool> {
    Ok(identities::find_credential(tx, email).await?.is_some_and(|found| found.is_known()))
}

/// The error for a token from a message that is unknown, used or expired.
pub(crate) fn unknown_link() -> Error {
    Error::new(ErrorKind::NotFound, "the link is unknown, used or expired")
}

pub(crate) fn disabled() -> Error {
    Error::new(ErrorKind::Forbidden, "this person is disabled; an operator can enable them")
}

/// A proof by a token that was sent to the address.
pub(crate) fn by_letter(kind: MailKind) -> Proof {
    Proof { by: None, why: format!("a token that was sent to the address: {}", kind.as_str()) }
}

/// A proof by an operator who vouches for the address.
pub(crate) fn by_word(by: IdentityId, why: &str) -> Proof {
    Proof { by: Some(by), why: why.to_owned() }
}
