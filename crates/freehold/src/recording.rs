//! Writes down what was observed, in the background.

pub(crate) mod recorder;
pub(crate) mod reporter;
pub(crate) mod slow_log;
