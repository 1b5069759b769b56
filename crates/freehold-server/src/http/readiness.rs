//! Whether this server can serve tenants. The checks run in the background, so any number of probes costs
//! nothing.
//!
//! A fault in the protection of the whole fleet takes a server out at once. A fault in one tenant's schema
//! does not: other tenants do not depend on it, and otherwise a tenant that can cause one could stop every
//! server. Its exposed tables are closed instead (`freehold.isolate_table`). A database that takes no writes
//! takes the server out within two seconds: a failover or a full disk lasts, and another server may have
//! found the new primary. A database that is unavailable does not at once: every server sees the same, and if
//! all went out together at each short outage, none would serve when it is over. So an outage must last for
//! `OUTAGE_SECS`, and a random time up to as long again on each server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use freehold::doctor::CriticalFindings;
use freehold::{BackgroundTask, Error, ErrorKind, Freehold, Tasks, Trouble};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The interval between checks, plus or minus a fifth. At least every second check covers the role, the
/// catalog and whether the database takes writes: so a read-only period is known within two seconds, and its
/// end as well.
const EVERY: Duration = Duration::from_millis(750);
/// If the database takes longer to answer, it counts as unavailable.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long a result over a separate connection is valid: such a check costs the database more than one over
/// the pool.
const SETUP_AGE_MAX: Duration = Duration::from_secs(1);
/// The shortest time between examinations.
const FINDINGS_AGE_MIN: Duration = Duration::from_secs(5);
/// The whole fleet is examined, so a large one is examined less often: findings are valid for this many times
/// the duration of the examination.
const FINDINGS_AGE_FACTOR: u32 = 20;
/// No request waits for it, but it must end.
const EXAMINATION_MAX: Duration = Duration::from_secs(300);
/// A pool without a free connection is busy rather than broken. If none has become free for this long
/// although the database answers, something holds them all.
const POOL_STUCK_MAX: Duration = Duration::from_secs(30);
/// How long a probe waits for the first check.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(2);

/// The name of the background task.
const TASK: &str = "readiness";

/// The answer to a probe.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Ready,
    /// The reason, which names no tenant.
    NotReady(Arc<str>),
}

pub(super) struct Readiness {
    verdict: watch::Receiver<Option<Verdict>>,
    draining: AtomicBool,
    tasks: Tasks,
    _task: BackgroundTask,
}

impl Readiness {
    /// `patience` is how long the database may be unavailable; each server adds a random time up to as long
    /// again.
    pub(super) fn watch(freehold: Freehold, patience: Duration) -> Readiness {
        let (told, verdict) = watch::channel(None);
        let tasks = freehold.tasks().clone();
        let watch = move || {
            // Earlier results say nothing about the present.
            told.send_replace(None);
            Watcher::new(freehold.clone(), patience).watch(told.clone())
        };
        let _task = tasks.spawn(TASK, watch);
        Readiness { verdict, draining: AtomicBool::new(false), tasks, _task }
    }

    pub(super) async fn verdict(&self) -> Verdict {
        if self.is_draining() {
            return Verdict::NotReady("this server is stopping".into());
        }
        if self.tasks.list().iter().any(|task| task.name == TASK && task.is_down) {
            return Verdict::NotReady(
                "nobody looks: the task that does has panicked, the log tells why".into(),
            );
        }
        let mut verdict = self.verdict.clone();
        let first = verdict.wait_for(Option::is_some);
        let known = match tokio::time::timeout(FIRST_LOOK_MAX, first).await {
            Ok(Ok(verdict)) => verdict.clone(),
            _ => None,
        };
        known.unwrap_or_else(|| Verdict::NotReady("the first look is still under way".into()))
    }

    /// Not ready from now on, since the server is about to stop.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        metrics::gauge!("freehold_ready").set(0);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// What a probe is told: any client may ask, and the full reason names roles and tables.
fn told_to_strangers(error: &Error) -> Arc<str> {
    match error.kind() {
        ErrorKind::Setup => {
            "the database is not as this server needs it; the log tells what is wrong".into()
        }
        _ => error.message().into(),
    }
}

struct Watcher {
    freehold: Freehold,
    patience: Duration,
    away: Lasting,
    stuck: Lasting,
    /// When the role, the catalog and writing were last checked, and what is wrong with them.
    setup: Option<(Instant, Result<(), Arc<str>>)>,
    findings: Option<Examined>,
    examination: Option<JoinHandle<Result<Examined, Error>>>,
    /// Failures of examinations.
    trouble: Trouble,
    /// Failures of the role and catalog checks.
    setup_trouble: Trouble,
}

/// The critical findings that are visible to the app role, of the fleet and of single tenants.
struct Examined {
    at: Instant,
    took: Duration,
    findings: CriticalFindings,
    /// The full examination, rather than the quick one.
    is_whole: bool,
}

impl Examined {
    /// Whether a new examination is due.
    fn is_old(&self) -> bool {
        // The fault may have been repaired, so it is examined again soon.
        let factor = if self.findings.fleet.is_empty() { FINDINGS_AGE_FACTOR } else { 0 };
        !self.is_whole || self.at.elapsed() > FINDINGS_AGE_MIN.max(self.took * factor)
    }
}

/// Since when a condition has held in consecutive checks.
#[derive(Default)]
struct Lasting(Option<Instant>);

impl Lasting {
    /// Records the condition, and returns whether it has held for longer than `max`.
    fn outlasts(&mut self, max: Duration, holds: bool) -> bool {
        self.0 = self.0.filter(|_| holds).or_else(|| holds.then(Instant::now));
        self.0.is_some_and(|since| since.elapsed() >= max)
    }
}

impl Watcher {
    fn new(freehold: Freehold, patience: Duration) -> Watcher {
        Watcher {
            freehold,
            patience: drawn_out(patience),
            away: Lasting::default(),
            stuck: Lasting::default(),
            setup: None,
            findings: None,
            examination: None,
            trouble: Trouble::default(),
            setup_trouble: Trouble::default(),
        }
    }

    async fn watch(mut self, told: watch::Sender<Option<Verdict>>) {
        loop {
            let verdict = self.look().await;
            let is_ready = verdict == Verdict::Ready;
            metrics::gauge!("freehold_ready").set(f64::from(u8::from(is_ready)));
            let before = told.send_replace(Some(verdict.clone()));
            match verdict {
                now if before.as_ref() == Some(&now) => {}
                Verdict::Ready => tracing::info!("ready"),
                Verdict::NotReady(why) => tracing::warn!(%why, "not ready"),
            }
            if told.is_closed() {
                return;
            }
            // The first examination is waited for, since a start should be quick.
            match self.examination.as_mut().filter(|_| self.findings.is_none()) {
                Some(first) => {
                    let _ = tokio::time::timeout(EVERY, async {
                        while !first.is_finished() {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    })
                    .await;
                }
                None => tokio::time::sleep(pause(chance())).await,
            }
        }
    }

    async fn look(&mut self) -> Verdict {
        self.keep_examining().await;
        let pool_answers = answers(self.freehold.ping()).await;
        let setup = self.look_at_setup(pool_answers).await;
        let is_away = !pool_answers && setup.is_none();
        let is_gone = self.away.outlasts(self.patience, is_away);
        let is_stuck = self.stuck.outlasts(POOL_STUCK_MAX.max(self.patience), !pool_answers);
        if let Some((_, Err(why))) = &self.setup {
            return Verdict::NotReady(Arc::clone(why));
        }
        if is_gone {
            return Verdict::NotReady("the database does not answer".into());
        }
        if is_stuck {
            return Verdict::NotReady("no connection of the pool comes free".into());
        }
        match &self.findings {
            None => Verdict::NotReady("the first examination of the fleet is still under way".into()),
            Some(examined) if examined.findings.fleet.is_empty() => Verdict::Ready,
            Some(_) => Verdict::NotReady(
                "something critical is wrong with the protection of tenants; the log names it, and `freehold doctor` says what to do".into(),
            ),
        }
    }

    /// Whether the database could be queried about itself, now or a moment ago: `None` if it is unavailable.
    async fn look_at_setup(&mut self, pool_answers: bool) -> Option<()> {
        let is_fresh = |(at, _): &(Instant, _)| at.elapsed() < SETUP_AGE_MAX;
        if pool_answers && self.setup.as_ref().is_some_and(is_fresh) {
            return Some(());
        }
        let outcome = tokio::time::timeout(ANSWER_MAX, self.freehold.check()).await;
        let outcome = match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if !is_passing(&error) => Err(error),
            // The state is unknown.
            Ok(Err(_)) | Err(_) => return None,
        };
        self.setup_trouble.note(&outcome, "the database is not as this server needs it");
        let outcome = outcome.map_err(|error| told_to_strangers(&error));
        self.setup = Some((Instant::now(), outcome));
        Some(())
    }

    /// An examination takes seconds for a large fleet, so it runs in the background, and its findings are
    /// valid until there are new ones.
    async fn keep_examining(&mut self) {
        if let Some(done) = self.examination.take_if(|task| task.is_finished()) {
            match done.await {
                Ok(outcome) => self.take_findings(outcome),
                Err(error) => tracing::error!(%error, "the examination ended without findings"),
            }
        }
        let is_due = self.findings.as_ref().is_none_or(Examined::is_old);
        if is_due && self.examination.is_none() {
            let freehold = self.freehold.clone();
            self.examination = Some(match &self.findings {
                None => tokio::spawn(look_quickly(freehold)),
                Some(_) => tokio::spawn(examine(freehold)),
            });
        }
    }

    fn take_findings(&mut self, outcome: Result<Examined, Error>) {
        self.trouble.note(&outcome, "the fleet could not be examined");
        let Ok(examined) = outcome else { return };
        let CriticalFindings { fleet, tenants, tenant_objects, .. } = &examined.findings;
        if !fleet.is_empty() {
            tracing::error!(findings = ?fleet, "tenants are not kept apart as they must be");
        }
        metrics::gauge!("freehold_tenant_findings").set(*tenant_objects as f64);
        let told = self.findings.as_ref().is_some_and(|last| last.findings.tenants == *tenants);
        if !tenants.is_empty() && !told {
            tracing::error!(findings = ?tenants, "single tenants are not protected as they must be; the others are served");
        }
        self.findings = Some(examined);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(examination) = &self.examination {
            examination.abort();
        }
    }
}

/// Whether the tables of the fleet have row-level security and a policy: a start waits for this check. It
/// takes a tenth of a second for 2,000 tenants, and the full examination, which follows at once, ten times as
/// long.
async fn look_quickly(freehold: Freehold) -> Result<Examined, Error> {
    let began = Instant::now();
    let findings = freehold.protection().examine_tables().await?;
    Ok(Examined { at: Instant::now(), took: began.elapsed(), findings, is_whole: false })
}

async fn examine(freehold: Freehold) -> Result<Examined, Error> {
    let began = Instant::now();
    let late = || Error::new(ErrorKind::Timeout, "the examination took too long");
    let examined =
        tokio::time::timeout(EXAMINATION_MAX, freehold.protection().examine_critical()).await;
    let findings = examined.map_err(|_| late())??;
    if !findings.open_tables.is_empty() {
        // Ready or not, other tenants must not reach them meanwhile.
        match freehold.protection().isolate(&findings.open_tables).await {
            Ok(tables) if tables.is_empty() => {}
            Ok(tables) => {
                tracing::warn!(?tables, "kept tables that were not protected from other tenants");
            }
            Err(error) => {
                tracing::error!(%error, "a table that is not protected cannot be kept from other tenants");
            }
        }
    }
    Ok(Examined { at: Instant::now(), took: began.elapsed(), findings, is_whole: true })
}

async fn answers(question: impl Future<Output = freehold::Result<()>>) -> bool {
    matches!(tokio::time::timeout(ANSWER_MAX, question).await, Ok(Ok(())))
}

/// An error that says nothing about the database: it may be gone in a moment.
fn is_passing(error: &Error) -> bool {
    error.kind() != ErrorKind::Setup && !error.is_read_only()
}

/// The pause between two checks.
fn pause(chance: f64) -> Duration {
    EVERY.mul_f64(0.8 + 0.4 * chance)
}

/// Up to twice as long, at random on each server.
fn drawn_out(patience: Duration) -> Duration {
    patience.mul_f64(1.0 + chance())
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without random numbers the servers act at the same time, which is the only effect.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With any random numbers, every second check uses a separate connection.
    #[test]
    fn a_read_only_spell_and_its_end_are_looked_for_every_two_seconds() {
        assert!(2 * pause(1.0) < Duration::from_secs(2));
        assert!(2 * pause(0.0) > SETUP_AGE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_counts_once_it_has_lasted_and_a_blink_not() {
        let (mut away, patience) = (Lasting::default(), Duration::from_secs(5));
        for _ in 0..3 {
            assert!(!away.outlasts(patience, true));
            tokio::time::advance(patience - Duration::from_millis(1)).await;
            assert!(!away.outlasts(patience, true), "it was back in between");
            assert!(!away.outlasts(patience, false));
        }
        assert!(!away.outlasts(patience, true));
        tokio::time::advance(patience).await;
        assert!(away.outlasts(patience, true));
        assert!(!away.outlasts(patience, false), "it is back");
    }

    #[tokio::test(start_paused = true)]
    async fn findings_stand_for_seconds_or_for_many_times_what_they_took() {
        let examined = |took, fleet: &[&str]| Examined {
            at: Instant::now(),
            took,
            findings: CriticalFindings {
                fleet: fleet.iter().map(|&text| text.to_owned()).collect(),
                ..CriticalFindings::default()
            },
            is_whole: true,
        };
        let (quick, slow) = (Duration::from_millis(20), Duration::from_secs(3));
        let (small, large, broken) =
            (examined(quick, &[]), examined(slow, &[]), examined(slow, &["open"]));
        assert!(Examined { is_whole: false, ..examined(quick, &[]) }.is_old(), "only a first look");
        tokio::time::advance(FINDINGS_AGE_MIN).await;
        assert_eq!([&small, &large, &broken].map(Examined::is_old), [false; 3]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!([&small, &large, &broken].map(Examined::is_old), [true, false, true]);
        tokio::time::advance(slow * FINDINGS_AGE_FACTOR).await;
        assert!(large.is_old());
    }

    #[test]
    fn servers_that_see_the_same_outage_do_not_all_go_out_at_once() {
        let patience = Duration::from_secs(5);
        let mut all: Vec<_> = (0..20).map(|_| drawn_out(patience)).collect();
        all.sort();
        assert!(all[0] >= patience && all[19] <= 2 * patience, "{all:?}");
        // It is practically impossible that twenty values are within a second.
        assert!(all[19] - all[0] > Duration::from_secs(1), "{all:?}");
    }
}
