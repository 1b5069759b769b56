//! Tables that a baseline's functions create at run time: they affect at most that tenant, and no other
//! tenant can read them.

use freehold::control::audit::AuditFilter;
use freehold::{Baseline, Migration, TenantContext};

use crate::support::{House, house_with, operator, sqlstate};

/// What `SECURITY DEFINER` functions of a baseline can do at run time, with the owner role's rights.
const MAKERS: &str = "
CREATE TABLE a (id int PRIMARY KEY);
CREATE TABLE days (at int NOT NULL) PARTITION BY RANGE (at);
CREATE FUNCTION make() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  EXECUTE format('CREATE TABLE IF NOT EXISTS \"a %s\" (id int)', NEW.id);
  EXECUTE format('CREATE TABLE copy_%s AS SELECT 1 AS id', NEW.id);
  EXECUTE format('CREATE TABLE days_%s PARTITION OF days FOR VALUES FROM (%s) TO (%s)', NEW.id, NEW.id, NEW.id + 1);
  EXECUTE format('INSERT INTO \"a %s\" VALUES (1)', NEW.id);
  INSERT INTO days VALUES (NEW.id);
  RETURN NEW;
END $$;
CREATE TRIGGER make BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION make();
CREATE FUNCTION open(name text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN EXECUTE format('GRANT ALL ON %I TO freehold_member', name); END $$";

fn makers() -> Baseline {
    Baseline::from_migrations(vec![Migration::new(1, "makers", MAKERS)]).unwrap()
}

/// Without the event trigger it is as where `init` had no superuser.
async fn makers_house(event_trigger: bool) -> (House, TenantContext, TenantContext) {
    let house = house_with(&makers()).await;
    if !event_trigger {
        let drop = "DROP EVENT TRIGGER freehold_protect_new_tables";
        house.superuser().await.batch_execute(drop).await.unwrap();
    }
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    house.freehold.query(&acme, "INSERT INTO a VALUES (7)", &[]).await.unwrap();
    (house, acme, globex)
}

/// The tables that acme made, as SQL names them.
fn made(acme: &TenantContext) -> [String; 3] {
    ["\"a 7\"", "copy_7", "days_7"].map(|name| format!("{}.{name}", acme.tenant().schema()))
}

#[tokio::test]
async fn a_table_made_at_run_time_is_protected_at_once() {
    let (house, acme, globex) = makers_house(true).await;
    assert_eq!(house.freehold.protection().list_critical().await.unwrap(), [""; 0]);
    for table in made(&acme) {
        let name = table.split_once('.').unwrap().1.trim_matches('"').to_owned();
        // Though its own functions open it, it is open to its own tenant alone.
        house.freehold.query(&acme, "SELECT open($1)", &[&name]).await.unwrap();
        let all = format!("SELECT FROM {table}");
        house.freehold.query(&acme, &all, &[]).await.unwrap();
        let refused = house.freehold.query(&globex, &all, &[]).await.unwrap_err();
        assert_eq!(sqlstate(&refused), "42501", "{table}: {refused}");
    }
    // The next migration succeeds, and treats the tables created at run time like the baseline's.
    let later = Migration::new(2, "later", "CREATE TABLE more (id int)");
    let both = [makers().migrations().to_vec(), vec![later]].concat();
    let report = house.migrate(&Baseline::from_migrations(both).unwrap()).await.unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(house.freehold.protection().list_critical().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn where_nothing_protects_it_nobody_reaches_it_and_it_is_one_tenants_finding() {
    let (house, acme, globex) = makers_house(false).await;
    let found = house.freehold.protection().examine_critical().await.unwrap();
    assert_eq!(found.fleet, [""; 0], "no server is taken out");
    assert_eq!(
        (found.tenants.len(), found.tenant_objects),
        (2, 6),
        "FH101, FH102: {:?}",
        found.tenants
    );
    assert!(found.tenants.iter().all(|line| line.contains(&acme.tenant().schema())), "{found:?}");
    let quick = house.freehold.protection().examine_tables().await.unwrap();
    assert_eq!((quick.fleet.len(), quick.tenant_objects), (0, 3), "{quick:?}");
    for table in made(&acme) {
        for context in [&acme, &globex] {
            let refused = house.freehold.query(context, &format!("SELECT FROM {table}"), &[]).await;
            assert_eq!(sqlstate(&refused.unwrap_err()), "42501", "{table}");
        }
    }
}

/// A function that grants the table it created exposes it to every tenant, if no event trigger protects it. A
/// server that finds it closes it.
#[tokio::test]
async fn a_table_that_lies_open_is_kept_from_other_tenants_by_who_finds_it() {
    let (house, acme, globex) = makers_house(false).await;
    let superuser = house.superuser().await;
    let schema = acme.tenant().schema();
    for name in ["a 7", "copy_7", "days_7"] {
        house.freehold.query(&acme, "SELECT open($1)", &[&name]).await.unwrap();
    }
    let views = format!(
        "CREATE MATERIALIZED VIEW {schema}.totals AS SELECT 1 AS one; ALTER MATERIALIZED VIEW {schema}.totals OWNER TO freehold_owner;
         GRANT SELECT ON {schema}.totals TO PUBLIC; GRANT SELECT (one) ON {schema}.totals TO freehold_viewer;
         ALTER POLICY tenant_isolation ON {schema}.a USING (true)"
    );
    superuser.batch_execute(&views).await.unwrap();
    let mut tables = made(&acme).to_vec();
    tables.extend([format!("{schema}.totals"), format!("{schema}.a")]);
    for table in &tables {
        house.freehold.query(&globex, &format!("SELECT FROM {table}"), &[]).await.unwrap();
    }
    let found = house.freehold.protection().examine_critical().await.unwrap();
    tables.sort();
    assert_eq!((found.fleet.len(), &found.open_tables), (0, &tables));
    assert_eq!(house.freehold.protection().isolate(&found.open_tables).await.unwrap(), tables);
    for table in &tables {
        let refused = house.freehold.query(&globex, &format!("SELECT FROM {table}"), &[]).await;
        assert_eq!(sqlstate(&refused.unwrap_err()), "42501", "{table}");
    }
    for table in made(&acme) {
        house.freehold.query(&acme, &format!("SELECT FROM {table}"), &[]).await.unwrap();
    }
    // The record has which were closed.
    let filter = AuditFilter { tenant: Some(acme.tenant()), ..AuditFilter::default() };
    let lines = house.freehold.audit().list(&operator(), &filter, None, None).await.unwrap();
    let closed = lines.iter().filter(|line| line.action == "table.isolate");
    let mut closed: Vec<_> = closed.map(|line| line.detail["table"].as_str().unwrap()).collect();
    closed.sort_unstable();
    assert_eq!(closed, tables);
    // Protected tables are not changed.
    assert_eq!(house.freehold.protection().isolate(&tables).await.unwrap(), [""; 0]);
    let notes = format!("{}.a", globex.tenant().schema());
    assert_eq!(
        house.freehold.protection().isolate(&[notes, "freehold.tenant".to_owned()]).await.unwrap(),
        [""; 0]
    );
    // Policies written by the application are left to be corrected; the other findings are gone.
    let left = house.freehold.protection().examine_critical().await.unwrap();
    assert!(left.tenants.iter().all(|line| line.starts_with("FH103")), "{left:?}");
}

/// A deviation in every tenant is not attributed to a single one.
#[tokio::test]
async fn what_is_wrong_with_every_tenant_or_the_template_is_the_fleets() {
    let (house, acme, globex) = makers_house(true).await;
    let superuser = house.superuser().await;
    let strip = |schema: String| format!("ALTER TABLE {schema}.a NO FORCE ROW LEVEL SECURITY");
    let fleets = async || {
        let (whole, quick) = (
            house.freehold.protection().examine_critical().await.unwrap(),
            house.freehold.protection().examine_tables().await.unwrap(),
        );
        (whole.fleet.len(), quick.fleet.len(), whole.tenants.len(), quick.tenants.len())
    };
    superuser.batch_execute(&strip(acme.tenant().schema())).await.unwrap();
    assert_eq!(fleets().await, (0, 0, 1, 1));
    superuser.batch_execute(&strip(globex.tenant().schema())).await.unwrap();
    assert_eq!(fleets().await, (1, 1, 0, 0));
    house.freehold.protection().isolate(&[format!("{}.a", acme.tenant().schema())]).await.unwrap();
    superuser.batch_execute(&strip("freehold_template".to_owned())).await.unwrap();
    assert_eq!(fleets().await, (1, 1, 1, 1));
}

/// For a manual session, the owner and a superuser the event trigger does nothing: a restored dump contains
/// policies, and the migrator protects tables itself.
#[tokio::test]
async fn the_event_trigger_is_in_nobodys_way_and_nobodys_to_call() {
    let (house, acme, _) = makers_house(true).await;
    let schema = acme.tenant().schema();
    for url in [house.database.owner_url(), house.database.superuser_url()] {
        let client = crate::support::connect(&url).await;
        let sql = format!(
            "BEGIN; CREATE TABLE {schema}.by_hand (id int); CREATE POLICY tenant_isolation ON {schema}.by_hand; ROLLBACK"
        );
        client.batch_execute(&sql).await.unwrap();
    }
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "owner").await;
    for sql in [
        "SELECT freehold_guard.protect_new_tables()",
        "SELECT freehold.isolate_table('notes')",
        "DROP EVENT TRIGGER freehold_protect_new_tables",
        "ALTER EVENT TRIGGER freehold_protect_new_tables DISABLE",
        "SET LOCAL event_triggers = off",
        "SET LOCAL session_replication_role = replica",
    ] {
        assert_ne!(crate::support::outcome(&attacker, sql).await, "permitted", "{sql}");
    }
}
