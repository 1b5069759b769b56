//! The tables of a rollup, in the schema `freehold_analytics`:
//!
//! - `rollup_<name>`: each tenant's rows, under row-level security by tenant.
//! - `touched_<name>`: the groups of rows that changed since the last publication.
//! - `total_<name>`: each group's total over all tenants; `retotal_<name>` computes those that were
//!   touched.
//! - `fleet_<name>`: the materialized view of the totals, which is published.
//! - `published_<name>`: access to that view, for an operator's context only.
//!
//! Totals are computed from the rollup and never counted up and down: they cannot drift.

use crate::analytics::rollup::{Column, Rollup, names, replaced, same};
use crate::schema::policy::{quote_ident, quote_literal};

impl Rollup {
    fn table(&self, kind: &str) -> String {
        format!("freehold_analytics.{kind}_{}", self.name())
    }

    pub(crate) fn rollup_table(&self) -> String {
        self.table("rollup")
    }

    pub(crate) fn published_view(&self) -> String {
        self.table("published")
    }

    /// All objects of a rollup.
    pub(crate) fn create_sql(&self) -> String {
        [self.create_rollup(), self.create_totals(), self.create_published()].concat()
    }

    fn create_rollup(&self) -> String {
        let rollup = self.rollup_table();
        let keys = names(&self.grain, "");
        format!(
            "CREATE TABLE {rollup} (tenant_id uuid NOT NULL, {grain}, {measures}, PRIMARY KEY (tenant_id, {keys}))
               WITH (fillfactor = 80);
             CREATE INDEX ON {rollup} ({keys});
             {protection}
             CREATE POLICY tenant_scope ON {rollup} AS RESTRICTIVE
               USING ((SELECT freehold.in_catalog()) OR tenant_id = (SELECT freehold.tenant()));
             CREATE POLICY analytics_access ON {rollup} TO freehold_analytics USING (true) WITH CHECK (true);
             CREATE POLICY app_read ON {rollup} FOR SELECT TO freehold_catalog USING (true);
             GRANT SELECT, INSERT, UPDATE, DELETE ON {rollup} TO freehold_analytics;
             GRANT SELECT ON {rollup} TO freehold_catalog;",
            grain = declared(&self.grain, " NOT NULL"),
            measures = declared(&self.measures, ""),
            protection = protect(&rollup),
        )
    }

    fn create_totals(&self) -> String {
        let (rollup, total, touched) =
            (self.rollup_table(), self.table("total"), self.table("touched"));
        let keys = names(&self.grain, "");
        let totals_of_all = self.totals_sql(&format!("{rollup} r"));
        let retotal = self.retotal_body();
        let triggers: String = [("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")]
            .iter()
            .map(|(event, rows)| {
                format!(
                    "CREATE TRIGGER note_touched_by_{event} AFTER {event} ON {rollup}
                       REFERENCING {rows} TABLE AS changed FOR EACH STATEMENT
                       EXECUTE FUNCTION freehold.note_touched({argument});",
                    argument = quote_literal(&keys),
                )
            })
            .collect();
        let protection = [protect(&total), protect(&touched)].concat();
        // The totals have the types that PostgreSQL's sum returns.
        format!(
            "CREATE TABLE {touched} ({grain});
             CREATE TABLE {total} WITH (fillfactor = 80) AS {totals_of_all} WITH NO DATA;
             ALTER TABLE {total} ADD PRIMARY KEY ({keys});
             {protection}{triggers}
             CREATE FUNCTION {function}() RETURNS boolean
             LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS {retotal};
             REVOKE ALL ON FUNCTION {function}() FROM PUBLIC;",
            grain = declared(&self.grain, " NOT NULL"),
            function = self.table("retotal"),
            retotal = quote_literal(&retotal),
        )
    }

    /// Computes the totals of the touched groups again, and returns whether there were any. The groups are an
    /// array because the planner knows its length: it looks up a few groups by the index, and scans for many.
    /// The function's own names begin with `freehold_`, since a column may have any other.
    fn retotal_body(&self) -> String {
        let (rollup, total, touched) =
            (self.rollup_table(), self.table("total"), self.table("touched"));
        let keys = names(&self.grain, "");
        format!(
            "
#variable_conflict use_column
DECLARE
  freehold_touched {touched}[];
BEGIN
  WITH gone AS (DELETE FROM {touched} freehold_row RETURNING freehold_row AS freehold_group)
  SELECT array_agg(DISTINCT freehold_group) INTO freehold_touched FROM gone;
  IF freehold_touched IS NULL THEN
    RETURN false;
  END IF;
  WITH fresh AS (
    {totals}
  ), written AS (
    INSERT INTO {total} ({keys}, tenants, withheld, {measures}) SELECT * FROM fresh
    ON CONFLICT ({keys}) DO UPDATE SET tenants = excluded.tenants, withheld = excluded.withheld, {set}
  )
  DELETE FROM {total} t USING unnest(freehold_touched) g
  WHERE {t_is_g} AND NOT EXISTS (SELECT FROM fresh f WHERE {f_is_g});
  RETURN true;
END
",
            totals = self.totals_sql(&format!(
                "unnest(freehold_touched) g JOIN {rollup} r ON {}",
                same(&self.grain, "r", "g")
            )),
            measures = names(&self.measures, ""),
            set = replaced(&self.measures),
            t_is_g = same(&self.grain, "t", "g"),
            f_is_g = same(&self.grain, "f", "g"),
        )
    }

    /// The totals of a rollup's rows `r`. Figures of a group that is too small are not computed at all.
    fn totals_sql(&self, rows: &str) -> String {
        let minimum = self.definition.minimum_group;
        let measures: Vec<_> = self
            .measures
            .iter()
            .map(|c| {
                let total = if self.definition.averages.contains(&c.name) { "avg" } else { "sum" };
                let column = quote_ident(&c.name);
                format!("CASE WHEN count(*) >= {minimum} THEN {total}(r.{column}) END AS {column}")
            })
            .collect();
        format!(
            "SELECT {grain}, count(*)::int AS tenants, count(*) < {minimum} AS withheld, {measures}
             FROM {rows} GROUP BY {grain}",
            grain = names(&self.grain, "r."),
            measures = measures.join(", "),
        )
    }

    fn create_published(&self) -> String {
        let (fleet, published) = (self.table("fleet"), self.published_view());
        let keys = names(&self.grain, "");
        format!(
            "CREATE MATERIALIZED VIEW {fleet} AS SELECT * FROM {total};
             CREATE UNIQUE INDEX ON {fleet} ({keys});
             CREATE VIEW {published} WITH (security_barrier) AS
               SELECT {keys}, tenants, {measures} FROM {fleet}
               WHERE NOT withheld AND (SELECT freehold.require_catalog());
             GRANT SELECT ON {published} TO freehold_catalog;",
            total = self.table("total"),
            measures = names(&self.measures, ""),
        )
    }

    pub(crate) fn drop_sql(name: &str) -> String {
        format!(
            "DROP VIEW IF EXISTS freehold_analytics.published_{name};
             DROP MATERIALIZED VIEW IF EXISTS freehold_analytics.fleet_{name};
             DROP FUNCTION IF EXISTS freehold_analytics.retotal_{name}();
             DROP TABLE IF EXISTS freehold_analytics.rollup_{name}, freehold_analytics.total_{name},
               freehold_analytics.touched_{name};"
        )
    }
}

/// Row-level security for every role, and the owner's policy.
fn protect(table: &str) -> String {
    format!(
        "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY owner_access ON {table} TO freehold_owner USING (true) WITH CHECK (true);"
    )
}

/// The column definitions of a table.
fn declared(columns: &[Column], constraint: &str) -> String {
    let column = |c: &Column| format!("{} {}{constraint}", quote_ident(&c.name), c.type_name);
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}
