//! What a letter's link is about, for the page behind it. Looking uses nothing up: programs that scan
//! mail open links too.

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

/// Which password the page behind a link has to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PasswordPrompt {
    /// None.
    None,
    /// A new one.
    Choose,
    /// The one that was given at sign-up, once more.
    Repeat,
    /// The present one of the person's account.
    Own,
}

/// What a link is about.
#[derive(Clone, Debug)]
pub struct Link {
    /// Which letter it was in.
    pub kind: MailKind,
    /// Whom the letter was sent to.
    pub email: String,
    /// The tenant that an invitation leads to, or the slug and name that a sign-up asks for.
    pub tenant: Option<(String, String)>,
    /// The role that an invitation gives.
    pub role: Option<&'static str>,
    /// What has to come with the token.
    pub password: PasswordPrompt,
    /// The present address and the new one, of a change.
    pub addresses: Option<(String, String)>,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

impl SignIn {
    /// What a link's token is for. To who holds it, that is no secret: it is in the letter.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for one that is unknown, used or expired; [`ErrorKind::RateLimited`](crate::ErrorKind::RateLimited).
    pub async fn inspect_link(&self, token: &str, client: IpAddr) -> Result<Link> {
        let mut tx = self.catalog("look at a link").await?;
        let counted = self.guesses.by_client(&mut tx, client).await;
        let found = match counted {
            Ok(_) => find(&mut tx, token).await?,
            Err(_) => None,
        };
        // A link that is known is no guess.
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
