//! Tenants' schemas: the files of a baseline, how they are read and run, and the policies that protect what
//! they create.

pub(crate) mod import;
pub(crate) mod migration;
pub(crate) mod outside;
pub(crate) mod policy;
