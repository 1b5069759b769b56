//! Analytics across tenants: the figures are right, tenants are isolated, and incomplete figures are never
//! published as complete.

mod collecting;
mod definitions;
mod isolation;
mod leading;
mod totals;

use std::time::Duration;

use freehold::control::analytics::{
    AnalyticsPage, AnalyticsPublication, AnalyticsQuery, AnalyticsScope,
};
use freehold::{
    AnalyticsDefinition, AnalyticsFolder, AnalyticsOptions, AnalyticsRun, Baseline, Error,
    Migration, TenantContext,
};
use serde_json::{Value, json};

use crate::support::{House, house_with, operator};

const SALES: &str = "
CREATE TABLE sales (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  day        date NOT NULL,
  cents      bigint NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE unrelated (id int)";

/// Collected whole every time.
pub(super) const TOTALS: &str = "-- name: totals
-- about: Sales by day
-- grain: day
-- schedule: every 1h
-- minimum group: 1
-- average: largest
SELECT day, count(*) AS sales, sum(cents) AS cents, max(cents) AS largest FROM sales GROUP BY day";

/// Collected where it changed.
pub(super) const CHANGES: &str = "-- name: changes
-- grain: day
-- schedule: every 1h
-- minimum group: 1
-- watermark: changed_at
SELECT day, sum(cents) AS cents, max(changed_at) AS changed_at FROM sales GROUP BY day";

pub(super) fn folder(definitions: &[&str]) -> AnalyticsFolder {
    let parsed = definitions.iter().map(|text| AnalyticsDefinition::parse(text).unwrap());
    AnalyticsFolder::from_definitions(parsed.collect()).unwrap()
}

pub(super) fn baseline_and(later: &[&str]) -> Baseline {
    let mut migrations = vec![Migration::new(1, "sales", SALES)];
    for (version, sql) in (2..).zip(later) {
        migrations.push(Migration::new(version, "later", (*sql).to_owned()));
    }
    Baseline::from_migrations(migrations).unwrap()
}

/// A fleet with these definitions.
pub(super) async fn shop(definitions: &[&str]) -> House {
    let house = house_with(&baseline_and(&[])).await;
    house.freehold.analytics().apply(&operator(), &folder(definitions)).await.unwrap();
    house
}

impl House {
    pub(super) async fn sell(&self, tenant: &TenantContext, day: &str, cents: i64) {
        let sql = "INSERT INTO sales (day, cents) VALUES ($1::text::date, $2)";
        self.freehold.query(tenant, sql, &[&day, &cents]).await.unwrap();
    }

    /// Changes a tenant's rows so that PostgreSQL counts the changes at once, not within a minute.
    pub(super) async fn change(&self, tenant: &TenantContext, sql: &str) {
        self.script(tenant, &format!("{sql}; SELECT pg_stat_force_next_flush()")).await;
    }

    pub(super) async fn run(&self, changed_only: bool) -> Result<Vec<AnalyticsRun>, Error> {
        let options = AnalyticsOptions {
            changed_only,
            tenant_timeout: Duration::from_secs(5),
            ..AnalyticsOptions::default()
        };
        self.freehold.analytics().run(&operator(), None, options, &|_, _| {}).await
    }

    /// Runs everything whole, and must succeed.
    pub(super) async fn collect(&self) -> Vec<AnalyticsRun> {
        self.run(false).await.unwrap()
    }

    pub(super) async fn page(&self, name: &str, scope: AnalyticsScope) -> AnalyticsPage {
        let query = AnalyticsQuery { oldest_first: true, ..AnalyticsQuery::default() };
        self.freehold.analytics().read(&operator(), name, scope, &query).await.unwrap()
    }

    /// The totals over all tenants.
    pub(super) async fn fleet(&self, name: &str) -> Value {
        rows(&self.page(name, AnalyticsScope::Fleet).await)
    }

    pub(super) async fn publication(&self, name: &str) -> AnalyticsPublication {
        self.page(name, AnalyticsScope::Fleet).await.publication.unwrap()
    }

    pub(super) async fn own(&self, tenant: &TenantContext, name: &str) -> Value {
        let query = AnalyticsQuery { oldest_first: true, ..AnalyticsQuery::default() };
        rows(&self.freehold.analytics().read_own(tenant, name, &query).await.unwrap())
    }
}

pub(super) fn rows(page: &AnalyticsPage) -> Value {
    serde_json::from_str(&page.rows).unwrap()
}

/// A row of `changes` over the fleet.
pub(super) fn day(day: &str, tenants: i64, cents: i64) -> Value {
    json!({"day": day, "tenants": tenants, "cents": cents})
}
