//! Multi-tenancy for services on PostgreSQL.
//!
//! Each tenant has a schema of its own, with row-level security on each of its tables as a second barrier. A
//! connection can only be used through a tenant's context. You write your own handlers and your own SQL;
//! neither names a tenant or a schema.
//!
//! # Words
//!
//! - **Tenant**: a customer of your service. All of them are the **fleet**.
//! - **Context**: permission to work in one tenant, as one actor, in one transaction: [`TenantContext`]. It
//!   is issued only for a tenant that is active. Operations across tenants take an [`OperatorContext`]
//!   instead, which states a reason.
//! - **Catalog**: what Freehold stores about tenants, people and migrations, in the schema `freehold`.
//! - **Baseline**: what every tenant's schema contains, as numbered SQL migrations: [`Baseline`].
//! - **Template**: a schema that is always at the baseline and belongs to no tenant. A migration must succeed
//!   there before it is applied to a tenant.
//!
//! # How to start
//!
//! Prepare the database once, by [`init()`] or the command `freehold init`, which create the catalog and the
//! roles. Afterwards a service connects as `freehold_app` and, with the same password, as `freehold_catalog`;
//! and as `freehold_owner` too if it creates or migrates tenants.
//!
//! ```
//! use freehold::control::tenants::NewTenant;
//! use freehold::{Actor, Baseline, Freehold, MigrateOptions, Migration, OperatorContext, Options};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> freehold::Result<()> {
//! # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
//! # let database =
//! #     freehold::testing::TestDatabase::create(&server, &Baseline::default()).await?;
//! # let (app_url, owner_url) = (database.app_url(), database.owner_url());
//! let freehold = Freehold::connect(&Options::new(app_url).owner_url(owner_url)).await?;
//!
//! // Usually `Baseline::read("migrations")`. Nothing in it knows of tenants.
//! let notes = "CREATE TABLE notes (
//!     id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
//!     body text NOT NULL
//! )";
//! let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
//! let operator = OperatorContext::system("first steps");
//! freehold.migrations().up(&operator, &baseline, MigrateOptions::default(), &|_, _| {}).await?;
//!
//! let new = NewTenant { slug: "acme".into(), name: "Acme".into(), ..NewTenant::default() };
//! let acme = freehold.tenants().create(&operator, new).await?.tenant;
//!
//! let context = freehold.tenant_context_as(acme.id, Actor::SYSTEM).await?;
//! let mut tx = freehold.begin(&context).await?;
//! tx.execute("INSERT INTO notes (body) VALUES ($1)", &[&"buy milk"]).await?;
//! tx.commit().await?;
//!
//! let rows = freehold.query(&context, "SELECT body FROM notes", &[]).await?;
//! assert_eq!(rows[0].get::<_, &str>("body"), "buy milk");
//! # Ok(())
//! # }
//! ```
//!
//! Next: [`control::sessions::SignIn`] for sign-in by password, the module `axum` for handlers that take
//! their tenant as an argument, and the module `testing` for tests with temporary tenants. `examples/notes`
//! in the repository is a complete service.
//!
//! # Cargo features
//!
//! None is on by default.
//!
//! | Feature | Adds |
//! |---|---|
//! | `sign-in` | people, passwords and sessions: [`control::sessions::SignIn`] |
//! | `redis` | a cache that servers share |
//! | `axum` | errors as answers of axum services and, with `sign-in`, an extractor that authorizes requests |
//! | `testing` | temporary databases and tenants for tests; it includes `sign-in` |
//!
//! # How tenants are kept apart
//!
//! A transaction begins with one call, `freehold.enter`, which is sent together with the first statement. For
//! that transaction only, it sets the search path to the tenant's schema, the context, and a role with the
//! actor's privileges. So a connection in the pool is tied to no tenant.
//!
//! | Role in the tenant | Role in PostgreSQL | By default |
//! |---|---|---|
//! | viewer | `freehold_viewer` | reads every table |
//! | member | `freehold_member` | writes too |
//! | admin, owner | `freehold_admin` | as a member |
//!
//! A baseline may grant other privileges, and restrict them further by its own policies:
//! `freehold.actor_id()` and `freehold.actor_role()` are available in these and in column defaults.
//!
//! Row-level security is enabled and forced on every table, with a restrictive policy that compares the
//! context with the tenant of the table's schema. A statement that reaches another tenant's table, by
//! whatever way, gets an error rather than no rows:
//!
//! ```
//! use freehold::ErrorKind;
//! # use freehold::{Baseline, Migration};
//! # use freehold::testing::{TestDatabase, create_tenant};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> freehold::Result<()> {
//! # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
//! # let notes = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL UNIQUE)";
//! # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
//! # let database = TestDatabase::create(&server, &baseline).await?;
//! # let freehold = database.freehold().await?;
//! # let (acme, acme_context) = create_tenant(&freehold, "acme").await?;
//! # let (_, globex_context) = create_tenant(&freehold, "globex").await?;
//! # freehold.query(&acme_context, "INSERT INTO notes (body) VALUES ('buy milk')", &[]).await?;
//! let count = "SELECT count(*) FROM notes";
//! let rows = freehold.query(&globex_context, count, &[]).await?;
//! assert_eq!(rows[0].get::<_, i64>(0), 0);
//!
//! let acmes = format!("SELECT count(*) FROM {}.notes", acme.id.schema());
//! let refused = freehold.query(&globex_context, &acmes, &[]).await.unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::Violation);
//! # assert_eq!(freehold.query(&acme_context, &acmes, &[]).await?[0].get::<_, i64>(0), 1);
//! # Ok(())
//! # }
//! ```
//!
//! [`Freehold::connect`] refuses a role that row-level security does not bind: an owner of tables, a
//! superuser, a role with BYPASSRLS, or a member of such a role.
//!
//! # Limits
//!
//! - PostgreSQL 15 or newer, one database. Through a pooler in transaction mode, statements are unnamed and
//!   PostgreSQL plans each one anew. Changes are received by LISTEN, which needs a session.
//! - SQL that an attacker manages to inject cannot set another tenant's context, since contexts are sealed
//!   ([`SealMode`]), but it has all privileges of the tenant in which it runs. Send values as parameters.
//! - A baseline names no schema, and its views are `security_invoker`; a migration that leaves an object
//!   unprotected fails as a whole.
//! - Under row-level security only leakproof operators can use an index: comparisons of integers, text, uuid
//!   and timestamps, and `starts_with()`. LIKE, full text, `@>`, and comparisons of numeric and enum values
//!   read every row.
//! - A transaction holds one of [`PoolLimits::connections_max`] connections from [`Freehold::begin`] to its
//!   end. A task that begins a second one inside the first may wait for itself until it fails.
//! - The app role's statements end after 30 s, and its transactions after 60 s without a statement.
//! - A suspension or a removed membership takes effect within a second, not at once: a transaction that has
//!   begun runs to its end.

#![warn(missing_docs)]
// Without `sign-in`, parts of the catalog's code have no caller.
#![cfg_attr(not(feature = "sign-in"), allow(dead_code, unreachable_pub))]

mod analytics;
#[cfg(feature = "axum")]
pub mod axum;
mod cache;
mod catalog;
pub mod control;
pub mod doctor;
mod error;
mod fleet;
mod freehold;
mod indexes;
mod init;
mod model;
mod observe;
mod options;
mod pool;
mod recording;
mod replicas;
mod resolve;
mod schema;
mod sign_in;
mod snapshot;
mod sql;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;
mod wire;

pub use crate::analytics::definition::{AnalyticsDefinition, AnalyticsFolder, Watermark};
pub use crate::analytics::run::{AnalyticsFailure, AnalyticsOptions, AnalyticsRun};
pub use crate::cache::key::CacheKey;
pub use crate::cache::stats::{CacheCount, CacheStats};
pub use crate::cache::{CACHE_AGE_MAX, Cache, CacheOptions, CacheWrite, Cached};
#[cfg(feature = "sign-in")]
pub use crate::control::guessing::{Rate, SignInLimits};
pub use crate::error::{DbError, Error, ErrorKind, Raised, Result};
pub use crate::fleet::dry_run::{DryRun, Verdict};
pub use crate::fleet::migrator::{
    MigrateFailure, MigrateOptions, MigratePause, MigrateReport, MigrateStatus,
};
pub use crate::freehold::Freehold;
pub use crate::init::{CATALOG_VERSION, InitOptions, InitReport, Passwords, init};
pub use crate::model::actor::{Action, Actor, Role, permits, require};
pub use crate::model::budget::{Budget, Share};
pub use crate::model::context::{OperatorContext, TenantContext};
pub use crate::model::ids::{Email, IdentityId, Slug, TEMPLATE_SCHEMA, TenantId};
pub use crate::model::lsn::Lsn;
pub use crate::model::mail::{MailKind, Message};
pub use crate::model::origin::{Origin, with_origin};
pub use crate::model::tenant::{Tenant, TenantStatus, Transition, Weight};
pub use crate::observe::insight::{InsightOptions, TenantSeries};
pub use crate::observe::trouble::Trouble;
pub use crate::options::Options;
pub use crate::pool::pooler::Pooler;
pub use crate::pool::seal::{ContextKey, SealMode};
pub use crate::pool::{PoolLimits, PoolStatus};
pub use crate::replicas::{ReplicaLimits, ReplicaReads, ReplicaState, ReplicaStatus};
pub use crate::schema::import::{ImportRefusal, ImportRemark, Imported, import_dumps};
pub use crate::schema::migration::{Baseline, Layout, Migration};
#[cfg(feature = "sign-in")]
pub use crate::sign_in::tokens;
pub use crate::tasks::{BackgroundTask, TaskStatus, Tasks};
pub use crate::tx::{PipelineError, ReadTx, TenantTx};
#[cfg(feature = "testing")]
pub use crate::wire::client::connect_bare;
pub use crate::wire::params::{Params, TextParam};
pub use crate::wire::{Answer, Column, Row, RowIndex};
/// The crate whose `Timestamp` this API returns.
pub use jiff;
/// The traits by which values become parameters and are read from rows.
pub use postgres_types;
/// The crate whose `Uuid` this API's ids contain.
pub use uuid;

/// Compiles the service of the guide as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/handlers.md")]
struct GuideToHandlers;
