//! What sessions of one role tell and do to each other beside the rows: to PostgreSQL all tenants are
//! one role, so it must be taken from PUBLIC. Needs a superuser.

use tokio_postgres::Client;

use super::roles::list_functions;
use crate::error::Result;

/// Locks that a session keeps after its transaction: the connection goes to the next tenant with them.
/// Those of a transaction stay everybody's, because triggers of baselines take them.
pub(crate) const SESSION_LOCKS: &[&str] = &[
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
];

/// What shows the text of other sessions' statements; `pg_stat_activity` and its like are made of these.
pub(crate) const ACTIVITY: &[&str] = &["pg_stat_get_activity", "pg_stat_get_backend_activity"];

/// Extensions that keep the texts of statements, by views and by functions that can be asked past them.
pub(crate) const STATEMENT_EXTENSIONS: &[&str] =
    &["pg_stat_statements", "pg_stat_monitor", "auto_explain", "pg_qualstats", "pg_store_plans"];

/// Whom the session's locks are left to: index builds are the owner's, leases those of analytics.
const LOCKERS: &str = "freehold_owner, freehold_analytics";
/// Whom the statements of others are left to: PostgreSQL's own roles for monitoring.
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

/// Takes all of it from PUBLIC and gives it to who needs it. Monitoring goes on working.
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
