//! Envelopes: a value with its owner, load time and epochs, and a seal that proves that one of these servers
//! wrote it. Pure.

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use super::key::{KeyDigest, Owner};

/// The version of the format; other versions are not read.
const FORM: &[u8] = b"freehold cache 1";
const SEAL_BYTES: usize = 32;
/// Owner, digest, two epochs, two times.
const HEAD_BYTES: usize = 16 + 32 + 4 * 8;
/// How much longer an envelope is than its value.
pub(super) const ENVELOPE_BYTES: usize = FORM.len() + SEAL_BYTES + HEAD_BYTES;
/// How far the clock of another server may be ahead of this one's.
const AHEAD_MAX_MS: u64 = 2_000;

/// The epochs that a value belongs to: that of its name everywhere, and that of its name in its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    pub(super) everywhere: i64,
    /// 0 for a global value.
    pub(super) tenant: i64,
}

/// A value with its description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    pub(super) digest: KeyDigest,
    pub(super) version: Version,
    /// The time before the load began, in milliseconds since 1970.
    pub(super) loaded_at_ms: u64,
    pub(super) expires_at_ms: u64,
    pub(super) value: Bytes,
}

/// A request for a value, at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) owner: Owner,
    pub(super) digest: KeyDigest,
    pub(super) version: Version,
    pub(super) max_age: Duration,
    pub(super) now_ms: u64,
}

/// Whether an entry answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Yes; its age.
    Fits(Duration),
    /// The right value, but too old, or of an epoch that has ended.
    Stale,
    /// The value of another key or another tenant.
    Foreign,
}

impl Entry {
    /// How long it remains valid.
    pub(super) fn time_left(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.expires_at_ms.saturating_sub(now_ms))
    }

    /// Every value is checked when it is returned, wherever it was kept.
    pub(super) fn judge(&self, asked: &Request) -> Verdict {
        if self.owner != asked.owner || self.digest != asked.digest {
            return Verdict::Foreign;
        }
        let from_the_future = self.loaded_at_ms > asked.now_ms.saturating_add(AHEAD_MAX_MS);
        let age = Duration::from_millis(asked.now_ms.saturating_sub(self.loaded_at_ms));
        let over = self.version != asked.version || self.expires_at_ms <= asked.now_ms;
        match from_the_future || over || age > asked.max_age {
            true => Verdict::Stale,
            false => Verdict::Fits(age),
        }
    }
}

/// Seals values for Redis, and opens what Redis returns.
#[derive(Clone)]
pub(super) struct Sealer(Hmac<Sha256>);

impl Sealer {
    pub(super) fn new(secret: &[u8]) -> Sealer {
        Sealer(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"))
    }

    pub(super) fn seal(&self, entry: &Entry) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(ENVELOPE_BYTES + entry.value.len());
        sealed.extend_from_slice(FORM);
        sealed.extend_from_slice(&[0; SEAL_BYTES]);
        sealed.extend_from_slice(entry.owner.as_uuid().as_bytes());
        sealed.extend_from_slice(&entry.digest);
        sealed.extend_from_slice(&entry.version.everywhere.to_be_bytes());
        sealed.extend_from_slice(&entry.version.tenant.to_be_bytes());
        sealed.extend_from_slice(&entry.loaded_at_ms.to_be_bytes());
        sealed.extend_from_slice(&entry.expires_at_ms.to_be_bytes());
        sealed.extend_from_slice(&entry.value);
        let (head, body) = sealed.split_at_mut(FORM.len() + SEAL_BYTES);
        let seal = self.0.clone().chain_update(&*body).finalize().into_bytes();
        head[FORM.len()..].copy_from_slice(&seal);
        sealed
    }

    /// `None` if none of these servers sealed it.
    pub(super) fn open(&self, sealed: Vec<u8>) -> Option<Entry> {
        let sealed = Bytes::from(sealed);
        let rest = sealed.strip_prefix(FORM)?;
        let (seal, body) = rest.split_at_checked(SEAL_BYTES)?;
        self.0.clone().chain_update(body).verify_slice(seal).ok()?;
        let value = sealed.slice_ref(body.get(HEAD_BYTES..)?);
        let (owner, body) = body.split_first_chunk()?;
        let (digest, body) = body.split_first_chunk()?;
        let (everywhere, body) = body.split_first_chunk()?;
        let (tenant, body) = body.split_first_chunk()?;
        let (loaded_at, body) = body.split_first_chunk()?;
        let (expires_at, _) = body.split_first_chunk()?;
        Some(Entry {
            owner: Owner::from_uuid(Uuid::from_bytes(*owner)),
            digest: *digest,
            version: Version {
                everywhere: i64::from_be_bytes(*everywhere),
                tenant: i64::from_be_bytes(*tenant),
            },
            loaded_at_ms: u64::from_be_bytes(*loaded_at),
            expires_at_ms: u64::from_be_bytes(*expires_at),
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::TenantId;

    fn entry() -> Entry {
        Entry {
            owner: Owner::Tenant(TenantId::from(Uuid::from_u128(1))),
            digest: [7; 32],
            version: Version { everywhere: 3, tenant: 4 },
            loaded_at_ms: 1_000_000,
            expires_at_ms: 1_060_000,
            value: Bytes::from_static(b"[1,2,3]"),
        }
    }

    fn asked(entry: &Entry) -> Request {
        Request {
            owner: entry.owner,
            digest: entry.digest,
            version: entry.version,
            max_age: Duration::from_secs(30),
            now_ms: entry.loaded_at_ms + 20_000,
        }
    }

    #[test]
    fn what_was_sealed_is_what_is_opened() {
        let sealer = Sealer::new(b"a secret");
        let sealed = sealer.seal(&entry());
        assert_eq!(sealed.len(), ENVELOPE_BYTES + entry().value.len());
        assert_eq!(sealer.open(sealed), Some(entry()));
    }

    #[test]
    fn an_envelope_with_any_byte_changed_cut_or_added_is_none() {
        let sealer = Sealer::new(b"a secret");
        let sealed = sealer.seal(&entry());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(sealer.open(changed), None, "byte {at}");
            assert_eq!(sealer.open(sealed[..at].to_vec()), None, "cut at {at}");
        }
        assert_eq!(sealer.open([&sealed[..], b"x"].concat()), None);
        assert_eq!(Sealer::new(b"another secret").open(sealed), None);
    }

    #[test]
    fn an_entry_is_only_for_who_asks_for_just_that() {
        let entry = entry();
        let good = asked(&entry);
        assert_eq!(entry.judge(&good), Verdict::Fits(Duration::from_secs(20)));
        let others = Owner::Tenant(TenantId::from(Uuid::from_u128(2)));
        for owner in [Owner::Global, others] {
            assert_eq!(entry.judge(&Request { owner, ..good }), Verdict::Foreign);
        }
        assert_eq!(entry.judge(&Request { digest: [8; 32], ..good }), Verdict::Foreign);
        for version in [Version { everywhere: 2, tenant: 4 }, Version { everywhere: 3, tenant: 5 }]
        {
            assert_eq!(entry.judge(&Request { version, ..good }), Verdict::Stale);
        }
        let strict = Request { max_age: Duration::from_secs(19), ..good };
        assert_eq!(entry.judge(&strict), Verdict::Stale);
        for now_ms in [entry.expires_at_ms, entry.loaded_at_ms - AHEAD_MAX_MS - 1] {
            let patient = Request { max_age: Duration::from_secs(3600), now_ms, ..good };
            assert_eq!(entry.judge(&patient), Verdict::Stale);
        }
    }
}
