//! The isolation of figures: by the API, against SQL of an attacker's choice, and for the role that collects.

use freehold::control::analytics::AnalyticsScope;
use freehold::{ErrorKind, TenantContext};
use serde_json::json;

use super::{CHANGES, TOTALS, baseline_and, folder, shop};
use crate::support::{House, connect, house_with, operator, outcome};

async fn two_tenants() -> (House, TenantContext, TenantContext) {
    let house = shop(&[TOTALS, CHANGES]).await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    house.sell(&acme, "2026-01-01", 1).await;
    house.sell(&globex, "2026-01-01", 10).await;
    house.collect().await;
    (house, acme, globex)
}

#[tokio::test]
async fn a_tenants_members_read_their_own_rows_and_no_totals() {
    let (house, acme, globex) = two_tenants().await;
    for (tenant, cents) in [(&acme, 1), (&globex, 10)] {
        let rows = house.own(tenant, "totals").await;
        assert_eq!(
            rows,
            json!([{"day": "2026-01-01", "sales": 1, "cents": cents, "largest": cents}])
        );
        let query = Default::default();
        let page = house.freehold.analytics().read_own(tenant, "totals", &query).await.unwrap();
        assert!(page.publication.is_none() && page.as_of.is_some());
        assert_eq!(house.freehold.analytics().list_own(tenant).await.unwrap().len(), 2);
    }
    let query = Default::default();
    let unknown = house.freehold.analytics().read_own(&acme, "nothing", &query).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
}

/// One connection reads one tenant after another, and may run functions of the baseline.
#[tokio::test]
async fn what_a_function_leaves_on_the_session_is_not_in_the_figures_of_the_next_tenant() {
    let carried = "CREATE FUNCTION carried(cents bigint) RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE before text := current_setting('app.seen', true);
        BEGIN
          PERFORM set_config('app.seen', cents::text, false),
            set_config('default_transaction_isolation', 'serializable', false);
          RETURN coalesce(nullif(before, '')::bigint, 0)
            + CASE current_setting('transaction_isolation') WHEN 'serializable' THEN 1000 ELSE 0 END
            + 100 * (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
            + CASE WHEN pg_try_advisory_lock(7) THEN 0 ELSE 1 END;
        END $$";
    let house = house_with(&baseline_and(&[carried])).await;
    let definition = "-- name: carried
-- grain: day
-- schedule: every 1h
-- minimum group: 1
SELECT day, sum(cents) AS cents, max(carried(cents)) AS carried FROM sales GROUP BY day";
    house.freehold.analytics().apply(&operator(), &folder(&[definition])).await.unwrap();
    let mut tenants = Vec::new();
    for (slug, cents) in [("acme", 1), ("globex", 2), ("initech", 3), ("umbrella", 4)] {
        let tenant = house.tenant(slug).await;
        house.sell(&tenant, "2026-01-01", cents).await;
        tenants.push((tenant, cents));
    }
    house.collect().await;
    for (tenant, cents) in &tenants {
        let own = house.own(tenant, "carried").await;
        assert_eq!(own, json!([{"day": "2026-01-01", "cents": cents, "carried": 0}]));
    }
}

/// The app role itself, in a tenant's context, with any injected SQL.
#[tokio::test]
async fn sql_in_a_tenants_context_gets_its_own_rollup_rows_and_nothing_published() {
    let (house, acme, globex) = two_tenants().await;
    let attacker = house.attacker().await;
    house.enter(&attacker, acme.tenant(), "owner").await;
    for role in ["SET LOCAL ROLE freehold_admin", "RESET ROLE"] {
        attacker.batch_execute(role).await.unwrap();
        let refused = [
            "SELECT * FROM freehold_analytics.fleet_totals",
            "SELECT count(*) FROM freehold_analytics.fleet_totals",
            "SELECT * FROM freehold_analytics.published_totals",
            "SELECT count(*) FROM freehold_analytics.published_totals WHERE cents > 0",
            "SELECT * FROM freehold_analytics.published_totals WHERE 1 / (cents - 11) > 0",
            "TABLE freehold_analytics.published_changes",
            "COPY freehold_analytics.rollup_totals TO '/tmp/stolen'",
            "REFRESH MATERIALIZED VIEW freehold_analytics.fleet_totals",
            "SELECT freehold.refresh_analytics('totals')",
            "INSERT INTO freehold_analytics.rollup_totals VALUES (gen_random_uuid(), '2026-01-01', 1, 1, 1)",
            "UPDATE freehold_analytics.rollup_totals SET cents = 0",
            "DELETE FROM freehold_analytics.rollup_totals",
            "TRUNCATE freehold_analytics.rollup_totals",
            "DELETE FROM freehold.analytics_collection",
            "UPDATE freehold.analytics SET source = ''",
            "UPDATE freehold.analytics_run SET token = NULL",
            "UPDATE freehold.analytics_publication SET fresh = 1",
            "ALTER TABLE freehold_analytics.rollup_totals DISABLE ROW LEVEL SECURITY",
            "GRANT SELECT ON freehold_analytics.fleet_totals TO freehold_app",
            "CREATE TABLE freehold_analytics.mine (id int)",
            "CREATE VIEW freehold_analytics.mine AS SELECT 1",
            "SET ROLE freehold_analytics",
        ];
        for sql in refused {
            assert_eq!(outcome(&attacker, sql).await, "42501", "{role}: {sql}");
        }
    }
    // In the catalog, row-level security leaves only acme's rows.
    let attacker = house.in_catalog(acme.tenant(), "owner").await;
    let read = "SELECT tenant_id::text FROM freehold_analytics.rollup_totals
                UNION ALL SELECT tenant_id::text FROM freehold.analytics_collection
                UNION ALL SELECT name FROM freehold.analytics_run
                UNION ALL SELECT name FROM freehold.analytics_publication";
    let rows = attacker.query(read, &[]).await.unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        assert_eq!(row.get::<_, String>(0), acme.tenant().to_string());
    }
    let theirs = format!(
        "SELECT count(*) FROM freehold_analytics.rollup_totals WHERE tenant_id = '{}'",
        globex.tenant()
    );
    assert_eq!(attacker.query_one(&theirs, &[]).await.unwrap().get::<_, i64>(0), 0);
    let statistics = "SELECT count(*) FROM pg_stats WHERE schemaname = 'freehold_analytics'";
    assert_eq!(attacker.query_one(statistics, &[]).await.unwrap().get::<_, i64>(0), 0);
    // And no answer depends on another tenant's rows: the division would fail at globex's.
    let leak = "SELECT count(*) FROM freehold_analytics.rollup_totals WHERE 1 / (cents - 10) < 5";
    assert_eq!(attacker.query_one(leak, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn the_app_role_without_a_context_gets_nothing() {
    let (house, ..) = two_tenants().await;
    let attacker = house.attacker().await;
    attacker.batch_execute("BEGIN").await.unwrap();
    for relation in [
        "freehold_analytics.rollup_totals",
        "freehold_analytics.published_totals",
        "freehold_analytics.fleet_totals",
        "freehold.analytics",
        "freehold.analytics_run",
        "freehold.analytics_collection",
        "freehold.analytics_publication",
    ] {
        let sql = format!("SELECT * FROM {relation}");
        assert_eq!(outcome(&attacker, &sql).await, "42501", "{relation}");
    }
}

#[tokio::test]
async fn an_operator_reads_all_through_the_catalogs_door() {
    let (house, ..) = two_tenants().await;
    assert_eq!(house.fleet("totals").await[0]["cents"], 11);
    let page = house.page("totals", AnalyticsScope::EveryTenant).await;
    assert_eq!(super::rows(&page).as_array().unwrap().len(), 2);
    assert_eq!(house.freehold.analytics().list(&operator()).await.unwrap().len(), 2);
}

/// The role that collects reads every tenant, and writes rollups alone.
#[tokio::test]
async fn the_analytics_role_writes_nothing_in_tenants_nor_in_the_catalog() {
    let (house, acme, _) = two_tenants().await;
    let analytics = connect(&house.database.analytics_url()).await;
    analytics.batch_execute("BEGIN").await.unwrap();
    let sales = format!("{}.sales", acme.tenant().schema());
    assert_eq!(outcome(&analytics, &format!("SELECT * FROM {sales}")).await, "permitted");
    for sql in [
        format!("INSERT INTO {sales} (day, cents) VALUES ('2026-01-01', 1)"),
        format!("UPDATE {sales} SET cents = 0"),
        format!("DELETE FROM {sales}"),
        format!("TRUNCATE {sales}"),
        format!("CREATE TABLE {}.mine (id int)", acme.tenant().schema()),
        "CREATE TABLE freehold_analytics.mine (id int)".to_owned(),
        "CREATE TEMP TABLE mine (id int)".to_owned(),
        "UPDATE freehold.tenant SET status = 'suspended'".to_owned(),
        "SELECT name FROM freehold.tenant".to_owned(),
        "SELECT * FROM freehold.identity".to_owned(),
        "SELECT * FROM freehold.credential".to_owned(),
        "UPDATE freehold.analytics SET source = ''".to_owned(),
        "DELETE FROM freehold.analytics_run".to_owned(),
        "SELECT * FROM freehold_analytics.fleet_totals".to_owned(),
        "SET ROLE freehold_owner".to_owned(),
        "SELECT freehold.run_migration('SELECT 1')".to_owned(),
    ] {
        assert_eq!(outcome(&analytics, &sql).await, "42501", "{sql}");
    }
}

/// A definition's own SQL runs with a role that can write nothing, not even a rollup.
#[tokio::test]
async fn a_definition_that_writes_fails_in_every_tenant() {
    let house = shop(&[TOTALS]).await;
    house.tenant("acme").await;
    let superuser = house.superuser().await;
    superuser
        .batch_execute(
            "CREATE FUNCTION public.meddle() RETURNS bigint LANGUAGE plpgsql AS $$
             BEGIN DELETE FROM freehold_analytics.rollup_totals; RETURN 1; END $$",
        )
        .await
        .unwrap();
    let meddling = "-- name: meddling\n-- grain: day\n-- schedule: every 1h\n
        SELECT current_date AS day, public.meddle() AS one";
    let definitions = super::folder(&[TOTALS, meddling]);
    house.freehold.analytics().apply(&operator(), &definitions).await.unwrap();
    let runs = house.collect().await;
    assert!(runs[0].failures[0].error.contains("25006"), "{:?}", runs[0].failures);
    assert_eq!(runs[1].collected, 1);
}

#[tokio::test]
async fn a_tenant_context_is_no_key_for_the_collector_either() {
    let (house, acme, globex) = two_tenants().await;
    // An attacker who makes the analytics role claim a tenant still does not see another tenant's rollup.
    let analytics = connect(&house.database.analytics_url()).await;
    let sealed = house.sealed(acme.tenant(), "owner").await;
    analytics
        .batch_execute(&format!("BEGIN; SELECT freehold_guard.admit('{sealed}')"))
        .await
        .unwrap();
    let theirs = format!(
        "SELECT count(*) FROM freehold_analytics.rollup_totals WHERE tenant_id = '{}'",
        globex.tenant()
    );
    assert_eq!(analytics.query_one(&theirs, &[]).await.unwrap().get::<_, i64>(0), 0);
}
