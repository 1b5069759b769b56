//! The busiest tenants, which Prometheus gets by name, and the sum of all others.
//!
//! A counter must not go backwards, and `rate()` must see only what happened. So a tenant that joins begins
//! at zero: what it did before stays in the sum of the others. One that leaves takes its series with it, and
//! from then on counts among the others. To keep series from coming and going, a tenant stays for at least a
//! quarter of an hour, and then until another tenant is 1.5 times as busy.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Key, TableId, Usage};
use crate::model::ids::TenantId;

/// How long a tenant stays at least: windows of `rate()` are shorter.
const STAY_MIN: Duration = Duration::from_secs(15 * 60);
/// How many times as busy another tenant must be to replace it.
const BUSIER: f64 = 1.5;
/// After this time, a tenant's past use counts half.
const HALF_LIFE: Duration = Duration::from_secs(5 * 60);
/// The shortest interval between elections.
const ELECT_EVERY: Duration = Duration::from_secs(5);
/// The most tenants whose use is remembered; beyond that, the least busy are forgotten.
const SCORES_MAX: usize = 20_000;

/// Counters of a tenant's statements about a table, for Prometheus.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TenantSeries {
    /// `None`: all tenants that are not named.
    pub tenant: Option<TenantId>,
    /// `(sql)` for statements without a known table, `(others)` for tables beyond the first 62.
    pub table: Arc<str>,
    /// The use since the tenant was named; it never decreases.
    pub usage: Usage,
}

type Tables = BTreeMap<TableId, Usage>;

pub(super) struct Leaders {
    named_max: usize,
    named: HashMap<TenantId, (Instant, Tables)>,
    others: Tables,
    /// Microseconds used by each tenant, discounted with time.
    scores: HashMap<TenantId, f64>,
    elected_at: Option<Instant>,
}

impl Leaders {
    pub(super) fn new(named_max: usize) -> Leaders {
        Leaders {
            named_max,
            named: HashMap::new(),
            others: Tables::new(),
            scores: HashMap::new(),
            elected_at: None,
        }
    }

    pub(super) fn add(&mut self, (tenant, table): Key, usage: &Usage) {
        let tables = match self.named.get_mut(&tenant) {
            Some((_, tables)) => tables,
            None => &mut self.others,
        };
        tables.entry(table).or_default().add(usage);
        if tenant != TenantId::TEMPLATE && self.named_max > 0 {
            *self.scores.entry(tenant).or_default() += usage.time_us as f64;
        }
    }

    /// Decides which tenants are named from now on.
    pub(super) fn elect(&mut self, now: Instant) {
        let since = self.elected_at.map(|at| now.saturating_duration_since(at));
        if since.is_some_and(|since| since < ELECT_EVERY) {
            return;
        }
        self.elected_at = Some(now);
        self.age(since.unwrap_or_default());
        let mut challengers: Vec<(TenantId, f64)> = self
            .scores
            .iter()
            .filter(|(tenant, _)| !self.named.contains_key(tenant))
            .map(|(tenant, score)| (*tenant, *score))
            .collect();
        challengers.sort_unstable_by(|(_, a), (_, b)| b.total_cmp(a));
        for (tenant, score) in challengers.into_iter().take(self.named_max) {
            if self.named.len() >= self.named_max && !self.make_room(score, now) {
                break;
            }
            self.named.insert(tenant, (now, Tables::new()));
        }
    }

    /// Removes the least busy tenant whose minimum stay is over, if it is much less busy than `score`.
    fn make_room(&mut self, score: f64, now: Instant) -> bool {
        let score_of = |tenant: &TenantId| self.scores.get(tenant).copied().unwrap_or_default();
        let idlest = self
            .named
            .iter()
            .filter(|(_, (since, _))| now.saturating_duration_since(*since) >= STAY_MIN)
            .map(|(tenant, _)| (*tenant, score_of(tenant)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b));
        match idlest {
            Some((tenant, idle)) if score > idle * BUSIER => {
                self.named.remove(&tenant);
                true
            }
            _ => false,
        }
    }

    fn age(&mut self, by: Duration) {
        let factor = 0.5_f64.powf(by.as_secs_f64() / HALF_LIFE.as_secs_f64());
        for score in self.scores.values_mut() {
            *score *= factor;
        }
        self.scores.retain(|_, score| *score >= 1.0);
        if self.scores.len() > SCORES_MAX {
            let mut all: Vec<f64> = self.scores.values().copied().collect();
            let (_, bound, _) = all.select_nth_unstable_by(SCORES_MAX, |a, b| b.total_cmp(a));
            let bound = *bound;
            self.scores.retain(|_, score| *score > bound);
        }
    }

    pub(super) fn series(&self) -> Vec<(Option<TenantId>, TableId, Usage)> {
        let of = |tenant: Option<TenantId>, tables: &Tables| {
            tables.iter().map(|(table, usage)| (tenant, *table, *usage)).collect::<Vec<_>>()
        };
        let named = self.named.iter().flat_map(|(tenant, (_, tables))| {
            // Makes a zero visible first: `rate()` ignores the initial value of a series.
            if tables.is_empty() {
                return vec![(Some(*tenant), TableId::NONE, Usage::default())];
            }
            of(Some(*tenant), tables)
        });
        let mut series: Vec<_> = named.chain(of(None, &self.others)).collect();
        series.sort_unstable_by_key(|(tenant, table, _)| (*tenant, *table));
        series
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(ms: u64) -> Usage {
        Usage { queries: 1, time_us: ms * 1000, ..Usage::default() }
    }

    fn id(n: u128) -> TenantId {
        TenantId::from(uuid::Uuid::from_u128(n))
    }

    fn named(leaders: &Leaders) -> Vec<u128> {
        let mut ids: Vec<_> = leaders.named.keys().map(|t| t.as_uuid().as_u128()).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_busiest_are_named_and_the_rest_are_one() {
        let mut leaders = Leaders::new(2);
        for n in 1..=50 {
            leaders.add((id(n), TableId::NONE), &busy(n as u64));
        }
        let now = Instant::now();
        leaders.elect(now);
        assert_eq!(named(&leaders), [49, 50]);
        // What tenants did before they were named stays in the sum of the others.
        let sum: u64 = leaders.others.values().map(|usage| usage.queries).sum();
        assert_eq!(sum, 50);
        leaders.add((id(50), TableId::NONE), &busy(1));
        leaders.add((id(1), TableId::NONE), &busy(1));
        let series = leaders.series();
        assert_eq!(series.len(), 3, "{series:?}");
        assert_eq!(series.iter().map(|(_, _, usage)| usage.queries).sum::<u64>(), 52);
    }

    #[test]
    fn no_counter_goes_backwards_while_tenants_come_and_go() {
        let mut leaders = Leaders::new(3);
        let mut now = Instant::now();
        let mut last: HashMap<(Option<TenantId>, TableId), Usage> = HashMap::new();
        let mut members = Vec::new();
        for round in 0..400_u128 {
            // Another handful of tenants is busy every half hour.
            let group = round / 120;
            for n in 0..6 {
                leaders.add((id(1 + group * 6 + n), TableId::NONE), &busy(10 + n as u64));
            }
            now += Duration::from_secs(15);
            leaders.elect(now);
            let series = leaders.series();
            assert!(series.len() <= 4, "{series:?}");
            let current: HashMap<_, _> =
                series.into_iter().map(|(tenant, table, usage)| ((tenant, table), usage)).collect();
            for (key, usage) in &current {
                if let Some(before) = last.get(key) {
                    assert!(usage.time_us >= before.time_us && usage.queries >= before.queries);
                }
            }
            last = current;
            members.push(named(&leaders));
        }
        members.dedup();
        assert!(members.len() > 3, "nobody ever came or went: {members:?}");
        assert!(members.len() < 20, "they come and go all the time: {members:?}");
    }

    #[test]
    fn who_is_named_stays_while_others_are_a_little_busier() {
        let mut leaders = Leaders::new(1);
        let mut now = Instant::now();
        leaders.add((id(1), TableId::NONE), &busy(100));
        leaders.elect(now);
        for (minutes, of_two, expected) in [(1, 1000, 1), (15, 10, 1), (1, 1000, 2)] {
            now += Duration::from_secs(60 * minutes);
            leaders.scores.insert(id(1), 100_000.0);
            leaders.scores.insert(id(2), f64::from(of_two) * 12_000.0);
            leaders.elect(now);
            assert_eq!(named(&leaders), [expected]);
        }
    }
}
