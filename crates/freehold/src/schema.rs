//! A baseline: its files, how they are read and run, what protects what they make.

pub(crate) mod migration;
pub(crate) mod outside;
pub(crate) mod policy;
