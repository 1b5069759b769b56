//! Passwords: checked only here, after the guess is counted. A person who knows the present password can
//! change it, and a person who can read mail to the address can choose a new one.

use std::net::IpAddr;
use std::time::SystemTime;

use super::guessing::{Guesses, Taken};
use super::sessions::{MEMBERSHIPS_MAX, SignIn, Tokens, signed_out};
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::identities::{Credential, Identity};
use crate::catalog::outbox::{self, Letter};
use crate::catalog::{identities, memberships, password_resets, sessions};
use crate::error::{Error, ErrorKind, Result};
use crate::model::actor::Role;
use crate::model::audit::AuditAction;
use crate::model::ids::{Email, IdentityId, Slug};
use crate::model::mail::MailKind;
use crate::model::tenant::Tenant;
use crate::sign_in::passwords::{check_rules, needs_rehash};
use crate::sign_in::proof::{self, unknown_link};
use crate::sign_in::tokens::{AccessClaims, Device, OpaqueKind, OpaqueToken};

/// What a person signs in with.
#[derive(Clone, Default)]
pub struct Credentials {
    /// As it was typed.
    pub email: String,
    /// As it was typed.
    pub password: String,
    /// The slug of the tenant to sign in to; needed only by members of several tenants.
    pub tenant: Option<String>,
    /// The [`Tokens::device_token`](crate::control::sessions::Tokens::device_token) of the last sign-in from
    /// this device. With it, guesses from elsewhere do not lock the person out.
    pub device_token: Option<String>,
}

impl SignIn {
    /// Signs in by password. If no tenant is named: to the person's only tenant, or as an operator.
    ///
    /// An unknown e-mail, a wrong password, a disabled person and a tenant of which the person is not a
    /// member cause the same error, after the same work. `client` is the address for which guesses are
    /// counted: behind a proxy, the one that the proxy saw.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`], [`ErrorKind::RateLimited`], [`ErrorKind::TenantRequired`],
    /// [`ErrorKind::TenantSuspended`]; [`ErrorKind::Forbidden`] for a person without any tenant.
    pub async fn log_in(&self, credentials: Credentials, client: IpAddr) -> Result<Tokens> {
        let tenant = credentials.tenant.clone();
        let (credential, tenants, taken) = self.check_password(credentials, client).await?;
        let Some(Credential { identity, .. }) = credential else {
            // Logged without the input: people sometimes type the password into the wrong field.
            tracing::warn!(%client, "a sign-in was refused");
            return Err(wrong_credentials());
        };
        let _turn = self.turn().await?;
        let mut tx = self.catalog("sign in").await?;
        let place = match choose_place(&identity, tenant.is_some(), tenants) {
            Ok(place) => place,
            Err(refused) => {
                // If the answer looks like that to a wrong password, the guess must count like one too.
                if refused.kind() != ErrorKind::Unauthenticated {
                    taken.give_back(&mut tx).await?;
                }
                tx.commit().await?;
                return Err(refused);
            }
        };
        // If the password was changed meanwhile, the former one must no longer open a session.
        let present = identities::lock(&mut tx, identity.id).await?;
        if !present.is_some_and(|now| now.epoch == identity.epoch && !now.is_disabled) {
            return Err(wrong_credentials());
        }
        sessions::prune(&mut tx, identity.id).await?;
        let at = place.as_ref().map(|(tenant, _)| tenant.id);
        let lifetime = self.options.session_lifetime.as_secs_f64();
        let session = sessions::insert(&mut tx, identity.id, at, lifetime).await?;
        let refresh = OpaqueToken::generate(OpaqueKind::Refresh);
        sessions::insert_token(&mut tx, session.id, &refresh.hash()).await?;
        let mut event =
            AuditEvent::by(AuditAction::SessionStart, identity.id).to(identity.id, &identity.email);
        if let Some(tenant) = at {
            event = event.tenant(tenant);
        }
        audit::record(&mut tx, event).await?;
        // Last, since other sign-ins wait for the row: all people behind one client address share it.
        taken.give_back(&mut tx).await?;
        tx.commit().await?;
        let device_token = Some(self.new_device(&identity));
        Ok(Tokens { device_token, ..self.tokens(&session, place.as_ref(), Some(refresh), None)? })
    }

    /// Checks e-mail and password. Returns the person if the password is right; the person's tenants, or only
    /// the one that was named; and what the guess has taken from its budgets, to be given back if it was
    /// right. Takes the same time whether or not the person and the tenant exist.
    pub(super) async fn check_password(
        &self,
        credentials: Credentials,
        client: IpAddr,
    ) -> Result<(Option<Credential>, Vec<(Tenant, Role)>, Taken)> {
        // A malformed address is looked up as an empty one, so that the answer takes as long.
        let email = credentials.email.parse::<Email>();
        let email = email.map_or_else(|_| String::new(), |email| email.as_str().to_owned());
        // So is a malformed slug.
        let tenant = credentials.tenant.map(|slug| slug.parse::<Slug>());
        let tenant = tenant.map(|slug| slug.map_or_else(|_| String::new(), String::from));
        let turn = self.turn().await?;
        let mut tx = self.catalog("sign in").await?;
        let mut credential = identities::find_credential(&mut tx, &email).await?;
        let device = credentials.device_token.as_deref().and_then(|text| self.open_device(text));
        let device = device.filter(|device| {
            credential.as_ref().is_some_and(|known| {
                (known.identity.id, known.identity.epoch) == (device.identity, device.epoch)
            })
        });
        let device = device.as_ref().map(|device| device.id);
        let id = credential.as_ref().map_or(IdentityId::SYSTEM, |c| c.identity.id);
        let tenants =
            memberships::list_tenants(&mut tx, id, tenant.as_deref(), MEMBERSHIPS_MAX).await?;
        // Last, since other sign-ins wait for the row: all people behind one client address share it.
        let counted =
            self.guesses.at_password(&mut tx, &credentials.email, client, device.as_ref()).await;
        let taken = Guesses::commit(tx, counted).await;
        drop(turn);
        let taken = taken?;
        let stored = credential.as_mut().and_then(|c| c.password_hash.take());
        let outdated = stored.clone().filter(|hash| needs_rehash(hash));
        let hasher = self.freehold().hasher();
        let matches = hasher.verify(credentials.password.clone(), stored).await?;
        if let Some(outdated) = outdated.filter(|_| matches) {
            let fresh = hasher.hash(credentials.password).await?;
            let mut tx = self.catalog("renew a password's hash").await?;
            identities::renew_hash(&mut tx, id, &outdated, &fresh).await?;
            tx.commit().await?;
        }
        let credential = credential.filter(|known| matches && !known.identity.is_disabled);
        Ok((credential, tenants, taken))
    }

    /// Checks the present password of a session's person. Guesses are counted for the session, so that no
    /// other client can use them up.
    pub(super) async fn require_password(
        &self,
        claims: &AccessClaims,
        password: String,
        field: &'static str,
        client: IpAddr,
    ) -> Result<(Identity, Taken)> {
        let id = IdentityId::from(claims.sub);
        let mut tx = self.catalog("check a password").await?;
        let credential = identities::find_credential_of(&mut tx, id).await?;
        let Credential { identity, password_hash } = credential.ok_or_else(signed_out)?;
        let session = claims.sid.as_bytes();
        let counted =
            self.guesses.at_password(&mut tx, &identity.email, client, Some(session)).await;
        let taken = Guesses::commit(tx, counted).await?;
        if !self.freehold().hasher().verify(password, password_hash).await? {
            return Err(wrong_password(field));
        }
        Ok((identity, taken))
    }

    /// A new device token of the person, as the client stores it.
    pub(super) fn new_device(&self, identity: &Identity) -> String {
        let device = Device::new(identity.id, identity.epoch);
        device.seal(self.options.tokens.keyring(), SystemTime::now())
    }

    fn open_device(&self, text: &str) -> Option<Device> {
        Device::open(text, self.options.tokens.keyring(), SystemTime::now())
    }

    /// Changes the caller's password. All other sessions and outstanding tokens of the caller end, and a
    /// message informs the caller. Returns a device token that replaces the former one.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] with the field `current_password` if it is wrong;
    /// [`ErrorKind::InvalidInput`] with the field `new_password`, [`ErrorKind::RateLimited`].
    pub async fn change_password(
        &self,
        claims: &AccessClaims,
        current: String,
        new: String,
        client: IpAddr,
    ) -> Result<String> {
        check_rules(&new).map_err(|error| Error::from(error).field("new_password"))?;
        let (identity, taken) =
            self.require_password(claims, current, "current_password", client).await?;
        let hash = self.freehold().hasher().hash(new).await?;
        let mut tx = self.catalog("change a password").await?;
        let present = identities::lock(&mut tx, identity.id).await?;
        let present = present.filter(|now| now.epoch == identity.epoch && !now.is_disabled);
        let present = present.ok_or_else(signed_out)?;
        taken.give_back(&mut tx).await?;
        proof::replace_password(&mut tx, &present, &hash, Some(claims.sid)).await?;
        let event =
            AuditEvent::by(AuditAction::PasswordChange, present.id).to(present.id, &present.email);
        audit::record(&mut tx, event).await?;
        // Read again, since the change has raised the epoch.
        let changed = identities::find(&mut tx, present.id).await?.ok_or_else(signed_out)?;
        tx.commit().await?;
        Ok(self.new_device(&changed))
    }

    /// Sends a message with which the owner of the address can choose a new password. Neither the answer nor
    /// its time shows whether the address belongs to a person: that is looked up only when the message is
    /// written.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for text that is not an address, [`ErrorKind::RateLimited`].
    pub async fn request_reset(&self, email: &str, client: IpAddr) -> Result<()> {
        let email: Email = email.parse()?;
        let mut tx = self.catalog("ask for a new password").await?;
        let counted = self.guesses.by_client(&mut tx, client).await;
        let letter = Letter::new(MailKind::Reset, email.as_str());
        if counted.is_ok() && outbox::has_room(&mut tx, &letter).await?.is_ok() {
            outbox::insert(&mut tx, &letter).await?;
            let event = AuditEvent::by_nobody(AuditAction::PasswordRequest).address(&email);
            audit::record(&mut tx, event).await?;
        }
        Guesses::commit(tx, counted).await.map(drop)
    }

    /// Sets a new password for the person to whom the token was sent. All their sessions and outstanding
    /// tokens end. If the address had never been proven, it is now, and everything that was stored under it
    /// before is deleted.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a token that is unknown, used or expired; [`ErrorKind::InvalidInput`],
    /// [`ErrorKind::RateLimited`]; [`ErrorKind::Forbidden`] for a disabled person.
    pub async fn confirm_reset(&self, token: &str, password: String, client: IpAddr) -> Result<()> {
        check_rules(&password)?;
        let token =
            OpaqueToken::parse(OpaqueKind::PasswordReset, token).map_err(|_| unknown_link())?;
        // Argon2 is slow: it must not run while the token's row is locked, nor for an unknown token.
        let mut peek = self.catalog("look at a reset").await?;
        let counted = self.guesses.by_client(&mut peek, client).await;
        let known = password_resets::lock(&mut peek, &token.hash()).await?.is_some();
        let _counted = Guesses::commit(peek, counted).await?;
        if !known {
            return Err(unknown_link());
        }
        let hash = self.freehold().hasher().hash(password).await?;
        let mut tx = self.catalog("choose a new password").await?;
        let (id, _) =
            password_resets::lock(&mut tx, &token.hash()).await?.ok_or_else(unknown_link)?;
        let identity = identities::lock(&mut tx, id).await?.ok_or_else(unknown_link)?;
        let by = proof::by_letter(MailKind::Reset);
        let identity = proof::prove(&mut tx, &identity.email.parse()?, "", &by).await?;
        proof::replace_password(&mut tx, &identity, &hash, None).await?;
        let event = AuditEvent::by(AuditAction::PasswordReset, identity.id)
            .to(identity.id, &identity.email);
        audit::record(&mut tx, event).await?;
        tx.commit().await
    }
}

/// The tenant to sign in to after the password was right; `None` for an operator.
fn choose_place(
    identity: &Identity,
    tenant_named: bool,
    tenants: Vec<(Tenant, Role)>,
) -> Result<Option<(Tenant, Role)>> {
    let place = match tenant_named {
        true => Some(tenants.into_iter().next().ok_or_else(wrong_credentials)?),
        false if identity.is_operator => None,
        false => Some(only_one(tenants)?),
    };
    if let Some((tenant, _)) = &place {
        tenant.status.require_active()?;
    }
    Ok(place)
}

/// The tenant to sign in to if none was named.
fn only_one(mut tenants: Vec<(Tenant, Role)>) -> Result<(Tenant, Role)> {
    match tenants.len() {
        1 => Ok(tenants.remove(0)),
        0 => Err(Error::new(
            ErrorKind::Forbidden,
            "you belong to no tenant; sign up or ask for an invitation",
        )),
        _ => {
            let slugs: Vec<_> = tenants.iter().take(20).map(|(t, _)| t.slug.as_str()).collect();
            Err(Error::new(
                ErrorKind::TenantRequired,
                format!("you belong to several tenants; name one: {}", slugs.join(", ")),
            )
            .field("tenant"))
        }
    }
}

pub(super) fn wrong_credentials() -> Error {
    Error::new(ErrorKind::Unauthenticated, "the e-mail, the password or the tenant is wrong")
}

pub(super) fn wrong_password(field: &'static str) -> Error {
    Error::new(ErrorKind::Forbidden, "this is not the present password").field(field)
}
