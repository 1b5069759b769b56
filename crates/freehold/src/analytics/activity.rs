//! Which tenants changed since they were collected, told by PostgreSQL's own counts of rows
//! inserted, updated and deleted in each table: one query for the whole fleet.
//!
//! A backend adds its changes to the counts after they are committed, within a second mostly and
//! within about a minute. So what the counts contain can be read; what they don't contain yet
//! makes them differ later. The counts are taken before the tenants are read, and nothing is
//! lost, but a change may be noticed one run later. Where they cannot be relied on (they are
//! switched off, or began anew after a crash), everybody counts as changed.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::analytics::rollup::Rollup;
use crate::analytics::throttle::Throttle;
use crate::error::Result;

/// A transaction's changes carry the time of its begin, so one that was under way when its tenant
/// was read has older ones than that. One that takes longer is found by the next full collection.
const LATE_MAX: Duration = Duration::from_secs(15 * 60);
/// All rows of a tenant are collected again after this long, whatever a watermark says.
const FULL_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What was counted in the tables that a definition reads of one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) inserted: i64,
    pub(crate) updated: i64,
    pub(crate) deleted: i64,
    /// Changes when a table is truncated, made or rewritten.
    pub(crate) files: i64,
}

/// How far a tenant was when the run began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Collected {
    pub(crate) at: Option<Timestamp>,
    pub(crate) full_at: Option<Timestamp>,
    pub(crate) counts: Option<Counts>,
    pub(crate) failed: bool,
}

/// What is to be done for one tenant and definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// It is as it was.
    Nothing,
    /// Groups that changed after this time.
    Since(Timestamp),
    All,
}

/// Since when counts have been kept without a gap; `None` if they are not.
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

/// The counts of every tenant, by the place of the definition in `rollups`.
pub(crate) async fn count(
    client: &mut Client,
    throttle: &Throttle,
    rollups: &[Rollup],
) -> Result<HashMap<(usize, Uuid), Counts>> {
    // `None`: one of them reads any table.
    let tables: Option<Vec<&String>> = rollups
        .iter()
        .map(|rollup| rollup.tables.as_ref())
        .collect::<Option<Vec<_>>>()
        .map(|tables| tables.into_iter().flatten().collect());
    // Counts of others are not even looked up. Schemas are looked up rather than joined, which would
    // depend on how many of them PostgreSQL takes there to be.
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

/// What a tenant needs. `counts` are those of this moment; without them it counts as changed.
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
    // A row that is gone, or has gone to another group, raises no watermark.
    let only_grew = before.deleted == counts.deleted
        && before.files == counts.files
        && (!watermark.inserts_only || before.updated == counts.updated);
    match at.checked_sub(LATE_MAX) {
        Ok(since) if only_grew => Work::Since(since),
        _ => Work::All,
    }
}
