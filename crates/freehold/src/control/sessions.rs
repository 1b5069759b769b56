//! Sign-in: sessions and their tokens. `credentials` tries the passwords.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::credentials::{Credentials, wrong_credentials};
use super::people::no_such_session;
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::identities::{Credential, Identity};
use crate::catalog::sessions::{Exchange, Session};
use crate::catalog::{identities, memberships, sessions};
use crate::control::guessing::{Guesses, SignInLimits};
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::actor::Role;
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::{IdentityId, Slug, TenantId};
use crate::model::tenant::Tenant;
use crate::observe::violations::{Violation, ViolationKind};
use crate::sign_in::tokens::{
    ACCESS_LIFETIME, AccessClaims, AccessTokens, KeyError, Keyring, OpaqueKind, OpaqueToken,
    Subject, TokenError, unix_seconds,
};
use crate::tx::CatalogTx;

pub use crate::catalog::sessions::SessionEntry;

/// More tenants than this are not listed to a person at sign-in.
pub(super) const MEMBERSHIPS_MAX: i64 = 1000;

/// Of so many connections to the catalog, sign-ins may hold one: of the default eight, four.
const CONNECTIONS_OF_SIGN_INS: usize = 2;
/// As long as one waits for a connection.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);

/// How sign-in works.
#[derive(Clone, Debug)]
pub struct SignInOptions {
    /// Signs and verifies access tokens.
    pub tokens: AccessTokens,
    /// How long an access token is good: 1 s to
    /// [`ACCESS_LIFETIME_MAX`](crate::sign_in::tokens::ACCESS_LIFETIME_MAX).
    pub access_lifetime: Duration,
    /// How long after a sign-in its session ends, however often it was refreshed.
    pub session_lifetime: Duration,
    /// How often passwords may be tried, at all servers together.
    pub limits: SignInLimits,
    /// Where people reach the service, such as `https://app.example.com`: letters lead there.
    pub public_url: String,
}

impl SignInOptions {
    /// Signs tokens with `secret` for the issuer and audience `freehold`; access for
    /// [`ACCESS_LIFETIME`], sessions of 30 days, the default limits, letters that lead to this machine.
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
            public_url: "http://127.0.0.1:8080".to_owned(),
        })
    }
}

/// Sign-in over a [`Freehold`]: a service that has its own needs none of it.
pub struct SignIn {
    freehold: Freehold,
    pub(super) options: SignInOptions,
    pub(super) guesses: Guesses,
    /// Of those who sign in, how many may be at the catalog at a time.
    turns: Semaphore,
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
    /// To be kept by the client beyond the session, for [`Credentials::device_token`]. It opens nothing.
    /// Only a sign-in gives one.
    pub device_token: Option<String>,
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
    /// Make one per process and share it: it remembers whose guesses are used up.
    pub fn new(freehold: Freehold, options: SignInOptions) -> SignIn {
        let guesses = Guesses::new(options.limits);
        let turns =
            (freehold.catalog_pool_status().connections_max / CONNECTIONS_OF_SIGN_INS).max(1);
        SignIn { freehold, options, guesses, turns: Semaphore::new(turns) }
    }

    /// The fleet that people sign in to.
    pub fn freehold(&self) -> &Freehold {
        &self.freehold
    }

    /// Signs in by password. Without a tenant: to the only one the person belongs to, or as an
    /// operator.
    ///
    /// An unknown e-mail, a wrong password, a person who is disabled and a tenant that they do not
    /// belong to are one error, after the same work. `client` is whose guesses are counted: behind a
    /// proxy, the address that the proxy saw.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`], [`ErrorKind::RateLimited`], [`ErrorKind::TenantRequired`],
    /// [`ErrorKind::TenantSuspended`]; [`ErrorKind::Forbidden`] for a person without any tenant.
    pub async fn log_in(&self, credentials: Credentials, client: IpAddr) -> Result<Tokens> {
        let tenant = credentials.tenant.clone();
        let (credential, tenants, taken) = self.check_password(credentials, client).await?;
        let Some(Credential { identity, .. }) = credential else {
            // Without what was typed: people mistake one field for the other.
            tracing::warn!(%client, "a sign-in was refused");
            return Err(wrong_credentials());
        };
        let _turn = self.turn().await?;
        let mut tx = self.catalog("sign in").await?;
        let place = match choose_place(&identity, tenant.is_some(), tenants) {
            Ok(place) => place,
            Err(refused) => {
                // A right password whose refusal reads like a wrong one's must count like one, too.
                if refused.kind() != ErrorKind::Unauthenticated {
                    taken.give_back(&mut tx).await?;
                }
                tx.commit().await?;
                return Err(refused);
            }
        };
        // Whoever changed the password meanwhile has ended what the former one opens.
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
            AuditEvent::by("session.start", identity.id).to(identity.id, &identity.email);
        if let Some(tenant) = at {
            event = event.tenant(tenant);
        }
        audit::record(&mut tx, event).await?;
        // Last, since others wait for it: a client's people share a row.
        taken.give_back(&mut tx).await?;
        tx.commit().await?;
        let device_token = Some(self.new_device(&identity));
        Ok(Tokens { device_token, ..self.tokens(&session, place.as_ref(), Some(refresh), None)? })
    }

    /// To be held while a sign-in is at the catalog. All that come from one address wait there for one
    /// row, its count of guesses, and while they do they hold connections that everybody's requests
    /// need: 60 that came at once held all sixteen for 100 to 300 ms.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        match tokio::time::timeout(TURN_WAIT_MAX, self.turns.acquire()).await {
            Ok(turn) => Ok(turn.expect("nobody closes it")),
            Err(_) => Err(Error::rate_limited(1)),
        }
    }

    /// Exchanges a refresh token for new tokens. The same token gives the same successor for some
    /// seconds, for another tab or an answer that was lost; one that comes back later ends the session,
    /// for then two hold it.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`], [`ErrorKind::TenantSuspended`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens> {
        let token =
            OpaqueToken::parse(OpaqueKind::Refresh, refresh_token).map_err(|_| signed_out())?;
        let mut tx = self.catalog("refresh a session").await?;
        let session = match sessions::exchange(&mut tx, &token.hash()).await? {
            Exchange::Good(session) => session,
            Exchange::Unknown => return Err(signed_out()),
            Exchange::Reused(session) => {
                sessions::revoke(&mut tx, session.id, session.identity).await?;
                let event = AuditEvent::by_nobody("session.reuse").target(session.identity);
                let detail = serde_json::json!({"session": session.id});
                audit::record(&mut tx, event.detail(detail)).await?;
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
        let keyring = self.options.tokens.keyring();
        let refresh = token.successor(&keyring.derive("refresh tokens"));
        sessions::insert_token(&mut tx, session.id, &refresh.hash()).await?;
        tx.commit().await?;
        self.tokens(&session, place.as_ref(), Some(refresh), None)
    }

    /// Ends the session of a refresh token. One that is not known is no error: it is signed out.
    pub async fn log_out(&self, refresh_token: &str) -> Result<()> {
        let Ok(token) = OpaqueToken::parse(OpaqueKind::Refresh, refresh_token) else {
            return Ok(());
        };
        let mut tx = self.catalog("sign out").await?;
        match sessions::exchange(&mut tx, &token.hash()).await? {
            Exchange::Unknown => {}
            Exchange::Good(session) | Exchange::Reused(session) => {
                sessions::revoke(&mut tx, session.id, session.identity).await?;
                let event =
                    AuditEvent::by("session.end", session.identity).target(session.identity);
                audit::record(&mut tx, event).await?;
            }
        }
        tx.commit().await
    }

    /// Moves a session to another of the person's tenants. The refresh token stays as it is, and the new
    /// access token ends when the presented one does: nobody prolongs one by itself.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a tenant that is not the person's, [`ErrorKind::TenantSuspended`],
    /// [`ErrorKind::Unauthenticated`].
    pub async fn switch_tenant(&self, claims: &AccessClaims, slug: &str) -> Result<Tokens> {
        let mut tx = self.catalog("switch tenant").await?;
        let identity = IdentityId::from(claims.sub);
        let session = sessions::lock(&mut tx, claims.sid, identity).await?;
        let session = session.ok_or_else(signed_out)?;
        let named = match slug.parse::<Slug>() {
            Ok(slug) => {
                memberships::list_tenants(&mut tx, identity, Some(slug.as_str()), 1).await?
            }
            Err(_) => Vec::new(),
        };
        let none = || Error::new(ErrorKind::NotFound, "there is no such tenant");
        let place = named.into_iter().next().ok_or_else(none)?;
        place.0.status.require_active()?;
        let session = Session { tenant: Some(place.0.id), ..session };
        sessions::set_tenant(&mut tx, session.id, session.tenant).await?;
        tx.commit().await?;
        self.tokens(&session, Some(&place), None, Some(claims.exp))
    }

    /// Verifies an access token and the guard behind it: its session goes on, the tenant is active, the
    /// person is a member still, and has the role of this moment, whatever the token says. An operator
    /// still is one. What has ended bites within a second on every server.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidToken`], [`ErrorKind::TokenExpired`], [`ErrorKind::TenantSuspended`].
    pub async fn authenticate(&self, access_token: &str) -> Result<Caller> {
        let claims =
            self.options.tokens.verify(access_token, SystemTime::now()).map_err(|source| {
                // Whom a forged token claims to be is not read, let alone written down: it says
                // what its maker likes.
                if source.is_forgery() {
                    let forged = Violation::new(ViolationKind::ForgedToken);
                    self.freehold.violations().record(forged.because(source.to_string()));
                }
                match source {
                    TokenError::Expired => Error::new(
                        ErrorKind::TokenExpired,
                        "the access token has expired; refresh it, or sign in again",
                    ),
                    _ => invalid_token(),
                }
                .because(source)
            })?;
        let identity = IdentityId::from(claims.sub);
        match claims.tid {
            Some(tenant) => {
                let resolver = self.freehold.resolver();
                let context = resolver.resolve_session(tenant.into(), identity, claims.sid).await;
                let context = context.map_err(|error| match error.kind() {
                    // Signed out, removed, disabled, or erased with the tenant: the token is worth
                    // nothing any more.
                    ErrorKind::NotFound => invalid_token(),
                    _ => error,
                })?;
                Ok(Caller::Tenant(context, claims))
            }
            None => {
                // Operators ask seldom, so nothing is cached: who is none any more is none at once.
                let tx = self.catalog("verify an operator").await?;
                if !sessions::is_operators(tx, claims.sid, identity).await? {
                    return Err(invalid_token());
                }
                Ok(Caller::Operator(OperatorContext::of(identity, "operator API"), claims))
            }
        }
    }

    /// The sessions of the caller that go on, the newest first.
    pub async fn list_sessions(&self, claims: &AccessClaims) -> Result<Vec<SessionEntry>> {
        let mut tx = self.catalog("list one's sessions").await?;
        let list = sessions::list(&mut tx, claims.sub.into()).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// Ends one of the caller's sessions; its access tokens are refused within a second.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn end_session(&self, claims: &AccessClaims, session: Uuid) -> Result<()> {
        let identity = IdentityId::from(claims.sub);
        let mut tx = self.catalog("end one's session").await?;
        if !sessions::revoke(&mut tx, session, identity).await? {
            return Err(no_such_session());
        }
        let event = AuditEvent::by("session.end", identity).target(identity);
        audit::record(&mut tx, event.detail(serde_json::json!({"session": session}))).await?;
        tx.commit().await
    }

    /// Ends all of the caller's sessions but the one that asks, and says how many.
    pub async fn end_other_sessions(&self, claims: &AccessClaims) -> Result<u64> {
        let identity = IdentityId::from(claims.sub);
        let mut tx = self.catalog("end one's other sessions").await?;
        let ended = sessions::revoke_all(&mut tx, identity, Some(claims.sid)).await?;
        let event = AuditEvent::by("session.end_others", identity).target(identity);
        audit::record(&mut tx, event.detail(serde_json::json!({"ended": ended}))).await?;
        tx.commit().await?;
        Ok(ended)
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

    /// A request's hash with which the catalog tells a repetition from another request. What is in the
    /// request, a password say, cannot be guessed from it without a server's key.
    pub fn request_hash(&self, body_hash: &[u8; 32]) -> [u8; 32] {
        self.options.tokens.keyring().derive("repeated requests").sign(body_hash)
    }

    /// Tokens of a session, none of which outlives it, nor `ends_at`.
    fn tokens(
        &self,
        session: &Session,
        place: Option<&(Tenant, Role)>,
        refresh: Option<OpaqueToken>,
        ends_at: Option<u64>,
    ) -> Result<Tokens> {
        let now = SystemTime::now();
        let session_end = u64::try_from(session.expires_at.as_second()).unwrap_or(0);
        let end = ends_at.unwrap_or(u64::MAX).min(session_end);
        let lifetime =
            self.options.access_lifetime.as_secs().min(end.saturating_sub(unix_seconds(now)));
        if lifetime == 0 {
            return Err(signed_out());
        }
        let role = place.map_or(Role::Operator, |(_, role)| *role);
        let subject = Subject {
            identity: session.identity.as_uuid(),
            session: session.id,
            tenant: place.map(|(tenant, _)| tenant.id.as_uuid()),
            role: role.as_str().to_owned(),
        };
        let issued = self.options.tokens.issue(&subject, Duration::from_secs(lifetime), now);
        let access_token = issued.map_err(|source| {
            Error::new(ErrorKind::Internal, "no token can be issued").because(source)
        })?;
        Ok(Tokens {
            access_token,
            token_type: "Bearer",
            expires_in: lifetime,
            refresh_token: refresh.map(|token| token.secret().to_owned()),
            device_token: None,
            role,
            tenant: place.map(|(tenant, _)| tenant.into()),
        })
    }
}

/// Where somebody signs in to whose password is right.
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

pub(super) fn signed_out() -> Error {
    Error::new(ErrorKind::Unauthenticated, "the session has ended; sign in again")
}

fn invalid_token() -> Error {
    Error::new(ErrorKind::InvalidToken, "the access token is not valid; sign in again")
}
