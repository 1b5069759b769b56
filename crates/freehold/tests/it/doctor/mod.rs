//! The doctor: a clean fleet has no findings, and every planted fault is found under its code.

mod drift;
mod faults;
mod repairs;
mod seal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use freehold::control::tenants::NewTenant;
use freehold::doctor::{Check, DoctorOptions, DoctorReport, checks, examine};
use freehold::testing::TestDatabase;
use freehold::{Baseline, Freehold, SealMode, TenantId};

use crate::support::{admin_url, house_with, notes_and, notes_baseline, operator};

/// Examines as owner and app, with more examples than any test plants.
pub(crate) async fn examine_all(database: &TestDatabase) -> DoctorReport {
    let doctor = DoctorOptions { examples_max: 200, ..DoctorOptions::default() };
    examine(&database.options(), &doctor).await.unwrap()
}

/// The findings, one per line, to compare and to read. Roles belong to the whole server, so temporary ones of
/// `mutants` are skipped.
pub(crate) fn lines(report: &DoctorReport) -> Vec<String> {
    let found = report.findings.iter().flat_map(|finding| {
        let code = finding.check.code;
        let examples = finding.examples.iter().filter(|e| !e.object.starts_with("mutant_"));
        examples.map(move |e| format!("{code} {}: {}", e.object, e.detail))
    });
    let missing =
        report.not_checked.iter().map(|m| format!("{} not checked: {}", m.code, m.reason));
    found.chain(missing).collect()
}

/// A tenant without people.
pub(super) async fn tenant(freehold: &Freehold, slug: &str) -> TenantId {
    let new = NewTenant { slug: slug.into(), name: slug.into(), ..NewTenant::default() };
    freehold.tenants().create(&operator(), new).await.unwrap().tenant.id
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

async fn is_clean(baseline: &Baseline) {
    let house = house_with(baseline).await;
    for slug in ["acme", "globex", "initech"] {
        tenant(&house.freehold, slug).await;
    }
    let report = examine_all(&house.database).await;
    assert_eq!(lines(&report), [""; 0]);
    assert_eq!(report.tenants, 3);
    assert_eq!(house.freehold.protection().list_critical().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_clean_fleet_has_no_findings() {
    is_clean(&notes_baseline()).await;
    is_clean(&Baseline::read(root().join("demo/migrations")).unwrap()).await;
}

#[tokio::test]
async fn the_fleet_of_an_existing_application_has_no_findings_before_and_after_its_next_release() {
    let folder = root().join("crates/freehold-server/tests/fixtures/existing_app");
    let both = Baseline::read(folder).unwrap();
    let first = Baseline::from_migrations(both.migrations()[..1].to_vec()).unwrap();
    let house = house_with(&first).await;
    tenant(&house.freehold, "acme").await;
    assert_eq!(lines(&examine_all(&house.database).await), [""; 0]);
    house.migrate(&both).await.unwrap();
    // One that came by both releases one after the other, and one that has them from the start.
    tenant(&house.freehold, "globex").await;
    assert_eq!(lines(&examine_all(&house.database).await), [""; 0]);
}

#[tokio::test]
async fn a_fleet_that_is_migrated_step_by_step_has_no_findings() {
    let house = house_with(&notes_baseline()).await;
    tenant(&house.freehold, "acme").await;
    let later = [
        "CREATE TYPE mood AS ENUM ('good', 'bad'); ALTER TABLE notes ADD COLUMN mood mood NOT NULL DEFAULT 'good'",
        "CREATE VIEW moods AS SELECT mood, count(*) FROM notes GROUP BY mood;
         ALTER TABLE notes DROP COLUMN mood CASCADE; ALTER TABLE notes ADD COLUMN tone text",
    ];
    house.migrate(&notes_and(&later)).await.unwrap();
    tenant(&house.freehold, "globex").await;
    assert_eq!(lines(&examine_all(&house.database).await), [""; 0]);
}

#[tokio::test]
async fn a_fleet_with_analytics_has_no_findings() {
    let house = crate::analytics::shop(&[crate::analytics::CHANGES]).await;
    tenant(&house.freehold, "acme").await;
    assert_eq!(lines(&examine_all(&house.database).await), [""; 0]);
}

#[tokio::test]
async fn without_the_owner_role_the_rest_is_checked_and_what_is_missing_is_told() {
    let house = house_with(&notes_baseline()).await;
    let acme = tenant(&house.freehold, "acme").await;
    let owner = crate::support::connect(&house.database.owner_url()).await;
    let sql = format!("ALTER TABLE {}.notes DISABLE ROW LEVEL SECURITY", acme.schema());
    owner.batch_execute(&sql).await.unwrap();
    let options = freehold::Options::new(house.database.app_url());
    let report = examine(&options, &DoctorOptions::default()).await.unwrap();
    assert_eq!(report.findings.iter().map(|f| f.check.code).collect::<Vec<_>>(), ["FH101"]);
    let missing: Vec<_> = report.not_checked.iter().map(|missing| missing.code).collect();
    assert_eq!(
        missing,
        [
            "FH115", "FH116", "FH117", "FH306", "FH701", "FH702", "FH703", "FH704", "FH705",
            "FH711", "FH712", "FH713"
        ]
    );
    assert!(report.not_checked.iter().all(|m| m.reason.contains("DATABASE_OWNER_URL")));
    let fix = DoctorOptions { fix: true, ..DoctorOptions::default() };
    let refused = examine(&options, &fix).await.unwrap_err();
    assert!(refused.message().contains("DATABASE_OWNER_URL"), "{refused}");
}

#[tokio::test]
async fn only_the_checks_that_are_asked_for_are_made() {
    let house = house_with(&notes_baseline()).await;
    let acme = tenant(&house.freehold, "acme").await;
    let owner = crate::support::connect(&house.database.owner_url()).await;
    let schema = acme.schema();
    let sql = format!(
        "ALTER TABLE {schema}.notes DISABLE ROW LEVEL SECURITY; DROP POLICY tenant_isolation ON {schema}.tags"
    );
    owner.batch_execute(&sql).await.unwrap();
    let only = |code: &str| DoctorOptions { only: vec![code.into()], ..DoctorOptions::default() };
    let report = examine(&house.database.options(), &only("FH102")).await.unwrap();
    assert_eq!(
        lines(&report),
        [format!("FH102 {schema}.tags: there is no policy tenant_isolation")]
    );
    let refused = examine(&house.database.options(), &only("FH999")).await.unwrap_err();
    assert!(refused.message().contains("FH999"), "{refused}");
}

#[test]
fn codes_are_unique_and_every_check_says_what_it_means_and_what_to_do() {
    let checks = checks();
    for pair in checks.windows(2) {
        assert!(pair[0].code < pair[1].code, "{} twice", pair[0].code);
    }
    for check in &checks {
        assert!(check.code.len() == 5 && check.code.starts_with("FH"), "{}", check.code);
        for text in [check.meaning, check.remedy] {
            assert!(text.len() > 20 && text.ends_with('.'), "{}: {text}", check.code);
        }
        assert!(!check.title.ends_with('.'), "{}", check.code);
    }
}

/// `INSTA_UPDATE=always` writes the expected content, as for every snapshot.
fn holds(path: &Path, expected: &str) {
    let found = std::fs::read_to_string(path).unwrap_or_default();
    if found != expected && std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, expected).unwrap();
        return;
    }
    assert_eq!(found, expected, "{}: INSTA_UPDATE=always ./dev test writes it", path.display());
}

/// The file follows the migrations: a change of the catalog requires writing it again.
#[tokio::test]
async fn the_catalog_is_what_the_doctor_expects() {
    let database = TestDatabase::create(&admin_url(), &Baseline::default()).await.unwrap();
    let modes = [SealMode::Plain, SealMode::Portable, SealMode::Best];
    // Each line with the modes in which it is there.
    let mut lines: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for mode in modes {
        database.change_seal(mode).await.unwrap();
        for line in database.describe_catalog().await.unwrap().lines() {
            lines.entry(line.to_owned()).or_default().push(mode.as_str());
        }
    }
    let lines: String = lines
        .into_iter()
        .map(|(line, known)| match known.len() == modes.len() {
            true => format!("{line}\n"),
            false => format!("{line}\t{}\n", known.join(" ")),
        })
        .collect();
    holds(&root().join("crates/freehold/src/doctor/catalog.txt"), &lines);
}

#[test]
fn the_documentation_lists_every_check() {
    let path = root().join("docs/doctor.md");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    const BEGIN: &str = "<!-- The rest is written by a test from the code. -->\n";
    let (head, _) =
        text.split_once(BEGIN).expect("docs/doctor.md has the line that begins the list");
    let list: String = checks().iter().map(describe).collect();
    holds(&path, &format!("{head}{BEGIN}{list}"));
}

fn describe(check: &Check) -> String {
    let fix = if check.fix_is_safe { "; `--fix` repairs it" } else { "" };
    format!(
        "\n### {}: {}\n\n*{}{fix}.* {}\n\n**To do:** {}\n",
        check.code,
        check.title,
        check.severity.as_str(),
        check.meaning,
        check.remedy
    )
}
