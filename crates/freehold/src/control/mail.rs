//! Messages to people. A message is composed when it is sent, so its token exists only in the message itself.

use std::time::Duration;

use jiff::Timestamp;

use super::sessions::SignIn;
use crate::catalog::address_changes::Mailbox;
use crate::catalog::outbox::{self, Due};
use crate::catalog::{
    address_changes, identities, invitations, password_resets, sign_ups, tenants,
};
use crate::error::Result;
use crate::model::mail::{self, Facts, MailKind, Message};
use crate::sign_in::tokens::{OpaqueKind, OpaqueToken};
use crate::tx::CatalogTx;

/// How long sending a message may take; afterwards another server may send it too.
pub const SEND_MAX: Duration = Duration::from_secs(30);

/// Why a message could not be sent.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// For operators. It contains nothing from the message.
    pub error: String,
    /// Whether it would fail again, for example because the mailbox does not exist.
    pub permanent: bool,
}

/// The outcome of sending a message that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// No message was due.
    Nothing,
    /// It was sent.
    Sent,
    /// The message had become pointless, or had no recipient any more.
    Dropped,
    /// It was not sent; it will be tried again.
    Delayed,
    /// It was not sent, and is not tried again.
    Failed,
}

impl SignIn {
    /// Composes the next message that is due, if there is one, and sends it. Call it again until it returns
    /// [`Delivery::Nothing`], and then whenever [`Freehold::mail_changes`](crate::Freehold::mail_changes)
    /// changes or a second has passed. Concurrent calls are allowed.
    ///
    /// `send` gets at most [`SEND_MAX`]. A message that could not be sent is tried again eight times within
    /// about two hours, each time with a new token.
    pub async fn deliver_letter(
        &self,
        send: impl AsyncFnOnce(&Message) -> Result<(), Undelivered>,
    ) -> Result<Delivery> {
        let mut tx = self.catalog("take up a letter").await?;
        let Some(due) = outbox::take_due(&mut tx, 1).await?.pop() else {
            tx.commit().await?;
            return Ok(Delivery::Nothing);
        };
        let Some(message) = self.write(&mut tx, &due).await? else {
            outbox::drop(&mut tx, due.id).await?;
            tx.commit().await?;
            return Ok(Delivery::Dropped);
        };
        // Committed before sending, so that the token is valid when the recipient can have it.
        tx.commit().await?;
        let sent = tokio::time::timeout(SEND_MAX, send(&message)).await.unwrap_or_else(|_| {
            Err(Undelivered { error: "no end within 30 s".to_owned(), permanent: false })
        });
        let mut tx = self.catalog("note what became of a letter").await?;
        let delivery = match sent {
            Ok(()) => {
                outbox::set_sent(&mut tx, due.id).await?;
                Delivery::Sent
            }
            Err(Undelivered { error, permanent }) => {
                let given_up = outbox::set_failed(&mut tx, due.id, &error, permanent).await?;
                tracing::warn!(letter = %due.id, kind = message.kind.as_str(), error, given_up,
                    "a letter was not sent");
                if given_up { Delivery::Failed } else { Delivery::Delayed }
            }
        };
        tx.commit().await?;
        Ok(delivery)
    }

    /// Composes a message with its token. `None` if it has become pointless.
    async fn write(&self, tx: &mut CatalogTx, due: &Due) -> Result<Option<Message>> {
        let letter = &due.letter;
        let about = letter.about.unwrap_or_default();
        let mut facts = Facts::default();
        let person = identities::find_by_email(tx, &letter.email).await?;
        facts.known = person.as_ref().is_some_and(|person| person.is_proven);
        let link: Option<(OpaqueToken, Timestamp)> = match letter.kind {
            MailKind::SignUp => {
                let token = OpaqueToken::generate(OpaqueKind::SignUp);
                let row = sign_ups::set_token(tx, about, &token.hash()).await?;
                let Some(row) = row else { return Ok(None) };
                facts.tenant = Some(row.name);
                Some((token, row.expires_at))
            }
            MailKind::Invitation => {
                let token = OpaqueToken::generate(OpaqueKind::Invitation);
                let offer = invitations::set_token(tx, about, &token.hash()).await?;
                let Some(offer) = offer else { return Ok(None) };
                let tenant = tenants::find(tx, offer.tenant).await?;
                facts.tenant = tenant.map(|tenant| tenant.name);
                facts.role = Some(offer.invitation.role.as_str().to_owned());
                if let invitations::Inviter::Member(id) = offer.inviter {
                    facts.by = identities::find(tx, id).await?.map(|inviter| inviter.email);
                }
                Some((token, offer.invitation.expires_at))
            }
            MailKind::Reset => {
                let person = person.filter(|person| !person.is_disabled);
                let Some(person) = person else { return Ok(None) };
                let token = OpaqueToken::generate(OpaqueKind::PasswordReset);
                let expires_at = password_resets::insert(tx, person.id, &token.hash()).await?;
                Some((token, expires_at))
            }
            MailKind::AddressLeave | MailKind::AddressProof => {
                let mailbox = match letter.kind {
                    MailKind::AddressLeave => Mailbox::Old,
                    _ => Mailbox::New,
                };
                let token = OpaqueToken::generate(OpaqueKind::AddressChange);
                let change = address_changes::set_token(tx, about, mailbox, &token.hash()).await?;
                let Some(change) = change else { return Ok(None) };
                facts.addresses = Some((change.present, change.email));
                Some((token, change.expires_at))
            }
            MailKind::AddressChanged => {
                let [old, new] = letter.addresses.as_slice() else { return Ok(None) };
                facts.addresses = Some((old.clone(), new.clone()));
                None
            }
            MailKind::AddressTaken | MailKind::PasswordChanged => None,
        };
        let base = self.options.public_url.trim_end_matches('/');
        let host = base.split_once("://").map_or(base, |(_, host)| host);
        let url = link.as_ref().map(|(token, _)| format!("{base}/confirm#{}", token.secret()));
        let expires_at = link.as_ref().map(|(_, expires_at)| *expires_at);
        let (subject, text) = mail::write(letter.kind, &facts, host, url.as_deref(), expires_at);
        Ok(Some(Message {
            id: due.id,
            kind: letter.kind,
            to: letter.email.clone(),
            subject,
            text,
            link: url,
            token: link.map(|(token, _)| token.secret().to_owned()),
            expires_at,
        }))
    }
}
