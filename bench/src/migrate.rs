//! How fast the fleet is migrated: one ADD COLUMN for each of 500 tenants, against the same statements sent
//! by hand.

use std::time::{Duration, Instant};

use freehold::{Baseline, Freehold, MigrateOptions, Migration};
use futures_util::future::try_join_all;
use tokio_postgres::Client;

use crate::Result;
use crate::fixtures::{Fleet, connect, demo_baseline};
use crate::report::{Ratio, Row};
use crate::rounds::median;

const TENANTS: usize = 500;
const ROUNDS_MAX: i32 = 20;

pub(crate) async fn run(admin_url: &str, seconds: u64) -> Result<Vec<Row>> {
    let fleet = Fleet::empty(admin_url, TENANTS).await?;
    let options = MigrateOptions::default();
    let mut bare = Vec::new();
    for _ in 0..options.parallel {
        bare.push(connect(&fleet.database.owner_url()).await?);
    }
    let schemas: Vec<String> = fleet.tenants.iter().map(|m| m.tenant.id.schema()).collect();
    let (mut by_hand, mut by_us) = (Vec::new(), Vec::new());
    let mut migrations = demo_baseline()?.migrations().to_vec();
    let started = Instant::now();
    for round in 0..ROUNDS_MAX {
        eprintln!("round {}", round + 1);
        by_hand.push(add_column_by_hand(&bare, &schemas, round).await?);
        let statements = format!("ALTER TABLE orders ADD COLUMN bench_{round} text");
        migrations.push(Migration::new(i64::from(9000 + round), "bench", statements));
        by_us.push(migrate(&fleet.freehold, &migrations, options).await?);
        if started.elapsed() > Duration::from_secs(seconds) {
            break;
        }
    }
    let ratio = median(by_us.iter().zip(&by_hand).map(|(us, hand)| us / hand).collect());
    let row = |case: &str, rates, ratio| Row {
        case: case.to_owned(),
        rate: median(rates),
        unit: "tenants/s",
        latency: None,
        ratio,
    };
    Ok(vec![
        row("floor/add_column", by_hand, None),
        row(
            "migrate/add_column",
            by_us,
            Some(Ratio { value: ratio, to: "floor/add_column".into() }),
        ),
    ])
}

/// One transaction per tenant, and nothing else. Returns tenants per second.
async fn add_column_by_hand(clients: &[Client], schemas: &[String], round: i32) -> Result<f64> {
    let started = Instant::now();
    let share = schemas.len().div_ceil(clients.len());
    try_join_all(clients.iter().zip(schemas.chunks(share)).map(async |(client, schemas)| {
        for schema in schemas {
            let sql = format!("ALTER TABLE {schema}.orders ADD COLUMN by_hand_{round} text");
            client.batch_execute(&sql).await?;
        }
        Ok::<_, crate::Failure>(())
    }))
    .await?;
    Ok(schemas.len() as f64 / started.elapsed().as_secs_f64())
}

async fn migrate(
    freehold: &Freehold,
    migrations: &[Migration],
    options: MigrateOptions,
) -> Result<f64> {
    let baseline = Baseline::from_migrations(migrations.to_vec())?;
    let started = Instant::now();
    let report = freehold.migrate(&baseline, options, &|_, _| {}).await?;
    match report.failed.first() {
        None => Ok(report.migrated as f64 / started.elapsed().as_secs_f64()),
        Some(failure) => Err(format!("a tenant could not be migrated: {}", failure.error).into()),
    }
}
