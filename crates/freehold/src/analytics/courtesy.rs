//! Requests go first. A run shares processors with those who work meanwhile, perhaps on the same
//! machine: so it goes in small steps, and takes none while this server has requests under way.

use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::pool::Pool;

/// Rows that are read in one step, at first: then as many as take so long.
const READ_AT_FIRST: i32 = 20;
const STEP: Duration = Duration::from_micros(500);
/// The longest that a step waits. A server that is never at rest slows a run, and stops none.
const PAUSE_MAX: Duration = Duration::from_millis(2);

/// Knows of the requests.
#[derive(Clone)]
pub(crate) struct Courtesy {
    requests: Pool,
}

impl Courtesy {
    pub(crate) fn to(requests: Pool) -> Courtesy {
        Courtesy { requests }
    }

    /// Before each step: lets requests that are under way come to their end.
    pub(crate) async fn pause(&self) {
        // Late is as good as in time.
        let _ = tokio::time::timeout(PAUSE_MAX, self.requests.rest()).await;
    }

    /// Runs a query of many rows, some at a time.
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
        let mut at_a_time = READ_AT_FIRST;
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

/// How many rows to read after so many took so long.
fn next(rows: i32, took: Duration) -> i32 {
    let fitting = f64::from(rows) * STEP.div_duration_f64(took.max(Duration::from_micros(1)));
    (fitting as i32).clamp(rows / 2, rows * 2).clamp(1, 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_to_take_as_long_as_they_may() {
        for micros_per_row in [0, 1, 7, 100, 2_000] {
            let mut rows = READ_AT_FIRST;
            for _ in 0..20 {
                rows = next(rows, Duration::from_micros(rows as u64 * micros_per_row));
            }
            let expected = 500_u64.checked_div(micros_per_row).unwrap_or(1000).clamp(1, 1000);
            assert!(rows.abs_diff(expected as i32) <= 1, "{micros_per_row} µs: {rows}");
        }
    }
}
