//! Refuses a migration that changes, or depends on, anything outside of the schema in which it runs. It runs
//! again for every tenant, and each tenant's schema must be complete in itself: created, dropped, dumped and
//! restored without the others.
//!
//! Decided by PostgreSQL's catalogs rather than by the text. [`survey`] marks a point in the transaction;
//! [`refuse`] queries what happened after it: rows of the catalogs that a transaction of this range has
//! written (what was created, altered, granted), locks that it holds (what was dropped, commented or written
//! to, since DDL and writes hold theirs to the end), and dependencies of what is in the schema. Extensions
//! that a migration creates are permitted: a database has each once.
//!
//! The survey costs a millisecond. The query reads five catalogs once, whatever the migration did (figures in
//! docs/migrations.md), and runs once per migration, not per tenant.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TenantId;
use crate::schema::migration::Migration;
use crate::wire::{Connection, Row};

use self::finding::Finding;

mod finding;
mod question;

/// The most findings in one message; the others are reported once these are fixed.
const NAMED_MAX: usize = 5;

/// A point in the order of the transaction: later objects have no lower OID and were written by no lower
/// transaction id, both compared modulo wrap-around.
struct Mark {
    oid: u32,
    xid: String,
}

/// The state of a transaction before a migration.
pub(crate) struct Survey {
    schema: String,
    mark: Mark,
    /// The locks that it held, as PostgreSQL names them.
    locks: HashSet<(u32, u32, String)>,
    /// The number of rows that it had written, by table.
    written: HashMap<u32, i64>,
    extensions: Vec<u32>,
    /// The contents of the schema, which a migration may drop.
    inside: HashSet<(u32, u32)>,
    /// The owner and the privileges of the schema itself.
    rights: String,
}

/// Records the state of the transaction before a migration runs in the tenant's schema, and opens a
/// savepoint, which stays. The search path is unchanged.
pub(crate) async fn survey(client: &mut Connection, tenant: TenantId) -> Result<Survey> {
    let schema = tenant.schema();
    client.batch_execute("SAVEPOINT before_outside").await?;
    let mark = mark(client, &schema, "before_outside").await?;
    let rows = client.query_once(&question::simple(question::LOCKS), &[]).await?;
    let written = rows.iter().filter_map(|row| Some((row.get(1), row.get::<_, Option<i64>>(3)?)));
    let rows_of_extensions =
        client.query_once("SELECT oid FROM pg_catalog.pg_extension", &[]).await?;
    let inside = question::simple(question::INSIDE);
    let inside = client.query_once(&inside, &[&schema]).await?;
    Ok(Survey {
        inside: inside.iter().map(|row| (row.get(0), row.get(1))).collect(),
        locks: rows.iter().map(lock).collect(),
        written: written.collect(),
        extensions: rows_of_extensions.iter().map(|row| row.get(0)).collect(),
        rights: rights(client, &schema).await?,
        schema,
        mark,
    })
}

/// Fails if the migration, which has run since the survey, did anything outside of the schema; the error says
/// what, where, and what to do instead. Then the caller's transaction must fail.
///
/// Leaves the search path at `pg_catalog, pg_temp`.
pub(crate) async fn refuse(
    client: &mut Connection,
    before: &Survey,
    migration: &Migration,
) -> Result<()> {
    client
        .batch_execute("SET LOCAL search_path = pg_catalog, pg_temp; SAVEPOINT after_outside")
        .await?;
    let end = mark(client, &before.schema, "after_outside").await?;
    let mut findings = Vec::new();
    for sql in [question::DEPENDENCIES, question::WRITTEN, question::GRANTS] {
        let sql = question::complete(sql, before, &end);
        let rows = client.query_once(&sql, &[&before.schema]).await?;
        findings.extend(rows.iter().map(Finding::read));
    }
    let rights = rights(client, &before.schema).await?;
    if rights != before.rights {
        findings.push(Finding::own_schema(&before.schema));
    }
    let gone = ask_locks(client, before, &end, &mut findings).await?;
    if !gone.is_empty() {
        // The names of dropped objects are readable in the previous state; the transaction is going to fail
        // anyway.
        client.batch_execute("ROLLBACK TO SAVEPOINT before_outside").await?;
        let (classes, objects): (Vec<u32>, Vec<u32>) = gone.into_iter().unzip();
        let rows = client
            .query_once(&question::simple(question::DROPPED), &[&before.schema, &classes, &objects])
            .await?;
        findings.extend(rows.iter().map(Finding::read));
        // The migration has been rolled back, so it must not pass, whatever was found.
        if rows.is_empty() {
            findings.push(Finding::dropped_unknown());
        }
    }
    let text = &migration.statements;
    finding::distinct(&mut findings, text);
    if findings.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = findings.iter().take(NAMED_MAX).map(|f| f.sentence(text)).collect();
    let more = match findings.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let message = format!("{}{}{more}", migration.label, named.join("; and"));
    Err(Error::new(ErrorKind::Migration, message))
}

/// Checks the locks that were taken since the survey: writes and alterations become findings; objects that no
/// longer exist and were not created since are returned.
async fn ask_locks(
    client: &mut Connection,
    before: &Survey,
    end: &Mark,
    findings: &mut Vec<Finding>,
) -> Result<Vec<(u32, u32)>> {
    let (mut held, mut gone) = (HashSet::new(), Vec::new());
    for row in client.query_once(&question::simple(question::LOCKS), &[]).await? {
        let (class, object): (u32, u32) = (row.get(0), row.get(1));
        let written: Option<i64> = row.get(3);
        let wrote =
            written.is_some_and(|now| now > before.written.get(&object).copied().unwrap_or(0));
        if before.locks.contains(&lock(&row)) && !wrote {
            continue;
        }
        let exists: bool = row.get(4);
        if exists {
            held.insert((class, object));
        } else if !is_between(object, before.mark.oid, end.oid)
            && !before.inside.contains(&(class, object))
        {
            gone.push((class, object));
        }
    }
    let (classes, objects): (Vec<u32>, Vec<u32>) = held.into_iter().unzip();
    let sql = question::complete(question::HELD, before, end);
    let rows = client.query_once(&sql, &[&before.schema, &classes, &objects]).await?;
    findings.extend(rows.iter().map(Finding::read));
    Ok(gone)
}

fn lock(row: &Row) -> (u32, u32, String) {
    (row.get(0), row.get(1), row.get(2))
}

/// Whether an OID was assigned between two marks. PostgreSQL counts OIDs in 32 bits and wraps around.
fn is_between(oid: u32, from: u32, to: u32) -> bool {
    oid.wrapping_sub(from) <= to.wrapping_sub(from)
}

/// Creates an object to learn an OID and a transaction id, and removes it. After ROLLBACK TO, the savepoint
/// continues as a subtransaction with a higher id.
async fn mark(client: &mut Connection, schema: &str, savepoint: &str) -> Result<Mark> {
    let name = "mark of freehold";
    client.batch_execute(&format!("CREATE DOMAIN {schema}.\"{name}\" AS pg_catalog.int4")).await?;
    let sql = "SELECT oid, xmin::text FROM pg_catalog.pg_type
        WHERE typname = $1::text AND typnamespace = $2::text::regnamespace";
    let rows = client.query_once(sql, &[&name, &schema]).await?;
    let row = rows.first().ok_or_else(|| {
        Error::new(ErrorKind::Internal, "the place in a migration's transaction cannot be read")
    })?;
    let mark = Mark { oid: row.get(0), xid: row.get(1) };
    client.batch_execute(&format!("ROLLBACK TO SAVEPOINT {savepoint}")).await?;
    Ok(mark)
}

async fn rights(client: &mut Connection, schema: &str) -> Result<String> {
    let sql = "SELECT concat_ws(' ', nspowner, nspacl::text) FROM pg_catalog.pg_namespace
        WHERE nspname = $1::text";
    let rows = client.query_once(sql, &[&schema]).await?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_in_a_circle() {
        assert!(is_between(5, 3, 9) && !is_between(2, 3, 9) && !is_between(10, 3, 9));
        assert!(is_between(16_400, u32::MAX - 7, 16_500));
        assert!(!is_between(16_501, u32::MAX - 7, 16_500));
    }
}
