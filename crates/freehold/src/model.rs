//! The basic values: ids, tenants, actors, contexts. Pure.

pub(crate) mod actor;
pub(crate) mod audit;
pub(crate) mod budget;
pub(crate) mod context;
pub(crate) mod ids;
pub(crate) mod lsn;
pub(crate) mod mail;
pub(crate) mod origin;
pub(crate) mod tenant;
