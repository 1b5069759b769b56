//! How a person comes to a tenant: by a sign-up of their own, or by an invitation.

use std::net::IpAddr;

use uuid::Uuid;

use super::credentials::{Credentials, wrong_credentials, wrong_password};
use super::guessing::{Guesses, Taken};
use super::members::may_offer;
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
use crate::model::context::OperatorContext;
use crate::model::ids::{Email, IdentityId, Slug};
use crate::model::mail::MailKind;
use crate::model::tenant::check_name;
use crate::sign_in::passwords::check_rules;
use crate::sign_in::proof::{self, is_known, unknown_link};
use crate::sign_in::tokens::{AccessClaims, OpaqueKind, OpaqueToken};
use crate::tx::CatalogTx;

/// A tenant that a person asks for on their own.
pub struct SignUp {
    /// As for a [`Slug`].
    pub slug: String,
    /// The tenant's display name, 1 to 200 characters.
    pub name: String,
    /// The owner's.
    pub email: String,
    /// A new one, or the owner's own if they are known already. [`SignIn::sign_up`] needs one; what
    /// [`SignIn::request_sign_up`] is given has to be given again with the token, and without one it is
    /// chosen then.
    pub password: Option<String>,
    /// With one, a repeated request is answered as the first was, and does nothing more.
    pub idempotency: Option<IdempotencyKey>,
}

/// An invitation, as somebody accepts it.
#[derive(Clone, Default)]
pub struct Acceptance {
    /// From the letter.
    pub token: String,
    /// Of somebody who was never proven, a new one; of somebody known, their own, unless they have
    /// signed in.
    pub password: Option<String>,
    /// The name of somebody new.
    pub name: String,
    /// Who has signed in, if somebody has.
    pub claims: Option<AccessClaims>,
}

impl SignIn {
    /// Takes a sign-up, and has a letter sent whose token confirms it. Known and unknown addresses get
    /// the same answer after the same work. Nothing is kept of the slug: who confirms first has it.
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
        }
        tx.commit().await
    }

    /// Makes the tenant of a sign-up: the address is proven by its token. `slug` takes the place of the
    /// one that was asked for, which may be taken by now.
    ///
    /// `password`: somebody known gives their own; the one that was given at sign-up has to be given
    /// again, so that nobody confirms a password that a stranger chose; otherwise it is chosen now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a token that is unknown, used or expired; [`ErrorKind::Forbidden`] with
    /// the field `password` if it is not the right one; [`ErrorKind::SlugTaken`],
    /// [`ErrorKind::InvalidInput`], [`ErrorKind::RateLimited`]; [`ErrorKind::Setup`] if this server has no
    /// owner connection.
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
            // Guesses at the password that was given; those at a person's own are counted with it.
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

    /// Makes a tenant at once, for an address that nobody has proven: for development, and for networks
    /// in which everybody is known. Whoever proves the address later takes it over, and the ownership
    /// that it had before is gone. Somebody who is known already gives their password.
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
        // Which names are taken may be asked as often as passwords may be tried, but in a crowd
        // after one name nobody learns more than the first.
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

    /// Counts something that a client may not do without end, and that has no other count.
    async fn count_client(&self, client: IpAddr) -> Result<()> {
        let mut tx = self.catalog("count a client").await?;
        let counted = self.guesses.by_client(&mut tx, client).await;
        Guesses::commit(tx, counted).await.map(drop)
    }

    /// Turns an invitation into a membership. Somebody whose address was never proven sets the password
    /// they give; somebody known has signed in, or gives their own.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a token that is unknown, used or expired, and for one whose inviter
    /// may not make it any more; [`ErrorKind::InvalidInput`], [`ErrorKind::Unauthenticated`],
    /// [`ErrorKind::Forbidden`] for somebody else who has signed in, [`ErrorKind::RateLimited`],
    /// [`ErrorKind::TenantSuspended`].
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
        let known_id = known.as_ref().map(|identity| identity.id);
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
            // Somebody new, or known without a password: the token was sent to them.
            (_, None, Some(password)) => Some(self.freehold().hasher().hash(password).await?),
            (_, None, None) => {
                return Err(
                    Error::new(ErrorKind::InvalidInput, "choose a password").field("password")
                );
            }
        };
        let mut tx = self.catalog("accept an invitation").await?;
        counted.give_back(&mut tx).await?;
        let offer = invitations::take(&mut tx, &token.hash()).await?.ok_or_else(unknown)?;
        require_right(&mut tx, &offer).await?;
        let tenant = tenants::find(&mut tx, offer.tenant).await?.ok_or_else(unknown)?;
        tenant.status.require_active()?;
        let by = proof::by_letter(MailKind::Invitation);
        let before = identities::lock_by_email(&mut tx, &email).await?;
        let before = before.filter(|identity| identity.is_proven).map(|identity| identity.id);
        if before != known_id {
            return Err(Error::new(
                ErrorKind::Retryable,
                "this person has become known meanwhile; try again",
            ));
        }
        let identity = proof::prove(&mut tx, &email.parse()?, &name, &by).await?;
        if let Some(hash) = &hash {
            identities::set_password(&mut tx, identity.id, hash).await?;
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
    let event = AuditEvent::by("member.join", identity.id).to(identity.id, &identity.email);
    let detail = serde_json::json!({"role": role, "invited_by": offer.inviter.id()});
    audit::record(tx, event.tenant(offer.tenant).detail(detail)).await
}

/// An offer is as good as the right of who made it is at this moment.
async fn require_right(tx: &mut CatalogTx, offer: &Offer) -> Result<()> {
    let may = match offer.inviter {
        Inviter::Operator(IdentityId::SYSTEM) => true,
        Inviter::Operator(id) => {
            let operator = identities::find(tx, id).await?;
            operator.is_some_and(|operator| operator.is_operator && !operator.is_disabled)
        }
        Inviter::Member(id) => {
            let role = memberships::lock(tx, offer.tenant, id).await?;
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
