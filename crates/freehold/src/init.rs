//! Prepares a database: roles, the catalog and its migrations, the template; and checks before serving that
//! it is prepared.
//!
//! Idempotent, in one transaction. It needs a role that owns the database and may create roles. Steps that
//! need a superuser are done if possible, and reported otherwise.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::audit::AuditAction;
use crate::model::context::check_reason;
use crate::model::ids::IdentityId;
use crate::model::origin;
use crate::pool::pooler;
use crate::pool::seal::{ContextKey, SealMode, Sealer};
use crate::wire::client;
use crate::wire::tls::{self, Target};

pub(crate) use self::beside::{ACTIVITY, SESSION_LOCKS, STATEMENT_EXTENSIONS};
pub use self::roles::Passwords;
pub(crate) use self::roles::{CATALOG_ROLE, DANGEROUS, GUARD_ROLE, ensure_database_grants};
pub(crate) use self::run_time::EVENT_TRIGGER;

mod beside;
mod roles;
mod run_time;

/// Serialises concurrent runs of `init` in one database, within their transactions. A second run waits at the
/// unique index on schema names for the first one's transaction, and then finds the name free. An advisory
/// lock would not do: any role can hold one, so injected SQL could block `init`. This needs the privilege to
/// create schemas, which the app role lacks; and no table of ours, which an empty database does not have.
const TAKE_TURN: &str = "CREATE SCHEMA freehold_init_under_way";
const END_TURN: &str = "DROP SCHEMA freehold_init_under_way";

/// The catalog's own migrations, oldest first.
const CATALOG: &[(i32, &str, &str)] = &[
    (1, "catalog", include_str!("../migrations/0001_catalog.sql")),
    (3, "violations", include_str!("../migrations/0003_violations.sql")),
    (10, "analytics", include_str!("../migrations/0010_analytics.sql")),
    (20, "usage", include_str!("../migrations/0020_usage.sql")),
    (22, "sizes", include_str!("../migrations/0022_sizes.sql")),
    (30, "indexes", include_str!("../migrations/0030_indexes.sql")),
    (50, "cache", include_str!("../migrations/0050_cache.sql")),
    (60, "upgrades", include_str!("../migrations/0060_upgrades.sql")),
    (70, "restore", include_str!("../migrations/0070_restore.sql")),
    (71, "slow_queries", include_str!("../migrations/0071_slow_queries.sql")),
    (72, "totals", include_str!("../migrations/0072_totals.sql")),
    (73, "doors", include_str!("../migrations/0073_doors.sql")),
    (74, "growth", include_str!("../migrations/0074_growth.sql")),
    (80, "people", include_str!("../migrations/0080_people.sql")),
    (81, "guard", include_str!("../migrations/0081_guard.sql")),
    (90, "sequences", include_str!("../migrations/0090_sequences.sql")),
    (95, "run_time", include_str!("../migrations/0095_run_time.sql")),
    (96, "changes", include_str!("../migrations/0096_changes.sql")),
];

/// The oldest catalog version whose servers can continue beside this catalog while they are replaced one
/// after another. A migration that they could not work with raises it to its own version.
const SERVES_FROM: i32 = 90;

/// Objects of `freehold_guard`, replaced at every `init`: the keys, and how contexts are verified.
const GUARD: &str = include_str!("../migrations/context/guard.sql");
const VERIFY: &str = include_str!("../migrations/context/verify.sql");
const PLAIN: &str = include_str!("../migrations/context/plain.sql");
const PORTABLE: &str = include_str!("../migrations/context/portable.sql");
const BEST: &str = include_str!("../migrations/context/best.sql");
/// The functions that policies call, and the entry points; also replaced at every `init`.
const COMMON: &str = include_str!("../migrations/context/common.sql");

/// The setting that stores the verdict on a context if a superuser allows it; see `best.sql`.
pub(crate) const VERDICT: &str = "backtrace_functions";

/// The role that runs tenants' transactions.
pub(crate) const APP_ROLE: &str = "freehold_app";

/// The catalog version that this build works with.
pub const CATALOG_VERSION: i32 = CATALOG[CATALOG.len() - 1].0;

/// How to prepare a database.
#[derive(Clone, Default)]
pub struct InitOptions {
    /// Passwords to set.
    pub passwords: Passwords,
    /// How contexts are verified. By default as before, except that [`SealMode::Best`] replaces
    /// [`SealMode::Portable`] where it is possible; in a new catalog, the better of these two that is
    /// possible.
    pub seal: Option<SealMode>,
    /// Why; the record keeps it. By default `init`.
    pub why: Option<String>,
}

/// What `init` did, and what it could not do.
#[derive(Clone, Debug, serde::Serialize)]
pub struct InitReport {
    /// Roles that were created.
    pub roles_created: Vec<String>,
    /// Settings of login roles that were not Freehold's and have been removed, as `role: name=value`.
    pub settings_removed: Vec<String>,
    /// The catalog's version before; 0 if there was no catalog.
    pub catalog_before: i32,
    /// The catalog's version now: [`CATALOG_VERSION`].
    pub catalog_now: i32,
    /// How contexts are verified.
    pub seal: SealMode,
    /// Defences that need a superuser and are missing, each with its consequence.
    pub warnings: Vec<String>,
}

/// Prepares the database of `admin_url`, which must connect as a superuser or as a role with CREATEROLE that
/// owns the database. Running it again changes nothing except the given passwords.
///
/// # Errors
/// [`ErrorKind::Setup`] with a sentence that says what is missing. Then nothing has been changed.
pub async fn init(admin_url: &str, options: &InitOptions) -> Result<InitReport> {
    let target = tls::target(admin_url, "DATABASE_URL")?;
    let client = client::connect(&target).await?;
    require_version(&client).await?;
    client.batch_execute(&format!("BEGIN; {TAKE_TURN}")).await.map_err(|source| {
        let why = "no schema can be made in this database: connect as its owner or as a superuser";
        match source.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => setup(why).because(source),
            _ => source.into(),
        }
    })?;
    let report = prepare(&client, options).await?;
    client.batch_execute(&format!("{END_TURN}; COMMIT")).await?;
    Ok(report)
}

async fn prepare(client: &Client, options: &InitOptions) -> Result<InitReport> {
    let roles_created = roles::ensure(client, &options.passwords).await?;
    let settings_removed = roles::ensure_defaults(client).await?;
    ensure_database_grants(client).await?;
    let mut warnings = roles::harden(client).await?;
    let seal = choose_seal(client, options.seal).await?;
    if seal == SealMode::Plain {
        warnings.push(
            "contexts are not sealed: SQL that somebody injects can set any tenant's; \
             run init with --seal best or --seal portable"
                .to_owned(),
        );
    }
    ensure_guard(client, seal).await?;
    warnings.extend(run_time::ensure(client).await?);
    let (catalog_before, catalog_now) = ensure_catalog(client).await?;
    let report =
        InitReport { roles_created, settings_removed, catalog_before, catalog_now, seal, warnings };
    record(client, options, &report).await?;
    Ok(report)
}

/// Adds the run to the record. By SQL of its own, because there is no context yet: the key that would seal one
/// may be of this transaction.
async fn record(client: &Client, options: &InitOptions, report: &InitReport) -> Result<()> {
    let (origin, _) = origin::of_request();
    let why = options.why.as_deref().map_or(Ok("init"), check_reason)?;
    let detail = serde_json::json!({
        "from": report.catalog_before, "to": report.catalog_now, "seal": report.seal,
        "roles_created": report.roles_created, "passwords_set": options.passwords.roles(),
    });
    client.batch_execute("SET LOCAL ROLE freehold_owner").await?;
    client
        .execute(
            "INSERT INTO freehold.audit (id, action, actor_id, origin, why, detail)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                &Uuid::now_v7(),
                &AuditAction::CatalogInit.as_str(),
                &IdentityId::SYSTEM.as_uuid(),
                &origin,
                &why,
                &detail,
            ],
        )
        .await?;
    client.batch_execute("RESET ROLE").await?;
    Ok(())
}

/// Chooses the seal mode, and makes the grant that `best` needs.
async fn choose_seal(client: &Client, wanted: Option<SealMode>) -> Result<SealMode> {
    let before = find_seal_mode(client).await?;
    if let Some(mode @ (SealMode::Plain | SealMode::Portable)) = wanted {
        return Ok(mode);
    }
    if wanted.is_none() && before == Some(SealMode::Plain) {
        return Ok(SealMode::Plain);
    }
    client.batch_execute("SAVEPOINT grant_verdict").await?;
    let grant = format!(
        "GRANT SET ON PARAMETER {VERDICT} TO {GUARD_ROLE}; REVOKE SET ON PARAMETER {VERDICT} FROM freehold_owner"
    );
    if client.batch_execute(&grant).await.is_err() {
        client.batch_execute("ROLLBACK TO SAVEPOINT grant_verdict").await?;
    }
    let row = client
        .query_one("SELECT has_parameter_privilege($1, $2, 'SET')", &[&GUARD_ROLE, &VERDICT])
        .await?;
    match (row.get(0), wanted) {
        (true, _) => Ok(SealMode::Best),
        (false, None) => Ok(SealMode::Portable),
        (false, Some(_)) => Err(setup(format!(
            "sealing in the mode best needs a superuser's leave: have one run \
             `GRANT SET ON PARAMETER {VERDICT} TO {GUARD_ROLE}`, or choose --seal portable"
        ))),
    }
}

/// The seal mode of the catalog, if it exists.
async fn find_seal_mode(client: &Client) -> Result<Option<SealMode>> {
    let known = client
        .query_one("SELECT to_regprocedure('freehold_guard.seal_mode()') IS NOT NULL", &[])
        .await?;
    if !known.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_one("SELECT freehold_guard.seal_mode()", &[]).await?;
    SealMode::parse(row.get(0)).map(Some)
}

async fn require_version(client: &Client) -> Result<()> {
    let row = client.query_one("SELECT current_setting('server_version_num')::int", &[]).await?;
    let version: i32 = row.get(0);
    if version / 10_000 < 15 {
        return Err(setup(format!(
            "PostgreSQL 15 or newer is needed; this is {}",
            version / 10_000
        )));
    }
    Ok(())
}

/// The keys and the functions that verify a context: in a schema of `freehold_guard`, created as that role.
/// The role that runs `init` is a member of it meanwhile.
async fn ensure_guard(client: &Client, seal: SealMode) -> Result<()> {
    let joined = roles::join_guard(client).await?;
    client
        .batch_execute(&format!(
            "CREATE SCHEMA IF NOT EXISTS freehold_guard AUTHORIZATION {GUARD_ROLE};
             GRANT USAGE ON SCHEMA freehold_guard TO PUBLIC;
             SET LOCAL ROLE {GUARD_ROLE};
             SET LOCAL search_path = freehold_guard, pg_temp"
        ))
        .await?;
    let believe: &[&str] = match seal {
        SealMode::Plain => &[PLAIN],
        SealMode::Portable => &[VERIFY, PORTABLE],
        SealMode::Best => &[VERIFY, BEST],
    };
    for sql in [GUARD].iter().chain(believe) {
        client.batch_execute(sql).await?;
    }
    ensure_key(client).await?;
    client.batch_execute("RESET ROLE").await?;
    if joined {
        roles::leave_guard(client).await?;
    }
    Ok(())
}

/// Applies the catalog's migrations, as the owner role. Returns the versions before and after.
async fn ensure_catalog(client: &Client) -> Result<(i32, i32)> {
    client
        .batch_execute(
            "SET LOCAL ROLE freehold_owner;
             CREATE SCHEMA IF NOT EXISTS freehold AUTHORIZATION freehold_owner;
             SET LOCAL search_path = freehold, pg_temp;
             CREATE TABLE IF NOT EXISTS freehold.catalog_migration (
               version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
             );
             CREATE SCHEMA IF NOT EXISTS freehold_template AUTHORIZATION freehold_owner",
        )
        .await?;
    let before = find_version(client).await?;
    refuse_newer(before)?;
    client.batch_execute(COMMON).await?;
    let rows = client.query("SELECT version FROM freehold.catalog_migration", &[]).await?;
    let applied: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    for (version, name, sql) in CATALOG.iter().filter(|(version, ..)| !applied.contains(version)) {
        client.batch_execute(sql).await?;
        client
            .execute(
                "INSERT INTO freehold.catalog_migration (version, name) VALUES ($1, $2)",
                &[version, name],
            )
            .await?;
    }
    client
        .execute(
            "UPDATE freehold.catalog_migration SET serves_from = $2 WHERE version = $1",
            &[&CATALOG_VERSION, &SERVES_FROM],
        )
        .await?;
    client.batch_execute("RESET ROLE").await?;
    Ok((before, CATALOG_VERSION))
}

/// Creates a key to seal with, if none is valid.
async fn ensure_key(client: &Client) -> Result<()> {
    let row = client
        .query_one(
            "SELECT coalesce(bool_or(retires_at IS NULL OR retires_at > now()), false),
                    coalesce(max(id::int8), 0) + 1
             FROM freehold_guard.seal_key",
            &[],
        )
        .await?;
    if row.get(0) {
        return Ok(());
    }
    let id = u32::try_from(row.get::<_, i64>(1))
        .map_err(|source| setup("there are too many keys").because(source))?;
    let key = ContextKey::generate(id)?;
    let (id, inner, outer) = key.pads();
    client
        .execute(
            "INSERT INTO freehold_guard.seal_key (id, inner_pad, outer_pad) VALUES ($1, $2, $3)",
            &[&id, &inner, &outer],
        )
        .await?;
    Ok(())
}

async fn find_version(client: &Client) -> Result<i32> {
    let row = client
        .query_one("SELECT coalesce(max(version), 0) FROM freehold.catalog_migration", &[])
        .await?;
    Ok(row.get(0))
}

fn refuse_newer(version: i32) -> Result<()> {
    if version > CATALOG_VERSION {
        return Err(setup(format!(
            "the catalog is at version {version} and this build knows {CATALOG_VERSION}: use a newer build"
        )));
    }
    Ok(())
}

/// Whether a newer catalog declares that servers of this build may continue beside it.
async fn serves_us(client: &Client, version: i32) -> Result<bool> {
    let serves = "SELECT coalesce(serves_from <= $2, false) FROM freehold.catalog_migration WHERE version = $1";
    Ok(client.query_one(serves, &[&version, &CATALOG_VERSION]).await?.get(0))
}

/// The text that the catalog is created from: two builds with the same text create the same catalog, and
/// revoke the same from PUBLIC.
#[cfg(feature = "testing")]
pub(crate) fn catalog_text() -> String {
    let context = [GUARD, VERIFY, PLAIN, PORTABLE, BEST, COMMON];
    let taken = [DANGEROUS, SESSION_LOCKS, ACTIVITY, STATEMENT_EXTENSIONS].concat();
    context.into_iter().chain(CATALOG.iter().map(|(_, _, sql)| *sql)).chain(taken).collect()
}

/// What must hold before a server may serve with the app role of `target`; returns how contexts are verified.
/// `setting` names the setting that holds the target.
pub(crate) async fn check(target: &Target, setting: &str) -> Result<SealMode> {
    // A connection of its own: the pool's connections cannot be opened before the catalog exists.
    let client = connect_to_check(target, setting).await?;
    let checked = check_catalog(&client, setting).await;
    client.batch_execute("ROLLBACK").await?;
    checked
}

/// What must hold for a server to continue serving: the same as for [`check`], and that the database takes
/// writes and knows the key that seals contexts.
pub(crate) async fn check_to_serve(target: &Target, setting: &str, sealer: &Sealer) -> Result<()> {
    let client = connect_to_check(target, setting).await?;
    let checked = async {
        check_catalog(&client, setting).await?;
        require_writable(&client).await?;
        // Last, since its failure ends the transaction.
        sealer.require_known(&client).await
    };
    let checked = checked.await;
    client.batch_execute("ROLLBACK").await?;
    checked
}

/// Checks that the server takes writes. Settings that SQL left on the session, which a pooler may share, say
/// nothing about the server, so the session's default is queried.
async fn require_writable(client: &Client) -> Result<()> {
    let sql = "SELECT pg_is_in_recovery() OR reset_val = 'on'
               FROM pg_settings WHERE name = 'default_transaction_read_only'";
    match client.query_one(sql, &[]).await?.get(0) {
        true => Err(Error::read_only()),
        false => Ok(()),
    }
}

async fn connect_to_check(target: &Target, setting: &str) -> Result<Client> {
    client::connect_to_read(target).await.map_err(|error| match error.database() {
        Some(db) if db.message().contains("not allowed") => {
            pooler::refuses_transactions(setting, db.message())
        }
        _ => error,
    })
}

async fn check_catalog(client: &Client, setting: &str) -> Result<SealMode> {
    roles::require_bound(client, setting, APP_ROLE).await?;
    let catalog = client
        .query_one("SELECT to_regclass('freehold.catalog_migration') IS NOT NULL", &[])
        .await?;
    if !catalog.get::<_, bool>(0) {
        return Err(setup("the catalog is missing in this database: run `freehold init` first"));
    }
    let version = find_version(client).await?;
    if version < CATALOG_VERSION {
        return Err(setup(format!(
            "the catalog is at version {version} and this build needs {CATALOG_VERSION}: run `freehold init`"
        )));
    }
    if version > CATALOG_VERSION && !serves_us(client, version).await? {
        refuse_newer(version)?;
    }
    find_seal_mode(client).await?.ok_or_else(|| {
        setup("the catalog does not say how contexts are sealed: run `freehold init`")
    })
}

/// Checks that a setting connects as this role, and that row-level security applies to it.
pub(crate) async fn check_role(target: &Target, setting: &str, role: &str) -> Result<()> {
    let client = connect_to_check(target, setting).await?;
    let checked = roles::require_bound(&client, setting, role).await;
    client.batch_execute("ROLLBACK").await?;
    checked
}

fn setup(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Setup, message)
}
