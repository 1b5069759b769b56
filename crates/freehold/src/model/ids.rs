//! Identifiers: their format and their parsing. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};

/// A tenant's identifier: a random UUID. The schema's name is made of it alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(Uuid);

impl TenantId {
    /// The template's id. It is replaced by the tenant's wherever a new tenant's rows and defaults contain it,
    /// so it is a value that no application writes, unlike the nil UUID; and of version 8, which no tenant's
    /// id is.
    pub(crate) const TEMPLATE: TenantId =
        TenantId(Uuid::from_u128(0x1a169cdf_4117_86b9_a8ac_a5eeab7a958f));
    /// The id of the throwaway tenant on which migrations are rehearsed, chosen likewise.
    pub(crate) const REHEARSAL: TenantId =
        TenantId(Uuid::from_u128(0x8ba29bac_980a_80db_b052_f194fe00ffc5));

    pub(crate) fn generate() -> Self {
        TenantId(Uuid::new_v4())
    }

    /// For use as a parameter of a statement.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// The tenant whose schema would have this name, whether it exists or not.
    pub fn of_schema(name: &str) -> Option<TenantId> {
        let id = TenantId(Uuid::try_parse(name.strip_prefix("tenant_")?).ok()?);
        (id.schema() == name).then_some(id)
    }

    /// The name of the tenant's schema, `tenant_<32 hex digits>`.
    ///
    /// It needs no quoting in SQL and contains no user input.
    pub fn schema(&self) -> String {
        if *self == Self::TEMPLATE {
            return TEMPLATE_SCHEMA.to_owned();
        }
        format!("tenant_{}", self.0.simple())
    }
}

/// The schema that always holds the baseline. The data API's model and the drift check are made from it.
pub const TEMPLATE_SCHEMA: &str = "freehold_template";

impl From<Uuid> for TenantId {
    fn from(id: Uuid) -> Self {
        TenantId(id)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({})", self.0)
    }
}

/// A person's identifier, the same in every tenant that the person belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdentityId(Uuid);

impl IdentityId {
    /// The actor of work that no person asked for: schedules, seeds, migrations.
    pub const SYSTEM: IdentityId = IdentityId(Uuid::nil());

    pub(crate) fn generate() -> Self {
        IdentityId(Uuid::new_v4())
    }

    /// For use as a parameter of a statement.
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for IdentityId {
    fn from(id: Uuid) -> Self {
        IdentityId(id)
    }
}

impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A tenant's name in URLs: 3 to 63 of `a-z`, `0-9` and `-`, beginning with a letter.
///
/// 63 because a slug may become a DNS label. Upper case is refused rather than folded, so that
/// one tenant has one spelling.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Slug(String);

/// Names that would be confused with parts of the service or of PostgreSQL.
const RESERVED: &[&str] = &[
    "account",
    "admin",
    "api",
    "app",
    "assets",
    "auth",
    "billing",
    "blog",
    "console",
    "dashboard",
    "data",
    "default",
    "docs",
    "freehold",
    "help",
    "internal",
    "localhost",
    "login",
    "logout",
    "mail",
    "me",
    "metrics",
    "operator",
    "postgres",
    "public",
    "root",
    "security",
    "signup",
    "static",
    "status",
    "support",
    "system",
    "template",
    "tenant",
    "tenants",
    "test",
    "www",
];

impl Slug {
    /// The slug as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            Err(Error::new(ErrorKind::InvalidInput, format!("the slug {why}")).field("slug"))
        };
        if text.len() < 3 || text.len() > 63 {
            return refuse("must have 3 to 63 characters");
        }
        if !text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return refuse("may hold only the letters a to z, digits and hyphens");
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return refuse("must begin with a letter");
        }
        // Names such as `xn--…` have a special meaning in host names.
        if text.ends_with('-') || text.contains("--") {
            return refuse("must not end with a hyphen or hold two in a row");
        }
        // A slug must be distinguishable from an id.
        if is_like_an_id(text) {
            return refuse("must not look like a tenant's id");
        }
        if RESERVED.contains(&text) || text.starts_with("pg-") || text.starts_with("freehold-") {
            return refuse("is reserved");
        }
        Ok(Slug(text.to_owned()))
    }
}

/// 32 hex digits, with or without hyphens, alone or in the form of a schema's name.
fn is_like_an_id(slug: &str) -> bool {
    let bare: String = slug.chars().filter(|character| *character != '-').collect();
    let id = bare.strip_prefix("tenant").unwrap_or(&bare);
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl TryFrom<String> for Slug {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> String {
        slug.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slug({})", self.0)
    }
}

/// An e-mail address in lower case, so that two spellings are one person.
///
/// Only its form is checked; whether it receives mail shows when a message is sent there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// The address as text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),:;<>[\\]".contains(&b));
        let shaped = text.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty()
                && host.contains('.')
                && !host.contains('@')
                && !host.starts_with('.')
                && !host.ends_with('.')
        });
        if text.len() > 254 || !plain || !shaped {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the e-mail must look like name@example.com, in ASCII, with at most 254 characters",
            )
            .field("email"));
        }
        Ok(Email(text.to_ascii_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_name_holds_nothing_but_the_id() {
        let id = TenantId::from(Uuid::from_u128(0xabc));
        assert_eq!(id.schema(), "tenant_00000000000000000000000000000abc");
        assert_eq!(TenantId::TEMPLATE.schema(), "freehold_template");
    }

    #[test]
    fn slugs_that_are_plain_are_accepted() {
        for text in ["abc", "acme", "acme-2", "a1b", &"a".repeat(63)] {
            assert!(text.parse::<Slug>().is_ok(), "{text}");
        }
    }

    #[test]
    fn an_email_has_one_spelling() {
        assert_eq!("Ann@Example.COM".parse::<Email>().unwrap().as_str(), "ann@example.com");
        for text in [
            "",
            "ann",
            "@example.com",
            "ann@",
            "ann@host",
            "a b@example.com",
            "ann@b@c.d",
            "ännn@example.com",
            "a\n@example.com",
        ] {
            assert!(text.parse::<Email>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn slugs_that_could_be_mistaken_for_something_else_are_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            "ab",
            &long,
            "Acme",
            "1acme",
            "-acme",
            "acme-",
            "a--b",
            "xn--abc",
            "ac me",
            "ac_me",
            "acme.example",
            "acme'",
            "acme\"",
            "acme\r\nx",
            "acme\0",
            "асme",
            "ａcme",
            "acmé",
            "admin",
            "public",
            "pg-x",
            "freehold-template",
            "tenants",
            "a1b2c3d4-0000-4000-8000-0123456789ab",
            "abcdef00000040008000000000000001",
            "tenant-abcdef00000040008000000000000001",
            "a/b",
            "a:b",
            "../x",
        ] {
            assert!(text.parse::<Slug>().is_err(), "{text:?}");
        }
    }
}
