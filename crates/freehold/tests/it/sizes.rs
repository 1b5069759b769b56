//! The sizes of tenants on disk: measured, kept for some time, and their growth.

use freehold::control::sizes::{SizeOrder, TenantGrowth};
use freehold::{ErrorKind, TenantContext};
use tokio_postgres::Client;

use crate::support::{House, connect, house, operator, outcome};

/// Measures all tenants, and returns the results by slug.
async fn measured(house: &House) -> Vec<TenantGrowth> {
    assert_eq!(house.freehold.sizes().measure(&operator()).await.unwrap(), 0);
    growths(house, SizeOrder::Bytes).await
}

async fn growths(house: &House, order: SizeOrder) -> Vec<TenantGrowth> {
    house.freehold.sizes().list(&operator(), order, None, None).await.unwrap()
}

fn of<'g>(growths: &'g [TenantGrowth], tenant: &TenantContext) -> &'g TenantGrowth {
    growths.iter().find(|growth| growth.tenant == tenant.tenant()).unwrap()
}

/// The bytes of a tenant's history, the newest first.
async fn history(house: &House, tenant: &TenantContext) -> Vec<i64> {
    let list = house.freehold.sizes().history(&operator(), tenant.tenant(), None).await.unwrap();
    list.iter().map(|size| size.bytes).collect()
}

/// Some hundred kilobytes, partly stored out of line.
async fn fill(house: &House, tenant: &TenantContext) {
    let sql = "INSERT INTO notes (body) SELECT repeat(md5(i::text), 10) FROM generate_series(1, 500) i;
               INSERT INTO notes (body) SELECT string_agg(md5(i::text), '') FROM generate_series(1, 9000) i";
    house.script(tenant, sql).await;
}

/// Writes a size into a tenant's history, as the owner: `at` is an expression of SQL.
async fn remember(owner: &Client, tenant: &TenantContext, at: &str, bytes: i64) {
    let sql = format!(
        "INSERT INTO freehold.tenant_size (tenant_id, measured_at, bytes, rows) VALUES ($1, {at}, $2, 1)"
    );
    owner.execute(&sql, &[&tenant.tenant().as_uuid(), &bytes]).await.unwrap();
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() < 1_000.0
}

#[tokio::test]
async fn the_tenant_whose_tables_grow_is_the_one_that_takes_more() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let before = measured(&house).await;
    assert_eq!(before.len(), 2);
    fill(&house, &acme).await;
    let after = measured(&house).await;
    assert_eq!(of(&after, &globex).bytes, of(&before, &globex).bytes);
    let (was, is) = (of(&before, &acme).bytes, of(&after, &acme).bytes);
    assert!(is > was + 400_000, "{was} {is}");
    assert_eq!((after[0].tenant, after[0].slug.as_str()), (acme.tenant(), "acme"));
    assert_eq!(growths(&house, SizeOrder::Growth).await[0].tenant, acme.tenant());

    // The total: tables, their indexes, and out-of-line storage.
    let superuser = house.superuser().await;
    let files = "SELECT sum(pg_relation_size(c.oid, f.fork))::int8 FROM pg_class c
                 CROSS JOIN unnest(ARRAY['main', 'fsm', 'vm', 'init']) f (fork)
                 WHERE c.relkind <> 'S' AND (c.relnamespace = $1::text::regnamespace OR c.oid IN (
                   SELECT unnest(ARRAY[b.reltoastrelid, i.indexrelid]) FROM pg_class b
                   JOIN pg_index i ON i.indrelid = b.reltoastrelid WHERE b.relnamespace = $1::text::regnamespace))";
    let files = superuser.query_one(files, &[&acme.tenant().schema()]).await.unwrap();
    assert_eq!(is, files.get::<_, i64>(0));
    let fleet = house.freehold.sizes().fleet_growth(&operator()).await.unwrap();
    assert_eq!((fleet.tenants, fleet.bytes), (2, is + of(&after, &globex).bytes));
    assert_eq!(fleet.measured_at, after.iter().map(|growth| growth.measured_at).max());

    // The number of rows is PostgreSQL's estimate.
    superuser.batch_execute(&format!("ANALYZE {}.notes", acme.tenant().schema())).await.unwrap();
    assert_eq!(of(&measured(&house).await, &acme).rows, 502);
}

#[tokio::test]
async fn a_tenant_without_growth_or_with_one_size_grows_by_nothing() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    assert_eq!(growths(&house, SizeOrder::Bytes).await.len(), 0);
    assert_eq!(history(&house, &acme).await, [0; 0]);
    let fleet = house.freehold.sizes().fleet_growth(&operator()).await.unwrap();
    assert_eq!((fleet.tenants, fleet.bytes, fleet.measured_at), (0, 0, None));

    for _ in 0..3 {
        let growth = &measured(&house).await[0];
        assert_eq!((growth.bytes_per_day, growth.forecast_bytes), (0.0, growth.bytes as f64));
        // A size that is as it was is written once a day.
        assert_eq!(history(&house, &acme).await, [growth.bytes]);
    }
    let owner = connect(&house.database.owner_url()).await;
    let yesterday =
        "UPDATE freehold.tenant_size SET measured_at = measured_at - interval '25 hours'";
    owner.batch_execute(yesterday).await.unwrap();
    let growth = &measured(&house).await[0];
    assert_eq!(history(&house, &acme).await, [growth.bytes; 2]);
    assert_eq!(growth.bytes_per_day, 0.0);

    // Measurements older than a week do not count for the present growth.
    owner.batch_execute("DELETE FROM freehold.tenant_size").await.unwrap();
    remember(&owner, &acme, "now() - interval '8 days'", 1).await;
    let growth = &measured(&house).await[0];
    assert_eq!((growth.bytes_per_day, growth.forecast_bytes), (0.0, growth.bytes as f64));

    let nobody = freehold::TenantId::from(uuid::Uuid::from_u128(7));
    let refused = house.freehold.sizes().history(&operator(), nobody, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}

/// An import is not extrapolated.
#[tokio::test]
async fn whoever_is_known_for_an_hour_grew_in_a_day_by_what_they_grew_in_that_hour() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let bytes = measured(&house).await[0].bytes;
    let owner = connect(&house.database.owner_url()).await;
    for (since, rate) in [("1 hour", 4_000_000.0), ("2 days", 2_000_000.0)] {
        owner.batch_execute("DELETE FROM freehold.tenant_size").await.unwrap();
        remember(&owner, &acme, &format!("now() - interval '{since}'"), bytes - 4_000_000).await;
        let growth = &measured(&house).await[0];
        assert!(near(growth.bytes_per_day, rate), "{growth:?}");
        let forecast = bytes as f64 + 30.0 * rate;
        assert!((growth.forecast_bytes - forecast).abs() < 30_000.0, "{growth:?}");
    }
}

#[tokio::test]
async fn growth_is_a_straight_line_through_the_sizes_of_a_week_and_the_forecast_follows_it() {
    let house = house().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let initech = house.tenant("initech").await;
    let bytes = measured(&house).await[0].bytes;
    let owner = connect(&house.database.owner_url()).await;
    owner.batch_execute("DELETE FROM freehold.tenant_size").await.unwrap();
    let days = |days: i64| format!("now() - interval '{days} days'");
    // In two steps: from the first to the last it is 4 MB in three days, by the line 1.6 a day.
    for (at, less) in [(3, 4_000_000), (2, 4_000_000), (1, 0)] {
        remember(&owner, &acme, &days(at), bytes - less).await;
    }
    // Earlier measurements do not count.
    remember(&owner, &acme, &days(30), 900_000_000).await;
    for at in 1..6 {
        remember(&owner, &globex, &days(at), bytes + at * 10_000).await;
        remember(&owner, &initech, &days(at), bytes - at * 2_000_000).await;
    }
    measured(&house).await;
    let list = growths(&house, SizeOrder::Growth).await;
    let order: Vec<&str> = list.iter().map(|growth| growth.slug.as_str()).collect();
    assert_eq!(order, ["initech", "acme", "globex"]);
    for (tenant, rate) in [(&acme, 1_600_000.0), (&globex, -10_000.0), (&initech, 2_000_000.0)] {
        let growth = of(&list, tenant);
        assert_eq!(growth.bytes, bytes);
        assert!(near(growth.bytes_per_day, rate), "{growth:?}");
        let forecast = (bytes as f64 + 30.0 * growth.bytes_per_day).max(0.0);
        assert!((growth.forecast_bytes - forecast).abs() < 1.0, "{growth:?}");
    }
    // The forecast of a shrinking tenant stops at zero.
    assert_eq!(of(&list, &globex).forecast_bytes, 0.0);
    let fleet = house.freehold.sizes().fleet_growth(&operator()).await.unwrap();
    assert!(near(fleet.bytes_per_day, 3_590_000.0), "{fleet:?}");
    assert!(near(fleet.fastest_bytes_per_day, 2_000_000.0), "{fleet:?}");
    let page = house.freehold.sizes().list(&operator(), SizeOrder::Growth, Some(1), Some(1)).await;
    assert_eq!(page.unwrap()[0].slug, "acme");
}

#[tokio::test]
async fn all_sizes_of_two_days_are_kept_then_the_last_of_each_day_for_ninety() {
    let house = house().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let bytes = measured(&house).await[0].bytes;
    let owner = connect(&house.database.owner_url()).await;
    // A day is a day in UTC, whatever the time zone of the session.
    let midnight = |days: i32, offset: &str| {
        format!("date_trunc('day', now(), 'UTC') - interval '{days} days' + interval '{offset}'")
    };
    for (at, size) in [
        ("now() - interval '1 hour'".to_owned(), 1),
        ("now() - interval '2 hours'".to_owned(), 2),
        (midnight(1, "00:20"), 3),
        (midnight(1, "00:10"), 33),
        (midnight(4, "23:59"), 4),
        (midnight(4, "12:00"), 5),
        (midnight(4, "00:00"), 6),
        (midnight(5, "23:59"), 7),
        (midnight(5, "00:01"), 8),
        ("now() - interval '89 days 20 hours'".to_owned(), 9),
        ("now() - interval '90 days 1 minute'".to_owned(), 10),
    ] {
        remember(&owner, &acme, &at, size).await;
    }
    remember(&owner, &globex, &midnight(4, "12:00"), 5).await;
    measured(&house).await;
    assert_eq!(history(&house, &acme).await, [bytes, 1, 2, 3, 33, 4, 7, 9]);
    // The last of another tenant's day is its own.
    assert_eq!(history(&house, &globex).await, [bytes, 5]);
    let newest = house.freehold.sizes().history(&operator(), acme.tenant(), Some(2)).await.unwrap();
    assert_eq!(newest.iter().map(|size| size.bytes).collect::<Vec<_>>(), [bytes, 1]);
}

#[tokio::test]
async fn a_table_that_somebody_holds_is_not_waited_for_and_measured_the_next_time() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    let holder = house.superuser().await;
    let hold = format!("BEGIN; LOCK {}.notes IN ACCESS EXCLUSIVE MODE", acme.tenant().schema());
    holder.batch_execute(&hold).await.unwrap();
    assert_eq!(house.freehold.sizes().measure(&operator()).await.unwrap(), 1);
    assert_eq!(growths(&house, SizeOrder::Bytes).await.len(), 0);
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(measured(&house).await.len(), 2);
}

/// Sizes are an operator's: a tenant's context sees none of them, not even its own, and changes none.
#[tokio::test]
async fn a_tenants_context_sees_no_sizes_and_writes_none() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let before = measured(&house).await;
    let sql = "SELECT * FROM freehold.tenant_size";
    let refused = house.freehold.query(&acme, sql, &[]).await.unwrap_err();
    assert_eq!(refused.database().map(|db| db.code().code()), Some("42501"), "{refused}");
    for role in ["freehold_admin", "freehold_app", "freehold_catalog"] {
        let attacker = house.attacker_as(role, acme.tenant()).await;
        for table in ["tenant_size", "tenant_growth"] {
            let table = format!("freehold.{table}");
            if role == "freehold_catalog" {
                // It may read them all, but in no tenant's context.
                let rows = attacker.query(&format!("SELECT FROM {table}"), &[]).await.unwrap();
                assert_eq!(rows.len(), 0, "{table}");
            } else {
                assert_eq!(outcome(&attacker, &format!("TABLE {table}")).await, "42501");
            }
            for write in [
                format!("INSERT INTO {table} SELECT * FROM {table}"),
                format!("UPDATE {table} SET bytes = 0"),
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table}"),
            ] {
                assert_eq!(outcome(&attacker, &write).await, "42501", "{role}: {write}");
            }
        }
        assert_eq!(outcome(&attacker, "SELECT freehold.measure_sizes(NULL, 9)").await, "42501");
        attacker.batch_execute("ROLLBACK").await.unwrap();
    }
    let after = growths(&house, SizeOrder::Bytes).await;
    for tenant in [&acme, &globex] {
        assert_eq!(of(&after, tenant).measured_at, of(&before, tenant).measured_at);
        assert_eq!(history(&house, tenant).await, [of(&before, tenant).bytes]);
    }
}
