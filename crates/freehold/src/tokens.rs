//! Access tokens (signed JWTs) and opaque tokens (refresh, invitation). Pure: the caller says what
//! time it is, and who may hold a token is decided elsewhere.
//!
//! An access token is a JWS in compact form with HS256 (RFC 7515, 7519) and the type `at+jwt`
//! (RFC 9068). HS256 is the only algorithm there is: a header chooses nothing, it only has to say
//! what we expect. HMAC comes from the `hmac` crate. `jsonwebtoken` was measured and left out: it
//! brings RSA (under RUSTSEC-2023-0071) and the elliptic curves, a process-wide choice of
//! cryptography, and its own clock; and it checks neither the type nor unexpected header
//! parameters, so that reading the parts strictly would be left to us anyway.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// How long an access token lives unless the caller says otherwise.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// The longest life of an access token, issued or accepted. A retired key can be forgotten after it.
pub const ACCESS_LIFETIME_MAX: Duration = Duration::from_secs(60 * 60);

/// How far the clocks of two servers may be apart.
const LEEWAY_S: u64 = 5;

/// Ours are near 600 bytes. What is longer is refused before any of it is read.
const TOKEN_BYTES_MAX: usize = 4096;

/// An HMAC-SHA-256 key shorter than its hash is the weakest part (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Each retired key is one more that can forge; one or two are enough for any rotation.
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

/// A signing key with the name that tokens call it by.
#[derive(Clone)]
struct Key {
    /// First 16 hex digits of a hash of the secret: the same on every server and after every
    /// restart, without anything to configure.
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

    /// Compares in constant time.
    fn signed(&self, message: &str, signature: &[u8]) -> bool {
        self.mac.clone().chain_update(message.as_bytes()).verify_slice(signature).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.kid)
    }
}

/// The key that signs, and those that signed until lately.
///
/// To rotate: the new secret becomes the current one and the old one is retired; after
/// [`ACCESS_LIFETIME_MAX`] it can go. A secret that leaked is not retired but dropped at once:
/// whoever has it can forge for as long as it is here.
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
        std::iter::once(&self.current).chain(&self.retired).find(|key| key.kid == kid)
    }
}

/// What a verified access token says. Times are seconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessClaims {
    /// Who issued it: [`AccessTokens`] demands its own.
    pub iss: String,
    /// Whom it is meant for: [`AccessTokens`] demands its own.
    pub aud: String,
    /// The identity.
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
    /// Not good before; the same as `iat`.
    pub nbf: u64,
    /// Not good from then on.
    pub exp: u64,
    /// The token's own name, for the audit log.
    pub jti: Uuid,
}

/// Whom an access token is for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The person.
    pub identity: Uuid,
    /// The sign-in that it belongs to.
    pub session: Uuid,
    /// The tenant; none for an operator, and only then.
    pub tenant: Option<Uuid>,
    /// As in [`AccessClaims::role`].
    pub role: String,
}

/// Why no token was issued: a mistake of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Shorter than a second, or longer than [`ACCESS_LIFETIME_MAX`].
    #[error("an access token lives at least a second and at most {} s", ACCESS_LIFETIME_MAX.as_secs())]
    Lifetime,
    /// No such role, or one that does not go with the tenant.
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
    /// Refused before any of it was read.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It does not have the form of a token, or a claim has not the form of its kind.
    #[error("the token is not well-formed")]
    Malformed,
    /// Its header asks for another algorithm than HS256.
    #[error("the token's algorithm is not {ALGORITHM}")]
    WrongAlgorithm,
    /// A token of another kind.
    #[error("the token's type is not the expected one")]
    WrongType,
    /// No key of the [`Keyring`] has its `kid`.
    #[error("the token was signed with a key that is not known here")]
    UnknownKey,
    /// It was changed, or signed with another secret.
    #[error("the token's signature does not match")]
    BadSignature,
    /// The claim that is missing.
    #[error("the token lacks the claim {0}")]
    MissingClaim(&'static str),
    /// `iss` is not ours.
    #[error("the token was issued by someone else")]
    WrongIssuer,
    /// `aud` is not ours.
    #[error("the token is meant for someone else")]
    WrongAudience,
    /// `role` and `tid` contradict each other.
    #[error("the token's role and tenant do not go together")]
    WrongRole,
    /// More than [`ACCESS_LIFETIME_MAX`] from `iat` to `exp`.
    #[error("the token lives longer than {} s", ACCESS_LIFETIME_MAX.as_secs())]
    LivesTooLong,
    /// `exp` has passed, by more than the clocks may differ.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead, by more than the clocks may differ.
    #[error("the token is not valid yet")]
    NotYetValid,
}

/// Issues access tokens and verifies them.
#[derive(Clone, Debug)]
pub struct AccessTokens {
    keyring: Keyring,
    issuer: String,
    audience: String,
}

impl AccessTokens {
    /// Tokens by this issuer for this audience, and no others.
    pub fn new(keyring: Keyring, issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        AccessTokens { keyring, issuer: issuer.into(), audience: audience.into() }
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

    /// Reads a token that a client sent. Nothing of the claims is parsed before the signature
    /// matched.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<AccessClaims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;

        let header: Header = read_part(header)?;
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

        let claims = read_part::<RawClaims>(claims)?.complete()?;
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
        // `iat` too: otherwise a far `iat` would carry a far `exp` past the longest life.
        if claims.nbf.max(claims.iat) > now.saturating_add(LEEWAY_S) {
            return Err(TokenError::NotYetValid);
        }
        Ok(())
    }
}

/// The only header parameters there may be: `jku`, `jwk`, `x5u`, `x5c`, `crit`, `b64`, `zip` and
/// all else are refused because they are not on this list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: Option<String>,
    typ: Option<String>,
    kid: Option<String>,
}

/// Claims as they came. A claim given twice is an error of the derived parser; one that is not
/// known is ignored, so that a newer server may add some while an older one still runs.
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

/// `tid` is there with a tenant or not there at all; `null` is neither.
fn not_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    Uuid::deserialize(deserializer).map(Some)
}

fn read_part<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    // serde would read an array as the fields in order.
    if !json.starts_with(b"{") {
        return Err(TokenError::Malformed);
    }
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}

fn role_fits(role: &str, tenant: Option<Uuid>) -> bool {
    match tenant {
        Some(_) => TENANT_ROLES.contains(&role),
        None => role == OPERATOR,
    }
}

/// The nil UUID means the template, or the system: never someone who signs in.
fn any_nil(ids: [Option<Uuid>; 3]) -> bool {
    ids.into_iter().flatten().any(|id| id.is_nil())
}

/// A clock before 1970 counts as 1970: then no token is valid yet.
fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

const OPAQUE_BYTES: usize = 32;

/// What an opaque token is good for. A token of one kind is none of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpaqueKind {
    /// Exchanged for new tokens, once.
    Refresh,
    /// Accepts an invitation, once.
    Invitation,
}

impl OpaqueKind {
    /// Known prefixes let secret scanners find a leaked token.
    fn prefix(self) -> &'static str {
        match self {
            OpaqueKind::Refresh => "fhr_",
            OpaqueKind::Invitation => "fhi_",
        }
    }
}

/// 32 random bytes behind a prefix. Its holder keeps the text, the catalog keeps the hash.
#[derive(Clone)]
pub struct OpaqueToken {
    kind: OpaqueKind,
    text: String,
}

impl OpaqueToken {
    /// # Panics
    /// If the operating system has no random numbers.
    pub fn generate(kind: OpaqueKind) -> Self {
        let mut bytes = [0; OPAQUE_BYTES];
        getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
        OpaqueToken { kind, text: format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bytes)) }
    }

    /// Reads a token that a client sent. Each token has one spelling, so has one hash.
    pub fn parse(kind: OpaqueKind, text: &str) -> Result<Self, TokenError> {
        let body = text.strip_prefix(kind.prefix()).ok_or(TokenError::WrongType)?;
        // One byte of room more, so that what is too long fails to decode or has another length.
        let mut bytes = [0; OPAQUE_BYTES + 1];
        match URL_SAFE_NO_PAD.decode_slice(body, &mut bytes) {
            Ok(OPAQUE_BYTES) => Ok(OpaqueToken { kind, text: text.to_owned() }),
            _ => Err(TokenError::Malformed),
        }
    }

    /// The token itself, to be shown once to the one it is for.
    pub fn secret(&self) -> &str {
        &self.text
    }

    /// What the catalog stores and looks for: SHA-256 of the text. With 256 random bits there is
    /// nothing to guess, so neither salt nor a slow hash is needed, and a lookup by the hash tells
    /// nothing by its timing.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

impl fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpaqueToken({}…)", self.kind.prefix())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sha2::Sha512;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const OLD: &str = "an older secret, in use until now";
    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn tokens_with(secret: &str, retired: &[&str]) -> AccessTokens {
        AccessTokens::new(Keyring::new(secret, retired).unwrap(), "https://issuer", "freehold")
    }

    fn tokens() -> AccessTokens {
        tokens_with(SECRET, &[OLD])
    }

    fn member() -> Subject {
        Subject {
            identity: Uuid::from_u128(1),
            session: Uuid::from_u128(2),
            tenant: Some(Uuid::from_u128(3)),
            role: "member".to_owned(),
        }
    }

    fn issued() -> String {
        tokens().issue(&member(), ACCESS_LIFETIME, at(NOW)).unwrap()
    }

    fn kid(secret: &str) -> String {
        Key::new(secret.as_bytes()).unwrap().kid
    }

    fn header() -> Value {
        json!({"alg": "HS256", "typ": "at+jwt", "kid": kid(SECRET)})
    }

    fn claims() -> Value {
        json!({
            "iss": "https://issuer", "aud": "freehold", "role": "member",
            "sub": Uuid::from_u128(1), "sid": Uuid::from_u128(2), "tid": Uuid::from_u128(3),
            "iat": NOW, "nbf": NOW, "exp": NOW + 600, "jti": Uuid::from_u128(4),
        })
    }

    /// `base` with one member set, or removed where the value is null.
    fn with(mut base: Value, name: &str, value: Value) -> Value {
        let object = base.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.to_owned(), value);
        }
        base
    }

    /// A token of any content, rightly signed with `secret`: what an attacker could do who may
    /// choose all but the key, or a bug of ours.
    fn forge(secret: &str, header: impl fmt::Display, claims: impl fmt::Display) -> String {
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        let signature = mac.chain_update(message.as_bytes()).finalize().into_bytes();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[track_caller]
    fn refused(case: &str, token: &str, because: TokenError) {
        assert_eq!(tokens().verify(token, at(NOW)), Err(because), "{case}: {token}");
    }

    #[test]
    fn an_issued_token_comes_back_as_it_was() {
        let claims = tokens().verify(&issued(), at(NOW + 60)).unwrap();
        assert_eq!(claims.sub, Uuid::from_u128(1));
        assert_eq!(claims.sid, Uuid::from_u128(2));
        assert_eq!(claims.tid, Some(Uuid::from_u128(3)));
        assert_eq!(claims.role, "member");
        assert_eq!((claims.iat, claims.nbf, claims.exp), (NOW, NOW, NOW + 600));

        let operator = Subject { tenant: None, role: "operator".to_owned(), ..member() };
        let token = tokens().issue(&operator, ACCESS_LIFETIME, at(NOW)).unwrap();
        assert_eq!(tokens().verify(&token, at(NOW)).unwrap().tid, None);
    }

    /// What the tables below build on: each of their cases changes one thing in a token that is
    /// accepted.
    #[test]
    fn the_forged_tokens_differ_from_a_good_one_in_one_thing_only() {
        let token = forge(SECRET, header(), claims());
        assert!(tokens().verify(&token, at(NOW)).is_ok());
        let token = forge(OLD, with(header(), "kid", json!(kid(OLD))), claims());
        assert!(tokens().verify(&token, at(NOW)).is_ok());
        let token = forge(SECRET, header(), with(claims(), "from_a_newer_server", json!([1])));
        assert!(tokens().verify(&token, at(NOW)).is_ok());
    }

    /// RFC 7515, appendix A.1.
    #[test]
    fn the_signature_is_the_standards() {
        let secret = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                       eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let key = Key::new(&secret).unwrap();
        assert_eq!(key.sign(message), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    }

    #[test]
    fn a_header_that_is_not_ours_is_refused() {
        use TokenError::{Malformed, UnknownKey, WrongAlgorithm, WrongType};
        let url = json!("https://attacker.example/keys");
        let cases = [
            ("alg", json!("none"), WrongAlgorithm),
            ("alg", json!("None"), WrongAlgorithm),
            ("alg", json!("NONE"), WrongAlgorithm),
            ("alg", json!("nOnE"), WrongAlgorithm),
            ("alg", json!(""), WrongAlgorithm),
            ("alg", json!("hs256"), WrongAlgorithm),
            ("alg", json!("HS256 "), WrongAlgorithm),
            ("alg", json!("HS384"), WrongAlgorithm),
            ("alg", json!("HS512"), WrongAlgorithm),
            ("alg", json!("RS256"), WrongAlgorithm),
            ("alg", json!("PS256"), WrongAlgorithm),
            ("alg", json!("ES256"), WrongAlgorithm),
            ("alg", json!("EdDSA"), WrongAlgorithm),
            ("alg", Value::Null, WrongAlgorithm),
            ("alg", json!(["HS256"]), Malformed),
            ("alg", json!(0), Malformed),
            ("typ", json!("JWT"), WrongType),
            ("typ", json!("jwt"), WrongType),
            ("typ", json!("AT+JWT"), WrongType),
            ("typ", json!("application/at+jwt"), WrongType),
            ("typ", json!("rt+jwt"), WrongType),
            ("typ", Value::Null, WrongType),
            ("kid", json!("0000000000000000"), UnknownKey),
            ("kid", json!(format!("../{}", kid(SECRET))), UnknownKey),
            ("kid", json!("../../../../dev/null"), UnknownKey),
            ("kid", json!("/proc/sys/kernel/randomize_va_space"), UnknownKey),
            ("kid", json!("' UNION SELECT 'secret' --"), UnknownKey),
            ("kid", json!(kid(SECRET).to_uppercase() + " "), UnknownKey),
            ("kid", json!(kid(SECRET)[..8]), UnknownKey),
            ("kid", json!(""), UnknownKey),
            ("kid", Value::Null, UnknownKey),
            ("kid", json!([kid(SECRET)]), Malformed),
            ("jku", url.clone(), Malformed),
            ("x5u", url, Malformed),
            ("jwk", json!({"kty": "oct", "k": "AAAA"}), Malformed),
            ("x5c", json!(["MIIB"]), Malformed),
            ("x5t", json!("AAAA"), Malformed),
            ("crit", json!(["exp"]), Malformed),
            ("b64", json!(false), Malformed),
            ("zip", json!("DEF"), Malformed),
            ("cty", json!("JWT"), Malformed),
            ("ALG", json!("HS256"), Malformed),
        ];
        for (name, value, because) in cases {
            let case = format!("{name} = {value}");
            refused(&case, &forge(SECRET, with(header(), name, value), claims()), because);
        }

        let kid = kid(SECRET);
        let twice = format!(r#"{{"alg":"none","alg":"HS256","typ":"at+jwt","kid":"{kid}"}}"#);
        refused("alg twice", &forge(SECRET, twice, claims()), Malformed);
        let escaped =
            format!(r#"{{"\u0061lg":"none","alg":"HS256","typ":"at+jwt","kid":"{kid}"}}"#);
        refused("alg twice, one escaped", &forge(SECRET, escaped, claims()), Malformed);
        let array = json!(["HS256", "at+jwt", kid]);
        refused("an array", &forge(SECRET, array, claims()), Malformed);
    }

    /// The classic confusion: the verifier's key material, taken as an HMAC secret. Here no key is
    /// public; what remains is that neither another secret nor another hash passes.
    #[test]
    fn a_signature_by_other_means_is_refused() {
        use TokenError::{BadSignature, Malformed, UnknownKey, WrongAlgorithm};
        let public_key = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END";
        for alg in ["RS256", "ES256"] {
            let token = forge(public_key, with(header(), "alg", json!(alg)), claims());
            refused(alg, &token, WrongAlgorithm);
        }
        refused("another secret", &forge(public_key, header(), claims()), BadSignature);
        refused("a retired key's secret", &forge(OLD, header(), claims()), BadSignature);
        refused("the key's id as secret", &forge(&kid(SECRET), header(), claims()), BadSignature);
        refused("the empty secret", &forge("", header(), claims()), BadSignature);
        let own_kid = with(header(), "kid", json!(kid(public_key)));
        refused("the attacker's key id", &forge(public_key, own_kid, claims()), UnknownKey);

        let good = issued();
        let (message, signature) = good.rsplit_once('.').unwrap();
        let mac = Hmac::<Sha512>::new_from_slice(SECRET.as_bytes()).unwrap();
        let sha512 = mac.chain_update(message.as_bytes()).finalize().into_bytes();
        let sha512 = URL_SAFE_NO_PAD.encode(sha512);
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let half = URL_SAFE_NO_PAD.encode(&bytes[..16]);
        let doubled = URL_SAFE_NO_PAD.encode([&bytes[..], &bytes[..]].concat());
        for (case, signature, because) in [
            ("SHA-512", sha512.as_str(), BadSignature),
            ("none", "", BadSignature),
            ("cut to half", half.as_str(), BadSignature),
            ("doubled", doubled.as_str(), BadSignature),
            ("padded", &format!("{signature}="), Malformed),
            ("with a space", &format!("{signature} "), Malformed),
            ("with a line end", &format!("{signature}\n"), Malformed),
            ("with a NUL", &format!("{signature}\0"), Malformed),
            ("with a part more", &format!("{signature}.{signature}"), BadSignature),
        ] {
            refused(case, &format!("{message}.{signature}"), because);
        }
    }

    #[test]
    fn text_that_is_no_token_is_refused() {
        let good = issued();
        let parts: Vec<&str> = good.split('.').collect();
        for case in [
            "",
            ".",
            "..",
            "...",
            "Bearer",
            "\u{0}",
            "ëëë.ëëë.ëëë",
            parts[0],
            &parts[..2].join("."),
            &format!(" {good}"),
            &format!("{good} "),
            &format!("\t{good}\r\n"),
            &format!("Bearer {good}"),
            &format!("{}.. {}", parts[0], parts[2]),
            &format!("{}.{} .{}", parts[0], parts[1], parts[2]),
            &format!(".{}.{}", parts[1], parts[2]),
            &format!("{good}{good}"),
            &format!("{good}.eyJ9"),
            // Five parts are a JWE; JSON is the other serialisation of JWS.
            &format!("{}.a.b.c.d", parts[0]),
            &json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string(),
        ] {
            let answer = tokens().verify(case, at(NOW));
            let expected = [Err(TokenError::Malformed), Err(TokenError::BadSignature)];
            assert!(expected.contains(&answer), "{case}: {answer:?}");
        }

        let huge = with(claims(), "note", json!("x".repeat(4096)));
        refused("huge, though signed", &forge(SECRET, header(), huge), TokenError::TooLong);
        refused("huge nonsense", &"[".repeat(1 << 20), TokenError::TooLong);
    }

    #[test]
    fn a_claim_that_is_missing_is_named() {
        for name in ["iss", "aud", "sub", "sid", "role", "iat", "nbf", "exp", "jti"] {
            let token = forge(SECRET, header(), with(claims(), name, Value::Null));
            refused(name, &token, TokenError::MissingClaim(name));
            let mut null = claims();
            null[name] = Value::Null;
            refused(name, &forge(SECRET, header(), null), TokenError::MissingClaim(name));
        }
        refused("none", &forge(SECRET, header(), "{}"), TokenError::MissingClaim("iss"));
    }

    #[test]
    fn a_claim_that_is_wrong_is_refused() {
        use TokenError::*;
        let nil = json!(Uuid::nil());
        for (name, value, because) in [
            ("iss", json!("https://issuer/"), WrongIssuer),
            ("iss", json!("https://ISSUER"), WrongIssuer),
            ("iss", json!(""), WrongIssuer),
            ("iss", json!(["https://issuer"]), Malformed),
            ("aud", json!("another"), WrongAudience),
            ("aud", json!("freehold "), WrongAudience),
            ("aud", json!(["freehold"]), Malformed),
            ("aud", json!(["another", "freehold"]), Malformed),
            ("sub", json!("alice"), Malformed),
            ("sub", json!(1), Malformed),
            ("sub", nil.clone(), Malformed),
            ("sid", json!("../../sessions"), Malformed),
            ("sid", nil.clone(), Malformed),
            ("tid", json!("acme"), Malformed),
            ("tid", nil, Malformed),
            ("tid", Value::Null, WrongRole),
            ("role", json!("operator"), WrongRole),
            ("role", json!("Owner"), WrongRole),
            ("role", json!("superuser"), WrongRole),
            ("role", json!(["owner"]), Malformed),
            ("jti", json!("one"), Malformed),
            ("iat", json!(NOW.to_string()), Malformed),
            ("iat", json!(NOW as f64), Malformed),
            ("iat", json!(-1), Malformed),
            ("exp", json!((NOW + 600).to_string()), Malformed),
            ("exp", json!((NOW + 600) as f64), Malformed),
            ("exp", json!(1e300), Malformed),
            ("exp", json!(true), Malformed),
            ("nbf", json!({}), Malformed),
            ("exp", json!(NOW), Malformed),
            ("exp", json!(NOW - 1), Malformed),
            ("exp", json!(u64::MAX), LivesTooLong),
            ("exp", json!(NOW + 3601), LivesTooLong),
            ("iat", json!(0), LivesTooLong),
            ("iat", json!(NOW + 6), NotYetValid),
            ("nbf", json!(NOW + 6), NotYetValid),
            ("nbf", json!(u64::MAX), NotYetValid),
        ] {
            let case = format!("{name} = {value}");
            refused(&case, &forge(SECRET, header(), with(claims(), name, value)), because);
        }
        let mut null = claims();
        null["tid"] = Value::Null;
        refused("tid null", &forge(SECRET, header(), &null), Malformed);
        null["role"] = json!("operator");
        refused("tid null for an operator", &forge(SECRET, header(), null), Malformed);
    }

    #[test]
    fn repeated_claims_and_trailing_data_are_refused() {
        let json = claims().to_string();
        for twice in [
            json.replacen('{', r#"{"role":"owner","#, 1),
            json.replacen('{', r#"{"\u0072ole":"owner","#, 1),
            json.replacen('{', &format!(r#"{{"tid":"{}","#, Uuid::from_u128(9)), 1),
            format!(r#"{},"exp":{}}}"#, &json[..json.len() - 1], NOW + 601),
            format!("{json}{json}"),
            format!("{json}]"),
            format!("{json}\0"),
            format!("[{json}]"),
            format!("\u{feff}{json}"),
            "null".to_owned(),
            String::new(),
            "{".repeat(1000),
        ] {
            refused("repeated or trailing", &forge(SECRET, header(), twice), TokenError::Malformed);
        }
    }

    #[test]
    fn a_token_lives_from_nbf_to_exp_and_five_seconds_around() {
        let (token, tokens) = (issued(), tokens());
        let verify = |now| tokens.verify(&token, at(now)).map(|_| ());
        assert_eq!(verify(NOW - 6), Err(TokenError::NotYetValid));
        assert_eq!(verify(NOW - 5), Ok(()));
        assert_eq!(verify(NOW + 604), Ok(()));
        assert_eq!(verify(NOW + 605), Err(TokenError::Expired));
        assert_eq!(verify(NOW * 2), Err(TokenError::Expired));
        assert_eq!(verify(0), Err(TokenError::NotYetValid));
        let before_1970 = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(tokens.verify(&token, before_1970), Err(TokenError::NotYetValid));
    }

    #[test]
    fn any_change_of_a_byte_is_refused() {
        let (good, tokens, now) = (issued(), tokens(), at(NOW));
        for at in 0..good.len() {
            for bit in 0..7 {
                let mut bytes = good.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(tokens.verify(&changed, now).is_err(), "bit {bit} of byte {at}");
            }
            assert!(tokens.verify(&good[..at], now).is_err(), "cut at {at}");
            assert!(tokens.verify(&good[at + 1..], now).is_err(), "begun after {at}");
            for more in ['A', '=', '.', ' ', '\n'] {
                let mut longer = good.clone();
                longer.insert(at, more);
                assert!(tokens.verify(&longer, now).is_err(), "{more:?} put in at {at}");
            }
        }
    }

    #[test]
    fn parts_of_two_good_tokens_make_no_third() {
        let operator = Subject { tenant: None, role: "operator".to_owned(), ..member() };
        let ours = tokens().issue(&operator, ACCESS_LIFETIME, at(NOW)).unwrap();
        let theirs = issued();
        let (_, signature) = theirs.rsplit_once('.').unwrap();
        let (message, _) = ours.rsplit_once('.').unwrap();
        let mixed = format!("{message}.{signature}");
        refused("one's claims, another's signature", &mixed, TokenError::BadSignature);
    }

    #[test]
    fn a_retired_key_still_verifies_and_a_dropped_one_does_not() {
        let token = tokens_with(OLD, &[]).issue(&member(), ACCESS_LIFETIME, at(NOW)).unwrap();
        assert!(tokens_with(SECRET, &[OLD]).verify(&token, at(NOW)).is_ok());
        let dropped = tokens_with(SECRET, &[]).verify(&token, at(NOW));
        assert_eq!(dropped, Err(TokenError::UnknownKey));
        // The new key signs from the start.
        let renewed =
            tokens_with(SECRET, &[OLD]).issue(&member(), ACCESS_LIFETIME, at(NOW)).unwrap();
        assert!(tokens_with(SECRET, &[]).verify(&renewed, at(NOW)).is_ok());
    }

    #[test]
    fn a_keyring_refuses_weak_repeated_and_many_secrets() {
        let ring = |current: &str, retired: &[&str]| Keyring::new(current, retired).map(|_| ());
        assert_eq!(ring("", &[]), Err(KeyError::TooShort));
        assert_eq!(ring(&SECRET[1..], &[]), Err(KeyError::TooShort));
        assert_eq!(ring(SECRET, &["short"]), Err(KeyError::TooShort));
        assert_eq!(ring(SECRET, &[SECRET]), Err(KeyError::Repeated));
        assert_eq!(ring(SECRET, &[OLD, OLD]), Err(KeyError::Repeated));
        assert_eq!(ring(SECRET, &[OLD; 5]), Err(KeyError::TooMany));
    }

    /// Fixed for ever: servers of two versions must agree on it.
    #[test]
    fn a_key_has_the_same_name_everywhere() {
        assert_eq!(kid(SECRET), "b17a3bdac4d0d5db");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let text = format!("{:?}", tokens());
        assert!(text.contains(&kid(SECRET)), "{text}");
        assert!(!text.contains(SECRET) && !text.contains(OLD), "{text}");
        let token = OpaqueToken::generate(OpaqueKind::Refresh);
        assert_eq!(format!("{token:?}"), "OpaqueToken(fhr_…)");
    }

    #[test]
    fn a_token_that_verify_would_refuse_is_not_issued() {
        let issue = |subject, lifetime| tokens().issue(&subject, lifetime, at(NOW)).map(|_| ());
        let second = Duration::from_secs(1);
        assert_eq!(issue(member(), ACCESS_LIFETIME_MAX), Ok(()));
        assert_eq!(issue(member(), ACCESS_LIFETIME_MAX + second), Err(IssueError::Lifetime));
        assert_eq!(issue(member(), second / 2), Err(IssueError::Lifetime));
        for (role, tenant) in
            [("operator", Some(Uuid::from_u128(3))), ("owner", None), ("root", None), ("", None)]
        {
            let subject = Subject { tenant, role: role.to_owned(), ..member() };
            assert_eq!(issue(subject, second), Err(IssueError::Role), "{role}");
        }
        let template = Subject { tenant: Some(Uuid::nil()), ..member() };
        assert_eq!(issue(template, second), Err(IssueError::NilId));
        let system = Subject { identity: Uuid::nil(), ..member() };
        assert_eq!(issue(system, second), Err(IssueError::NilId));
    }

    #[test]
    fn an_opaque_token_is_random_and_found_again_by_its_hash() {
        let token = OpaqueToken::generate(OpaqueKind::Refresh);
        assert_eq!(token.secret().len(), 4 + 43);
        let sent = OpaqueToken::parse(OpaqueKind::Refresh, token.secret()).unwrap();
        assert_eq!(sent.hash(), token.hash());
        assert_ne!(OpaqueToken::generate(OpaqueKind::Refresh).hash(), token.hash());
    }

    #[test]
    fn text_that_is_no_opaque_token_is_refused() {
        let good = OpaqueToken::generate(OpaqueKind::Refresh).secret().to_owned();
        for text in [
            "",
            "fhr_",
            &good[..good.len() - 1],
            &format!("{good}A"),
            &format!("{good}="),
            &format!("{good} "),
            &format!(" {good}"),
            &format!("fhr_{good}"),
            &format!("fhr_{}", "A".repeat(44)),
            &format!("fhr_{}", "A".repeat(100_000)),
            &format!("fhr_{}B", "A".repeat(42)), // bits set that no byte needs
            &format!("fhr_{}+", "A".repeat(42)),
            &good.replace("fhr_", "fhi_"),
            &good.replace("fhr_", "FHR_"),
        ] {
            assert!(OpaqueToken::parse(OpaqueKind::Refresh, text).is_err(), "{text}");
        }
        assert!(OpaqueToken::parse(OpaqueKind::Invitation, &good).is_err());
    }
}
