//! Definitions: what is refused, and what happens to figures when they change or are removed.

use freehold::{AnalyticsFolder, ErrorKind};
use serde_json::json;

use super::{CHANGES, TOTALS, baseline_and, folder, shop};
use crate::support::{House, house_with, operator};

async fn apply(house: &House, definitions: &[&str]) -> freehold::Result<String> {
    let applied = house.freehold.analytics().apply(&operator(), &folder(definitions)).await?;
    Ok(serde_json::to_string(&applied).unwrap())
}

fn select(sql: &str) -> String {
    format!("-- name: bad\n-- grain: day\n-- schedule: every 1h\n-- watermark: at\n{sql}")
}

async fn names(house: &House) -> Vec<String> {
    let list = house.freehold.analytics().list(&operator()).await.unwrap();
    list.into_iter().map(|status| status.outline.name).collect()
}

/// Tables and views of the shared schema, as a superuser sees them.
async fn relations(house: &House) -> Vec<String> {
    let sql =
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'freehold_analytics'::regnamespace
               AND relkind IN ('r', 'v', 'm') ORDER BY 1";
    let rows = house.superuser().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_malformed_select_is_refused_with_what_to_do_and_nothing_is_half_applied() {
    let house = house_with(&baseline_and(&[
        "CREATE TYPE mood AS ENUM ('good'); ALTER TABLE sales ADD COLUMN mood mood",
    ]))
    .await;
    let day = "SELECT day, sum(cents) AS cents, max(changed_at) AS at";
    for (sql, told) in [
        ("SELEC 1".to_owned(), "line 1 of the SELECT"),
        (
            format!("{day}\nFROM sale GROUP BY day"),
            "line 2 of the SELECT: relation \"sale\" does not exist",
        ),
        (format!("{day} FROM sales GROUP BY day; DROP TABLE sales"), "syntax error"),
        (
            "SELECT 1) AS d; DROP TABLE sales; SELECT * FROM (SELECT 1".to_owned(),
            "multiple commands",
        ),
        ("DELETE FROM sales RETURNING day".to_owned(), "syntax error"),
        ("WITH gone AS (DELETE FROM sales RETURNING *) SELECT * FROM gone".to_owned(), "top level"),
        ("SELECT day, cents FROM sales".to_owned(), "names at, and the SELECT has day, cents"),
        (
            format!("{day} FROM freehold_template.sales, freehold.tenant GROUP BY day"),
            "reads freehold.tenant",
        ),
        ("SELECT day, max(changed_at) AS at FROM sales GROUP BY day".to_owned(), "no measure"),
        (format!("{day}, max(mood) AS mood FROM sales GROUP BY day"), "cast it to text"),
        (format!("{day}, 'x' AS word FROM sales GROUP BY day"), "cannot be summed"),
        (format!("{day}, 1 AS tenants FROM sales GROUP BY day"), "something else"),
        (
            "SELECT day, sum(cents) AS cents, max(day) AS at FROM sales GROUP BY day".to_owned(),
            "must be a timestamptz",
        ),
        (
            format!("{} FROM sales GROUP BY sales.day", day.replace("day", "point(1, 2) AS day")),
            "bad: ",
        ),
    ] {
        let refused = apply(&house, &[TOTALS, &select(&sql)]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Setup, "{sql}: {refused}");
        assert!(refused.message().starts_with("bad"), "{sql}: {refused}");
        assert!(refused.message().contains(told), "{sql}: {refused}");
        assert_eq!(names(&house).await, [""; 0], "{sql}");
        assert_eq!(relations(&house).await, [""; 0], "{sql}");
    }
    apply(&house, &[TOTALS, CHANGES]).await.unwrap();
}

#[tokio::test]
async fn a_changed_definition_is_built_anew_and_another_schedule_keeps_the_figures() {
    let house = shop(&[TOTALS, CHANGES]).await;
    let acme = house.tenant("acme").await;
    house.sell(&acme, "2026-01-01", 5).await;
    house.collect().await;
    let nothing = r#"{"added":[],"rebuilt":[],"kept":[],"removed":[]}"#;
    assert_eq!(apply(&house, &[CHANGES, TOTALS]).await.unwrap(), nothing);

    let scheduled = TOTALS.replace("every 1h", "every 2h").replace("Sales by day", "Sales");
    let applied = apply(&house, &[&scheduled, CHANGES]).await.unwrap();
    assert!(applied.contains(r#""kept":["totals"]"#), "{applied}");
    assert_eq!(house.fleet("totals").await[0]["cents"], 5);
    let list = house.freehold.analytics().list(&operator()).await.unwrap();
    assert_eq!((list[1].schedule_secs, list[1].outline.about.as_str()), (7200, "Sales"));

    let doubled = CHANGES.replace("sum(cents) AS cents", "2 * sum(cents) AS doubled");
    let applied = apply(&house, &[&scheduled, &doubled]).await.unwrap();
    assert!(applied.contains(r#""rebuilt":["changes"]"#), "{applied}");
    // The publication belonged to the former definition.
    assert_eq!(house.fleet("changes").await, json!([]));
    assert!(house.freehold.analytics().list(&operator()).await.unwrap()[0].publication.is_none());
    house.run(true).await.unwrap();
    assert_eq!(house.fleet("changes").await[0]["doubled"], 10);
    assert_eq!(house.fleet("totals").await[0]["cents"], 5);
}

#[tokio::test]
async fn a_definition_that_was_removed_leaves_nothing() {
    let house = shop(&[TOTALS, CHANGES]).await;
    house.tenant("acme").await;
    house.collect().await;
    assert_eq!(relations(&house).await.len(), 10);
    let applied = apply(&house, &[TOTALS]).await.unwrap();
    assert!(applied.contains(r#""removed":["changes"]"#), "{applied}");
    let left = ["fleet", "published", "rollup", "total", "touched"];
    assert_eq!(relations(&house).await, left.map(|kind| format!("{kind}_totals")));
    house.collect().await;
    let names_of_gone = ["changes".to_owned()];
    let run = house
        .freehold
        .analytics()
        .run(&operator(), Some(&names_of_gone), freehold::AnalyticsOptions::default(), &|_, _| {})
        .await
        .unwrap_err();
    assert_eq!(run.kind(), ErrorKind::NotFound);
    house.freehold.analytics().apply(&operator(), &AnalyticsFolder::default()).await.unwrap();
    assert_eq!(relations(&house).await, [""; 0]);
    house.collect().await;
}

#[tokio::test]
async fn a_definition_that_is_applied_while_it_runs_stops_that_run_and_publishes_nothing_of_it() {
    let slow = "-- name: slow\n-- grain: day\n-- schedule: every 1h\n-- minimum group: 1\n
        SELECT day, sum(cents + coalesce(length(pg_sleep(0.5)::text), 0)) AS cents FROM sales GROUP BY day";
    let house = shop(&[slow]).await;
    let acme = house.tenant("acme").await;
    house.sell(&acme, "2026-01-01", 1).await;
    let changed = slow.replace("AS cents", "AS other");
    let (run, applied) = tokio::join!(house.run(false), async {
        // It has begun once its token is there.
        let superuser = house.superuser().await;
        let begun = "SELECT count(*) FROM freehold.analytics_run WHERE token IS NOT NULL";
        crate::support::wait_until(
            "the run has begun",
            std::time::Duration::from_secs(20),
            async || superuser.query_one(begun, &[]).await.unwrap().get::<_, i64>(0) == 1,
        )
        .await;
        apply(&house, &[&changed]).await
    });
    applied.unwrap();
    run.unwrap_err();
    assert_eq!(house.fleet("slow").await, json!([]));
    house.collect().await;
    assert_eq!(house.fleet("slow").await[0]["other"], 1);
}
