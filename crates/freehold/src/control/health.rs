//! The health of tenants: examines a sample of them for operators. It reveals no rows.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use uuid::Uuid;

use crate::catalog::health::{self, SchemaHealth};
use crate::catalog::{baseline, tenants};
use crate::control::check_after;
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::actor::{Actor, Role};
use crate::model::context::OperatorContext;
use crate::model::tenant::{Tenant, TenantStatus};

/// The most tenants in one sample.
pub const SAMPLE_MAX: i64 = 100;
const SAMPLE_DEFAULT: i64 = 20;
/// How many are examined at a time, each on a connection of the pool that requests use too.
const AT_A_TIME: usize = 4;
/// The time limit for one tenant; below, for the whole sample.
const ANSWER_MAX: Duration = Duration::from_secs(2);
const SAMPLE_TIME_MAX: Duration = Duration::from_secs(10);

/// Which tenants to examine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleOf<'a> {
    /// A random sample, different each time.
    #[default]
    Chance,
    /// Those that follow this slug, in order; `""` begins with the first.
    After(&'a str),
}

/// A sample of tenants, and the health of each.
#[derive(Clone, Debug)]
pub struct FleetSample {
    /// The newest migration of the baseline.
    pub version: i64,
    /// In the order of slugs, or in random order.
    pub tenants: Vec<TenantHealth>,
}

/// The health of one tenant.
#[derive(Clone, Debug)]
pub struct TenantHealth {
    /// The tenant.
    pub tenant: Tenant,
    /// Whether its schema is at the baseline.
    pub is_current: bool,
    /// Whether a transaction could enter its schema. `None` if it was not tried, because the tenant is
    /// suspended or the time was up.
    pub is_reachable: Option<bool>,
    /// The number of its tables.
    pub tables: i64,
    /// How many of them row-level security does not protect.
    pub unprotected: i64,
    /// How long the answer took.
    pub answer: Duration,
    /// The problems found, in words that contain nothing from its rows.
    pub problems: Vec<String>,
}

impl TenantHealth {
    /// Whether no problem was found.
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Handle for examining the health of tenants: [`Freehold::health`].
#[derive(Clone, Copy)]
pub struct Health<'a>(&'a Freehold);

impl Freehold {
    /// Examines the health of tenants.
    pub fn health(&self) -> Health<'_> {
        Health(self)
    }
}

impl Health<'_> {
    /// Examines some tenants: whether a transaction can enter the schema, at which version it is, and whether
    /// its tables are protected. `limit` defaults to 20 and is at most [`SAMPLE_MAX`]; the call ends within
    /// about 10 seconds. The doctor examines the whole fleet, and more thoroughly.
    pub async fn sample(
        self,
        context: &OperatorContext,
        of: SampleOf<'_>,
        limit: Option<i64>,
    ) -> Result<FleetSample> {
        let limit = limit.unwrap_or(SAMPLE_DEFAULT).clamp(1, SAMPLE_MAX);
        let mut tx = self.0.catalog(context).await?;
        let chosen = match of {
            SampleOf::Chance => health::sample(&mut tx, Uuid::new_v4(), limit).await?,
            SampleOf::After(slug) => {
                tenants::list(&mut tx, check_after(Some(slug))?, limit).await?
            }
        };
        let ids: Vec<Uuid> = chosen.iter().map(|tenant| tenant.id.as_uuid()).collect();
        let walls = health::look_at_walls(&mut tx, &ids).await?;
        let version = baseline::newest(&mut tx).await?;
        tx.commit().await?;
        let until = Instant::now() + SAMPLE_TIME_MAX;
        let looks = chosen
            .into_iter()
            .zip(walls)
            .map(|(tenant, walls)| self.0.look_at(tenant, walls, version, until));
        let tenants = futures_util::stream::iter(looks).buffered(AT_A_TIME).collect().await;
        Ok(FleetSample { version, tenants })
    }
}

impl Freehold {
    async fn look_at(
        &self,
        tenant: Tenant,
        walls: SchemaHealth,
        version: i64,
        until: Instant,
    ) -> TenantHealth {
        let began = Instant::now();
        let mut problems = Vec::new();
        let is_tried = tenant.status == TenantStatus::Active && began < until;
        let is_reachable = if is_tried {
            let entered = tokio::time::timeout(ANSWER_MAX, self.enter(&tenant)).await;
            let entered = entered.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Timeout, "no answer within two seconds"))
            });
            problems.extend(
                entered.as_ref().err().map(|error| format!("not reachable: {}", error.message())),
            );
            Some(entered.is_ok())
        } else {
            None
        };
        if !walls.has_schema {
            problems.push("its schema is missing".to_owned());
        }
        if walls.unprotected > 0 {
            problems.push(format!(
                "{} of {} tables are not protected",
                walls.unprotected, walls.tables
            ));
        }
        let is_current = tenant.version == version;
        if !is_current {
            problems.push(format!("at version {} and not {version}", tenant.version));
        }
        TenantHealth {
            tenant,
            is_current,
            is_reachable,
            tables: walls.tables,
            unprotected: walls.unprotected,
            answer: began.elapsed(),
            problems,
        }
    }

    /// Begins a transaction in the tenant's schema, as a viewer's request would.
    async fn enter(&self, tenant: &Tenant) -> Result<()> {
        let viewer = Actor { role: Role::Viewer, ..Actor::SYSTEM };
        let context = self.tenant_context_as(tenant.id, viewer).await?;
        let rows = self.query(&context, "SELECT current_schema()::text", &[]).await?;
        let schema: Option<&str> = rows.first().and_then(|row| row.get(0));
        if schema == Some(tenant.id.schema().as_str()) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "its schema cannot be used"))
    }
}
