//! The memory of rows is bounded, and a refused excess leaves nothing behind: no row, no write, no running
//! query.

use std::sync::Arc;
use std::time::{Duration, Instant};

use freehold::{Budget, ErrorKind};

use crate::support::{House, house_of_one};

const INSERT: &str = "INSERT INTO notes (body) VALUES ($1) RETURNING repeat(body, 100000)";
const SMALL: &str = "SELECT 'x'";
const LARGE: &str = "SELECT repeat('x', 1000000)";
const ENDLESS: &str = "SELECT repeat('x', 1000000) FROM generate_series(1, 1000000)";
const MANY: &str = "SELECT n FROM generate_series(1, 20000) AS n";

async fn statements_under_way(house: &House) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND usename = 'freehold_app' AND state <> 'idle'";
    house.superuser().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn rows_take_no_more_memory_than_they_may() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let begin = async || house.freehold.begin(&acme).await.unwrap().max_bytes(1_000_000);
    // Twice: a statement that is not prepared yet takes another code path.
    for _ in 0..2 {
        for sql in [LARGE, ENDLESS, MANY] {
            let refused = begin().await.query_and_commit(sql, &[]).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AnswerTooLarge, "{sql}: {refused}");
            assert!(refused.message().contains("1000000 bytes"), "{refused}");
            // There is but one connection: it comes back, and clean.
            let rows = begin().await.query_and_commit(SMALL, &[]).await.unwrap();
            assert_eq!(rows[0].get::<_, &str>(0), "x", "{sql}");
        }
    }
    assert_eq!(statements_under_way(&house).await, 0);
    // All that a transaction returns counts together.
    let mut tx = begin().await;
    let half = "SELECT repeat('x', 400000)";
    tx.query(half, &[]).await.unwrap();
    tx.query(half, &[]).await.unwrap();
    assert_eq!(tx.query(half, &[]).await.unwrap_err().kind(), ErrorKind::AnswerTooLarge);
    assert_eq!(tx.query(SMALL, &[]).await.unwrap_err().kind(), ErrorKind::Statement);
    tx.rollback().await.unwrap();
    let read = house.freehold.begin_read(&acme, None).await.unwrap().max_bytes(1_000_000);
    let refused = { read }.query(LARGE, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AnswerTooLarge);
}

#[tokio::test]
async fn a_write_that_returns_too_much_is_rolled_back() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let mut tx = house.freehold.begin(&acme).await.unwrap().max_bytes(1_000_000);
    let refused = tx.query(INSERT, &[&"0123456789"]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AnswerTooLarge);
    assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Statement);
    let mut tx = house.freehold.begin(&acme).await.unwrap().max_bytes(1_000_000);
    let refused = tx.pipeline(&[(SMALL, &[]), (INSERT, &[&"0123456789"])]).await.unwrap_err();
    assert_eq!((refused.at(), refused.error().kind()), (Some(1), ErrorKind::AnswerTooLarge));
    drop(tx);
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

#[tokio::test]
async fn of_independent_statements_the_one_that_returns_too_much_fails_alone() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    for _ in 0..2 {
        let tx = house.freehold.begin(&acme).await.unwrap().max_bytes(1_000_000);
        let statements: [(&str, freehold::Params<'_>); 4] =
            [(SMALL, &[]), (LARGE, &[]), ("SELECT repeat('x', 900000)", &[]), (LARGE, &[])];
        let answers = tx.pipeline_each(&statements).await.unwrap();
        let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(|e| e.kind())).collect();
        let too_large = Some(ErrorKind::AnswerTooLarge);
        assert_eq!(kinds, [None, too_large, None, too_large]);
    }
}

#[tokio::test]
async fn a_budget_is_shared_until_its_shares_are_dropped() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let budget = Budget::new(1_500_000);
    let share = Arc::new(budget.share(1_100_000));
    let begin = async |share: &Arc<_>| {
        house.freehold.begin(&acme).await.unwrap().bounded_by(Arc::clone(share))
    };
    let rows = begin(&share).await.query_and_commit(LARGE, &[]).await.unwrap();
    assert!((1_000_000..1_010_000).contains(&budget.held()), "{}", budget.held());
    let other = Arc::new(budget.share(1_100_000));
    let refused = begin(&other).await.query_and_commit(LARGE, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    begin(&other).await.query_and_commit(SMALL, &[]).await.unwrap();
    // A refused answer holds no memory, nor does a half-read one.
    let refused = begin(&other).await.query_and_commit(MANY, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    drop((rows, share));
    begin(&other).await.query_and_commit(LARGE, &[]).await.unwrap();
    drop(other);
    let began = Instant::now();
    while budget.held() > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "{} bytes are held", budget.held());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
