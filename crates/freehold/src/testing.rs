//! Temporary databases for tests, of this project and of services that embed it.
//!
//! A database with the catalog and a baseline is prepared once and kept as a template. Each test gets a copy
//! within some tens of milliseconds and drops it at its end. Use a separate server for tests: the roles of a
//! server are shared by its databases.
//!
//! ```
//! use freehold::testing::{TestDatabase, create_tenant};
//! use freehold::{Baseline, Migration};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> freehold::Result<()> {
//! // A superuser's URL, of a server that is only for tests.
//! let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
//! let notes = "CREATE TABLE notes (body text NOT NULL)";
//! let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
//!
//! let database = TestDatabase::create(&server, &baseline).await?;
//! let freehold = database.freehold().await?;
//! let (acme, context) = create_tenant(&freehold, "acme").await?;
//! assert_eq!(acme.slug.as_str(), "acme");
//! assert_eq!(freehold.query(&context, "SELECT * FROM notes", &[]).await?.len(), 0);
//! # Ok(())
//! # }
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::control::people::PersonRef;
use crate::control::tenants::{NewOwner, NewTenant};
use crate::doctor;
use crate::error::{Error, ErrorKind, Result};
use crate::fleet::migrator::MigrateOptions;
use crate::freehold::Freehold;
use crate::init::{self, InitOptions, Passwords};
use crate::model::actor::{Actor, Role};
use crate::model::context::{Claim, OperatorContext, TenantContext};
use crate::model::ids::TenantId;
use crate::model::tenant::Tenant;
use crate::options::Options;
use crate::pool::seal::{self, BackendBinding, KeyOrigin, SealMode, Sealer};
use crate::schema::migration::Baseline;
use crate::tx::TenantTx;
use crate::wire::client;
use crate::wire::tls;

/// The password of all roles on a test server, and of all owners that are created here.
pub const PASSWORD: &str = "freehold-test";

const OPEN_SESSION: &str = "INSERT INTO freehold.session (id, identity_id, expires_at)
    VALUES ($1, $1, now() + interval '1 day') ON CONFLICT DO NOTHING";

/// Databases that a test left behind are dropped after this long.
const LEFTOVER_SECS: u64 = 30 * 60;
/// An arbitrary number: the lock that is held while templates are prepared, in the superuser's database.
const TEMPLATE_LOCK: i64 = 72_374_651;

/// A database for one test, prepared with a baseline. It is dropped with this value.
pub struct TestDatabase {
    admin_url: String,
    name: String,
}

impl TestDatabase {
    /// `admin_url` leads to a PostgreSQL server for tests, as a superuser.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] if the server's roles have other passwords than [`PASSWORD`], so that the server
    /// is in other use; and any error of the server or the baseline.
    pub async fn create(admin_url: &str, baseline: &Baseline) -> Result<TestDatabase> {
        let admin = connect(admin_url).await?;
        admin.execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await?;
        drop_leftovers(&admin).await?;
        let template = ensure_template(&admin, admin_url, baseline).await?;
        let name = format!("freehold_test_{}_{}", unix_secs(), Uuid::new_v4().simple());
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
        admin.execute("SELECT pg_advisory_unlock($1)", &[&TEMPLATE_LOCK]).await?;
        let database = TestDatabase { admin_url: admin_url.to_owned(), name };
        // The privileges on a database are not copied with it.
        init::ensure_database_grants(&connect(&database.superuser_url()).await?).await?;
        Ok(database)
    }

    /// As freehold_app, as a server connects.
    pub fn app_url(&self) -> String {
        self.url_of("freehold_app")
    }

    /// As freehold_catalog, as a server connects beside it.
    pub fn catalog_url(&self) -> String {
        self.url_of("freehold_catalog")
    }

    /// As freehold_owner.
    pub fn owner_url(&self) -> String {
        self.url_of("freehold_owner")
    }

    /// As freehold_analytics.
    pub fn analytics_url(&self) -> String {
        self.url_of("freehold_analytics")
    }

    /// As the superuser of the test server.
    pub fn superuser_url(&self) -> String {
        let (base, query) = split_database(&self.admin_url);
        format!("{base}/{}{query}", self.name)
    }

    fn url_of(&self, role: &str) -> String {
        let url = self.superuser_url();
        let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", &url));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{role}:{PASSWORD}@{host}")
    }

    /// Changes how contexts are verified; connected servers must reconnect.
    ///
    /// # Errors
    /// As for [`init()`](crate::init()).
    pub async fn change_seal(&self, mode: SealMode) -> Result<()> {
        // Roles belong to the server: two concurrent preparations would conflict.
        let admin = connect(&self.admin_url).await?;
        admin.execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await?;
        let options = InitOptions { seal: Some(mode), ..InitOptions::default() };
        init::init(&self.superuser_url(), &options).await.map(drop)
    }

    /// A sealed context that is valid in any session for a few seconds, as an argument of `freehold.enter`:
    /// for tests that bypass the library.
    ///
    /// # Errors
    /// Any failure of the owner role to read the key.
    pub async fn sealed_context(&self, tenant: TenantId, actor: Actor) -> Result<String> {
        let owner = tls::target(&self.owner_url(), "the test server's URL")?;
        let key = seal::read_key(&owner).await?;
        let client = client::connect(&owner).await?;
        let now = client.query_one("SELECT date_part('epoch', clock_timestamp())", &[]).await?;
        let binding = BackendBinding { pid: 0, clock: (now.get(0), Instant::now()) };
        let claim = Claim::from(&TenantContext::new(tenant, actor));
        Ok(Sealer::new(Some(&key), KeyOrigin::Read).seal(&claim, binding))
    }

    /// A session of a person that lasts a day, with the person's own id: for access tokens that a test issues
    /// without signing in.
    ///
    /// # Errors
    /// If the person does not exist.
    pub async fn open_session(&self, identity: Uuid) -> Result<()> {
        let superuser = connect(&self.superuser_url()).await?;
        superuser.execute(OPEN_SESSION, &[&identity]).await?;
        Ok(())
    }

    /// All three connections, with the default limits.
    pub fn options(&self) -> Options {
        Options::new(self.app_url()).owner_url(self.owner_url()).analytics_url(self.analytics_url())
    }

    /// The content of the catalog as the doctor compares it: one line for each table, policy, function and
    /// privilege.
    pub async fn describe_catalog(&self) -> Result<String> {
        doctor::describe_catalog(&tls::target(&self.owner_url(), "the test server's URL")?).await
    }

    /// Connects with [`options`](Self::options).
    pub async fn freehold(&self) -> Result<Freehold> {
        Freehold::connect(&self.options()).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (admin_url, name) = (self.admin_url.clone(), self.name.clone());
        // The test's own runtime may be stopped or blocked; a leftover is dropped later anyway.
        let dropped = std::thread::spawn(move || -> Option<()> {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let admin = connect(&admin_url).await.ok()?;
                admin
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await
                    .ok()
            })
        });
        let _ = dropped.join();
    }
}

/// A tenant with an owner `owner@<slug>.example` whose password is [`PASSWORD`], and a context of that owner,
/// who has a session with the owner's own id as by [`TestDatabase::open_session`].
pub async fn create_tenant(freehold: &Freehold, slug: &str) -> Result<(Tenant, TenantContext)> {
    let operator = OperatorContext::system("a test's tenant");
    let (email, password) = (format!("owner@{slug}.example"), Some(PASSWORD.to_owned()));
    let person = PersonRef { email, password, existing: false };
    // Known already, where a tenant of this slug was there before.
    let existing = freehold.people().find_id(&operator, &person.email).await.is_ok();
    let password = person.password.filter(|_| !existing);
    let person = PersonRef { existing, password, ..person };
    let owner = NewOwner { person, name: String::new() };
    let new =
        NewTenant { slug: slug.into(), name: slug.into(), owner: Some(owner), idempotency: None };
    let tenant = freehold.tenants().create(&operator, new).await?.tenant;
    // The owner's own id, so that what a test writes here and what it writes signed in are by one
    // person.
    let system = Actor { role: Role::Owner, ..Actor::SYSTEM };
    let context = freehold.tenant_context_as(tenant.id, system).await?;
    let members = freehold.members().list(&context, None, Some(1)).await?;
    let owner = members.first().ok_or_else(|| Error::new(ErrorKind::Internal, "no owner"))?;
    let mut tx = freehold.catalog(&operator).await?;
    tx.execute(OPEN_SESSION, &[&owner.id.as_uuid()]).await?;
    tx.commit().await?;
    let context = freehold.tenant_context(tenant.id, owner.id).await?;
    Ok((tenant, context))
}

/// Ends a transaction without its knowledge, so that its next statement runs on the bare session, as if an
/// attacker had found a way to commit: no context may be left there. No caller's statement can do this.
///
/// # Errors
/// As for [`TenantTx::query`].
pub async fn end_early(tx: &mut TenantTx) -> Result<()> {
    tx.end_early().await
}

async fn connect(url: &str) -> Result<Client> {
    client::connect(&tls::target(url, "the test server's URL")?).await
}

async fn ensure_template(admin: &Client, admin_url: &str, baseline: &Baseline) -> Result<String> {
    let mut digest = Sha256::new();
    digest.update(init::catalog_text());
    for migration in baseline.migrations() {
        digest.update(migration.version.to_be_bytes());
        digest.update(&migration.label);
        digest.update(&migration.checksum);
    }
    let hash: String =
        digest.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("freehold_template_{hash}");
    if admin.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name]).await?.is_some() {
        return Ok(name);
    }
    // Prepared under another name, so that an incomplete template is never used.
    admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name}_new WITH (FORCE)")).await?;
    admin.batch_execute(&format!("CREATE DATABASE {name}_new")).await?;
    let fresh = TestDatabase { admin_url: admin_url.to_owned(), name: format!("{name}_new") };
    let options =
        InitOptions { passwords: passwords_of_new_roles(admin).await?, ..InitOptions::default() };
    init::init(&fresh.superuser_url(), &options).await?;
    let freehold = fresh.freehold().await.map_err(|error| {
        Error::new(
            ErrorKind::Setup,
            "the test server's roles have other passwords; use a server that is only for tests",
        )
        .because(error)
    })?;
    freehold
        .migrations()
        .up(
            &OperatorContext::system("a test's baseline"),
            baseline,
            MigrateOptions::default(),
            &|_, _| {},
        )
        .await?;
    freehold.close();
    drop(freehold);
    end_sessions(admin, &fresh.name).await?;
    admin.batch_execute(&format!("ALTER DATABASE {name}_new RENAME TO {name}")).await?;
    std::mem::forget(fresh);
    Ok(name)
}

/// Only new roles get the password: existing ones may be in use.
async fn passwords_of_new_roles(admin: &Client) -> Result<Passwords> {
    let row = admin
        .query_one("SELECT count(*) FROM pg_roles WHERE rolname = 'freehold_app'", &[])
        .await?;
    let password = (row.get::<_, i64>(0) == 0).then(|| PASSWORD.to_owned());
    let catalog = password.clone();
    Ok(Passwords { owner: password.clone(), app: password.clone(), catalog, analytics: password })
}

async fn end_sessions(admin: &Client, database: &str) -> Result<()> {
    admin
        .execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1",
            &[&database],
        )
        .await?;
    Ok(())
}

async fn drop_leftovers(admin: &Client) -> Result<()> {
    let rows = admin
        .query(
            "SELECT datname::text FROM pg_database WHERE datname LIKE 'freehold\\_test\\_%'",
            &[],
        )
        .await?;
    for row in rows {
        let name: &str = row.get(0);
        let born: Option<u64> = name.split('_').nth(2).and_then(|secs| secs.parse().ok());
        if born.is_some_and(|born| born + LEFTOVER_SECS < unix_secs()) {
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        }
    }
    Ok(())
}

/// A URL without its database, and its query part.
fn split_database(url: &str) -> (&str, &str) {
    let (rest, query) = url.find('?').map_or((url, ""), |at| url.split_at(at));
    let host = rest.find("://").map_or(0, |at| at + 3);
    let end = rest[host..].find('/').map_or(rest.len(), |at| host + at);
    (&rest[..end], query)
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
