//! What is counted of statements, violations and outages. `recording` writes it down.

pub(crate) mod insight;
pub(crate) mod trouble;
pub(crate) mod violations;
