//! What a value is stored under, and its owner. Pure.

use std::fmt;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::model::context::TenantContext;
use crate::model::ids::TenantId;

/// The owner of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Global,
    Tenant(TenantId),
}

impl Owner {
    /// As the catalog and an envelope store it: nil for a global value.
    pub(crate) fn as_uuid(self) -> Uuid {
        match self {
            Owner::Global => Uuid::nil(),
            Owner::Tenant(tenant) => tenant.as_uuid(),
        }
    }

    pub(crate) fn from_uuid(id: Uuid) -> Owner {
        match id.is_nil() {
            true => Owner::Global,
            false => Owner::Tenant(TenantId::from(id)),
        }
    }
}

/// What is invalidated together: the values of one name, of a tenant or global.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) owner: Owner,
    pub(crate) name: String,
}

impl Scope {
    pub(crate) fn new(owner: Owner, name: &str) -> Scope {
        Scope { owner, name: name.to_owned() }
    }
}

/// What a value is stored under. A key can only be made from a tenant's context or by calling `global`, so no
/// key lacks a tenant by mistake.
///
/// Parts are kept apart: `a:b` and `c` differ from `a` and `b:c`.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheKey {
    owner: Owner,
    actor: Option<(Uuid, &'static str)>,
    name: &'static str,
    /// Each part preceded by its length.
    parts: Vec<u8>,
}

/// A key's fingerprint: SHA-256 of all its parts.
pub(crate) type KeyDigest = [u8; 32];

impl CacheKey {
    /// For what one actor of a tenant sees. Another actor, or the same actor with another role, has other
    /// keys, since a baseline's policies may show them other rows.
    ///
    /// The name says what kind of value it is. It is a metric's label, and the argument of
    /// [`Cache::invalidate`](crate::Cache::invalidate).
    ///
    /// # Panics
    /// If the name is not of `a-z`, `0-9` and `_`, beginning with a letter, 40 at most.
    pub fn of(context: &TenantContext, name: &'static str) -> CacheKey {
        check_name(name);
        let actor = Some((context.actor().id.as_uuid(), context.role().as_str()));
        CacheKey { owner: Owner::Tenant(context.tenant()), actor, name, parts: Vec::new() }
    }

    /// For values that belong to no tenant.
    ///
    /// # Panics
    /// As for [`of`](Self::of).
    pub fn global(name: &'static str) -> CacheKey {
        check_name(name);
        CacheKey { owner: Owner::Global, actor: None, name, parts: Vec::new() }
    }

    /// For values that every member of the tenant sees alike.
    pub fn for_whole_tenant(mut self) -> CacheKey {
        self.actor = None;
        self
    }

    /// Adds a part that the value depends on.
    pub fn part(mut self, part: impl AsRef<[u8]>) -> CacheKey {
        let part = part.as_ref();
        self.parts.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.parts.extend_from_slice(part);
        self
    }

    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn digest(&self) -> KeyDigest {
        let mut hash = Sha256::new();
        // Everything of variable length is preceded by its length, so no two keys are encoded alike.
        hash.update([u8::from(self.owner != Owner::Global)]);
        hash.update(self.owner.as_uuid().as_bytes());
        hash.update([u8::from(self.actor.is_some())]);
        if let Some((id, role)) = &self.actor {
            hash.update(id.as_bytes());
            hash.update([role.len() as u8]);
            hash.update(role.as_bytes());
        }
        hash.update([self.name.len() as u8]);
        hash.update(self.name.as_bytes());
        hash.update(&self.parts);
        hash.finalize().into()
    }
}

/// Parts are not printed: they may be a caller's values, which must not reach a log.
impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({:?}, {}, …)", self.owner, self.name)
    }
}

fn check_name(name: &str) {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let fits = (1..=40).contains(&name.len())
        && name.as_bytes()[0].is_ascii_lowercase()
        && name.bytes().all(plain);
    assert!(fits, "a name in the cache has 1 to 40 of a-z, 0-9 and _, not {name:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::actor::{Actor, Role};
    use crate::model::ids::IdentityId;

    fn context(tenant: u128, actor: u128, role: Role) -> TenantContext {
        let actor = Actor { id: IdentityId::from(Uuid::from_u128(actor)), role };
        TenantContext::new(TenantId::from(Uuid::from_u128(tenant)), actor)
    }

    #[test]
    fn keys_that_differ_in_anything_have_different_digests() {
        let acme = context(1, 7, Role::Member);
        let of = |context: &TenantContext| CacheKey::of(context, "data");
        let keys = [
            of(&acme),
            of(&context(2, 7, Role::Member)),
            of(&context(1, 8, Role::Member)),
            of(&context(1, 7, Role::Admin)),
            of(&acme).for_whole_tenant(),
            CacheKey::of(&acme, "dat"),
            CacheKey::global("data"),
            of(&acme).part(""),
            of(&acme).part("").part(""),
            of(&acme).part("a:b").part("c"),
            of(&acme).part("a").part("b:c"),
            of(&acme).part("a").part("b").part(":c"),
            of(&acme).part("A:B").part("c"),
            of(&acme).part("ä:b").part("c"),
            of(&acme).part("a\u{308}:b").part("c"),
            CacheKey::global("data").part("a:b").part("c"),
        ];
        for (n, one) in keys.iter().enumerate() {
            for other in &keys[n + 1..] {
                assert_ne!(one.digest(), other.digest(), "{one:?} {other:?}");
            }
            assert_eq!(one.digest(), one.clone().digest());
        }
    }

    #[test]
    fn a_key_shows_no_parts_where_it_is_logged() {
        let key = CacheKey::global("data").part("secret");
        assert!(!format!("{key:?}").contains("secret"));
    }

    #[test]
    #[should_panic(expected = "a name in the cache")]
    fn a_name_is_a_plain_word() {
        let _ = CacheKey::global("Data:x");
    }
}
