//! Device tokens: a client that has signed in keeps one, so that its further guesses are counted separately.
//! The OWASP Authentication Cheat Sheet calls it a device cookie.
//!
//! A device token is signed, not stored, and gives no access. It says that the person has signed in from the
//! device on which it is kept, and is replaced at each sign-in.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::{Keyring, unix_seconds};
use crate::model::ids::IdentityId;

const PREFIX: &str = "fhd_";
const PURPOSE: &str = "devices";
/// The lifetime of a device token.
const LIFETIME: Duration = Duration::from_secs(180 * 24 * 3600);
/// Identity, id, epoch and time; the signature follows.
const BODY_BYTES: usize = 16 + 16 + 4 + 8;
const SIGNATURE_BYTES: usize = 32;

/// A device from which a person has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) identity: IdentityId,
    /// The person's epoch at that time: a change of password invalidates device tokens.
    pub(crate) epoch: i32,
    pub(crate) id: [u8; 16],
}

impl Device {
    /// A device that has just signed in.
    pub(crate) fn new(identity: IdentityId, epoch: i32) -> Device {
        Device { identity, epoch, id: *Uuid::new_v4().as_bytes() }
    }

    /// The token that the client keeps.
    pub(crate) fn seal(&self, keyring: &Keyring, now: SystemTime) -> String {
        let mut bytes = Vec::with_capacity(BODY_BYTES + SIGNATURE_BYTES);
        bytes.extend_from_slice(self.identity.as_uuid().as_bytes());
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&unix_seconds(now).to_be_bytes());
        let signature = keyring.derive(PURPOSE).sign(&bytes);
        bytes.extend_from_slice(&signature);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a token that a client sent. `None` unless it was issued here and has not expired.
    pub(crate) fn open(text: &str, keyring: &Keyring, now: SystemTime) -> Option<Device> {
        // One more byte, so that a longer text has another length.
        let mut bytes = [0; BODY_BYTES + SIGNATURE_BYTES + 1];
        let length = URL_SAFE_NO_PAD.decode_slice(text.strip_prefix(PREFIX)?, &mut bytes).ok()?;
        if length != BODY_BYTES + SIGNATURE_BYTES {
            return None;
        }
        let (body, signature) = bytes[..length].split_at(BODY_BYTES);
        let signed = |key: super::DerivedKey| key.signed(body, signature);
        if !keyring.derive_each(PURPOSE).any(signed) {
            return None;
        }
        let made = u64::from_be_bytes(body[36..44].try_into().ok()?);
        if unix_seconds(now).saturating_sub(made) > LIFETIME.as_secs() {
            return None;
        }
        Some(Device {
            identity: IdentityId::from(Uuid::from_slice(&body[..16]).ok()?),
            id: body[16..32].try_into().ok()?,
            epoch: i32::from_be_bytes(body[32..36].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const OLD: &str = "an older secret, in use until now";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_device_is_read_as_it_was_sealed_and_in_no_other_way() {
        let ring = Keyring::new(SECRET, &[OLD]).unwrap();
        let device = Device::new(IdentityId::from(Uuid::from_u128(7)), 3);
        let now = at(1_800_000_000);
        let sealed = device.seal(&ring, now);
        assert_eq!(Device::open(&sealed, &ring, now), Some(device.clone()));
        let days = |days: u64| at(1_800_000_000 + days * 24 * 3600);
        assert!(Device::open(&sealed, &ring, days(180)).is_some());
        assert_eq!(Device::open(&sealed, &ring, days(181)), None);
        // With a retired key, but not with an unknown one.
        let old = Keyring::new(OLD, &[""; 0]).unwrap();
        assert!(Device::open(&device.seal(&old, now), &ring, now).is_some());
        assert_eq!(Device::open(&sealed, &old, now), None);
        for at in 0..sealed.len() {
            let mut other = sealed.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(Device::open(&other, &ring, now), None, "{other}");
        }
        let long = format!("fhd_{}", "A".repeat(10_000));
        for text in ["", "fhd_", &sealed[..sealed.len() - 4], &format!("{sealed}AAAA"), &long] {
            assert_eq!(Device::open(text, &ring, now), None, "{text}");
        }
        assert_ne!(device.id, Device::new(device.identity, 3).id);
    }
}
