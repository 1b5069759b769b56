//! A worker: performs one operation after another and checks each answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use freehold::{Error, Freehold, Role, TenantContext};

use crate::Run;
use crate::dice::Dice;
use crate::gate::{Expect, Look};
use crate::ground::{Resident, identity};
use crate::ledger::Ledger;
use crate::mint::bearer;
use crate::mix::Kind;
use crate::tally::Tally;
use crate::wire::{self, Answer, Wire};

/// Codes of errors with which a sound system answers while its sessions are ended, its queries cancelled, its
/// tables migrated and its pools full. Such an operation is counted and proves nothing.
const DISTURBED: [&str; 8] = [
    "retryable_conflict",
    "database_unavailable",
    "unavailable",
    "timeout",
    "pool_exhausted",
    "write_conflict",
    "schema_behind",
    "overloaded",
];

pub(crate) const SUSPENDED: &str = "a suspended tenant's requests";

/// Rows that were sent in a dropped request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) tenant: usize,
    /// Its success was confirmed before the request was dropped.
    pub(crate) acknowledged: bool,
}

/// What a worker knows at the end, for the audit.
pub(crate) struct Book {
    pub(crate) worker: i32,
    /// By tenant.
    pub(crate) ledgers: Vec<Ledger>,
    /// By number.
    pub(crate) batches: Vec<Batch>,
}

pub(crate) struct Worker {
    pub(crate) run: Arc<Run>,
    /// From 1 on; its rows contain it.
    pub(crate) number: i32,
    pub(crate) dice: Dice,
    pub(crate) tally: Tally,
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) batches: Vec<Batch>,
    /// One per service.
    pub(crate) wires: Vec<Wire>,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    number: u64,
    pub(crate) tenant: usize,
    pub(crate) role: Role,
    look: Look,
}

impl Worker {
    pub(crate) fn new(run: Arc<Run>, number: usize) -> Worker {
        let ground = &run.ground;
        let ledgers = vec![Ledger::default(); ground.residents.len()];
        let wires = ground.services.iter().map(|address| Wire::to(*address)).collect();
        Worker {
            // Stream 0 created the tenants.
            dice: Dice::new(run.settings.seed, 1 + number as u64),
            number: 1 + i32::try_from(number).expect("there are not that many workers"),
            tally: Tally::default(),
            ledgers,
            batches: Vec::new(),
            wires,
            run,
        }
    }

    /// Until the run is over.
    pub(crate) async fn work(mut self) -> (Tally, Book) {
        let run = Arc::clone(&self.run);
        while let Some(number) = run.take() {
            let kind = Kind::choose(&mut self.dice);
            let tenant = self.dice.below(run.ground.residents.len());
            let role = *self.dice.pick(&[Role::Viewer, Role::Member, Role::Admin, Role::Owner]);
            let look = run.ground.residents[tenant].gate.look();
            self.tally.share(kind).operations += 1;
            self.perform(Ask { kind, number, tenant, role, look }).await;
        }
        let book = Book { worker: self.number, ledgers: self.ledgers, batches: self.batches };
        (self.tally, book)
    }

    async fn perform(&mut self, ask: Ask) {
        match ask.kind {
            Kind::HttpRow => self.http_row(&ask).await,
            Kind::HttpPage => self.http_page(&ask).await,
            Kind::HttpFilter => self.http_filter(&ask).await,
            Kind::HttpJoin => self.http_join(&ask).await,
            Kind::HttpLedger => self.http_ledger(&ask).await,
            Kind::HttpUpsert => self.http_upsert(&ask.writing()).await,
            Kind::HttpUpdate => self.http_update(&ask.writing()).await,
            Kind::HttpDelete => self.http_delete(&ask.writing()).await,
            Kind::HttpDropped => self.http_dropped(&ask.writing()).await,
            Kind::HttpForgedToken => self.http_forged_token(&ask).await,
            Kind::HttpOtherTenantNamed => self.http_other_tenant_named(&ask).await,
            Kind::HttpOtherTenantsIds => self.http_other_tenants_ids(&ask.writing()).await,
            Kind::HttpViewerWrites => self.http_viewer_writes(&ask).await,
            Kind::HttpRoleClaimed => self.http_role_claimed(&ask).await,
            Kind::HttpRoleChanged => self.http_role_changed(&ask).await,
            Kind::HttpPoisoned => self.http_poisoned(&ask.writing()).await,
            Kind::LibraryRow => self.library_row(&ask).await,
            Kind::LibraryPage => self.library_page(&ask).await,
            Kind::LibraryTotals => self.library_totals(&ask).await,
            Kind::LibraryJoin => self.library_join(&ask).await,
            Kind::LibraryLedger => self.library_ledger(&ask).await,
            Kind::LibraryTransaction => self.library_transaction(&ask.writing()).await,
            Kind::LibraryDropped => self.library_dropped(&ask.writing()).await,
            Kind::LibraryTimedOut => self.library_timed_out(&ask.writing()).await,
            Kind::LibraryViewerWrites => self.library_viewer_writes(&ask).await,
            Kind::LibraryCrossRead => self.library_cross_read(&ask).await,
            Kind::LibraryCrossWrite => self.library_cross_write(&ask.writing()).await,
            Kind::LibraryPoisoned => self.library_poisoned(&ask.writing()).await,
            Kind::LibraryInjected => self.library_injected(&ask.writing()).await,
            Kind::LibraryHelper => self.library_helper(&ask).await,
        }
    }

    pub(crate) fn resident(&self, ask: &Ask) -> &Resident {
        &self.run.ground.residents[ask.tenant]
    }

    /// The same operation by the same role in another tenant.
    pub(crate) fn ask_of(&self, ask: &Ask, tenant: usize) -> Ask {
        Ask { tenant, look: self.run.ground.residents[tenant].gate.look(), ..*ask }
    }

    /// A tenant other than the one that asks.
    pub(crate) fn other(&mut self, ask: &Ask) -> usize {
        let count = self.run.ground.residents.len();
        (ask.tenant + self.dice.between(1, count - 1)) % count
    }

    /// The header with the token of the caller.
    pub(crate) fn authorization(&self, ask: &Ask) -> String {
        let resident = self.resident(ask);
        let person = resident.people.of(ask.role);
        bearer(&self.run.ground.mint.token(person, Some(resident.id), ask.role))
    }

    /// Sends a request to one of the services, and searches the whole answer. `None` if there was none, which
    /// is a fault.
    pub(crate) async fn exchange(&mut self, ask: &Ask, request: &[u8]) -> Option<Answer> {
        let service = self.dice.below(self.wires.len());
        self.exchange_with(ask, service, request).await
    }

    /// The same with a given service.
    pub(crate) async fn exchange_with(
        &mut self,
        ask: &Ask,
        service: usize,
        request: &[u8],
    ) -> Option<Answer> {
        match self.wires[service].send(request).await {
            Ok(answer) => {
                self.look_through(ask, &answer.bytes);
                Some(answer)
            }
            Err(error) => {
                self.fault(ask, &format!("no answer came: {error}"));
                None
            }
        }
    }

    /// As a member of the asking tenant.
    pub(crate) async fn http(
        &mut self,
        ask: &Ask,
        method: &str,
        path: &str,
        prefer: &str,
        body: &str,
    ) -> Option<Answer> {
        let prefer =
            if prefer.is_empty() { String::new() } else { format!("Prefer: {prefer}\r\n") };
        let headers = self.authorization(ask) + &prefer;
        self.exchange(ask, &wire::request(method, path, &headers, body)).await
    }

    /// One of the handles of the library, those with tiny pools less often.
    pub(crate) fn handle(&mut self) -> Freehold {
        let number = self.handle_number();
        self.run.ground.handles[number].clone()
    }

    pub(crate) fn handle_number(&mut self) -> usize {
        let which = match self.dice.below(10) {
            0 | 1 => 0,
            2..=4 => 1,
            _ => 2,
        };
        which.min(self.run.ground.handles.len() - 1)
    }

    /// Resolved again each time, as for a request. `None` if there is no context, which has been judged then.
    pub(crate) async fn context(&mut self, ask: &Ask, handle: &Freehold) -> Option<TenantContext> {
        let resident = self.resident(ask);
        let person = identity(resident.people.of(ask.role));
        match handle.tenant_context(resident.id, person).await {
            Ok(context) => Some(context),
            Err(error) => {
                self.failed(ask, &error);
                None
            }
        }
    }

    /// Searches any bytes that a tenant received; returns the number of its own marks in them.
    pub(crate) fn look_through(&mut self, ask: &Ask, bytes: &[u8]) -> usize {
        self.tally.bytes += bytes.len() as u64;
        let sight = self.run.ground.watch.look(ask.tenant, bytes);
        if let Some((owner, trace)) = sight.foreign {
            let answer = String::from_utf8_lossy(bytes);
            let words = format!("{} of tenant {owner} is in the answer: {answer}", trace.name());
            self.leak(ask, &words);
        }
        sight.own_marks
    }

    /// Something of another tenant was seen, changed or created.
    pub(crate) fn leak(&self, ask: &Ask, words: &str) {
        self.run.findings.leak(&ask.kind.label(), &format!("{}: {words}", ask.label()));
    }

    pub(crate) fn fault(&self, ask: &Ask, words: &str) {
        self.run.findings.fault(&ask.kind.label(), &format!("{}: {words}", ask.label()));
    }

    /// The operation succeeded, and its answer was checked.
    pub(crate) fn served(&mut self, ask: &Ask) {
        self.tally.share(ask.kind).checked += 1;
        if self.resident(ask).gate.expect(&ask.look) == Expect::Closed {
            self.tally.attempt(SUSPENDED, false);
            self.leak(ask, "the tenant was suspended more than a second before, and was served");
        }
    }

    /// An attempt that the tenant must not make was answered. `words` describe the attempt and the answer.
    pub(crate) fn attempted(&mut self, ask: &Ask, what: &'static str, end: End, words: &str) {
        self.tally.share(ask.kind).checked += 1;
        self.tally.attempt(what, end == End::Refused);
        match end {
            End::Refused => {}
            End::RefusedOtherwise => {
                self.fault(ask, &format!("{what}: refused, but not as it must be: {words}"));
            }
            End::Served => self.leak(ask, &format!("{what}: not refused: {words}")),
        }
    }

    /// Whether an error has nothing to do with the operation: the tenant was suspended, or the database
    /// disturbed. If so, counts it.
    pub(crate) fn is_beside_the_point(&mut self, ask: &Ask, code: &str) -> bool {
        if code == "tenant_suspended" {
            self.tally.share(ask.kind).checked += 1;
            match self.resident(ask).gate.expect(&ask.look) {
                Expect::Closed => self.tally.attempt(SUSPENDED, true),
                Expect::Either => {}
                Expect::Open => self.fault(ask, "refused as suspended, which the tenant is not"),
            }
            return true;
        }
        if DISTURBED.contains(&code) {
            self.tally.share(ask.kind).disturbed += 1;
            self.tally.error(code);
            return true;
        }
        false
    }

    /// The operation was permitted, and failed.
    pub(crate) fn failed(&mut self, ask: &Ask, error: &Error) {
        let (code, words) = (error.kind().code(), error.to_string());
        self.look_through(ask, words.as_bytes());
        if !self.is_beside_the_point(ask, code) {
            self.fault(ask, &format!("unexpected {code}: {words}"));
        }
    }

    /// The same over HTTP.
    pub(crate) fn refused(&mut self, ask: &Ask, answer: &Answer) {
        let code = answer.code();
        if !self.is_beside_the_point(ask, &code) {
            let body = String::from_utf8_lossy(answer.body());
            self.fault(ask, &format!("unexpected status {}: {body}", answer.status));
        }
    }

    pub(crate) fn cancelled(&mut self, ask: &Ask) {
        self.tally.share(ask.kind).cancelled += 1;
        self.run.cancelled.fetch_add(1, Ordering::Relaxed);
    }
}

/// The outcome of an attempt that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Refused,
    /// By another rule than the one that was tested.
    RefusedOtherwise,
    Served,
}

impl Ask {
    /// By a person who may write.
    pub(crate) fn writing(self) -> Ask {
        match self.role {
            Role::Viewer => self.by(Role::Member),
            _ => self,
        }
    }

    pub(crate) fn by(self, role: Role) -> Ask {
        Ask { role, ..self }
    }

    fn label(&self) -> String {
        format!("operation {} of tenant {} as {}", self.number, self.tenant, self.role.as_str())
    }
}
