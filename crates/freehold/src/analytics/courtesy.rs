//! Requests go first. A run shares processors with those who work meanwhile, perhaps on the same
//! machine: so it goes in small steps, and takes none while this server has requests under way.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::pool::Pool;

/// Rows that PostgreSQL handles in one step, where a run has to do with all tenants.
pub(crate) const AT_A_TIME: usize = 100;
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
        loop {
            let rows = tx.query_portal(&portal, AT_A_TIME as i32).await?;
            rows.iter().for_each(&mut take);
            if rows.len() < AT_A_TIME {
                break;
            }
            self.pause().await;
        }
        tx.commit().await?;
        Ok(())
    }
}
