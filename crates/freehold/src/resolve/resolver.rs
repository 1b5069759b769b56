//! From a token's claim to a context: whether the tenant is active, and whether the person is still a member.
//!
//! Answers are cached. PostgreSQL notifies every server of a change by NOTIFY on the channel `freehold`.
//! While the listener's connection is not proven to work, nothing older than half a second is used. So a
//! suspension or a removal takes effect within a second on every server.
//!
//! Sessions are cached like tenants and roles, by one query for all three; a new password, a disabled person
//! and a removal revoke sessions in the same way. Operators' sessions, and whether a person still is an
//! operator, are looked up at each request.
//!
//! Statuses are not kept in Redis: a suspension must take effect within a second, which rests on a listener
//! that knows whether it is connected. A lookup is one indexed row, so a second store would save little, and
//! could return an outdated `active`.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use moka::sync::Cache;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::AsyncMessage;
use uuid::Uuid;

use crate::cache::freshness::{DEAF_MAX, Freshness};
use crate::cache::local::Local;
use crate::cache::stats::Lookup;
use crate::catalog::changes::{self, ChangeMarks};
use crate::catalog::memberships::{self, Standing};
use crate::error::{Error, ErrorKind, Result};
use crate::model::actor::{Actor, Role};
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::{IdentityId, TenantId};
use crate::model::tenant::Tenant;
use crate::observe::trouble::Trouble;
use crate::pool::Pool;
use crate::pool::pooler::Pooler;
use crate::tasks::BackgroundTask;
use crate::tx::CatalogTx;
use crate::wire::tls::Target;

/// The most entries of each cache; an entry takes about 300 bytes.
const ENTRIES_MAX: u64 = 100_000;
/// The most notifications that are queued while the listener is busy, some hundred bytes each.
const UNHEARD_MAX: usize = 10_000;
/// How often changes are polled where LISTEN is not possible.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the listener's connection is checked.
const HEARTBEAT: Duration = Duration::from_millis(250);

const DEAF: &str = "the connection that listens for changes is lost; reconnecting";
const BLIND: &str = "the catalog cannot be asked what has changed; trying again";

#[derive(Clone)]
pub(crate) struct Resolver {
    pool: Pool,
    tenants: Cache<TenantId, Entry<Tenant>>,
    roles: Cache<(TenantId, IdentityId), Entry<Role>>,
    /// Sessions that have not ended, and their owners.
    sessions: Cache<Uuid, Entry<IdentityId>>,
    heard: Arc<Heard>,
    /// Receives the notifications about cached values.
    cache: Local,
}

#[derive(Clone)]
struct Entry<T> {
    value: T,
    loaded_at: Instant,
}

/// The state of the listener.
struct Heard {
    freshness: Arc<Freshness>,
    /// Increases with every notification. A value that was loaded while it increased is not kept.
    generation: AtomicU64,
    baseline: watch::Sender<u64>,
    keys: watch::Sender<u64>,
    mail: watch::Sender<u64>,
    /// What the latest poll found.
    marks: Mutex<Option<ChangeMarks>>,
}

impl Heard {
    fn new(freshness: Arc<Freshness>) -> Heard {
        Heard {
            freshness,
            generation: AtomicU64::new(0),
            baseline: watch::Sender::new(0),
            keys: watch::Sender::new(0),
            mail: watch::Sender::new(0),
            marks: Mutex::new(None),
        }
    }

    /// Reports what differs from the latest poll. The first poll reports everything, since it may have
    /// changed after it was read.
    fn note_marks(&self, now: ChangeMarks) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let before = marks.replace(now);
        let now = marks.as_ref();
        let changed = |part: fn(&ChangeMarks) -> &str| before.as_ref().map(part) != now.map(part);
        if changed(|marks| &marks.baseline) {
            self.baseline.send_modify(|n| *n += 1);
        }
        if changed(|marks| &marks.newest_key) {
            self.keys.send_modify(|n| *n += 1);
        }
    }
}

impl Resolver {
    pub(crate) fn new(pool: Pool, cache: Local, freshness: Arc<Freshness>) -> Resolver {
        Resolver {
            pool,
            cache,
            tenants: Cache::new(ENTRIES_MAX),
            roles: Cache::new(ENTRIES_MAX),
            sessions: Cache::new(ENTRIES_MAX),
            heard: Arc::new(Heard::new(freshness)),
        }
    }

    /// A context for a person in a tenant. The role is the membership's current one, whatever a token says. A
    /// person who is not a member gets the same error as for a tenant that does not exist.
    pub(crate) async fn resolve(
        &self,
        tenant: TenantId,
        identity: IdentityId,
    ) -> Result<TenantContext> {
        let cached = self.cached(tenant).zip(self.believe(self.roles.get(&(tenant, identity))));
        let (tenant, role) = match cached {
            Some((tenant, role)) => (tenant, Some(role)),
            None => {
                let found = self.load(tenant, identity, None).await?.ok_or_else(no_such_tenant)?;
                (found.tenant, found.role)
            }
        };
        let role = role.ok_or_else(no_such_tenant)?;
        tenant.status.require_active()?;
        let actor = Actor { id: identity, role };
        Ok(TenantContext::new(tenant.id, actor).weighing(tenant.weight))
    }

    /// [`resolve`](Self::resolve) for a person in a session, which must be that person's and not have ended.
    /// An ended session is the same error as an ended membership.
    pub(crate) async fn resolve_session(
        &self,
        tenant: TenantId,
        identity: IdentityId,
        session: Uuid,
    ) -> Result<TenantContext> {
        let lives = self.believe(self.sessions.get(&session)) == Some(identity);
        if !lives {
            let found = self.load(tenant, identity, Some(session)).await?;
            if !found.is_some_and(|found| found.session_lives) {
                return Err(no_such_tenant());
            }
        }
        self.resolve(tenant, identity).await
    }

    /// A context for an actor whose permission the caller has checked.
    pub(crate) async fn resolve_as(&self, tenant: TenantId, actor: Actor) -> Result<TenantContext> {
        let tenant = match self.cached(tenant) {
            Some(tenant) => tenant,
            None => self.load(tenant, actor.id, None).await?.ok_or_else(no_such_tenant)?.tenant,
        };
        tenant.status.require_active()?;
        Ok(TenantContext::new(tenant.id, actor).weighing(tenant.weight))
    }

    /// Whether the listener is known to receive changes.
    pub(crate) fn hears(&self) -> bool {
        self.heard.freshness.hears()
    }

    fn cached(&self, tenant: TenantId) -> Option<Tenant> {
        let found = self.believe(self.tenants.get(&tenant));
        let lookup = if found.is_some() { Lookup::ProcessHit } else { Lookup::ProcessMiss };
        self.cache.counters().count("status", lookup);
        found
    }

    fn believe<T>(&self, entry: Option<Entry<T>>) -> Option<T> {
        let entry = entry?;
        self.heard.freshness.believes(entry.loaded_at).then_some(entry.value)
    }

    async fn load(
        &self,
        id: TenantId,
        identity: IdentityId,
        session: Option<Uuid>,
    ) -> Result<Option<Standing>> {
        let generation = self.heard.generation.load(Ordering::Acquire);
        let loaded_at = Instant::now();
        let tx = CatalogTx::new(&self.pool, &OperatorContext::system("resolve a token")).await?;
        let found = memberships::find_standing(tx, id, identity, session).await?;
        if let Some(found) = &found {
            self.tenants.insert(id, Entry { value: found.tenant.clone(), loaded_at });
            if let Some(role) = found.role {
                self.roles.insert((id, identity), Entry { value: role, loaded_at });
            }
            let lives = session.filter(|_| found.session_lives);
            if let Some(session) = lives {
                self.sessions.insert(session, Entry { value: identity, loaded_at });
            }
            // A notification may have arrived between the load and the insertion, so the entry may be stale.
            if self.heard.generation.load(Ordering::Acquire) != generation {
                self.tenants.invalidate(&id);
                self.roles.invalidate(&(id, identity));
                if let Some(session) = lives {
                    self.sessions.invalidate(&session);
                }
            }
        }
        Ok(found)
    }

    /// Notifies of a new baseline: the number increases with each.
    pub(crate) fn baseline_changes(&self) -> watch::Receiver<u64> {
        self.heard.baseline.subscribe()
    }

    /// Notifies of a new key to seal contexts with.
    pub(crate) fn key_changes(&self) -> watch::Receiver<u64> {
        self.heard.keys.subscribe()
    }

    /// Notifies of messages that are to be sent.
    pub(crate) fn mail_changes(&self) -> watch::Receiver<u64> {
        self.heard.mail.subscribe()
    }

    /// Listens until the task is dropped; reconnects if necessary.
    pub(crate) async fn listen(self, target: Arc<Target>, pooler: Pooler) {
        let mut pause = Duration::from_millis(100);
        let trouble = Trouble::default();
        loop {
            let started = Instant::now();
            if pooler.is_direct(&target).await.is_ok_and(|direct| !direct) {
                return self.look_often().await;
            }
            let lost = self.listen_once(&target, &trouble).await;
            trouble.note(&lost, DEAF);
            self.heard.freshness.note_deaf();
            if started.elapsed() > Duration::from_secs(10) {
                pause = Duration::from_millis(100);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Polls where LISTEN is not possible: behind a pooler, the LISTEN would belong to a session shared with
    /// other clients. There, cached entries are valid for half a second, and whatever is kept for longer is
    /// polled for.
    async fn look_often(&self) {
        tracing::info!(
            "DATABASE_URL leads to a pooler, where changes cannot be listened for; \
             DATABASE_LISTEN_URL, to PostgreSQL itself, would spare a query each half second"
        );
        let trouble = Trouble::default();
        loop {
            let looked = self.look_for_changes().await;
            trouble.note(&looked, BLIND);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Polls once for changes of the baseline and the keys since the latest poll, and notifies their
    /// followers. Messages are looked for each second anyway.
    pub(crate) async fn look_for_changes(&self) -> Result<()> {
        let context = OperatorContext::system("look for changes");
        let marks = async { changes::read(CatalogTx::new(&self.pool, &context).await?).await };
        let marks = marks.await.inspect_err(|error| {
            // The key that sealed this query may have retired before it was replaced here.
            if error.kind() == ErrorKind::Setup {
                self.heard.keys.send_modify(|n| *n += 1);
            }
        })?;
        self.heard.note_marks(marks);
        Ok(())
    }

    async fn listen_once(&self, target: &Target, trouble: &Trouble) -> Result<Infallible> {
        let connected = target.config.connect(target.tls.clone()).await;
        let (client, mut connection) = connected.map_err(|cause| target.cannot_connect(cause))?;
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        let (sender, mut inbox) = tokio::sync::mpsc::channel(UNHEARD_MAX);
        let pump = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                // If the queue is full, the listener reconnects, which discards all entries.
                if sender.try_send(message).is_err() {
                    break;
                }
            }
        });
        let _stop_pump_with_us = BackgroundTask(pump);
        client.batch_execute("LISTEN freehold; LISTEN freehold_cache").await?;
        trouble.note::<_, Error>(&Ok(()), DEAF);
        // Changes may have been missed while the listener was disconnected.
        self.forget_all();
        loop {
            let asked_at = Instant::now();
            let beat = tokio::time::timeout(DEAF_MAX, client.check_connection()).await;
            beat.map_err(|_| Error::new(ErrorKind::Unavailable, "the listener got no answer"))??;
            while let Ok(message) = inbox.try_recv() {
                self.hear(&message?);
            }
            self.heard.freshness.note_heard(asked_at);
            let next_beat = tokio::time::sleep(HEARTBEAT);
            tokio::pin!(next_beat);
            loop {
                tokio::select! {
                    () = &mut next_beat => break,
                    message = inbox.recv() => match message {
                        Some(message) => self.hear(&message?),
                        None => return Err(Error::new(ErrorKind::Unavailable, "the connection was closed")),
                    },
                }
            }
        }
    }

    fn hear(&self, message: &AsyncMessage) {
        let AsyncMessage::Notification(notification) = message else { return };
        if notification.channel() == "freehold_cache" {
            return self.cache.hear(notification.payload());
        }
        self.heard.generation.fetch_add(1, Ordering::AcqRel);
        let mut parts = notification.payload().split(':');
        let kind = parts.next();
        let ids: Vec<Uuid> = parts.filter_map(|part| part.parse().ok()).collect();
        match (kind, ids.as_slice()) {
            (Some("tenant"), [tenant]) => {
                self.tenants.invalidate(&TenantId::from(*tenant));
                self.cache.evict(TenantId::from(*tenant));
            }
            (Some("member"), [tenant, identity]) => {
                self.roles.invalidate(&(TenantId::from(*tenant), IdentityId::from(*identity)));
            }
            (Some("session"), [session]) => self.sessions.invalidate(session),
            // Rare: a person was disabled or enabled.
            (Some("identity"), [_]) => self.roles.invalidate_all(),
            (Some("mail"), []) => self.heard.mail.send_modify(|n| *n += 1),
            (Some("baseline"), []) => self.heard.baseline.send_modify(|n| *n += 1),
            (Some("seal_key"), []) => self.heard.keys.send_modify(|n| *n += 1),
            _ => self.forget_all(),
        }
    }

    fn forget_all(&self) {
        self.heard.generation.fetch_add(1, Ordering::AcqRel);
        self.tenants.invalidate_all();
        self.roles.invalidate_all();
        self.sessions.invalidate_all();
        self.cache.forget_all();
        self.heard.baseline.send_modify(|n| *n += 1);
        self.heard.keys.send_modify(|n| *n += 1);
        self.heard.mail.send_modify(|n| *n += 1);
    }
}

fn no_such_tenant() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such tenant")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_follow_something_are_told_when_it_has_changed_and_not_at_every_look() {
        let heard = Heard::new(Arc::default());
        let (mut baseline, mut keys) = (heard.baseline.subscribe(), heard.keys.subscribe());
        let mut told = |baseline_mark: &str, key: &str| {
            let (baseline_mark, newest_key) = (baseline_mark.to_owned(), key.to_owned());
            heard.note_marks(ChangeMarks { baseline: baseline_mark, newest_key });
            [&mut baseline, &mut keys].map(|changes| {
                let has_changed = changes.has_changed().unwrap();
                changes.mark_unchanged();
                has_changed
            })
        };
        assert_eq!(told("one", "1"), [true, true], "it may have changed before the first look");
        assert_eq!(told("one", "1"), [false, false]);
        assert_eq!(told("two", "1"), [true, false]);
        assert_eq!(told("two", "2"), [false, true]);
        assert_eq!(told("one", "1"), [true, true], "back is a change too");
        assert_eq!(told("one", "1"), [false, false]);
        assert!(!heard.mail.subscribe().has_changed().unwrap());
    }
}
