//! Rollups: a definition with its columns as the template describes them, and the SQL that reads a tenant and
//! writes its rows. `schema` has the tables.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::analytics::definition::AnalyticsDefinition;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TEMPLATE_SCHEMA;
use crate::schema::policy::quote_ident;
use crate::wire::{self, WireError};

/// More columns would be a copy of the tenant's table rather than figures.
const COLUMNS_MAX: usize = 40;
/// The most rows of one tenant and definition; they are held in memory while they are written.
pub(crate) const ROWS_MAX: usize = 100_000;
/// The most characters of a value, as PostgreSQL prints it: a page has up to 200 rows of up to 40 values.
pub(crate) const VALUE_CHARS_MAX: usize = 1000;
/// Names of columns that every rollup or published view has.
const RESERVED: [&str; 4] = ["tenant", "tenant_id", "tenants", "withheld"];
/// Types that can be summed and averaged over tenants.
const SUMMABLE: [&str; 7] =
    ["smallint", "integer", "bigint", "numeric", "real", "double precision", "interval"];

/// A definition with the types of its columns, as the catalog stores it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rollup {
    pub(crate) definition: AnalyticsDefinition,
    pub(crate) grain: Vec<Column>,
    pub(crate) measures: Vec<Column>,
    /// The tables that it reads; `None` if unknown, so any of the tenant's.
    pub(crate) tables: Option<Vec<String>>,
    /// Whether it has totals by group. One that an earlier release created has none.
    #[serde(default)]
    pub(crate) totals: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) type_name: String,
}

/// The columns of the view, and the tables that it reads. The schema of a type or table decides whether a
/// shared table may use it: what is in a tenant's schema belongs to that tenant only.
const DESCRIBE_SQL: &str = "
WITH RECURSIVE read (relation, function) AS (
    SELECT CASE WHEN d.refclassid = 'pg_class'::regclass THEN d.refobjid END,
           CASE WHEN d.refclassid = 'pg_proc'::regclass THEN d.refobjid END
    FROM pg_rewrite r JOIN pg_depend d
      ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refobjid <> r.ev_class
    WHERE r.ev_class = 'pg_temp.freehold_definition'::regclass
  UNION
    SELECT CASE WHEN d.refclassid = 'pg_class'::regclass THEN d.refobjid END,
           CASE WHEN d.refclassid = 'pg_proc'::regclass THEN d.refobjid END
    FROM read JOIN pg_class v ON v.oid = read.relation AND v.relkind = 'v'
    JOIN pg_rewrite r ON r.ev_class = v.oid
    JOIN pg_depend d
      ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refobjid <> r.ev_class
)
SELECT json_build_object(
  'columns', (SELECT json_agg(json_build_object(
        'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
        'shared', t.typnamespace::regnamespace::text IN ('pg_catalog', 'public')) ORDER BY a.attnum)
      FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
      WHERE a.attrelid = 'pg_temp.freehold_definition'::regclass AND a.attnum > 0),
  'relations', (SELECT coalesce(json_agg(DISTINCT jsonb_build_object(
        'schema', n.nspname, 'name', c.relname, 'kind', c.relkind,
        'has_children', EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid))), '[]')
      FROM read JOIN pg_class c ON c.oid = read.relation
      JOIN pg_namespace n ON n.oid = c.relnamespace),
  'functions', (SELECT count(function) FROM read)
)::text";

#[derive(Deserialize)]
struct Description {
    columns: Vec<DescribedColumn>,
    relations: Vec<DescribedRelation>,
    functions: i64,
}

#[derive(Deserialize)]
struct DescribedColumn {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    shared: bool,
}

#[derive(Deserialize)]
struct DescribedRelation {
    schema: String,
    name: String,
    kind: String,
    has_children: bool,
}

/// Describes a definition in the template, whose schema the transaction of `client` has entered. Leaves
/// nothing behind; if the definition is invalid, the transaction has failed.
pub(crate) async fn describe(
    client: &mut wire::Connection,
    definition: &AnalyticsDefinition,
) -> Result<Rollup> {
    let prefix = "CREATE TEMPORARY VIEW freehold_definition AS SELECT * FROM (\n";
    let view = format!("{prefix}{}\n) AS definition", definition.statement);
    client.batch_execute("SAVEPOINT describe").await?;
    // As a prepared statement: PostgreSQL refuses a text of several statements.
    let made = client.query_once(&view, &[]).await;
    made.map_err(|source| located(definition, prefix, source))?;
    // With the tenant's schema and `public` out of the path, types are printed with their schemas.
    client.batch_execute("SET LOCAL search_path = pg_catalog, pg_temp").await?;
    let unreadable =
        || Error::new(ErrorKind::Internal, "the description of a SELECT cannot be read");
    let rows = client.query_once(DESCRIBE_SQL, &[]).await?;
    let json = rows.first().ok_or_else(unreadable)?.get(0);
    let description: Description =
        serde_json::from_str(json).map_err(|source| unreadable().because(source))?;
    client.batch_execute("ROLLBACK TO SAVEPOINT describe").await?;
    Rollup::new(definition, description)
        .map_err(|why| Error::new(ErrorKind::Setup, format!("{}: {why}", definition.name)))
}

/// PostgreSQL's error, with the line of the SELECT at which it occurred.
fn located(definition: &AnalyticsDefinition, prefix: &str, source: WireError) -> Error {
    let WireError::Database(db) = source else { return Error::from(source) };
    let line = match db.position() {
        Some(position) => {
            let before = (position as usize).saturating_sub(prefix.chars().count() + 1);
            let lines = definition.statement.chars().take(before).filter(|c| *c == '\n').count();
            format!(" line {} of the SELECT", lines + 1)
        }
        None => String::new(),
    };
    let hint = db.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let message = format!("{}{line}: {}{hint}", definition.name, db.message());
    Error::new(ErrorKind::Setup, message).because(*db)
}

impl Rollup {
    fn new(definition: &AnalyticsDefinition, description: Description) -> Result<Rollup, String> {
        let Description { columns, relations, functions } = description;
        if let Some(foreign) = relations.iter().find(|r| r.schema != TEMPLATE_SCHEMA) {
            return Err(format!(
                "it reads {}.{}; a definition reads the tenant's own tables, named without a schema",
                foreign.schema, foreign.name
            ));
        }
        if columns.len() > COLUMNS_MAX {
            return Err(format!("it has {} columns; {COLUMNS_MAX} is the most", columns.len()));
        }
        for column in &columns {
            if RESERVED.contains(&column.name.as_str()) {
                return Err(format!(
                    "call the column {} something else; Freehold adds one of that name",
                    column.name
                ));
            }
            if !column.shared {
                return Err(format!(
                    "the type of {} is the tenant's own; cast it to text, for one",
                    column.name
                ));
            }
        }
        let find = |name: &String| {
            columns.iter().find(|c| c.name == *name).ok_or_else(|| {
                let known: Vec<_> = columns.iter().map(|c| c.name.as_str()).collect();
                format!("the header names {name}, and the SELECT has {}", known.join(", "))
            })
        };
        let column =
            |c: &DescribedColumn| Column { name: c.name.clone(), type_name: c.type_name.clone() };
        let grain = definition
            .grain
            .iter()
            .map(|name| find(name).map(column))
            .collect::<Result<Vec<_>, _>>()?;
        for name in &definition.averages {
            find(name)?;
        }
        if let Some(watermark) = &definition.watermark {
            let found = find(&watermark.column)?;
            if found.type_name != "timestamp with time zone"
                || definition.grain.contains(&found.name)
            {
                return Err(format!(
                    "the watermark {} must be a timestamptz outside of the grain, such as max(updated_at)",
                    found.name
                ));
            }
        }
        let is_watermark =
            |name: &str| definition.watermark.as_ref().is_some_and(|w| w.column == name);
        let measures: Vec<Column> = columns
            .iter()
            .filter(|c| !definition.grain.contains(&c.name) && !is_watermark(&c.name))
            .map(column)
            .collect();
        if measures.is_empty() {
            return Err(
                "it has no measure: a column that is neither grain nor watermark".to_owned()
            );
        }
        for measure in &measures {
            let base = measure.type_name.split('(').next().unwrap_or_default();
            if !SUMMABLE.contains(&base) {
                return Err(format!(
                    "{} is of type {}, which cannot be summed over tenants; put it into the grain or leave it out",
                    measure.name, measure.type_name
                ));
            }
        }
        // Views are expanded; the tables that a function reads, or the children of a table, are unknown.
        let plain = functions == 0
            && relations.iter().all(|r| ["r", "v"].contains(&r.kind.as_str()) && !r.has_children);
        let tables = plain
            .then(|| relations.iter().filter(|r| r.kind == "r").map(|r| r.name.clone()).collect());
        Ok(Rollup { definition: definition.clone(), grain, measures, tables, totals: true })
    }

    /// Parses the form that the catalog stores.
    pub(crate) fn from_json(json: &str) -> Result<Rollup> {
        serde_json::from_str(json).map_err(|source| {
            Error::new(
                ErrorKind::Internal,
                "a definition in the catalog cannot be read: apply it anew",
            )
            .because(source)
        })
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and text always serialise")
    }

    pub(crate) fn name(&self) -> &str {
        &self.definition.name
    }

    /// The grain, then the measures.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &Column> {
        self.grain.iter().chain(&self.measures)
    }

    /// Whether the figures stay the same, so that no new collection is needed: schedule and description may
    /// change.
    pub(crate) fn same_figures(&self, other: &Rollup) -> bool {
        let AnalyticsDefinition { minimum_group, averages, watermark, statement, .. } =
            &self.definition;
        let theirs = &other.definition;
        (minimum_group, averages, watermark, statement)
            == (&theirs.minimum_group, &theirs.averages, &theirs.watermark, &theirs.statement)
            && (&self.grain, &self.measures, self.totals)
                == (&other.grain, &other.measures, other.totals)
    }

    /// Reads a tenant whose schema is in the search path: everything, or the groups changed since a time. It
    /// is sent without parameters, so the time, which is our own value, is in the text.
    pub(crate) fn read_sql(&self, since: Option<Timestamp>) -> String {
        // One more than the limit shows that there are too many, of characters as of rows.
        let value =
            |c: &Column| format!("left(d.{}::text, {})", quote_ident(&c.name), VALUE_CHARS_MAX + 1);
        let columns: Vec<_> = self.columns().map(value).collect();
        let mut sql =
            format!("SELECT {} FROM (\n{}\n) AS d", columns.join(", "), self.definition.statement);
        if let (Some(since), Some(watermark)) = (since, &self.definition.watermark) {
            sql.push_str(&format!(" WHERE d.{} > '{since}'", quote_ident(&watermark.column)));
        }
        sql.push_str(&format!(" LIMIT {}", ROWS_MAX + 1));
        sql
    }

    /// Writes rows of several tenants: `$1` are the tenants of which all rows are given, `$2` each row's
    /// tenant, then one array per column. Unchanged rows are not touched.
    pub(crate) fn write_sql(&self) -> String {
        let rollup = self.rollup_table();
        let all: Vec<&Column> = self.columns().collect();
        let numbered = |of: &str| (0..all.len()).map(|n| format!("{of}{n}")).collect::<Vec<_>>();
        let arrays: Vec<_> = (0..all.len()).map(|n| format!("${}::text[]", n + 3)).collect();
        let casts: Vec<_> = all
            .iter()
            .enumerate()
            .map(|(n, c)| format!("u.c{n}::{} AS {}", c.type_name, quote_ident(&c.name)))
            .collect();
        format!(
            "WITH new AS (
               SELECT u.tenant_id, {casts} FROM unnest($2::uuid[], {arrays}) AS u (tenant_id, {names})
             ), gone AS (
               DELETE FROM {rollup} r WHERE r.tenant_id = ANY($1::uuid[])
                 AND NOT EXISTS (SELECT FROM new n WHERE n.tenant_id = r.tenant_id AND {same})
             )
             INSERT INTO {rollup} AS r (tenant_id, {columns}) SELECT tenant_id, {columns} FROM new
             ON CONFLICT (tenant_id, {keys}) DO UPDATE SET {set}
             WHERE ({old}) IS DISTINCT FROM ({excluded})",
            casts = casts.join(", "),
            arrays = arrays.join(", "),
            names = numbered("c").join(", "),
            same = same(&self.grain, "n", "r"),
            columns = all.iter().map(|c| quote_ident(&c.name)).collect::<Vec<_>>().join(", "),
            keys = names(&self.grain, ""),
            set = replaced(&self.measures),
            old = names(&self.measures, "r."),
            excluded = names(&self.measures, "excluded."),
        )
    }
}

/// The columns' names as a list in SQL.
pub(super) fn names(columns: &[Column], prefix: &str) -> String {
    columns
        .iter()
        .map(|c| format!("{prefix}{}", quote_ident(&c.name)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The condition that two rows agree in these columns.
pub(super) fn same(columns: &[Column], a: &str, b: &str) -> String {
    let pair = |c: &Column| format!("{a}.{0} = {b}.{0}", quote_ident(&c.name));
    columns.iter().map(pair).collect::<Vec<_>>().join(" AND ")
}

/// The SET list of ON CONFLICT DO UPDATE: these columns as they would have been inserted.
pub(super) fn replaced(columns: &[Column]) -> String {
    let set = |c: &Column| format!("{0} = excluded.{0}", quote_ident(&c.name));
    columns.iter().map(set).collect::<Vec<_>>().join(", ")
}
