//! Violations: what was refused because somebody reached for what is not theirs. Here is what is
//! known of one, and the queue that it waits in; `recorder` writes it down.
//!
//! To record one takes a short lock and waits for nothing, so a request is as fast as ever,
//! whatever the database does. Everything ends: identical ones within a second are folded into
//! one, the queue is bounded, and what falls out of it is counted.

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

/// Identical ones within this time are one row with a count.
const FOLD: Duration = Duration::from_secs(1);
/// How many may wait to be written. Some 500 bytes each, and enough for a minute of the worst that
/// the writer's pace allows for.
const WAITING_MAX: usize = 1000;
/// The longest text that is kept of a statement.
const STATEMENT_CHARS_MAX: usize = 300;

/// What kind of border was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// The database refused a statement whose context is not that of the rows it came to.
    ContextRefused,
    /// A request named another tenant than its token.
    TokenTenantMismatch,
    /// A tenant's token came to an operator's endpoint, or the reverse.
    WrongScope,
    /// Somebody tried to write whose role may not.
    WriteRefused,
    /// A token that was made up or changed; not one that only grew old.
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

    /// As the catalog, metrics and JSON hold it.
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

/// What is known of a violation where it is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Violation {
    /// What kind of border was tried.
    pub kind: ViolationKind,
    /// The tenant of whoever tried; none outside of any, or if nobody can tell.
    pub tenant: Option<TenantId>,
    /// Who tried.
    pub actor: Option<IdentityId>,
    /// The tenant that was claimed or reached for, where it can be known.
    pub target: Option<TenantId>,
    /// What PostgreSQL refused it with, if it was PostgreSQL.
    pub sqlstate: Option<String>,
    /// The beginning of the statement, without its values.
    pub statement: Option<String>,
    /// More words for an operator; never a value.
    pub reason: Option<String>,
}

impl Violation {
    /// A violation of which nothing else is known yet.
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

    /// The violation behind a statement's error, if there is one: a context that was refused, or a
    /// write that the actor's role has no right to.
    ///
    /// A row that a policy of the baseline's own refuses is none. PostgreSQL asks those before the
    /// policy that keeps tenants apart, and does not say in which schema: so it is one where the
    /// statement, or what it called, names the schema of a tenant other than `own`.
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

    /// By somebody in a tenant.
    pub fn by(mut self, context: &TenantContext) -> Violation {
        self.tenant = Some(context.tenant());
        self.actor = Some(context.actor().id);
        self
    }

    /// By somebody who works on the catalog, outside of any tenant.
    pub fn by_operator(mut self, context: &OperatorContext) -> Violation {
        self.actor = Some(context.actor());
        self
    }

    /// Towards a tenant.
    pub fn towards(mut self, target: Option<TenantId>) -> Violation {
        self.target = target;
        self
    }

    /// Says more.
    pub fn because(mut self, reason: impl Into<String>) -> Violation {
        self.reason = Some(reason.into());
        self
    }
}

/// The tenant of the table that refused, which the database names in the error's DETAIL as
/// `tenant=<uuid>`: for operators alone.
fn target_of_detail(detail: &str) -> Option<TenantId> {
    let (_, rest) = detail.split_once("tenant=")?;
    let id = rest.get(..36)?.parse::<Uuid>().ok()?;
    Some(TenantId::from(id))
}

/// The tenant of the first schema that a text names and that is not one's own.
fn other_schema(text: &str, own: Option<TenantId>) -> Option<TenantId> {
    // A plain name may be in any case.
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
    /// In the order of time.
    pub id: Uuid,
    /// When it happened; the first time, if it did several times.
    pub occurred_at: Timestamp,
    /// How often it happened within that second.
    pub count: i64,
    /// The request that it happened in; the first one, if there were several.
    pub request_id: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub violation: Violation,
}

/// How many violations this process has seen since it started.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ViolationCounts {
    /// Of each kind.
    pub by_kind: [(ViolationKind, u64); ViolationKind::ALL.len()],
    /// Those of them that could not be written down and never will be.
    pub dropped: u64,
}

/// The violations that this process has seen and not written down yet.
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
    /// How much of the count is in the catalog already.
    written: i64,
}

impl Waiting {
    /// Whether another like it is counted here rather than in a row of its own.
    fn folds(&self, now: Instant) -> bool {
        now.duration_since(self.since) < FOLD
    }

    /// From when on it wants to be written: the first at once, its repetitions together.
    fn due(&self) -> Option<Instant> {
        match self.row.count - self.written {
            0 => None,
            _ if self.written == 0 => Some(self.since),
            _ => Some(self.since + FOLD),
        }
    }
}

impl Violations {
    /// Counts a violation, logs it, and leaves it to be written down. Never waits.
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
            // A log may be slow to take a line, and others wait for the lock.
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

    /// Waits until something should be written.
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

    /// What should be written now, at most so many; with `early`, also what could still be folded.
    pub(crate) fn batch(&self, rows_max: usize, early: bool) -> Vec<RecordedViolation> {
        let now = Instant::now();
        let waiting = self.waiting();
        let ready = waiting.iter().filter(|w| w.due().is_some_and(|at| early || at <= now));
        ready.take(rows_max).map(|w| w.row.clone()).collect()
    }

    /// Says that rows are in the catalog, with the counts that they have here.
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

    /// Counts as dropped whatever still waits, and returns how many that is: nobody is left to
    /// write them.
    pub(crate) fn give_up(&self) -> i64 {
        let lost = self.waiting().drain(..).map(|own| own.row.count - own.written).sum();
        self.0.dropped.fetch_add(i64::unsigned_abs(lost), Ordering::Relaxed);
        lost
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The oldest goes: the newest are what an attack that is under way looks like.
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

/// Once a row; its repetitions show in the counter and in the catalog.
fn log(row: &RecordedViolation) {
    let Violation { kind, tenant, actor, target, sqlstate, statement, reason } = &row.violation;
    let text = |id: Option<String>| id.unwrap_or_default();
    let (tenant, actor) = (text(tenant.map(|t| t.to_string())), text(actor.map(|a| a.to_string())));
    let target = text(target.map(|t| t.to_string()));
    let (kind, request) = (kind.as_str(), row.request_id.as_deref().unwrap_or_default());
    let sqlstate = sqlstate.as_deref().unwrap_or_default();
    let statement = statement.as_deref().unwrap_or_default();
    let reason = reason.as_deref().unwrap_or_default();
    // Where PostgreSQL had to be the one that refuses, all that comes before it has failed.
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
