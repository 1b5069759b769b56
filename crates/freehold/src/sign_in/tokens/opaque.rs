//! Opaque tokens: random text that is looked up by its hash.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::{DerivedKey, TokenError};

const OPAQUE_BYTES: usize = 32;

/// The purpose of an opaque token. A token of one kind is not accepted as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpaqueKind {
    /// Exchanged for new tokens, once.
    Refresh,
    /// Accepts an invitation, once.
    Invitation,
    /// Confirms a sign-up, once.
    SignUp,
    /// Chooses a new password, once.
    PasswordReset,
    /// Confirms a change of address, once.
    AddressChange,
}

impl OpaqueKind {
    /// Known prefixes let secret scanners find a leaked token.
    fn prefix(self) -> &'static str {
        match self {
            OpaqueKind::Refresh => "fhr_",
            OpaqueKind::Invitation => "fhi_",
            OpaqueKind::SignUp => "fhs_",
            OpaqueKind::PasswordReset => "fhp_",
            OpaqueKind::AddressChange => "fha_",
        }
    }
}

/// 32 random bytes behind a prefix. The holder keeps the text, the catalog keeps the hash.
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
        OpaqueToken::of(kind, bytes)
    }

    fn of(kind: OpaqueKind, bytes: [u8; OPAQUE_BYTES]) -> Self {
        OpaqueToken { kind, text: format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(bytes)) }
    }

    /// The token that replaces this one. It is derived with the key: always the same, and unknown without the
    /// key. So it can be issued again without being stored.
    pub(crate) fn successor(&self, key: &DerivedKey) -> Self {
        OpaqueToken::of(self.kind, key.sign(self.text.as_bytes()))
    }

    /// Reads a token that a client sent. Each token has only one spelling, and so only one hash.
    pub fn parse(kind: OpaqueKind, text: &str) -> Result<Self, TokenError> {
        let body = text.strip_prefix(kind.prefix()).ok_or(TokenError::WrongType)?;
        // One more byte, so that a longer text fails to decode or has another length.
        let mut bytes = [0; OPAQUE_BYTES + 1];
        match URL_SAFE_NO_PAD.decode_slice(body, &mut bytes) {
            Ok(OPAQUE_BYTES) => Ok(OpaqueToken { kind, text: text.to_owned() }),
            _ => Err(TokenError::Malformed),
        }
    }

    /// The token itself, to be shown once to its recipient.
    pub fn secret(&self) -> &str {
        &self.text
    }

    /// What the catalog stores and looks up: SHA-256 of the text. 256 random bits cannot be guessed, so
    /// neither a salt nor a slow hash is needed, and the timing of a look-up by hash reveals nothing.
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
    use super::*;

    #[test]
    fn an_opaque_token_is_random_and_found_again_by_its_hash() {
        let token = OpaqueToken::generate(OpaqueKind::Refresh);
        assert_eq!(token.secret().len(), 4 + 43);
        let sent = OpaqueToken::parse(OpaqueKind::Refresh, token.secret()).unwrap();
        assert_eq!(sent.hash(), token.hash());
        assert_ne!(OpaqueToken::generate(OpaqueKind::Refresh).hash(), token.hash());
    }

    #[test]
    fn a_successor_is_the_same_each_time_and_another_by_another_key_or_of_another_token() {
        let ring = |secret: &str| crate::sign_in::tokens::Keyring::new(secret, &[""; 0]).unwrap();
        let key = ring("0123456789abcdef0123456789abcdef").derive("a test");
        let other = ring("0123456789abcdef0123456789abcdeX").derive("a test");
        let purpose = ring("0123456789abcdef0123456789abcdef").derive("another test");
        let token = OpaqueToken::generate(OpaqueKind::Refresh);
        let next = token.successor(&key);
        assert_eq!(next.secret(), token.successor(&key).secret());
        assert!(OpaqueToken::parse(OpaqueKind::Refresh, next.secret()).is_ok());
        let others = [token.successor(&other), token.successor(&purpose), next.successor(&key)];
        assert!(others.iter().all(|other| other.secret() != next.secret()));
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
