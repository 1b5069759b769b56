//! Checks: their texts for people, and their queries for the database.

use serde::Serialize;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Tenants are not isolated, or a person with SQL could end the isolation. Not ready to serve.
    Critical,
    /// A second defence is missing, or an object was changed; tenants are still isolated.
    Warning,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// `critical`, `warning` or `info`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Critical => "critical",
            Severity::Warning => "warning",
            Severity::Info => "info",
        }
    }
}

/// A condition that must hold. The code is stable: programs may rely on it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Check {
    /// `FH` and three digits; the first digit is the group.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The deviation, as a heading.
    pub title: &'static str,
    /// The consequence for tenants.
    pub meaning: &'static str,
    /// The remedy.
    pub remedy: &'static str,
    /// Whether the doctor can repair it without removing anything that may be in use.
    pub fix_is_safe: bool,
}

/// The role that can run a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    /// Any role that can connect: the data are in `pg_catalog`.
    Anyone,
    /// The owner role: the query reads rows of the catalog, across tenants.
    Owner,
}

/// A query over the whole fleet for several checks.
///
/// Its SQL follows `WITH fleet AS (…)`, the schemas of the template and of every tenant, and returns `code`,
/// `object`, `detail` and `fix`: a statement that repairs it, or NULL. It runs with the search path
/// `pg_catalog`, so that PostgreSQL prints names with their schemas. Queries for the owner may use
/// `current_tenant` too: the tenants at the baseline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) checks: &'static [Check],
    pub(super) sight: Visibility,
    /// Further tables for the WITH clause; may be empty.
    pub(super) with: &'static str,
    pub(super) sql: &'static str,
}
