//! The baseline's final state: every object of the template as the statement that creates it, and the rows
//! that migrations inserted. A new tenant is created from it in one batch, whatever the template's history;
//! and migrated tenants are compared with it.
//!
//! PostgreSQL prints the statements (`snapshot/describe.sql`). What it does not print, such as the order in
//! which to run them, is found by `snapshot/depends.sql` and `order.rs`.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use self::describe::describe;
use self::rows::Rows;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::{TEMPLATE_SCHEMA, TenantId};
use crate::tx::OwnerTx;

mod arrays;
pub(crate) mod change;
pub(crate) mod describe;
mod order;
pub(crate) mod rows;

const DEPENDS_SQL: &str = include_str!("snapshot/depends.sql");

/// Where rows come in, among the stages of `describe.sql`.
const ROWS_STAGE: i32 = 4;

/// The template after a migration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// The major version of the PostgreSQL that printed the statements: another version may print them
    /// differently.
    pub(crate) server: i32,
    /// In an order in which they can be created.
    pub(crate) objects: Vec<Object>,
    /// Kept for the newest version only.
    #[serde(default)]
    pub(crate) rows: Rows,
}

/// One object, or one property of an object: its privileges, a policy, a comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    kind: String,
    name: String,
    stage: i32,
    /// It contains the template's schema name and tenant id.
    statement: String,
    /// The relation or routine that it is or belongs to, by its bare name.
    part_of: Option<String>,
}

/// An object whose position is not known yet.
struct Node {
    object: Object,
    /// Its row in its catalog, if other objects can depend on it.
    number: Option<Number>,
}

/// A row of one of PostgreSQL's catalogs: the catalog's OID and the row's.
type Number = (i64, i64);

/// A text about a tenant's schema as it would be about the template.
pub(crate) fn in_template(tenant: TenantId, text: &str) -> String {
    if tenant == TenantId::TEMPLATE {
        return text.to_owned();
    }
    text.replace(&tenant.schema(), TEMPLATE_SCHEMA)
        .replace(&tenant.to_string(), &TenantId::TEMPLATE.to_string())
}

/// The reverse.
pub(crate) fn in_schema_of(tenant: TenantId, text: &str) -> String {
    text.replace(TEMPLATE_SCHEMA, &tenant.schema())
        .replace(&TenantId::TEMPLATE.to_string(), &tenant.to_string())
}

impl Snapshot {
    /// The snapshot of the template, without rows. Leaves the search path at `pg_catalog, pg_temp`.
    pub(crate) async fn of_template(tx: &mut OwnerTx) -> Result<Snapshot> {
        let nodes = describe(tx, TenantId::TEMPLATE, &[]).await?;
        let rows = tx.catalog().query(DEPENDS_SQL, &[&TEMPLATE_SCHEMA]).await?;
        let mut parts = HashMap::new();
        let mut dependences = Vec::new();
        for row in &rows {
            let from: Number = (row.get(1), row.get(2));
            let to: Number = (row.get(3), row.get(4));
            if row.get::<_, bool>(0) {
                parts.insert(from, to);
            } else {
                dependences.push((from, to));
            }
        }
        let server = server_major(tx).await?;
        let objects = order::in_order(nodes, &parts, &dependences).map_err(refused)?;
        Ok(Snapshot { server, objects, rows: Rows::default() })
    }

    /// Everything that a tenant's schema, which exists and is empty, consists of, as one batch. It runs with
    /// that schema first in the search path and in the tenant's context, which defaults may read.
    pub(crate) fn creation_sql(&self, tenant: TenantId) -> String {
        // Functions may be created before the objects that their bodies name.
        let mut sql = String::from("SET LOCAL check_function_bodies = off;\n");
        let mut rest = self.objects.iter().peekable();
        while let Some(object) = rest.next_if(|object| object.stage < ROWS_STAGE) {
            let _ = writeln!(sql, "{};", object.statement);
        }
        self.rows.write_sql(&mut sql);
        for object in rest {
            let _ = writeln!(sql, "{};", object.statement);
        }
        sql.push_str("SET LOCAL check_function_bodies TO DEFAULT;\n");
        in_schema_of(tenant, &sql)
    }
}

impl Object {
    fn key(&self) -> (&str, &str) {
        (&self.kind, &self.name)
    }

    /// The object's name in an error.
    fn title(&self) -> String {
        format!("{} {}", self.kind, self.bare_name())
    }

    fn bare_name(&self) -> &str {
        self.name
            .strip_prefix(TEMPLATE_SCHEMA)
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or(&self.name)
    }

    /// A table split into columns and constraints, since their order does not matter; any other object as a
    /// whole.
    fn lines(&self) -> Vec<&str> {
        if !matches!(self.kind.as_str(), "table" | "foreign table") {
            return vec![&self.statement];
        }
        let lines = self.statement.lines().map(|line| line.trim().trim_end_matches(','));
        lines.filter(|line| !line.starts_with("freehold_dropped_")).collect()
    }
}

/// Creates a tenant's schema from the snapshot, in a transaction of its own: the schema, its objects and
/// rows, protected like the template's. Leaves the search path on the schema.
pub(crate) async fn create_schema(
    tx: &mut OwnerTx,
    tenant: TenantId,
    snapshot: &Snapshot,
) -> Result<()> {
    let schema = tenant.schema();
    let create = format!(
        "CREATE SCHEMA {schema};
         GRANT USAGE ON SCHEMA {schema} TO freehold_app, freehold_viewer, freehold_analytics"
    );
    tx.batch_execute(&create).await?;
    fill_schema(tx, tenant, snapshot).await
}

/// Fills an empty schema from the snapshot. Leaves the search path on the schema.
pub(crate) async fn fill_schema(
    tx: &mut OwnerTx,
    tenant: TenantId,
    snapshot: &Snapshot,
) -> Result<()> {
    tx.enter_schema(tenant).await?;
    tx.batch_execute(&snapshot.creation_sql(tenant)).await
}

pub(crate) async fn server_major(tx: &mut OwnerTx) -> Result<i32> {
    let sql = "SELECT current_setting('server_version_num')::int / 10000";
    let rows = tx.catalog().query(sql, &[]).await?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}

fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Migration, why.into())
}

#[cfg(test)]
mod tests;
