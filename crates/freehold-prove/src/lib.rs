//! `freehold-prove`: an adversarial load on a running system, in which every answer is checked against the
//! tenant that asked. `docs/prove.md` describes what it does and what it shows.
//!
//! [`Ground::prepare`] creates tenants whose rows name their owner, and starts services over them. [`run`]
//! lets workers send requests, over HTTP and by the library, while `chaos` ends sessions, cancels queries,
//! suspends tenants, changes roles and migrates. Then `audit` reads every table of every tenant. The outcome
//! is a [`Report`].
//!
//! The tests run the same engine on a sound system and on systems that they broke.

mod attacks;
mod audit;
mod canary;
mod chaos;
mod dice;
mod drops;
mod gate;
mod ground;
mod inject;
mod injections;
mod ledger;
mod markdown;
mod mint;
mod mix;
mod poison;
mod reads;
mod report;
mod session;
mod tally;
mod wire;
mod worker;
mod writes;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use canary::Mark;
pub use ground::{BaselineCode, Conditions, Ground, Resident, System, baseline};
pub use report::{Ended, Report};
pub use tally::Attempts;

use tally::{Findings, Tally};
use worker::Worker;

/// Why a proof could not be made, in a sentence.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The size of a run.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// The run ends after this many operations,
    pub operations: u64,
    /// or after this many seconds, whichever comes first.
    pub seconds: u64,
    /// All random choices follow from it.
    pub seed: u64,
    /// Tenants, at least two.
    pub tenants: usize,
    /// Workers; each does one operation at a time.
    pub workers: usize,
    /// Milliseconds between two disturbances of sessions.
    pub disturb_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            operations: 100_000,
            seconds: 600,
            seed: 1,
            tenants: 12,
            workers: 16,
            disturb_ms: 200,
        }
    }
}

/// The progress of a run.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Operations begun.
    pub operations: u64,
    /// How many of them were dropped before their answer came.
    pub cancellations: u64,
    /// Leaks found so far.
    pub leaks: u64,
}

/// The state that workers and chaos share.
struct Run {
    ground: Ground,
    settings: Settings,
    /// Operations handed out.
    taken: AtomicU64,
    cancelled: AtomicU64,
    stopped: AtomicBool,
    findings: Findings,
}

impl Run {
    /// The next operation's number; `None` when the run is over.
    fn take(&self) -> Option<u64> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        (number < self.settings.operations).then_some(number)
    }

    fn operations(&self) -> u64 {
        self.taken.load(Ordering::Relaxed).min(self.settings.operations)
    }

    fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.operations() >= self.settings.operations
    }

    /// Waits, but not beyond the end of the run.
    async fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_over() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            tokio::time::sleep(left.min(Duration::from_millis(20))).await;
        }
    }
}

/// Runs to the end, or until `interrupted` completes; then reads every table of every tenant.
///
/// # Errors
/// If the observer's connection is lost. Faults of the system are in the report.
pub async fn run(
    ground: Ground,
    settings: Settings,
    interrupted: impl Future<Output = ()>,
    progress: &dyn Fn(Progress),
) -> Result<Report, Failure> {
    let began = (std::time::SystemTime::now(), Instant::now());
    let time_max = Duration::from_secs(settings.seconds);
    let run = Arc::new(Run {
        ground,
        settings,
        taken: AtomicU64::new(0),
        cancelled: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        findings: Findings::default(),
    });
    let chaos = chaos::start(&run);
    let workers: Vec<_> = (0..run.settings.workers)
        .map(|number| tokio::spawn(Worker::new(Arc::clone(&run), number).work()))
        .collect();

    let ended = watch(&run, began.1 + time_max, interrupted, progress).await;
    run.stopped.store(true, Ordering::Relaxed);
    let mut tally = Tally::default();
    let mut books = Vec::new();
    for worker in workers {
        match worker.await {
            Ok((counts, book)) => {
                tally.add(counts);
                books.push(book);
            }
            Err(error) => run.findings.fault("a worker", &format!("came to a bad end: {error}")),
        }
    }
    let disturbances = chaos.stop().await;
    let mut run = Arc::into_inner(run).ok_or("somebody still holds on to the run")?;
    run.ground.close();
    let audit = audit::read_everything(&run, &books).await?;
    Ok(Report::new(&run, tally, disturbances, audit, ended, began))
}

/// Reports the progress of the run until it is over.
async fn watch(
    run: &Run,
    deadline: Instant,
    interrupted: impl Future<Output = ()>,
    progress: &dyn Fn(Progress),
) -> Ended {
    tokio::pin!(interrupted);
    loop {
        progress(Progress {
            operations: run.operations(),
            cancellations: run.cancelled.load(Ordering::Relaxed),
            leaks: run.findings.leaks_so_far(),
        });
        if run.operations() >= run.settings.operations {
            return Ended::Operations;
        }
        if Instant::now() >= deadline {
            return Ended::Seconds;
        }
        tokio::select! {
            () = &mut interrupted => return Ended::Interrupted,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
}
