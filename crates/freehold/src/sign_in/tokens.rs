//! Access tokens (signed JWTs); opaque tokens (refresh, invitation …) and devices are in files of their own.
//! Pure: the caller passes the time, and other modules decide who may hold a token.
//!
//! An access token is a JWS in compact form with HS256 (RFC 7515, 7519) and the type `at+jwt` (RFC 9068).
//! HS256 is the only algorithm: a header cannot choose another, it must name this one. HMAC comes from the
//! `hmac` crate. `jsonwebtoken` was measured and rejected: it brings RSA (under RUSTSEC-2023-0071), the
//! elliptic curves, a process-wide choice of cryptography, and its own clock. It also checks neither the type
//! nor unexpected header parameters, so the strict parsing would be needed here anyway.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub(crate) use self::device::Device;
pub use self::opaque::{OpaqueKind, OpaqueToken};

mod device;
mod opaque;
#[cfg(test)]
mod tests;

/// The default lifetime of an access token.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The longest lifetime of an access token, issued or accepted. A retired key can be removed after it.
pub const ACCESS_LIFETIME_MAX: Duration = Duration::from_secs(60 * 60);

/// How far the clocks of two servers may be apart.
const LEEWAY_S: u64 = 5;

/// Tokens have about 600 bytes. A longer text than this limit is refused before it is parsed.
const TOKEN_BYTES_MAX: usize = 4096;

/// An HMAC-SHA-256 key shorter than its hash is the weakest part (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Each retired key is another one with which tokens can be forged; one or two suffice for any rotation.
const RETIRED_KEYS_MAX: usize = 4;

const ALGORITHM: &str = "HS256";
const TOKEN_TYPE: &str = "at+jwt";
const OPERATOR: &str = "operator";
const TENANT_ROLES: [&str; 4] = ["owner", "admin", "member", "viewer"];

/// Why a secret cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has fewer than 32 bytes.
    #[error(
        "a signing secret needs at least {SECRET_BYTES_MIN} bytes; make one with `openssl rand -hex 32`"
    )]
    TooShort,
    /// It is given twice.
    #[error(
        "the same signing secret is given twice; a retired one must differ from the current one"
    )]
    Repeated,
    /// More than four are retired.
    #[error("at most {RETIRED_KEYS_MAX} retired signing secrets are accepted")]
    TooMany,
}

/// A signing key and its id, which tokens contain.
#[derive(Clone)]
struct Key {
    /// The first 16 hex digits of a hash of the secret: the same on every server and after every restart,
    /// without configuration.
    kid: String,
    /// HMAC with the secret absorbed; the secret itself is not kept.
    mac: Hmac<Sha256>,
}

impl Key {
    fn new(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::TooShort);
        }
        let digest =
            Sha256::new().chain_update(b"freehold access-token key id v1\0").chain_update(secret);
        let kid = digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let mac = Hmac::new_from_slice(secret).expect("HMAC takes a key of any length");
        Ok(Key { kid, mac })
    }

    fn sign(&self, message: &str) -> String {
        let mac = self.mac.clone().chain_update(message.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    fn derive(&self, purpose: &str) -> DerivedKey {
        // Ends in a NUL, so that no purpose is a prefix of another, and no signed token equals one.
        let purpose = format!("freehold key for {purpose} v1\0");
        let bytes = self.mac.clone().chain_update(purpose.as_bytes()).finalize().into_bytes();
        DerivedKey(Hmac::new_from_slice(&bytes).expect("HMAC takes a key of any length"))
    }

    /// Compares in constant time.
    fn signed(&self, message: &str, signature: &[u8]) -> bool {
        self.mac.clone().chain_update(message.as_bytes()).verify_slice(signature).is_ok()
    }
}

/// A key for one purpose.
#[derive(Clone)]
pub(crate) struct DerivedKey(Hmac<Sha256>);

impl DerivedKey {
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 32] {
        self.0.clone().chain_update(message).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.clone().chain_update(message).verify_slice(signature).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.kid)
    }
}

/// The key that signs, and retired keys whose tokens are still accepted.
///
/// To rotate: the new secret becomes the current one and the old one is retired; after
/// [`ACCESS_LIFETIME_MAX`] it can go. A leaked secret must be removed at once instead of retired: as long as
/// it is in the keyring, an attacker can forge tokens with it.
#[derive(Clone, Debug)]
pub struct Keyring {
    current: Key,
    retired: Vec<Key>,
}

impl Keyring {
    /// The bytes of `secret` are the HMAC key as they are; hex or base64 is not decoded.
    pub fn new(secret: &str, retired: &[impl AsRef<str>]) -> Result<Self, KeyError> {
        if retired.len() > RETIRED_KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let mut ring = Keyring { current: Key::new(secret.as_bytes())?, retired: Vec::new() };
        for secret in retired {
            let key = Key::new(secret.as_ref().as_bytes())?;
            if ring.find(&key.kid).is_some() {
                return Err(KeyError::Repeated);
            }
            ring.retired.push(key);
        }
        Ok(ring)
    }

    fn find(&self, kid: &str) -> Option<&Key> {
        self.keys().find(|key| key.kid == kid)
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.retired)
    }

    /// A key for another purpose, which reveals nothing about this one.
    pub(crate) fn derive(&self, purpose: &str) -> DerivedKey {
        self.current.derive(purpose)
    }

    /// [`derive`](Self::derive), from the current key first and then from the retired ones.
    pub(crate) fn derive_each(&self, purpose: &str) -> impl Iterator<Item = DerivedKey> {
        self.keys().map(move |key| key.derive(purpose))
    }
}

/// The claims of a verified access token. Times are seconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessClaims {
    /// The issuer; [`AccessTokens`] requires its own.
    pub iss: String,
    /// The audience; [`AccessTokens`] requires its own.
    pub aud: String,
    /// The person.
    pub sub: Uuid,
    /// The session, which a sign-out revokes.
    pub sid: Uuid,
    /// The tenant; absent for an operator, and only then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tid: Option<Uuid>,
    /// `owner`, `admin`, `member` or `viewer` in the tenant; `operator` without one.
    pub role: String,
    /// When it was issued.
    pub iat: u64,
    /// Not valid before this time; the same as `iat`.
    pub nbf: u64,
    /// Not valid from this time on.
    pub exp: u64,
    /// The token's id, for the audit log.
    pub jti: Uuid,
}

/// The subject of an access token.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The person.
    pub identity: Uuid,
    /// The session.
    pub session: Uuid,
    /// The tenant; none for an operator, and only then.
    pub tenant: Option<Uuid>,
    /// As in [`AccessClaims::role`].
    pub role: String,
}

/// Why no token was issued: an error of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Shorter than a second, or longer than [`ACCESS_LIFETIME_MAX`].
    #[error("an access token lives at least a second and at most {} s", ACCESS_LIFETIME_MAX.as_secs())]
    Lifetime,
    /// The role is unknown, or does not fit the tenant.
    #[error("a role in a tenant needs a tenant, and an operator has none")]
    Role,
    /// A nil UUID.
    #[error("the nil UUID stands for no identity, session or tenant")]
    NilId,
}

/// Why a token was refused. For logs and metrics: a client is told only that the token is not
/// valid, and may be told that it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was refused before it was parsed.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It does not have the form of a token, or a claim has the wrong type.
    #[error("the token is not well-formed")]
    Malformed,
    /// Its header has other parameters than Freehold's tokens, or in another form: `jku`, `crit`, a list of
    /// algorithms.
    #[error("the token's header is not one of ours")]
    ForeignHeader,
    /// Its header names another algorithm than HS256.
    #[error("the token's algorithm is not {ALGORITHM}")]
    WrongAlgorithm,
    /// A token of another kind.
    #[error("the token's type is not the expected one")]
    WrongType,
    /// No key of the [`Keyring`] has its `kid`.
    #[error("the token was signed with a key that is not known here")]
    UnknownKey,
    /// It was modified, or signed with another secret.
    #[error("the token's signature does not match")]
    BadSignature,
    /// The claim that is missing.
    #[error("the token lacks the claim {0}")]
    MissingClaim(&'static str),
    /// `iss` is not the expected issuer.
    #[error("the token was issued by someone else")]
    WrongIssuer,
    /// `aud` is not the expected audience.
    #[error("the token is meant for someone else")]
    WrongAudience,
    /// `role` and `tid` contradict each other.
    #[error("the token's role and tenant do not go together")]
    WrongRole,
    /// More than [`ACCESS_LIFETIME_MAX`] from `iat` to `exp`.
    #[error("the token lives longer than {} s", ACCESS_LIFETIME_MAX.as_secs())]
    LivesTooLong,
    /// `exp` has passed, by more than the tolerated difference of clocks.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future, by more than the tolerated difference of clocks.
    #[error("the token is not valid yet")]
    NotYetValid,
}

impl TokenError {
    /// Whether the token was forged or modified. A text that is not a token, or a token outside its lifetime,
    /// is more often a mistake.
    pub fn is_forgery(self) -> bool {
        match self {
            Self::ForeignHeader
            | Self::WrongAlgorithm
            | Self::WrongType
            | Self::UnknownKey
            | Self::BadSignature
            | Self::WrongIssuer
            | Self::WrongAudience
            | Self::WrongRole
            | Self::LivesTooLong => true,
            Self::TooLong
            | Self::Malformed
            | Self::MissingClaim(_)
            | Self::Expired
            | Self::NotYetValid => false,
        }
    }
}

/// Issues access tokens and verifies them.
#[derive(Clone, Debug)]
pub struct AccessTokens {
    keyring: Keyring,
    issuer: String,
    audience: String,
}

impl AccessTokens {
    /// Issues and accepts only tokens by this issuer for this audience.
    pub fn new(keyring: Keyring, issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        AccessTokens { keyring, issuer: issuer.into(), audience: audience.into() }
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Signs a token with the current key.
    ///
    /// # Panics
    /// If the operating system has no random numbers.
    pub fn issue(
        &self,
        subject: &Subject,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, IssueError> {
        if lifetime < Duration::from_secs(1) || lifetime > ACCESS_LIFETIME_MAX {
            return Err(IssueError::Lifetime);
        }
        if !role_fits(&subject.role, subject.tenant) {
            return Err(IssueError::Role);
        }
        if any_nil([Some(subject.identity), Some(subject.session), subject.tenant]) {
            return Err(IssueError::NilId);
        }
        let now = unix_seconds(now);
        Ok(self.sign(&AccessClaims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: subject.identity,
            sid: subject.session,
            tid: subject.tenant,
            role: subject.role.clone(),
            iat: now,
            nbf: now,
            exp: now + lifetime.as_secs(),
            jti: Uuid::new_v4(),
        }))
    }

    fn sign(&self, claims: &AccessClaims) -> String {
        let key = &self.keyring.current;
        let header = format!(r#"{{"alg":"{ALGORITHM}","typ":"{TOKEN_TYPE}","kid":"{}"}}"#, key.kid);
        let claims = serde_json::to_vec(claims).expect("text, numbers and ids always serialise");
        let mut token =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = key.sign(&token);
        token.push('.');
        token.push_str(&signature);
        token
    }

    /// Verifies a token that a client sent. The claims are parsed only after the signature matched.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<AccessClaims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;

        let header: Header = serde_json::from_slice(&object(header)?).map_err(|error| {
            if error.is_data() { TokenError::ForeignHeader } else { TokenError::Malformed }
        })?;
        if header.alg.as_deref() != Some(ALGORITHM) {
            return Err(TokenError::WrongAlgorithm);
        }
        if header.typ.as_deref() != Some(TOKEN_TYPE) {
            return Err(TokenError::WrongType);
        }
        let key = header.kid.and_then(|kid| self.keyring.find(&kid));
        let key = key.ok_or(TokenError::UnknownKey)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        if !key.signed(message, &signature) {
            return Err(TokenError::BadSignature);
        }

        let claims: RawClaims =
            serde_json::from_slice(&object(claims)?).map_err(|_| TokenError::Malformed)?;
        let claims = claims.complete()?;
        self.check(&claims, unix_seconds(now))?;
        Ok(claims)
    }

    /// Checks the claims of a token whose signature matched.
    fn check(&self, claims: &AccessClaims, now: u64) -> Result<(), TokenError> {
        if claims.iss != self.issuer {
            return Err(TokenError::WrongIssuer);
        }
        if claims.aud != self.audience {
            return Err(TokenError::WrongAudience);
        }
        if !role_fits(&claims.role, claims.tid) {
            return Err(TokenError::WrongRole);
        }
        if any_nil([Some(claims.sub), Some(claims.sid), claims.tid]) || claims.exp <= claims.iat {
            return Err(TokenError::Malformed);
        }
        if claims.exp - claims.iat > ACCESS_LIFETIME_MAX.as_secs() {
            return Err(TokenError::LivesTooLong);
        }
        if now >= claims.exp.saturating_add(LEEWAY_S) {
            return Err(TokenError::Expired);
        }
        // `iat` too: otherwise an `iat` in the far future would allow an `exp` beyond the longest lifetime.
        if claims.nbf.max(claims.iat) > now.saturating_add(LEEWAY_S) {
            return Err(TokenError::NotYetValid);
        }
        Ok(())
    }
}

/// The only permitted header parameters: `jku`, `jwk`, `x5u`, `x5c`, `crit`, `b64`, `zip` and all others are
/// refused because they are not listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: Option<String>,
    typ: Option<String>,
    kid: Option<String>,
}

/// The claims as parsed. The derived parser refuses a duplicate claim and ignores an unknown one, so that a
/// newer server may add claims while an older one still runs.
#[derive(Deserialize)]
struct RawClaims {
    iss: Option<String>,
    aud: Option<String>,
    sub: Option<Uuid>,
    sid: Option<Uuid>,
    #[serde(default, deserialize_with = "not_null")]
    tid: Option<Uuid>,
    role: Option<String>,
    iat: Option<u64>,
    nbf: Option<u64>,
    exp: Option<u64>,
    jti: Option<Uuid>,
}

impl RawClaims {
    fn complete(self) -> Result<AccessClaims, TokenError> {
        let missing = TokenError::MissingClaim;
        Ok(AccessClaims {
            iss: self.iss.ok_or(missing("iss"))?,
            aud: self.aud.ok_or(missing("aud"))?,
            sub: self.sub.ok_or(missing("sub"))?,
            sid: self.sid.ok_or(missing("sid"))?,
            tid: self.tid,
            role: self.role.ok_or(missing("role"))?,
            iat: self.iat.ok_or(missing("iat"))?,
            nbf: self.nbf.ok_or(missing("nbf"))?,
            exp: self.exp.ok_or(missing("exp"))?,
            jti: self.jti.ok_or(missing("jti"))?,
        })
    }
}

/// `tid` is a tenant's id or absent; `null` is refused.
fn not_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    Uuid::deserialize(deserializer).map(Some)
}

/// Decodes a part of the token, which must be a JSON object.
fn object(part: &str) -> Result<Vec<u8>, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    // serde would accept an array as the fields in order.
    if json.starts_with(b"{") { Ok(json) } else { Err(TokenError::Malformed) }
}

fn role_fits(role: &str, tenant: Option<Uuid>) -> bool {
    match tenant {
        Some(_) => TENANT_ROLES.contains(&role),
        None => role == OPERATOR,
    }
}

/// The nil UUID stands for the template or the system, never for a person who signs in.
fn any_nil(ids: [Option<Uuid>; 3]) -> bool {
    ids.into_iter().flatten().any(|id| id.is_nil())
}

/// A clock before 1970 counts as 1970: then no token is valid yet.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
