//! The speed of migrating the fleet: an ADD COLUMN and a CREATE TABLE, against the same statements sent by
//! hand, and a run that finds nothing to do.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use freehold::{Baseline, Freehold, MigrateOptions, Migration, TenantId};
use futures_util::future::try_join_all;
use tokio_postgres::Client;

use crate::Result;
use crate::fixtures::{Fleet, connect, demo_baseline, operator};
use crate::report::{Ratio, Row};
use crate::rounds::median;

const ROUNDS_MAX: i64 = 20;

/// A measured case: its name, the migration, and the same statements by hand.
struct Case {
    name: &'static str,
    migration: fn(round: i64) -> String,
    by_hand: fn(tenant: TenantId, round: i64) -> String,
}

const CASES: [Case; 2] = [
    Case {
        name: "add_column",
        migration: |round| format!("ALTER TABLE orders ADD COLUMN bench_{round} text"),
        by_hand: |tenant, round| {
            format!("ALTER TABLE {}.orders ADD COLUMN by_hand_{round} text", tenant.schema())
        },
    },
    Case {
        name: "create_table",
        migration: |round| create_table(&format!("bench_{round}")),
        by_hand: |tenant, round| {
            let (schema, name) = (tenant.schema(), format!("by_hand_{round}"));
            let mut sql =
                format!("BEGIN; SET LOCAL search_path = {schema}; {};", create_table(&name));
            let isolated = format!("(SELECT freehold.require_tenant('{tenant}'))");
            let _ = write!(
                sql,
                "ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
                 CREATE POLICY tenant_isolation ON {name} AS RESTRICTIVE USING ({isolated}) WITH CHECK ({isolated});
                 CREATE POLICY owner_access ON {name} TO freehold_owner USING (true) WITH CHECK (true);
                 CREATE POLICY analytics_read ON {name} FOR SELECT TO freehold_analytics USING (true);
                 CREATE POLICY tenant_access ON {name} TO freehold_viewer USING (true) WITH CHECK (true);
                 GRANT SELECT ON {name} TO freehold_viewer, freehold_analytics;
                 GRANT INSERT, UPDATE, DELETE ON {name} TO freehold_member; COMMIT"
            );
            sql
        },
    },
];

fn create_table(name: &str) -> String {
    format!(
        "CREATE TABLE {name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at date, what text);
         CREATE INDEX ON {name} (at); CREATE INDEX ON {name} (what)"
    )
}

pub(crate) async fn run(admin_url: &str, seconds: u64, tenants: usize) -> Result<Vec<Row>> {
    let fleet = Fleet::empty(admin_url, tenants).await?;
    let options = MigrateOptions::default();
    let mut bare = Vec::new();
    for _ in 0..options.parallel {
        bare.push(connect(&fleet.database.owner_url()).await?);
    }
    let ids: Vec<TenantId> = fleet.tenants.iter().map(|member| member.tenant.id).collect();
    let mut rates = CASES.map(|_| (Vec::new(), Vec::new()));
    let mut idle = Vec::new();
    let mut migrations = demo_baseline()?.migrations().to_vec();
    let started = Instant::now();
    for round in 0..ROUNDS_MAX {
        eprintln!("round {}", round + 1);
        for (case, (by_hand, by_us)) in CASES.iter().zip(&mut rates) {
            by_hand.push(send_by_hand(&bare, &ids, case, round).await?);
            let version = 9000 + migrations.len() as i64;
            migrations.push(Migration::new(version, "bench", (case.migration)(round)));
            by_us.push(migrate(&fleet.freehold, &migrations, options.clone()).await?);
        }
        let began = Instant::now();
        let baseline = Baseline::from_migrations(migrations.clone())?;
        fleet.freehold.migrations().up(&operator(), &baseline, options.clone(), &|_, _| {}).await?;
        idle.push(began.elapsed().as_secs_f64() * 1000.0);
        if started.elapsed() > Duration::from_secs(seconds) {
            break;
        }
    }
    let row =
        |case: String, value, unit, ratio| Row { case, rate: value, unit, latency: None, ratio };
    let mut rows = Vec::new();
    for (case, (by_hand, by_us)) in CASES.iter().zip(rates) {
        let ratio = median(by_us.iter().zip(&by_hand).map(|(us, hand)| us / hand).collect());
        let floor = format!("floor/{}", case.name);
        let ratio = Some(Ratio { value: ratio, to: floor.clone() });
        rows.push(row(floor, median(by_hand), "tenants/s", None));
        rows.push(row(format!("migrate/{}", case.name), median(by_us), "tenants/s", ratio));
    }
    rows.push(row("migrate/noop".to_owned(), median(idle), "ms", None));
    Ok(rows)
}

/// Sends one message with one transaction per tenant, and nothing else. Returns tenants per second.
async fn send_by_hand(
    clients: &[Client],
    tenants: &[TenantId],
    case: &Case,
    round: i64,
) -> Result<f64> {
    let started = Instant::now();
    let share = tenants.len().div_ceil(clients.len());
    try_join_all(clients.iter().zip(tenants.chunks(share)).map(async |(client, tenants)| {
        for tenant in tenants {
            client.batch_execute(&(case.by_hand)(*tenant, round)).await?;
        }
        Ok::<_, crate::Failure>(())
    }))
    .await?;
    Ok(tenants.len() as f64 / started.elapsed().as_secs_f64())
}

async fn migrate(
    freehold: &Freehold,
    migrations: &[Migration],
    options: MigrateOptions,
) -> Result<f64> {
    let baseline = Baseline::from_migrations(migrations.to_vec())?;
    let started = Instant::now();
    let report = freehold.migrations().up(&operator(), &baseline, options, &|_, _| {}).await?;
    match report.failed.first() {
        None => Ok(report.migrated as f64 / started.elapsed().as_secs_f64()),
        Some(failure) => Err(format!("a tenant could not be migrated: {}", failure.error).into()),
    }
}
