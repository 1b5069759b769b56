//! What is counted of statements, violations and outages. What writes it down is `recording`.

pub(crate) mod insight;
pub(crate) mod trouble;
pub(crate) mod violations;
