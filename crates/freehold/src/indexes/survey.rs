//! Surveys of tenants' tables and indexes, and of PostgreSQL's counts of them.
//!
//! Each query covers many tenants and reads PostgreSQL's catalogs only: it opens no table, so it waits for no
//! lock, and sizes are those of the last VACUUM or ANALYZE.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{IndexColumn, IndexState, TenantIndex};
use crate::error::Result;
use crate::model::ids::{TEMPLATE_SCHEMA, TenantId};
use crate::schema::migration::Migration;
use crate::tx::CatalogTx;
use crate::wire::Row;

/// A tenant's tables at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    pub(crate) tenant: TenantId,
    pub(crate) now: Timestamp,
    /// Since when PostgreSQL has counted.
    pub(crate) counted_since: Timestamp,
    pub(crate) tables: Vec<Table>,
    pub(crate) hypopg_schema: Option<String>,
    /// Reads on replicas are not counted here.
    pub(crate) has_replicas: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Estimated by VACUUM and the statistics; 0 for a table without either.
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
    pub(crate) seq_scans: i64,
    pub(crate) seq_rows: i64,
    pub(crate) index_scans: i64,
    pub(crate) writes: i64,
    pub(crate) deletes: i64,
    pub(crate) columns: Vec<Column>,
    pub(crate) indexes: Vec<Index>,
    pub(crate) foreign_keys: Vec<ForeignKey>,
    /// Slow statements whose plan scans it.
    pub(crate) slow: Slow,
    /// When the newest migration that names it reached this tenant.
    pub(crate) migrated_at: Option<Timestamp>,
}

/// What `slow_log` has collected about a table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slow {
    /// Statements that differ not only in their values.
    pub(crate) statements: i64,
    pub(crate) count: i64,
    pub(crate) seconds: f64,
    pub(crate) last_at: Option<Timestamp>,
}

#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_name: String,
    pub(crate) bytes: i32,
    /// Whether `=`, and the comparisons by size, are leakproof: under row-level security other operators
    /// cannot use an index. `None` for a type without an order.
    pub(crate) equal_reaches: Option<bool>,
    pub(crate) range_reaches: Option<bool>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) unique: bool,
    /// It belongs to a constraint, a partition or the replica identity, so it cannot be dropped alone.
    pub(crate) fixed: bool,
    pub(crate) valid: bool,
    /// Columns and expressions, in order; those of INCLUDE are in `included`.
    pub(crate) columns: Vec<String>,
    /// The same, each with its operator class, collation and direction.
    pub(crate) keys: Vec<String>,
    pub(crate) descending: Vec<bool>,
    pub(crate) included: Vec<String>,
    /// The condition of a partial index.
    pub(crate) condition: Option<String>,
    pub(crate) bytes: i64,
    pub(crate) scans: i64,
    pub(crate) in_template: bool,
    /// When it was created for this tenant alone.
    pub(crate) made_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ForeignKey {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) refers_to: String,
}

impl Survey {
    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// An index and its table.
    pub(crate) fn index(&self, name: &str) -> Option<(&Table, &Index)> {
        let of = |table: &'_ Table| table.indexes.iter().position(|index| index.name == name);
        self.tables.iter().find_map(|table| of(table).map(|at| (table, &table.indexes[at])))
    }
}

impl Table {
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub(crate) fn reads(&self) -> i64 {
        self.seq_scans + self.index_scans
    }
}

impl Index {
    /// Whether its columns are these, in this order and with these directions.
    pub(crate) fn is_of(&self, columns: &[IndexColumn]) -> bool {
        columns
            .iter()
            .map(|by| (&by.name, by.descending))
            .eq(self.columns.iter().zip(self.descending.iter().copied()))
    }

    /// Whether it can find rows by these columns: they are its first columns, in any order.
    pub(crate) fn is_led_by(&self, columns: &[String]) -> bool {
        self.valid
            && self.condition.is_none()
            && self.method == "btree"
            && self.columns.len() >= columns.len()
            && self.columns[..columns.len()].iter().all(|column| columns.contains(column))
    }
}

/// Surveys tenants, or the template. `migrations` are the baseline's, and `recorded` the indexes by which
/// tenants differ from the template.
pub(crate) async fn survey(
    tx: &mut CatalogTx,
    tenants: &[TenantId],
    migrations: &[Migration],
    recorded: &[TenantIndex],
) -> Result<Vec<Survey>> {
    let schemas: Vec<String> = tenants.iter().map(TenantId::schema).collect();
    let mut tables = read_tables(tx, &schemas).await?;
    let mut add = |schema: &str, table: &str, put: &mut dyn FnMut(&mut Table)| {
        let of_schema = tables.get_mut(schema).into_iter().flatten();
        of_schema.filter(|known| known.name == table).for_each(put);
    };
    for row in read_columns(tx, &schemas).await? {
        add(row.get("schema"), row.get("relation"), &mut |table| table.columns.push(column(&row)));
    }
    for row in read_indexes(tx, &schemas).await? {
        add(row.get("schema"), row.get("relation"), &mut |table| {
            let index = index(&row);
            table.index_scans += index.scans;
            table.indexes.push(index);
        });
    }
    for row in read_slow(tx, tenants).await? {
        let slow = Slow {
            statements: row.get("statements"),
            count: row.get("count"),
            seconds: row.get("seconds"),
            last_at: row.get("last_at"),
        };
        add(row.get("schema"), row.get("relation"), &mut |table| table.slow = slow);
    }
    for row in read_foreign_keys(tx, &schemas).await? {
        add(row.get("schema"), row.get("relation"), &mut |table| {
            table.foreign_keys.push(foreign_key(&row));
        });
    }
    let mut surveys = read_times(tx, tenants).await?;
    for survey in &mut surveys {
        survey.tables = tables.remove(&survey.tenant.schema()).unwrap_or_default();
        for index in survey.tables.iter_mut().flat_map(|table| &mut table.indexes) {
            let made = |r: &&TenantIndex| {
                (r.tenant, r.state) == (survey.tenant, IndexState::Created) && r.name == index.name
            };
            index.made_at = recorded.iter().find(made).and_then(|record| record.changed_at);
        }
    }
    date_tables(tx, &mut surveys, migrations).await?;
    Ok(surveys)
}

/// An index that a migration created yesterday has not been read for a month, which means nothing. PostgreSQL
/// does not record the age of an index, so the newest migration that names its table is used.
async fn date_tables(
    tx: &mut CatalogTx,
    surveys: &mut [Survey],
    migrations: &[Migration],
) -> Result<()> {
    let mut newest: HashMap<String, i64> = HashMap::new();
    for table in surveys.iter().flat_map(|survey| &survey.tables) {
        if !newest.contains_key(&table.name) {
            let names = |m: &&Migration| m.statements.contains(&table.name);
            let version = migrations.iter().filter(names).map(|m| m.version).max();
            newest.insert(table.name.clone(), version.unwrap_or_default());
        }
    }
    let ids: Vec<uuid::Uuid> = surveys.iter().map(|survey| survey.tenant.as_uuid()).collect();
    let versions: Vec<i64> = newest.values().copied().collect();
    let sql = "SELECT tenant_id, version, applied_at FROM freehold.ledger
               WHERE tenant_id = ANY($1) AND version = ANY($2)";
    let rows = tx.query(sql, &[&ids, &versions]).await?;
    let applied: HashMap<(uuid::Uuid, i64), Timestamp> =
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    for survey in surveys {
        for table in &mut survey.tables {
            let version = newest.get(&table.name).copied().unwrap_or_default();
            table.migrated_at = applied.get(&(survey.tenant.as_uuid(), version)).copied();
        }
    }
    Ok(())
}

/// PostgreSQL loses its counts in a crash without updating the database's own reset time; that of the
/// background writer shows it.
async fn read_times(tx: &mut CatalogTx, tenants: &[TenantId]) -> Result<Vec<Survey>> {
    let ids: Vec<uuid::Uuid> = tenants.iter().map(TenantId::as_uuid).collect();
    let rows = tx
        .query(
            "SELECT i.id, now() AS now,
               greatest(t.created_at, pg_catalog.pg_stat_get_db_stat_reset_time(d.oid), pg_catalog.pg_stat_get_bgwriter_stat_reset_time()) AS since,
               (SELECT n.nspname::text FROM pg_catalog.pg_extension e
                JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'hypopg') AS hypopg,
               EXISTS (SELECT FROM pg_catalog.pg_stat_get_wal_senders()) AS has_replicas
             FROM unnest($1::uuid[]) WITH ORDINALITY i (id, place)
             JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
             LEFT JOIN freehold.tenant t ON t.id = i.id ORDER BY i.place",
            &[&ids],
        )
        .await?;
    let survey = |row: &Row| {
        let now = row.get("now");
        Survey {
            tenant: TenantId::from(row.get::<_, uuid::Uuid>("id")),
            now,
            counted_since: row.get::<_, Option<Timestamp>>("since").unwrap_or(now),
            tables: Vec::new(),
            hypopg_schema: row.get("hypopg"),
            has_replicas: row.get("has_replicas"),
        }
    };
    Ok(rows.iter().map(survey).collect())
}

/// Partitions and their parents are left out: the baseline must provide their indexes.
async fn read_tables(
    tx: &mut CatalogTx,
    schemas: &[String],
) -> Result<HashMap<String, Vec<Table>>> {
    let rows = tx
        .query(
            "SELECT n.nspname::text AS schema, c.relname::text AS name,
               greatest(c.reltuples::int8, pg_catalog.pg_stat_get_live_tuples(c.oid), 0) AS rows,
               c.relpages::int8 * pg_catalog.current_setting('block_size')::int8 AS bytes,
               pg_catalog.pg_stat_get_numscans(c.oid) AS seq_scans,
               pg_catalog.pg_stat_get_tuples_returned(c.oid) AS seq_rows,
               pg_catalog.pg_stat_get_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_tuples_updated(c.oid) AS writes,
               pg_catalog.pg_stat_get_tuples_deleted(c.oid) AS deletes
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = ANY($1::text[]) AND c.relkind = 'r' AND NOT c.relispartition ORDER BY c.relname",
            &[&schemas],
        )
        .await?;
    let mut tables: HashMap<String, Vec<Table>> = HashMap::new();
    for row in &rows {
        tables.entry(row.get("schema")).or_default().push(Table {
            name: row.get("name"),
            rows: row.get("rows"),
            bytes: row.get("bytes"),
            seq_scans: row.get("seq_scans"),
            seq_rows: row.get("seq_rows"),
            writes: row.get("writes"),
            deletes: row.get("deletes"),
            ..Table::default()
        });
    }
    Ok(tables)
}

/// The operators of a type are those of its btree class; enums, arrays, ranges and varchar use the class of
/// another type, and a domain that of its base type.
async fn read_columns(tx: &mut CatalogTx, schemas: &[String]) -> Result<Vec<Row>> {
    tx.query(
        "WITH class AS MATERIALIZED (
           SELECT k.opcintype AS type, bool_and(p.proleakproof) FILTER (WHERE m.amopstrategy = 3) AS equal,
             bool_and(p.proleakproof) FILTER (WHERE m.amopstrategy <> 3) AS range
           FROM pg_catalog.pg_opclass k
           JOIN pg_catalog.pg_am am ON am.oid = k.opcmethod AND am.amname = 'btree'
           JOIN pg_catalog.pg_amop m ON m.amopfamily = k.opcfamily AND m.amoplefttype = k.opcintype AND m.amoprighttype = k.opcintype
           JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
           WHERE k.opcdefault GROUP BY k.opcintype
         )
         SELECT n.nspname::text AS schema, c.relname::text AS relation, a.attname::text AS name,
           replace(pg_catalog.format_type(a.atttypid, a.atttypmod), n.nspname || '.', '') AS type,
           CASE WHEN a.attlen > 0 THEN a.attlen::int4 ELSE 24 END AS bytes, k.equal, k.range
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         JOIN pg_catalog.pg_type d ON d.oid = a.atttypid
         JOIN pg_catalog.pg_type t ON t.oid = coalesce(nullif(d.typbasetype, 0), d.oid)
         LEFT JOIN class k ON k.type = CASE
           WHEN t.typtype = 'e' THEN 'pg_catalog.anyenum'::pg_catalog.regtype
           WHEN t.typtype = 'r' THEN 'pg_catalog.anyrange'::pg_catalog.regtype
           WHEN t.typcategory = 'A' THEN 'pg_catalog.anyarray'::pg_catalog.regtype
           WHEN t.oid = 'pg_catalog.varchar'::pg_catalog.regtype THEN 'pg_catalog.text'::pg_catalog.regtype
           ELSE t.oid END
         WHERE n.nspname = ANY($1::text[]) AND c.relkind = 'r' ORDER BY a.attnum",
        &[&schemas],
    )
    .await
}

fn column(row: &Row) -> Column {
    Column {
        name: row.get("name"),
        type_name: row.get("type"),
        bytes: row.get("bytes"),
        equal_reaches: row.get("equal"),
        range_reaches: row.get("range"),
    }
}

async fn read_indexes(tx: &mut CatalogTx, schemas: &[String]) -> Result<Vec<Row>> {
    tx.query(
        "WITH template AS MATERIALIZED (
           SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = $2::text AND c.relkind = 'i'
         )
         SELECT n.nspname::text AS schema, b.relname::text AS relation, c.relname::text AS name, am.amname::text AS method,
           i.indisunique AS is_unique,
           i.indisprimary OR i.indisexclusion OR i.indisreplident OR c.relispartition
             OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) AS fixed,
           i.indisvalid AND i.indisready AND i.indislive AS valid, k.columns, k.keys, k.descending, k.included,
           pg_catalog.pg_get_expr(i.indpred, i.indrelid) AS condition,
           c.relpages::int8 * pg_catalog.current_setting('block_size')::int8 AS bytes, pg_catalog.pg_stat_get_numscans(c.oid) AS scans,
           EXISTS (SELECT FROM template t WHERE t.relname = c.relname) AS in_template
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_class b ON b.oid = i.indrelid
         JOIN pg_catalog.pg_am am ON am.oid = c.relam JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL (
           SELECT array_agg(e.name ORDER BY x.place) FILTER (WHERE x.place <= i.indnkeyatts) AS columns,
             array_agg(concat_ws(' ', e.name, i.indclass[x.place - 1], i.indcollation[x.place - 1], i.indoption[x.place - 1]) ORDER BY x.place)
               FILTER (WHERE x.place <= i.indnkeyatts) AS keys,
             array_agg(i.indoption[x.place - 1] & 1 = 1 ORDER BY x.place) FILTER (WHERE x.place <= i.indnkeyatts) AS descending,
             coalesce(array_agg(e.name) FILTER (WHERE x.place > i.indnkeyatts), '{}') AS included
           FROM (SELECT number, place::int4 FROM unnest(i.indkey::int2[]) WITH ORDINALITY u (number, place)) x
           LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = x.number AND x.number > 0
           CROSS JOIN LATERAL (SELECT coalesce(a.attname::text, pg_catalog.pg_get_indexdef(i.indexrelid, x.place, true)) AS name) e
         ) k
         WHERE n.nspname = ANY($1::text[]) AND c.relkind = 'i' ORDER BY c.relname",
        &[&schemas, &TEMPLATE_SCHEMA],
    )
    .await
}

fn index(row: &Row) -> Index {
    Index {
        name: row.get("name"),
        method: row.get("method"),
        unique: row.get("is_unique"),
        fixed: row.get("fixed"),
        valid: row.get("valid"),
        columns: row.get("columns"),
        keys: row.get("keys"),
        descending: row.get("descending"),
        included: row.get("included"),
        condition: row.get("condition"),
        bytes: row.get("bytes"),
        scans: row.get("scans"),
        in_template: row.get("in_template"),
        made_at: None,
    }
}

async fn read_slow(tx: &mut CatalogTx, tenants: &[TenantId]) -> Result<Vec<Row>> {
    let ids: Vec<uuid::Uuid> = tenants.iter().map(TenantId::as_uuid).collect();
    tx.query(
        "SELECT 'tenant_' || replace(s.tenant_id::text, '-', '') AS schema, r.name AS relation,
           count(*) AS statements, sum(s.count)::int8 AS count, (sum(s.total_us) / 1e6)::float8 AS seconds, max(s.last_at) AS last_at
         FROM freehold.slow_query s
         CROSS JOIN LATERAL (
           SELECT DISTINCT n ->> 'Relation Name' AS name
           FROM jsonb_path_query(s.plan, '$.** ? (@.\"Node Type\" == \"Seq Scan\")') n
         ) r
         WHERE s.tenant_id = ANY($1) GROUP BY s.tenant_id, r.name",
        &[&ids],
    )
    .await
}

async fn read_foreign_keys(tx: &mut CatalogTx, schemas: &[String]) -> Result<Vec<Row>> {
    tx.query(
        "SELECT n.nspname::text AS schema, b.relname::text AS relation, k.conname::text AS name, r.relname::text AS refers_to,
           (SELECT array_agg(a.attname::text ORDER BY x.place) FROM unnest(k.conkey) WITH ORDINALITY x (number, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.number) AS columns
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class b ON b.oid = k.conrelid JOIN pg_catalog.pg_class r ON r.oid = k.confrelid
         JOIN pg_catalog.pg_namespace n ON n.oid = b.relnamespace
         WHERE n.nspname = ANY($1::text[]) AND k.contype = 'f' AND b.relkind = 'r' ORDER BY k.conname",
        &[&schemas],
    )
    .await
}

fn foreign_key(row: &Row) -> ForeignKey {
    ForeignKey {
        name: row.get("name"),
        columns: row.get("columns"),
        refers_to: row.get("refers_to"),
    }
}
