//! What sign-in stands on: passwords, tokens, proofs of an address.

pub(crate) mod passwords;
pub(crate) mod proof;
pub(crate) mod slug_locks;
pub mod tokens;
