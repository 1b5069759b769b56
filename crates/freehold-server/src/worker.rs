//! Scheduled work. Every server has a worker, and one of them does the work: the one whose connection holds
//! the leader's lock. The work takes no input and may be done twice.

use std::time::Duration;

use freehold::control::analytics::AnalyticsStatus;
use freehold::jiff::Timestamp;
use freehold::{
    AnalyticsOptions, AnalyticsRun, BackgroundTask, Error, ErrorKind, Freehold, OperatorContext,
    Trouble,
};
use tokio::time::MissedTickBehavior;

use crate::config::WorkerSettings;

/// How often the leader checks what is due.
const TICK: Duration = Duration::from_secs(1);
/// The pause after a connection was lost.
const PAUSE: Duration = Duration::from_secs(1);
const LEADS_NOT: &str = "this server does no scheduled work: it cannot lead, or not any more";
/// How often what has expired is deleted.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// How many ticks pass between updates of the gauges; the age that they report grows in between.
const READ_EVERY: u32 = 5;

/// Runs until it is dropped.
pub(crate) struct Worker(#[expect(dead_code, reason = "dropped with it")] Vec<BackgroundTask>);

impl Worker {
    pub(crate) fn start(freehold: Freehold, settings: &WorkerSettings) -> Worker {
        let tasks = freehold.tasks();
        let (watched, pruned) = (freehold.clone(), freehold.clone());
        let mut running = vec![
            tasks.spawn("worker_metrics", move || observe(watched.clone())),
            tasks.spawn("pruning", move || prune(pruned.clone())),
        ];
        if settings.worker {
            let options = settings.analytics.options();
            let sizes_every = Duration::from_secs(settings.sizes_every_secs);
            let (measured, worked) = (freehold.clone(), freehold.clone());
            let measure = move || measure(measured.clone(), sizes_every);
            running.push(tasks.spawn("size_measurement", measure));
            running.push(tasks.spawn("worker", move || work(worked.clone(), options)));
        }
        Worker(running)
    }
}

async fn work(freehold: Freehold, options: AnalyticsOptions) {
    let leads = metrics::gauge!("freehold_worker_leads");
    let trouble = Trouble::default();
    loop {
        leads.set(0);
        let outcome = freehold
            .lead(async {
                leads.set(1);
                trouble.note::<_, Error>(&Ok(()), LEADS_NOT);
                tracing::info!("this server does the scheduled work");
                keep_schedule(&freehold, options).await
            })
            .await;
        leads.set(0);
        match outcome {
            Err(error) if error.kind() == ErrorKind::Setup => {
                tracing::info!(why = error.message(), "no scheduled work on this server");
                return;
            }
            lost => trouble.note(&lost, LEADS_NOT),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Starts what is due, for ever. A failure belongs to the run; the next tick tries again.
async fn keep_schedule(
    freehold: &Freehold,
    options: AnalyticsOptions,
) -> Result<std::convert::Infallible, Error> {
    let context = OperatorContext::system("scheduled analytics");
    let options = AnalyticsOptions { changed_only: true, ..options };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let trouble = Trouble::default();
    loop {
        ticks.tick().await;
        let ran = freehold.analytics().run_due(&context, options).await;
        trouble.note(&ran, "analytics could not be run; what was published stays");
        match ran {
            Ok(runs) => runs.iter().for_each(report),
            Err(_) => {
                metrics::counter!("freehold_analytics_runs_total", "outcome" => "failed")
                    .increment(1);
            }
        }
    }
}

fn report(run: &AnalyticsRun) {
    metrics::counter!("freehold_analytics_runs_total", "outcome" => "published").increment(1);
    tracing::info!(
        name = run.name,
        collected = run.collected,
        unchanged = run.unchanged,
        failed = run.failed,
        ms = run.collect_ms + run.publish_ms,
        "analytics published"
    );
    for failure in &run.failures {
        tracing::warn!(
            name = run.name,
            tenant = failure.tenant,
            error = failure.error,
            "a tenant could not be collected; its figures are as old as they were"
        );
    }
}

/// Measures tenants if no server has done so for long enough. No leader is needed: the other servers notice
/// the first one that begins, and measuring twice does no harm.
async fn measure(freehold: Freehold, every: Duration) {
    let context = OperatorContext::system("measure tenants");
    let look_every =
        scattered((every / 20).clamp(Duration::from_millis(200), Duration::from_secs(60)));
    let trouble = Trouble::default();
    loop {
        tokio::time::sleep(look_every).await;
        let outcome = async {
            let last = freehold.sizes().fleet_growth(&context).await?.measured_at;
            let age = last.map(|at| Timestamp::now().duration_since(at).as_secs_f64());
            if age.is_none_or(|age| age >= every.as_secs_f64()) {
                let passed_over = freehold.sizes().measure(&context).await?;
                if passed_over > 0 {
                    tracing::info!(passed_over, "some tenants are measured the next time");
                }
            }
            Ok::<_, Error>(())
        };
        trouble.note(&outcome.await, "tenants cannot be measured");
    }
}

/// Deletes what has expired: sessions, tokens, guesses, messages, and old entries of the record.
async fn prune(freehold: Freehold) {
    let every = scattered(PRUNE_EVERY);
    loop {
        tokio::time::sleep(every).await;
        if let Err(error) = freehold.people().prune().await {
            tracing::warn!(%error, "what has ended cannot be forgotten");
        }
    }
}

/// Up to 1.5 times as long, so that servers do not work at the same moment.
fn scattered(every: Duration) -> Duration {
    every.mul_f64(1.0 + f64::from(std::process::id() % 100) / 200.0)
}

/// Reports the fleet to Prometheus: its size and growth, and the progress of migrations.
async fn record_fleet(freehold: &Freehold, context: &OperatorContext) {
    if let Ok(fleet) = freehold.sizes().fleet_growth(context).await
        && let Some(at) = fleet.measured_at
    {
        let gauge = |name: &'static str, value: f64| metrics::gauge!(name).set(value);
        gauge("freehold_sizes_age_seconds", Timestamp::now().duration_since(at).as_secs_f64());
        gauge("freehold_fleet_bytes", fleet.bytes as f64);
        gauge("freehold_fleet_growth_bytes_per_day", fleet.bytes_per_day);
        gauge("freehold_fleet_forecast_bytes", fleet.bytes as f64 + 30.0 * fleet.bytes_per_day);
        gauge("freehold_tenant_growth_bytes_per_day_max", fleet.fastest_bytes_per_day);
    }
    if let Ok(status) = freehold.migrations().status().await {
        let behind: i64 = status
            .tenants
            .iter()
            .filter(|(version, _)| *version < status.version)
            .map(|(_, tenants)| tenants)
            .sum();
        metrics::gauge!("freehold_migration_tenants_behind").set(behind as f64);
        metrics::gauge!("freehold_migration_tenants_failed").set(status.failed.len() as f64);
    }
}

/// Reports age and coverage to Prometheus on every server, since the leader may change.
async fn observe(freehold: Freehold) {
    let context = OperatorContext::system("metrics of the fleet");
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Vec::new();
    let mut tick = 0;
    loop {
        ticks.tick().await;
        if tick % READ_EVERY == 0 {
            if let Ok(list) = freehold.analytics().list(&context).await {
                known = list;
            }
            record_fleet(&freehold, &context).await;
        }
        tick = tick.wrapping_add(1);
        let now = Timestamp::now();
        known.iter().for_each(|status| tell(status, now));
    }
}

fn tell(status: &AnalyticsStatus, now: Timestamp) {
    let Some(published) = &status.publication else { return };
    let name = status.outline.name.clone();
    let age = |of: Timestamp| now.duration_since(of).as_secs_f64().max(0.0);
    metrics::gauge!("freehold_analytics_age_seconds", "name" => name.clone())
        .set(age(published.as_of));
    if let Some(oldest) = published.oldest_as_of {
        metrics::gauge!("freehold_analytics_oldest_age_seconds", "name" => name.clone())
            .set(age(oldest));
    }
    metrics::gauge!("freehold_analytics_coverage_ratio", "name" => name).set(published.coverage());
}
