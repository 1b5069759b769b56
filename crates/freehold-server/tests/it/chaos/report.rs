//! The results of a run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::{Event, Verdict};

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) passed: bool,
    pub(super) seconds: u64,
    pub(super) requests: u64,
    #[serde(flatten)]
    pub(super) verdict: Verdict,
    pub(super) wounds: Vec<Wound>,
    /// Faults that could not be injected here, and why.
    pub(super) left_out: Vec<String>,
}

/// The effects of one fault.
#[derive(Serialize)]
pub(super) struct Wound {
    pub(super) injury: &'static str,
    pub(super) requests: u64,
    /// Requests that failed, by kind.
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) slowest_ms: u64,
    /// The longest time without any acknowledged write.
    pub(super) pause_ms: u64,
    /// From the repair to the first acknowledged write that began after it.
    pub(super) first_write_ms: Option<u64>,
    /// From the repair until every client had a write acknowledged.
    pub(super) all_clients_ms: Option<u64>,
    /// The broken guarantees.
    pub(super) missed: Vec<String>,
}

/// The guarantees for a fault.
pub(super) struct Bound {
    pub(super) failed_max: Option<u64>,
    pub(super) first_write_max: Duration,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Wound {
    /// From the requests that ended since the injury, which was made good at `repaired`.
    pub(super) fn of(
        injury: &'static str,
        events: &[Event],
        (began, repaired): (Instant, Instant),
        clients: usize,
        bound: &Bound,
    ) -> Wound {
        let mut failed = BTreeMap::<String, u64>::new();
        for kind in events.iter().filter_map(|event| event.failure.clone()) {
            *failed.entry(kind).or_default() += 1;
        }
        let slowest = events.iter().map(|event| event.ended - event.began).max();
        let mut wound = Wound {
            injury,
            requests: events.len() as u64,
            failed,
            slowest_ms: slowest.map_or(0, ms),
            pause_ms: ms(pause(events, began)),
            first_write_ms: recovered(events, repaired, 1).map(ms),
            all_clients_ms: recovered(events, repaired, clients).map(ms),
            missed: Vec::new(),
        };
        let failures: u64 = wound.failed.values().sum();
        if bound.failed_max.is_some_and(|max| failures > max) {
            wound.missed.push(format!("{failures} requests failed, and none may"));
        }
        let first_max = bound.first_write_max;
        if wound.first_write_ms.is_none_or(|first| first > ms(first_max)) {
            wound.missed.push(format!("no write within {first_max:?}"));
        }
        if wound.all_clients_ms.is_none() {
            wound.missed.push("not every client recovered".to_owned());
        }
        wound
    }
}

/// The longest time without an acknowledged write.
fn pause(events: &[Event], began: Instant) -> Duration {
    let writes = events.iter().filter(|event| event.is_write && event.failure.is_none());
    let (mut last, mut longest) = (began, Duration::ZERO);
    for write in writes {
        longest = longest.max(write.ended.saturating_duration_since(last));
        last = write.ended;
    }
    longest
}

/// How long after `repaired` this many clients had a write acknowledged that they began after it.
pub(super) fn recovered(events: &[Event], repaired: Instant, clients: usize) -> Option<Duration> {
    let mut well = std::collections::BTreeSet::new();
    let writes = events.iter().filter(|event| event.is_write && event.failure.is_none());
    for write in writes.filter(|write| write.began >= repaired) {
        well.insert(write.client);
        if well.len() >= clients {
            return Some(write.ended - repaired);
        }
    }
    None
}

impl Report {
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let verdict = if self.passed { "passed" } else { "FAILED" };
        let Verdict { acknowledged, lost, foreign, samples } = &self.verdict;
        writeln!(out, "# Freehold: faults under load — {verdict}\n")?;
        writeln!(
            out,
            "{} requests in {} s; {acknowledged} writes acknowledged, **{lost} of them lost**, \
             **{foreign} foreign rows**.\n",
            self.requests, self.seconds
        )?;
        writeln!(
            out,
            "| Injury | Requests | Failed, by kind | Slowest | No write for | First write after \
             the repair | All clients after | |\n|---|---:|---|---:|---:|---:|---:|---|"
        )?;
        for wound in &self.wounds {
            let kinds: Vec<_> =
                wound.failed.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
            let kinds = if kinds.is_empty() { "0".to_owned() } else { kinds.join(", ") };
            let missed = wound.missed.join("; ");
            let missed = if missed.is_empty() { "ok" } else { missed.as_str() };
            let Wound { injury, requests, slowest_ms, pause_ms, .. } = wound;
            let after =
                |time: Option<u64>| time.map_or("never".to_owned(), |ms| format!("{ms} ms"));
            writeln!(
                out,
                "| {injury} | {requests} | {kinds} | {slowest_ms} ms | {pause_ms} ms | {} | {} | \
                 {missed} |",
                after(wound.first_write_ms),
                after(wound.all_clients_ms)
            )?;
        }
        for sample in samples {
            writeln!(out, "\n- {sample}")?;
        }
        for reason in &self.left_out {
            writeln!(out, "\nLeft out: {reason}.")?;
        }
        Ok(())
    }
}
