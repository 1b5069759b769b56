//! The order in which a run migrates the fleet, and what makes it stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use freehold::{ErrorKind, MigrateOptions, MigrateReport, OperatorContext, TenantContext};
use tokio::sync::Notify;

use crate::support::{House, house, notes_and, operator, wait_until};

const HOURS: Duration = Duration::from_secs(36_000);

async fn tenants(house: &House, count: usize) -> Vec<TenantContext> {
    let mut tenants = Vec::new();
    for number in 0..count {
        tenants.push(house.tenant(&format!("tenant-{number}")).await);
    }
    tenants
}

fn one_by_one() -> MigrateOptions {
    MigrateOptions { parallel: 1, ..MigrateOptions::default() }
}

async fn migrate(
    house: &House,
    options: MigrateOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> freehold::Result<MigrateReport> {
    let baseline = notes_and(&["ALTER TABLE notes ADD UNIQUE (body)"]);
    house.freehold.migrations().up(&operator(), &baseline, options, progress).await
}

/// Makes the migration fail in a tenant.
async fn spoil(house: &House, tenant: &TenantContext) {
    house.script(tenant, "INSERT INTO notes (body) VALUES ('x'), ('x')").await;
}

async fn versions(house: &House) -> Vec<(i64, i64)> {
    house.freehold.migrations().status().await.unwrap().tenants
}

#[tokio::test]
async fn a_canary_that_fails_stops_the_run_before_all_others() {
    let house = house().await;
    let tenants = tenants(&house, 5).await;
    spoil(&house, &tenants[3]).await;
    let canaries = vec![tenants[3].tenant(), tenants[4].tenant()];
    let options = MigrateOptions { canaries, ..one_by_one() };
    let report = migrate(&house, options.clone(), &|_, _| {}).await.unwrap();
    assert_eq!(report.stopped.as_deref(), Some("a canary has failed"));
    assert_eq!((report.migrated, report.failed.len(), report.left), (0, 1, 4));
    assert_eq!(report.failed[0].tenant, "tenant-3");
    assert_eq!(versions(&house).await, [(1, 5)]);

    house.script(&tenants[3], "DELETE FROM notes").await;
    let report = migrate(&house, options, &|_, _| {}).await.unwrap();
    assert_eq!((report.migrated, report.stopped, report.left), (5, None, 0));
}

#[tokio::test]
async fn a_run_stops_once_so_many_tenants_have_failed() {
    let house = house().await;
    for tenant in &tenants(&house, 6).await[1..] {
        spoil(&house, tenant).await;
    }
    let options = MigrateOptions { failures_max: 2, ..one_by_one() };
    let report = migrate(&house, options, &|_, _| {}).await.unwrap();
    assert_eq!(report.stopped.as_deref(), Some("2 tenants have failed"));
    assert_eq!((report.migrated, report.failed.len(), report.left), (1, 2, 3));
    // What is below the limit does not stop it.
    let options = MigrateOptions { failures_max: 6, ..one_by_one() };
    let report = migrate(&house, options, &|_, _| {}).await.unwrap();
    assert_eq!((report.stopped, report.failed.len(), report.left), (None, 5, 0));
}

#[tokio::test]
async fn a_pause_ends_the_run_between_waves_and_no_other_begins_until_it_is_over() {
    let house = house().await;
    tenants(&house, 4).await;
    let (migrations, done) = (house.freehold.migrations(), Notify::new());
    let waves = MigrateOptions { waves: vec![25], between_waves: HOURS, ..one_by_one() };
    let progress = |_, _| done.notify_one();
    let pausing = async {
        done.notified().await;
        let why = OperatorContext::system("a test").because("customers complain").unwrap();
        assert!(migrations.pause(&why).await.unwrap());
        assert!(!migrations.pause(&why).await.unwrap(), "paused already");
    };
    let (report, ()) = tokio::join!(migrate(&house, waves, &progress), pausing);
    let report = report.unwrap();
    assert_eq!((report.migrated, report.left), (1, 3));
    let reason = report.stopped.unwrap();
    assert!(
        reason.starts_with("paused since ") && reason.ends_with("customers complain"),
        "{reason}"
    );

    let refused = migrate(&house, one_by_one(), &|_, _| {}).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.message().contains("customers complain"), "{refused}");
    let paused = migrations.status().await.unwrap().paused.unwrap();
    assert_eq!(paused.why, "customers complain");
    assert!(migrations.resume(&operator()).await.unwrap());
    assert!(!migrations.resume(&operator()).await.unwrap(), "not paused any more");
    assert!(migrations.status().await.unwrap().paused.is_none());
    let report = migrate(&house, one_by_one(), &|_, _| {}).await.unwrap();
    assert_eq!((report.migrated, report.stopped), (3, None));
}

#[tokio::test]
async fn a_tenant_whose_tables_are_locked_is_tried_again_after_the_others() {
    let house = house().await;
    let tenants = tenants(&house, 3).await;
    let holder = house.superuser().await;
    let lock = format!("BEGIN; LOCK TABLE {}.notes", tenants[0].tenant().schema());
    holder.batch_execute(&lock).await.unwrap();
    let options = MigrateOptions {
        lock_timeout: Duration::from_millis(50),
        lock_attempts: 1000,
        ..one_by_one()
    };
    let (others, two) = (Arc::new(AtomicUsize::new(0)), Notify::new());
    let progress = |_, _| {
        if others.fetch_add(1, Ordering::Relaxed) == 1 {
            two.notify_one();
        }
    };
    let releasing = async {
        two.notified().await;
        assert_eq!(versions(&house).await, [(1, 1), (2, 2)]);
        holder.batch_execute("ROLLBACK").await.unwrap();
    };
    let (report, ()) = tokio::join!(migrate(&house, options, &progress), releasing);
    let report = report.unwrap();
    assert_eq!((report.migrated, report.failed.len(), report.stopped), (3, 0, None));
}

#[tokio::test]
async fn a_pause_is_seen_while_all_tables_are_locked() {
    let house = house().await;
    let tenants = tenants(&house, 2).await;
    let holder = house.superuser().await;
    for tenant in &tenants {
        let lock = format!("BEGIN; LOCK TABLE {}.notes", tenant.tenant().schema());
        holder.batch_execute(&lock).await.unwrap();
    }
    let options = MigrateOptions {
        lock_timeout: Duration::from_millis(50),
        lock_attempts: u32::MAX,
        ..one_by_one()
    };
    let migrations = house.freehold.migrations();
    let pausing = async {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
        let other = house.superuser().await;
        wait_until("a statement waits for a lock", Duration::from_secs(60), async || {
            other.query_one(waits, &[]).await.unwrap().get(0)
        })
        .await;
        migrations.pause(&operator()).await.unwrap();
    };
    let (report, ()) = tokio::join!(migrate(&house, options, &|_, _| {}), pausing);
    let report = report.unwrap();
    assert!(report.stopped.unwrap().starts_with("paused since"));
    let failed: Vec<_> = report.failed.iter().map(|failed| failed.error.as_str()).collect();
    assert!(
        failed.len() == 2 && failed.iter().all(|error| error.contains("lock timeout")),
        "{failed:?}"
    );
}
