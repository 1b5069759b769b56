//! Multi-tenancy for services on PostgreSQL: every tenant on its own ground.
//!
//! Each tenant has a schema of its own, row-level security lies under it as the safety net, and
//! the only way to a connection is through a tenant's context. You write your own handlers and
//! your own SQL, and name neither a tenant nor a schema in them.
//!
//! # Words
//!
//! - **Tenant**: a customer of your service. All of them are the **fleet**.
//! - **Context**: leave to work in one tenant, as one actor, in one transaction: [`TenantContext`].
//!   It is given out only for a tenant that is active. What goes across tenants takes an
//!   [`OperatorContext`] instead, which says why.
//! - **Catalog**: what Freehold knows of tenants, people and migrations, in the schema `freehold`.
//! - **Baseline**: what every tenant's schema holds, as numbered SQL migrations: [`Baseline`].
//! - **Template**: the schema that always is at the baseline and belongs to nobody. A migration
//!   must succeed there before it reaches a tenant.
//!
//! # How to start
//!
//! Prepare the database once, by [`init()`] or the command `freehold init`: it makes the catalog
//! and the roles. From then on a service connects as `freehold_app` and, with the same password, as
//! `freehold_catalog`, and as `freehold_owner` too if
//! it shall create or migrate tenants.
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
//! freehold.migrations().up(&baseline, MigrateOptions::default(), &|_, _| {}).await?;
//!
//! let operator = OperatorContext::system("first steps");
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
//! From here: [`control::sessions::SignIn`] for sign-in by password, and the modules `axum` for
//! handlers that take their tenant as an argument and `testing` for tests over temporary tenants,
//! each behind the feature of its name. `examples/notes` in the repository is a whole service.
//!
//! # How tenants are kept apart
//!
//! A transaction begins with one call, `freehold.enter`, sent together with the first statement. It
//! sets the search path to the tenant's schema, the context, and a role with the actor's rights,
//! all for that transaction alone: a connection in the pool belongs to nobody.
//!
//! | Role in the tenant | Role in PostgreSQL | By default |
//! |---|---|---|
//! | viewer | `freehold_viewer` | reads every table |
//! | member | `freehold_member` | writes too |
//! | admin, owner | `freehold_admin` | as a member |
//!
//! A baseline may grant otherwise, and narrow further by policies of its own: `freehold.actor_id()`
//! and `freehold.actor_role()` are there for these and for column defaults.
//!
//! Row-level security is enabled and forced on every table, with a restrictive policy that compares
//! the context with that schema's tenant. A statement that comes to another tenant's table by
//! whatever way is not answered with nothing, but refused:
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
//! [`Freehold::connect`] refuses a role that row-level security does not bind: an owner, a
//! superuser, one with BYPASSRLS, or a member of one.
//!
//! # Limits
//!
//! - PostgreSQL 15 or newer, one database. Through a pooler in transaction mode statements go
//!   unnamed, and PostgreSQL plans each anew; changes are heard by LISTEN, which wants a session.
//! - SQL that an attacker manages to inject cannot set another tenant's context, which is sealed
//!   ([`SealMode`]), but it has all rights of the tenant it runs in. Send values as parameters.
//! - A baseline names no schema, and its views are `security_invoker`; a migration that leaves
//!   something unprotected fails as a whole.
//! - Under row-level security only leakproof operators reach an index: comparisons of integers,
//!   text, uuid and timestamps, and `starts_with()`. LIKE, full text, `@>`, and comparisons of
//!   numeric and enum values read every row.
//! - A transaction holds one of [`PoolLimits::connections_max`] connections from [`Freehold::begin`]
//!   to its end. A task that begins a second one inside the first may wait for itself.
//! - The app role's statements end after 30 s, and its transactions after 60 s of silence.
//! - A suspension or a removed membership is heeded within a second, not at once: a transaction
//!   that has begun runs to its end.

#![warn(missing_docs)]
// The catalog is one, whoever signs people in.
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
pub use crate::fleet::migrator::{MigrateFailure, MigrateOptions, MigrateReport, MigrateStatus};
pub use crate::freehold::Freehold;
pub use crate::init::{CATALOG_VERSION, InitOptions, InitReport, Passwords, init};
pub use crate::model::actor::{Action, Actor, Role, permits, require};
pub use crate::model::budget::{ByteBudget, ByteShare};
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
pub use crate::schema::import::{ImportRefusal, ImportRemark, Imported, import_dump};
pub use crate::schema::migration::{Baseline, Layout, Migration};
#[cfg(feature = "sign-in")]
pub use crate::sign_in::tokens;
pub use crate::tasks::{BackgroundTask, TaskStatus, Tasks};
pub use crate::tx::{PipelineError, ReadTx, TenantTx};
pub use crate::wire::client::connect_bare;
pub use crate::wire::params::{Params, TextParam};
pub use crate::wire::{Answer, Column, Row, RowIndex};
/// The time of this API, as rows and answers hold it.
pub use jiff;
/// The driver whose rows and parameters are used here.
pub use tokio_postgres;
/// What ids are made of, as rows and parameters hold them.
pub use uuid;

/// The service in the guide compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/handlers.md")]
struct GuideToHandlers;
