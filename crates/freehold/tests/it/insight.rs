//! What tenants' statements cost: in the catalog, once.

use freehold::Params;
use freehold::control::insight::UsageOrder;
use freehold::tokio_postgres::types::ToSql;

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
        house.freehold.list_usage(&operator(), UsageOrder::Time, None, None, None).await.unwrap();
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
    house.freehold.flush_usage().await.unwrap();
    let list = house.freehold.usage_of(&operator(), acme.tenant(), None).await.unwrap();
    assert_eq!(list.len(), 1, "{list:?}");
    let usage = list[0].usage;
    assert_eq!((usage.queries, usage.rows, usage.errors), (7, 5, 2));
}
