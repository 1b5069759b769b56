use super::*;

const ONE: Statements<'_> = Statements::One("SELECT 1");

fn id(n: u128) -> TenantId {
    TenantId::from(Uuid::from_u128(n))
}

fn one(rows: u64) -> Usage {
    Usage { queries: 1, rows, time_us: 10, ..Usage::default() }
}

fn total(insight: &Insight) -> u64 {
    insight.series().iter().map(|series| series.usage.queries).sum()
}

#[test]
fn memory_and_series_stay_bounded_however_many_tenants_and_tables_there_are() {
    let insight = Insight::new(InsightOptions::default());
    for n in 1..=200_000_u128 {
        insight.add(id(n), insight.table(&format!("t{}", n % 1000)), &one(1));
    }
    let held: usize = insight.0.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
    assert!(held <= SHARDS * (SHARD_ENTRIES_MAX + 1), "{held}");
    assert_eq!(total(&insight), 200_000, "nothing is lost to the sum");
    for n in 1..=200_000_u128 {
        insight.add(id(n), insight.table(&format!("t{}", n % 1000)), &one(1));
    }
    let series = insight.series();
    assert!(series.len() <= (20 + 1) * TABLES_MAX, "{}", series.len());
    assert_eq!(total(&insight), 400_000);
}

#[test]
fn figures_are_handed_out_until_they_are_written_and_then_never_again() {
    let insight = Insight::new(InsightOptions::default());
    let orders = insight.table("orders");
    insight.add(id(1), orders, &one(2));
    let first = insight.batch().unwrap();
    insight.add(id(1), orders, &one(3));
    let again = insight.batch().unwrap();
    assert_eq!((first.number, first.rows[0].2.rows), (again.number, again.rows[0].2.rows));
    insight.written();
    let second = insight.batch().unwrap();
    assert_eq!((second.number, second.rows[0].2.rows), (first.number + 1, 3));
    assert_eq!(&*second.rows[0].1, "orders");
    insight.written();
    assert!(insight.batch().is_none());
}

#[tokio::test]
async fn a_statement_that_is_given_up_is_counted_as_an_error() {
    let insight = Insight::new(InsightOptions::default());
    let context = TenantContext::new(id(1), crate::model::actor::Actor::SYSTEM);
    let mut counting = Counting::new(Duration::from_micros(7));
    let [good, bad] = [Ok(3), Err(())];
    insight.watch(&mut counting, &context, ONE).end(&[good], |rows| *rows);
    insight.watch(&mut counting, &context, ONE).end(&[bad], |rows: &u64| *rows);
    drop(insight.watch(&mut counting, &context, ONE));
    let usage = insight.batch().unwrap().rows[0].2;
    assert_eq!((usage.queries, usage.rows, usage.errors, usage.wait_us), (3, 3, 2, 7));
}

/// Measures the cost: `cargo test --release -p freehold --lib insight -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_counting_costs() {
    let insight = Insight::new(InsightOptions::default());
    let context = |n| TenantContext::new(id(n), crate::model::actor::Actor::SYSTEM);
    for (threads, tenants) in [(1, 100), (1, 20_000), (2, 100), (2, 20_000)] {
        const ROUNDS: u32 = 2_000_000;
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for n in 0..ROUNDS {
                        let mut counting = Counting::new(Duration::ZERO);
                        counting.table = insight.table("orders");
                        let context = context(u128::from(n.wrapping_mul(2_654_435_761) % tenants));
                        insight
                            .watch(&mut counting, &context, ONE)
                            .end(&[Ok::<u64, ()>(20)], |rows| *rows);
                    }
                });
            }
        });
        println!(
            "{threads} threads, {tenants} tenants: {:?} a statement",
            began.elapsed() / ROUNDS
        );
        insight.series();
    }
}
