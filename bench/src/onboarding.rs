//! How fast tenants are created: schema, the demo's baseline, policies, grants, catalog rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use freehold::Freehold;

use crate::Result;
use crate::fixtures::{Fleet, create};
use crate::report::Row;
use crate::rounds::{Case, Load, Operation, take_turns};

/// The number of connections in the owner pool.
const PARALLEL: usize = 4;

struct Create {
    freehold: Freehold,
    created: AtomicUsize,
}

pub(crate) async fn run(admin_url: &str, seconds: u64, only: &str) -> Result<Vec<Row>> {
    let fleet = Fleet::empty(admin_url, 1).await?;
    let operation =
        Arc::new(Create { freehold: fleet.freehold.clone(), created: AtomicUsize::new(0) });
    let sequential = "onboarding/sequential".to_owned();
    let mut cases = vec![
        Case {
            name: sequential.clone(),
            ratio_to: None,
            operation: Arc::clone(&operation),
            load: Load { workers: 1, tenants: 1 },
        },
        Case {
            name: format!("onboarding/parallel_{PARALLEL}"),
            ratio_to: Some(sequential),
            operation,
            load: Load { workers: PARALLEL, tenants: 1 },
        },
    ];
    cases.retain(|case| case.name.contains(only));
    take_turns(&cases, "tenants/s", seconds).await
}

impl Operation for Create {
    async fn run(&self, _worker: usize, _tenant: usize) -> Result<()> {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        create(&self.freehold, format!("new-{number}")).await?;
        Ok(())
    }
}
