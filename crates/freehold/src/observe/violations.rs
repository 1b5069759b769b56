//! Violations: attempts to reach another tenant's data or to exceed a role's rights, which were refused. This
//! module defines what is known of a violation, and the queue from which `recorder` writes it down.
//!
//! Recording takes a short lock and never waits, so it does not slow a request down, whatever the state of
//! the database. Everything is bounded: identical violations within a second are folded into one, the queue
//! has a limit, and what is evicted is counted.
//!
//! The app role can write violations only through `freehold.record_violations`, and can neither change nor
//! delete them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::{IdentityId, TenantId};
use crate::model::origin::{self, plain};
use crate::sql::excerpt::excerpt;

#[cfg(test)]
mod tests;

/// Identical violations within this time become one row with a count.
const FOLD: Duration = Duration::from_secs(1);
/// The most violations that wait to be written, at about 500 bytes each: a minute of the worst flood at the
/// writer's rate.
const WAITING_MAX: usize = 1000;
/// The most characters of a statement that are kept.
const STATEMENT_CHARS_MAX: usize = 300;

/// The kind of boundary that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// The database refused a statement whose context does not match the rows that it reached.
    ContextRefused,
    /// A request named another tenant than its token.
    TokenTenantMismatch,
    /// A tenant's token was used at an operator's endpoint, or the reverse.
    WrongScope,
    /// An actor tried to write whose role may only read.
    WriteRefused,
    /// A token that was forged or altered. An expired token is not a violation.
    ForgedToken,
}

impl ViolationKind {
    /// Every kind.
    pub const ALL: [ViolationKind; 5] = [
        ViolationKind::ContextRefused,
        ViolationKind::TokenTenantMismatch,
        ViolationKind::WrongScope,
        ViolationKind::WriteRefused,
        ViolationKind::ForgedToken,
    ];

    /// The name in the catalog, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            ViolationKind::ContextRefused => "context_refused",
            ViolationKind::TokenTenantMismatch => "token_tenant_mismatch",
            ViolationKind::WrongScope => "wrong_scope",
            ViolationKind::WriteRefused => "write_refused",
            ViolationKind::ForgedToken => "forged_token",
        }
    }

    /// Reads [`as_str`](Self::as_str).
    pub fn parse(text: &str) -> Result<ViolationKind> {
        ViolationKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let kinds = ViolationKind::ALL.map(ViolationKind::as_str).join(", ");
            Error::new(ErrorKind::InvalidInput, format!("the kind must be one of {kinds}"))
                .field("kind")
        })
    }
}

/// What is known of a violation where it is detected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Violation {
    /// The kind of boundary that was tried.
    pub kind: ViolationKind,
    /// The tenant of the actor; `None` outside of any tenant, or if it is unknown.
    pub tenant: Option<TenantId>,
    /// The actor.
    pub actor: Option<IdentityId>,
    /// The tenant that was named or reached for, if it is known.
    pub target: Option<TenantId>,
    /// The SQLSTATE, if PostgreSQL refused it.
    pub sqlstate: Option<String>,
    /// The beginning of the statement, without its values.
    pub statement: Option<String>,
    /// Further explanation for an operator; never contains a value.
    pub reason: Option<String>,
}

impl Violation {
    /// A violation of which only the kind is known yet.
    pub fn new(kind: ViolationKind) -> Violation {
        Violation {
            kind,
            tenant: None,
            actor: None,
            target: None,
            sqlstate: None,
            statement: None,
            reason: None,
        }
    }

    /// The violation behind a statement's error, if there is one: a refused context, or a write that the
    /// actor's role may not do.
    ///
    /// A row that a policy of the baseline's own refuses is not a violation. But PostgreSQL evaluates those
    /// policies before the one that isolates tenants, and does not report the schema: so it is a violation if
    /// the statement, or what it called, names the schema of a tenant other than `own`.
    pub fn behind(error: &Error, sql: &str, own: Option<TenantId>) -> Option<Violation> {
        let db = error.database();
        if error.kind() == ErrorKind::RowPolicy {
            let place = db.and_then(|db| db.where_()).unwrap_or_default();
            let other = other_schema(sql, own).or_else(|| other_schema(place, own))?;
            return Some(Violation {
                target: Some(other),
                sqlstate: db.map(|db| db.code().code().to_owned()),
                statement: Some(excerpt(sql, STATEMENT_CHARS_MAX).0),
                ..Violation::new(ViolationKind::ContextRefused)
            });
        }
        let kind = match error.kind() {
            ErrorKind::Violation => ViolationKind::ContextRefused,
            ErrorKind::Forbidden if db.is_some_and(|db| db.code().code() == "42501") => {
                ViolationKind::WriteRefused
            }
            _ => return None,
        };
        let (statement, writes) = excerpt(sql, STATEMENT_CHARS_MAX);
        if kind == ViolationKind::WriteRefused && !writes {
            return None;
        }
        Some(Violation {
            target: db.and_then(|db| db.detail()).and_then(target_of_detail),
            sqlstate: db.map(|db| db.code().code().to_owned()),
            statement: Some(statement),
            ..Violation::new(kind)
        })
    }

    /// Sets the tenant and the actor.
    pub fn by(mut self, context: &TenantContext) -> Violation {
        self.tenant = Some(context.tenant());
        self.actor = Some(context.actor().id);
        self
    }

    /// Sets the operator, who acts outside of any tenant.
    pub fn by_operator(mut self, context: &OperatorContext) -> Violation {
        self.actor = Some(context.actor());
        self
    }

    /// Sets the tenant that was reached for.
    pub fn towards(mut self, target: Option<TenantId>) -> Violation {
        self.target = target;
        self
    }

    /// Sets the explanation.
    pub fn because(mut self, reason: impl Into<String>) -> Violation {
        self.reason = Some(reason.into());
        self
    }
}

/// The tenant of the table that refused, which the database names in the error's DETAIL as `tenant=<uuid>`.
/// For operators only.
fn target_of_detail(detail: &str) -> Option<TenantId> {
    let (_, rest) = detail.split_once("tenant=")?;
    let id = rest.get(..36)?.parse::<Uuid>().ok()?;
    Some(TenantId::from(id))
}

/// The tenant of the first schema that a text names, other than `own`.
fn other_schema(text: &str, own: Option<TenantId>) -> Option<TenantId> {
    // An unquoted name may be in any case.
    let text = text.to_ascii_lowercase();
    let mut named = text.match_indices("tenant_").filter_map(|(at, prefix)| {
        let id: TenantId = text.get(at + prefix.len()..)?.get(..32)?.parse::<Uuid>().ok()?.into();
        Some(id).filter(|id| text[at..].starts_with(&id.schema()))
    });
    named.find(|id| Some(*id) != own)
}

/// A violation as it is written down.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RecordedViolation {
    /// Ordered by time.
    pub id: Uuid,
    /// When it happened, or first happened if it was repeated.
    pub occurred_at: Timestamp,
    /// How often it happened within that second.
    pub count: i64,
    /// The request in which it happened first.
    pub request_id: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub violation: Violation,
}

/// How many violations this process has seen since it started.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ViolationCounts {
    /// The number of each kind.
    pub by_kind: [(ViolationKind, u64); ViolationKind::ALL.len()],
    /// How many of them could not be written down and are lost.
    pub dropped: u64,
}

/// The violations that this process has detected and not written down yet.
#[derive(Clone, Default)]
pub(crate) struct Violations(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<VecDeque<Waiting>>,
    wake: Notify,
    seen: [AtomicU64; ViolationKind::ALL.len()],
    dropped: AtomicU64,
}

struct Waiting {
    row: RecordedViolation,
    since: Instant,
    /// The part of the count that is already in the catalog.
    written: i64,
}

impl Waiting {
    /// Whether a repetition is counted here rather than in a row of its own.
    fn folds(&self, now: Instant) -> bool {
        now.duration_since(self.since) < FOLD
    }

    /// When it is due to be written: the first occurrence at once, its repetitions together.
    fn due(&self) -> Option<Instant> {
        match self.row.count - self.written {
            0 => None,
            _ if self.written == 0 => Some(self.since),
            _ => Some(self.since + FOLD),
        }
    }
}

impl Violations {
    /// Counts a violation, logs it, and queues it. Never waits.
    pub(crate) fn record(&self, mut violation: Violation) {
        violation.reason = violation.reason.as_deref().map(plain);
        violation.statement = violation.statement.as_deref().map(plain);
        self.0.seen[violation.kind as usize].fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut waiting = self.waiting();
        let same = waiting
            .iter_mut()
            .rev()
            .take_while(|earlier| earlier.folds(now))
            .find(|earlier| earlier.row.violation == violation);
        if let Some(same) = same {
            same.row.count += 1;
        } else {
            let row = RecordedViolation {
                id: Uuid::now_v7(),
                occurred_at: Timestamp::now(),
                count: 1,
                request_id: origin::of_request().1,
                violation,
            };
            make_room(&mut waiting, now, &self.0.dropped);
            waiting.push_back(Waiting { row: row.clone(), since: now, written: 0 });
            // Logging may be slow, and other threads wait for the lock.
            drop(waiting);
            log(&row);
        }
        self.0.wake.notify_one();
    }

    pub(crate) fn counts(&self) -> ViolationCounts {
        let count = |kind| (kind, self.0.seen[kind as usize].load(Ordering::Relaxed));
        ViolationCounts {
            by_kind: ViolationKind::ALL.map(count),
            dropped: self.0.dropped.load(Ordering::Relaxed),
        }
    }

    /// Waits until a violation is due.
    pub(crate) async fn due(&self) {
        loop {
            let woken = self.0.wake.notified();
            let next = self.waiting().iter().filter_map(Waiting::due).min();
            match next {
                Some(at) if at <= Instant::now() => return,
                Some(at) => drop(tokio::time::timeout_at(at, woken).await),
                None => woken.await,
            }
        }
    }

    /// The violations that are due, at most `rows_max`; with `early`, also those that may still be repeated.
    pub(crate) fn batch(&self, rows_max: usize, early: bool) -> Vec<RecordedViolation> {
        let now = Instant::now();
        let waiting = self.waiting();
        let ready = waiting.iter().filter(|w| w.due().is_some_and(|at| early || at <= now));
        ready.take(rows_max).map(|w| w.row.clone()).collect()
    }

    /// Records that rows are in the catalog, with the counts that they have here.
    pub(crate) fn written(&self, rows: &[RecordedViolation]) {
        let now = Instant::now();
        let mut waiting = self.waiting();
        for row in rows {
            if let Some(own) = waiting.iter_mut().find(|own| own.row.id == row.id) {
                own.written = own.written.max(row.count);
            }
        }
        waiting.retain(|own| own.due().is_some() || own.folds(now));
    }

    /// Counts the queued violations as dropped, since nothing will write them any more, and returns their
    /// number.
    pub(crate) fn give_up(&self) -> i64 {
        let lost = self.waiting().drain(..).map(|own| own.row.count - own.written).sum();
        self.0.dropped.fetch_add(i64::unsigned_abs(lost), Ordering::Relaxed);
        lost
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evicts the oldest: the newest show an attack that is under way.
fn make_room(waiting: &mut VecDeque<Waiting>, now: Instant, dropped: &AtomicU64) {
    if waiting.len() < WAITING_MAX {
        return;
    }
    let before = waiting.len();
    waiting.retain(|own| own.due().is_some() || own.folds(now));
    if waiting.len() == before
        && let Some(oldest) = waiting.pop_front()
    {
        let lost = oldest.row.count - oldest.written;
        dropped.fetch_add(lost.unsigned_abs(), Ordering::Relaxed);
    }
}

/// Logged once per row; repetitions show in the counter and in the catalog.
fn log(row: &RecordedViolation) {
    let Violation { kind, tenant, actor, target, sqlstate, statement, reason } = &row.violation;
    let text = |id: Option<String>| id.unwrap_or_default();
    let (tenant, actor) = (text(tenant.map(|t| t.to_string())), text(actor.map(|a| a.to_string())));
    let target = text(target.map(|t| t.to_string()));
    let (kind, request) = (kind.as_str(), row.request_id.as_deref().unwrap_or_default());
    let sqlstate = sqlstate.as_deref().unwrap_or_default();
    let statement = statement.as_deref().unwrap_or_default();
    let reason = reason.as_deref().unwrap_or_default();
    // If PostgreSQL had to refuse it, all earlier checks have failed.
    if row.violation.kind == ViolationKind::ContextRefused {
        tracing::error!(
            kind,
            tenant,
            actor,
            target,
            sqlstate,
            request,
            statement,
            reason,
            "violation"
        );
    } else {
        tracing::warn!(
            kind,
            tenant,
            actor,
            target,
            sqlstate,
            request,
            statement,
            reason,
            "violation"
        );
    }
}
