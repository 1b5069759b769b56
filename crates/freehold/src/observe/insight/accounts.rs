//! The counted figures on their way to Prometheus, to the catalog, and to the view of this moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::leaders::Leaders;
use super::{Key, TableId, Usage, micros};
use crate::model::ids::TenantId;

/// The most rows per write.
const BATCH_ROWS_MAX: usize = 1000;
/// The most tenants per window.
const BUSIEST_MAX: usize = 50;
/// The most entries that wait while the catalog is unavailable. Further ones are reported to Prometheus only.
const WAITING_MAX: usize = 200_000;

pub(super) struct Accounts {
    server: Uuid,
    leaders: Leaders,
    waiting: HashMap<Key, Usage>,
    /// The batch that was taken from `waiting` and is not known to be written, with its number.
    sent: Option<(i64, Vec<(Key, Usage)>)>,
    batches: i64,
    window: HashMap<TenantId, Usage>,
    window_began: Instant,
}

/// Figures to write down. The number makes writing them twice have no effect.
pub(crate) struct UsageBatch {
    pub(crate) server: Uuid,
    pub(crate) number: i64,
    pub(crate) rows: Vec<(TenantId, Arc<str>, Usage)>,
}

/// The busiest tenants of this server in the window that has just ended.
pub(crate) struct Busiest {
    pub(crate) server: Uuid,
    pub(crate) window: Duration,
    pub(crate) tenants: Vec<(TenantId, Usage)>,
}

impl Accounts {
    pub(super) fn new(server: Uuid, tenants_named: usize) -> Accounts {
        Accounts {
            server,
            leaders: Leaders::new(tenants_named),
            waiting: HashMap::new(),
            sent: None,
            batches: 0,
            window: HashMap::new(),
            window_began: Instant::now(),
        }
    }

    pub(super) fn add(&mut self, key: Key, usage: &Usage) {
        self.leaders.add(key, usage);
        let (tenant, _) = key;
        if tenant == TenantId::TEMPLATE {
            return;
        }
        self.window.entry(tenant).or_default().add(usage);
        if self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&key) {
            self.waiting.entry(key).or_default().add(usage);
        }
    }

    pub(super) fn series(&mut self, now: Instant) -> Vec<(Option<TenantId>, TableId, Usage)> {
        self.leaders.elect(now);
        self.leaders.series()
    }

    pub(super) fn busiest(&mut self, now: Instant) -> Busiest {
        self.leaders.elect(now);
        let mut tenants: Vec<_> = std::mem::take(&mut self.window).into_iter().collect();
        tenants.sort_unstable_by_key(|(_, usage)| std::cmp::Reverse(usage.time_us));
        tenants.truncate(BUSIEST_MAX);
        let window = now.duration_since(self.window_began);
        self.window_began = now;
        Busiest { server: self.server, window, tenants }
    }

    pub(super) fn batch(&mut self, names: &[Arc<str>]) -> Option<UsageBatch> {
        if self.sent.is_none() && !self.waiting.is_empty() {
            let keys: Vec<Key> = self.waiting.keys().take(BATCH_ROWS_MAX).copied().collect();
            let rows = keys.iter().filter_map(|key| Some((*key, self.waiting.remove(key)?)));
            let rows = rows.collect();
            self.batches += 1;
            self.sent = Some((self.batches, rows));
        }
        let (number, rows) = self.sent.as_ref()?;
        let name = |table: TableId| Arc::clone(&names[usize::from(table.0)]);
        let rows = rows.iter().map(|((tenant, table), usage)| (*tenant, name(*table), *usage));
        Some(UsageBatch { server: self.server, number: *number, rows: rows.collect() })
    }

    pub(super) fn written(&mut self) {
        self.sent = None;
    }
}

impl Busiest {
    pub(crate) fn window_us(&self) -> u64 {
        micros(self.window)
    }
}
