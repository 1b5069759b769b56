//! Systems whose sessions, helpers or rights were broken on purpose, each found by the operation that is
//! there for it.

use std::net::SocketAddr;

use freehold_server::prove::{self, Ground, Report, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::{Site, expect_leak, run, run_broken_with, schemas, short};

const LEFT: &str = "what a tenant's SQL leaves on a session: not refused";

fn longer() -> Settings {
    Settings { operations: 4000, ..short() }
}

/// What the library sends when a transaction ends does not arrive: something in between makes another
/// statement of the same length of it.
async fn run_without(statement: &'static str, instead: &'static str) -> Report {
    assert_eq!(statement.len(), instead.len());
    let mut site = Site::new().await;
    let url = &site.system.app_url;
    let (before, rest) = url.rsplit_once('@').unwrap();
    let (address, database) = rest.split_once('/').unwrap();
    let between = exchanging(address.to_owned(), statement, instead).await;
    site.system.pooler_url = Some(format!("{before}@{between}/{database}"));
    let ground = Ground::prepare(&site.system, &longer()).await.unwrap();
    let report = run(ground, longer()).await;
    assert!(!report.passed, "nothing was found:\n{}", report.markdown());
    report
}

async fn exchanging(server: String, from: &'static str, to: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(upstream) = TcpStream::connect(&server).await else { continue };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = upstream.into_split();
            tokio::spawn(copy(from_client, to_server, from, to));
            tokio::spawn(copy(from_server, to_client, "", ""));
        }
    });
    address
}

/// A text that two reads tear apart arrives as it is, which costs the test nothing.
async fn copy(mut source: OwnedReadHalf, mut sink: OwnedWriteHalf, from: &str, to: &str) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = source.read(&mut bytes).await {
        let mut at = 0;
        while !from.is_empty() && at + from.len() <= count {
            if bytes[at..].starts_with(from.as_bytes()) {
                bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            }
            at += 1;
        }
        if sink.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_are_not_reset_are_found() {
    let report = run_without("RESET ALL", "CLOSE ALL").await;
    expect_leak(&report, LEFT);
    for way in ["HTTP: poison the session", "library: poison the session"] {
        expect_leak(&report, way);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_stay_open_are_found() {
    let report = run_without("CLOSE ALL", "RESET ALL").await;
    expect_leak(&report, "cursors is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_go_on_listening_are_found() {
    let report = run_without("UNLISTEN *", "CLOSE  ALL").await;
    expect_leak(&report, "channels is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_cleans_nothing_is_found() {
    let report = run_broken_with(longer(), async |_, sql| {
        let idle = "CREATE OR REPLACE FUNCTION freehold.begin_clean(seed float8) RETURNS boolean
             LANGUAGE plpgsql AS 'BEGIN RETURN true; END'";
        sql.batch_execute(idle).await.unwrap();
    })
    .await;
    expect_leak(&report, "temporary is");
    expect_leak(&report, "random() gives");
}

/// It belongs to a superuser, who may set the verdict and whom no policy binds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helpers_with_more_than_the_owners_rights_are_found() {
    let report = run_broken_with(longer(), async |ground, sql| {
        for schema in schemas(ground) {
            let rise = format!(
                "ALTER FUNCTION {schema}.set_as_owner(text, text) OWNER TO CURRENT_USER;
                 ALTER FUNCTION {schema}.ask_as_owner(text) OWNER TO CURRENT_USER"
            );
            sql.batch_execute(&rise).await.unwrap();
        }
    })
    .await;
    expect_leak(&report, "helpers with the owner's rights: not refused");
    expect_leak(&report, "the mark of a row of tenant");
}

/// Grants that somebody made for reasons of their own: each opens one kind of injected statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_injected_statements_must_not_have_are_found() {
    let settings = Settings { operations: 6000, ..short() };
    let report = run_broken_with(settings, async |ground, sql| {
        let mut grant = "GRANT SELECT, UPDATE ON freehold.membership TO freehold_app;
             GRANT SELECT ON pg_stat_activity TO PUBLIC;
             GRANT EXECUTE ON FUNCTION pg_stat_get_activity(int) TO PUBLIC;"
            .to_owned();
        for schema in schemas(ground) {
            grant += &format!("GRANT USAGE, UPDATE, SELECT ON SEQUENCE {schema}.tickets TO freehold_viewer, freehold_app;");
        }
        sql.batch_execute(&grant).await.unwrap();
    })
    .await;
    for what in ["the catalog's own tables", "what others run", "another tenant's sequences"] {
        assert!(caught(&report, what) < provoked(&report, what), "{what}: {}", report.markdown());
    }
    expect_leak(&report, "another tenant's sequences: not refused");
    expect_leak(&report, "the audit of sequences");
}

fn attempts<'r>(report: &'r Report, what: &str) -> impl Iterator<Item = &'r prove::Attempts> {
    let what = what.to_owned();
    report.violations.iter().filter(move |(name, _)| name.starts_with(&what)).map(|(_, all)| all)
}

fn provoked(report: &Report, what: &str) -> u64 {
    attempts(report, what).map(|all| all.provoked).sum()
}

fn caught(report: &Report, what: &str) -> u64 {
    attempts(report, what).map(|all| all.caught).sum()
}
