//! The slugs of the tenants in published figures.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use freehold::{Freehold, OperatorContext, TenantId, TenantSeries};

/// After this time, unknown slugs are left out of the answer.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// The slugs of tenants, each read once, since a slug never changes.
#[derive(Default)]
pub(super) struct Slugs(Mutex<HashMap<TenantId, String>>);

impl Slugs {
    pub(super) async fn of(
        &self,
        freehold: &Freehold,
        series: &[TenantSeries],
    ) -> HashMap<TenantId, String> {
        let named: Vec<TenantId> = series.iter().filter_map(|series| series.tenant).collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.retain(|tenant, _| named.contains(tenant));
        let mut unknown: Vec<_> =
            named.into_iter().filter(|tenant| !known.contains_key(tenant)).collect();
        unknown.dedup();
        if !unknown.is_empty() {
            let context = OperatorContext::system("slugs of the busiest tenants");
            let read = freehold.usage().slugs_of(&context, &unknown);
            // The figures matter more, above all while the database is slow.
            if let Ok(Ok(slugs)) = tokio::time::timeout(WAIT_MAX, read).await {
                known.extend(slugs);
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&known);
        known
    }
}
