//! What is published beside the figures: their age, and how many tenants they cover.

use std::iter;

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use crate::analytics::throttle::Throttle;
use crate::error::Result;
use crate::model::ids::TenantId;

/// The number of tenants that are counted in one step: counting one takes less than reading or writing a row.
const AT_A_TIME: usize = 500;

/// The number of active tenants, and how fresh the figures of how many of them are.
#[derive(Default)]
pub(crate) struct Coverage {
    oldest_as_of: Option<Timestamp>,
    tenants: i32,
    fresh: i32,
    failed: i32,
    missing: i32,
}

impl Coverage {
    /// Counts in steps, consistently because of `tx`'s snapshot. Steps end at some of `tenants`, which are
    /// ordered by id; a tenant that was created since falls between two of them.
    pub(crate) async fn count(
        tx: &Transaction<'_>,
        throttle: &Throttle,
        name: &String,
        as_of: Timestamp,
        tenants: impl Iterator<Item = TenantId>,
    ) -> Result<Coverage> {
        let statement = tx.prepare(COUNT_SQL).await?;
        let ends = tenants.step_by(AT_A_TIME).skip(1).map(|tenant| tenant.as_uuid());
        let mut from = Uuid::nil();
        let mut coverage = Coverage::default();
        for to in ends.chain(iter::once(Uuid::max())) {
            throttle.pause().await;
            let params: &[&(dyn ToSql + Sync)] = &[name, &as_of, &from, &to];
            coverage.add(&tx.query_one(&statement, params).await?);
            from = to;
        }
        Ok(coverage)
    }

    fn add(&mut self, row: &Row) {
        let oldest: Option<Timestamp> = row.get(0);
        self.oldest_as_of = self.oldest_as_of.into_iter().chain(oldest).min();
        self.tenants += row.get::<_, i32>(1);
        self.fresh += row.get::<_, i32>(2);
        self.failed += row.get::<_, i32>(3);
        self.missing += row.get::<_, i32>(4);
    }

    /// Stores the coverage of what `tx` publishes.
    pub(crate) async fn publish(
        &self,
        tx: &Transaction<'_>,
        name: &String,
        as_of: Timestamp,
        withheld: i32,
    ) -> Result<()> {
        let Coverage { oldest_as_of, tenants, fresh, failed, missing } = self;
        tx.execute(
            PUBLISH_SQL,
            &[name, &as_of, oldest_as_of, tenants, fresh, failed, missing, &withheld],
        )
        .await?;
        Ok(())
    }
}

/// Of tenants from `$3` on and before `$4`.
const COUNT_SQL: &str = "
SELECT min(c.collected_at), count(*)::int,
       (count(*) FILTER (WHERE c.error IS NULL AND c.collected_at >= $2))::int,
       (count(*) FILTER (WHERE c.error IS NOT NULL))::int,
       (count(*) FILTER (WHERE c.collected_at IS NULL))::int
FROM freehold.tenant t LEFT JOIN freehold.analytics_collection c
  ON c.tenant_id = t.id AND c.name = $1 AND c.tenant_id >= $3 AND c.tenant_id < $4
WHERE t.status = 'active' AND t.id >= $3 AND t.id < $4";

const PUBLISH_SQL: &str = "
INSERT INTO freehold.analytics_publication AS p
  (name, published_at, as_of, oldest_as_of, tenants, fresh, failed, missing, withheld)
VALUES ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (name) DO UPDATE SET published_at = excluded.published_at, as_of = excluded.as_of,
  oldest_as_of = excluded.oldest_as_of, tenants = excluded.tenants, fresh = excluded.fresh,
  failed = excluded.failed, missing = excluded.missing, withheld = excluded.withheld";
