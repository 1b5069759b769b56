//! The data API's model of the tables: read once from the template schema, valid for every tenant. The only
//! source of names in SQL.

use std::collections::HashMap;

use serde::Deserialize;

use http::StatusCode;

use super::error::{DataError, clip, nearest};

/// Every table and view of the schema named by `$1`, as one JSON text.
///
/// Names of keys and constraints are included because, for a violated key of a table under row-level
/// security, PostgreSQL withholds the columns but not the key's name.
pub(crate) const MODEL_SQL: &str = r"
SELECT coalesce(json_agg(json_build_object(
    'name', c.relname,
    'columns', (
      SELECT coalesce(json_agg(json_build_object(
          'name', a.attname,
          'type_name', CASE
            WHEN en.nspname = 'pg_catalog' THEN format_type(a.atttypid, a.atttypmod)
            WHEN e.oid = t.oid THEN quote_ident(e.typname)
            ELSE quote_ident(e.typname) || '[]' END,
          'type_schema', CASE
            WHEN en.nspname = 'pg_catalog' THEN json_build_object('kind', 'built_in')
            WHEN en.oid = n.oid THEN json_build_object('kind', 'tenant')
            ELSE json_build_object('kind', 'other', 'name', en.nspname) END,
          'kind', CASE
            WHEN b.oid = 'json'::regtype THEN 'json'
            WHEN b.oid = 'jsonb'::regtype THEN 'jsonb'
            WHEN t.typcategory = 'A' THEN 'array'
            WHEN t.typcategory = 'B' THEN 'boolean'
            WHEN t.typcategory = 'E' THEN 'enum'
            WHEN t.typcategory = 'N' THEN 'number'
            WHEN t.typcategory = 'S' THEN 'text'
            WHEN t.typcategory IN ('D', 'T') THEN 'time'
            ELSE 'other' END,
          'labels', (
            SELECT coalesce(json_agg(l.enumlabel ORDER BY l.enumsortorder), '[]')
            FROM pg_enum AS l WHERE l.enumtypid = b.oid),
          'read_only', a.attgenerated <> '' OR a.attidentity = 'a',
          -- where the role has the right to some columns and not to this one
          'withheld', (
            SELECT coalesce(json_agg(json_build_array(r.name, p.name)), '[]')
            FROM unnest(ARRAY['viewer', 'member', 'admin']) AS r (name)
            CROSS JOIN unnest(ARRAY['select', 'insert', 'update']) AS p (name)
            WHERE has_any_column_privilege('freehold_' || r.name, c.oid, p.name)
              AND NOT has_column_privilege('freehold_' || r.name, c.oid, a.attnum, p.name))
        ) ORDER BY a.attnum), '[]')
      FROM pg_attribute AS a
      JOIN pg_type AS t ON t.oid = a.atttypid
      -- the element of an array, the base of a domain; the type itself otherwise
      JOIN pg_type AS e ON e.oid = CASE WHEN t.typcategory = 'A' AND t.typtype = 'b'
                                        THEN t.typelem ELSE t.oid END
      JOIN pg_namespace AS en ON en.oid = e.typnamespace
      JOIN pg_type AS b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'keys', (
      SELECT coalesce(json_agg(json_build_object(
          'name', ic.relname,
          'primary', i.indisprimary,
          'columns', (
            SELECT json_agg(a.attname ORDER BY k.position)
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
            JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
            WHERE k.position <= i.indnkeyatts)
        ) ORDER BY i.indisprimary DESC, ic.relname), '[]')
      FROM pg_index AS i
      JOIN pg_class AS ic ON ic.oid = i.indexrelid
      WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate
        AND i.indpred IS NULL AND i.indexprs IS NULL),
    'constraints', (
      SELECT coalesce(json_agg(json_build_object(
          'name', o.conname,
          'references', f.relname,
          'columns', (
            SELECT coalesce(json_agg(a.attname ORDER BY k.position), '[]')
            FROM unnest(o.conkey) WITH ORDINALITY AS k (attnum, position)
            JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum)
        ) ORDER BY o.conname), '[]')
      FROM pg_constraint AS o
      LEFT JOIN pg_class AS f ON f.oid = o.confrelid
      WHERE o.conrelid = c.oid AND o.contype IN ('f', 'c', 'x'))
  ) ORDER BY c.relname), '[]')::text
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition";

/// The tables and views that every tenant has.
#[derive(Debug, Default)]
pub(crate) struct Model {
    tables: HashMap<String, Table>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// Unique keys over plain columns, primary key first.
    pub(crate) keys: Vec<Key>,
    /// Foreign keys, checks and exclusions.
    pub(crate) constraints: Vec<Constraint>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// In SQL notation, without its schema: `numeric(10,2)`, `order_status[]`.
    pub(crate) type_name: String,
    pub(crate) type_schema: TypeSchema,
    pub(crate) kind: Kind,
    /// The values of an enum, in order.
    pub(crate) labels: Vec<String>,
    /// Generated always: requests cannot write it.
    pub(crate) read_only: bool,
    /// Privileges on it that a role lacks but has on other columns of the table. A role without privileges on
    /// any column is refused by PostgreSQL.
    #[serde(default)]
    withheld: Vec<(Role, Right)>,
}

/// The database roles to which grants apply. An owner is an admin to PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Viewer,
    Member,
    Admin,
}

/// A privilege on a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Right {
    Select,
    Insert,
    Update,
}

/// The schema of a column's type, which determines how SQL names it for a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum TypeSchema {
    BuiltIn,
    /// In the template, so each tenant has its own.
    Tenant,
    /// Shared by all tenants, as an extension's types are.
    Other {
        name: String,
    },
}

/// The properties of a type that determine the operators of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Array,
    Boolean,
    Enum,
    Json,
    Jsonb,
    Number,
    Other,
    Text,
    Time,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) primary: bool,
    pub(crate) columns: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Constraint {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    /// The table to which a foreign key refers.
    pub(crate) references: Option<String>,
}

impl Model {
    /// Parses the result of [`MODEL_SQL`].
    pub(crate) fn from_json(json: &str) -> Result<Model, serde_json::Error> {
        let tables: Vec<Table> = serde_json::from_str(json)?;
        let tables = tables.into_iter().map(|table| (table.name.clone(), table));
        Ok(Model { tables: tables.collect() })
    }

    /// In no particular order.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.values()
    }

    pub(crate) fn find_table(&self, name: &str) -> Option<&Table> {
        self.tables.get(name)
    }

    pub(super) fn get_table(&self, name: &str) -> Result<&Table, DataError> {
        self.find_table(name).ok_or_else(|| self.unknown_table(name))
    }

    fn unknown_table(&self, name: &str) -> DataError {
        let error = DataError::new(
            StatusCode::NOT_FOUND,
            "unknown_table",
            format!("there is no table {}", clip(name)),
        );
        match nearest(name, self.tables().map(|table| table.name.as_str())) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error,
        }
    }
}

impl Table {
    pub(crate) fn find_column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub(super) fn get_column(&self, name: &str) -> Result<&Column, DataError> {
        self.find_column(name).ok_or_else(|| self.unknown_column(name))
    }

    pub(super) fn unknown_column(&self, name: &str) -> DataError {
        if name.is_empty() {
            return DataError::malformed_query("the name of a column is missing");
        }
        let error = DataError::new(
            StatusCode::BAD_REQUEST,
            "unknown_column",
            format!("{} has no column {}", self.name, clip(name)),
        )
        .with_column(&clip(name));
        match nearest(name, self.columns.iter().map(|column| column.name.as_str())) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None if name.contains('.') => error
                .with_hint("a name that holds a dot is quoted; embedded tables are not supported"),
            None => error,
        }
    }

    /// The refusal for a column that the baseline grants to other roles only.
    pub(super) fn withheld_column(&self, column: &Column, what: &str) -> DataError {
        DataError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!("your role may not {what} {} of {}", column.name, self.name),
        )
        .with_column(&column.name)
    }

    pub(crate) fn primary_key(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.primary)
    }
}

impl Column {
    /// Whether the role lacks this privilege on the column, but has it on other columns of the table.
    pub(super) fn is_withheld(&self, right: Right, role: Role) -> bool {
        self.withheld.contains(&(role, right))
    }

    /// The type's name in SQL for a tenant with this schema.
    pub(super) fn type_sql(&self, schema: &str) -> String {
        match &self.type_schema {
            TypeSchema::BuiltIn => self.type_name.clone(),
            TypeSchema::Tenant => format!("{}.{}", quote_name(schema), self.type_name),
            TypeSchema::Other { name } => format!("{}.{}", quote_name(name), self.type_name),
        }
    }
}

/// A quoted name, whatever it contains.
pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_by_the_tenants_schema_when_the_template_has_it() {
        let model = super::super::fixture::shop();
        let orders = model.find_table("orders").unwrap();
        let sql = |name| orders.find_column(name).unwrap().type_sql("tenant_1");
        assert_eq!(sql("status"), "\"tenant_1\".order_status");
        assert_eq!(sql("total"), "numeric(10,2)");
        assert_eq!(sql("tags"), "text[]");
    }

    #[test]
    fn quotes_in_names_are_doubled() {
        assert_eq!(quote_name(r#"a"; DROP TABLE x; --"#), r#""a""; DROP TABLE x; --""#);
    }
}
