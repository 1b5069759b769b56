//! One works, the others wait for what comes of it: single flight.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Work under way, by what it is for. Bounded by the requests that are being served.
pub(super) struct SingleFlight<K, V>(Arc<Mutex<HashMap<K, Completion<V>>>>);

/// None while it is under way; then what came of it, or that it failed.
type Completion<V> = watch::Receiver<Option<Option<V>>>;

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        SingleFlight(Arc::clone(&self.0))
    }
}

/// Whose turn it is.
pub(super) enum Part<K: Eq + Hash, V> {
    /// Ours to do.
    Lead(Lead<K, V>),
    /// Somebody is at it.
    Follow(Follow<V>),
}

/// Dropped without an outcome, as when its request is, it leaves the turn to one of those who wait.
pub(super) struct Lead<K: Eq + Hash, V> {
    single_flight: SingleFlight<K, V>,
    key: K,
    outcome: watch::Sender<Option<Option<V>>>,
}

pub(super) struct Follow<V>(Completion<V>);

/// What those who waited see.
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
    /// `None` says that it failed: nobody who waits need try the same way again.
    pub(super) fn finish(self, outcome: Option<V>) {
        self.outcome.send_replace(Some(outcome));
    }
}

impl<K: Eq + Hash, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        // Before the sender goes, so that who then looks anew finds the turn free.
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
