//! SQL as text: where a statement ends, what may be told of it. Pure.

pub(crate) mod excerpt;
pub(crate) mod script;
