//! What sign-in stands on: passwords, tokens, proofs of an address.

pub(crate) mod passwords;
pub(crate) mod proof;
pub mod tokens;
pub(crate) mod turns;
