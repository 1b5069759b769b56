//! Access tokens: those that the service accepts, and those that it must not.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use freehold::tokens::{AccessTokens, Keyring, Subject};
use freehold::{Role, TenantId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use super::Failure;

const LIFETIME: Duration = Duration::from_secs(600);

/// The service's own key, and a wrong one.
pub(crate) struct Mint {
    secret: String,
    tokens: AccessTokens,
    wrong: AccessTokens,
}

/// A token that must be refused, as lines of a request's head.
pub(crate) struct Forgery {
    pub(crate) name: &'static str,
    pub(crate) headers: String,
}

/// The names of all forgeries.
pub(crate) const FORGERIES: [&str; 16] = [
    "no token",
    "algorithm none",
    "algorithm none, signature kept",
    "signed with a wrong key",
    "another tenant's id, signed with a wrong key",
    "another tenant's id under an old signature",
    "another tenant's id, signed by us, no member there",
    "an operator's role, tenant kept",
    "expired",
    "not valid yet",
    "key id unknown",
    "key id like a path",
    "key in the header",
    "type of another token",
    "header Authorization twice",
    "cut short",
];

/// The one that is correctly signed, but whose person is not a member.
pub(crate) const NO_MEMBER: usize = 6;

pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

impl Mint {
    pub(crate) fn new(secret: &str) -> Result<Mint, Failure> {
        let tokens = |secret: &str| {
            let keyring = Keyring::new(secret, &[""; 0])?;
            Ok::<_, Failure>(AccessTokens::new(keyring, "freehold", "freehold"))
        };
        // Differs in its last byte.
        let wrong = format!("{}!", &secret[..secret.len() - 1]);
        Ok(Mint { secret: secret.to_owned(), tokens: tokens(secret)?, wrong: tokens(&wrong)? })
    }

    pub(crate) fn tokens(&self) -> AccessTokens {
        self.tokens.clone()
    }

    /// A token that the service accepts, if the person is a member.
    pub(crate) fn token(&self, person: Uuid, tenant: Option<TenantId>, role: Role) -> String {
        issue(&self.tokens, person, tenant, role, SystemTime::now())
    }

    /// Forgery number `which`, by a member of `own` who tries to read `other`.
    pub(crate) fn forge(
        &self,
        which: usize,
        (person, own, role): (Uuid, TenantId, Role),
        other: TenantId,
    ) -> Forgery {
        let name = FORGERIES[which];
        let now = SystemTime::now();
        let good = self.token(person, Some(own), role);
        let [header, claims, signature] = parts(&good);
        let with_header = |change: fn(&mut Value)| {
            let mut header = decode(header);
            change(&mut header);
            self.sign(&header, &decode(claims))
        };
        let with_claims = |change: &dyn Fn(&mut Value)| {
            let mut claims = decode(claims);
            change(&mut claims);
            claims
        };
        let none = encode(&json!({"alg": "none", "typ": "at+jwt"}));
        let theirs = with_claims(&|claims| claims["tid"] = json!(other.as_uuid()));
        let token = match name {
            "no token" => return Forgery { name, headers: String::new() },
            "algorithm none" => format!("{none}.{claims}."),
            "algorithm none, signature kept" => format!("{none}.{claims}.{signature}"),
            "signed with a wrong key" => issue(&self.wrong, person, Some(own), role, now),
            "another tenant's id, signed with a wrong key" => {
                issue(&self.wrong, person, Some(other), role, now)
            }
            "another tenant's id under an old signature" => {
                format!("{header}.{}.{signature}", encode(&theirs))
            }
            "another tenant's id, signed by us, no member there" => {
                self.token(person, Some(other), role)
            }
            "an operator's role, tenant kept" => {
                let claims = with_claims(&|claims| claims["role"] = json!("operator"));
                self.sign(&decode(header), &claims)
            }
            "expired" => {
                let then = now - Duration::from_secs(7200);
                issue(&self.tokens, person, Some(own), role, then)
            }
            "not valid yet" => {
                let then = now + Duration::from_secs(7200);
                issue(&self.tokens, person, Some(own), role, then)
            }
            "key id unknown" => with_header(|header| header["kid"] = json!("0000000000000000")),
            "key id like a path" => with_header(|header| header["kid"] = json!("../../dev/null")),
            "key in the header" => with_header(|header| {
                header["jwk"] = json!({"kty": "oct", "k": "AAAA"});
            }),
            "type of another token" => with_header(|header| header["typ"] = json!("JWT")),
            "header Authorization twice" => {
                let theirs = issue(&self.wrong, person, Some(other), role, now);
                return Forgery { name, headers: bearer(&good) + &bearer(&theirs) };
            }
            _ => good[..good.len() - 2].to_owned(),
        };
        Forgery { name, headers: bearer(&token) }
    }

    /// Signs any content like the service does.
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes())
            .expect("HMAC takes a key of any length");
        mac.update(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

fn issue(
    tokens: &AccessTokens,
    identity: Uuid,
    tenant: Option<TenantId>,
    role: Role,
    now: SystemTime,
) -> String {
    let tenant = tenant.map(|tenant| tenant.as_uuid());
    // Each person has one session, of the same id.
    let subject = Subject { identity, session: identity, tenant, role: role.as_str().to_owned() };
    tokens.issue(&subject, LIFETIME, now).expect("roles and tenants go together here")
}

fn parts(token: &str) -> [&str; 3] {
    let mut parts = token.splitn(3, '.');
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

fn decode(part: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(part).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forgeries differ from a valid token only in what their names say: signed again without a change,
    /// each is valid.
    #[test]
    fn only_forgeries_are_refused() {
        let mint = Mint::new("a secret of the proof, of some length").unwrap();
        let (person, own, other) = (Uuid::new_v4(), Uuid::new_v4().into(), Uuid::new_v4().into());
        let good = mint.token(person, Some(own), Role::Member);
        let now = SystemTime::now();
        assert!(mint.tokens.verify(&good, now).is_ok());
        let [header, claims, _] = parts(&good);
        assert!(mint.tokens.verify(&mint.sign(&decode(header), &decode(claims)), now).is_ok());
        for (which, name) in FORGERIES.iter().enumerate() {
            let forged = mint.forge(which, (person, own, Role::Member), other);
            let mut tokens =
                forged.headers.lines().map(|line| &line["Authorization: Bearer ".len()..]);
            let (Some(token), None) = (tokens.next(), tokens.next()) else { continue };
            // Correctly signed, and refused because of the catalog.
            assert_eq!(mint.tokens.verify(token, now).is_ok(), which == NO_MEMBER, "{name}");
        }
    }
}
