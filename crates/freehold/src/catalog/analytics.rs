//! `freehold.analytics` and related tables: definitions, the progress of each tenant, and the figures.

use jiff::Timestamp;
use uuid::Uuid;

use crate::analytics::rollup::{Column, Rollup};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::policy::quote_ident;
use crate::tx::CatalogTx;

/// The publication in a row, for rows of any driver; `None` if nothing was published.
macro_rules! publication {
    ($row:expr) => {{
        let row = $row;
        row.get::<_, Option<Timestamp>>("published_at").map(|published_at| AnalyticsPublication {
            published_at,
            as_of: row.get("as_of"),
            oldest_as_of: row.get("oldest_as_of"),
            tenants: row.get("tenants"),
            fresh: row.get("fresh"),
            failed: row.get("failed"),
            missing: row.get("missing"),
            withheld: row.get("withheld"),
        })
    }};
}

/// A definition as it was applied.
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) checksum: String,
    pub(crate) rollup: Rollup,
}

/// What published figures are based on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AnalyticsPublication {
    /// When they were published.
    pub published_at: Timestamp,
    /// Every tenant that counts as fresh has figures of this time or later.
    pub as_of: Timestamp,
    /// The age of the oldest figures of an active tenant in it.
    pub oldest_as_of: Option<Timestamp>,
    /// Active tenants.
    pub tenants: i32,
    /// How many of them were collected by the run that published, or are known to be unchanged.
    pub fresh: i32,
    /// Tenants that could not be collected; their previous figures are included.
    pub failed: i32,
    /// Tenants that were never collected; they are not included.
    pub missing: i32,
    /// Groups of fewer tenants than the definition's minimum, which are not shown.
    pub withheld: i32,
}

impl AnalyticsPublication {
    /// The fraction of active tenants that are fresh; 1 if there are none.
    pub fn coverage(&self) -> f64 {
        if self.tenants == 0 { 1.0 } else { f64::from(self.fresh) / f64::from(self.tenants) }
    }

    /// Whether every active tenant is fresh.
    pub fn is_complete(&self) -> bool {
        self.fresh == self.tenants
    }
}

/// Rows, with the cursor of the next page.
pub(crate) struct Page {
    /// A JSON array of objects.
    pub(crate) rows: String,
    /// Where the next page begins.
    pub(crate) next: Option<String>,
    pub(crate) publication: Option<AnalyticsPublication>,
    pub(crate) collected_at: Option<Timestamp>,
}

/// Whose rows are requested.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    Fleet,
    EveryTenant,
    Tenant(Uuid),
}

/// Every definition, in the order of names, locked until the transaction ends.
pub(crate) async fn lock_all(tx: &mut CatalogTx) -> Result<Vec<Known>> {
    tx.execute("SET LOCAL lock_timeout = '10s'", &[]).await?;
    tx.execute("LOCK TABLE freehold.analytics IN SHARE ROW EXCLUSIVE MODE", &[]).await?;
    let rows = tx
        .query("SELECT name, checksum, rollup FROM freehold.analytics ORDER BY name", &[])
        .await?;
    rows.iter()
        .map(|row| {
            let rollup = Rollup::from_json(row.get(2))?;
            Ok(Known { name: row.get(0), checksum: row.get(1), rollup })
        })
        .collect()
}

pub(crate) async fn insert(tx: &mut CatalogTx, rollup: &Rollup) -> Result<()> {
    let definition = &rollup.definition;
    tx.execute(
        "INSERT INTO freehold.analytics (name, checksum, source, rollup, schedule_secs)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, source = excluded.source,
           rollup = excluded.rollup, schedule_secs = excluded.schedule_secs, applied_at = now()",
        &[
            &definition.name,
            &definition.checksum(),
            &definition.source,
            &rollup.to_json(),
            &(definition.schedule.as_secs() as i32),
        ],
    )
    .await?;
    Ok(())
}

/// Also deletes the progress of every tenant, and what was published.
pub(crate) async fn delete(tx: &mut CatalogTx, name: &str) -> Result<()> {
    tx.execute("DELETE FROM freehold.analytics WHERE name = $1", &[&name]).await?;
    Ok(())
}

/// Definitions that are due, or whose last run was interrupted.
pub(crate) async fn list_due(tx: &mut CatalogTx) -> Result<Vec<String>> {
    let rows = tx
        .query(
            "SELECT a.name FROM freehold.analytics a LEFT JOIN freehold.analytics_run r USING (name)
             WHERE r.finished_at IS NULL OR r.started_at + make_interval(secs => a.schedule_secs) <= clock_timestamp()
             ORDER BY a.name",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A definition, the error if its last run failed as a whole, and the publication.
pub(crate) type Status = (Rollup, Option<String>, Option<AnalyticsPublication>);

pub(crate) async fn list(tx: &mut CatalogTx) -> Result<Vec<Status>> {
    let sql = format!(
        "SELECT {PUBLICATION}, a.rollup, r.error
         FROM freehold.analytics a LEFT JOIN freehold.analytics_publication p USING (name)
         LEFT JOIN freehold.analytics_run r USING (name) ORDER BY a.name"
    );
    let rows = tx.query(&sql, &[]).await?;
    rows.iter()
        .map(|row| Ok((Rollup::from_json(row.get("rollup"))?, row.get("error"), publication!(row))))
        .collect()
}

/// The definitions, and the progress of the context's tenant for each.
pub(crate) async fn list_of_tenant(
    tx: &mut CatalogTx,
    tenant: Uuid,
) -> Result<Vec<(Rollup, Option<Timestamp>)>> {
    let rows = tx
        .query(
            "SELECT a.rollup, c.collected_at FROM freehold.analytics a
             LEFT JOIN freehold.analytics_collection c ON c.name = a.name AND c.tenant_id = $1
             ORDER BY a.name",
            &[&tenant],
        )
        .await?;
    rows.iter().map(|row| Ok((Rollup::from_json(row.get(0))?, row.get(1)))).collect()
}

pub(crate) async fn find(tx: &mut CatalogTx, name: &str) -> Result<Option<Rollup>> {
    let row =
        tx.query_opt("SELECT rollup FROM freehold.analytics WHERE name = $1", &[&name]).await?;
    row.map(|row| Rollup::from_json(row.get(0))).transpose()
}

/// Tenants that could not be collected: the slug, the error, when, and the age of the figures.
pub(crate) async fn list_failures(
    tx: &mut CatalogTx,
    name: &str,
    limit: i64,
) -> Result<Vec<(String, String, Timestamp, Option<Timestamp>)>> {
    let rows = tx
        .query(
            "SELECT t.slug, c.error, c.failed_at, c.collected_at
             FROM freehold.analytics_collection c JOIN freehold.tenant t ON t.id = c.tenant_id
             WHERE c.name = $1 AND c.error IS NOT NULL ORDER BY c.failed_at DESC, t.slug LIMIT $2",
            &[&name, &limit],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect())
}

/// A page of figures, in the order of the grain. One statement, so that the coverage is of the same moment.
pub(crate) async fn read(
    tx: &mut CatalogTx,
    rollup: &Rollup,
    of: Of,
    newest_first: bool,
    after: Option<&str>,
    limit: i64,
) -> Result<Page> {
    let sql = read_sql(rollup, of, newest_first);
    let name = rollup.name();
    let rows = match &of {
        Of::Tenant(tenant) => tx.query(&sql, &[&after, &limit, &name, tenant]).await,
        Of::Fleet | Of::EveryTenant => tx.query(&sql, &[&after, &limit, &name]).await,
    };
    let rows = rows.map_err(|error| match error.database() {
        Some(db) if after.is_some() && db.code().code().starts_with("22") => {
            Error::new(ErrorKind::InvalidInput, "after is not what `next` of a page said")
                .field("after")
                .because(error)
        }
        _ => error,
    })?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Internal, "a page is no row"))?;
    let full = row.get::<_, i64>("count") == limit;
    Ok(Page {
        rows: row.get("rows"),
        next: row.get::<_, Option<String>>("last").filter(|_| full),
        publication: publication!(row),
        collected_at: row.get("collected_at"),
    })
}

const PUBLICATION: &str =
    "p.published_at, p.as_of, p.oldest_as_of, p.tenants, p.fresh, p.failed, p.missing, p.withheld";

fn read_sql(rollup: &Rollup, of: Of, newest_first: bool) -> String {
    let quoted = |c: &Column| quote_ident(&c.name);
    let (mut columns, mut keys, mut types) = (Vec::new(), Vec::new(), Vec::new());
    let (source, filter) = match of {
        Of::Fleet => (format!("{} r", rollup.published_view()), "true"),
        Of::EveryTenant => {
            columns.push("t.slug AS tenant".to_owned());
            keys.push(("t.slug".to_owned(), "tenant".to_owned()));
            types.push("text");
            let source =
                format!("{} r JOIN freehold.tenant t ON t.id = r.tenant_id", rollup.rollup_table());
            (source, "true")
        }
        Of::Tenant(_) => (format!("{} r", rollup.rollup_table()), "r.tenant_id = $4"),
    };
    for column in &rollup.grain {
        keys.push((format!("r.{}", quoted(column)), quoted(column)));
        types.push(&column.type_name);
    }
    columns.extend(rollup.grain.iter().map(|c| format!("r.{}", quoted(c))));
    if matches!(of, Of::Fleet) {
        columns.push("r.tenants".to_owned());
    }
    columns.extend(rollup.measures.iter().map(|c| format!("r.{}", quoted(c))));
    let (direction, opposite, beyond) =
        if newest_first { ("DESC", "ASC", "<") } else { ("ASC", "DESC", ">") };
    let ordered = |place: fn(&(String, String)) -> &String, direction: &str| {
        keys.iter().map(|key| format!("{} {direction}", place(key))).collect::<Vec<_>>().join(", ")
    };
    let listed = |place: fn(&(String, String)) -> &String| {
        keys.iter().map(|key| place(key).as_str()).collect::<Vec<_>>().join(", ")
    };
    let cursor: Vec<_> =
        types.iter().enumerate().map(|(n, t)| format!("($1::text::json->>{n})::{t}")).collect();
    let last: Vec<_> = keys.iter().map(|(_, name)| format!("{name}::text")).collect();
    // For one tenant: its own progress. Row-level security limits a tenant to its own rows, and hides the
    // publication.
    let collected = match of {
        Of::Tenant(_) => {
            "(SELECT c.collected_at FROM freehold.analytics_collection c WHERE c.name = $3 AND c.tenant_id = $4)"
        }
        Of::Fleet | Of::EveryTenant => "NULL::timestamptz",
    };
    format!(
        "WITH page AS (
           SELECT {columns} FROM {source}
           WHERE {filter} AND ($1::text IS NULL OR ({key_list}) {beyond} ({cursor}))
           ORDER BY {key_order} LIMIT $2
         )
         SELECT (SELECT coalesce(json_agg(row_to_json(page) ORDER BY {name_order}), '[]')::text FROM page) AS rows,
                (SELECT json_build_array({last})::text FROM page ORDER BY {name_back} LIMIT 1) AS last,
                (SELECT count(*) FROM page) AS count, {collected} AS collected_at, {PUBLICATION}
         FROM (VALUES ($3::text)) AS asked (name) LEFT JOIN freehold.analytics_publication p USING (name)",
        columns = columns.join(", "),
        key_list = listed(|key| &key.0),
        key_order = ordered(|key| &key.0, direction),
        name_order = ordered(|key| &key.1, direction),
        name_back = ordered(|key| &key.1, opposite),
        cursor = cursor.join(", "),
        last = last.join(", "),
    )
}
