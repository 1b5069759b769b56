//! Compares the real database with what must hold, over the whole fleet.
//!
//! Every check is a question in SQL to the catalogs of PostgreSQL, asked once for the fleet and
//! never once a tenant; only what is wrong comes back, and of that a few examples and a count. So
//! an examination takes seconds for twenty thousand tenants.
//!
//! It connects by itself, beside any pool: it must be able to speak of an installation in which
//! [`Freehold::connect`](crate::Freehold::connect) refuses to work.
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

/// Examples kept of one finding, unless asked otherwise.
const EXAMPLES_DEFAULT: usize = 5;
/// Repairs of one check in one run; a second run takes up what is left.
const REPAIRS_MAX: usize = 100_000;

/// How an examination goes about it.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// Only these checks, by their codes; empty means all.
    pub only: Vec<String>,
    /// Repairs what can be repaired safely, then examines again.
    pub fix: bool,
    /// Examples kept of one finding.
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
    /// The server's version, as it says it.
    pub server_version: String,
    /// Schemas of tenants that were looked at.
    pub tenants: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// The worst first; empty is good.
    pub findings: Vec<Finding>,
    /// Checks that could not be made, each with the reason: what is not known is not well.
    pub not_checked: Vec<NotChecked>,
    /// What was repaired, or could not be, in order.
    pub repairs: Vec<Repair>,
}

impl DoctorReport {
    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.check.severity == severity).count()
    }
}

/// One check that found something.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The check.
    #[serde(flatten)]
    pub check: Check,
    /// How many objects it found.
    pub count: u64,
    /// Some of them, in the order of their names.
    pub examples: Vec<Example>,
}

/// An object that is not as it must be.
#[derive(Clone, Debug, Serialize)]
pub struct Example {
    /// Its name: `schema.table`, a role, a setting.
    pub object: String,
    /// What is the matter with it.
    pub detail: String,
}

/// A check that was not made.
#[derive(Clone, Debug, Serialize)]
pub struct NotChecked {
    /// The check.
    pub code: &'static str,
    /// What it would have looked for.
    pub title: &'static str,
    /// Why it could not.
    pub reason: String,
}

/// One statement that was run to repair something.
#[derive(Clone, Debug, Serialize)]
pub struct Repair {
    /// The check that found it.
    pub code: &'static str,
    /// What was repaired.
    pub object: String,
    /// By what.
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

/// Every check there is, in the order of their codes.
pub fn checks() -> Vec<Check> {
    let asked = probes().flat_map(|probe| probe.checks);
    let mut checks: Vec<Check> =
        asked.chain(server::CHECKS).chain(pooler::CHECKS).chain(drift::CHECKS).copied().collect();
    checks.sort_by_key(|check| check.code);
    checks
}

/// Examines the database that `options` lead to: as the owner role if its URL is there, for what
/// only the owner sees, and as the app role.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a code in [`DoctorOptions::only`] that there is not;
/// [`ErrorKind::Unavailable`] if nothing can be reached; [`ErrorKind::Setup`] if the database was
/// never prepared, or if it shall be repaired and there is no owner connection.
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
    // Comparing with the template takes about as long as all the rest, so it gets a connection of
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

/// Runs the statement that each finding of a safe check came with. One that fails is reported and
/// in nobody's way.
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

/// What the catalog is compared with in the seal mode of this database, which was just prepared.
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

/// Checks of tables that a tenant's rows lie open in.
const OPEN_TABLES: [&str; 4] = ["FH101", "FH102", "FH103", "FH202"];

/// What is critical, as far as the app role can see it, a sentence for each check.
#[derive(Clone, Debug, Default)]
pub struct CriticalFindings {
    /// Of the template, the catalog, roles, the server, or of every tenant there is: no server is ready then.
    pub fleet: Vec<String>,
    /// Of single tenants. Nobody else's work depends on them, so servers go on.
    pub tenants: Vec<String>,
    /// How many objects of tenants' schemas these are.
    pub tenant_objects: u64,
    /// Tables among them, some at least, that others than their tenant may reach:
    /// [`Freehold::isolate_tables`](crate::Freehold::isolate_tables).
    pub open_tables: Vec<String>,
}

/// What is quickly seen of it: tables without row-level security or a policy of ours.
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

/// What a readiness probe asks. What could not be asked counts as the fleet's: what is not known is not well.
pub(crate) async fn examine_critical(app: &Target) -> Result<CriticalFindings> {
    let client = client::connect(app).await?;
    let doctor = DoctorOptions::default();
    let mut examination = Examination::begin(client, Visibility::Anyone, &doctor).await?;
    let is_critical = |probe: &&Probe| {
        probe.sight == Visibility::Anyone
            && probe.checks.iter().any(|check| check.severity == Severity::Critical)
    };
    let mut critical = CriticalFindings::default();
    // Beside a newer catalog that serves this build, only that build knows what must be in it.
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
