//! The results of a benchmark: as a table for people, as one JSON object for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::Result;
use crate::fixtures;

pub(crate) struct Report {
    pub(crate) bench: &'static str,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
}

/// The result of one case. Its latencies, in milliseconds, are cases of their own in the JSON.
pub(crate) struct Row {
    pub(crate) case: String,
    /// In `unit`; mostly per second.
    pub(crate) rate: f64,
    pub(crate) unit: &'static str,
    pub(crate) latency: Option<Latency>,
    pub(crate) ratio: Option<Ratio>,
}

#[derive(Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// This case's rate divided by another's.
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) to: String,
}

/// The machine on which it was measured.
#[derive(Serialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    memory_bytes: Option<u64>,
    os: String,
    postgres: String,
}

#[derive(Serialize)]
struct Document<'a> {
    bench: &'a str,
    machine: &'a Machine,
    cases: Vec<Case<'a>>,
}

#[derive(Serialize)]
struct Case<'a> {
    case: String,
    value: f64,
    unit: &'a str,
    ratio: Option<f64>,
    ratio_to: Option<&'a str>,
}

impl Report {
    pub(crate) fn json(&self) -> String {
        let cases = self.rows.iter().flat_map(Row::cases).collect();
        let document = Document { bench: self.bench, machine: &self.machine, cases };
        serde_json::to_string_pretty(&document).expect("text and numbers always serialise")
    }

    pub(crate) fn table(&self) -> String {
        let Machine { cores, cpu, memory_bytes, os, postgres } = &self.machine;
        let memory = memory_bytes.map_or_else(String::new, |bytes| {
            format!(", {:.0} GiB", bytes as f64 / 1024f64.powi(3))
        });
        let mut text = format!(
            "{}: {cores} cores of {cpu}{memory}, {os}, PostgreSQL {postgres}\n\n",
            self.bench
        );
        let width = self.rows.iter().map(|row| row.case.len()).max().unwrap_or(0);
        let unit = self.rows.first().map_or("", |row| row.unit);
        let mixed = self.rows.iter().any(|row| row.unit != unit);
        let heading = if mixed { "value" } else { unit };
        let _ = writeln!(
            text,
            "{:width$}  {heading:>14}  {:>8}  {:>8}  ratio",
            "case", "p50 ms", "p99 ms"
        );
        for row in &self.rows {
            let _ = match mixed {
                true => write!(text, "{:width$}  {:>9.2} {:<4}", row.case, row.rate, row.unit),
                false => write!(text, "{:width$}  {:>14.1}", row.case, row.rate),
            };
            let _ = match row.latency {
                Some(latency) => write!(text, "  {:>8.3}  {:>8.3}", latency.p50_ms, latency.p99_ms),
                None => write!(text, "  {:>8}  {:>8}", "", ""),
            };
            let _ = match &row.ratio {
                Some(ratio) => writeln!(text, "  {:.2} of {}", ratio.value, ratio.to),
                None => writeln!(text),
            };
        }
        text
    }
}

impl Row {
    /// A figure by itself.
    pub(crate) fn of(case: &str, value: f64, unit: &'static str) -> Row {
        Row { case: case.to_owned(), rate: value, unit, latency: None, ratio: None }
    }

    fn cases(&self) -> Vec<Case<'_>> {
        let mut cases = vec![Case {
            case: self.case.clone(),
            value: self.rate,
            unit: self.unit,
            ratio: self.ratio.as_ref().map(|ratio| ratio.value),
            ratio_to: self.ratio.as_ref().map(|ratio| ratio.to.as_str()),
        }];
        if let Some(Latency { p50_ms, p99_ms }) = self.latency {
            for (name, value) in [("p50_ms", p50_ms), ("p99_ms", p99_ms)] {
                let case = format!("{}/{name}", self.case);
                cases.push(Case { case, value, unit: "ms", ratio: None, ratio_to: None });
            }
        }
        cases
    }
}

impl Machine {
    pub(crate) async fn look(database_url: &str) -> Result<Machine> {
        let client = fixtures::connect(database_url).await?;
        let postgres = client.query_one("SHOW server_version", &[]).await?.get(0);
        Ok(Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: first_value("/proc/cpuinfo", "model name")
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory_bytes: first_value("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map(|kib| kib * 1024),
            os: std::env::consts::OS.to_owned(),
            postgres,
        })
    }
}

/// The value of the first line `name : value` in a file; empty if there is no such file.
fn first_value(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
