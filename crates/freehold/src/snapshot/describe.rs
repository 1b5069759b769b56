//! Describes a schema as the statements that would create it, or parts of it as a hash.

use std::collections::BTreeSet;

use super::{Node, Object, arrays, in_template, refused};
use crate::error::Result;
use crate::model::ids::{TEMPLATE_SCHEMA, TenantId};
use crate::tx::OwnerTx;

const DESCRIBE_SQL: &str = include_str!("describe.sql");

/// Planning takes longer than execution, and JIT compilation longer than both. So one generic plan serves all
/// schemas, without JIT.
pub(crate) const BEFORE_DESCRIBING: &str =
    "SELECT set_config('search_path', 'pg_catalog, pg_temp', true),
    set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true)";
const AFTER_DESCRIBING: &str = "SELECT set_config('plan_cache_mode', 'auto', true)";

/// The present objects of a schema, with the template's names, except the relations and routines in
/// `untouched`.
pub(super) async fn describe(
    tx: &mut OwnerTx,
    tenant: TenantId,
    untouched: &[String],
) -> Result<Vec<Node>> {
    let catalog = tx.catalog();
    catalog.query(BEFORE_DESCRIBING, &[]).await?;
    let schema = tenant.schema();
    let rows = catalog.query(DESCRIBE_SQL, &[&schema, &untouched]).await?;
    catalog.query(AFTER_DESCRIBING, &[]).await?;
    let mut nodes = Vec::with_capacity(rows.len());
    for row in &rows {
        let (kind, name): (&str, &str) = (row.get(0), row.get(1));
        let statement: Option<&str> = row.get(3);
        let statement = statement.ok_or_else(|| {
            let name = name.replace(&schema, TEMPLATE_SCHEMA);
            refused(format!(
                "{kind} {name}: Freehold cannot make one for each tenant; leave it out"
            ))
        })?;
        let (catalog, number): (i64, i64) = (row.get(4), row.get(5));
        nodes.push(Node {
            object: Object {
                kind: kind.to_owned(),
                name: in_template(tenant, name),
                stage: row.get(2),
                statement: arrays::without_casts(kind, &in_template(tenant, statement)),
                part_of: row.get(6),
            },
            number: (number != 0).then_some((catalog, number)),
        });
    }
    Ok(nodes)
}

/// Replaces the query's list of all members of the schema by the objects with the given names.
const NAMED_MEMBERS: &str = "
  SELECT 'pg_class'::regclass::oid AS classid, c.oid AS objid
  FROM unnest($2::text[]) name JOIN pg_class c ON c.relname = name AND c.relnamespace = $1::text::regnamespace
  UNION
  -- The sequences of their identity columns.
  SELECT 'pg_class'::regclass, s.oid
  FROM unnest($2::text[]) name JOIN pg_class c ON c.relname = name AND c.relnamespace = $1::text::regnamespace
  JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
  JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  UNION
  SELECT 'pg_proc'::regclass, p.oid
  FROM unnest($2::text[]) name JOIN pg_proc p ON p.proname = name AND p.pronamespace = $1::text::regnamespace
";
const ALL_BUT: [&str; 2] =
    ["AND (c.relkind = 'S' OR c.relname <> ALL ($2::text[]))", "AND p.proname <> ALL ($2::text[])"];

/// The definition of some relations and routines of a schema, as one hash. It is equal for two schemas if and
/// only if `describe` returns the same statements, in the same order of columns. It examines only some kinds
/// of objects, which takes a twentieth of the time for all kinds.
#[derive(Debug)]
pub(crate) struct Fingerprint {
    pub(crate) sql: String,
    pub(crate) names: Vec<String>,
}

impl Fingerprint {
    pub(super) fn of(kinds: &BTreeSet<&str>, names: Vec<String>) -> Fingerprint {
        if kinds.is_empty() {
            return Fingerprint { sql: String::new(), names };
        }
        let (head, parts) = DESCRIBE_SQL
            .split_once("SELECT kind, name, stage, statement,")
            .expect("the query has a head");
        let (before, rest) = head.split_once("  --: members\n").expect("members are marked");
        let (_, after) = rest.split_once("  --: end of members\n").expect("and their end");
        let after =
            ALL_BUT.iter().fold(after.to_owned(), |text, all_but| text.replace(all_but, ""));
        let (_, parts) = parts.split_once("FROM (\n").expect("there are parts");
        let (parts, _) = parts.rsplit_once("\n) object").expect("and an end of them");
        let is_wanted = |part: &&str| {
            let marked = part.lines().next().unwrap_or_default();
            let of = |kind: &str| {
                kinds.contains(kind)
                    || kind == "rights of" && kinds.iter().any(|k| k.starts_with(kind))
            };
            marked.trim_start_matches("  --: ").split(", ").any(of)
        };
        let parts: Vec<&str> = parts.split("\n  UNION ALL\n").filter(is_wanted).collect();
        let sql = format!(
            "{before}{NAMED_MEMBERS}{after}
SELECT md5(replace(replace(string_agg(concat_ws(' ', kind, name, statement), ' ' ORDER BY kind COLLATE \"C\", name COLLATE \"C\"),
  $1, '{TEMPLATE_SCHEMA}'), $3, '{}')) FROM (
{}
) object (kind, name, stage, catalog, number, statement, part_of)",
            TenantId::TEMPLATE,
            parts.join("\n  UNION ALL\n")
        );
        Fingerprint { sql, names }
    }

    /// Whether there is nothing to compare, because the migration changes nothing that is described.
    pub(crate) fn is_empty(&self) -> bool {
        self.sql.is_empty()
    }

    /// The present hash of a tenant. Leaves the search path at `pg_catalog, pg_temp`.
    pub(crate) async fn read(&self, tx: &mut OwnerTx, tenant: TenantId) -> Result<Option<String>> {
        if self.is_empty() {
            return Ok(None);
        }
        let catalog = tx.catalog();
        catalog.query(BEFORE_DESCRIBING, &[]).await?;
        let rows =
            catalog.query(&self.sql, &[&tenant.schema(), &self.names, &tenant.to_string()]).await?;
        catalog.query(AFTER_DESCRIBING, &[]).await?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }
}
