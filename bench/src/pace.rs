//! Requests at a fixed rate: each is sent when it is due, whether or not the previous one was answered.
//! Latencies count from that time, so a stall shows in all requests that it delays.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Result;
use crate::client::HttpConnection;
use crate::report::{Latency, Ratio, Row};
use crate::rounds::{latency, median};

/// The most concurrent requests; further ones wait in the load generator, and their wait counts.
const UNDER_WAY_MAX: usize = 64;
/// The most latencies that are kept of a slice: those of a minute at the rates of a large machine.
const KEPT_MAX: usize = 4_000_000;

/// The requests sent at a fixed rate for some time.
pub(crate) struct Slice {
    pub(crate) rate: f64,
    pub(crate) latencies: Vec<Duration>,
    summary: Option<Latency>,
}

impl Slice {
    pub(crate) fn p50_ms(&self) -> f64 {
        self.summary.map_or(f64::NAN, |latency| latency.p50_ms)
    }

    pub(crate) fn p99_ms(&self) -> f64 {
        self.summary.map_or(f64::NAN, |latency| latency.p99_ms)
    }
}

/// The requests sent in all of these slices.
pub(crate) fn summed(case: &str, slices: &[Slice]) -> Row {
    let rate = median(slices.iter().map(|slice| slice.rate).collect());
    let latencies = slices.iter().flat_map(|slice| &slice.latencies).copied().collect();
    Row { latency: latency(latencies), ..Row::of(case, rate, "/s") }
}

/// A figure in milliseconds, beside that of slices that alternated with these: the medians of the rounds, and
/// of their ratios.
pub(crate) fn compared(
    case: &str,
    figure: fn(&Slice) -> f64,
    slices: &[Slice],
    (to, floor): (&str, &[Slice]),
) -> Row {
    let ratios = slices.iter().zip(floor).map(|(own, floor)| figure(own) / figure(floor));
    let ratio = Ratio { value: median(ratios.collect()), to: to.to_owned() };
    let own = median(slices.iter().map(figure).collect());
    Row { ratio: Some(ratio), ..Row::of(case, own, "ms") }
}

/// Sends pages for one tenant after another, each when it is due.
pub(crate) struct FixedRate {
    pages: Arc<Vec<String>>,
    idle: Mutex<Vec<HttpConnection>>,
    /// As many as there are connections; waiting requests are served in the order in which they were due.
    places: Semaphore,
    outcomes: Mutex<Vec<Result<Duration>>>,
}

impl FixedRate {
    pub(crate) async fn open(address: SocketAddr, pages: Arc<Vec<String>>) -> Result<FixedRate> {
        let mut idle = Vec::new();
        for _ in 0..UNDER_WAY_MAX {
            idle.push(HttpConnection::open(address).await?);
        }
        Ok(FixedRate {
            pages,
            idle: Mutex::new(idle),
            places: Semaphore::new(UNDER_WAY_MAX),
            outcomes: Mutex::default(),
        })
    }

    /// Returns when all requests are answered.
    pub(crate) async fn send(self: &Arc<Self>, rate: f64, time: Duration) -> Result<Slice> {
        let count = ((time.as_secs_f64() * rate) as usize).min(KEPT_MAX);
        let began = Instant::now();
        let (load, runtime) = (Arc::clone(self), Handle::current());
        // A thread of its own, because the runtime's timers have a resolution of a millisecond, and because
        // the runtime may be what is late.
        let pace = std::thread::spawn(move || {
            let mut sent = JoinSet::new();
            for number in 0..count {
                let due = began + Duration::from_secs_f64(number as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                sent.spawn_on(Arc::clone(&load).one(number, due), &runtime);
                while sent.try_join_next().is_some() {}
            }
            sent
        });
        let sent = tokio::task::spawn_blocking(move || pace.join());
        let sent = sent.await?.map_err(|_| "the thread that keeps the pace panicked")?;
        sent.join_all().await;
        let outcomes = std::mem::take(&mut *locked(&self.outcomes));
        let latencies = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
        let rate = latencies.len() as f64 / began.elapsed().as_secs_f64();
        let summary = latency(latencies.clone());
        Ok(Slice { rate, latencies, summary })
    }

    async fn one(self: Arc<Self>, number: usize, due: Instant) {
        let outcome = self.ask(number).await.map(|()| due.elapsed());
        locked(&self.outcomes).push(outcome);
    }

    async fn ask(&self, number: usize) -> Result<()> {
        let _place = self.places.acquire().await?;
        let mut connection = locked(&self.idle).pop().ok_or("fewer connections than places")?;
        // A failure ends the benchmark, so its connection need not be returned.
        connection.send(&self.pages[number % self.pages.len()]).await?;
        locked(&self.idle).push(connection);
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
