//! Background tasks: named, restarted after a panic, and counted.
//!
//! Without this, a task that dies is noticed only hours later, by its missing effects: changes are not
//! received, nothing is recorded, an outdated readiness is reported.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The pauses before a task that panicked is restarted: from the first, doubling, up to the second.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The background tasks of one process, as [`Freehold::tasks`](crate::Freehold::tasks) returns them. Clones
/// share one list.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Mutex<BTreeMap<&'static str, TaskState>>>);

#[derive(Clone, Copy, Debug, Default)]
struct TaskState {
    panics: u64,
    waiting: usize,
}

/// The status of one task, or of several with the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskStatus {
    /// The name in logs and metrics.
    pub name: &'static str,
    /// The number of panics since the process began.
    pub panics: u64,
    /// Whether it is waiting to be restarted.
    pub is_down: bool,
}

/// A running task, which is aborted when this is dropped.
#[derive(Debug)]
pub struct BackgroundTask(pub(crate) JoinHandle<()>);

impl Drop for BackgroundTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tasks {
    /// Runs the future that `make` returns until it ends or the handle is dropped. After a panic, which is
    /// logged and counted, `make` is called again, after 1 s at first and at most 60 s.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let tasks = freehold::Tasks::default();
    /// let _sweep = tasks.spawn("sweep", || async { /* … */ });
    /// assert_eq!(tasks.list()[0].panics, 0);
    /// # }
    /// ```
    #[must_use = "dropped, it ends the task"]
    pub fn spawn<F>(
        &self,
        name: &'static str,
        mut make: impl FnMut() -> F + Send + 'static,
    ) -> BackgroundTask
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.states().entry(name).or_default();
        let tasks = self.clone();
        BackgroundTask(tokio::spawn(async move {
            let mut pause = PAUSE_MIN;
            loop {
                let began = Instant::now();
                // Wrapped as well, since `make` itself may panic.
                let run = AssertUnwindSafe(async { make().await }).catch_unwind().await;
                let Err(panic) = run else { return };
                if began.elapsed() >= PAUSE_MAX {
                    pause = PAUSE_MIN;
                }
                tracing::error!(
                    task = name,
                    why = words_of(&*panic),
                    again_in_s = pause.as_secs(),
                    "a background task panicked; it is started again"
                );
                let _down = tasks.down(name);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }))
    }

    /// All tasks, by name.
    pub fn list(&self) -> Vec<TaskStatus> {
        let status = |(name, state): (&&'static str, &TaskState)| TaskStatus {
            name,
            panics: state.panics,
            is_down: state.waiting > 0,
        };
        self.states().iter().map(status).collect()
    }

    fn down(&self, name: &'static str) -> Down<'_> {
        let mut states = self.states();
        let state = states.entry(name).or_default();
        state.panics += 1;
        state.waiting += 1;
        Down { tasks: self, name }
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<&'static str, TaskState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a task as waiting to be restarted.
struct Down<'t> {
    tasks: &'t Tasks,
    name: &'static str,
}

impl Drop for Down<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.tasks.states().get_mut(self.name) {
            state.waiting -= 1;
        }
    }
}

/// The message of a panic.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again_later_each_time_and_counted() {
        let tasks = Tasks::default();
        let starts: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (began, seen) = (Instant::now(), Arc::clone(&starts));
        let task = tasks.spawn("shaky", move || {
            seen.lock().unwrap().push(began.elapsed().as_secs());
            async { panic!("{}", "as planned") }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status = TaskStatus { name: "shaky", panics: 1, is_down: true };
        assert_eq!(tasks.list(), [status]);
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(*starts.lock().unwrap(), [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        drop(task);
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert_eq!(starts.lock().unwrap().len(), 9, "dropped, it is not started again");
        assert!(!tasks.list()[0].is_down);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ran_for_long_is_started_again_soon_and_one_that_ends_is_not() {
        let tasks = Tasks::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let _task = tasks.spawn("steady", move || {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(PAUSE_MAX).await;
                assert!(run == 3, "again");
            }
        });
        tokio::time::sleep(4 * PAUSE_MAX + 4 * PAUSE_MIN).await;
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        tokio::time::sleep(10 * PAUSE_MAX).await;
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        assert_eq!(tasks.list(), [TaskStatus { name: "steady", panics: 3, is_down: false }]);
    }
}
