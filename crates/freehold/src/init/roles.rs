//! The roles: their attributes, the privileges that PUBLIC loses, and the check that row-level security
//! applies to the role that serves.

use std::fmt::Write as _;

use tokio_postgres::Client;

use super::{beside, setup};
use crate::error::{Error, Result};
use crate::schema::policy::quote_ident;
use crate::wire::settings;

/// The roles that log in; the others are those that they may become.
const LOGIN_ROLES: [&str; 4] =
    ["freehold_owner", "freehold_app", CATALOG_ROLE, "freehold_analytics"];
/// Reads and writes the catalog, and never runs a tenant's SQL.
pub(crate) const CATALOG_ROLE: &str = "freehold_catalog";
/// Owns the keys that seal contexts and the functions that verify them, and nothing else. It has no members.
pub(crate) const GUARD_ROLE: &str = "freehold_guard";
const TENANT_ROLES: [&str; 3] = ["freehold_viewer", "freehold_member", "freehold_admin"];

/// Passwords to set. A new role without a password cannot log in by password.
#[derive(Clone, Default)]
pub struct Passwords {
    /// For `freehold_owner`, which owns the schemas and migrates.
    pub owner: Option<String>,
    /// For `freehold_app`, which runs tenants' transactions.
    pub app: Option<String>,
    /// For `freehold_catalog`, which reads and writes the catalog. By default that of `freehold_app`.
    pub catalog: Option<String>,
    /// For `freehold_analytics`, which reads every tenant's tables and writes none.
    pub analytics: Option<String>,
}

impl Passwords {
    /// The roles whose password is given.
    pub(super) fn roles(&self) -> Vec<&'static str> {
        let given = [
            ("freehold_owner", &self.owner),
            ("freehold_app", &self.app),
            ("freehold_catalog", &self.catalog),
            ("freehold_analytics", &self.analytics),
        ];
        given.into_iter().filter(|(_, password)| password.is_some()).map(|(role, _)| role).collect()
    }
}

/// Functions of PostgreSQL that PUBLIC may call by default, through which tenants could reach or harm each
/// other: large objects have no row-level security, the signals reach sessions of the same role, which all
/// tenants share, and a session's list of prepared statements shows what others queried on it, and the names
/// under which a statement could be replaced.
pub(crate) const DANGEROUS: &[&str] = &[
    "lo_creat",
    "lo_create",
    "lo_from_bytea",
    "lo_open",
    "lo_close",
    "lo_put",
    "lo_get",
    "lo_lseek",
    "lo_lseek64",
    "lo_tell",
    "lo_tell64",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "loread",
    "lowrite",
    "lo_import",
    "lo_export",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_prepared_statement",
];

/// Creates the missing roles, and returns them.
pub(super) async fn ensure(client: &Client, passwords: &Passwords) -> Result<Vec<String>> {
    let mut created = Vec::new();
    for role in LOGIN_ROLES.into_iter().chain(TENANT_ROLES).chain([GUARD_ROLE]) {
        let known = client.query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&role]).await?;
        if known.is_none() {
            let login = if LOGIN_ROLES.contains(&role) { "LOGIN" } else { "NOLOGIN" };
            // NOINHERIT: the app role has a tenant role's privileges only inside a tenant's transaction.
            let inherit = if role == "freehold_app" { "NOINHERIT" } else { "INHERIT" };
            client
                .batch_execute(&format!("CREATE ROLE {role} {login} {inherit}"))
                .await
                .map_err(explain_roles)?;
            created.push(role.to_owned());
        }
    }
    let secrets = [
        ("freehold_owner", &passwords.owner),
        ("freehold_app", &passwords.app),
        (CATALOG_ROLE, passwords.catalog.as_ref().map_or(&passwords.app, |_| &passwords.catalog)),
        ("freehold_analytics", &passwords.analytics),
    ];
    for (role, password) in secrets {
        if let Some(password) = password {
            // A utility statement takes no parameters, so PostgreSQL quotes the value.
            let row = client.query_one("SELECT quote_literal($1)", &[password]).await?;
            let quoted: String = row.get(0);
            client.batch_execute(&format!("ALTER ROLE {role} PASSWORD {quoted}")).await?;
        }
    }
    if created.iter().any(|role| role == CATALOG_ROLE)
        && passwords.catalog.is_none()
        && passwords.app.is_none()
    {
        copy_password(client, "freehold_app", CATALOG_ROLE).await?;
    }
    client
        .batch_execute(
            "GRANT freehold_viewer TO freehold_member;
             GRANT freehold_member TO freehold_admin;
             GRANT freehold_admin, freehold_member, freehold_viewer TO freehold_app",
        )
        .await
        .map_err(explain_roles)?;
    // A superuser needs no membership, and an existing member must not be granted it again at every start: in
    // PostgreSQL 16 and later these grants would accumulate.
    let member = "SELECT pg_has_role(current_user, 'freehold_owner', 'USAGE')";
    if !is_superuser(client).await? && !client.query_one(member, &[]).await?.get::<_, bool>(0) {
        client
            .batch_execute("GRANT freehold_owner TO CURRENT_USER")
            .await
            .map_err(explain_roles)?;
    }
    Ok(created)
}

pub(super) async fn is_superuser(client: &Client) -> Result<bool> {
    let sql = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Gives one role the password of another. This needs a superuser, who can read the stored form. A SCRAM
/// verifier does not depend on the role's name; an MD5 hash does.
async fn copy_password(client: &Client, from: &str, to: &str) -> Result<()> {
    if !is_superuser(client).await? {
        return Ok(());
    }
    let sql = "SELECT quote_literal(rolpassword) FROM pg_authid
               WHERE rolname = $1 AND starts_with(rolpassword, 'SCRAM-SHA-256$')";
    if let Some(row) = client.query_opt(sql, &[&from]).await? {
        let kept: &str = row.get(0);
        client.batch_execute(&format!("ALTER ROLE {to} PASSWORD {kept}")).await?;
    }
    Ok(())
}

/// Sets the default settings of the login roles to ours, and removes any others, which are returned as `role:
/// name=value`. A role can change its own defaults, and they outlive every connection. If nothing differs,
/// nothing is written, since roles are shared by all databases of the server.
pub(super) async fn ensure_defaults(client: &Client) -> Result<Vec<String>> {
    let rows = client
        .query(
            "SELECT setrole::regrole::text, coalesce(quote_ident(d.datname), ''), setconfig
             FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = setdatabase
             WHERE setrole::regrole::text = ANY($1)
               AND (setdatabase = 0 OR d.datname = current_database())",
            &[&&LOGIN_ROLES[..]],
        )
        .await?;
    let bounds = settings::app_bounds();
    let (mut sql, mut removed, mut found) = (String::new(), Vec::new(), Vec::new());
    for row in &rows {
        let (role, database, given): (&str, &str, Vec<String>) =
            (row.get(0), row.get(1), row.get(2));
        let may_stay = role == "freehold_app" && database.is_empty();
        let (ours, others): (Vec<_>, Vec<_>) =
            given.into_iter().partition(|setting| may_stay && bounds.contains(setting));
        let scope = match database {
            "" => role.to_owned(),
            database => format!("{role} IN DATABASE {database}"),
        };
        for setting in others {
            let name = setting.split_once('=').map_or(&*setting, |(name, _)| name);
            let name = name.split('.').map(quote_ident).collect::<Vec<_>>().join(".");
            let _ = writeln!(sql, "ALTER ROLE {scope} RESET {name};");
            removed.push(format!("{scope}: {setting}"));
        }
        found.extend(ours);
    }
    for (name, value) in settings::APP_BOUNDS {
        if !found.contains(&format!("{name}={value}")) {
            let _ = writeln!(sql, "ALTER ROLE freehold_app SET {name} = '{value}';");
        }
    }
    client.batch_execute(&sql).await.map_err(explain_roles)?;
    Ok(removed)
}

/// Makes the role that runs `init` a member of the guard, unless it is one or a superuser; returns whether it
/// did. From PostgreSQL 16 on, the role that created the guard may do this again at any time; before 16, any
/// role with CREATEROLE may.
pub(super) async fn join_guard(client: &Client) -> Result<bool> {
    if is_superuser(client).await? {
        return Ok(false);
    }
    let has_options = "SELECT current_setting('server_version_num')::int >= 160000";
    let options = match client.query_one(has_options, &[]).await?.get(0) {
        true => " WITH SET TRUE, INHERIT TRUE",
        false => "",
    };
    let grant = format!("GRANT {GUARD_ROLE} TO CURRENT_USER{options}");
    client.batch_execute(&grant).await.map_err(explain_roles)?;
    Ok(true)
}

pub(super) async fn leave_guard(client: &Client) -> Result<()> {
    let revoke = format!("REVOKE {GUARD_ROLE} FROM CURRENT_USER GRANTED BY CURRENT_USER");
    client.batch_execute(&revoke).await.map_err(explain_roles)
}

fn explain_roles(source: tokio_postgres::Error) -> Error {
    setup(
        "the roles cannot be made: connect as a superuser, or as a role with CREATEROLE that owns the database",
    )
    .because(source)
}

pub(crate) async fn ensure_database_grants(client: &Client) -> Result<()> {
    let row = client.query_one("SELECT quote_ident(current_database())", &[]).await?;
    let database: String = row.get(0);
    client
        .batch_execute(&format!(
            "REVOKE CREATE, TEMPORARY ON DATABASE {database} FROM PUBLIC;
             GRANT CONNECT ON DATABASE {database} TO freehold_app, freehold_catalog, freehold_owner, freehold_analytics;
             GRANT CREATE, TEMPORARY ON DATABASE {database} TO freehold_owner"
        ))
        .await
        .map_err(|source| {
            setup("the database's rights cannot be set: connect as its owner or as a superuser").because(source)
        })?;
    // Extensions that a baseline needs are in public; only the owner may create anything there.
    let public = client
        .batch_execute(
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC;
             GRANT CREATE, USAGE ON SCHEMA public TO freehold_owner",
        )
        .await;
    public.map_err(|source| {
        setup("the schema public is missing or not this role's to grant").because(source)
    })
}

/// Revokes from PUBLIC what only a superuser can revoke, and reports what is still open.
pub(super) async fn harden(client: &Client) -> Result<Vec<String>> {
    if is_superuser(client).await? {
        let functions = beside::list_functions(client, DANGEROUS).await?;
        client
            .batch_execute(&format!(
                "REVOKE EXECUTE ON FUNCTION {functions} FROM PUBLIC;
                 REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
                 GRANT USAGE ON LANGUAGE plpgsql TO freehold_owner, freehold_guard"
            ))
            .await?;
        beside::close(client).await?;
    }
    let mut warnings = Vec::new();
    let row = client
        .query_one(
            "SELECT has_function_privilege('freehold_app', 'pg_catalog.lo_from_bytea(oid, bytea)', 'EXECUTE'),
                    has_function_privilege('freehold_app', 'pg_catalog.pg_terminate_backend(int, bigint)', 'EXECUTE'),
                    has_language_privilege('freehold_app', 'plpgsql', 'USAGE'),
                    has_function_privilege('freehold_app', 'pg_catalog.pg_prepared_statement()', 'EXECUTE')",
            &[],
        )
        .await?;
    let mut open = beside::warnings(client).await?;
    for (index, warning) in [
        "large objects are open to the app role: injected SQL could leave data there for another tenant",
        "pg_terminate_backend is open to the app role: injected SQL could end other tenants' sessions",
        "DO blocks are open to the app role",
        "the names of prepared statements are open to the app role: injected SQL could put one of its own in their place",
    ]
    .into_iter()
    .enumerate()
    {
        if row.get::<_, bool>(index) {
            open.push(warning);
        }
    }
    for warning in open {
        warnings.push(format!("{warning}; only a superuser can close this (run init as one)"));
    }
    Ok(warnings)
}

/// Refuses a role to which row-level security does not apply, or that could become such a role.
///
/// Each of PostgreSQL's catalogs is read once and separately. A join of two was planned by statistics from
/// before the tenants existed, and took more than its limit of half a minute with 2,000 of them.
pub(super) async fn require_bound(client: &Client, setting: &str, wanted: &str) -> Result<()> {
    let rows = client
        .query(
            "SELECT r.rolname::text, session_user::text,
                    CASE WHEN r.rolsuper THEN 'a superuser'
                         WHEN r.rolbypassrls THEN 'a role with BYPASSRLS'
                         WHEN r.rolcreaterole THEN 'a role with CREATEROLE'
                         WHEN r.rolname = 'freehold_owner' THEN 'the owner of the tenants'' tables'
                         WHEN r.rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files',
                              'pg_write_server_files', 'pg_execute_server_program') THEN 'the predefined role ' || r.rolname
                         WHEN EXISTS (SELECT FROM pg_database d WHERE d.datname = current_database() AND d.datdba = r.oid)
                              THEN 'the owner of the database'
                         WHEN EXISTS (SELECT FROM pg_namespace n WHERE n.nspowner = r.oid AND n.nspname ~ '^(freehold|tenant_)')
                              THEN 'an owner of tenant schemas'
                         WHEN r.oid IN (SELECT c.relowner FROM pg_class c)
                              AND EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid
                                          AND c.relnamespace::regnamespace::text ~ '^(freehold|tenant_)')
                              THEN 'an owner of tenants'' tables'
                    END AS fault
             FROM pg_roles r
             WHERE r.rolname = session_user
                OR (pg_has_role(session_user, r.oid, 'MEMBER')
                    AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user))
             ORDER BY r.rolname <> session_user",
            &[],
        )
        .await?;
    for row in &rows {
        let (role, user): (&str, &str) = (row.get(0), row.get(1));
        let Some(fault) = row.get::<_, Option<&str>>(2) else { continue };
        let who = if role == user {
            format!("{user} is {fault}")
        } else {
            format!("{user} is a member of {role}, {fault}")
        };
        return Err(setup(format!(
            "refusing to serve: {setting} connects as a role that row-level security does not bind: {who}. \
             Connect as {wanted}, which `freehold init` makes"
        )));
    }
    if rows.first().is_none_or(|row| row.get::<_, &str>(1) != wanted) {
        return Err(setup(format!(
            "refusing to serve: {setting} must connect as {wanted}, which `freehold init` makes"
        )));
    }
    Ok(())
}
