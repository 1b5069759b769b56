//! The cost of tenants' statements: counted once in the catalog.

use freehold::Params;
use freehold::control::insight::UsageOrder;
use freehold::postgres_types::ToSql;

use crate::support::{connect, house, operator};

/// A batch whose answer was lost is sent again, under its number.
#[tokio::test]
async fn a_batch_of_figures_that_comes_twice_counts_once() {
    let house = house().await;
    let tenant = house.tenant("acme").await.tenant();
    let sql = connect(&house.database.owner_url()).await;
    let entry = |tenant| {
        format!(
            r#"[{{"tenant_id": "{tenant}", "table_name": "notes", "queries": 5, "rows": 6, "errors": 1, "time_us": 7, "wait_us": 8}}]"#
        )
    };
    let record = |number: i64, tenant: String| {
        format!(
            "SELECT freehold.record_usage('00000000-0000-0000-0000-000000000001', {number}, '{}')",
            entry(tenant)
        )
    };
    for number in [1, 1, 2, 1] {
        sql.batch_execute(&record(number, tenant.to_string())).await.unwrap();
    }
    let gone = "00000000-0000-4000-8000-000000000009".to_owned();
    sql.batch_execute(&record(3, gone)).await.unwrap();
    let list =
        house.freehold.usage().list(&operator(), UsageOrder::Time, None, None, None).await.unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    let usage = list[0].usage;
    assert_eq!((usage.queries, usage.rows, usage.errors), (10, 12, 2));
    assert_eq!((usage.time_us, usage.wait_us), (14, 16));
}

#[tokio::test]
async fn each_statement_of_a_pipeline_is_counted() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let insert = "INSERT INTO notes (body) VALUES ($1)";
    let body: [&(dyn ToSql + Sync); 1] = [&"a"];
    let pieces = [(insert, &body[..]), (insert, &body[..]), ("SELECT * FROM notes", &[])];
    house.freehold.pipeline(&acme, &pieces).await.unwrap();
    let wrong = [("SELECT 1/0", &[] as Params<'_>), ("SELECT 1", &[])];
    house.freehold.pipeline(&acme, &wrong).await.unwrap_err();
    house.freehold.pipeline_each(&acme, &wrong).await.unwrap();
    house.freehold.usage().flush().await.unwrap();
    let list = house.freehold.usage().get(&operator(), acme.tenant(), None).await.unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    let usage = list[0].usage;
    assert_eq!((usage.queries, usage.rows, usage.errors), (7, 5, 2));
}

/// The functions that write figures have the owner's rights, and the catalog's policies apply to the owner as
/// well: in a tenant's context they neither write nor return anything of another tenant.
#[tokio::test]
async fn from_a_tenants_context_nobody_writes_figures_of_another() {
    let house = house().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let superuser = house.superuser().await;
    superuser
        .batch_execute(&format!(
            "INSERT INTO freehold.slow_query (tenant_id, shape, table_name, statement, count, failed, total_us,
               first_at, last_at, slowest_us, slowest_rows, slowest_at)
             VALUES ('{}', md5('s'), 't', 'SELECT', 1, 0, 1, now(), now(), 1, 1, now())",
            globex.tenant()
        ))
        .await
        .unwrap();
    let figures = async || {
        let rows = superuser
            .query_one(
                "SELECT concat((SELECT json_agg(t) FROM freehold.usage t), (SELECT json_agg(t) FROM freehold.busiest t),
                   (SELECT json_agg(t) FROM freehold.slow_query t), (SELECT json_agg(t) FROM freehold.query_shape t),
                   (SELECT json_agg(t) FROM freehold.tenant_size t), (SELECT json_agg(t) FROM freehold.usage_writer t))",
                &[],
            )
            .await
            .unwrap();
        rows.get::<_, String>(0)
    };
    let before = figures().await;
    for tenant in [&globex, &acme] {
        let entry = format!("jsonb_build_array(jsonb_build_object('tenant_id', '{}',
            'table_name', 't', 'shape', md5('s'), 'statement', 'SELECT', 'queries', 1, 'rows', 1, 'errors', 1, 'time_us', 1,
            'wait_us', 1, 'requests', 1, 'count', 1, 'failed', 1, 'total_us', 1, 'slowest_us', 1, 'slowest_rows', 1,
            'first_at', now(), 'last_at', now(), 'slowest_at', now()))", tenant.tenant());
        for call in [
            format!("freehold.record_usage(gen_random_uuid(), 1, {entry})"),
            format!("freehold.record_busiest(gen_random_uuid(), 1, {entry})"),
            format!("freehold.record_query_shapes({entry})"),
            format!("freehold.record_slow_plan('{}', md5('s'), '{{}}')", tenant.tenant()),
            "freehold.measure_sizes(NULL, 1000)".to_owned(),
            "freehold.prune_usage()".to_owned(),
            "freehold.prune_sizes()".to_owned(),
            "freehold.prune_query_shapes()".to_owned(),
            "freehold.prune_slow_queries()".to_owned(),
        ] {
            for role in ["freehold_admin", "freehold_app", "freehold_catalog"] {
                let attacker = house.attacker_as(role, acme.tenant()).await;
                // Refused, or without any effect.
                let _ = attacker.batch_execute(&format!("SELECT {call}")).await;
                let _ = attacker.batch_execute("COMMIT").await;
                assert_eq!(figures().await, before, "{role}: {call}");
            }
        }
        let call = format!("SELECT freehold.record_slow_queries({entry})");
        let attacker = house.in_catalog(acme.tenant(), "owner").await;
        let recorded = attacker.batch_execute(&call).await;
        let _ = attacker.batch_execute("COMMIT").await;
        let others = "SELECT count FROM freehold.slow_query WHERE tenant_id = $1";
        let others = superuser.query_one(others, &[&globex.tenant().as_uuid()]).await.unwrap();
        assert_eq!(others.get::<_, i64>(0), 1, "{recorded:?}");
    }
    let attacker = house.in_catalog(acme.tenant(), "owner").await;
    if let Ok(row) = attacker.query_one("SELECT freehold.measure_sizes(NULL, 1000)", &[]).await {
        assert_ne!(row.get::<_, Option<uuid::Uuid>>(0), Some(globex.tenant().as_uuid()));
    }
}
