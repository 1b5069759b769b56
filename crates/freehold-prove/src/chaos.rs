//! Disturbances of a run: sessions are ended, queries cancelled, tenants suspended and resumed, roles
//! changed, and migrations applied to the fleet, while the workers continue.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use freehold::{MigrateOptions, Role};
use tokio::task::JoinHandle;

use crate::Run;
use crate::dice::Dice;
use crate::gate::HEEDED_WITHIN;
use crate::ground::{OPERATOR, Resident, baseline_with, identity};

/// Migrations during a run, spread over it.
const MIGRATIONS: i32 = 3;
/// A call that a disturbance interrupted is repeated, up to a limit.
const TRIES_MAX: usize = 40;
const TRY_AGAIN: Duration = Duration::from_millis(50);

const DISTURBANCE: &str = "a disturbance";

/// The disturbances of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Disturbances {
    /// Sessions of the application that were ended by `pg_terminate_backend`.
    pub sessions_ended: u64,
    /// Queries of the application that were cancelled by `pg_cancel_backend`.
    pub queries_cancelled: u64,
    /// Tenants that were suspended, and resumed later.
    pub suspensions: u64,
    /// Members that became viewers, or viewers members.
    pub role_changes: u64,
    /// Migrations that were brought to every tenant.
    pub migrations: u64,
    /// How often the pooler ended by itself and was restarted.
    pub pooler_restarts: u64,
}

pub(crate) struct Chaos {
    tasks: Vec<JoinHandle<Disturbances>>,
    run: Arc<Run>,
}

/// A stream of random numbers that no worker uses.
const STREAM: u64 = 1 << 32;

pub(crate) fn start(run: &Arc<Run>) -> Chaos {
    let dice = |stream| Dice::new(run.settings.seed, STREAM + stream);
    let tasks = vec![
        tokio::spawn(end_sessions(Arc::clone(run), dice(0))),
        tokio::spawn(suspend(Arc::clone(run), dice(1))),
        tokio::spawn(change_roles(Arc::clone(run), dice(2))),
        tokio::spawn(migrate(Arc::clone(run))),
    ];
    Chaos { tasks, run: Arc::clone(run) }
}

impl Chaos {
    /// Waits until the original state is restored: suspended tenants are resumed.
    pub(crate) async fn stop(self) -> Disturbances {
        let mut all = Disturbances::default();
        for task in self.tasks {
            match task.await {
                Ok(some) => all.add(some),
                Err(error) => {
                    let words = format!("came to a bad end: {error}");
                    self.run.findings.fault(DISTURBANCE, &words);
                }
            }
        }
        all
    }
}

impl Disturbances {
    fn add(&mut self, other: Disturbances) {
        self.sessions_ended += other.sessions_ended;
        self.queries_cancelled += other.queries_cancelled;
        self.suspensions += other.suspensions;
        self.role_changes += other.role_changes;
        self.migrations += other.migrations;
        self.pooler_restarts += other.pooler_restarts;
    }
}

async fn end_sessions(run: Arc<Run>, mut dice: Dice) -> Disturbances {
    const SESSIONS: &str = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND usename = 'freehold_app' AND (state = 'active' OR $1)
        ORDER BY pid";
    let mut done = Disturbances::default();
    let observer = &run.ground.observer;
    loop {
        run.pause(Duration::from_millis(run.settings.disturb_ms)).await;
        if run.is_over() {
            return done;
        }
        let (idle_too, ends) = (dice.percent(30), dice.percent(50));
        let Ok(rows) = observer.query(SESSIONS, &[&idle_too]).await else { continue };
        if rows.is_empty() {
            continue;
        }
        let pid: i32 = dice.pick(&rows).get(0);
        let signal = match ends {
            true => "SELECT pg_terminate_backend($1)",
            false => "SELECT pg_cancel_backend($1)",
        };
        let sent = observer.query_one(signal, &[&pid]).await;
        let sent = u64::from(sent.is_ok_and(|row| row.get(0)));
        match ends {
            true => done.sessions_ended += sent,
            false => done.queries_cancelled += sent,
        }
    }
}

async fn suspend(run: Arc<Run>, mut dice: Dice) -> Disturbances {
    let mut done = Disturbances::default();
    let steward = &run.ground.steward;
    loop {
        run.pause(Duration::from_millis(dice.between(100, 700) as u64)).await;
        if run.is_over() {
            return done;
        }
        let resident = dice.pick(&run.ground.residents);
        resident.gate.begin();
        let suspended = try_again(&run, "suspend a tenant", async || {
            steward.tenants().suspend(&OPERATOR, resident.id).await.map(drop)
        });
        if suspended.await {
            resident.gate.done(false);
            done.suspensions += 1;
        }
        // Long enough that many requests come after the point at which it must have taken effect.
        run.pause(HEEDED_WITHIN + Duration::from_millis(800)).await;
        resident.gate.begin();
        let resumed = try_again(&run, "resume a tenant", async || {
            steward.tenants().resume(&OPERATOR, resident.id).await.map(drop)
        });
        if resumed.await {
            resident.gate.done(true);
        }
    }
}

async fn change_roles(run: Arc<Run>, mut dice: Dice) -> Disturbances {
    let mut done = Disturbances::default();
    let mut viewers = vec![false; run.ground.residents.len()];
    loop {
        run.pause(Duration::from_millis(dice.between(100, 400) as u64)).await;
        if run.is_over() {
            return done;
        }
        let resident = dice.pick(&run.ground.residents);
        let becomes_viewer = !viewers[resident.number];
        let role = if becomes_viewer { Role::Viewer } else { Role::Member };
        resident.changing.begin();
        if change_role(&run, resident, role).await {
            resident.changing.done(!becomes_viewer);
            viewers[resident.number] = becomes_viewer;
            done.role_changes += 1;
        } else {
            // The tenant is suspended at this moment: nothing has changed.
            resident.changing.done(becomes_viewer);
        }
    }
}

async fn change_role(run: &Run, resident: &Resident, role: Role) -> bool {
    let steward = &run.ground.steward;
    let owner = identity(resident.people.of(Role::Owner));
    let member = identity(resident.people.changing);
    for _ in 0..TRIES_MAX {
        let changed = async {
            let context = steward.tenant_context(resident.id, owner).await?;
            steward.members().change_role(&context, member, role).await
        };
        match changed.await {
            Ok(()) => return true,
            Err(error) if error.kind() == freehold::ErrorKind::TenantSuspended => return false,
            Err(_) => tokio::time::sleep(TRY_AGAIN).await,
        }
    }
    run.findings.fault(DISTURBANCE, "a member's role could not be changed");
    false
}

async fn migrate(run: Arc<Run>) -> Disturbances {
    let mut done = Disturbances::default();
    for n in 1..=MIGRATIONS {
        let due = run.settings.operations / (MIGRATIONS as u64 + 1) * n as u64;
        while run.operations() < due && !run.is_over() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if run.is_over() {
            break;
        }
        let baseline = baseline_with(run.ground.conditions.baseline, n);
        let options = MigrateOptions {
            parallel: 2,
            lock_timeout: Duration::from_secs(2),
            ..MigrateOptions::default()
        };
        let migrated = try_again(&run, "migrate", async || {
            let report = run
                .ground
                .steward
                .migrations()
                .up(&OPERATOR, &baseline, options.clone(), &|_, _| {})
                .await?;
            match report.failed.first() {
                None => Ok(()),
                // A lock held by the workers; the next run migrates the rest.
                Some(failed) => {
                    Err(freehold::Error::new(freehold::ErrorKind::Retryable, failed.error.clone()))
                }
            }
        });
        done.migrations += u64::from(migrated.await);
    }
    done
}

/// Repeats a call that disturbances may interrupt until it succeeds.
async fn try_again<F>(run: &Run, what: &str, mut attempt: impl FnMut() -> F) -> bool
where
    F: Future<Output = freehold::Result<()>>,
{
    let mut last = String::new();
    for _ in 0..TRIES_MAX {
        match attempt().await {
            Ok(()) => return true,
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
    run.findings.fault(DISTURBANCE, &format!("cannot {what}: {last}"));
    false
}
