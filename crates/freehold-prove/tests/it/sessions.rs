//! Systems whose sessions, helpers or privileges were broken on purpose, each detected by the operation meant
//! for it.

use freehold_prove::{self as prove, Report, Settings};

use crate::engine::{expect_leak, run_broken_with, schemas, short};

fn longer() -> Settings {
    Settings { operations: 4000, ..short() }
}

/// An entry point that does nothing but this. A report describes only a few leaks per kind of operation, so
/// each entry point leaves one thing uncleaned.
async fn run_with_door(does: &str) -> Report {
    run_broken_with(longer(), async |_, sql| {
        let door = format!(
            "CREATE OR REPLACE FUNCTION freehold.begin_clean(seed float8) RETURNS boolean
             LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_catalog.pg_advisory_unlock_all(); {does}; RETURN true; END $$"
        );
        sql.batch_execute(&door).await.unwrap();
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_leaves_temporary_objects_is_found() {
    let report = run_with_door("PERFORM pg_catalog.setseed(seed)").await;
    expect_leak(&report, "temporary is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_leaves_the_state_of_random_is_found() {
    let report = run_with_door("DISCARD TEMP").await;
    expect_leak(&report, "random() gives");
}

/// It belongs to a superuser, who may set the verdict and to whom no policy applies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helpers_with_more_than_the_owners_rights_are_found() {
    let report = run_broken_with(longer(), async |ground, sql| {
        for schema in schemas(ground) {
            let rise = format!(
                "ALTER FUNCTION {schema}.set_as_owner(text, text) OWNER TO CURRENT_USER;
                 ALTER FUNCTION {schema}.ask_as_owner(text) OWNER TO CURRENT_USER"
            );
            sql.batch_execute(&rise).await.unwrap();
        }
    })
    .await;
    expect_leak(&report, "helpers with the owner's rights: not refused");
}

/// Unintended grants, each of which permits one kind of injected statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_injected_statements_must_not_have_are_found() {
    let settings = Settings { operations: 6000, ..short() };
    let report = run_broken_with(settings, async |ground, sql| {
        let mut grant =
            "GRANT SELECT ON ALL TABLES IN SCHEMA freehold TO freehold_app, freehold_viewer;".to_owned();
        for schema in schemas(ground) {
            grant += &format!("GRANT USAGE, UPDATE, SELECT ON SEQUENCE {schema}.tickets TO freehold_viewer, freehold_app;");
        }
        sql.batch_execute(&grant).await.unwrap();
    })
    .await;
    for what in ["the catalog's own tables", "another tenant's sequences"] {
        assert!(caught(&report, what) < provoked(&report, what), "{what}: {}", report.markdown());
    }
    assert!(report.leaks > 0, "{}", report.markdown());
}

fn attempts<'r>(report: &'r Report, what: &str) -> impl Iterator<Item = &'r prove::Attempts> {
    let what = what.to_owned();
    report.violations.iter().filter(move |(name, _)| name.starts_with(&what)).map(|(_, all)| all)
}

fn provoked(report: &Report, what: &str) -> u64 {
    attempts(report, what).map(|all| all.provoked).sum()
}

fn caught(report: &Report, what: &str) -> u64 {
    attempts(report, what).map(|all| all.caught).sum()
}
