//! What sessions of one role can learn about and do to each other, apart from rows. To PostgreSQL all tenants
//! are one role, so these privileges must be revoked from PUBLIC, which needs a superuser.

use tokio_postgres::Client;

use crate::error::Result;

/// Locks that a session keeps after its transaction, and so passes on to the next tenant on the connection.
/// Locks of a transaction stay available, because triggers of baselines take them.
pub(crate) const SESSION_LOCKS: &[&str] = &[
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
];

/// Functions that return the text of other sessions' statements; `pg_stat_activity` and others use them.
pub(crate) const ACTIVITY: &[&str] = &["pg_stat_get_activity", "pg_stat_get_backend_activity"];

/// Extensions that store the texts of statements, in views and in functions that bypass the views.
pub(crate) const STATEMENT_EXTENSIONS: &[&str] =
    &["pg_stat_statements", "pg_stat_monitor", "auto_explain", "pg_qualstats", "pg_store_plans"];

/// Roles that keep the session locks: the owner for index builds, analytics for leases.
const LOCKERS: &str = "freehold_owner, freehold_analytics";
/// Roles that keep access to others' statements: PostgreSQL's own monitoring roles.
const MONITORS: &str = "pg_monitor, pg_read_all_stats";

/// What PUBLIC may still do with the members of these extensions.
const OPEN_MEMBERS: &str = "
SELECT 'EXECUTE ON ROUTINE ' || p.oid::regprocedure::text
FROM pg_extension e
JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
WHERE e.extname = ANY($1)
  AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)
UNION ALL
SELECT 'SELECT ON TABLE ' || c.oid::regclass::text
FROM pg_extension e
JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
WHERE e.extname = ANY($1) AND EXISTS (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0)";

/// Revokes all of it from PUBLIC and grants it to the roles that need it. Monitoring continues to work.
pub(super) async fn close(client: &Client) -> Result<()> {
    for (functions, to) in [(SESSION_LOCKS, LOCKERS), (ACTIVITY, MONITORS)] {
        let functions = list_functions(client, functions).await?;
        client
            .batch_execute(&format!(
                "REVOKE EXECUTE ON FUNCTION {functions} FROM PUBLIC;
                 GRANT EXECUTE ON FUNCTION {functions} TO {to}"
            ))
            .await?;
    }
    for row in client.query(OPEN_MEMBERS, &[&STATEMENT_EXTENSIONS]).await? {
        let right: &str = row.get(0);
        client
            .batch_execute(&format!("REVOKE {right} FROM PUBLIC; GRANT {right} TO {MONITORS}"))
            .await?;
    }
    Ok(())
}

/// What is still open to the app role.
pub(super) async fn warnings(client: &Client) -> Result<Vec<&'static str>> {
    let open = |names: &'static [&'static str]| async move {
        let sql = "SELECT coalesce(bool_or(has_function_privilege('freehold_app', oid, 'EXECUTE')), false)
            FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY($1)";
        Ok::<bool, crate::error::Error>(client.query_one(sql, &[&names]).await?.get(0))
    };
    let mut warnings = Vec::new();
    if open(SESSION_LOCKS).await? {
        warnings.push(
            "locks of a session are open to the app role: injected SQL could hold them on a connection that other tenants get",
        );
    }
    if open(ACTIVITY).await? {
        warnings.push(
            "pg_stat_activity is open to the app role: injected SQL could read the statements of other tenants that run",
        );
    }
    Ok(warnings)
}

/// PostgreSQL's own functions with these names, with their arguments, for GRANT and REVOKE.
pub(super) async fn list_functions(client: &Client, names: &[&str]) -> Result<String> {
    let sql = "SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc
               WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY($1)";
    Ok(client.query_one(sql, &[&names]).await?.get(0))
}
