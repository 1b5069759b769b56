//! Alternation: every case runs for a short slice, round after round, and a ratio is the median of the
//! rounds' ratios. Other load on the machine then affects all cases alike.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Result;
use crate::report::{Latency, Ratio, Row};

const ROUNDS: usize = 7;

/// The operation to be repeated.
pub(crate) trait Operation: Send + Sync + 'static {
    /// Runs once, as one of the workers, for one of its tenants.
    fn run(&self, worker: usize, tenant: usize) -> impl Future<Output = Result<()>> + Send;
}

/// A closed loop: each worker begins again as soon as it has finished, for a random tenant.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) workers: usize,
    pub(crate) tenants: usize,
}

pub(crate) struct Case<O> {
    pub(crate) name: String,
    /// The name of the case that this one is compared with.
    pub(crate) ratio_to: Option<String>,
    pub(crate) operation: Arc<O>,
    pub(crate) load: Load,
}

struct Slice {
    rate: f64,
    latencies: Vec<Duration>,
}

/// Runs the cases alternately for `seconds` in total.
pub(crate) async fn take_turns<O: Operation>(
    cases: &[Case<O>],
    unit: &'static str,
    seconds: u64,
) -> Result<Vec<Row>> {
    let slice_time = Duration::from_secs(seconds) / (ROUNDS * cases.len()) as u32;
    let mut slices: Vec<Vec<Slice>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        for (case, slices) in cases.iter().zip(&mut slices) {
            slices.push(closed_loop(&case.operation, case.load, slice_time).await?);
        }
    }
    let rates: Vec<Vec<f64>> =
        slices.iter().map(|slices| slices.iter().map(|slice| slice.rate).collect()).collect();
    let rows = cases.iter().zip(slices).zip(&rates).map(|((case, slices), own)| {
        let other = cases.iter().position(|other| Some(&other.name) == case.ratio_to.as_ref());
        let ratio = other.map(|other| Ratio {
            value: median(own.iter().zip(&rates[other]).map(|(own, other)| own / other).collect()),
            to: cases[other].name.clone(),
        });
        Row {
            case: case.name.clone(),
            rate: median(own.clone()),
            unit,
            latency: latency(slices.into_iter().flat_map(|slice| slice.latencies).collect()),
            ratio,
        }
    });
    Ok(rows.collect())
}

async fn closed_loop<O: Operation>(
    operation: &Arc<O>,
    load: Load,
    time: Duration,
) -> Result<Slice> {
    let started = Instant::now();
    let workers: Vec<_> = (0..load.workers)
        .map(|worker| {
            let operation = Arc::clone(operation);
            tokio::spawn(async move {
                let mut chance = Chance::new(worker);
                let mut latencies = Vec::new();
                loop {
                    let began = Instant::now();
                    if began.duration_since(started) >= time {
                        return Ok(latencies);
                    }
                    operation.run(worker, chance.below(load.tenants)).await?;
                    latencies.push(began.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        let outcome: Result<Vec<Duration>> = worker.await?;
        latencies.append(&mut outcome?);
    }
    Ok(Slice { rate: latencies.len() as f64 / started.elapsed().as_secs_f64(), latencies })
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

pub(crate) fn latency(mut latencies: Vec<Duration>) -> Option<Latency> {
    latencies.sort_unstable();
    let last = latencies.len().checked_sub(1)?;
    let at = |share: f64| latencies[(last as f64 * share) as usize].as_secs_f64() * 1e3;
    Some(Latency { p50_ms: at(0.5), p99_ms: at(0.99) })
}

/// Marsaglia's xorshift64: the same tenants in the same order at every run.
struct Chance(u64);

impl Chance {
    fn new(seed: usize) -> Chance {
        Chance(0x9E37_79B9_7F4A_7C15 ^ ((seed as u64 + 1) << 20))
    }

    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % count as u64) as usize
    }
}
