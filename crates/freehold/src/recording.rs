//! Writes observations to the catalog, in the background.

pub(crate) mod recorder;
pub(crate) mod reporter;
pub(crate) mod slow_log;
