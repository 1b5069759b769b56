//! Analytics collected on a replica: the figures are right, whatever happens to it.

use std::time::Duration;

use freehold::control::analytics::{AnalyticsPublication, AnalyticsQuery, AnalyticsScope};
use freehold::{
    AnalyticsDefinition, AnalyticsFolder, AnalyticsOptions, AnalyticsRun, Freehold,
    OperatorContext, ReplicaState, TenantContext,
};
use serde_json::{Value, json};

use super::{House, SOON, house, patient};
use crate::support::{connect, eventually};

/// Slow enough to be met in the middle.
const NOTES: &str = "-- name: notes
-- grain: body
-- schedule: every 1h
-- minimum group: 1
SELECT body, count(*) AS notes FROM notes, pg_sleep(0.1) GROUP BY body";

const OPERATOR: OperatorContext = OperatorContext::system("a test");

async fn define(freehold: &Freehold) {
    let definition = AnalyticsDefinition::parse(NOTES).unwrap();
    let folder = AnalyticsFolder::from_definitions(vec![definition]).unwrap();
    freehold.analytics().apply(&OPERATOR, &folder).await.unwrap();
}

async fn collect(freehold: &Freehold) -> AnalyticsRun {
    let options =
        AnalyticsOptions { tenant_timeout: Duration::from_secs(60), ..AnalyticsOptions::default() };
    freehold.analytics().run(&OPERATOR, None, options, &|_, _| {}).await.unwrap().remove(0)
}

/// The published figures, and their coverage.
async fn published(freehold: &Freehold) -> (Value, AnalyticsPublication) {
    let query = AnalyticsQuery { oldest_first: true, ..AnalyticsQuery::default() };
    let page = freehold.analytics().read(&OPERATOR, "notes", AnalyticsScope::Fleet, &query).await;
    let page = page.unwrap();
    (serde_json::from_str(&page.rows).unwrap(), page.publication.unwrap())
}

fn figures(body: &str, tenants: usize, notes: usize) -> Value {
    json!({"body": body, "tenants": tenants, "notes": notes})
}

impl House {
    /// This many tenants with a note each.
    async fn tenants(&self, count: usize) -> Vec<TenantContext> {
        let mut tenants = Vec::new();
        for n in 0..count {
            let tenant = self.tenant(&format!("tenant-{n}")).await;
            self.note(&tenant, "common").await;
            tenants.push(tenant);
        }
        tenants
    }

    /// Until the replica reads a tenant for analytics.
    async fn until_it_reads(&self) {
        let replica = connect(&self.replica.superuser_url()).await;
        let reading = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'freehold_analytics' AND wait_event = 'PgSleep'";
        eventually("the replica reads tenants", SOON, async || {
            replica.query_one(reading, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn analytics_reads_tenants_on_a_replica_and_says_of_when_they_are() {
    let house = house(patient()).await;
    define(&house.freehold).await;
    let tenants = house.tenants(3).await;
    // The run waits until the replica has the latest writes.
    let (run, ()) = tokio::join!(collect(&house.freehold), house.until_it_reads());
    assert_eq!((run.collected, run.failed), (3, 0), "{run:?}");
    assert_eq!(published(&house.freehold).await.0, json!([figures("common", 3, 3)]));

    house.until_replayed().await;
    house.replica.pause().await;
    let sql = connect(&house.database.superuser_url()).await;
    let before =
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let before: String = sql.query_one(before, &[]).await.unwrap().get(0);
    house.note(&tenants[0], "common").await;
    collect(&house.freehold).await;
    let (rows, publication) = published(&house.freehold).await;
    assert_eq!(rows, json!([figures("common", 3, 3)]), "the replica's");
    assert!(publication.as_of < before.parse().unwrap(), "as old as they are: {publication:?}");

    house.replica.resume().await;
    collect(&house.freehold).await;
    let (rows, publication) = published(&house.freehold).await;
    assert_eq!(rows, json!([figures("common", 3, 4)]));
    assert!(publication.as_of > before.parse().unwrap(), "{publication:?}");
}

/// Killed, and frozen: a server that does not answer is treated like one that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_lost_in_the_middle_of_a_run_leaves_right_figures_of_everybody() {
    let mut house = house(patient()).await;
    define(&house.freehold).await;
    let tenants = house.tenants(12).await;
    for is_killed in [true, false] {
        let freehold = house.freehold.clone();
        let run = tokio::spawn(async move { collect(&freehold).await });
        house.until_it_reads().await;
        match is_killed {
            true => house.replica.kill(),
            false => house.replica.freeze(),
        }
        let run = tokio::time::timeout(2 * SOON, run).await.expect("it ends").unwrap();
        assert_eq!((run.collected, run.failed), (12, 0), "{run:?}");
        let (rows, publication) = published(&house.freehold).await;
        assert_eq!((publication.tenants, publication.fresh, publication.failed), (12, 12, 0));
        let notes = if is_killed { 12 } else { 13 };
        assert_eq!(rows, json!([figures("common", 12, notes)]));
        match is_killed {
            true => house.replica.start().await,
            false => house.replica.thaw(),
        }
        house.until_serving().await;
        house.note(&tenants[0], "common").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn analytics_is_not_collected_from_a_promoted_replica() {
    let house = house(patient()).await;
    define(&house.freehold).await;
    let tenants = house.tenants(2).await;
    house.until_replayed().await;
    house.replica.promote().await;
    let astray = connect(&house.replica.url(&house.database.superuser_url())).await;
    let schema = tenants[0].tenant().schema();
    let sql = format!("INSERT INTO {schema}.notes (body) VALUES ('astray')");
    astray.batch_execute(&sql).await.unwrap();
    collect(&house.freehold).await;
    assert_eq!(published(&house.freehold).await.0, json!([figures("common", 2, 2)]));
    house.until(ReplicaState::Promoted).await;

    // Nor if it is named for analytics alone.
    let mut options = house.database.options();
    options.analytics_read_url = Some(house.replica.url(&house.database.analytics_url()));
    let freehold = Freehold::connect(&options).await.unwrap();
    collect(&freehold).await;
    assert_eq!(published(&freehold).await.0, json!([figures("common", 2, 2)]));
}

/// `DATABASE_ANALYTICS_READ_URL`, for a replica that serves no requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_may_be_for_analytics_alone() {
    let house = house(patient()).await;
    let mut options = house.database.options();
    options.analytics_read_url = Some(house.replica.url(&house.database.analytics_url()));
    let freehold = Freehold::connect(&options).await.unwrap();
    define(&freehold).await;
    house.tenants(3).await;
    let (run, ()) = tokio::join!(collect(&freehold), house.until_it_reads());
    assert_eq!((run.collected, run.failed), (3, 0), "{run:?}");
    assert_eq!(published(&freehold).await.0, json!([figures("common", 3, 3)]));
    assert!(!freehold.has_replicas());
}
