//! Tenants are isolated on a replica as on the primary.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use freehold::{Actor, ErrorKind, OperatorContext, ReplicaLimits, SealMode};

use super::{House, SOON, bodies, house, house_with, patient};
use crate::support::{connect, eventually};

const MODES: [SealMode; 2] = [SealMode::Best, SealMode::Portable];

/// The SQLSTATE that some SQL ends with, in a transaction that is rolled back.
async fn outcome(house: &House, sql: &str) -> String {
    let attacker = connect(&house.replica.url(&house.database.app_url())).await;
    match attacker.batch_execute(&format!("BEGIN; {sql}")).await {
        Ok(()) => "permitted".to_owned(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_replica_no_context_and_none_but_a_sealed_one_is_believed() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    let globex = house.tenant("globex").await;
    house.note(&acme, "acme").await;
    house.note(&globex, "globex").await;
    for mode in MODES {
        house.database.change_seal(mode).await.unwrap();
        house.until_replayed().await;
        let (own, other) = (acme.tenant().schema(), globex.tenant().schema());
        let sealed = house.database.sealed_context(acme.tenant(), Actor::SYSTEM).await.unwrap();
        let enter = format!("SELECT freehold.enter('{sealed}')");
        let read = |schema: &str| format!("SELECT body FROM {schema}.notes");
        assert_eq!(outcome(&house, &format!("{enter}; {}", read(&own))).await, "permitted");
        let claim = &sealed[94..];
        let forged = format!("{}{claim}", "0".repeat(94));
        let changed = sealed.replace(
            &acme.tenant().as_uuid().simple().to_string(),
            &globex.tenant().as_uuid().simple().to_string(),
        );
        for (attack, expected) in [
            (read(&own), "42501"),
            (format!("SET LOCAL ROLE freehold_admin; {}", read(&own)), "42501"),
            (format!("{enter}; {}", read(&other)), "42501"),
            (format!("SELECT freehold.enter('{forged}'); {}", read(&own)), "42501"),
            (format!("SELECT freehold.enter('{changed}'); {}", read(&other)), "42501"),
            (
                format!(
                    "{enter}; SELECT set_config('freehold.context', '{forged}', true); {}",
                    read(&own)
                ),
                "42501",
            ),
            ("SELECT * FROM freehold.tenant".to_owned(), "42501"),
            ("SELECT * FROM freehold_guard.seal_key".to_owned(), "42501"),
        ] {
            // In the mode `best` this setting is not used.
            let expected = match (mode, attack.contains("set_config")) {
                (SealMode::Best, true) => "permitted",
                _ => expected,
            };
            assert_eq!(outcome(&house, &attack).await, expected, "{mode:?}: {attack}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_replica_another_tenants_rows_are_refused_and_it_is_recorded_once() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    let globex = house.tenant("globex").await;
    house.note(&acme, "acme").await;
    house.note(&globex, "globex").await;
    house.until_replayed().await;
    let others = format!("SELECT body FROM {}.notes", globex.tenant().schema());
    let mut read = house.freehold.begin_read(&acme, None).await.unwrap();
    assert!(read.is_on_replica());
    let refused = read.query(&others, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Violation);
    assert_eq!(house.violations(), 1, "by the primary, which had the last word");
    // In the middle of a transaction the replica has it.
    let mut read = house.freehold.begin_read(&acme, None).await.unwrap();
    read.query("SELECT FROM notes", &[]).await.unwrap();
    let refused = read.query(&others, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Violation);
    assert!(read.is_on_replica());
    assert_eq!(house.violations(), 2);
}

/// One connection to the replica: each read uses the connection of the previous one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_dropped_anywhere_leaves_a_clean_connection_on_the_replica() {
    let house =
        house_with(ReplicaLimits { wait_max: Duration::from_secs(20), ..patient() }, |options| {
            options.app_pool.connections_max = 1;
        })
        .await;
    let acme = house.tenant("acme").await;
    let globex = house.tenant("globex").await;
    house.note(&acme, "acme").await;
    house.note(&globex, "globex").await;
    house.until_replayed().await;
    for polls in 1..24 {
        let finished = {
            let mut work = pin!(async {
                let mut read = house.freehold.begin_read(&acme, None).await.unwrap();
                read.query("SELECT body FROM notes", &[]).await.unwrap();
                read.query("SELECT pg_sleep(0.002)", &[]).await.unwrap();
                read.query_and_end("SELECT body FROM notes", &[]).await.unwrap();
            });
            let mut polled = 0;
            poll_fn(|context| {
                polled += 1;
                match work.as_mut().poll(context) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending if polled >= polls => Poll::Ready(false),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        let (seen, by_replica) = house.read(&globex, None).await;
        assert_eq!((seen, by_replica), (bodies(["globex"]), true), "after {polls} polls");
        if finished {
            break;
        }
    }
    let superuser = connect(&house.replica.superuser_url()).await;
    eventually("no transaction is left open", SOON, async || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'freehold_app' AND xact_start IS NOT NULL AND state <> 'active'";
        superuser.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    assert_eq!(house.reads().failed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_tenant_is_refused_though_the_replica_has_not_heard_of_it() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    house.note(&acme, "here").await;
    house.until_replayed().await;
    house.replica.pause().await;
    let operator = OperatorContext::system("a test");
    house.freehold.tenants().suspend(&operator, acme.tenant()).await.unwrap();
    eventually("nobody gets a context", SOON, async || {
        match house.freehold.tenant_context_as(acme.tenant(), acme.actor()).await {
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::TenantSuspended,
        }
    })
    .await;
}
