//! Sign-in: sessions and their tokens. Passwords are tried here and nowhere else, behind the
//! limiter; [`joining`](super::joining) tries them by the same function.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use uuid::Uuid;

use crate::Freehold;
use crate::actor::Role;
use crate::catalog::identities::Credential;
use crate::catalog::sessions::{Exchange, Session};
use crate::catalog::{identities, memberships, sessions};
use crate::context::{OperatorContext, TenantContext};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Email, IdentityId, Slug, TenantId};
use crate::limiter::{SignInLimiter, SignInLimits};
use crate::passwords::needs_rehash;
use crate::tenant::Tenant;
use crate::tokens::{
    ACCESS_LIFETIME, AccessClaims, AccessTokens, KeyError, Keyring, OpaqueKind, OpaqueToken,
    Subject,
};
use crate::tx::CatalogTx;
use crate::violations::{Violation, ViolationKind};

/// More tenants than this are not listed to a person at sign-in.
const MEMBERSHIPS_MAX: i64 = 1000;

/// How sign-in works.
#[derive(Clone, Debug)]
pub struct SignInOptions {
    /// Signs and verifies access tokens.
    pub tokens: AccessTokens,
    /// How long an access token is good: 1 s to
    /// [`ACCESS_LIFETIME_MAX`](crate::tokens::ACCESS_LIFETIME_MAX).
    pub access_lifetime: Duration,
    /// How long after a sign-in its session ends, however often it was refreshed.
    pub session_lifetime: Duration,
    /// How often passwords may be tried.
    pub limits: SignInLimits,
}

impl SignInOptions {
    /// Signs tokens with `secret` for the issuer and audience `freehold`; access for
    /// [`ACCESS_LIFETIME`], sessions of 30 days, the default limits.
    ///
    /// # Errors
    /// [`KeyError::TooShort`]: a secret has at least 32 bytes.
    pub fn new(secret: &str) -> Result<SignInOptions, KeyError> {
        let keyring = Keyring::new(secret, &[] as &[&str])?;
        Ok(SignInOptions {
            tokens: AccessTokens::new(keyring, "freehold", "freehold"),
            access_lifetime: ACCESS_LIFETIME,
            session_lifetime: Duration::from_secs(30 * 24 * 3600),
            limits: SignInLimits::default(),
        })
    }
}

/// Sign-in over a [`Freehold`]: a service that has its own needs none of it.
pub struct SignIn {
    freehold: Freehold,
    options: SignInOptions,
    pub(super) limiter: SignInLimiter,
}

/// What a person gets who has signed in.
#[derive(Clone, Debug, Serialize)]
pub struct Tokens {
    /// A JWT, for the header `Authorization: Bearer …`.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u64,
    /// Good once, at [`SignIn::refresh`]. Absent from [`SignIn::switch_tenant`]: the one before stays
    /// good.
    pub refresh_token: Option<String>,
    /// The role in the tenant; `operator` without one.
    pub role: Role,
    /// Absent for an operator.
    pub tenant: Option<TenantBrief>,
}

/// What people see of a tenant.
#[derive(Clone, Debug, Serialize)]
pub struct TenantBrief {
    /// Its identifier.
    pub id: TenantId,
    /// Its name in URLs.
    pub slug: Slug,
    /// Its display name.
    pub name: String,
}

impl From<&Tenant> for TenantBrief {
    fn from(tenant: &Tenant) -> Self {
        TenantBrief { id: tenant.id, slug: tenant.slug.clone(), name: tenant.name.clone() }
    }
}

/// Who asks, after their token was verified.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Somebody in a tenant that is active.
    Tenant(TenantContext, AccessClaims),
    /// Somebody who runs the platform.
    Operator(OperatorContext, AccessClaims),
}

/// A person with their tenants.
#[derive(Clone, Debug, Serialize)]
pub struct Me {
    /// Their identifier, the same in every tenant.
    pub id: IdentityId,
    /// In lower case.
    pub email: String,
    /// A display name; empty if none was given.
    pub name: String,
    /// In the tenant that the token is for; `operator` without one.
    pub role: Role,
    /// The tenant that the token is for.
    pub tenant: Option<TenantBrief>,
    /// All they belong to, in the order of slugs; 1,000 at most.
    pub tenants: Vec<MyTenant>,
}

/// A tenant that a person belongs to.
#[derive(Clone, Debug, Serialize)]
pub struct MyTenant {
    /// Which.
    #[serde(flatten)]
    pub tenant: TenantBrief,
    /// Their role in it.
    pub role: Role,
}

impl SignIn {
    /// Keeps the count of attempts at passwords, so make one per process and share it.
    pub fn new(freehold: Freehold, options: SignInOptions) -> SignIn {
        let limiter = SignInLimiter::new(options.limits);
        SignIn { freehold, options, limiter }
    }

    /// The fleet that people sign in to.
    pub fn freehold(&self) -> &Freehold {
        &self.freehold
    }

    /// Signs in by password. Without `tenant`: to the only one the person belongs to, or as an
    /// operator.
    ///
    /// An unknown e-mail, a wrong password and a tenant that the person does not belong to are
    /// one error, after the same work. `client` is whose attempts are counted: behind a proxy, the
    /// address that the proxy saw.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`], [`ErrorKind::RateLimited`], [`ErrorKind::TenantRequired`],
    /// [`ErrorKind::TenantSuspended`]; [`ErrorKind::Forbidden`] for a person without any tenant.
    pub async fn log_in(
        &self,
        email: &str,
        password: String,
        tenant: Option<&str>,
        client: IpAddr,
    ) -> Result<Tokens> {
        let (credential, tenants) = self.check_password(email, password, tenant, client).await?;
        let credential = credential.ok_or_else(wrong_credentials)?;
        let identity = credential.identity;
        let place = match tenant {
            Some(_) => Some(tenants.into_iter().next().ok_or_else(wrong_credentials)?),
            None if identity.is_operator => None,
            None => Some(only_one(tenants)?),
        };
        if let Some((tenant, _)) = &place {
            tenant.status.require_active()?;
        }
        let session = Session {
            id: Uuid::new_v4(),
            identity: identity.id,
            tenant: place.as_ref().map(|(tenant, _)| tenant.id),
        };
        let mut tx = self.catalog("sign in").await?;
        sessions::prune(&mut tx, identity.id).await?;
        sessions::insert(&mut tx, &session, self.options.session_lifetime.as_secs_f64()).await?;
        let refresh = new_refresh_token(&mut tx, session.id).await?;
        tx.commit().await?;
        self.tokens(&session, place.as_ref(), Some(refresh))
    }

    /// Counts an attempt at a password.
    pub(super) fn limit(&self, email: &str, client: IpAddr) -> Result<()> {
        self.limiter.check(email, client).map_err(|wait| Error::rate_limited(wait.seconds()))
    }

    /// [`verify_password`](Self::verify_password), after the attempt was counted.
    pub(super) async fn check_password(
        &self,
        email: &str,
        password: String,
        tenant: Option<&str>,
        client: IpAddr,
    ) -> Result<(Option<Credential>, Vec<(Tenant, Role)>)> {
        self.limit(email, client)?;
        self.verify_password(email, password, tenant).await
    }

    /// The person whose password this is, if it is, and their tenants, or the one of them that is
    /// named. Takes the same time whether or not there is such a person, or such a tenant.
    pub(super) async fn verify_password(
        &self,
        email: &str,
        password: String,
        tenant: Option<&str>,
    ) -> Result<(Option<Credential>, Vec<(Tenant, Role)>)> {
        // A malformed address belongs to nobody, and takes as long to say so.
        let email =
            email.parse::<Email>().map_or_else(|_| String::new(), |e| e.as_str().to_owned());
        // Nor does a malformed slug.
        let tenant =
            tenant.map(|slug| slug.parse::<Slug>().map_or_else(|_| String::new(), String::from));
        let mut tx = self.catalog("sign in").await?;
        let mut credential = identities::find_credential(&mut tx, &email).await?;
        let id = credential.as_ref().map_or(IdentityId::SYSTEM, |c| c.identity.id);
        let tenants =
            memberships::list_tenants(&mut tx, id, tenant.as_deref(), MEMBERSHIPS_MAX).await?;
        tx.commit().await?;
        let stored = credential.as_mut().and_then(|c| c.password_hash.take());
        let outdated = stored.as_deref().is_some_and(needs_rehash);
        let hasher = self.freehold.hasher();
        let matches = hasher.verify(password.clone(), stored).await?;
        if matches && outdated {
            let fresh = hasher.hash(password).await?;
            let mut tx = self.catalog("renew a password's hash").await?;
            identities::set_password(&mut tx, id, &fresh).await?;
            tx.commit().await?;
        }
        Ok((credential.filter(|_| matches), tenants))
    }

    /// Exchanges a refresh token for new tokens. Each is good once: one that comes back ends the
    /// session, for then two hold it.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`], [`ErrorKind::TenantSuspended`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens> {
        let token =
            OpaqueToken::parse(OpaqueKind::Refresh, refresh_token).map_err(|_| signed_out())?;
        let mut tx = self.catalog("refresh a session").await?;
        let session = match sessions::exchange(&mut tx, &token.hash()).await? {
            Exchange::Fresh(session) => session,
            Exchange::Unknown => return Err(signed_out()),
            Exchange::Reused(session) => {
                sessions::revoke(&mut tx, session.id).await?;
                tx.commit().await?;
                tracing::warn!(identity = %session.identity, session = %session.id,
                    "a refresh token was used twice; the session is ended");
                return Err(Error::new(
                    ErrorKind::Unauthenticated,
                    "this refresh token was used before, so the session was ended; sign in again",
                ));
            }
        };
        // Failing from here on rolls back: the token that was presented stays good.
        let place = match session.tenant {
            None => {
                let identity = identities::find(&mut tx, session.identity).await?;
                if !identity.is_some_and(|i| i.is_operator) {
                    return Err(signed_out());
                }
                None
            }
            Some(tenant) => Some(
                memberships::find_tenant(&mut tx, session.identity, tenant)
                    .await?
                    .ok_or_else(signed_out)?,
            ),
        };
        if let Some((tenant, _)) = &place {
            tenant.status.require_active()?;
        }
        let refresh = new_refresh_token(&mut tx, session.id).await?;
        tx.commit().await?;
        self.tokens(&session, place.as_ref(), Some(refresh))
    }

    /// Ends the session of a refresh token. One that is not known is no error: it is signed out.
    pub async fn log_out(&self, refresh_token: &str) -> Result<()> {
        let Ok(token) = OpaqueToken::parse(OpaqueKind::Refresh, refresh_token) else {
            return Ok(());
        };
        let mut tx = self.catalog("sign out").await?;
        match sessions::exchange(&mut tx, &token.hash()).await? {
            Exchange::Unknown => {}
            Exchange::Fresh(session) | Exchange::Reused(session) => {
                sessions::revoke(&mut tx, session.id).await?;
            }
        }
        tx.commit().await
    }

    /// Moves a session to another of the person's tenants. The refresh token stays as it is.
    pub async fn switch_tenant(&self, claims: &AccessClaims, slug: &str) -> Result<Tokens> {
        let mut tx = self.catalog("switch tenant").await?;
        let identity = IdentityId::from(claims.sub);
        if !sessions::is_live(&mut tx, claims.sid, identity).await? {
            return Err(signed_out());
        }
        let named = match slug.parse::<Slug>() {
            Ok(slug) => {
                memberships::list_tenants(&mut tx, identity, Some(slug.as_str()), 1).await?
            }
            Err(_) => Vec::new(),
        };
        let none = || Error::new(ErrorKind::NotFound, "there is no such tenant");
        let place = named.into_iter().next().ok_or_else(none)?;
        place.0.status.require_active()?;
        let session = Session { id: claims.sid, identity, tenant: Some(place.0.id) };
        sessions::set_tenant(&mut tx, session.id, session.tenant).await?;
        tx.commit().await?;
        self.tokens(&session, Some(&place), None)
    }

    /// Verifies an access token and the guard behind it: the tenant is active, the person is a
    /// member still, and has the role of this moment, whatever the token says. An operator still is
    /// one.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`], [`ErrorKind::TenantSuspended`].
    pub async fn authenticate(&self, access_token: &str) -> Result<Caller> {
        let claims =
            self.options.tokens.verify(access_token, SystemTime::now()).map_err(|source| {
                // Whom a forged token claims to be is not read, let alone written down: it says
                // what its maker likes.
                if source.is_forgery() {
                    let forged = Violation::new(ViolationKind::ForgedToken);
                    self.freehold.record_violation(forged.because(source.to_string()));
                }
                Error::new(ErrorKind::Unauthenticated, "the access token is not valid")
                    .because(source)
            })?;
        let identity = IdentityId::from(claims.sub);
        match claims.tid {
            Some(tenant) => {
                let context = self.freehold.tenant_context(TenantId::from(tenant), identity).await;
                let context = context.map_err(|error| match error.kind() {
                    // Removed, or erased with the tenant: the token is worth nothing any more.
                    ErrorKind::NotFound => {
                        Error::new(ErrorKind::Unauthenticated, "the access token is not valid")
                    }
                    _ => error,
                })?;
                Ok(Caller::Tenant(context, claims))
            }
            None => {
                // Operators ask seldom, so nothing is cached: who is none any more is none at once.
                let mut tx = self.catalog("verify an operator").await?;
                let person = identities::find(&mut tx, identity).await?;
                tx.commit().await?;
                if !person.is_some_and(|person| person.is_operator) {
                    return Err(Error::new(
                        ErrorKind::Unauthenticated,
                        "the access token is not valid",
                    ));
                }
                Ok(Caller::Operator(OperatorContext::of(identity, "operator API"), claims))
            }
        }
    }

    /// The person behind a token, and the tenants they may switch to.
    pub async fn me(&self, caller: &Caller) -> Result<Me> {
        let (claims, role) = match caller {
            Caller::Tenant(context, claims) => (claims, context.role()),
            Caller::Operator(_, claims) => (claims, Role::Operator),
        };
        let id = IdentityId::from(claims.sub);
        let mut tx = self.catalog("who am I").await?;
        let identity = identities::find(&mut tx, id).await?.ok_or_else(signed_out)?;
        let tenants = memberships::list_tenants(&mut tx, id, None, MEMBERSHIPS_MAX).await?;
        let current = match claims.tid {
            Some(tenant) => memberships::find_tenant(&mut tx, id, tenant.into()).await?,
            None => None,
        };
        tx.commit().await?;
        Ok(Me {
            id,
            email: identity.email,
            name: identity.name,
            role,
            tenant: current.map(|(tenant, _)| TenantBrief::from(&tenant)),
            tenants: tenants
                .iter()
                .map(|(t, role)| MyTenant { tenant: t.into(), role: *role })
                .collect(),
        })
    }

    pub(super) async fn catalog(&self, reason: &'static str) -> Result<CatalogTx> {
        self.freehold.catalog(&OperatorContext::system(reason)).await
    }

    fn tokens(
        &self,
        session: &Session,
        place: Option<&(Tenant, Role)>,
        refresh: Option<OpaqueToken>,
    ) -> Result<Tokens> {
        let role = place.map_or(Role::Operator, |(_, role)| *role);
        let subject = Subject {
            identity: session.identity.as_uuid(),
            session: session.id,
            tenant: place.map(|(tenant, _)| tenant.id.as_uuid()),
            role: role.as_str().to_owned(),
        };
        let access_token = self
            .options
            .tokens
            .issue(&subject, self.options.access_lifetime, SystemTime::now())
            .map_err(|source| {
                Error::new(ErrorKind::Internal, "no token can be issued").because(source)
            })?;
        Ok(Tokens {
            access_token,
            token_type: "Bearer",
            expires_in: self.options.access_lifetime.as_secs(),
            refresh_token: refresh.map(|token| token.secret().to_owned()),
            role,
            tenant: place.map(|(tenant, _)| tenant.into()),
        })
    }
}

async fn new_refresh_token(tx: &mut CatalogTx, session: Uuid) -> Result<OpaqueToken> {
    let token = OpaqueToken::generate(OpaqueKind::Refresh);
    sessions::insert_token(tx, session, &token.hash()).await?;
    Ok(token)
}

/// The tenant to sign in to where none was named.
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

fn signed_out() -> Error {
    Error::new(ErrorKind::Unauthenticated, "the session has ended; sign in again")
}
