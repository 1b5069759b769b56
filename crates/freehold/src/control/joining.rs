//! How a person comes to a tenant: by a sign-up of their own, or by an invitation.

use std::net::IpAddr;

use super::sessions::{SignIn, TenantBrief, wrong_credentials};
use super::tenants::{IdempotencyKey, Provisioned};
use crate::catalog::{identities, invitations, memberships, tenants};
use crate::context::OperatorContext;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Email, Slug};
use crate::passwords::check_rules;
use crate::provisioner::{Order, Owner};
use crate::tenant::check_name;
use crate::tokens::{OpaqueKind, OpaqueToken};

/// A tenant that a person asks for on their own.
pub struct SignUp {
    /// As for a [`Slug`].
    pub slug: String,
    /// The tenant's display name, 1 to 200 characters.
    pub name: String,
    /// The owner's.
    pub email: String,
    /// A new one, or the owner's own if they are known already.
    pub password: String,
    /// With one, a repeated request answers with the tenant that the first one made.
    pub idempotency: Option<IdempotencyKey>,
}

impl SignIn {
    /// Self-service: a person makes a tenant and becomes its owner. Somebody who is known already
    /// gives their password.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], [`ErrorKind::SlugTaken`], [`ErrorKind::EmailTaken`] if the
    /// password is not theirs, [`ErrorKind::IdempotencyKeyReused`], [`ErrorKind::RateLimited`];
    /// [`ErrorKind::Setup`] if this server has no owner connection.
    pub async fn sign_up(&self, new: SignUp, client: IpAddr) -> Result<Provisioned> {
        let slug: Slug = new.slug.parse()?;
        let name = check_name("name", &new.name)?;
        let email: Email = new.email.parse()?;
        check_rules(&new.password)?;
        let mut turn = self.freehold().turns().take(&slug).await;
        // Which names are taken may be asked as often as passwords may be tried, but in a crowd
        // after one name nobody learns more than the first.
        let counted = !turn.is_known_as_taken();
        if counted {
            self.limit(email.as_str(), client)?;
        }
        let context = OperatorContext::system("sign up");
        let free = self.freehold().require_free(&context, &slug, new.idempotency.as_ref()).await;
        if free.as_ref().is_err_and(|error| error.kind() == ErrorKind::SlugTaken) {
            turn.found_taken();
        }
        free?;
        if !counted {
            self.limit(email.as_str(), client)?;
        }
        let (known, exists) = {
            let mut tx = self.catalog("sign up").await?;
            let exists = identities::find_credential(&mut tx, email.as_str()).await?.is_some();
            tx.commit().await?;
            if exists {
                (self.verify_password(email.as_str(), new.password.clone(), None).await?.0, true)
            } else {
                (None, false)
            }
        };
        let owner = match (known, exists) {
            (Some(credential), _) => Owner::Known(credential.identity),
            (None, true) => {
                return Err(Error::new(
                    ErrorKind::EmailTaken,
                    "somebody with this e-mail exists; sign up with their password",
                ));
            }
            (None, false) => self.freehold().prepare_owner(email, "", new.password).await?,
        };
        let order = Order { slug, name, owner: Some(owner), idempotency: new.idempotency };
        let made = self.freehold().provision(&context, order).await;
        if made.as_ref().map_or_else(|error| error.kind() == ErrorKind::SlugTaken, |_| true) {
            turn.found_taken();
        }
        made
    }

    /// Turns an invitation into a membership. Somebody new sets the password they give; somebody
    /// known proves themselves with it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a token that is unknown, used or expired;
    /// [`ErrorKind::InvalidInput`], [`ErrorKind::Unauthenticated`], [`ErrorKind::RateLimited`],
    /// [`ErrorKind::TenantSuspended`].
    pub async fn accept_invitation(
        &self,
        token: &str,
        password: String,
        name: &str,
        client: IpAddr,
    ) -> Result<TenantBrief> {
        let unknown =
            || Error::new(ErrorKind::NotFound, "the invitation is unknown, used or expired");
        let token = OpaqueToken::parse(OpaqueKind::Invitation, token).map_err(|_| unknown())?;
        // Argon2 is slow; it must not run while the invitation's row is locked.
        let mut peek = self.catalog("read an invitation").await?;
        let (_, email, _) =
            invitations::take(&mut peek, &token.hash()).await?.ok_or_else(unknown)?;
        let exists = identities::find_credential(&mut peek, &email).await?.is_some();
        drop(peek);
        let owner = if exists {
            let credential = self.check_password(&email, password, None, client).await?.0;
            Owner::Known(credential.ok_or_else(wrong_credentials)?.identity)
        } else {
            self.freehold().prepare_owner(email.parse()?, name, password).await?
        };
        let mut tx = self.catalog("accept an invitation").await?;
        let (tenant, _, role) =
            invitations::take(&mut tx, &token.hash()).await?.ok_or_else(unknown)?;
        let identity = match owner {
            Owner::Known(identity) => identity,
            Owner::New { identity, password_hash } => {
                if !identities::insert(&mut tx, &identity, &password_hash).await? {
                    return Err(Error::new(
                        ErrorKind::Retryable,
                        "this e-mail was registered meanwhile; try again",
                    ));
                }
                identity
            }
        };
        memberships::insert(&mut tx, tenant, identity.id, role).await?;
        let tenant = tenants::find(&mut tx, tenant).await?.ok_or_else(unknown)?;
        tenant.status.require_active()?;
        tx.commit().await?;
        Ok(TenantBrief::from(&tenant))
    }
}
