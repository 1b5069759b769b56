//! The shape sampler: counts the shapes of a sample of requests, in bounded memory. `reporter` writes them
//! down.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::QueryShape;
use crate::model::ids::TenantId;

/// The most shapes that wait to be written down, of all tenants and of one; further new shapes are not
/// counted. At the limit they take about 2 MB.
const SHAPES_MAX: usize = 4096;
const TENANT_SHAPES_MAX: usize = 100;
/// 2⁶⁴ divided by the golden ratio. Its multiples are spread evenly without a period, so that no client with
/// a periodic pattern escapes the sample.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Cheap to clone; clones share their state.
#[derive(Clone)]
pub(crate) struct ShapeSampler(Arc<Shared>);

struct Shared {
    /// One request in this many is counted, over all of them.
    sample: u32,
    requests: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    tenants: HashMap<TenantId, HashMap<QueryShape, u64>>,
    shapes: usize,
}

impl ShapeSampler {
    pub(crate) fn new(sample: u32) -> ShapeSampler {
        let waiting = Mutex::default();
        ShapeSampler(Arc::new(Shared {
            sample: sample.max(1),
            requests: AtomicU64::new(0),
            waiting,
        }))
    }

    /// Counts a request if it belongs to the sample; only then is its shape computed.
    pub(crate) fn count(&self, tenant: TenantId, shape: impl FnOnce() -> Option<QueryShape>) {
        let number = self.0.requests.fetch_add(1, Ordering::Relaxed);
        if number.wrapping_mul(GOLDEN) > u64::MAX / u64::from(self.0.sample) {
            return;
        }
        if let Some(shape) = shape().and_then(QueryShape::reduced) {
            self.add(tenant, shape, self.0.sample.into());
        }
    }

    fn add(&self, tenant: TenantId, shape: QueryShape, requests: u64) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { tenants, shapes } = &mut *waiting;
        let known = tenants.entry(tenant).or_default();
        if let Some(count) = known.get_mut(&shape) {
            *count = count.saturating_add(requests);
        } else if *shapes < SHAPES_MAX && known.len() < TENANT_SHAPES_MAX {
            known.insert(shape, requests);
            *shapes += 1;
        }
    }

    /// Takes the counts.
    pub(crate) fn take(&self) -> Vec<(TenantId, QueryShape, u64)> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let tenants = std::mem::take(&mut *waiting).tenants.into_iter();
        let of = |(tenant, shapes): (TenantId, HashMap<QueryShape, u64>)| {
            shapes.into_iter().map(move |(shape, requests)| (tenant, shape, requests))
        };
        tenants.flat_map(of).collect()
    }

    /// Puts back counts that could not be written down.
    pub(crate) fn put_back(&self, counts: Vec<(TenantId, QueryShape, u64)>) {
        for (tenant, shape, requests) in counts {
            self.add(tenant, shape, requests);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(table: &str) -> Option<QueryShape> {
        let conditions = vec![("a".to_owned(), "=".to_owned())];
        Some(QueryShape { table: table.to_owned(), conditions, order: Vec::new() })
    }

    #[test]
    fn a_sample_stands_for_all_and_sees_every_rhythm() {
        for rhythm in [2, 3, 5, 7, 16, 32] {
            let asked = ShapeSampler::new(16);
            for number in 0..16_000_u32 {
                let table = if number % rhythm == 0 { "beat" } else { "rest" };
                asked.count(TenantId::TEMPLATE, || shape(table));
            }
            for (_, shape, requests) in asked.take() {
                let of = if shape.table == "beat" { 1 } else { rhythm - 1 };
                let true_count = f64::from(16_000 * of / rhythm);
                let counted = requests as f64;
                assert!(
                    (counted / true_count - 1.0).abs() < 0.25,
                    "{rhythm}: {counted} of {true_count}"
                );
            }
        }
    }

    #[test]
    fn no_tenant_takes_all_the_memory_and_all_together_have_a_bound() {
        let asked = ShapeSampler::new(1);
        let tenants: Vec<TenantId> = (0..60).map(|_| TenantId::generate()).collect();
        for tenant in &tenants {
            for number in 0..200 {
                asked.count(*tenant, || shape(&number.to_string()));
            }
        }
        let taken = asked.take();
        assert_eq!(taken.len(), SHAPES_MAX);
        for tenant in &tenants {
            assert!(taken.iter().filter(|(of, ..)| of == tenant).count() <= TENANT_SHAPES_MAX);
        }
        assert!(asked.take().is_empty());
    }
}
