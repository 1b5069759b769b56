//! Whatever happens to a request, its connection is returned clean. The pool has one connection here, so the
//! next borrower, another tenant, would find anything that was left.

use std::time::{Duration, Instant};

use freehold::testing::end_early;
use freehold::{ErrorKind, Freehold, Params, Result, TenantContext};
use tokio_postgres::Client;

use crate::support::{House, SOON, drop_after_polls, house_of_one, pooler, wait_until};

#[derive(Clone, Copy, Debug)]
enum Ending {
    Commit,
    LastStatement,
    Rollback,
}

/// Two notes in one transaction. A new text is prepared on the way.
async fn write_two(
    freehold: Freehold,
    tenant: TenantContext,
    mark: String,
    ending: Ending,
    new_text: bool,
) -> Result<()> {
    let suffix = if new_text { format!(" -- {mark}") } else { String::new() };
    let insert = format!("INSERT INTO notes (body) VALUES ($1){suffix}");
    let mut tx = freehold.begin(&tenant).await?;
    tx.execute(&insert, &[&mark]).await?;
    tx.query(&format!("SELECT body FROM notes{suffix}"), &[]).await?;
    match ending {
        Ending::LastStatement => tx.query_and_commit(&insert, &[&mark]).await.map(drop),
        Ending::Commit => {
            tx.execute(&insert, &[&mark]).await?;
            tx.commit().await
        }
        Ending::Rollback => {
            tx.execute(&insert, &[&mark]).await?;
            tx.rollback().await
        }
    }
}

/// The next borrower finds nothing of the previous one, and the server becomes idle in between.
async fn expect_clean(house: &House, superuser: &Client, next: &TenantContext, look_first: bool) {
    if look_first {
        expect_rest(superuser).await;
    }
    let mut tx = house.freehold.begin(next).await.unwrap();
    let row = tx
        .query_one(
            "SELECT pg_current_xact_id_if_assigned() IS NULL, freehold.tenant(), (SELECT string_agg(body, ' ') FROM notes)",
            &[],
        )
        .await
        .unwrap();
    assert!(row.get::<_, bool>(0), "the borrower's transaction had written before it began");
    assert_eq!(row.get::<_, uuid::Uuid>(1), next.tenant().as_uuid());
    assert_eq!(row.get::<_, &str>(2), "globex", "the borrower sees its own rows alone");
    tx.commit().await.unwrap();
    expect_bare_session(&house.freehold, next).await;
    expect_rest(superuser).await;
}

/// Behind the transaction, where no context is.
async fn expect_bare_session(freehold: &Freehold, tenant: &TenantContext) {
    let mut tx = freehold.begin(tenant).await.unwrap();
    end_early(&mut tx).await.unwrap();
    let row = tx
        .query_one(
            "SELECT current_user::text, coalesce(current_setting('freehold.context', true), ''), current_setting('search_path')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "freehold_app");
    assert_eq!(row.get::<_, &str>(1), "");
    assert_eq!(row.get::<_, &str>(2), "pg_temp");
    tx.rollback().await.unwrap();
}

/// No connection of the application is inside a transaction, as a superuser sees it.
async fn expect_rest(superuser: &Client) {
    wait_until("the application's connections are idle", SOON, async || {
        let row = superuser
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND usename = 'freehold_app' AND (state <> 'idle' OR xact_start IS NOT NULL)",
                &[],
            )
            .await
            .unwrap();
        row.get::<_, i64>(0) == 0
    })
    .await;
}

async fn count(superuser: &Client, tenant: &TenantContext, mark: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {}.notes WHERE body = $1", tenant.tenant().schema());
    superuser.query_one(&sql, &[&mark]).await.unwrap().get(0)
}

async fn drop_at_every_await_point(ending: Ending, new_text: bool) {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    for polls in 1..200 {
        let mark = format!("mark {polls}");
        let work = write_two(house.freehold.clone(), acme, mark.clone(), ending, new_text);
        let finished = drop_after_polls(polls, work).await;
        expect_clean(&house, &superuser, &globex, polls % 2 == 0).await;
        let written = count(&superuser, &acme, &mark).await;
        if let Some(outcome) = finished {
            outcome.unwrap();
            assert_eq!(written, if matches!(ending, Ending::Rollback) { 0 } else { 2 });
            assert!(polls > 3, "{polls} polls are too few to have been interrupted anywhere");
            return;
        }
        assert!(written == 0 || written == 2, "half committed after {polls} polls");
        assert!(!matches!(ending, Ending::Rollback) || written == 0);
    }
    panic!("the transaction never came to its end");
}

/// The same as a pipeline: one transaction, or one per statement.
async fn write_pipelined(
    freehold: Freehold,
    tenant: TenantContext,
    mark: String,
    each: bool,
    new_text: bool,
) -> Result<()> {
    let suffix = if new_text { format!(" -- {mark}") } else { String::new() };
    let insert = format!("INSERT INTO notes (body) VALUES ($1){suffix}");
    let read = format!("SELECT body FROM notes{suffix}");
    let statements: [(&str, Params<'_>); 3] =
        [(&insert, &[&mark]), (&read, &[]), (&insert, &[&mark])];
    if each {
        freehold
            .pipeline_each(&tenant, &statements)
            .await?
            .into_iter()
            .try_for_each(|one| one.map(drop))
    } else {
        let mut tx = freehold.begin(&tenant).await?;
        tx.pipeline(&statements[1..2]).await?;
        tx.pipeline_and_commit(&statements).await?;
        Ok(())
    }
}

async fn drop_pipelines_at_every_await_point(each: bool, new_text: bool) {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    for polls in 1..200 {
        let mark = format!("mark {polls}");
        let work = write_pipelined(house.freehold.clone(), acme, mark.clone(), each, new_text);
        let finished = drop_after_polls(polls, work).await;
        expect_clean(&house, &superuser, &globex, polls % 2 == 0).await;
        let written = count(&superuser, &acme, &mark).await;
        if let Some(outcome) = finished {
            outcome.unwrap();
            assert_eq!(written, 2);
            assert!(polls > 2, "{polls} polls are too few to have been interrupted anywhere");
            return;
        }
        assert!(each || written == 0 || written == 2, "half committed after {polls} polls");
    }
    panic!("the pipeline never came to its end");
}

#[tokio::test]
async fn a_pipeline_dropped_anywhere_commits_all_or_nothing() {
    drop_pipelines_at_every_await_point(false, true).await;
    drop_pipelines_at_every_await_point(false, false).await;
}

#[tokio::test]
async fn a_pipeline_of_transactions_dropped_anywhere_leaves_none_open() {
    drop_pipelines_at_every_await_point(true, true).await;
    drop_pipelines_at_every_await_point(true, false).await;
}

/// A statement that was prepared for a dropped request is closed again.
#[tokio::test]
async fn a_dropped_pipeline_leaves_no_statement_on_the_server() {
    if pooler().is_some() {
        return; // Nothing is prepared there.
    }
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let prepared = async || -> i64 {
        let mut tx = house.freehold.begin(&globex).await.unwrap();
        let count = "SELECT count(*) FROM pg_prepared_statement()";
        tx.query(count, &[]).await.unwrap();
        tx.query_one(count, &[]).await.unwrap().get(0)
    };
    let grant = "GRANT EXECUTE ON FUNCTION pg_prepared_statement() TO PUBLIC";
    house.superuser().await.batch_execute(grant).await.unwrap();
    let before = prepared().await;
    for round in 0..8 {
        // Dropped after it has sent the statements for preparation and before the answer.
        let work =
            write_pipelined(house.freehold.clone(), acme, format!("mark {round}"), true, true);
        assert!(drop_after_polls(1, work).await.is_none());
    }
    assert_eq!(prepared().await, before);
}

#[tokio::test]
async fn a_dropped_pipeline_is_cancelled_statement_by_statement() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    let sleeps: [(&str, Params<'_>); 6] = [("SELECT pg_sleep(20)", &[]); 6];
    for each in [false, true] {
        let work = async {
            match each {
                true => house.freehold.pipeline_each(&acme, &sleeps).await.map(drop),
                false => Ok(house.freehold.pipeline(&acme, &sleeps).await.map(drop)?),
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(300), work).await.is_err());
        // Within the time that a caller waits for the one connection.
        house.freehold.query(&globex, "SELECT 1", &[]).await.unwrap();
        expect_clean(&house, &superuser, &globex, true).await;
    }
}

#[tokio::test]
async fn a_dropped_request_leaves_no_open_transaction() {
    drop_at_every_await_point(Ending::Commit, true).await;
}

#[tokio::test]
async fn a_dropped_request_whose_statements_are_prepared_leaves_no_open_transaction() {
    drop_at_every_await_point(Ending::Commit, false).await;
}

#[tokio::test]
async fn a_request_dropped_at_its_last_statement_commits_all_or_nothing() {
    drop_at_every_await_point(Ending::LastStatement, true).await;
}

#[tokio::test]
async fn a_prepared_request_dropped_at_its_last_statement_commits_all_or_nothing() {
    drop_at_every_await_point(Ending::LastStatement, false).await;
}

#[tokio::test]
async fn a_request_dropped_in_its_rollback_commits_nothing() {
    drop_at_every_await_point(Ending::Rollback, false).await;
}

/// The same by the clock, on two threads, where the server and the client are apart in other ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_times_out_anywhere_leaves_no_open_transaction() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    let mut finished = 0;
    for step in 0..40 {
        let mark = format!("mark {step}");
        let limit = Duration::from_micros(step * step * 8);
        let work = write_two(house.freehold.clone(), acme, mark.clone(), Ending::Commit, true);
        finished += u32::from(tokio::time::timeout(limit, work).await.is_ok());
        expect_clean(&house, &superuser, &globex, step % 2 == 0).await;
        let written = count(&superuser, &acme, &mark).await;
        assert!(written == 0 || written == 2, "half committed after {limit:?}");
    }
    assert!(finished < 40, "no request was ever interrupted");
}

#[tokio::test]
async fn a_transaction_dropped_outside_the_runtime_is_rolled_back() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    for polls in 1..5 {
        let work =
            write_two(house.freehold.clone(), acme, "lost".to_owned(), Ending::Rollback, true);
        let mut work = Box::pin(work);
        assert!(drop_after_polls(polls, work.as_mut()).await.is_none());
        std::thread::spawn(move || drop(work)).join().unwrap();
        expect_clean(&house, &superuser, &globex, true).await;
    }
    assert_eq!(count(&superuser, &acme, "lost").await, 0);
}

#[tokio::test]
async fn a_long_statement_that_is_dropped_is_cancelled_in_the_server() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    let pid = async || -> i32 {
        let rows = house.freehold.query(&globex, "SELECT pg_backend_pid()", &[]).await.unwrap();
        rows[0].get(0)
    };
    let before = pid().await;

    let under_way = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(3600)%'
                     AND datname = current_database() AND pid <> pg_backend_pid()";
    let sleeping = async || superuser.query_one(under_way, &[]).await.unwrap().get::<_, i64>(0);
    tokio::select! {
        ended = house.freehold.query(&acme, "SELECT pg_sleep(3600)", &[]) => panic!("{ended:?}"),
        _ = wait_until("it sleeps", SOON, async || sleeping().await == 1) => {}
    }
    // Within the time that a caller waits for the one connection.
    let after = pid().await;
    assert_eq!(before, after, "the connection is the same, and usable");
    assert_eq!(sleeping().await, 0);
    expect_clean(&house, &superuser, &globex, true).await;
}

#[tokio::test]
async fn a_panic_inside_a_transaction_rolls_it_back() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    let freehold = house.freehold.clone();
    let handler = tokio::spawn(async move {
        let mut tx = freehold.begin(&acme).await.unwrap();
        tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
        panic!("a handler's own mistake");
    });
    assert!(handler.await.unwrap_err().is_panic());
    expect_clean(&house, &superuser, &globex, false).await;
    assert_eq!(count(&superuser, &acme, "lost").await, 0);
}

/// The driver panics when the number of parameters is wrong; that must not spoil the connection.
#[tokio::test]
async fn a_panic_inside_the_driver_rolls_the_transaction_back() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    let freehold = house.freehold.clone();
    let handler = tokio::spawn(async move {
        let mut tx = freehold.begin(&acme).await.unwrap();
        tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
        tx.query_and_commit("SELECT $1::text", &[]).await.map(drop)
    });
    match handler.await {
        Ok(outcome) => assert!(outcome.is_err()),
        Err(join) => assert!(join.is_panic()),
    }
    expect_clean(&house, &superuser, &globex, false).await;
    assert_eq!(count(&superuser, &acme, "lost").await, 0);
}

#[tokio::test]
async fn a_caller_that_waits_too_long_for_a_connection_is_told_so() {
    let mut house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    let mut options = house.database.options();
    options.app_pool.connections_max = 1;
    options.app_pool.wait_max = Duration::from_millis(150);
    house.freehold = Freehold::connect(&options).await.unwrap();

    let held = house.freehold.begin(&acme).await.unwrap();
    let asked_at = Instant::now();
    let refused = house.freehold.query(&globex, "SELECT 1", &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PoolExhausted);
    assert!(asked_at.elapsed() >= Duration::from_millis(150), "{:?}", asked_at.elapsed());
    drop(held);
    // Once it is cleaned up, for which others wait no longer than they would.
    wait_until("it is free again", SOON, async || {
        house.freehold.query(&globex, "SELECT 1", &[]).await.is_ok()
    })
    .await;
}

/// An early return: no answer is outstanding, so the connection returns to the pool at once.
#[tokio::test]
async fn who_comes_after_an_abandoned_transaction_reads_its_own_answer() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    for _ in 0..5 {
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        tx.query("SELECT body FROM notes", &[]).await.unwrap();
        drop(tx);
        assert_eq!(house.bodies(&globex).await, ["globex"]);
    }
}

#[tokio::test]
async fn a_transaction_dropped_between_its_statements_is_rolled_back() {
    let house = house_of_one().await;
    let (acme, globex) = house.acme_and_globex().await;
    for _ in 0..3 {
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
        drop(tx);
        // The next transaction commits only its own work.
        let mut next = house.freehold.begin(&globex).await.unwrap();
        next.execute("INSERT INTO notes (body) VALUES ('kept')", &[]).await.unwrap();
        next.commit().await.unwrap();
    }
    assert_eq!(house.bodies(&acme).await, ["acme"]);
    assert_eq!(house.bodies(&globex).await, ["globex", "kept", "kept", "kept"]);
}
