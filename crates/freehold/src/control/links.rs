//! Reads what a message's link is for, for the page behind it. This does not use the link up, since programs
//! that scan mail open links too.

use std::net::IpAddr;

use jiff::Timestamp;

use super::guessing::Guesses;
use super::sessions::{SignIn, TenantBrief};
use crate::catalog::address_changes::{self, Mailbox};
use crate::catalog::{identities, invitations, password_resets, sign_ups, tenants};
use crate::error::Result;
use crate::model::mail::MailKind;
use crate::sign_in::proof::{is_known, unknown_link};
use crate::sign_in::tokens::{OpaqueKind, OpaqueToken};
use crate::tx::CatalogTx;

/// Which password the page behind a link must ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PasswordPrompt {
    /// None.
    None,
    /// A new password.
    Choose,
    /// The password that was given at sign-up, again.
    Repeat,
    /// The person's present password.
    Own,
}

/// What a link is for.
#[derive(Clone, Debug)]
pub struct Link {
    /// The kind of message it was in.
    pub kind: MailKind,
    /// The address to which the message was sent.
    pub email: String,
    /// Slug and name of the tenant that an invitation is for, or that a sign-up requests.
    pub tenant: Option<(String, String)>,
    /// The role that an invitation gives.
    pub role: Option<&'static str>,
    /// The password that must be given with the token.
    pub password: PasswordPrompt,
    /// The present address and the new one, for a change of address.
    pub addresses: Option<(String, String)>,
    /// When the link expires.
    pub expires_at: Timestamp,
}

impl SignIn {
    /// Returns what a link's token is for. To its holder that is no secret: the message says it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a token that is unknown, used or expired;
    /// [`ErrorKind::RateLimited`](crate::ErrorKind::RateLimited).
    pub async fn inspect_link(&self, token: &str, client: IpAddr) -> Result<Link> {
        let mut tx = self.catalog("look at a link").await?;
        let counted = self.guesses.by_client(&mut tx, client).await;
        let found = match counted {
            Ok(_) => find(&mut tx, token).await?,
            Err(_) => None,
        };
        // A known link does not count as a guess.
        match (counted, found) {
            (Ok(taken), Some(link)) => {
                taken.give_back(&mut tx).await?;
                tx.commit().await?;
                Ok(link)
            }
            (counted, _) => {
                let _counted = Guesses::commit(tx, counted).await?;
                Err(unknown_link())
            }
        }
    }
}

async fn find(tx: &mut CatalogTx, token: &str) -> Result<Option<Link>> {
    let parse = |kind| OpaqueToken::parse(kind, token).ok().map(|token| token.hash());
    if let Some(hash) = parse(OpaqueKind::SignUp) {
        let Some(row) = sign_ups::find(tx, &hash).await? else { return Ok(None) };
        let password = match (is_known(tx, &row.email).await?, &row.password_hash) {
            (true, _) => PasswordPrompt::Own,
            (false, Some(_)) => PasswordPrompt::Repeat,
            (false, None) => PasswordPrompt::Choose,
        };
        return Ok(Some(Link {
            kind: MailKind::SignUp,
            email: row.email,
            tenant: Some((row.slug, row.name)),
            role: None,
            password,
            addresses: None,
            expires_at: row.expires_at,
        }));
    }
    if let Some(hash) = parse(OpaqueKind::Invitation) {
        let Some(offer) = invitations::find(tx, &hash).await? else { return Ok(None) };
        let Some(tenant) = tenants::find(tx, offer.tenant).await? else { return Ok(None) };
        let known = is_known(tx, &offer.invitation.email).await?;
        let tenant = TenantBrief::from(&tenant);
        return Ok(Some(Link {
            kind: MailKind::Invitation,
            email: offer.invitation.email,
            tenant: Some((tenant.slug.into(), tenant.name)),
            role: Some(offer.invitation.role.as_str()),
            password: if known { PasswordPrompt::Own } else { PasswordPrompt::Choose },
            addresses: None,
            expires_at: offer.invitation.expires_at,
        }));
    }
    if let Some(hash) = parse(OpaqueKind::PasswordReset) {
        let Some((id, expires_at)) = password_resets::lock(tx, &hash).await? else {
            return Ok(None);
        };
        let Some(identity) = identities::find(tx, id).await? else { return Ok(None) };
        return Ok(Some(Link {
            kind: MailKind::Reset,
            email: identity.email,
            tenant: None,
            role: None,
            password: PasswordPrompt::Choose,
            addresses: None,
            expires_at,
        }));
    }
    if let Some(hash) = parse(OpaqueKind::AddressChange) {
        let Some((change, mailbox)) = address_changes::lock(tx, &hash).await? else {
            return Ok(None);
        };
        let (kind, email) = match mailbox {
            Mailbox::Old => (MailKind::AddressLeave, &change.present),
            Mailbox::New => (MailKind::AddressProof, &change.email),
        };
        return Ok(Some(Link {
            kind,
            email: email.clone(),
            tenant: None,
            role: None,
            password: PasswordPrompt::None,
            addresses: Some((change.present, change.email)),
            expires_at: change.expires_at,
        }));
    }
    Ok(None)
}
