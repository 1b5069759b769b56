//! Totals: they match the rollup after any change, and are computed only where something changed.

use freehold::TenantContext;
use serde_json::json;

use super::{TOTALS, folder, shop};
use crate::support::{House, operator};

/// Compares what is published with the current rollup.
async fn assert_as_the_rollup(house: &House, minimum: i32, after: &str) {
    let rows = "coalesce(json_agg(t ORDER BY day)::text, '[]')";
    let sql = format!(
        "SELECT (SELECT {rows} FROM (SELECT day, tenants, withheld, sales, cents, largest FROM freehold_analytics.fleet_totals) t),
                (SELECT {rows} FROM (SELECT day, count(*)::int AS tenants, count(*) < {minimum} AS withheld,
                   CASE WHEN count(*) >= {minimum} THEN sum(sales) END AS sales, CASE WHEN count(*) >= {minimum} THEN sum(cents) END AS cents,
                   CASE WHEN count(*) >= {minimum} THEN avg(largest) END AS largest
                 FROM freehold_analytics.rollup_totals GROUP BY day) t)"
    );
    let row = house.superuser().await.query_one(&sql, &[]).await.unwrap();
    let (published, computed): (String, String) = (row.get(0), row.get(1));
    assert_eq!(published, computed, "{after}");
}

async fn three(house: &House) -> [TenantContext; 3] {
    let [acme, globex] = [house.tenant("acme").await, house.tenant("globex").await];
    [acme, globex, house.tenant("initech").await]
}

#[tokio::test]
async fn totals_are_those_of_the_rollup_whatever_changed() {
    let house = shop(&[&TOTALS.replace("minimum group: 1", "minimum group: 2")]).await;
    let [acme, globex, initech] = three(&house).await;
    house.collect().await;
    assert_as_the_rollup(&house, 2, "nothing at all").await;
    let steps = [
        (&acme, "INSERT INTO sales (day, cents) VALUES ('2026-01-01', 1), ('2026-01-02', 2)"),
        // A group that becomes large enough, and one that has a single tenant.
        (&globex, "INSERT INTO sales (day, cents) VALUES ('2026-01-01', 10), ('2026-01-03', 3)"),
        (&initech, "INSERT INTO sales (day, cents) VALUES ('2026-01-01', 100)"),
        (&acme, "UPDATE sales SET cents = 7 WHERE day = '2026-01-01'"),
        (&globex, "UPDATE sales SET day = '2026-01-02' WHERE day = '2026-01-03'"),
        // It becomes too small again, and another ends.
        (&globex, "DELETE FROM sales WHERE day = '2026-01-02'"),
        (&acme, "TRUNCATE sales"),
    ];
    for (tenant, sql) in steps {
        house.script(tenant, sql).await;
        house.collect().await;
        assert_as_the_rollup(&house, 2, sql).await;
    }
    assert_eq!(house.fleet("totals").await[0]["cents"], 110);
    let gone = format!("DELETE FROM freehold.tenant WHERE id = '{}'", initech.tenant());
    house.superuser().await.batch_execute(&gone).await.unwrap();
    house.collect().await;
    assert_as_the_rollup(&house, 2, "a tenant is gone").await;
    assert_eq!(house.fleet("totals").await, json!([]), "a single tenant is too few");
}

#[tokio::test]
async fn a_group_that_nothing_touched_is_not_computed_again() {
    let house = shop(&[TOTALS]).await;
    let [acme, ..] = three(&house).await;
    house.sell(&acme, "2026-01-01", 1).await;
    house.sell(&acme, "2026-01-02", 2).await;
    house.collect().await;
    // Totals that would be mended if they were computed.
    let superuser = house.superuser().await;
    let spoilt = "UPDATE freehold_analytics.total_totals SET cents = 1000";
    superuser.batch_execute(spoilt).await.unwrap();
    house.sell(&acme, "2026-01-02", 20).await;
    house.collect().await;
    let cents = |fleet: serde_json::Value| [fleet[0]["cents"].clone(), fleet[1]["cents"].clone()];
    assert_eq!(cents(house.fleet("totals").await), [json!(1000), json!(22)]);
    // No row changed, so the publication stays as it is.
    superuser.batch_execute("UPDATE freehold_analytics.total_totals SET cents = 5").await.unwrap();
    let before = house.publication("totals").await;
    house.collect().await;
    assert_eq!(cents(house.fleet("totals").await), [json!(1000), json!(22)]);
    assert!(house.publication("totals").await.as_of > before.as_of);
}

#[tokio::test]
async fn a_publication_that_fails_forgets_nothing_that_was_touched() {
    let house = shop(&[TOTALS]).await;
    let [acme, ..] = three(&house).await;
    house.sell(&acme, "2026-01-01", 1).await;
    house.collect().await;
    let superuser = house.superuser().await;
    let broken =
        "ALTER TABLE freehold_analytics.total_totals ADD CONSTRAINT broken CHECK (cents < 10)";
    superuser.batch_execute(broken).await.unwrap();
    house.sell(&acme, "2026-01-01", 100).await;
    house.run(false).await.unwrap_err();
    assert_eq!(house.fleet("totals").await[0]["cents"], 1);
    let mended = "ALTER TABLE freehold_analytics.total_totals DROP CONSTRAINT broken";
    superuser.batch_execute(mended).await.unwrap();
    // This run finds the rows unchanged, and writes none.
    house.collect().await;
    assert_eq!(house.fleet("totals").await[0]["cents"], 101);
}

/// The tables of before, whose view reads the rollup.
#[tokio::test]
async fn definitions_of_a_former_release_go_on_until_they_are_applied_again() {
    let house = shop(&[TOTALS]).await;
    let [acme, globex, _] = three(&house).await;
    let former = "SET ROLE freehold_owner;
        DROP VIEW freehold_analytics.published_totals;
        DROP MATERIALIZED VIEW freehold_analytics.fleet_totals;
        DROP FUNCTION freehold_analytics.retotal_totals();
        DROP TRIGGER note_touched_by_insert ON freehold_analytics.rollup_totals;
        DROP TRIGGER note_touched_by_update ON freehold_analytics.rollup_totals;
        DROP TRIGGER note_touched_by_delete ON freehold_analytics.rollup_totals;
        DROP TABLE freehold_analytics.total_totals, freehold_analytics.touched_totals;
        CREATE MATERIALIZED VIEW freehold_analytics.fleet_totals AS
          SELECT r.day, count(*)::int AS tenants, false AS withheld, sum(r.sales) AS sales, sum(r.cents) AS cents, avg(r.largest) AS largest
          FROM freehold_analytics.rollup_totals r GROUP BY r.day WITH NO DATA;
        CREATE UNIQUE INDEX ON freehold_analytics.fleet_totals (day);
        CREATE VIEW freehold_analytics.published_totals WITH (security_barrier) AS
          SELECT day, tenants, sales, cents, largest FROM freehold_analytics.fleet_totals
          WHERE NOT withheld AND (SELECT freehold.require_catalog());
        GRANT SELECT ON freehold_analytics.published_totals TO freehold_catalog;
        RESET ROLE;
        UPDATE freehold.analytics SET rollup = replace(rollup, ',\"totals\":true', '')";
    house.superuser().await.batch_execute(former).await.unwrap();
    house.sell(&acme, "2026-01-01", 1).await;
    house.sell(&globex, "2026-01-01", 10).await;
    house.collect().await;
    assert_eq!(house.fleet("totals").await[0]["cents"], 11);
    let applied = house.freehold.analytics().apply(&operator(), &folder(&[TOTALS])).await.unwrap();
    assert_eq!(applied.rebuilt, ["totals"]);
    house.collect().await;
    assert_eq!(house.fleet("totals").await[0]["cents"], 11);
    assert_as_the_rollup(&house, 1, "it was applied again").await;
}
