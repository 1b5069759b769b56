//! Makes tenants, and brings all of them to the baseline.

pub(crate) mod dry_run;
pub(crate) mod migrator;
pub(crate) mod provisioner;
