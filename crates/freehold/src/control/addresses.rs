//! Changes a person's address once it is confirmed from both mailboxes.

use std::net::IpAddr;

use uuid::Uuid;

use super::guessing::Guesses;
use super::sessions::{SignIn, signed_out};
use crate::catalog::address_changes::{self, AddressChange};
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::identities;
use crate::catalog::outbox::{self, Letter};
use crate::error::{Error, ErrorKind, Result};
use crate::model::audit::AuditAction;
use crate::model::ids::Email;
use crate::model::mail::MailKind;
use crate::sign_in::proof::{self, unknown_link};
use crate::sign_in::tokens::{AccessClaims, OpaqueKind, OpaqueToken};
use crate::tx::CatalogTx;

pub use crate::catalog::address_changes::Mailbox;

/// The progress of a change of address.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct AddressState {
    /// Whether the address has been replaced.
    pub changed: bool,
    /// The mailbox from which the confirmation is missing.
    pub waits_for: Option<Mailbox>,
}

impl SignIn {
    /// Sends a message to the present address and one to the new address; the address is replaced when both
    /// have confirmed. If the new address belongs to another person, the message there says so; the caller is
    /// not told.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] for a wrong password, and for a person whose present address was never
    /// proven; [`ErrorKind::InvalidInput`], [`ErrorKind::RateLimited`].
    pub async fn request_address_change(
        &self,
        claims: &AccessClaims,
        email: &str,
        password: String,
        client: IpAddr,
    ) -> Result<()> {
        let email: Email = email.parse()?;
        let (identity, taken) = self.require_password(claims, password, "password", client).await?;
        if email.as_str() == identity.email {
            return Err(
                Error::new(ErrorKind::InvalidInput, "this is the present address").field("email")
            );
        }
        if !identity.is_proven {
            return Err(Error::new(
                ErrorKind::Forbidden,
                "the present address was never proven; ask for a new password by mail first",
            ));
        }
        let mut tx = self.catalog("ask for another address").await?;
        let present = identities::lock(&mut tx, identity.id).await?;
        if !present.is_some_and(|now| now.epoch == identity.epoch && !now.is_disabled) {
            return Err(signed_out());
        }
        taken.give_back(&mut tx).await?;
        let id = Uuid::now_v7();
        let taken_by_other = identities::find_by_email(&mut tx, email.as_str()).await?.is_some();
        let kind = if taken_by_other { MailKind::AddressTaken } else { MailKind::AddressProof };
        let to_new = Letter::new(kind, email.as_str()).about(id);
        if outbox::has_room(&mut tx, &to_new).await?.is_err() {
            return Err(Error::rate_limited(3600));
        }
        address_changes::upsert(&mut tx, id, identity.id, &email).await?;
        outbox::insert(&mut tx, &Letter::new(MailKind::AddressLeave, &identity.email).about(id))
            .await?;
        outbox::insert(&mut tx, &to_new).await?;
        let event = AuditEvent::by(AuditAction::AddressRequest, identity.id)
            .to(identity.id, &identity.email);
        audit::record(&mut tx, event.detail(serde_json::json!({"new": email.as_str()}))).await?;
        tx.commit().await
    }

    /// Confirms the change from one of the two mailboxes. With the second confirmation the address is
    /// replaced, and all sessions and outstanding tokens end.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a token that is unknown, used or expired; [`ErrorKind::Conflict`] if the
    /// new address has become another person's meanwhile; [`ErrorKind::RateLimited`].
    pub async fn confirm_address(&self, token: &str, client: IpAddr) -> Result<AddressState> {
        let token =
            OpaqueToken::parse(OpaqueKind::AddressChange, token).map_err(|_| unknown_link())?;
        let mut tx = self.catalog("confirm an address").await?;
        let counted = self.guesses.by_client(&mut tx, client).await;
        let found = address_changes::lock(&mut tx, &token.hash()).await?;
        let Some((change, mailbox)) = found.filter(|_| counted.is_ok()) else {
            let _counted = Guesses::commit(tx, counted).await?;
            return Err(unknown_link());
        };
        let waits_for = match mailbox {
            Mailbox::Old => (!change.new_confirmed).then_some(Mailbox::New),
            Mailbox::New => (!change.old_confirmed).then_some(Mailbox::Old),
        };
        address_changes::confirm(&mut tx, change.id, mailbox).await?;
        if waits_for.is_none() {
            replace_address(&mut tx, &change).await?;
        }
        tx.commit().await?;
        Ok(AddressState { changed: waits_for.is_none(), waits_for })
    }
}

async fn replace_address(tx: &mut CatalogTx, change: &AddressChange) -> Result<()> {
    let identity = identities::lock(tx, change.identity).await?.ok_or_else(unknown_link)?;
    if identity.is_disabled {
        return Err(proof::disabled());
    }
    if !identities::set_email(tx, identity.id, &change.email).await? {
        return Err(Error::new(
            ErrorKind::Conflict,
            "the new address has become another person's meanwhile",
        ));
    }
    proof::end_everything(tx, &identity, None).await?;
    identities::set_proven(tx, identity.id, &proof::by_letter(MailKind::AddressProof)).await?;
    let addresses = vec![identity.email.clone(), change.email.clone()];
    for email in &addresses {
        let letter = Letter::new(MailKind::AddressChanged, email);
        outbox::insert(tx, &Letter { addresses: addresses.clone(), ..letter }).await?;
    }
    let event =
        AuditEvent::by(AuditAction::AddressChange, identity.id).to(identity.id, &change.email);
    audit::record(tx, event.detail(serde_json::json!({"former": identity.email}))).await
}
