//! The parts of sign-in: passwords, tokens, proofs of addresses.

pub(crate) mod invitations;
#[cfg(feature = "sign-in")]
pub(crate) mod passwords;
pub(crate) mod proof;
pub(crate) mod slug_locks;
#[cfg(feature = "sign-in")]
pub mod tokens;
