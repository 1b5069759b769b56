//! How soon a server is ready, and how much memory it uses when idle.
//!
//! `./dev image` uses more tenants, and the program in its container instead of the built one.

use std::time::{Duration, Instant};

use freehold::OperatorContext;
use freehold::control::tenants::NewTenant;
use freehold::testing::TestDatabase;
use serde_json::Value;

use crate::process::{Server, http};
use crate::support::{admin_url, shop};

const LOADERS: usize = 4;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |n| n.parse().unwrap())
}

/// In kB, as the kernel counts it.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_ready_soon_and_small_at_rest() {
    let tenants = usize::try_from(number("FREEHOLD_START_TENANTS", 20)).unwrap();
    let ready_ms_max = number("FREEHOLD_START_READY_MS", 30_000);
    let program = std::env::var("FREEHOLD_START_PROGRAM").ok();
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let mut loaders = tokio::task::JoinSet::new();
    for loader in 0..LOADERS {
        let fleet = fleet.clone();
        loaders.spawn(async move {
            let context = OperatorContext::system("a test");
            for n in (loader..tenants).step_by(LOADERS) {
                let slug = format!("shop{n}");
                let new = NewTenant { name: slug.clone(), slug, ..NewTenant::default() };
                fleet.tenants().create(&context, new).await.unwrap();
            }
        });
    }
    loaders.join_all().await;
    fleet.close();

    let began = Instant::now();
    let server = Server::start_program(program.as_deref(), &database, &[]);
    let serves = began.elapsed();
    let readiness = || http(server.port, "GET", "/readyz", "", &Value::Null);
    while !readiness().is_ok_and(|(status, _)| status == 200) {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", readiness());
        std::thread::sleep(Duration::from_millis(5));
    }
    let ready = began.elapsed();
    // Once more examined, and at rest.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let kilobytes = resident(server.running.pid());
    println!(
        "{tenants} tenants: serving after {} ms, ready after {} ms, {:.1} MB resident at rest",
        serves.as_millis(),
        ready.as_millis(),
        kilobytes as f64 / 1000.0
    );
    assert!(ready <= Duration::from_millis(ready_ms_max), "ready after {ready:?}");
    assert!(kilobytes <= 100_000, "{kilobytes} kB resident");
}
