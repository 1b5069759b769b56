//! Sign-in: sessions and their tokens. `credentials` opens them by password.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::people::no_such_session;
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::sessions::{Exchange, Session};
use crate::catalog::{identities, memberships, sessions};
use crate::control::guessing::{Guesses, SignInLimits};
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::actor::Role;
use crate::model::audit::AuditAction;
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

/// The most tenants that are listed to a person at sign-in.
pub(super) const MEMBERSHIPS_MAX: i64 = 1000;

/// Sign-ins may hold one in this many connections to the catalog: of the default eight, four.
const CONNECTIONS_OF_SIGN_INS: usize = 2;
/// The same as the longest wait for a connection.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);

/// Settings of sign-in.
#[derive(Clone, Debug)]
pub struct SignInOptions {
    /// Signs and verifies access tokens.
    pub tokens: AccessTokens,
    /// The lifetime of an access token: 1 s to
    /// [`ACCESS_LIFETIME_MAX`](crate::sign_in::tokens::ACCESS_LIFETIME_MAX).
    pub access_lifetime: Duration,
    /// The lifetime of a session, counted from the sign-in, however often it is refreshed.
    pub session_lifetime: Duration,
    /// How often passwords may be tried, over all servers together.
    pub limits: SignInLimits,
    /// The service's URL for people, such as `https://app.example.com`; links in messages begin with it.
    pub public_url: String,
}

impl SignInOptions {
    /// Signs tokens with `secret` for the issuer and audience `freehold`. The defaults are access tokens of
    /// [`ACCESS_LIFETIME`], sessions of 30 days, the default limits, and links to this machine.
    ///
    /// # Errors
    /// [`KeyError::TooShort`]: a secret needs at least 32 bytes.
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

/// Sign-in to a [`Freehold`]. A service with its own sign-in does not need it.
pub struct SignIn {
    freehold: Freehold,
    pub(super) options: SignInOptions,
    pub(super) guesses: Guesses,
    /// Limits how many sign-ins use the catalog at a time.
    turns: Semaphore,
}

/// What a sign-in returns.
#[derive(Clone, Debug, Serialize)]
pub struct Tokens {
    /// A JWT, for the header `Authorization: Bearer …`.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u64,
    /// Valid once, for [`SignIn::refresh`]. Absent after [`SignIn::switch_tenant`], which keeps the former
    /// one valid.
    pub refresh_token: Option<String>,
    /// For [`Credentials::device_token`](crate::control::credentials::Credentials::device_token); the client should keep it beyond the session. It gives no access.
    /// Only a sign-in returns one.
    pub device_token: Option<String>,
    /// The role in the tenant; `operator` without one.
    pub role: Role,
    /// Absent for an operator.
    pub tenant: Option<TenantBrief>,
}

/// A tenant, as its members see it.
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

/// The caller, after the access token was verified.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A member of an active tenant.
    Tenant(TenantContext, AccessClaims),
    /// An operator.
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
    /// The role in the tenant that the token is for; `operator` without one.
    pub role: Role,
    /// The tenant that the token is for.
    pub tenant: Option<TenantBrief>,
    /// All tenants that the person belongs to, in the order of slugs; 1,000 at most.
    pub tenants: Vec<MyTenant>,
}

/// A tenant that a person belongs to.
#[derive(Clone, Debug, Serialize)]
pub struct MyTenant {
    /// The tenant.
    #[serde(flatten)]
    pub tenant: TenantBrief,
    /// Their role in it.
    pub role: Role,
}

impl SignIn {
    /// Create one per process and share it: it remembers which clients' guesses are used up.
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

    /// Must be held while a sign-in uses the catalog. All sign-ins from one address wait for one row, the
    /// address's count of guesses, and meanwhile hold connections that all requests need: 60 simultaneous
    /// sign-ins held all sixteen connections for 100 to 300 ms.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        match tokio::time::timeout(TURN_WAIT_MAX, self.turns.acquire()).await {
            Ok(turn) => Ok(turn.expect("nobody closes it")),
            Err(_) => Err(Error::rate_limited(1)),
        }
    }

    /// Exchanges a refresh token for new tokens. For a few seconds the same token returns the same successor,
    /// for another tab or a lost answer. If it is used later, the session ends, because then two clients have
    /// the token.
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
                let event =
                    AuditEvent::by_nobody(AuditAction::SessionReuse).target(session.identity);
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
        // A failure from here on rolls back, so the presented token stays valid.
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

    /// Ends the session of a refresh token. An unknown token is no error, since its session has ended.
    pub async fn log_out(&self, refresh_token: &str) -> Result<()> {
        let Ok(token) = OpaqueToken::parse(OpaqueKind::Refresh, refresh_token) else {
            return Ok(());
        };
        let mut tx = self.catalog("sign out").await?;
        match sessions::exchange(&mut tx, &token.hash()).await? {
            Exchange::Unknown => {}
            Exchange::Good(session) | Exchange::Reused(session) => {
                sessions::revoke(&mut tx, session.id, session.identity).await?;
                let event = AuditEvent::by(AuditAction::SessionEnd, session.identity)
                    .target(session.identity);
                audit::record(&mut tx, event).await?;
            }
        }
        tx.commit().await
    }

    /// Moves a session to another of the person's tenants. The refresh token stays as it is, and the new
    /// access token expires when the presented one does, so switching does not extend it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a tenant of which the person is not a member,
    /// [`ErrorKind::TenantSuspended`], [`ErrorKind::Unauthenticated`].
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
        let event = AuditEvent::by(AuditAction::SessionSwitch, identity)
            .target(identity)
            .tenant(place.0.id);
        // Without the tenant that was left: the other tenant's owners read this.
        let detail = serde_json::json!({"session": session.id});
        audit::record(&mut tx, event.detail(detail)).await?;
        tx.commit().await?;
        self.tokens(&session, Some(&place), None, Some(claims.exp))
    }

    /// Verifies an access token and checks the present state: the session is active, the tenant is active,
    /// and the person is still a member. The role is the present one, whatever the token says. An operator
    /// must still be one. Changes take effect within a second on every server.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidToken`], [`ErrorKind::TokenExpired`], [`ErrorKind::TenantSuspended`].
    pub async fn authenticate(&self, access_token: &str) -> Result<Caller> {
        let claims =
            self.options.tokens.verify(access_token, SystemTime::now()).map_err(|source| {
                // The claims of a forged token are neither read nor recorded: an attacker chose them.
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
                    // The session has ended, or the person was removed or disabled, or the tenant was erased:
                    // the token is no longer valid.
                    ErrorKind::NotFound => invalid_token(),
                    _ => error,
                })?;
                Ok(Caller::Tenant(context, claims))
            }
            None => {
                // Requests of operators are rare, so nothing is cached, and a revocation takes effect at
                // once.
                let tx = self.catalog("verify an operator").await?;
                if !sessions::is_operators(tx, claims.sid, identity).await? {
                    return Err(invalid_token());
                }
                Ok(Caller::Operator(OperatorContext::of(identity, "operator API"), claims))
            }
        }
    }

    /// The caller's active sessions, the newest first.
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
        let event = AuditEvent::by(AuditAction::SessionEnd, identity).target(identity);
        audit::record(&mut tx, event.detail(serde_json::json!({"session": session}))).await?;
        tx.commit().await
    }

    /// Ends all of the caller's sessions except the present one, and returns how many.
    pub async fn end_other_sessions(&self, claims: &AccessClaims) -> Result<u64> {
        let identity = IdentityId::from(claims.sub);
        let mut tx = self.catalog("end one's other sessions").await?;
        let ended = sessions::revoke_all(&mut tx, identity, Some(claims.sid)).await?;
        let event = AuditEvent::by(AuditAction::SessionEndOthers, identity).target(identity);
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

    /// A keyed hash of a request, with which the catalog recognises a repetition. Without a server's key, the
    /// content of the request, such as a password, cannot be guessed from it.
    pub fn request_hash(&self, body_hash: &[u8; 32]) -> [u8; 32] {
        self.options.tokens.keyring().derive("repeated requests").sign(body_hash)
    }

    /// Issues tokens of a session. The access token expires no later than the session and `ends_at`.
    pub(super) fn tokens(
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

pub(super) fn signed_out() -> Error {
    Error::new(ErrorKind::Unauthenticated, "the session has ended; sign in again")
}

fn invalid_token() -> Error {
    Error::new(ErrorKind::InvalidToken, "the access token is not valid; sign in again")
}
