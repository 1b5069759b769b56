//! What `--fix` repairs, and what it leaves unchanged.

use freehold::doctor::{DoctorOptions, examine};

use super::{examine_all, lines, tenant};
use crate::support::{connect, house_with, notes_and};

#[tokio::test]
async fn repairs_make_a_fleet_clean_again_and_say_what_they_did() {
    let later = "CREATE VIEW loud AS SELECT upper(body) AS body FROM notes";
    let house = house_with(&notes_and(&[later])).await;
    let (acme, globex) =
        (tenant(&house.freehold, "acme").await, tenant(&house.freehold, "globex").await);
    let owner = connect(&house.database.owner_url()).await;
    let (a, b) = (acme.schema(), globex.schema());
    let plant = format!(
        "ALTER TABLE {a}.notes DISABLE ROW LEVEL SECURITY;
         ALTER TABLE {a}.tags NO FORCE ROW LEVEL SECURITY;
         DROP POLICY tenant_isolation ON {a}.notes;
         DROP POLICY tenant_access ON {a}.tags;
         DROP POLICY owner_access ON {b}.notes;
         DROP POLICY analytics_read ON {b}.notes;
         ALTER VIEW {b}.loud SET (security_invoker = false);
         GRANT SELECT ON {b}.tags TO PUBLIC;
         GRANT UPDATE (body) ON {b}.notes TO PUBLIC;
         GRANT USAGE ON SCHEMA freehold_template TO PUBLIC;
         REVOKE USAGE ON SCHEMA {a} FROM freehold_viewer;
         ALTER TABLE freehold.tenant DISABLE ROW LEVEL SECURITY"
    );
    owner.batch_execute(&plant).await.unwrap();
    let before = lines(&examine_all(&house.database).await);
    let codes = ["FH101", "FH102", "FH106", "FH201", "FH302", "FH306", "FH713"];
    for code in codes {
        assert!(before.iter().any(|line| line.starts_with(code)), "{code} of {before:#?}");
    }
    let fix = DoctorOptions { fix: true, ..DoctorOptions::default() };
    let report = examine(&house.database.options(), &fix).await.unwrap();
    let failed: Vec<_> = report.repairs.iter().filter(|repair| repair.error.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    for code in codes {
        assert!(report.repairs.iter().any(|repair| repair.code == code), "{code} not repaired");
    }
    assert_eq!(lines(&report), [""; 0], "the report is of what is left");
    assert_eq!(lines(&examine_all(&house.database).await), [""; 0]);
    let report = examine(&house.database.options(), &fix).await.unwrap();
    assert!(report.repairs.is_empty(), "nothing is left to repair: {:?}", report.repairs);
}

/// A policy that a person wrote is not dropped, and neither is anything else that may be intended.
#[tokio::test]
async fn repairs_take_nothing_away_that_somebody_made() {
    let house = house_with(&notes_and(&[])).await;
    let acme = tenant(&house.freehold, "acme").await.schema();
    let owner = connect(&house.database.owner_url()).await;
    let plant = format!(
        "ALTER POLICY tenant_isolation ON {acme}.notes USING (true);
         CREATE POLICY open ON {acme}.tags USING (true);
         ALTER TABLE {acme}.notes ADD COLUMN mine int;
         CREATE SCHEMA tenant_00000000000040008000000000000702;
         GRANT DELETE ON {acme}.notes TO freehold_viewer"
    );
    owner.batch_execute(&plant).await.unwrap();
    let before = lines(&examine_all(&house.database).await);
    assert_eq!(before.len(), 5, "{before:#?}");
    let fix = DoctorOptions { fix: true, examples_max: 100, ..DoctorOptions::default() };
    let report = examine(&house.database.options(), &fix).await.unwrap();
    assert!(report.repairs.is_empty(), "{:?}", report.repairs);
    assert_eq!(lines(&report), before);
}

/// A repair that fails is reported, and the others are made.
#[tokio::test]
async fn a_repair_that_fails_is_in_nobodys_way() {
    let house = house_with(&notes_and(&[])).await;
    let acme = tenant(&house.freehold, "acme").await.schema();
    let superuser = house.superuser().await;
    let plant = format!(
        "ALTER TABLE {acme}.notes DISABLE ROW LEVEL SECURITY; ALTER TABLE {acme}.notes OWNER TO freehold_member;
         ALTER TABLE {acme}.tags DISABLE ROW LEVEL SECURITY"
    );
    superuser.batch_execute(&plant).await.unwrap();
    let fix = DoctorOptions { fix: true, ..DoctorOptions::default() };
    let report = examine(&house.database.options(), &fix).await.unwrap();
    let outcome: Vec<_> =
        report.repairs.iter().map(|r| (r.object.clone(), r.error.is_some())).collect();
    assert_eq!(outcome, [(format!("{acme}.notes"), true), (format!("{acme}.tags"), false)]);
    let left = lines(&report);
    assert!(left.iter().any(|line| line.contains("notes: row-level security")), "{left:#?}");
    assert!(!left.iter().any(|line| line.contains("tags")), "{left:#?}");
}
