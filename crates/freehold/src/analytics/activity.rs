//! Which tenants changed since they were collected, judged by PostgreSQL's own counts of rows inserted,
//! updated and deleted in each table: one query for the whole fleet.
//!
//! A backend adds its changes to the counts after they are committed, usually within a second and at the
//! latest in about a minute. So changes in the counts can be read, and changes that are missing will make the
//! counts differ later. The counts are taken before the tenants are read, so no change is lost, but one may
//! be noticed a run later. If the counts are unreliable (switched off, or reset after a crash), every tenant
//! counts as changed.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::analytics::rollup::Rollup;
use crate::analytics::throttle::Throttle;
use crate::error::Result;

/// Changes carry the time at which their transaction began, so a transaction under way while its tenant was
/// read has changes older than that. A longer transaction is covered by the next full collection.
const LATE_MAX: Duration = Duration::from_secs(15 * 60);
/// All rows of a tenant are collected again after this long, whatever its watermark.
const FULL_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The counts of the tables that a definition reads, for one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) inserted: i64,
    pub(crate) updated: i64,
    pub(crate) deleted: i64,
    /// Differs when a table is truncated, created or rewritten.
    pub(crate) files: i64,
}

/// The state of a tenant's collection when the run began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Collected {
    pub(crate) at: Option<Timestamp>,
    pub(crate) full_at: Option<Timestamp>,
    pub(crate) counts: Option<Counts>,
    pub(crate) failed: bool,
}

/// The work for one tenant and definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Unchanged.
    Nothing,
    /// Groups that changed after this time.
    Since(Timestamp),
    All,
}

/// The time since which counts are complete; `None` if they are not.
pub(crate) async fn counted_since(client: &Client) -> Result<Option<String>> {
    let row = client
        .query_one(
            "SELECT CASE WHEN current_setting('track_counts')::bool THEN concat_ws(' ',
                pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time(),
                pg_stat_get_db_stat_reset_time((SELECT oid FROM pg_database WHERE datname = current_database()))) END",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

/// The counts of every tenant, by the index of the definition in `rollups`.
pub(crate) async fn count(
    client: &mut Client,
    throttle: &Throttle,
    rollups: &[Rollup],
) -> Result<HashMap<(usize, Uuid), Counts>> {
    // `None`: one of them may read any table.
    let tables: Option<Vec<&String>> = rollups
        .iter()
        .map(|rollup| rollup.tables.as_ref())
        .collect::<Option<Vec<_>>>()
        .map(|tables| tables.into_iter().flatten().collect());
    // Counts of other tables are not looked up. Schemas are looked up rather than joined, since a join would
    // depend on the estimated number of schemas.
    let sql = "SELECT s.name, substr(s.schema, 8)::uuid, s.inserted, s.updated, s.deleted, s.oid + s.file
             FROM (SELECT c.relnamespace::regnamespace::text AS schema,
                          c.relname::text AS name, c.oid::bigint AS oid, c.relfilenode::bigint AS file,
                          pg_stat_get_tuples_inserted(c.oid) AS inserted, pg_stat_get_tuples_updated(c.oid) AS updated,
                          pg_stat_get_tuples_deleted(c.oid) AS deleted
                   FROM pg_class c WHERE c.relkind = 'r' AND ($1::text[] IS NULL OR c.relname = ANY($1)) OFFSET 0) s
             WHERE s.schema ~ '^tenant_[0-9a-f]{32}$'";
    let mut sums: HashMap<_, Counts> = HashMap::new();
    let add = |row: &Row| {
        let (table, tenant): (&str, Uuid) = (row.get(0), row.get(1));
        for (place, rollup) in rollups.iter().enumerate() {
            let reads = |tables: &Vec<String>| tables.iter().any(|name| name == table);
            if !rollup.tables.as_ref().is_none_or(reads) {
                continue;
            }
            let sum = sums.entry((place, tenant)).or_default();
            sum.inserted += row.get::<_, i64>(2);
            sum.updated += row.get::<_, i64>(3);
            sum.deleted += row.get::<_, i64>(4);
            sum.files += row.get::<_, i64>(5);
        }
    };
    throttle.query(client, sql, &[&tables], add).await?;
    Ok(sums)
}

/// The work for a tenant. `counts` are the current ones; without them it counts as changed.
pub(crate) fn work(
    rollup: &Rollup,
    collected: &Collected,
    counts: Option<Counts>,
    now: Timestamp,
) -> Work {
    let Some(watermark) = &rollup.definition.watermark else { return Work::All };
    let (Some(at), Some(full_at)) = (collected.at, collected.full_at) else { return Work::All };
    let age = |of: Timestamp, most: Duration| now.duration_since(of).unsigned_abs() >= most;
    if collected.failed || age(full_at, FULL_EVERY) {
        return Work::All;
    }
    let (Some(before), Some(counts)) = (collected.counts, counts) else { return Work::All };
    if before == counts {
        return Work::Nothing;
    }
    // A row that was deleted or moved to another group does not raise the watermark.
    let only_grew = before.deleted == counts.deleted
        && before.files == counts.files
        && (!watermark.inserts_only || before.updated == counts.updated);
    match at.checked_sub(LATE_MAX) {
        Ok(since) if only_grew => Work::Since(since),
        _ => Work::All,
    }
}
