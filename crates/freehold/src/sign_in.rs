//! What sign-in stands on: passwords, tokens, proofs of an address.

#[cfg(feature = "sign-in")]
pub(crate) mod passwords;
pub(crate) mod proof;
pub(crate) mod slug_locks;
#[cfg(feature = "sign-in")]
pub mod tokens;
