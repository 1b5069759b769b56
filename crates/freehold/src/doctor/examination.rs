//! An examination: its connection, the queries it ran, and their results.

use std::collections::BTreeMap;

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::check::{Check, Probe, Visibility};
use super::{DoctorOptions, DoctorReport, Example, Finding, NotChecked, Repair, catalog, policies};
use crate::error::{Error, ErrorKind, Result};
use crate::init::{self, CATALOG_VERSION};
use crate::model::ids::{TEMPLATE_SCHEMA, TenantId};
use crate::schema::policy::quote_literal;
use crate::wire::settings;

/// Timeout of one query: over twenty thousand tenants the longest takes a few seconds.
const QUESTION_SECS_MAX: u32 = 120;

/// The schemas of the template and of every tenant, recognised by their names alone, so that the app role can
/// run the query.
const FLEET: &str = "fleet AS MATERIALIZED (
  SELECT n.oid, n.nspname, n.nspowner, n.nspacl,
    CASE WHEN n.nspname = '{template}' THEN '{template_id}' ELSE substr(n.nspname, 8) END::uuid AS tenant
  FROM pg_namespace n WHERE n.nspname = '{template}' OR n.nspname ~ '^tenant_[0-9a-f]{32}$' AND n.nspname <> '{rehearsal}'
)";

/// The tenants that are at the baseline, like the template: only these can be compared with it.
const CURRENT: &str = ", current_tenant AS MATERIALIZED (
  SELECT f.oid, f.nspname, f.tenant FROM fleet f JOIN freehold.tenant t ON t.id = f.tenant
  WHERE t.version = (SELECT coalesce(max(version), 0) FROM freehold.baseline)
)";

/// The most object names that are returned in full: as many as a server isolates at a time.
const OBJECTS_MAX: usize = 100;

/// A finding from the database, with the statement that repairs it.
struct Found {
    examples: Vec<Example>,
    fixes: Vec<Option<String>>,
    count: u64,
}

/// The findings of one check, in tenants' schemas or outside of them.
pub(super) struct Occurrences {
    pub(super) check: Check,
    pub(super) example: Example,
    /// Their names, or at least some.
    pub(super) objects: Vec<String>,
    pub(super) count: u64,
    /// The number of tenants' schemas concerned; 0 if it is outside of them.
    pub(super) tenants: u64,
    pub(super) is_fleets: bool,
}

pub(super) struct Examination<'a> {
    client: Client,
    sight: Visibility,
    doctor: &'a DoctorOptions,
    server_version: String,
    /// As in `server_version_num`: 150018 is 15.18.
    server_version_num: i32,
    catalog_version: i32,
    tenants: u64,
    found: BTreeMap<&'static str, (Check, Found)>,
    not_checked: Vec<NotChecked>,
}

impl<'a> Examination<'a> {
    pub(super) async fn begin(
        client: Client,
        sight: Visibility,
        doctor: &'a DoctorOptions,
    ) -> Result<Self> {
        let mut examination = Examination {
            client,
            sight,
            doctor,
            server_version: String::new(),
            server_version_num: 0,
            catalog_version: 0,
            tenants: 0,
            found: BTreeMap::new(),
            not_checked: Vec::new(),
        };
        let about = "SELECT current_setting('server_version'), current_setting('server_version_num'),
            (SELECT count(*) FROM fleet WHERE nspname <> 'freehold_template'),
            to_regclass('freehold.catalog_migration') IS NOT NULL AND to_regrole('freehold_app') IS NOT NULL,
            session_user";
        let rows = examination.rows(&format!("WITH {} {about}", fleet())).await?;
        let row = rows.first().ok_or_else(|| unreadable("the server's version"))?;
        let text = |index| row.get(index).unwrap_or_default();
        if text(3) != "t" {
            return Err(setup(
                "the catalog is missing in this database: run `freehold init` first",
            ));
        }
        if sight == Visibility::Owner && text(4) != "freehold_owner" {
            return Err(setup(
                "DATABASE_OWNER_URL must connect as freehold_owner, which `freehold init` makes",
            ));
        }
        examination.server_version = text(0).to_owned();
        examination.server_version_num = text(1).parse().unwrap_or_default();
        examination.tenants = text(2).parse().unwrap_or_default();
        examination.catalog_version = examination.read_catalog_version().await?;
        Ok(examination)
    }

    async fn read_catalog_version(&self) -> Result<i32> {
        let rows = self.rows("SELECT max(version) FROM freehold.catalog_migration").await?;
        let version = rows.first().and_then(|row| row.get(0)).unwrap_or("0");
        Ok(version.parse().unwrap_or_default())
    }

    /// Discards the findings if the catalog was upgraded meanwhile: some would be about the old one and some
    /// about the new one.
    pub(super) async fn require_same_catalog(&self) -> Result<()> {
        if self.read_catalog_version().await? == self.catalog_version {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Retryable,
            "the catalog was brought forward during the examination; examine it again",
        ))
    }

    /// Whether the catalog is that of this build.
    pub(super) fn catalog_fits(&self) -> bool {
        self.catalog_version == CATALOG_VERSION
    }

    /// Refuses to compare a catalog of another version with that of this build.
    pub(super) fn require_catalog(&self) -> Result<()> {
        if self.catalog_fits() {
            return Ok(());
        }
        let version = self.catalog_version;
        Err(setup(format!(
            "the catalog is at version {version} and this build knows {CATALOG_VERSION}: run `freehold init` with this build, or use the build that fits"
        )))
    }

    pub(super) fn sight(&self) -> Visibility {
        self.sight
    }

    pub(super) fn server_version_num(&self) -> i32 {
        self.server_version_num
    }

    pub(super) fn examples_max(&self) -> usize {
        self.doctor.examples_max
    }

    /// Whether any of these checks is requested.
    pub(super) fn wants(&self, checks: &[Check]) -> bool {
        let only = &self.doctor.only;
        only.is_empty() || checks.iter().any(|check| only.iter().any(|code| code == check.code))
    }

    /// The rows of a query. It is sent as one simple query, which is a transaction: its settings end with it,
    /// and it works behind a pooler.
    pub(super) async fn rows(&self, sql: &str) -> Result<Vec<SimpleQueryRow>> {
        let sql = format!(
            "SET LOCAL transaction_read_only = on;
             -- Off, it would refuse the owner the catalog instead of showing it.
             SET LOCAL row_security = on;
             SET LOCAL search_path = pg_catalog, pg_temp;
             SET LOCAL statement_timeout = '{QUESTION_SECS_MAX}s';
             -- These questions scan; compiling them takes longer than it saves.
             SET LOCAL jit = off;
             -- Nobody analyses system tables; hash joins suffer least from wrong estimates.
             SET LOCAL enable_mergejoin = off;
             SET LOCAL work_mem = '64MB';
             {sql}"
        );
        let messages = self.client.simple_query(&sql).await?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Runs a query and keeps the findings. A query that the role may not run is recorded as not checked; so
    /// is one that fails, since the others still have results.
    pub(super) async fn ask(&mut self, probe: &'static Probe) -> Result<()> {
        if !self.wants(probe.checks) {
            return Ok(());
        }
        if probe.sight == Visibility::Owner && self.sight == Visibility::Anyone {
            self.skip(
                probe.checks,
                "only the owner role sees it, and DATABASE_OWNER_URL is not set",
            );
            return Ok(());
        }
        let sql = complete(probe, self.sight, self.doctor.examples_max);
        let rows = match self.rows(&sql).await {
            Ok(rows) => rows,
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => {
                self.skip(probe.checks, &error.to_string());
                return Ok(());
            }
        };
        for row in rows {
            let text = |index| row.get(index).unwrap_or_default();
            let Some(check) = probe.checks.iter().find(|check| check.code == text(0)) else {
                return Err(unreadable(text(0)));
            };
            let example = Example { object: text(1).to_owned(), detail: text(2).to_owned() };
            let count = text(4).parse().unwrap_or_default();
            self.add(check, example, row.get(3).map(str::to_owned), count);
        }
        Ok(())
    }

    /// Runs a query and separates findings in tenants' schemas from the others. A query that fails is
    /// recorded as not checked, as by [`Examination::ask`].
    pub(super) async fn ask_whose(&mut self, probe: &'static Probe) -> Result<Vec<Occurrences>> {
        let rows = match self.rows(&whose(probe, self.sight)).await {
            Ok(rows) => rows,
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => {
                self.skip(probe.checks, &error.to_string());
                return Ok(Vec::new());
            }
        };
        let mut found = Vec::new();
        for row in rows {
            let text = |index| row.get(index).unwrap_or_default();
            let Some(check) = probe.checks.iter().find(|check| check.code == text(0)) else {
                return Err(unreadable(text(0)));
            };
            let number = |index| text(index).parse().unwrap_or_default();
            let (count, tenants) = (number(3), number(4));
            let objects = serde_json::from_str(text(5)).unwrap_or_default();
            let example = Example { object: text(1).to_owned(), detail: text(2).to_owned() };
            // A deviation in every tenant's schema was not caused by a single tenant.
            let is_fleets = tenants == 0 || tenants > 1 && tenants == self.tenants;
            found.push(Occurrences { check: *check, example, objects, count, tenants, is_fleets });
        }
        Ok(found)
    }

    /// Keeps one object that a check found; `count` is the number of all it found.
    pub(super) fn add(&mut self, check: &Check, example: Example, fix: Option<String>, count: u64) {
        let only = &self.doctor.only;
        if !only.is_empty() && !only.iter().any(|code| code == check.code) {
            return;
        }
        let nothing = || (*check, Found { examples: Vec::new(), fixes: Vec::new(), count: 0 });
        let (_, found) = self.found.entry(check.code).or_insert_with(nothing);
        found.examples.push(example);
        found.fixes.push(fix);
        found.count = found.count.max(count);
    }

    /// Records that checks could not be made.
    pub(super) fn skip(&mut self, checks: &[Check], reason: &str) {
        for check in checks {
            if self.wants(std::slice::from_ref(check)) {
                let reason = reason.to_owned();
                self.not_checked.push(NotChecked { code: check.code, title: check.title, reason });
            }
        }
    }

    /// Adds the findings of another examination of the same database by other checks.
    pub(super) fn take_over(&mut self, other: Examination<'_>) {
        self.found.extend(other.found);
        self.not_checked.extend(other.not_checked);
        self.not_checked.sort_by_key(|missing| missing.code);
    }

    /// Runs the repairs of safe checks, each statement in a transaction of its own.
    pub(super) async fn repair(self) -> Result<Vec<Repair>> {
        let mut repairs = Vec::new();
        for (code, (check, found)) in self.found {
            if !check.fix_is_safe {
                continue;
            }
            for (example, fix) in found.examples.into_iter().zip(found.fixes) {
                let Some(statement) = fix else { continue };
                let outcome = self
                    .client
                    .batch_execute(&format!("SET LOCAL lock_timeout = '5s'; {statement}"))
                    .await;
                let error = outcome.err().map(|error| Error::from(error).to_string());
                repairs.push(Repair { code, object: example.object, statement, error });
            }
        }
        Ok(repairs)
    }

    pub(super) fn end(self) -> DoctorReport {
        let mut findings: Vec<Finding> = self
            .found
            .into_values()
            .map(|(check, found)| Finding { check, count: found.count, examples: found.examples })
            .collect();
        findings.sort_by_key(|finding| (finding.check.severity, finding.check.code));
        DoctorReport {
            server_version: self.server_version,
            tenants: self.tenants,
            duration_ms: 0,
            findings,
            not_checked: self.not_checked,
            repairs: Vec::new(),
        }
    }
}

fn fleet() -> String {
    FLEET
        .replace("{template}", TEMPLATE_SCHEMA)
        .replace("{template_id}", &TenantId::TEMPLATE.to_string())
        .replace("{rehearsal}", &TenantId::REHEARSAL.schema())
}

/// The common beginning of every query: the fleet, and for the owner the tenants at the baseline.
pub(super) fn scope(sight: Visibility) -> String {
    let current = if sight == Visibility::Owner { CURRENT } else { "" };
    format!("WITH {}{current}", fleet())
}

/// A query with its beginning, its limit, and a count of all that it found.
fn complete(probe: &Probe, sight: Visibility, examples_max: usize) -> String {
    let comma = if probe.with.is_empty() { "" } else { "," };
    let sql = format!(
        "{scope}{comma}{with}, finding AS MATERIALIZED ({sql})
         SELECT code, object, detail, fix, total FROM (
           SELECT *, count(*) OVER (PARTITION BY code) AS total,
             row_number() OVER (PARTITION BY code ORDER BY object, detail) AS place
           FROM finding
         ) placed WHERE place <= {examples_max} ORDER BY code, place",
        scope = scope(sight),
        with = probe.with,
        sql = probe.sql,
    );
    fill(&sql)
}

/// A query with one row for the findings in tenants' schemas and one for the others. The template and the
/// catalog belong to no tenant. The name of an object's schema identifies the tenant, since no other role may
/// create schemas with such names.
fn whose(probe: &Probe, sight: Visibility) -> String {
    let comma = if probe.with.is_empty() { "" } else { "," };
    fill(&format!(
        "{scope}{comma}{with}, finding AS MATERIALIZED ({sql}), named AS MATERIALIZED (
           SELECT code, object, detail, substring(object FROM '^(?:schema |type )?(tenant_[0-9a-f]{{32}})(?:[.]|$)') AS tenant FROM finding
         )
         SELECT code, (array_agg(object ORDER BY object, detail))[1], (array_agg(detail ORDER BY object, detail))[1],
           count(*), count(DISTINCT tenant), to_json((array_agg(object ORDER BY object))[1:{OBJECTS_MAX}])
         FROM named GROUP BY code, tenant IS NULL ORDER BY code, 5",
        scope = scope(sight),
        with = probe.with,
        sql = probe.sql,
    ))
}

fn fill(sql: &str) -> String {
    sql.replace("{actual_catalog}", catalog::ACTUAL)
        .replace("{isolation}", &quote_literal(policies::ISOLATION))
        .replace("{expected_catalog}", &quote_literal(catalog::EXPECTED))
        .replace("{dangerous_functions}", &quote_literal(&init::DANGEROUS.join(" ")))
        .replace("{app_bounds}", &quote_literal(&settings::app_bounds().join(" ")))
        .replace("{activity_functions}", &quote_literal(&init::ACTIVITY.join(" ")))
        .replace("{session_locks}", &quote_literal(&init::SESSION_LOCKS.join(" ")))
        .replace("{statement_extensions}", &quote_literal(&init::STATEMENT_EXTENSIONS.join(" ")))
        .replace("{event_trigger}", &quote_literal(init::EVENT_TRIGGER))
        .replace("{verdict}", &quote_literal(init::VERDICT))
}

fn setup(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Setup, message)
}

fn unreadable(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the database's answer cannot be read: {what}"))
}
