//! The RLS model: what must hold for every relation of a tenant's schema, as SQL that establishes it and as a
//! check that verifies it. Generating and checking are pure; `protect` does both.
//!
//! The tenant of a schema is known when its policies are created, so they compare the context with a
//! constant: the application's tables need no `tenant_id` and no index on it.
//!
//! `tenant_isolation` applies to PUBLIC. Who passes it without a matching context (the owner role without any
//! context, and analytics) is decided in one function, `pass_or_refuse` behind `require_tenant`, by
//! `session_user`, which no SQL of a session can change. Leaving those roles out of the policy instead would
//! free SECURITY DEFINER functions of a baseline from the caller's tenant, and a role that is added later.
//!
//! A table to which a migration grants privileges keeps those grants; other tables get the default ones. A
//! table with permissive policies of its own gets none of ours, which would widen them.

use std::fmt::Write as _;

use serde::Deserialize;
use tokio_postgres::Client;

use self::paths::Settled;
pub(crate) use self::paths::cure;
use self::sequences::{ColumnDefault, Domain, Routine, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TenantId;
use crate::wire;

mod inventory;
mod paths;
mod sequences;

/// The contents of a tenant's schema, as far as protection is concerned.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Inventory {
    relations: Vec<Relation>,
    /// Routines and domains that call sequences directly.
    routines: Vec<Routine>,
    domains: Vec<Domain>,
    /// Routines whose settings must change.
    settled: Vec<Settled>,
    /// What calls `lastval()`.
    lastval: Vec<String>,
}

/// A relation in a tenant's schema, as far as protection is concerned.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Relation {
    name: String,
    kind: RelationKind,
    owner_is_ours: bool,
    rls_enabled: bool,
    rls_forced: bool,
    security_invoker: bool,
    /// Roles, except the owner, with any privilege on it or on one of its columns.
    granted_to: Vec<String>,
    /// Whether analytics may read all of it.
    read_by_analytics: bool,
    policies: Vec<Policy>,
    /// Defaults of its columns that call sequences directly.
    defaults: Vec<ColumnDefault>,
    /// The settings, if it is a sequence.
    settings: Option<Settings>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RelationKind {
    Table,
    View,
    MaterializedView,
    ForeignTable,
    Sequence,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Policy {
    name: String,
    permissive: bool,
    /// `*` for ALL, else `r`, `a`, `w`, `d`, as in `pg_policy.polcmd`.
    command: String,
    roles: Vec<String>,
    using: Option<String>,
    check: Option<String>,
}

const ISOLATION: &str = "tenant_isolation";
const ACCESS: &str = "tenant_access";
const ANALYTICS: &str = "freehold_analytics";

impl Relation {
    fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.iter().find(|p| p.name == name)
    }

    /// Whether the baseline has permissive policies of its own. Then they alone decide which rows are visible
    /// within the tenant, and ours would widen them.
    fn has_own_permissive_policy(&self) -> bool {
        self.policies.iter().any(|p| {
            p.permissive && ![ACCESS, "owner_access", "analytics_read"].contains(&p.name.as_str())
        })
    }

    fn is_granted_in_tenant(&self) -> bool {
        self.granted_to.iter().any(|role| role != ANALYTICS)
    }

    /// Grants for a table or view. The baseline's own grants stay as they are, except that analytics reads
    /// everything.
    fn grants(&self, name: &str, sql: &mut String) {
        if !self.is_granted_in_tenant() {
            let _ = writeln!(sql, "GRANT SELECT ON {name} TO freehold_viewer;");
            let _ = writeln!(sql, "GRANT INSERT, UPDATE, DELETE ON {name} TO freehold_member;");
        }
        if !self.read_by_analytics {
            let _ = writeln!(sql, "GRANT SELECT ON {name} TO {ANALYTICS};");
        }
    }
}

/// The SQL that protects what is not protected yet, in one batch: policies, grants, and the use of sequences.
///
/// A table on which the baseline grants any privilege, even on columns, keeps exactly those grants; other
/// tables get the defaults: `freehold_viewer` reads, `freehold_member` writes. Sequences are granted to
/// nobody.
pub(crate) fn protection_sql(tenant: TenantId, inventory: &Inventory) -> String {
    let schema = tenant.schema();
    let isolated = isolation_call(tenant);
    let mut sql = String::new();
    for relation in &inventory.relations {
        let name = format!("{schema}.{}", quote_ident(&relation.name));
        for default in &relation.defaults {
            let settings = |name: &str| inventory.settings(name).cloned();
            sequences::default_sql(&schema, &name, default, settings, &mut sql);
        }
        match relation.kind {
            RelationKind::Table => {
                if relation.policy(ISOLATION).is_none() {
                    let _ = write!(
                        sql,
                        "ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;\n\
                         CREATE POLICY {ISOLATION} ON {name} AS RESTRICTIVE USING ({isolated}) WITH CHECK ({isolated});\n\
                         CREATE POLICY owner_access ON {name} TO freehold_owner USING (true) WITH CHECK (true);\n\
                         CREATE POLICY analytics_read ON {name} FOR SELECT TO freehold_analytics USING (true);\n"
                    );
                    if !relation.has_own_permissive_policy() {
                        let _ = writeln!(
                            sql,
                            "CREATE POLICY {ACCESS} ON {name} TO freehold_viewer USING (true) WITH CHECK (true);"
                        );
                    }
                }
                relation.grants(&name, &mut sql);
            }
            RelationKind::View => {
                if !relation.security_invoker {
                    let _ = writeln!(sql, "ALTER VIEW {name} SET (security_invoker = true);");
                }
                relation.grants(&name, &mut sql);
            }
            // No policy can protect these, so they are granted to no tenant role.
            RelationKind::MaterializedView
            | RelationKind::ForeignTable
            | RelationKind::Sequence => {}
        }
    }
    for domain in &inventory.domains {
        sequences::domain_sql(&schema, domain, &mut sql);
    }
    sequences::routines_sql(&inventory.routines, &mut sql);
    paths::sql(&schema, &inventory.settled, &mut sql);
    sql
}

impl Inventory {
    fn sequences(&self) -> impl Iterator<Item = (&str, &Settings)> {
        self.relations.iter().filter_map(|r| Some((r.name.as_str(), r.settings.as_ref()?)))
    }

    fn settings(&self, sequence: &str) -> Option<&Settings> {
        self.sequences().find(|(name, _)| *name == sequence).map(|(_, settings)| settings)
    }
}

fn isolation_call(tenant: TenantId) -> String {
    format!("(SELECT freehold.require_tenant('{tenant}'))")
}

/// All deviations from what must hold, one sentence each; empty if there are none.
pub(crate) fn faults(tenant: TenantId, inventory: &Inventory) -> Vec<String> {
    let mut faults = Vec::new();
    for relation in &inventory.relations {
        let mut fault = |what: &str| faults.push(format!("{} {what}", relation.name));
        if !relation.owner_is_ours {
            fault("does not belong to freehold_owner");
        }
        if !relation.defaults.is_empty() {
            fault("has a default that asks a sequence, to which nobody in a tenant has a right");
        }
        match relation.kind {
            RelationKind::Table => {
                if !relation.rls_enabled || !relation.rls_forced {
                    fault("has row-level security not enabled and forced");
                }
                // The form in which pg_get_expr prints the policy that `protection_sql` creates.
                let expected = Some(format!(
                    "( SELECT freehold.require_tenant('{tenant}'::uuid) AS require_tenant)"
                ));
                match relation.policy(ISOLATION) {
                    Some(p)
                        if !p.permissive
                            && p.command == "*"
                            && p.roles == ["public"]
                            && p.using == expected
                            && p.check == expected => {}
                    Some(_) => fault("has a policy tenant_isolation that is not Freehold's"),
                    None => fault("has no policy tenant_isolation"),
                }
            }
            RelationKind::View if !relation.security_invoker => {
                fault("is a view without security_invoker");
            }
            RelationKind::MaterializedView | RelationKind::ForeignTable
                if !relation.granted_to.is_empty() =>
            {
                fault(
                    "is granted, but row-level security cannot protect a materialized view or foreign table",
                );
            }
            _ => {}
        }
    }
    faults.extend(paths::faults(&tenant.schema(), &inventory.settled));
    faults.extend(inventory.lastval.iter().map(|name| sequences::lastval_fault(name)));
    faults
}

/// Protects every relation of the tenant's schema, except those that are known to be unchanged since they
/// were protected, and verifies the result, within the transaction of `client`. If this fails, the caller's
/// transaction must fail.
///
/// Leaves the search path at `pg_catalog, pg_temp`.
pub(crate) async fn protect(
    client: &mut wire::Connection,
    tenant: TenantId,
    untouched: &[String],
) -> Result<String> {
    client.batch_execute(BEFORE_LOOKING).await?;
    let before = inventory(client, tenant, untouched).await?;
    let sql = protection_sql(tenant, &before);
    if sql.is_empty() {
        refuse_if_any(faults(tenant, &before))?;
    } else {
        client.batch_execute(&sql).await?;
        refuse_if_any(faults(tenant, &inventory(client, tenant, untouched).await?))?;
    }
    Ok(sql)
}

/// Fails if anything in the tenant's schema is not protected. Leaves the search path at
/// `pg_catalog, pg_temp`.
pub(crate) async fn verify(client: &mut wire::Connection, tenant: TenantId) -> Result<()> {
    client.batch_execute(BEFORE_LOOKING).await?;
    refuse_if_any(faults(tenant, &inventory(client, tenant, &[]).await?))
}

/// The parts of a migration that work differently from how they read, regarding sequences and search paths.
/// Found by words in the texts, so a part may be missed: then PostgreSQL refuses it when it runs.
pub(crate) async fn notices(
    client: &mut wire::Connection,
    tenant: TenantId,
    migration: &str,
) -> Result<Vec<String>> {
    let rows = client.query_once(sequences::ASKING_SQL, &[&tenant.schema()]).await?;
    let routines: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let mut notices = sequences::notices(migration, &routines);
    let rows = client.query_once(paths::PATHS_SQL, &[&tenant.schema()]).await?;
    let routines: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    notices.extend(paths::notices(migration, &routines));
    Ok(notices)
}

/// Names come out qualified; to compile what reads a schema takes longer than to read it.
const BEFORE_LOOKING: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off";

fn refuse_if_any(faults: Vec<String>) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Migration,
        format!("the schema cannot be protected: {}", faults.join("; ")),
    ))
}

async fn inventory(
    client: &mut wire::Connection,
    tenant: TenantId,
    untouched: &[String],
) -> Result<Inventory> {
    let unreadable = || Error::new(ErrorKind::Internal, "the inventory of a schema cannot be read");
    let sql = inventory::SQL
        .replace("{settled}", paths::SETTLED_SQL)
        .replace("{lastval}", sequences::LASTVAL_SQL);
    let rows = client.query_once(&sql, &[&tenant.schema(), &untouched]).await?;
    let json = rows.first().ok_or_else(unreadable)?.get(0);
    serde_json::from_str(json).map_err(|source| unreadable().because(source))
}

/// Tables of tenants that row-level security does not protect, over the whole fleet, as `schema.table`. There
/// are none unless the migrator was bypassed. Schemas are looked up for the tables found, so that the plan
/// does not depend on the estimated number of schemas.
pub(crate) async fn list_unprotected(client: &Client, limit: i64) -> Result<Vec<String>> {
    let rows = client
        .query(
            "SELECT u.schema || '.' || u.name
             FROM (SELECT c.relnamespace::regnamespace::text AS schema, c.relname AS name
                   FROM pg_class c
                   WHERE c.relkind IN ('r', 'p')
                     AND (NOT c.relrowsecurity OR NOT c.relforcerowsecurity OR NOT EXISTS (
                       SELECT FROM pg_policy p WHERE p.polrelid = c.oid
                         AND p.polname = 'tenant_isolation' AND NOT p.polpermissive AND p.polcmd = '*'))
                   OFFSET 0) u
             WHERE u.schema ~ '^tenant_[0-9a-f]{32}$'
             LIMIT $1",
            &[&limit],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Quotes an identifier from the database's catalog.
pub(crate) fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text as an SQL literal.
pub(crate) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(name: &str, kind: RelationKind) -> Relation {
        Relation {
            name: name.into(),
            kind,
            owner_is_ours: true,
            rls_enabled: false,
            rls_forced: false,
            security_invoker: false,
            granted_to: vec![],
            read_by_analytics: false,
            policies: vec![],
            defaults: vec![],
            settings: None,
        }
    }

    fn of(relations: &[Relation]) -> Inventory {
        Inventory { relations: relations.to_vec(), ..Inventory::default() }
    }

    const TENANT: TenantId = TenantId::TEMPLATE;

    #[test]
    fn a_bare_table_gets_policies_before_grants() {
        let sql = protection_sql(TENANT, &of(&[relation("or\"ders", RelationKind::Table)]));
        insta::assert_snapshot!(sql);
        assert!(sql.rfind("CREATE POLICY") < sql.find("GRANT"));
    }

    #[test]
    fn what_the_baseline_grants_is_left_alone() {
        let mut notes = relation("notes", RelationKind::Table);
        notes.granted_to = vec!["freehold_member".into()];
        let sql = protection_sql(TENANT, &of(&[notes]));
        assert_eq!(sql.matches("GRANT").count(), 1, "analytics alone: {sql}");
    }

    #[test]
    fn what_no_policy_can_protect_is_never_granted() {
        let matview = relation("totals", RelationKind::MaterializedView);
        assert_eq!(protection_sql(TENANT, &of(std::slice::from_ref(&matview))), "");
        let mut granted = matview;
        granted.granted_to = vec!["freehold_viewer".into()];
        assert_eq!(faults(TENANT, &of(&[granted])).len(), 1);
    }

    #[test]
    fn an_unprotected_table_is_a_fault_in_every_way_it_can_be() {
        let bare = relation("orders", RelationKind::Table);
        assert_eq!(faults(TENANT, &of(&[bare])).len(), 2);
        let mut widened = relation("orders", RelationKind::Table);
        widened.rls_enabled = true;
        widened.rls_forced = true;
        widened.policies = vec![Policy {
            name: ISOLATION.into(),
            permissive: true,
            command: "*".into(),
            roles: vec!["public".into()],
            using: Some("true".into()),
            check: None,
        }];
        assert_eq!(
            faults(TENANT, &of(&[widened])),
            ["orders has a policy tenant_isolation that is not Freehold's"]
        );
    }
}
