//! Which server runs, and that two never publish: locks, fences, and interruptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use freehold::control::analytics::{AnalyticsQuery, AnalyticsScope};
use freehold::{AnalyticsOptions, ErrorKind, Freehold};
use serde_json::json;
use tokio::sync::oneshot;

use super::{CHANGES, TOTALS, rows, shop};
use crate::support::{House, operator, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

/// Ends these sessions of analytics.
async fn end_sessions(house: &House, whose: &str) -> i64 {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE usename = 'freehold_analytics' AND datname = current_database() AND {whose}"
    );
    house.superuser().await.query_one(&sql, &[]).await.unwrap().get(0)
}

async fn lead_for_ever(freehold: Freehold, leads: Arc<AtomicI32>) -> freehold::Error {
    let led = freehold
        .lead(async {
            leads.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<freehold::Result<()>>().await
        })
        .await;
    led.unwrap_err()
}

#[tokio::test]
async fn of_two_servers_one_leads_and_the_other_follows_when_its_connection_is_lost() {
    let house = shop(&[]).await;
    let other = Freehold::connect(&house.database.options()).await.unwrap();
    let (first, second) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicI32::new(0)));
    let leader = tokio::spawn(lead_for_ever(house.freehold.clone(), Arc::clone(&first)));
    wait_until("the first leads", LIMIT, async || first.load(Ordering::SeqCst) == 1).await;
    let follower = tokio::spawn(lead_for_ever(other, Arc::clone(&second)));
    // Long enough to have asked more than once.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(second.load(Ordering::SeqCst), 0, "two lead");

    let lock = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted
                AND classid = 72374653 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let ended: i64 = house.superuser().await.query_one(lock, &[]).await.unwrap().get(0);
    assert_eq!(ended, 1);
    let lost = tokio::time::timeout(LIMIT, leader).await.unwrap().unwrap();
    assert_eq!(lost.kind(), ErrorKind::Unavailable);
    wait_until("the second leads", LIMIT, async || second.load(Ordering::SeqCst) == 1).await;
    follower.abort();
}

#[tokio::test]
async fn what_somebody_else_runs_is_refused_by_hand_and_passed_over_by_schedule() {
    let slow = TOTALS.replace("sum(cents)", "sum(cents + coalesce(length(pg_sleep(1)::text), 0))");
    let house = shop(&[&slow, CHANGES]).await;
    let acme = house.tenant("acme").await;
    house.sell(&acme, "2026-01-01", 1).await;
    let (begun, has_begun) = oneshot::channel();
    let begun = std::sync::Mutex::new(Some(begun));
    let only_slow = ["totals".to_owned()];
    let options = AnalyticsOptions::default();
    let told = |_, _| {
        if let Some(begun) = begun.lock().unwrap().take() {
            let _ = begun.send(());
        }
    };
    let context = operator();
    let first = house.freehold.analytics().run(&context, Some(&only_slow), options, &told);
    let others = async {
        has_begun.await.unwrap();
        let refused = house.run(false).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        house.freehold.analytics().run_due(&context, options).await.unwrap()
    };
    let (first, due) = tokio::join!(first, others);
    assert_eq!(first.unwrap().len(), 1);
    let names: Vec<_> = due.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["changes"]);
    // Both have run; nothing is due.
    assert!(house.freehold.analytics().run_due(&context, options).await.unwrap().is_empty());
}

/// Ends a run's connections while it collects: first the one that reads, then the one that writes, then the
/// one that holds its lock.
#[tokio::test]
async fn a_run_that_breaks_off_publishes_nothing_and_the_next_is_whole() {
    let slow =
        TOTALS.replace("sum(cents)", "sum(cents + coalesce(length(pg_sleep(0.2)::text), 0))");
    let house = shop(&[&slow]).await;
    let mut tenants = Vec::new();
    for number in 0..6 {
        tenants.push(house.tenant(&format!("tenant-{number}")).await);
        house.sell(&tenants[number], "2026-01-01", 1).await;
    }
    house.collect().await;
    let before = (house.fleet("totals").await, house.publication("totals").await);
    for tenant in &tenants {
        house.sell(tenant, "2026-01-01", 10).await;
    }
    let options = AnalyticsOptions { connections: 1, ..AnalyticsOptions::default() };
    for ended in [
        "query LIKE '%pg_sleep%'",
        "query LIKE '%INTO freehold.analytics_collection%'",
        "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 72374652)",
    ] {
        let context = operator();
        let run = house.freehold.analytics().run(&context, None, options, &|_, _| {});
        let (run, ()) = tokio::join!(run, async {
            let reading = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
            let superuser = house.superuser().await;
            wait_until("it reads", LIMIT, async || {
                superuser.query_one(reading, &[]).await.unwrap().get::<_, i64>(0) > 0
            })
            .await;
            assert!(end_sessions(&house, ended).await > 0, "{ended}");
        });
        run.unwrap_err();
        let now = (house.fleet("totals").await, house.publication("totals").await);
        assert_eq!(now, before, "after the end of {ended}");
    }
    // It is due at once, for it did not end.
    let runs = house.freehold.analytics().run_due(&operator(), options).await.unwrap();
    assert_eq!(runs.len(), 1);
    assert_eq!(house.fleet("totals").await[0]["cents"], 66);
    assert!(house.publication("totals").await.is_complete());
}

/// The fence: a leader that was wrongly considered dead writes and publishes nothing any more.
#[tokio::test]
async fn whoever_was_overtaken_neither_writes_nor_publishes() {
    let slow = TOTALS.replace("sum(cents)", "sum(cents + coalesce(length(pg_sleep(1)::text), 0))");
    let house = shop(&[&slow]).await;
    let acme = house.tenant("acme").await;
    house.sell(&acme, "2026-01-01", 1).await;
    let overtake = async {
        let superuser = house.superuser().await;
        wait_until("it has begun", LIMIT, async || {
            let token = "UPDATE freehold.analytics_run SET token = gen_random_uuid() WHERE token IS NOT NULL";
            superuser.execute(token, &[]).await.unwrap() == 1
        })
        .await;
    };
    let (run, ()) = tokio::join!(house.run(false), overtake);
    let refused = run.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(house.fleet("totals").await, json!([]));
    assert_eq!(house.own(&acme, "totals").await, json!([]));
}

/// Rows and their coverage are of one moment, even for concurrent readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_beside_a_refresh_never_see_half() {
    let house = Arc::new(shop(&[TOTALS]).await);
    let mut tenants = Vec::new();
    for number in 0..4 {
        tenants.push(house.tenant(&format!("tenant-{number}")).await);
        house.sell(&tenants[number], "2026-01-01", 1).await;
        house.sell(&tenants[number], "2026-01-02", 1).await;
    }
    house.collect().await;
    let stop = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (house, stop) = (Arc::clone(&house), Arc::clone(&stop));
        async move {
            let mut seen = std::collections::BTreeMap::new();
            while !stop.load(Ordering::Relaxed) {
                let query = AnalyticsQuery::default();
                let page = house
                    .freehold
                    .analytics()
                    .read(&operator(), "totals", AnalyticsScope::Fleet, &query)
                    .await
                    .unwrap();
                let rows = rows(&page);
                // Each round sells as much on both days in every tenant.
                assert_eq!(rows[0]["cents"], rows[1]["cents"], "half: {rows}");
                assert_eq!(rows[0]["tenants"], 4);
                let published = page.publication.unwrap();
                let known = seen.entry(published.as_of).or_insert_with(|| rows.clone());
                assert_eq!(*known, rows, "other figures of the same time");
            }
            seen.len()
        }
    });
    for round in 0..6 {
        for tenant in &tenants {
            let sql = format!(
                "INSERT INTO sales (day, cents) VALUES ('2026-01-01', {round}), ('2026-01-02', {round})"
            );
            house.freehold.query(tenant, &sql, &[]).await.unwrap();
        }
        house.collect().await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.await.unwrap() > 1, "nothing was published while somebody read");
}
