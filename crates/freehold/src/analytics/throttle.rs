//! Throttle: requests go first. A run shares CPUs with other work, perhaps on the same machine, so it
//! proceeds in small steps, and pauses while this server has requests under way.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::pool::Pool;

/// The target duration of a reading step, adjusted by its number of rows. With a distant PostgreSQL, shorter
/// steps would spend more time in transit than at work.
const STEP: Duration = Duration::from_micros(500);
const ROWS_MIN: i32 = 50;
const ROWS_MAX: i32 = 1000;
/// The longest pause before a step. A server that is always busy slows a run down, but does not stop it.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// Knows which requests are under way.
#[derive(Clone)]
pub(crate) struct Throttle {
    requests: Pool,
}

impl Throttle {
    pub(crate) fn to(requests: Pool) -> Throttle {
        Throttle { requests }
    }

    /// Before each step: lets requests that are under way finish.
    pub(crate) async fn pause(&self) {
        // A timeout is as good as success.
        let _ = tokio::time::timeout(PAUSE_MAX, self.requests.rest()).await;
    }

    /// Runs a query with many rows, a few at a time.
    pub(crate) async fn query(
        &self,
        client: &mut Client,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        mut take: impl FnMut(&Row),
    ) -> Result<()> {
        self.pause().await;
        let tx = client.transaction().await?;
        let portal = tx.bind(sql, params).await?;
        let mut at_a_time = ROWS_MIN;
        loop {
            let began = Instant::now();
            let rows = tx.query_portal(&portal, at_a_time).await?;
            let took = began.elapsed();
            rows.iter().for_each(&mut take);
            if rows.len() < at_a_time as usize {
                break;
            }
            at_a_time = next(at_a_time, took);
            self.pause().await;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// How many rows to read next, after this many took this long.
fn next(rows: i32, took: Duration) -> i32 {
    let fitting = f64::from(rows) * STEP.div_duration_f64(took.max(Duration::from_micros(1)));
    (fitting as i32).clamp(rows / 2, rows * 2).clamp(ROWS_MIN, ROWS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_to_take_as_long_as_they_may() {
        for (way, per_row, expected) in [
            (0, 0, ROWS_MAX),
            (0, 2, 250),
            (100, 2, 200),
            (0, 9, 55),
            (0, 100, ROWS_MIN),
            (2_000, 1, ROWS_MIN),
        ] {
            let mut rows = ROWS_MIN;
            for _ in 0..50 {
                rows = next(rows, Duration::from_micros(way + rows as u64 * per_row));
            }
            assert!(rows.abs_diff(expected) <= 1, "{way} and {per_row} µs: {rows}");
        }
    }
}
