//! Who may work in which tenant, as a server knows it, and how it hears of changes.

pub(crate) mod residue;
pub(crate) mod resolver;
