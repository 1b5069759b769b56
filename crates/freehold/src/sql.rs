//! SQL as text: where a statement ends, and what of it may be recorded. Pure.

pub(crate) mod excerpt;
pub(crate) mod script;
