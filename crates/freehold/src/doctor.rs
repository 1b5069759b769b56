//! The doctor compares the real database with what must hold, over the whole fleet.
//!
//! Every check is an SQL query to PostgreSQL's catalogs that runs once for the fleet, not once per tenant. It
//! returns only deviations: a few examples and a count. So an examination takes seconds for twenty thousand
//! tenants.
//!
//! The doctor opens connections of its own, outside of any pool: it must also be able to examine an
//! installation in which [`Freehold::connect`](crate::Freehold::connect) refuses to work.
//!
//! Stored expressions are compared as they are stored, and one of each form is printed: printing all of them
//! would open every table.

mod catalog;
mod check;
mod drift;
mod examination;
mod extensions;
mod leftovers;
mod outside;
mod policies;
mod pooler;
mod privileges;
mod references;
mod relations;
mod roles;
mod rollups;
mod seal;
mod server;

use serde::Serialize;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;
use crate::wire::client;
use crate::wire::tls::{self, Target};

use self::check::{Probe, Visibility};
use self::examination::Examination;

pub use self::check::{Check, Severity};

/// The default number of examples per finding.
const EXAMPLES_DEFAULT: usize = 5;
/// The most repairs of one check per run; a further run does the rest.
const REPAIRS_MAX: usize = 100_000;

/// The options of an examination.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// Only these checks, by their codes; empty means all.
    pub only: Vec<String>,
    /// Repairs what is safe to repair, then examines again.
    pub fix: bool,
    /// The most examples per finding.
    pub examples_max: usize,
}

impl Default for DoctorOptions {
    fn default() -> Self {
        DoctorOptions { only: Vec::new(), fix: false, examples_max: EXAMPLES_DEFAULT }
    }
}

/// What an examination found.
#[derive(Clone, Debug, Serialize)]
pub struct DoctorReport {
    /// The server's version, as it reports it.
    pub server_version: String,
    /// The number of tenants' schemas that were examined.
    pub tenants: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// The worst first; empty if there are none.
    pub findings: Vec<Finding>,
    /// Checks that could not be made, each with the reason. An unknown state does not count as good.
    pub not_checked: Vec<NotChecked>,
    /// The repairs that succeeded or failed, in order.
    pub repairs: Vec<Repair>,
}

impl DoctorReport {
    /// The number of findings of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.check.severity == severity).count()
    }
}

/// A check with deviations.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The check.
    #[serde(flatten)]
    pub check: Check,
    /// The number of deviating objects.
    pub count: u64,
    /// Some of them, in the order of their names.
    pub examples: Vec<Example>,
}

/// An object that deviates from what must hold.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// Its name: `schema.table`, a role, a setting.
    pub object: String,
    /// How it deviates.
    pub detail: String,
}

/// A check that could not be made.
#[derive(Clone, Debug, Serialize)]
pub struct NotChecked {
    /// The check.
    pub code: &'static str,
    /// What it checks.
    pub title: &'static str,
    /// The reason.
    pub reason: String,
}

/// A statement that was run as a repair.
#[derive(Clone, Debug, Serialize)]
pub struct Repair {
    /// The check that found it.
    pub code: &'static str,
    /// The repaired object.
    pub object: String,
    /// The statement.
    pub statement: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Every group of checks, in the order of their codes.
const GROUPS: &[&[Probe]] = &[
    policies::PROBES,
    catalog::PROBES,
    seal::PROBES,
    relations::PROBES,
    rollups::PROBES,
    privileges::PROBES,
    roles::PROBES,
    outside::PROBES,
    extensions::PROBES,
    references::PROBES,
    server::PROBES,
    leftovers::PROBES,
];

fn probes() -> impl Iterator<Item = &'static Probe> {
    GROUPS.iter().copied().flatten()
}

/// All checks, in the order of their codes.
pub fn checks() -> Vec<Check> {
    let asked = probes().flat_map(|probe| probe.checks);
    let mut checks: Vec<Check> =
        asked.chain(server::CHECKS).chain(pooler::CHECKS).chain(drift::CHECKS).copied().collect();
    checks.sort_by_key(|check| check.code);
    checks
}

/// Examines the database of `options`: as the owner role if its URL is given, for what only the owner sees,
/// and as the app role.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for an unknown code in [`DoctorOptions::only`]; [`ErrorKind::Unavailable`] if
/// the database cannot be reached; [`ErrorKind::Setup`] if the database was never prepared, or if it is to be
/// repaired without an owner connection.
pub async fn examine(options: &Options, doctor: &DoctorOptions) -> Result<DoctorReport> {
    let known = checks();
    if let Some(code) = doctor.only.iter().find(|code| !known.iter().any(|c| c.code == **code)) {
        let message = format!("there is no check {code}; `freehold doctor --list` shows all");
        return Err(Error::new(ErrorKind::InvalidInput, message).field("only"));
    }
    let started = Instant::now();
    let app = tls::target(&options.app_url, "DATABASE_URL")?;
    let owner = match &options.owner_url {
        Some(url) => Some(tls::target(url, "DATABASE_OWNER_URL")?),
        None => None,
    };
    let mut repairs = Vec::new();
    if doctor.fix {
        let owner = owner.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Setup, "repairs need the owner role: give DATABASE_OWNER_URL too")
        })?;
        repairs = repair(owner, doctor).await?;
    }
    let mut report = look(&app, owner.as_ref(), doctor).await?;
    report.repairs = repairs;
    report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

async fn look(
    app: &Target,
    owner: Option<&Target>,
    doctor: &DoctorOptions,
) -> Result<DoctorReport> {
    let sight = if owner.is_some() { Visibility::Owner } else { Visibility::Anyone };
    let target = owner.unwrap_or(app);
    let mut examination = Examination::begin(client::connect(target).await?, sight, doctor).await?;
    examination.require_catalog()?;
    // Comparing tenants with the template takes about as long as all other checks, so it gets a connection of
    // its own.
    let mut comparison = Examination::begin(client::connect(target).await?, sight, doctor).await?;
    let ask = async {
        for probe in probes() {
            examination.ask(probe).await?;
        }
        server::look(&mut examination);
        pooler::look(&mut examination, app).await;
        Ok::<_, Error>(())
    };
    tokio::try_join!(ask, drift::look(&mut comparison))?;
    examination.take_over(comparison);
    Ok(examination.end())
}

/// Runs the repair statement of each finding of a safe check. A failure is reported, and the other repairs go
/// on.
async fn repair(owner: &Target, doctor: &DoctorOptions) -> Result<Vec<Repair>> {
    let thorough = DoctorOptions { examples_max: REPAIRS_MAX, ..doctor.clone() };
    let mut examination =
        Examination::begin(client::connect(owner).await?, Visibility::Owner, &thorough).await?;
    examination.require_catalog()?;
    for probe in probes().filter(|probe| probe.checks.iter().any(|check| check.fix_is_safe)) {
        examination.ask(probe).await?;
    }
    drift::look(&mut examination).await?;
    examination.repair().await
}

/// The expected catalog in the seal mode of this database, which was just prepared.
#[cfg(feature = "testing")]
pub(crate) async fn describe_catalog(database: &Target) -> Result<String> {
    let client = client::connect(database).await?;
    let rows = client.simple_query(&catalog::describe()).await?;
    let line = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(|line| format!("{line}\n")),
        _ => None,
    };
    Ok(rows.iter().filter_map(line).collect())
}

/// Checks that find tables in which a tenant's rows are exposed.
const OPEN_TABLES: [&str; 4] = ["FH101", "FH102", "FH103", "FH202"];

/// The critical findings that are visible to the app role, one sentence per check.
#[derive(Clone, Debug, Default)]
pub struct CriticalFindings {
    /// Those of the template, the catalog, roles or the server, or of every tenant: then no server is ready.
    pub fleet: Vec<String>,
    /// Those of single tenants. Other tenants are not affected, so servers continue.
    pub tenants: Vec<String>,
    /// The number of objects in tenants' schemas with these findings.
    pub tenant_objects: u64,
    /// At least some of the tables that others than their tenant may reach, for
    /// [`Protection::isolate`](crate::control::protection::Protection::isolate).
    pub open_tables: Vec<String>,
}

/// The critical findings that are quick to determine: tables without row-level security or our policy.
pub(crate) async fn examine_tables(app: &Target) -> Result<CriticalFindings> {
    let client = client::connect_to_read(app).await?;
    let rows = client.query(policies::BARE_TABLES, &[]).await?;
    client.batch_execute("ROLLBACK").await?;
    let mut critical = CriticalFindings::default();
    for row in rows {
        let (example, count, schemas): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let (is_template, all): (bool, i64) = (row.get(3), row.get(4));
        let sentence = format!("{example} is not protected; there are {count} such tables");
        if is_template || schemas > 1 && schemas == all {
            critical.fleet.push(sentence);
        } else {
            critical.tenants.push(sentence);
            critical.tenant_objects += u64::try_from(count).unwrap_or_default();
        }
    }
    Ok(critical)
}

/// The critical findings for a readiness probe. A check that failed counts as a finding of the fleet, since
/// an unknown state does not count as good.
pub(crate) async fn examine_critical(app: &Target) -> Result<CriticalFindings> {
    let client = client::connect(app).await?;
    let doctor = DoctorOptions::default();
    let mut examination = Examination::begin(client, Visibility::Anyone, &doctor).await?;
    let is_critical = |probe: &&Probe| {
        probe.sight == Visibility::Anyone
            && probe.checks.iter().any(|check| check.severity == Severity::Critical)
    };
    let mut critical = CriticalFindings::default();
    // Beside a newer catalog that still serves this build, only the newer build knows its expected content.
    let fits = examination.catalog_fits();
    for probe in probes().filter(is_critical).filter(|probe| fits || !catalog::is_asked_by(probe)) {
        for found in examination.ask_whose(probe).await? {
            if found.check.severity != Severity::Critical {
                continue;
            }
            let more = match found.count - 1 {
                0 => String::new(),
                more if found.tenants > 1 => {
                    format!(" (and {more} more, of {} tenants)", found.tenants)
                }
                more => format!(" (and {more} more)"),
            };
            let (code, example) = (found.check.code, found.example);
            let sentence = format!("{code}: {}: {}{more}", example.object, example.detail);
            if found.is_fleets {
                critical.fleet.push(sentence);
            } else {
                critical.tenants.push(sentence);
                critical.tenant_objects += found.count;
                if OPEN_TABLES.contains(&code) {
                    critical.open_tables.extend(found.objects);
                }
            }
        }
    }
    critical.open_tables.sort();
    critical.open_tables.dedup();
    examination.require_same_catalog().await?;
    let report = examination.end();
    let unknown =
        report.not_checked.iter().map(|missing| format!("{}: {}", missing.code, missing.reason));
    critical.fleet.extend(unknown);
    Ok(critical)
}
