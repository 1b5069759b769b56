//! `freehold doctor`: its output, its exit codes, and findings about roles, which need a separate server.

mod pooler;

use freehold::control::tenants::NewTenant;
use freehold::testing::TestDatabase;
use freehold::{Freehold, OperatorContext};
use freehold_embedded::postgres::{EmbeddedPostgres, Options};
use serde_json::Value;

use crate::process::{Folder, Ran, freehold};
use crate::support::{admin_url, connect, shop, text};

struct Fleet {
    database: TestDatabase,
    /// The schema of its one tenant.
    acme: String,
}

impl Fleet {
    async fn new() -> Fleet {
        let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
        let freehold = database.freehold().await.unwrap();
        let acme = add_tenant(&freehold).await;
        Fleet { database, acme }
    }

    async fn plant(&self, sql: &str) {
        let sql = sql.replace("{acme}", &self.acme);
        connect(&self.database.owner_url()).await.batch_execute(&sql).await.unwrap();
    }

    fn doctor(&self, arguments: &[&str]) -> Ran {
        let (app, owner) = (self.database.app_url(), self.database.owner_url());
        doctor(&app, &owner, arguments)
    }
}

async fn add_tenant(freehold: &Freehold) -> String {
    let new = NewTenant { slug: "acme".into(), name: "Acme".into(), ..NewTenant::default() };
    let context = OperatorContext::system("a test's tenant");
    freehold.tenants().create(&context, new).await.unwrap().tenant.id.schema()
}

fn doctor(app: &str, owner: &str, arguments: &[&str]) -> Ran {
    let arguments: Vec<_> = std::iter::once("doctor").chain(arguments.iter().copied()).collect();
    freehold(&arguments, &[("DATABASE_URL", app), ("DATABASE_OWNER_URL", owner)])
}

fn codes(report: &Value) -> Vec<String> {
    report["findings"].as_array().unwrap().iter().map(|finding| text(&finding["code"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_with_zero_if_nothing_critical_was_found_and_with_three_if_something_was() {
    let fleet = Fleet::new().await;
    let ran = fleet.doctor(&["--strict"]).ended(0);
    let clean = "1 tenant,";
    assert!(
        ran.stdout().contains(clean)
            && ran.stdout().contains("0 critical, 0 warnings, 0 notes, 0 not checked"),
        "{}",
        ran.stdout()
    );

    fleet.plant("ALTER TABLE {acme}.orders ADD COLUMN mine int").await;
    let ran = fleet.doctor(&[]).ended(0);
    for part in ["WARNING", "FH711", "column orders.mine is not in the template", "To do:"] {
        assert!(ran.stdout().contains(part), "{part} is not in\n{}", ran.stdout());
    }
    fleet.doctor(&["--strict"]).ended(3);
    fleet.doctor(&["--strict", "--only", "fh101,FH102"]).ended(0);

    fleet.plant("ALTER TABLE {acme}.orders NO FORCE ROW LEVEL SECURITY").await;
    let ran = fleet.doctor(&[]).ended(3);
    let shown = ran.stdout();
    assert!(shown.find("CRITICAL") < shown.find("WARNING"), "the worst first: {shown}");
    let line = format!("{}.orders [acme]: row-level security is not forced", fleet.acme);
    assert!(shown.contains(&line), "{shown}");

    let ran = fleet.doctor(&["--fix"]).ended(0);
    let statement = format!("ALTER TABLE {}.orders ENABLE ROW LEVEL SECURITY", fleet.acme);
    assert!(ran.stdout().contains(&statement), "each repair is shown: {}", ran.stdout());
    fleet.doctor(&[]).ended(0);

    // Without the owner role some checks are skipped. This is reported, and with `--strict` it is a failure.
    let app = fleet.database.app_url();
    let ran = doctor(&app, "", &[]).ended(0);
    assert!(ran.stdout().contains("NOT CHECKED"), "{}", ran.stdout());
    doctor(&app, "", &["--strict"]).ended(3);
    let ran = doctor(&app, "", &["--fix"]).ended(1);
    assert!(ran.stderr().contains("DATABASE_OWNER_URL"), "{}", ran.stderr());
}

#[test]
fn it_ends_with_one_if_it_cannot_examine_and_with_two_if_it_was_asked_wrongly() {
    let nowhere = "postgres://freehold_app:x@127.0.0.1:1/x";
    let ran = doctor(nowhere, "", &[]).ended(1);
    assert!(ran.stderr().contains("cannot connect"), "{}", ran.stderr());
    let ran = doctor(nowhere, "", &["--only", "FH999"]).ended(1);
    assert!(ran.stderr().contains("FH999"), "{}", ran.stderr());
    for arguments in [&["--json", "--sarif"][..], &["--examples", "0"]] {
        doctor(nowhere, "", arguments).ended(2);
    }
    freehold(&["doctor"], &[]).ended(2);
    // The list needs no database.
    let listed = freehold(&["doctor", "--list"], &[]).ended(0).stdout();
    let listed_json = freehold(&["doctor", "--list", "--json"], &[]).ended(0).json();
    let listed_json = listed_json.as_array().unwrap().clone();
    assert_eq!(listed.lines().count(), listed_json.len() + 1);
    assert!(listed_json.iter().all(|check| listed.contains(check["code"].as_str().unwrap())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_json_has_counts_and_examples() {
    let fleet = Fleet::new().await;
    fleet
        .plant(
            "ALTER TABLE {acme}.orders DISABLE ROW LEVEL SECURITY;
             ALTER TABLE {acme}.customers DISABLE ROW LEVEL SECURITY",
        )
        .await;
    let report = fleet.doctor(&["--json", "--examples", "1"]).ended(3).json();
    assert_eq!(report["tenants"], 1);
    assert_eq!(codes(&report), ["FH101"]);
    let finding = &report["findings"][0];
    assert_eq!((&finding["severity"], &finding["count"]), (&"critical".into(), &2.into()));
    assert_eq!(finding["examples"].as_array().unwrap().len(), 1);
    assert_eq!(finding["examples"][0]["object"], format!("{}.customers", fleet.acme));
    assert!(finding["fix_is_safe"].as_bool().unwrap());
    assert_eq!(report["not_checked"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_sarif_names_a_rule_for_every_check_and_a_result_for_every_example() {
    let fleet = Fleet::new().await;
    fleet
        .plant(
            "ALTER TABLE {acme}.orders DISABLE ROW LEVEL SECURITY;
             ALTER TABLE {acme}.orders ADD COLUMN mine int",
        )
        .await;
    let log = doctor(&fleet.database.app_url(), &fleet.database.owner_url(), &["--sarif"]);
    let log = log.ended(3).json();
    assert_eq!(log["version"], "2.1.0");
    assert!(text(&log["$schema"]).ends_with("sarif-schema-2.1.0.json"));
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), freehold::doctor::checks().len());
    let results = run["results"].as_array().unwrap();
    let seen: Vec<_> = results.iter().map(|r| (text(&r["ruleId"]), text(&r["level"]))).collect();
    assert_eq!(seen, [("FH101".into(), "error".into()), ("FH711".into(), "warning".to_owned())]);
    for result in results {
        let rule = &rules[result["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(rule["id"], result["ruleId"]);
        let location = &result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"];
        assert!(text(location).contains(&fleet.acme), "{result}");
        assert!(!text(&result["message"]["text"]).is_empty());
    }
    // A skipped check is reported as a notification.
    let log = doctor(&fleet.database.app_url(), "", &["--sarif"]).ended(3).json();
    let told = &log["runs"][0]["invocations"][0]["toolExecutionNotifications"];
    assert!(
        told.as_array().unwrap().iter().any(|n| n["associatedRule"]["id"] == "FH711"),
        "{told}"
    );
}

/// Roles belong to the whole server, so these faults get a separate one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_roles_are_found_under_their_codes() {
    let folder = Folder::new();
    let bin = std::env::var_os("FREEHOLD_PG_BIN").map(std::path::PathBuf::from);
    let settings = [("fsync", "off"), ("full_page_writes", "off")];
    let dir = folder.path().join("pg");
    let options = Options { dir: &dir, bin: bin.as_deref(), settings: &settings };
    let server = EmbeddedPostgres::start(options, |_| {}).await.unwrap();
    let admin = server.superuser_url("postgres");
    let database = TestDatabase::create(&admin, &shop()).await.unwrap();
    let schema = add_tenant(&database.freehold().await.unwrap()).await;
    let run = || {
        let ran =
            doctor(&database.app_url(), &database.owner_url(), &["--json", "--examples", "50"]);
        assert!([0, 3].contains(&ran.code()), "{}", ran.stderr());
        ran.json()
    };
    assert_eq!(codes(&run()), [""; 0]);
    let sql = connect(&database.superuser_url()).await;
    let faults = [
        (
            "FH311",
            "ALTER ROLE freehold_app BYPASSRLS",
            "ALTER ROLE freehold_app NOBYPASSRLS",
            "freehold_app: it is a role with BYPASSRLS",
        ),
        (
            "FH311",
            "ALTER ROLE freehold_app SUPERUSER",
            "ALTER ROLE freehold_app NOSUPERUSER",
            "freehold_app: it is a superuser",
        ),
        (
            "FH311",
            "ALTER ROLE freehold_admin CREATEROLE",
            "ALTER ROLE freehold_admin NOCREATEROLE",
            "freehold_app: it may become freehold_admin, a role with CREATEROLE",
        ),
        (
            "FH311",
            "GRANT freehold_owner TO freehold_app",
            "REVOKE freehold_owner FROM freehold_app",
            "freehold_app: it may become freehold_owner, the owner",
        ),
        (
            "FH311",
            "GRANT pg_read_all_data TO freehold_analytics",
            "REVOKE pg_read_all_data FROM freehold_analytics",
            "freehold_analytics: it may become pg_read_all_data",
        ),
        (
            "FH312",
            "GRANT freehold_member TO freehold_analytics",
            "REVOKE freehold_member FROM freehold_analytics",
            "freehold_analytics: it may become freehold_member",
        ),
        (
            "FH313",
            "ALTER ROLE freehold_app INHERIT",
            "ALTER ROLE freehold_app NOINHERIT",
            "freehold_app: it inherits",
        ),
        (
            "FH313",
            "ALTER ROLE freehold_member LOGIN",
            "ALTER ROLE freehold_member NOLOGIN",
            "freehold_member: it may log in",
        ),
        (
            "FH314",
            "CREATE ROLE landlord LOGIN IN ROLE freehold_owner",
            "DROP ROLE landlord",
            "landlord: it may become freehold_owner",
        ),
        (
            "FH315",
            "ALTER ROLE freehold_app RESET statement_timeout",
            "ALTER ROLE freehold_app SET statement_timeout = '30s'",
            "freehold_app: it lacks statement_timeout",
        ),
        (
            "FH113",
            "REVOKE SET ON PARAMETER backtrace_functions FROM freehold_guard",
            "GRANT SET ON PARAMETER backtrace_functions TO freehold_guard",
            "parameter backtrace_functions: freehold_guard may not set it",
        ),
        (
            "FH119",
            "GRANT freehold_guard TO freehold_owner",
            "REVOKE freehold_guard FROM freehold_owner",
            "freehold_owner: it is a member of freehold_guard",
        ),
        (
            "FH120",
            "CREATE ROLE warden LOGIN IN ROLE freehold_guard",
            "DROP ROLE warden",
            "warden: it is a member of freehold_guard",
        ),
        (
            "FH120",
            "CREATE ROLE wardens IN ROLE freehold_guard; CREATE ROLE warden LOGIN IN ROLE wardens",
            "DROP ROLE warden, wardens",
            "warden: it is a member of freehold_guard",
        ),
        (
            "FH123",
            "ALTER ROLE freehold_guard LOGIN",
            "ALTER ROLE freehold_guard NOLOGIN",
            "freehold_guard: it may log in",
        ),
        (
            "FH123",
            "GRANT pg_monitor TO freehold_guard",
            "REVOKE pg_monitor FROM freehold_guard",
            "freehold_guard: it may become pg_monitor",
        ),
        (
            "FH124",
            "CREATE FUNCTION public.believe(claim text) RETURNS text LANGUAGE sql SECURITY DEFINER
               AS $$ SELECT set_config('backtrace_functions', claim, true) $$;
             ALTER FUNCTION public.believe(text) OWNER TO freehold_guard",
            "DROP FUNCTION public.believe(text)",
            "function public.believe(text): it belongs to freehold_guard",
        ),
        (
            "FH114",
            "GRANT SET ON PARAMETER backtrace_functions TO PUBLIC",
            "REVOKE SET ON PARAMETER backtrace_functions FROM PUBLIC",
            "parameter backtrace_functions: PUBLIC has SET",
        ),
        (
            "FH114",
            "GRANT ALTER SYSTEM ON PARAMETER backtrace_functions TO freehold_app",
            "REVOKE ALTER SYSTEM ON PARAMETER backtrace_functions FROM freehold_app",
            "parameter backtrace_functions: freehold_app has ALTER SYSTEM",
        ),
        (
            "FH301",
            "ALTER SCHEMA {acme} OWNER TO freehold_app",
            "ALTER SCHEMA {acme} OWNER TO freehold_owner; GRANT USAGE ON SCHEMA {acme} TO freehold_app",
            "it belongs to freehold_app",
        ),
    ];
    for (code, plant, undo, part) in faults {
        sql.batch_execute(&plant.replace("{acme}", &schema)).await.unwrap();
        let report = run();
        sql.batch_execute(&undo.replace("{acme}", &schema)).await.unwrap();
        let finding = report["findings"].as_array().unwrap().iter().find(|f| f["code"] == code);
        let finding = finding.unwrap_or_else(|| panic!("{plant}: no {code} in {report:#}"));
        let lines: Vec<_> = finding["examples"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| format!("{}: {}", text(&e["object"]), text(&e["detail"])))
            .collect();
        assert!(lines.iter().any(|line| line.contains(part)), "{plant}: {lines:#?}");
    }
    assert_eq!(codes(&run()), [""; 0], "all is undone");
    drop(sql);
    drop(database);
    server.stop().await.unwrap();
}
