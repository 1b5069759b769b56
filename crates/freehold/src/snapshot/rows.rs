//! The rows that migrations inserted into the template, and the positions of its sequences.
//!
//! A value that two runs of the same migrations produce differently, such as an id by `gen_random_uuid()`, a
//! secret, or `now()`, must not be the same for all tenants. It is produced again: as `rows/made.rs` recognises
//! it, or by its column's default; otherwise the migration is refused.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use self::made::{Made, Moments};
use super::{in_template, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TenantId;
use crate::schema::policy::{quote_ident, quote_literal};
use crate::tx::OwnerTx;

mod made;
mod pairs;

/// The most bytes of rows in a template. Every new tenant gets all of them, and a server holds them in memory
/// while it creates one.
const BYTES_MAX: usize = 64 << 20;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rows {
    tables: Vec<Table>,
    /// Sequences that have been used: name, last value, and whether it was given out.
    sequences: Vec<(String, i64, bool)>,
    /// What `now()` was when they were produced.
    #[serde(skip)]
    moments: Moments,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Table {
    /// Qualified and quoted.
    name: String,
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Column {
    name: String,
    /// Whether the column produces values: as an identity, or by a default that is not a constant.
    has_default: bool,
    /// The type, if it is PostgreSQL's own.
    #[serde(rename = "type", default)]
    kind: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cell {
    Null,
    Text(String),
    /// Produced by the column, for each tenant anew.
    Default,
    /// Produced for each tenant anew, as it was for the template, which got this value.
    Made(Made, String),
}

/// Tables that contain rows, with their writable columns. Rows of partitions count as those of the root. A
/// default that calls nothing, outside of strings and type modifiers, is a constant.
const TABLES_SQL: &str = "
SELECT c.oid::regclass::text, c.relkind = 'p',
  (SELECT json_agg(json_build_object('name', a.attname, 'has_default', a.attidentity <> '' OR coalesce((
      SELECT regexp_replace(regexp_replace(pg_get_expr(d.adbin, d.adrelid), $r$'([^']|'')*'$r$, '', 'g'), '::[a-z ]+[(][0-9, ]+[)]', '', 'g')
        ~ '[[:alnum:]_\"][(]|CURRENT_(DATE|TIME)|LOCALTIME'
      FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum), false),
    'type', CASE WHEN a.atttypid < 16384 THEN format_type(a.atttypid, a.atttypmod) END) ORDER BY a.attnum)::text
   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = $1::text::regnamespace AND d.classid = 'pg_class'::regclass
  AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname COLLATE \"C\"";

const SEQUENCES_SQL: &str = "
SELECT c.oid::regclass::text, q.seqstart
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN pg_sequence q ON q.seqrelid = c.oid
WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = $1::text::regnamespace AND d.classid = 'pg_class'::regclass
ORDER BY c.relname COLLATE \"C\"";

/// The position of a sequence.
struct Position {
    /// Qualified and quoted.
    name: String,
    start: i64,
    last: i64,
    is_called: bool,
}

/// The positions of a schema's sequences. Run with the search path `pg_catalog`.
async fn positions(tx: &mut OwnerTx, tenant: TenantId) -> Result<Vec<Position>> {
    let listed = tx.catalog().query(SEQUENCES_SQL, &[&tenant.schema()]).await?;
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let each = listed.iter().enumerate().map(|(at, row)| {
        let name: &str = row.get(0);
        format!("SELECT {at} AS at, last_value, is_called FROM {name}")
    });
    let sql = format!("{} ORDER BY at", each.collect::<Vec<_>>().join(" UNION ALL "));
    let rows = tx.ddl(async |client| Ok(client.query_once(&sql, &[]).await?)).await?;
    let position = |row: &crate::wire::Row| {
        let listed = &listed[row.get::<_, i32>(0) as usize];
        let (name, start) = (listed.get(0), listed.get(1));
        Position { name, start, last: row.get(1), is_called: row.get(2) }
    };
    Ok(rows.iter().map(position).collect())
}

/// Gives each sequence of a schema a new storage file until the transaction ends: otherwise a rollback would
/// not restore its position, and the next run of the same migration would produce other numbers. Leaves the
/// search path at `pg_catalog, pg_temp`.
pub(crate) async fn detach_sequences(tx: &mut OwnerTx, tenant: TenantId) -> Result<()> {
    tx.catalog().execute("SET LOCAL search_path = pg_catalog, pg_temp", &[]).await?;
    let mut sql = String::new();
    for Position { name, last, is_called, .. } in positions(tx, tenant).await? {
        let literal = quote_literal(&name);
        let _ = writeln!(
            sql,
            "ALTER SEQUENCE {name} RESTART WITH {last}; SELECT setval({literal}, {last}, {is_called});"
        );
    }
    tx.batch_execute(&sql).await
}

impl Rows {
    /// The rows of a schema, with the names of the template; the transaction must be in its context. Leaves
    /// the search path at `pg_catalog, pg_temp`.
    pub(crate) async fn of(tx: &mut OwnerTx, tenant: TenantId) -> Result<Rows> {
        let catalog = tx.catalog();
        catalog.execute("SET LOCAL search_path = pg_catalog, pg_temp", &[]).await?;
        let schema = tenant.schema();
        let listed = catalog.query(TABLES_SQL, &[&schema]).await?;
        let positions = positions(tx, tenant).await?;
        tx.ddl(async |client| {
            let mut rows = Rows::default();
            let mut bytes = 0;
            let source = |name: &str, is_root: bool| {
                if is_root { name.to_owned() } else { format!("ONLY {name}") }
            };
            // Most tables are empty.
            let filled = listed.iter().enumerate().map(|(at, row)| {
                format!("SELECT {at} WHERE EXISTS (SELECT FROM {})", source(row.get(0), row.get(1)))
            });
            let filled = filled.collect::<Vec<_>>().join(" UNION ALL ");
            let filled =
                if filled.is_empty() { vec![] } else { client.query_once(&filled, &[]).await? };
            let mut filled: Vec<i32> = filled.iter().map(|row| row.get(0)).collect();
            filled.sort_unstable();
            for at in filled {
                let row = &listed[at as usize];
                let (name, is_root): (&str, bool) = (row.get(0), row.get(1));
                let columns: Vec<Column> = serde_json::from_str(row.get::<_, Option<&str>>(2).unwrap_or("[]"))
                    .map_err(unreadable)?;
                let texts: Vec<String> =
                    columns.iter().map(|column| format!("{}::text", quote_ident(&column.name))).collect();
                let select = format!(
                    "SELECT json_build_array({})::text FROM {} ORDER BY tableoid, ctid",
                    texts.join(", "),
                    source(name, is_root)
                );
                let mut table =
                    Table { name: in_template(tenant, name), columns, rows: Vec::new() };
                for row in client.query_once(&select, &[]).await? {
                    let json: &str = row.get(0);
                    bytes += json.len();
                    let cells: Vec<Option<String>> = serde_json::from_str(json).map_err(unreadable)?;
                    let cell = |cell: Option<String>| match cell {
                        Some(text) => Cell::Text(in_template(tenant, &text)),
                        None => Cell::Null,
                    };
                    table.rows.push(cells.into_iter().map(cell).collect());
                }
                if bytes > BYTES_MAX {
                    return Err(refused(format!(
                        "the rows that migrations have put into the template come to more than {} MB with {}, and every tenant would get them; load them when a tenant asks for them",
                        BYTES_MAX >> 20,
                        bare(&table.name)
                    )));
                }
                rows.tables.push(table);
            }
            let columns = rows.tables.iter().flat_map(|table| &table.columns);
            rows.moments = Moments::read(client, columns.filter_map(|c| c.kind.as_deref())).await?;
            for Position { name, start, last, is_called } in positions {
                if is_called || last != start {
                    rows.sequences.push((in_template(tenant, &name), last, is_called));
                }
            }
            Ok(rows)
        })
        .await
    }

    pub(super) fn write_sql(&self, sql: &mut String) {
        let mut ids = HashMap::new();
        for table in &self.tables {
            let names: Vec<_> =
                table.columns.iter().map(|column| quote_ident(&column.name)).collect();
            let _ = write!(
                sql,
                "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES",
                table.name,
                names.join(", ")
            );
            for (at, row) in table.rows.iter().enumerate() {
                let cells: Vec<String> = row
                    .iter()
                    .zip(&table.columns)
                    .map(|(cell, column)| cell.literal(column, &mut ids))
                    .collect();
                let _ = write!(sql, "{}\n({})", if at > 0 { "," } else { "" }, cells.join(", "));
            }
            sql.push_str(";\n");
        }
        for (name, last, is_called) in &self.sequences {
            let name = quote_literal(name);
            let _ = writeln!(sql, "SELECT pg_catalog.setval({name}, {last}, {is_called});");
        }
    }

    /// These rows compared with those of another run of the same migrations: values that differ are produced
    /// anew for each tenant, if it is known how, also from the rows before the migration.
    pub(crate) fn compared_with(mut self, other: &Rows, former: &Rows) -> Result<Rows> {
        let known: HashMap<&str, &Made> = former.made().collect();
        let mut ids = made::Ids::default();
        for table in &mut self.tables {
            let name = bare(&table.name).to_owned();
            let there = other.tables.iter().find(|other| other.name == table.name);
            let there = there.filter(|there| {
                there.columns == table.columns && there.rows.len() == table.rows.len()
            });
            let there = there.ok_or_else(|| {
                refused(format!(
                    "table {name} gets other rows each time, or depends on what other schemas hold; a migration must put in the same ones for every tenant"
                ))
            })?;
            for (at, there_at) in pairs::pairs(&table.rows, &there.rows) {
                let there = &there.rows[there_at];
                for (place, column) in table.columns.iter().enumerate() {
                    let cell = &mut table.rows[at][place];
                    if *cell == there[place] {
                        continue;
                    }
                    let made = cell.made(column, &there[place], (&self.moments, &other.moments));
                    let known = cell.text().and_then(|text| known.get(made::key(text)).copied());
                    let (made, text) = (known.cloned().or(made), cell.text());
                    let (Some(made), Some(text)) = (made, text) else {
                        if !column.has_default {
                            return Err(another_each_time(&name, column));
                        }
                        *cell = Cell::Default;
                        continue;
                    };
                    if let (Made::Id, Some(there)) = (&made, there[place].text()) {
                        ids.pair(text, there).ok_or_else(|| another_each_time(&name, column))?;
                    }
                    *cell = Cell::Made(made, text.to_owned());
                }
            }
        }
        // A transaction that ran a file twice gave both runs the same time.
        for cell in self.tables.iter_mut().flat_map(|table| &mut table.rows).flatten() {
            if let Cell::Text(text) = cell
                && let Some(made) = known.get(made::key(text))
            {
                *cell = Cell::Made((*made).clone(), std::mem::take(text));
            }
        }
        Ok(self)
    }

    /// The values that are produced anew, but not by a default.
    fn made(&self) -> impl Iterator<Item = (&str, &Made)> {
        self.tables.iter().flat_map(|table| &table.rows).flatten().filter_map(|cell| match cell {
            Cell::Made(made, was) => Some((made::key(was), made)),
            _ => None,
        })
    }
}

fn another_each_time(table: &str, column: &Column) -> Error {
    refused(format!(
        "column {} of table {table} gets another value each time, such as by random(), so no tenant may have the template's; give the column a default that makes it and leave it out of the INSERT, or write a constant",
        column.name
    ))
}

impl Cell {
    fn text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }

    /// How the value was produced, which another run produced as `there`.
    fn made(&self, column: &Column, there: &Cell, moments: (&Moments, &Moments)) -> Option<Made> {
        made::recognised(column.kind.as_deref()?, (self.text()?, there.text()?), moments)
    }

    /// `ids` are those that this tenant got instead of the template's.
    fn literal<'c>(&'c self, column: &Column, ids: &mut HashMap<&'c str, String>) -> String {
        match self {
            Cell::Made(made, was) => made.literal(column.kind.as_deref(), was, ids),
            Cell::Null => "NULL".to_owned(),
            Cell::Default => "DEFAULT".to_owned(),
            Cell::Text(text) => quote_literal(text),
        }
    }
}

fn bare(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, bare)| bare)
}

fn unreadable(source: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, "rows of the template cannot be read").because(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(has_default: bool, rows: &[[&str; 2]]) -> Rows {
        let cells = |row: &[&str; 2]| row.map(|text| Cell::Text(text.to_owned())).to_vec();
        let column = |name: &str| Column {
            name: name.to_owned(),
            has_default,
            kind: Some("text".to_owned()),
        };
        let table = Table {
            name: "freehold_template.t".to_owned(),
            columns: vec![column("a"), column("b")],
            rows: rows.iter().map(cells).collect(),
        };
        Rows {
            tables: vec![table],
            sequences: vec![("s".to_owned(), 7, true)],
            moments: Moments::default(),
        }
    }

    #[test]
    fn what_differs_between_two_runs_is_made_anew_wherever_rows_stand() {
        let here = rows(true, &[["1", "x"], ["2", "same"], ["3", "y"]]);
        let there = rows(true, &[["2", "same"], ["1", "z"], ["3", "w"]]);
        let mut sql = String::new();
        here.compared_with(&there, &Rows::default()).unwrap().write_sql(&mut sql);
        assert_eq!(
            sql,
            "INSERT INTO freehold_template.t (\"a\", \"b\") OVERRIDING SYSTEM VALUE VALUES\n\
             ('1', DEFAULT),\n('2', 'same'),\n('3', DEFAULT);\n\
             SELECT pg_catalog.setval('s', 7, true);\n"
        );
    }

    #[test]
    fn what_no_default_makes_and_what_comes_in_other_numbers_is_refused() {
        let here = || rows(false, &[["1", "x"], ["1", "x"]]);
        assert_eq!(here().compared_with(&here(), &Rows::default()).unwrap(), here());
        let other = here()
            .compared_with(&rows(false, &[["1", "x"], ["1", "y"]]), &Rows::default())
            .unwrap_err();
        assert!(other.message().contains("column b of table t gets another value"), "{other}");
        for there in [rows(false, &[["1", "x"]]), rows(true, &[["1", "x"], ["1", "x"]])] {
            let other = here().compared_with(&there, &Rows::default()).unwrap_err();
            assert!(other.message().contains("table t gets other rows"), "{other}");
        }
    }

    #[test]
    fn an_id_is_made_anew_and_is_the_same_wherever_it_stands() {
        const HERE: &str = "0b9d5d9c-6a0e-4f0f-8c57-3f4a7f5a0c11";
        const THERE: &str = "f2c1b0aa-9e1c-4a55-9d57-0c3b8a6e2d42";
        let here = || rows(false, &[[HERE, "x"], ["1", HERE]]);
        let there = rows(false, &[[THERE, "x"], ["1", THERE]]);
        let made = here().compared_with(&there, &Rows::default()).unwrap();
        let sql = |rows: &Rows| {
            let mut sql = String::new();
            rows.write_sql(&mut sql);
            sql
        };
        let ids: Vec<String> =
            sql(&made).split('\'').filter(|t| t.len() == 36).map(str::to_owned).collect();
        assert!(ids.len() == 2 && ids[0] == ids[1] && ids[0] != HERE && ids[0] != THERE, "{ids:?}");
        assert_ne!(sql(&made), sql(&made), "another for each tenant");
        // Later files find it again, whatever the other run has.
        let later = rows(false, &[[HERE, "x"], ["1", HERE], ["2", "y"]]);
        let other = rows(
            false,
            &[
                ["f2c1b0aa-9e1c-4a55-9d57-0c3b8a6e2d43", "x"],
                ["1", "f2c1b0aa-9e1c-4a55-9d57-0c3b8a6e2d43"],
                ["2", "y"],
            ],
        );
        assert!(later.compared_with(&other, &made).is_ok());
        // One id here and two there is no copy.
        let torn = rows(false, &[[THERE, "x"], ["1", "f2c1b0aa-9e1c-4a55-9d57-0c3b8a6e2d43"]]);
        assert!(here().compared_with(&torn, &Rows::default()).is_err());
    }
}
