//! Many statements in one flush: one round trip, and each error at its own statement.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use freehold::control::violations::{ViolationFilter, ViolationKind};
use freehold::{ErrorKind, Freehold, Params, SealMode, TenantContext};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::support::{House, house, house_of_one, house_sealed, notes_and, operator, pooler};

const INSERT: &str = "INSERT INTO notes (body) VALUES ($1)";
const COUNT: &str = "SELECT count(*) FROM notes";

#[tokio::test]
async fn a_pipeline_is_run_in_its_order_and_committed_whole() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    // Twice: a statement that is not prepared yet takes another code path.
    for kept in [2_i64, 4] {
        let answers = house
            .freehold
            .pipeline(
                &acme,
                &[(INSERT, &[&"one"]), (COUNT, &[]), (INSERT, &[&"two"]), ("SELECT 7, 'x'", &[])],
            )
            .await
            .unwrap();
        let affected: Vec<u64> = answers.iter().map(|answer| answer.affected).collect();
        assert_eq!(affected, [1, 1, 1, 1]);
        assert_eq!(answers[1].rows[0].get::<_, i64>(0), kept);
        assert_eq!(answers[3].rows[0].get::<_, i32>(0), 7);
    }
    assert_eq!(house.bodies(&globex).await, ["globex"]);
    assert!(house.freehold.pipeline(&acme, &[]).await.unwrap().is_empty());
    assert!(house.freehold.pipeline_each(&acme, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_error_in_a_pipeline_is_told_of_its_own_statement_and_commits_nothing() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let lost: Params<'_> = &[&"lost"];
    let wrong: Params<'_> = &[&7_i64];
    let cases: [(&str, Params<'_>); 5] = [
        ("SELECT 1 / 0", &[]),
        ("SELECT * FROM nowhere", &[]),
        ("INSERT INTO notes (id, body) VALUES (1, 'twice')", &[]),
        (INSERT, wrong),
        ("LISTEN freehold", &[]),
    ];
    for case in cases {
        for at in 0..3 {
            let mut statements = vec![(INSERT, lost); 2];
            statements.insert(at, case);
            let refused = house.freehold.pipeline(&acme, &statements).await.unwrap_err();
            assert_eq!(refused.at(), Some(at), "{}: {refused}", case.0);
            assert_eq!(refused.into_error().kind(), ErrorKind::Statement);

            let mut tx = house.freehold.begin(&acme).await.unwrap();
            tx.execute(INSERT, lost).await.unwrap();
            let refused = tx.pipeline(&statements).await.unwrap_err();
            assert_eq!(refused.at(), Some(at), "{}", case.0);
            assert!(tx.commit().await.is_err() || case.0.starts_with("LISTEN"));
            house.script(&acme, "DELETE FROM notes WHERE body = 'lost'").await;
            assert_eq!(house.bodies(&acme).await, ["acme"], "{}", case.0);
        }
    }
}

#[tokio::test]
async fn after_an_error_in_a_pipeline_only_a_rollback_is_left() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.pipeline(&[(INSERT, &[&"lost"]), ("SELECT 1 / 0", &[])]).await.unwrap_err();
    assert_eq!(
        tx.pipeline(&[(COUNT, &[])]).await.unwrap_err().error().kind(),
        ErrorKind::Statement
    );
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Statement);

    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.pipeline(&[(INSERT, &[&"lost"])]).await.unwrap();
    tx.pipeline_and_commit(&[("SELECT 1 / 0", &[])]).await.unwrap_err();
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

#[tokio::test]
async fn a_constraint_that_fails_at_a_pipelines_commit_is_no_statements_error() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let late = "ALTER TABLE tags ALTER CONSTRAINT tags_note_id_fkey DEFERRABLE INITIALLY DEFERRED";
    house.script(&acme, late).await;
    for _ in 0..2 {
        let refused = house
            .freehold
            .pipeline(
                &acme,
                &[(INSERT, &[&"lost"]), ("INSERT INTO tags VALUES (999, 'orphan')", &[])],
            )
            .await
            .unwrap_err();
        assert_eq!(refused.at(), None);
        assert_eq!(refused.error().database().unwrap().code().code(), "23503");
        assert_eq!(house.bodies(&acme).await, ["acme"]);
    }
}

#[tokio::test]
async fn each_of_its_own_fails_alone() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let wrong: Params<'_> = &[&7_i64];
    let late = "ALTER TABLE tags ALTER CONSTRAINT tags_note_id_fkey DEFERRABLE INITIALLY DEFERRED";
    house.script(&acme, late).await;
    for round in 1..3 {
        let outcomes = house
            .freehold
            .pipeline_each(
                &acme,
                &[
                    (INSERT, &[&"kept"]),
                    ("SELECT 1 / 0", &[]),
                    ("SELECT * FROM nowhere", &[]),
                    (INSERT, wrong),
                    ("INSERT INTO tags VALUES (999, 'orphan')", &[]),
                    ("SELECT * FROM nowhere", &[]),
                    (INSERT, &[&"kept"]),
                    (COUNT, &[]),
                ],
            )
            .await
            .unwrap();
        let good: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, false, false, false, false, true, true]);
        let rows = &outcomes[7].as_ref().unwrap().rows;
        assert_eq!(rows[0].get::<_, i64>(0), 1 + round * 2);
        for failed in [1, 2, 3, 4, 5] {
            let error = outcomes[failed].as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Statement, "{failed}: {error}");
        }
    }
}

#[tokio::test]
async fn another_tenants_table_is_refused_at_its_statement_and_recorded() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let theirs = format!("SELECT body FROM {}.notes", globex.tenant().schema());
    let write = format!("INSERT INTO {}.notes (body) VALUES ('in')", globex.tenant().schema());
    for foreign in [&theirs, &write] {
        let statements: [(&str, Params<'_>); 3] =
            [(INSERT, &[&"mine"]), (foreign, &[]), (COUNT, &[])];
        let refused = house.freehold.pipeline(&acme, &statements).await.unwrap_err();
        assert_eq!(refused.at(), Some(1));
        assert_eq!(refused.error().kind(), ErrorKind::Violation);
        let outcomes = house.freehold.pipeline_each(&acme, &statements).await.unwrap();
        assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::Violation);
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    }
    assert_eq!(house.bodies(&globex).await, ["globex"]);
    house.freehold.violations().flush().await.unwrap();
    let every = ViolationFilter::default();
    let rows =
        house.freehold.violations().list(&operator(), &every, None, Some(200)).await.unwrap();
    let refused: i64 = rows
        .iter()
        .filter(|row| row.violation.kind == ViolationKind::ContextRefused)
        .map(|row| row.count)
        .sum();
    assert_eq!(refused, 4, "{rows:?}");
}

#[tokio::test]
async fn statements_that_a_migration_made_stale_are_run_again_unseen() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let read = "SELECT * FROM notes";
    let ids = "SELECT * FROM notes WHERE id > 0";
    for tenant in [&acme, &globex] {
        house.freehold.pipeline(tenant, &[(read, &[]), (ids, &[])]).await.unwrap();
    }
    let add = "ALTER TABLE notes ADD COLUMN pinned boolean";
    assert!(house.migrate(&notes_and(&[add])).await.unwrap().failed.is_empty());

    let statements: [(&str, Params<'_>); 3] = [(INSERT, &[&"kept"]), (read, &[]), (ids, &[])];
    let answers = house.freehold.pipeline(&acme, &statements).await.unwrap();
    assert_eq!(answers[1].rows[0].len(), 3);
    assert_eq!(answers[2].rows[0].len(), 3);
    assert_eq!(house.bodies(&acme).await, ["acme", "kept"], "it was run once");
    let outcomes = house.freehold.pipeline_each(&globex, &statements).await.unwrap();
    assert_eq!(outcomes[2].as_ref().unwrap().rows[0].len(), 3);
    assert_eq!(house.bodies(&globex).await, ["globex", "kept"], "it was run once");
}

/// A seal is valid for a few seconds, and statements after a slow one wait longer.
#[tokio::test]
async fn what_waits_behind_a_slow_statement_is_sealed_again() {
    // Not in the mode `best`, where a session vouches for each context, so no seal can expire.
    let house = house_sealed(SealMode::Portable).await;
    let (acme, _) = house.acme_and_globex().await;
    let slow = "SELECT pg_sleep(7)";
    let statements: [(&str, Params<'_>); 4] =
        [(slow, &[]), (INSERT, &[&"one"]), (INSERT, &[&"two"]), (COUNT, &[])];
    let outcomes = house.freehold.pipeline_each(&acme, &statements).await.unwrap();
    for outcome in &outcomes {
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    assert_eq!(house.bodies(&acme).await, ["acme", "one", "two"]);
}

#[tokio::test]
async fn a_pipeline_takes_so_many_statements_and_no_more() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let texts: Vec<String> = (0..257).map(|at| format!("SELECT {at}")).collect();
    let mut statements: Vec<(&str, Params<'_>)> =
        texts.iter().map(|text| (text.as_str(), [].as_slice())).collect();
    let refused = house.freehold.pipeline(&acme, &statements).await.unwrap_err();
    assert_eq!(refused.error().kind(), ErrorKind::InvalidInput);
    let refused = house.freehold.pipeline_each(&acme, &statements).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);

    // The maximum number, several times, so that older prepared statements are evicted meanwhile.
    statements.pop();
    let others: Vec<String> = (0..256).map(|at| format!("SELECT {at} + 1")).collect();
    let others: Vec<(&str, Params<'_>)> =
        others.iter().map(|text| (text.as_str(), [].as_slice())).collect();
    for _ in 0..2 {
        for (statements, first) in [(&statements, 0), (&others, 1)] {
            let answers = house.freehold.pipeline(&acme, statements).await.unwrap();
            let values: Vec<i32> = answers.iter().map(|answer| answer.rows[0].get(0)).collect();
            assert_eq!(values, (first..first + 256).collect::<Vec<i32>>());
        }
    }
}

/// Counts how often the client speaks after it was answered: its round trips.
async fn count_round_trips(url: &str) -> (String, Arc<AtomicUsize>) {
    let (user, rest) = url.split_once('@').unwrap();
    let (address, path) = rest.split_once('/').unwrap();
    let address = address.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relayed = format!("{user}@{}/{path}", listener.local_addr().unwrap());
    let trips = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&trips);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&address).await.unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // Whether the last to speak was the client.
            let asked = Arc::new(Mutex::new(false));
            let (also, trips) = (Arc::clone(&asked), Arc::clone(&counted));
            tokio::spawn(relay(from_client, to_server, move || {
                let (asked, trips) = (Arc::clone(&asked), Arc::clone(&trips));
                async move {
                    let first = !std::mem::replace(&mut *asked.lock().await, true);
                    trips.fetch_add(usize::from(first), Ordering::SeqCst);
                }
            }));
            tokio::spawn(relay(from_server, to_client, move || {
                let also = Arc::clone(&also);
                async move { *also.lock().await = false }
            }));
        }
    });
    (relayed, trips)
}

async fn relay<F: Future<Output = ()>>(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    seen: impl Fn() -> F,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        seen().await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn house_that_counts() -> (House, Arc<AtomicUsize>) {
    let mut house = house().await;
    let mut options = house.database.options();
    options.app_pool.connections_max = 1;
    options.listen_url = Some(options.app_url.clone());
    let (url, trips) = count_round_trips(&options.app_url).await;
    options.app_url = url;
    house.freehold = Freehold::connect(&options).await.unwrap();
    (house, trips)
}

async fn trips_of<T>(trips: &AtomicUsize, work: impl Future<Output = T>) -> usize {
    let before = trips.load(Ordering::SeqCst);
    work.await;
    trips.load(Ordering::SeqCst) - before
}

async fn pipelined(freehold: &Freehold, tenant: &TenantContext, texts: &[String], each: bool) {
    let statements: Vec<(&str, Params<'_>)> =
        texts.iter().map(|text| (text.as_str(), [].as_slice())).collect();
    match each {
        true => drop(freehold.pipeline_each(tenant, &statements).await.unwrap()),
        false => drop(freehold.pipeline(tenant, &statements).await.unwrap()),
    }
}

#[tokio::test]
async fn a_pipeline_of_ten_takes_one_round_trip_and_one_more_to_prepare_them_all() {
    if pooler().is_some() {
        return; // What is counted is between us and PostgreSQL.
    }
    let (house, trips) = house_that_counts().await;
    let (acme, _) = house.acme_and_globex().await;
    let freehold = &house.freehold;
    for each in [false, true] {
        let texts: Vec<String> =
            (0..10).map(|at| format!("SELECT {at}, {each}, body FROM notes")).collect();
        assert_eq!(trips_of(&trips, pipelined(freehold, &acme, &texts, each)).await, 2);
        assert_eq!(trips_of(&trips, pipelined(freehold, &acme, &texts, each)).await, 1);
    }
    let singly = async {
        for _ in 0..10 {
            freehold.query(&acme, COUNT, &[]).await.unwrap();
        }
    };
    assert_eq!(trips_of(&trips, singly).await, 11);
}
