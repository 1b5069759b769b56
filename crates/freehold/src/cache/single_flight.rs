//! Single flight: one caller loads a value, and the others wait for the result.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Loads that are under way, by key. Bounded by the number of requests being served.
pub(super) struct SingleFlight<K, V>(Arc<Mutex<HashMap<K, Completion<V>>>>);

/// `None` while the load is under way; then its result, or `Some(None)` if it failed.
type Completion<V> = watch::Receiver<Option<Option<V>>>;

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        SingleFlight(Arc::clone(&self.0))
    }
}

/// The caller's part in the load.
pub(super) enum Part<K: Eq + Hash, V> {
    /// The caller loads.
    Lead(Lead<K, V>),
    /// Another caller is loading.
    Follow(Follow<V>),
}

/// If this is dropped without a result, as when its request is dropped, one of the waiters loads instead.
pub(super) struct Lead<K: Eq + Hash, V> {
    single_flight: SingleFlight<K, V>,
    key: K,
    outcome: watch::Sender<Option<Option<V>>>,
}

pub(super) struct Follow<V>(Completion<V>);

/// What the waiters see.
pub(super) enum Outcome<V> {
    Done(V),
    Failed,
    Abandoned,
}

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    pub(super) fn new() -> Self {
        SingleFlight(Arc::default())
    }

    pub(super) fn join(&self, key: &K) -> Part<K, V> {
        let mut single_flight = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landing) = single_flight.get(key) {
            return Part::Follow(Follow(landing.clone()));
        }
        let (outcome, landing) = watch::channel(None);
        single_flight.insert(key.clone(), landing);
        Part::Lead(Lead { single_flight: self.clone(), key: key.clone(), outcome })
    }
}

impl<K: Eq + Hash, V> Lead<K, V> {
    /// `None` reports a failure: the waiters need not try the same.
    pub(super) fn finish(self, outcome: Option<V>) {
        self.outcome.send_replace(Some(outcome));
    }
}

impl<K: Eq + Hash, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        // Removed before the sender is dropped, so that a waiter that looks again can take the lead.
        self.single_flight.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<V: Clone> Follow<V> {
    pub(super) async fn outcome(mut self) -> Outcome<V> {
        match self.0.wait_for(Option::is_some).await.map(|landed| landed.clone()) {
            Ok(Some(Some(value))) => Outcome::Done(value),
            Ok(_) => Outcome::Failed,
            Err(_) => Outcome::Abandoned,
        }
    }
}
