//! The remaining possibilities for injected SQL if a baseline runs its input as SQL: each is stated in
//! docs/isolation.md. None reads a row, and all of them end with the transaction.

use freehold::TenantContext;

use crate::support::{House, house, sqlstate};

const RUN: &str = "CREATE FUNCTION run(input text) RETURNS SETOF text LANGUAGE plpgsql AS
    'BEGIN RETURN QUERY EXECUTE input; END';
    CREATE FUNCTION run_for_nothing(input text) RETURNS void LANGUAGE plpgsql AS
    'BEGIN EXECUTE input; END'";

async fn house_that_executes() -> (House, TenantContext, TenantContext) {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.script(&acme, RUN).await;
    (house, acme, globex)
}

#[tokio::test]
async fn locks_on_another_tenants_tables_to_the_end_of_the_transaction() {
    let (house, acme, globex) = house_that_executes().await;
    let theirs = format!("{}.notes", globex.tenant().schema());
    let lock = format!("LOCK TABLE {theirs} IN ACCESS EXCLUSIVE MODE");
    let injected = "SELECT run_for_nothing($1)";
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.query(injected, &[&lock]).await.unwrap();
    let mut theirs = house.freehold.begin(&globex).await.unwrap();
    theirs.run_utility("SET LOCAL lock_timeout = '100ms'", &[]).await.unwrap();
    let waits = theirs.query("SELECT count(*) FROM notes", &[]).await.unwrap_err();
    assert_eq!(sqlstate(&waits), "55P03");
    tx.commit().await.unwrap();
    assert_eq!(house.bodies(&globex).await, ["globex"]);
    // Without such a function, no query can do this.
    for sql in [
        lock.clone(),
        format!("SELECT query_to_xml('{lock}', true, true, '')"),
        format!("SELECT database_to_xml(true, true, '') FROM (SELECT '{lock}') a"),
    ] {
        house.freehold.query(&acme, &sql, &[]).await.unwrap_err();
    }
}

#[tokio::test]
async fn estimates_that_hold_bounds_of_another_tenants_values() {
    let (house, acme, globex) = house_that_executes().await;
    let theirs = format!("{}.notes", globex.tenant().schema());
    let explain = format!("EXPLAIN SELECT * FROM {theirs} WHERE body < 'm'");
    let rows = house.freehold.query(&acme, "SELECT run($1)", &[&explain]).await.unwrap();
    assert!(rows[0].get::<_, &str>(0).contains("rows="), "an estimate");
    for sql in [explain.clone(), format!("SELECT query_to_xml($q${explain}$q$, true, true, '')")] {
        house.freehold.query(&acme, &sql, &[]).await.unwrap_err();
    }
    let analyze = explain.replace("EXPLAIN", "EXPLAIN ANALYZE");
    let refused = house.freehold.query(&acme, "SELECT run($1)", &[&analyze]).await.unwrap_err();
    assert_eq!(sqlstate(&refused), "42501", "the rows themselves are not read");
}

#[tokio::test]
async fn nothing_that_is_prepared_for_others_is_found_or_changed() {
    let (house, acme, globex) = house_that_executes().await;
    for input in ["COMMIT", "SAVEPOINT s", "VACUUM notes", "COPY notes TO STDOUT"] {
        let refused = house.freehold.query(&acme, "SELECT run_for_nothing($1)", &[&input]).await;
        assert!(refused.is_err(), "{input}");
    }
    assert_eq!(house.bodies(&globex).await, ["globex"]);
}
