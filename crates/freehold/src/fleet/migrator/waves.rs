//! The order in which tenants are migrated, and when a run stops before all of them are.
//!
//! Canaries come first, then shares of the others. The run stops after a wave of canaries in which one failed,
//! once too many tenants have failed, and when an operator pauses migrations.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::MigrateOptions;
use crate::catalog::baseline::{self, MigratePause};
use crate::error::{Error, ErrorKind, Result};
use crate::model::context::OperatorContext;
use crate::model::tenant::Tenant;
use crate::pool::Pool;
use crate::tx::CatalogTx;

/// How often a run looks whether migrations are paused.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Tenants that are migrated at a time before the run may stop.
pub(super) struct Wave {
    pub(super) tenants: Vec<Tenant>,
    /// Whether one failure stops the run.
    pub(super) is_of_canaries: bool,
}

/// All tenants in waves. The last one has what the shares leave.
pub(super) fn plan(behind: Vec<Tenant>, options: &MigrateOptions) -> Vec<Wave> {
    let canaries: HashSet<_> = options.canaries.iter().copied().collect();
    let (first, mut rest): (Vec<_>, Vec<_>) =
        behind.into_iter().partition(|tenant| canaries.contains(&tenant.id));
    let mut waves = vec![Wave { tenants: first, is_of_canaries: true }];
    let (total, mut taken) = (rest.len(), 0);
    for share in options.waves.iter().copied().chain([100]) {
        let until = (total * usize::from(share.min(100))).div_ceil(100).max(taken);
        let tenants = rest.drain(..until - taken).collect();
        waves.push(Wave { tenants, is_of_canaries: false });
        taken = until;
    }
    waves.retain(|wave| !wave.tenants.is_empty());
    waves
}

/// Whether the run goes on.
pub(super) struct Watch<'a> {
    owner: &'a Pool,
    failures_max: usize,
    looked: Instant,
}

impl<'a> Watch<'a> {
    pub(super) fn new(owner: &'a Pool, options: &MigrateOptions) -> Watch<'a> {
        Watch { owner, failures_max: options.failures_max.max(1), looked: Instant::now() }
    }

    /// The reason to stop, after a tenant is done.
    pub(super) async fn reason(&mut self, failures: usize, is_of_canaries: bool) -> Option<String> {
        if is_of_canaries && failures > 0 {
            return Some("a canary has failed".to_owned());
        }
        if failures >= self.failures_max {
            return Some(match failures {
                1 => "a tenant has failed".to_owned(),
                _ => format!("{failures} tenants have failed"),
            });
        }
        if self.looked.elapsed() < LOOK_EVERY {
            return None;
        }
        self.looked = Instant::now();
        self.look().await
    }

    /// Waits between two waves. Returns the reason to stop meanwhile.
    pub(super) async fn wait(&self, time: Duration) -> Option<String> {
        let began = Instant::now();
        loop {
            if let Some(reason) = self.look().await {
                return Some(reason);
            }
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() {
                return None;
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// A look that fails ends no run: if the database is gone, tenants fail, which does.
    async fn look(&self) -> Option<String> {
        match paused(self.owner).await {
            Ok(pause) => pause.map(|pause| pause.to_string()),
            Err(error) => {
                tracing::warn!(%error, "cannot see whether migrations are paused");
                None
            }
        }
    }
}

async fn paused(owner: &Pool) -> Result<Option<MigratePause>> {
    let mut tx = CatalogTx::new(owner, &OperatorContext::system("migrate the fleet")).await?;
    let pause = baseline::pause(&mut tx).await?;
    tx.commit().await?;
    Ok(pause)
}

/// Refuses to begin a run while migrations are paused.
pub(crate) async fn require_not_paused(owner: &Pool) -> Result<()> {
    match paused(owner).await? {
        None => Ok(()),
        Some(pause) => Err(Error::new(
            ErrorKind::Conflict,
            format!("migrations are {pause}; `freehold migrate resume` permits them again"),
        )),
    }
}

/// The pause before tenants are tried again whose tables were locked: longer each time, and different for each
/// run, so that it does not meet the same work of the application again.
pub(super) fn pause_before(attempt: u32) -> Duration {
    let random = getrandom::u32().map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX));
    Duration::from_millis(500).mul_f64(f64::from(attempt.min(8)) * (0.5 + random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::TenantId;
    use crate::model::tenant::{TenantStatus, Weight};

    fn tenants(count: usize) -> Vec<Tenant> {
        let tenant = |number: usize| Tenant {
            id: TenantId::generate(),
            slug: format!("tenant-{number}").parse().unwrap(),
            name: String::new(),
            status: TenantStatus::Active,
            version: 0,
            weight: Weight::try_from(1).unwrap(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
        };
        (0..count).map(tenant).collect()
    }

    #[test]
    fn canaries_are_first_and_then_shares_of_the_others() {
        let behind = tenants(203);
        let canaries = vec![behind[7].id, behind[200].id, TenantId::generate()];
        let sizes = |waves: &[u8], canaries: &[TenantId]| -> Vec<usize> {
            let (waves, canaries) = (waves.to_vec(), canaries.to_vec());
            let options = MigrateOptions { waves, canaries, ..MigrateOptions::default() };
            let planned = plan(behind.clone(), &options);
            let all: HashSet<_> =
                planned.iter().flat_map(|wave| &wave.tenants).map(|tenant| tenant.id).collect();
            assert_eq!(all.len(), 203);
            planned.iter().map(|wave| wave.tenants.len()).collect()
        };
        assert_eq!(sizes(&[1, 10], &canaries), [2, 3, 18, 180]);
        assert_eq!(sizes(&[], &[]), [203]);
        assert_eq!(sizes(&[50, 20, 100], &[]), [102, 101]);
        let options = MigrateOptions { canaries, ..MigrateOptions::default() };
        let first = &plan(behind.clone(), &options)[0];
        assert!(first.is_of_canaries && first.tenants[0].id == behind[7].id);
        assert!(plan(Vec::new(), &options).is_empty());
    }
}
