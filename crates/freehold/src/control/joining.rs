//! How a person joins a tenant: by signing up, or by accepting an invitation.

use std::net::IpAddr;

use uuid::Uuid;

use super::credentials::{Credentials, wrong_credentials, wrong_password};
use super::guessing::{Guesses, Taken};
use super::sessions::{SignIn, TenantBrief};
use super::tenants::{IdempotencyKey, Provisioned};
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::idempotency::Claimed;
use crate::catalog::identities::{Credential, Identity};
use crate::catalog::invitations::{Inviter, Offer};
use crate::catalog::outbox::{self, Letter};
use crate::catalog::{idempotency, identities, invitations, memberships, sign_ups, tenants};
use crate::error::{Error, ErrorKind, Result};
use crate::fleet::provisioner::{NewPerson, Order, Owner, SignUpToken};
use crate::model::audit::AuditAction;
use crate::model::context::OperatorContext;
use crate::model::ids::{Email, IdentityId, Slug};
use crate::model::mail::MailKind;
use crate::model::tenant::check_name;
use crate::sign_in::invitations::may_offer;
use crate::sign_in::passwords::check_rules;
use crate::sign_in::proof::{self, is_known, unknown_link};
use crate::sign_in::tokens::{AccessClaims, OpaqueKind, OpaqueToken};
use crate::tx::CatalogTx;

/// A sign-up: a request for a new tenant, made by its future owner.
pub struct SignUp {
    /// As for a [`Slug`].
    pub slug: String,
    /// The tenant's display name, 1 to 200 characters.
    pub name: String,
    /// The owner's address.
    pub email: String,
    /// A new password, or the owner's present one if they are known. [`SignIn::sign_up`] requires it. If
    /// [`SignIn::request_sign_up`] gets one, the same must be given again with the token; if not, it is
    /// chosen then.
    pub password: Option<String>,
    /// With a key, a repeated request is answered like the first one and has no further effect.
    pub idempotency: Option<IdempotencyKey>,
}

/// The acceptance of an invitation.
#[derive(Clone, Default)]
pub struct Acceptance {
    /// The token from the message.
    pub token: String,
    /// A new password for a person whose address was never proven; the present one of a known person, unless
    /// they have signed in.
    pub password: Option<String>,
    /// The name of a new person.
    pub name: String,
    /// The caller's claims, if they have signed in.
    pub claims: Option<AccessClaims>,
}

impl SignIn {
    /// Accepts a sign-up, and sends a message whose token confirms it. Known and unknown addresses get the
    /// same answer after the same work. The slug is not reserved: the first sign-up to be confirmed gets it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], [`ErrorKind::SlugTaken`], [`ErrorKind::IdempotencyKeyReused`],
    /// [`ErrorKind::RateLimited`].
    pub async fn request_sign_up(&self, new: SignUp, client: IpAddr) -> Result<()> {
        let slug: Slug = new.slug.parse()?;
        let name = check_name("name", &new.name)?;
        let email: Email = new.email.parse()?;
        if let Some(password) = &new.password {
            check_rules(password)?;
        }
        let mut tx = self.catalog("sign up").await?;
        let counted = self.guesses.by_client(&mut tx, client).await;
        let taken = tenants::find_by_slug(&mut tx, &slug).await?.is_some();
        let _counted = Guesses::commit(tx, counted).await?;
        if taken {
            return Err(tenants::slug_taken(&slug));
        }
        let hash = match new.password {
            Some(password) => Some(self.freehold().hasher().hash(password).await?),
            None => None,
        };
        let mut tx = self.catalog("sign up").await?;
        if let Some(key) = &new.idempotency
            && let Claimed::Repeated(_) = idempotency::claim(&mut tx, key, None).await?
        {
            return Ok(());
        }
        let id = Uuid::now_v7();
        let letter = Letter::new(MailKind::SignUp, email.as_str()).about(id);
        if outbox::has_room(&mut tx, &letter).await?.is_ok() {
            sign_ups::insert(&mut tx, id, &email, slug.as_str(), &name, hash.as_deref()).await?;
            outbox::insert(&mut tx, &letter).await?;
            let event = AuditEvent::by_nobody(AuditAction::SignupRequest).address(&email);
            let detail = serde_json::json!({"slug": slug.as_str()});
            audit::record(&mut tx, event.detail(detail)).await?;
        }
        tx.commit().await
    }

    /// Creates the tenant of a sign-up; its token proves the address. `slug` replaces the requested one,
    /// which may be taken by now.
    ///
    /// `password`: a known person gives their present one. If a password was given at sign-up, it must be
    /// given again, so that a person does not confirm a password that a stranger chose. Otherwise it is
    /// chosen now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a token that is unknown, used or expired; [`ErrorKind::Forbidden`] with
    /// the field `password` if it is wrong; [`ErrorKind::SlugTaken`], [`ErrorKind::InvalidInput`],
    /// [`ErrorKind::RateLimited`]; [`ErrorKind::Setup`] if this server has no owner connection.
    pub async fn confirm_sign_up(
        &self,
        token: &str,
        password: String,
        slug: Option<&str>,
        client: IpAddr,
    ) -> Result<Provisioned> {
        let token = OpaqueToken::parse(OpaqueKind::SignUp, token).map_err(|_| unknown_link())?;
        let slug: Option<Slug> = slug.map(str::parse).transpose()?;
        let mut tx = self.catalog("look at a sign-up").await?;
        let row = sign_ups::find(&mut tx, &token.hash()).await?;
        let known = match &row {
            Some(row) => is_known(&mut tx, &row.email).await?,
            None => false,
        };
        let counted = match &row {
            // Guesses at the password given at sign-up. Guesses at a known person's own password are counted
            // when it is checked.
            Some(row) if !known => {
                self.guesses.at_password(&mut tx, &row.email, client, None).await
            }
            _ => self.guesses.by_client(&mut tx, client).await,
        };
        let taken = Guesses::commit(tx, counted).await?;
        let row = row.ok_or_else(unknown_link)?;
        let email: Email = row.email.parse()?;
        let hasher = self.freehold().hasher();
        let owner = if known {
            let credentials =
                Credentials { email: row.email.clone(), password, ..Credentials::default() };
            let (credential, _, again) = self.check_password(credentials, client).await?;
            let identity = credential.ok_or_else(|| wrong_password("password"))?.identity;
            self.give_back(again).await?;
            Owner::Known(identity)
        } else {
            let password_hash = match row.password_hash {
                Some(hash) => {
                    if !hasher.verify(password, Some(hash.clone())).await? {
                        return Err(Error::new(
                            ErrorKind::Forbidden,
                            "this is not the password that was given at sign-up; if that was not you, \
                             sign up yourself",
                        )
                        .field("password"));
                    }
                    hash
                }
                None => hasher.hash(password).await?,
            };
            let proof = Some(proof::by_letter(MailKind::SignUp));
            Owner::New(NewPerson { email, name: String::new(), password_hash, proof })
        };
        self.give_back(taken).await?;
        let slug = match slug {
            Some(slug) => slug,
            None => row.slug.parse()?,
        };
        let context = OperatorContext::system("sign up");
        self.freehold().require_free(&context, &slug, None).await?;
        let sign_up = Some(SignUpToken { id: row.id, hash: token.hash() });
        let order = Order { slug, name: row.name, owner: Some(owner), idempotency: None, sign_up };
        self.freehold().provision(&context, order).await
    }

    async fn give_back(&self, taken: Taken) -> Result<()> {
        let mut tx = self.catalog("give a guess back").await?;
        taken.give_back(&mut tx).await?;
        tx.commit().await
    }

    /// Creates a tenant at once, for an address that is not proven; for development, and for networks in
    /// which every user is known. If a person proves the address later, they take it over, and the membership
    /// that it had before is deleted. A known person gives their password.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], [`ErrorKind::SlugTaken`], [`ErrorKind::Unauthenticated`] if the
    /// password is not theirs, [`ErrorKind::IdempotencyKeyReused`], [`ErrorKind::RateLimited`];
    /// [`ErrorKind::Setup`] if this server has no owner connection.
    pub async fn sign_up(&self, new: SignUp, client: IpAddr) -> Result<Provisioned> {
        let slug: Slug = new.slug.parse()?;
        let name = check_name("name", &new.name)?;
        let email: Email = new.email.parse()?;
        let password = new.password.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "a password is needed").field("password")
        })?;
        check_rules(&password)?;
        let mut turn = self.freehold().slug_locks().take(&slug).await;
        // A client may ask whether a name is taken as often as it may try passwords. Among many requests for
        // one name, only the first counts: the others learn nothing more.
        let counted = !turn.is_known_as_taken();
        if counted {
            self.count_client(client).await?;
        }
        let context = OperatorContext::system("sign up");
        let free = self.freehold().require_free(&context, &slug, new.idempotency.as_ref()).await;
        if free.as_ref().is_err_and(|error| error.kind() == ErrorKind::SlugTaken) {
            turn.found_taken();
        }
        free?;
        if !counted {
            self.count_client(client).await?;
        }
        let mut tx = self.catalog("sign up").await?;
        let exists = identities::find_by_email(&mut tx, email.as_str()).await?.is_some();
        tx.commit().await?;
        let owner = if exists {
            let email = email.as_str().to_owned();
            let credentials = Credentials { email, password, ..Credentials::default() };
            let (credential, _, taken) = self.check_password(credentials, client).await?;
            let credential = credential.ok_or_else(wrong_credentials)?;
            self.give_back(taken).await?;
            Owner::Known(credential.identity)
        } else {
            let password_hash = self.freehold().hasher().hash(password).await?;
            Owner::New(NewPerson { email, name: String::new(), password_hash, proof: None })
        };
        let order =
            Order { slug, name, owner: Some(owner), idempotency: new.idempotency, sign_up: None };
        let made = self.freehold().provision(&context, order).await;
        if made.as_ref().map_or_else(|error| error.kind() == ErrorKind::SlugTaken, |_| true) {
            turn.found_taken();
        }
        made
    }

    /// Counts a request that must be limited per client and that no other budget limits.
    async fn count_client(&self, client: IpAddr) -> Result<()> {
        let mut tx = self.catalog("count a client").await?;
        let counted = self.guesses.by_client(&mut tx, client).await;
        Guesses::commit(tx, counted).await.map(drop)
    }

    /// Turns an invitation into a membership. A person whose address was never proven sets the password that
    /// they give; a known person has signed in, or gives their present one.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a token that is unknown, used or expired, or whose inviter no longer has
    /// the right to invite; [`ErrorKind::InvalidInput`], [`ErrorKind::Unauthenticated`],
    /// [`ErrorKind::Forbidden`] if another person than the invited one has signed in,
    /// [`ErrorKind::RateLimited`], [`ErrorKind::TenantSuspended`].
    pub async fn accept_invitation(
        &self,
        acceptance: Acceptance,
        client: IpAddr,
    ) -> Result<TenantBrief> {
        let Acceptance { token, password, name, claims } = acceptance;
        let unknown = unknown_invitation;
        let token = OpaqueToken::parse(OpaqueKind::Invitation, &token).map_err(|_| unknown())?;
        let name = if name.trim().is_empty() { String::new() } else { check_name("name", &name)? };
        // Argon2 is slow; it must not run while the invitation's row is locked.
        let mut peek = self.catalog("look at an invitation").await?;
        let counted = self.guesses.by_client(&mut peek, client).await;
        let offer = invitations::find(&mut peek, &token.hash()).await?;
        let email = offer.as_ref().map(|offer| offer.invitation.email.clone());
        let email = email.unwrap_or_default();
        let credential = identities::find_credential(&mut peek, &email).await?;
        let counted = Guesses::commit(peek, counted).await?;
        offer.ok_or_else(unknown)?;
        let has_password = credential.as_ref().is_some_and(Credential::is_known);
        let known = credential.map(|found| found.identity).filter(|identity| identity.is_proven);
        // The epoch rises with each password that is set or taken away.
        let state = |identity: &Identity| (identity.id, identity.epoch);
        let known_state = known.as_ref().map(state);
        let hash = match (known, &claims, password) {
            (Some(known), Some(claims), _) if IdentityId::from(claims.sub) == known.id => None,
            (_, Some(_), _) => {
                return Err(Error::new(
                    ErrorKind::Forbidden,
                    "the invitation is for another address than that of who has signed in",
                ));
            }
            (Some(_), None, Some(password)) if has_password => {
                let email = email.clone();
                let credentials = Credentials { email, password, ..Credentials::default() };
                let (credential, _, taken) = self.check_password(credentials, client).await?;
                credential.ok_or_else(wrong_credentials)?;
                self.give_back(taken).await?;
                None
            }
            (Some(_), None, None) if has_password => {
                return Err(Error::new(
                    ErrorKind::Unauthenticated,
                    "this person is known: sign in and accept, or give the password with the token",
                ));
            }
            // A new person, or a known one without a password: the token was sent to them.
            (_, None, Some(password)) => Some(self.freehold().hasher().hash(password).await?),
            (_, None, None) => {
                return Err(
                    Error::new(ErrorKind::InvalidInput, "choose a password").field("password")
                );
            }
        };
        let mut tx = self.catalog("accept an invitation").await?;
        counted.give_back(&mut tx).await?;
        // The person comes before the invitation, as in whatever ends the invitations of a person.
        let before = identities::lock_by_email(&mut tx, &email).await?;
        let offer = invitations::take(&mut tx, &token.hash()).await?.ok_or_else(unknown)?;
        require_right(&mut tx, &offer).await?;
        let tenant = tenants::find(&mut tx, offer.tenant).await?.ok_or_else(unknown)?;
        tenant.status.require_active()?;
        let by = proof::by_letter(MailKind::Invitation);
        let before = before.filter(|identity| identity.is_proven);
        if before.as_ref().map(state) != known_state {
            return Err(Error::new(
                ErrorKind::Retryable,
                "this person has changed meanwhile; try again",
            ));
        }
        let identity = proof::prove(&mut tx, &email.parse()?, &name, &by).await?;
        match &hash {
            Some(hash) if before.is_some() => {
                proof::replace_password(&mut tx, &identity, hash, None).await?;
            }
            Some(hash) => identities::set_password(&mut tx, identity.id, hash).await?,
            None => {}
        }
        if hash.is_some() {
            let event = AuditEvent::by(AuditAction::PasswordSet, identity.id);
            let event = event.to(identity.id, &identity.email).tenant(offer.tenant);
            audit::record(&mut tx, event.because("by an invitation")).await?;
        }
        join(&mut tx, &offer, &identity).await?;
        tx.commit().await?;
        Ok(TenantBrief::from(&tenant))
    }
}

async fn join(tx: &mut CatalogTx, offer: &Offer, identity: &Identity) -> Result<()> {
    let role = offer.invitation.role;
    if !memberships::insert(tx, offer.tenant, identity.id, role).await? {
        return Err(Error::new(ErrorKind::Conflict, "this person is a member already"));
    }
    let event =
        AuditEvent::by(AuditAction::MemberJoin, identity.id).to(identity.id, &identity.email);
    let detail = serde_json::json!({"role": role, "invited_by": offer.inviter.id()});
    audit::record(tx, event.tenant(offer.tenant).detail(detail)).await
}

/// Checks that the inviter still has the right to make this offer. The offer's row is locked, and whatever
/// takes that right away deletes the row; so the inviter's own rows need no lock, which could be a deadlock.
async fn require_right(tx: &mut CatalogTx, offer: &Offer) -> Result<()> {
    let may = match offer.inviter {
        Inviter::Operator(IdentityId::SYSTEM) => true,
        Inviter::Operator(id) => {
            let operator = identities::find(tx, id).await?;
            operator.is_some_and(|operator| operator.is_operator && !operator.is_disabled)
        }
        Inviter::Member(id) => {
            let role = memberships::find_role(tx, offer.tenant, id).await?;
            let inviter = identities::find(tx, id).await?;
            inviter.is_some_and(|inviter| !inviter.is_disabled)
                && role.is_some_and(|role| may_offer(role, offer.invitation.role))
        }
    };
    if may { Ok(()) } else { Err(unknown_invitation()) }
}

fn unknown_invitation() -> Error {
    Error::new(ErrorKind::NotFound, "the invitation is unknown, used or expired")
}
