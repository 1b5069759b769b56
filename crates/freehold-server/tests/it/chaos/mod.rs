//! Faults under load: clients of several tenants use the whole installation while faults are injected. No
//! acknowledged write may be lost, nothing of another tenant be seen, and all must recover by itself once the
//! fault is over.
//!
//! `./dev chaos` injects every fault; the tests inject two of them.

mod address;
mod clock;
mod disk;
mod house;
mod injuries;
mod load;
mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use house::House;
use injuries::Injury;
use load::{Load, PATIENCE};
use report::{Report, Wound, recovered};
use tokio::signal::unix::{SignalKind, signal};

const CLIENTS: usize = 8;
/// A fault's delayed effects are attributed to it for this long.
const AFTER: Duration = Duration::from_secs(2);

/// Inflicts these, again and again until the time is up and each at least once.
async fn run(injuries: &[Injury], time: Duration) -> Report {
    let mut house = House::build().await;
    let load = Load::start(house.front, &house.residents, CLIENTS);
    let began = Instant::now();
    let mut wounds = Vec::new();
    until_all_write(&load, 0, began).await;
    let left_out: Vec<_> = injuries.iter().filter_map(|injury| injury.impossible(&house)).collect();
    for (n, injury) in injuries.iter().cycle().enumerate() {
        if n >= injuries.len() && began.elapsed() >= time {
            break;
        }
        // It was impossible from the start, or another injury removed what it needs.
        if injury.impossible(&house).is_some() {
            continue;
        }
        println!("{:.1} s: {}", began.elapsed().as_secs_f64(), injury.name());
        wounds.push(wound(*injury, &mut house, &load).await);
        injury.clear_up(&mut house).await;
        until_all_write(&load, load.now(), Instant::now()).await;
    }
    let (requests, seconds) = (load.now() as u64, began.elapsed().as_secs());
    let (sent, mut verdict) = tokio::task::block_in_place(|| load.stop());
    house.audit(&sent, &mut verdict).await;
    let passed = verdict.lost == 0
        && verdict.foreign == 0
        && wounds.iter().all(|wound| wound.missed.is_empty());
    Report { passed, seconds, requests, verdict, wounds, left_out }
}

async fn wound(injury: Injury, house: &mut House, load: &Load) -> Wound {
    let (mark, began) = (load.now(), Instant::now());
    let repaired = injury.inflict(house).await;
    until_all_write(load, mark, repaired).await;
    tokio::time::sleep(AFTER).await;
    load.since(mark, |events| {
        Wound::of(injury.name(), events, (began, repaired), load.clients(), &injury.bound())
    })
}

/// Waits until each client had a write acknowledged that it began after `from`, but not for ever.
async fn until_all_write(load: &Load, mark: usize, from: Instant) {
    let began = Instant::now();
    while load.since(mark, |events| recovered(events, from, CLIENTS)).is_none()
        && began.elapsed() < 2 * PATIENCE
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_killed_server_and_a_failover_lose_nothing_that_was_acknowledged() {
    let report = run(&[Injury::ServerKilled, Injury::Failover], Duration::ZERO).await;
    println!("{}", report.markdown());
    assert!(report.passed, "{}", report.markdown());
    assert!(report.verdict.acknowledged > 50, "hardly anything was written");
}

/// The long form, for `./dev chaos`, which says where the report goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes; ./dev chaos runs it"]
async fn every_injury_loses_nothing_that_was_acknowledged() {
    let seconds = std::env::var("FREEHOLD_CHAOS_SECONDS").map_or(0, |n| n.parse().unwrap());
    let mut told_to_stop = signal(SignalKind::terminate()).unwrap();
    let report = tokio::select! {
        report = run(&Injury::ALL, Duration::from_secs(seconds)) => report,
        // A panic, so that the processes that were started are ended.
        _ = tokio::signal::ctrl_c() => panic!("interrupted"),
        _ = told_to_stop.recv() => panic!("told to stop"),
    };
    println!("{}", report.markdown());
    if let Ok(folder) = std::env::var("FREEHOLD_CHAOS_REPORT") {
        let folder = Path::new(&folder);
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("chaos.md"), report.markdown()).unwrap();
        let json = serde_json::to_string_pretty(&report).unwrap();
        std::fs::write(folder.join("chaos.json"), json).unwrap();
    }
    assert!(report.passed, "a promise was not held; the table says which");
}
