//! What a read sees, and which server answers it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use freehold::testing::create_tenant;
use freehold::{ErrorKind, Freehold, OperatorContext, ReplicaLimits, ReplicaState};
use futures_util::FutureExt as _;

use super::{SOON, bodies, house, patient};
use crate::support::{connect, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tolerant_read_is_answered_by_the_replica_and_any_other_by_the_primary() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    house.note(&acme, "old").await;
    house.until_replayed().await;
    house.replica.pause().await;
    house.note(&acme, "new").await;
    assert_eq!(house.read(&acme, None).await, (bodies(["old"]), true));
    let rows = house.freehold.query(&acme, "SELECT body FROM notes", &[]).await.unwrap();
    assert_eq!(rows.len(), 2, "a read that does not say it is tolerant is of now");
    assert_eq!((house.reads().replica, house.reads().failed), (1, 0));
    // A transaction of several statements stays there.
    let mut tx = house.freehold.begin_read(&acme, None).await.unwrap();
    for _ in 0..3 {
        assert_eq!(tx.query("SELECT FROM notes", &[]).await.unwrap().len(), 1);
    }
    assert!(tx.is_on_replica());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_sends_back_the_lsn_of_a_write_sees_it_wherever_it_is_answered() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    let first = house.note(&acme, "first").await;
    assert!(first.is_some(), "a write tells its place in the log");
    house.until_replayed().await;
    assert_eq!(house.read(&acme, first).await, (bodies(["first"]), true));

    house.replica.pause().await;
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.execute("INSERT INTO notes (body) VALUES ('second')", &[]).await.unwrap();
    let second = tx.commit_at().await.unwrap();
    assert!(second > first);
    assert_eq!(house.read(&acme, first).await, (bodies(["first"]), true));
    assert_eq!(house.read(&acme, second).await, (bodies(["first", "second"]), false));
    assert_eq!(house.reads().behind, 1);

    house.replica.resume().await;
    house.until_replayed().await;
    assert_eq!(house.read(&acme, second).await, (bodies(["first", "second"]), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_waits_for_a_replica_that_is_about_to_have_what_it_must_see() {
    let limits = ReplicaLimits { wait_max: Duration::from_secs(20), ..patient() };
    let house = house(limits).await;
    let acme = house.tenant("acme").await;
    house.until_replayed().await;
    house.replica.pause().await;
    let written = house.note(&acme, "awaited").await;
    let mut read = pin!(house.read(&acme, written));
    assert!(read.as_mut().now_or_never().is_none(), "it waits");
    house.replica.resume().await;
    assert_eq!(read.await, (bodies(["awaited"]), true));
    // A client that writes and reads in turn without a pause always sees its writes.
    for n in 0..50 {
        let body = format!("note {n}");
        let written = house.note(&acme, &body).await;
        let (seen, _) = house.read(&acme, written).await;
        assert_eq!(seen.last(), Some(&body));
    }
    assert_eq!(house.reads().failed, 0);
}

/// Readers of two kinds and a writer, while the replica dies, comes back, and dies again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_killed_in_the_middle_fails_no_request_and_comes_back_by_itself() {
    let mut house = house(ReplicaLimits::default()).await;
    let acme = house.tenant("acme").await;
    house.note(&acme, "first").await;
    house.until_replayed().await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let client = |freehold: Freehold, sees_its_own: bool| {
        let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut last = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut since = None;
                if sees_its_own {
                    let tx = freehold.begin(&acme).await?;
                    let insert = "INSERT INTO notes (body) VALUES ('more') RETURNING id";
                    let (rows, lsn) = tx.query_and_commit_at(insert, &[]).await?;
                    (last, since) = (rows[0].get::<_, i64>(0), lsn);
                }
                let mut read = freehold.begin_read(&acme, since).await?;
                let newest = "SELECT max(id) FROM notes WHERE length(body) > $1";
                let row = read.query_one(newest, &[&0]).await?;
                assert!(row.get::<_, i64>(0) >= last, "it does not see what it has written");
                asked.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, freehold::Error>(())
        })
    };
    let clients: Vec<_> = (0..8).map(|n| client(house.freehold.clone(), n % 2 == 0)).collect();
    for _ in 0..2 {
        let before = house.reads().replica;
        eventually("the replica is read", SOON, async || house.reads().replica > before + 100)
            .await;
        house.replica.kill();
        let (before, elsewhere) = (asked.load(Ordering::Relaxed), house.reads().none_fit);
        eventually("reads go on", SOON, async || {
            asked.load(Ordering::Relaxed) > before + 100 && house.reads().none_fit > elsewhere
        })
        .await;
        house.replica.start().await;
        house.until_serving().await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap().expect("no request fails");
    }
    house.until_replayed().await;
    let count = "SELECT count(*) FROM notes";
    let everything = house.freehold.query(&acme, count, &[]).await.unwrap()[0].get::<_, i64>(0);
    let mut read = house.freehold.begin_read(&acme, None).await.unwrap();
    let rows = read.query_and_end(count, &[]).await.unwrap();
    assert_eq!((rows[0].get::<_, i64>(0), read.is_on_replica()), (everything, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hangs_is_given_up_and_its_reads_go_on_at_the_primary() {
    let house = house(ReplicaLimits::default()).await;
    let acme = house.tenant("acme").await;
    let written = house.note(&acme, "here").await;
    house.until_replayed().await;
    assert!(house.read(&acme, written).await.1);
    house.replica.freeze();
    let read = tokio::time::timeout(SOON, house.read(&acme, written)).await;
    assert_eq!(read.expect("it is given up"), (bodies(["here"]), false));
    house.replica.thaw();
    house.until_serving().await;
    eventually("it is read again", SOON, async || house.read(&acme, written).await.1).await;
}

/// The primary knows the tenant and its tables, and the key that seals contexts; the replica has replayed
/// none of them yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_has_not_heard_of_yet_is_read_on_the_primary() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    house.until_replayed().await;
    house.replica.pause().await;

    let (_, globex) = create_tenant(&house.freehold, "globex").await.unwrap();
    house.note(&globex, "new tenant").await;
    assert_eq!(house.read(&globex, None).await, (bodies(["new tenant"]), false));

    let operator = OperatorContext::system("a test");
    house.freehold.context_keys().rotate(&operator, Duration::from_secs(3600)).await.unwrap();
    // After the former sessions have ended, contexts are sealed with the new key; every read is answered
    // meanwhile.
    let replica = connect(&house.replica.superuser_url()).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE usename = 'freehold_app' AND query NOT LIKE '%pg_control_system%'";
    eventually("the replica does not know the key", SOON, async || {
        replica.execute(end, &[]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The first read finds an ended session, the second one the replica's refusal of the key.
        !house.read(&acme, None).await.1 && !house.read(&acme, None).await.1
    })
    .await;
    assert_eq!(house.violations(), 0, "a replica that is behind is no attack");
    assert_eq!(house.state(), ReplicaState::Serving);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_writes_nothing_on_a_replica_nor_on_the_primary() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    house.until_replayed().await;
    let insert = "INSERT INTO notes (body) VALUES ('x')";
    let mut read = house.freehold.begin_read(&acme, None).await.unwrap();
    assert!(read.is_on_replica());
    let refused = read.query(insert, &[]).await.unwrap_err();
    assert!(!read.is_on_replica(), "the primary has the last word");
    assert_eq!(refused.database().unwrap().code().code(), "25006");
    // Nor in the middle, where it stays on the replica.
    let mut read = house.freehold.begin_read(&acme, None).await.unwrap();
    read.query("SELECT FROM notes", &[]).await.unwrap();
    let refused = read.query(insert, &[]).await.unwrap_err();
    assert_eq!(refused.database().unwrap().code().code(), "25006");
    assert_eq!(refused.kind(), ErrorKind::Statement);
    assert!(house.read(&acme, None).await.0.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replicas_a_read_is_the_primarys_and_a_write_tells_nothing() {
    let house = house(patient()).await;
    let alone = house.database.freehold().await.unwrap();
    let (_, acme) = create_tenant(&alone, "acme").await.unwrap();
    let tx = alone.begin(&acme).await.unwrap();
    let insert = "INSERT INTO notes (body) VALUES ('alone')";
    assert_eq!(tx.query_and_commit_at(insert, &[]).await.unwrap().1, None);
    let mut read = alone.begin_read(&acme, None).await.unwrap();
    assert_eq!(read.query_and_end("SELECT FROM notes", &[]).await.unwrap().len(), 1);
    assert!(!read.is_on_replica() && !alone.has_replicas());
}
