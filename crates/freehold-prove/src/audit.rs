//! The end of a run: an observer to whom no policy applies reads every row of every tenant's tables. Each
//! must belong to that tenant, and confirmed writes must be there.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use tokio_postgres::Client;

use crate::drops::PARTS;
use crate::ground::{CANARIES, NOBODY, Resident};
use crate::ledger::Rows;
use crate::worker::Book;
use crate::{Failure, Run};

/// By then, abandoned transactions have been rolled back.
const REST_MAX: Duration = Duration::from_secs(40);

const LEDGERS: &str = "the audit of ledgers";
const BATCHES: &str = "the audit of batches";

/// What the audit read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Audit {
    /// Tables, over all tenants.
    pub tables: u64,
    /// Rows, over all tables.
    pub rows: u64,
    /// Rows in the table of a tenant to which they do not belong.
    pub foreign_rows: u64,
    /// Batches, dropped or not: complete, or absent.
    pub batches: u64,
}

/// Reads everything after the last write.
pub(crate) async fn read_everything(run: &Run, books: &[Book]) -> Result<Audit, Failure> {
    let observer = &run.ground.observer;
    if !comes_to_rest(observer).await? {
        let words = "a transaction of the application is still open at the end";
        run.findings.fault("the audit of sessions", words);
    }
    let mut audit = Audit::default();
    for resident in &run.ground.residents {
        for table in list_tables(observer, resident).await? {
            audit.tables += 1;
            read_table(run, resident, &table, &mut audit).await?;
        }
        count_canaries(run, resident).await?;
        look_at_tickets(run, resident).await?;
        compare_ledgers(run, resident, books).await?;
        compare_batches(run, resident, books).await?;
    }
    audit.batches = books.iter().map(|book| book.batches.len() as u64).sum();
    Ok(audit)
}

async fn comes_to_rest(observer: &Client) -> Result<bool, Failure> {
    let began = Instant::now();
    loop {
        let row = observer
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND usename = 'freehold_app' AND xact_start IS NOT NULL",
                &[],
            )
            .await?;
        if row.get::<_, i64>(0) == 0 {
            return Ok(true);
        }
        if began.elapsed() > REST_MAX {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn list_tables(observer: &Client, resident: &Resident) -> Result<Vec<String>, Failure> {
    let rows = observer
        .query(
            "SELECT format('%I.%I', n.nspname, c.relname)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'm') ORDER BY c.relname",
            &[&resident.id.schema()],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn read_table(
    run: &Run,
    resident: &Resident,
    table: &str,
    audit: &mut Audit,
) -> Result<(), Failure> {
    let sql = format!("SELECT entry::text FROM {table} AS entry");
    let mut rows = pin!(run.ground.observer.query_raw(&sql, [0_i32; 0]).await?);
    while let Some(row) = rows.try_next().await? {
        let text: &str = row.get(0);
        audit.rows += 1;
        let sight = run.ground.watch.look(resident.number, text.as_bytes());
        if sight.foreign.is_some() || sight.own_marks == 0 {
            audit.foreign_rows += 1;
            let whose = match sight.foreign {
                Some((owner, _)) => format!("has something of tenant {owner}"),
                None => "does not name its owner".to_owned(),
            };
            let words = format!("a row of {table} {whose}: {text}");
            run.findings.leak("the audit of rows", &words);
        }
    }
    Ok(())
}

async fn count_canaries(run: &Run, resident: &Resident) -> Result<(), Failure> {
    let sql = format!("SELECT count(*) FROM {}.canaries", resident.id.schema());
    let count: i64 = run.ground.observer.query_one(&sql, &[]).await?.get(0);
    if count != CANARIES as i64 {
        let number = resident.number;
        let words = format!("tenant {number} has {count} canaries of {CANARIES}");
        run.findings.leak("the audit of canaries", &words);
    }
    Ok(())
}

/// No operation uses this sequence, so if it was advanced or set, another tenant did it.
async fn look_at_tickets(run: &Run, resident: &Resident) -> Result<(), Failure> {
    let schema = resident.id.schema();
    let sql = format!("SELECT last_value, is_called FROM {schema}.tickets");
    let row = run.ground.observer.query_one(&sql, &[]).await?;
    let (value, called): (i64, bool) = (row.get(0), row.get(1));
    if value != 1 || called {
        let words = format!("{schema}.tickets stands at {value}, and nobody has drawn from it");
        run.findings.leak("the audit of sequences", &words);
    }
    Ok(())
}

/// Exactly the rows whose writes were confirmed to a worker must be there.
async fn compare_ledgers(run: &Run, resident: &Resident, books: &[Book]) -> Result<(), Failure> {
    let sql = format!("SELECT worker, no, revision FROM {}.ledger", resident.id.schema());
    let mut found: BTreeMap<i32, Rows> = BTreeMap::new();
    for row in run.ground.observer.query(&sql, &[]).await? {
        found.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    found.remove(&NOBODY);
    for book in books {
        let found = found.remove(&book.worker).unwrap_or_default();
        let known = book.ledgers[resident.number].rows();
        if found != *known {
            let (number, worker) = (resident.number, book.worker);
            let words = format!(
                "worker {worker} wrote {known:?} for tenant {number}, and there is {found:?}"
            );
            match book.ledgers[resident.number].wrote(&found) {
                true => run.findings.fault(LEDGERS, &words),
                false => run.findings.leak(LEDGERS, &words),
            }
        }
    }
    for (worker, rows) in found {
        let number = resident.number;
        let words = format!("nobody wrote {rows:?} as worker {worker} for tenant {number}");
        run.findings.leak(LEDGERS, &words);
    }
    Ok(())
}

/// A batch must be complete or absent, belong to its tenant, and be there if it was confirmed.
async fn compare_batches(run: &Run, resident: &Resident, books: &[Book]) -> Result<(), Failure> {
    let sql = format!(
        "SELECT worker, batch, count(*) FROM {}.dropped GROUP BY worker, batch",
        resident.id.schema()
    );
    let mut found: BTreeMap<(i32, i32), i64> = BTreeMap::new();
    for row in run.ground.observer.query(&sql, &[]).await? {
        found.insert((row.get(0), row.get(1)), row.get(2));
    }
    for book in books {
        let batches = (0..).zip(&book.batches).filter(|(_, b)| b.tenant == resident.number);
        for (number, batch) in batches {
            let name = format!("batch {number} of worker {}", book.worker);
            match found.remove(&(book.worker, number)) {
                Some(PARTS) => {}
                None if !batch.acknowledged => {}
                None => {
                    run.findings.fault(BATCHES, &format!("{name} was confirmed and is not there"));
                }
                Some(parts) => {
                    run.findings.fault(BATCHES, &format!("{name} has {parts} parts of {PARTS}"));
                }
            }
        }
    }
    for ((worker, batch), _) in found {
        let number = resident.number;
        let words = format!(
            "batch {batch} of worker {worker} is in the tables of tenant {number}, who never sent it"
        );
        run.findings.leak(BATCHES, &words);
    }
    Ok(())
}
