//! What a check is, and how one is asked: its words for people, its question for the database.

use serde::Serialize;

/// How bad it is if a check finds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A wall between tenants is down, or a person with SQL could take it down. Not ready to serve.
    Critical,
    /// A second defence is missing, or something is not as it was made; tenants are still apart.
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

/// One thing that must hold. The code is stable: programs may rely on it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Check {
    /// `FH` and three digits; the first tells the group.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, as a heading.
    pub title: &'static str,
    /// What it means for tenants.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
    /// Whether the doctor can repair it without taking anything away that somebody needs.
    pub fix_is_safe: bool,
}

/// Who can see what a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    /// Whoever may connect: it is in `pg_catalog`.
    Anyone,
    /// The owner role: it reads rows of the catalog, across tenants.
    Owner,
}

/// A question to the whole fleet at once, which answers several checks.
///
/// Its SQL follows `WITH fleet AS (…)`, the schemas of the template and of every tenant, and returns
/// `code`, `object`, `detail` and `fix`: a statement that repairs it, or NULL. It runs with the
/// search path `pg_catalog`, so that what PostgreSQL prints names every schema. What only the owner
/// sees may use `current_tenant` too, the tenants at the baseline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) checks: &'static [Check],
    pub(super) sight: Visibility,
    /// Tables of its own for the WITH clause, or nothing.
    pub(super) with: &'static str,
    pub(super) sql: &'static str,
}
