//! Clients of several tenants that read and write, record acknowledged writes, and search every answer for
//! data of other tenants.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::balanced::Client;
use crate::process::token;

/// Longer than a server lets a request take (`REQUEST_TIMEOUT_MS`), so that its answer arrives.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Tokens are good for ten minutes.
const TOKEN_RENEWED: Duration = Duration::from_secs(60);
/// The pause of a client after a failed request.
const BREATH: Duration = Duration::from_millis(50);
/// Enough to diagnose a failure.
const SAMPLES_MAX: usize = 20;

/// A tenant, with the mark that is in each of its rows and in no other's.
#[derive(Clone)]
pub(super) struct Resident {
    pub(super) tenant: Uuid,
    pub(super) owner: Uuid,
    pub(super) schema: String,
    pub(super) mark: String,
}

impl Resident {
    pub(super) fn new(tenant: Uuid, owner: Uuid, schema: String) -> Resident {
        let mark = format!("canary-{}", Uuid::new_v4().simple());
        Resident { tenant, owner, schema, mark }
    }

    pub(super) fn token(&self) -> String {
        token(self.owner, Some(self.tenant), "owner")
    }
}

/// A request that came to its end.
pub(super) struct Event {
    pub(super) client: usize,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) is_write: bool,
    /// The kind of failure; `None` if it succeeded.
    pub(super) failure: Option<String>,
}

/// A row that a client sent.
pub(super) struct Row {
    pub(super) is_acknowledged: bool,
    /// The values that it may have: the last acknowledged one, and those whose answer never came.
    pub(super) cities: Vec<String>,
}

/// What a client of a tenant sent, by e-mail.
pub(super) type Sent = HashMap<String, Row>;

#[derive(Default)]
struct Shared {
    events: Mutex<Vec<Event>>,
    foreign: Mutex<Vec<String>>,
    lost: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

pub(super) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<(usize, Sent)>>,
}

/// The state of the data.
#[derive(Default, serde::Serialize)]
pub(super) struct Verdict {
    /// Writes that were acknowledged.
    pub(super) acknowledged: u64,
    /// Those of them that are missing.
    pub(super) lost: u64,
    /// Rows, and parts of answers, of another tenant.
    pub(super) foreign: u64,
    /// Descriptions of the first lost or foreign rows.
    pub(super) samples: Vec<String>,
}

impl Load {
    pub(super) fn start(port: u16, residents: &[Resident], clients: usize) -> Load {
        let shared = Arc::new(Shared::default());
        let residents: Arc<[Resident]> = residents.into();
        let clients = (0..clients)
            .map(|number| {
                let of = number % residents.len();
                let worker = Worker {
                    number,
                    of,
                    client: Client::new(port, residents[of].token()),
                    residents: Arc::clone(&residents),
                    shared: Arc::clone(&shared),
                    sent: Sent::new(),
                };
                thread::spawn(move || (of, worker.work()))
            })
            .collect();
        Load { shared, clients }
    }

    /// How many requests have ended: the position at which to look for later ones.
    pub(super) fn now(&self) -> usize {
        self.shared.events.lock().unwrap().len()
    }

    /// Looks at the requests that ended since.
    pub(super) fn since<T>(&self, mark: usize, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&self.shared.events.lock().unwrap()[mark..])
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Stops the load. Returns what each tenant's clients sent, and the faults that they saw.
    pub(super) fn stop(mut self) -> (BTreeMap<usize, Sent>, Verdict) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let mut sent = BTreeMap::<usize, Sent>::new();
        for client in self.clients.drain(..) {
            let (of, rows) = client.join().expect("a client came to a bad end");
            sent.entry(of).or_default().extend(rows);
        }
        let acknowledged = |event: &&Event| event.is_write && event.failure.is_none();
        let acknowledged = self.since(0, |events| events.iter().filter(acknowledged).count());
        let mut verdict = Verdict { acknowledged: acknowledged as u64, ..Verdict::default() };
        self.shared.lost.lock().unwrap().drain(..).for_each(|lost| verdict.add_lost(lost));
        self.shared.foreign.lock().unwrap().drain(..).for_each(|row| verdict.add_foreign(row));
        (sent, verdict)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Verdict {
    pub(super) fn add_lost(&mut self, what: String) {
        self.lost += 1;
        self.sample(format!("lost: {what}"));
    }

    pub(super) fn add_foreign(&mut self, what: String) {
        self.foreign += 1;
        self.sample(format!("foreign: {what}"));
    }

    fn sample(&mut self, what: String) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(what);
        }
    }
}

struct Worker {
    number: usize,
    /// Whose client it is.
    of: usize,
    client: Client,
    residents: Arc<[Resident]>,
    shared: Arc<Shared>,
    sent: Sent,
}

impl Worker {
    fn work(mut self) -> Sent {
        let mut token_of = Instant::now();
        let mut last = None;
        for n in 0u64.. {
            if self.shared.is_over.load(Ordering::Relaxed) {
                break;
            }
            if token_of.elapsed() > TOKEN_RENEWED {
                self.client.token = self.residents[self.of].token();
                token_of = Instant::now();
            }
            let page = "/v1/data/customers?order=created_at.desc&limit=20";
            match (n % 6, &last) {
                (0, _) => last = self.insert(n).or(last),
                (1, Some(email)) => self.update(n, &email.clone()),
                (2, Some(email)) => self.read_again(&email.clone()),
                (3, _) => drop(self.ask("GET", "/v1/me", "", "", 200)),
                (4, _) => drop(self.ask("GET", page, "Prefer: read=replica\r\n", "", 200)),
                // Of the cache, where Redis is.
                _ => drop(self.ask("GET", page, "Cache-Control: max-age=60\r\n", "", 200)),
            }
        }
        self.sent
    }

    fn insert(&mut self, n: u64) -> Option<String> {
        let mark = &self.residents[self.of].mark;
        let email = format!("c{}-{n}@{mark}.example", self.number);
        let city = "Ulm".to_owned();
        let row = json!({"email": email, "full_name": mark, "city": city, "country_code": "DE"});
        let answer = self.ask("POST", "/v1/data/customers", "", &row.to_string(), 201);
        let row = Row { is_acknowledged: answer.is_some(), cities: vec![city] };
        self.sent.insert(email.clone(), row);
        answer.map(|_| email)
    }

    fn update(&mut self, n: u64, email: &str) {
        let city = format!("Ulm {n}");
        let path = format!("/v1/data/customers?email=eq.{email}");
        let answer = self.ask("PATCH", &path, "", &json!({"city": city}).to_string(), 204);
        let row = self.sent.get_mut(email).expect("a row that was acknowledged was sent");
        if answer.is_some() {
            row.cities.clear();
        }
        row.cities.push(city);
    }

    /// Reads an acknowledged write back at once.
    fn read_again(&mut self, email: &str) {
        let path = format!("/v1/data/customers?select=city&email=eq.{email}");
        let Some(answer) = self.ask("GET", &path, "", "", 200) else { return };
        let rows: Value = serde_json::from_str(&answer).unwrap_or_default();
        let city = rows[0]["city"].as_str().unwrap_or_default();
        if !self.sent[email].cities.iter().any(|known| known == city) {
            self.shared.lost.lock().unwrap().push(format!("{email} was read as {answer}"));
        }
    }

    /// The body, if the answer is as expected.
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
        good: u16,
    ) -> Option<String> {
        let began = Instant::now();
        let answer = self.client.ask(method, path, headers, body);
        let (failure, body) = match answer {
            Ok((status, body)) => {
                self.look(&body);
                ((status != good).then(|| kind_of(status, &body)), body)
            }
            Err(error) => (Some(format!("connection: {}", error.kind())), String::new()),
        };
        let is_write = method != "GET";
        let (ended, failed) = (Instant::now(), failure.is_some());
        let event = Event { client: self.number, began, ended, is_write, failure };
        self.shared.events.lock().unwrap().push(event);
        if failed {
            thread::sleep(BREATH);
            return None;
        }
        Some(body)
    }

    fn look(&self, answer: &str) {
        let own = &self.residents[self.of];
        for (number, other) in self.residents.iter().enumerate() {
            let traces = [&other.mark, &other.schema, &other.tenant.to_string()];
            if number != self.of && traces.into_iter().any(|trace| answer.contains(trace.as_str()))
            {
                let what = format!("{} was answered {answer}", own.schema);
                self.shared.foreign.lock().unwrap().push(what);
            }
        }
    }
}

/// The problem's own code, or that the balancer answered.
fn kind_of(status: u16, body: &str) -> String {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    format!("{status} {}", problem["code"].as_str().unwrap_or("by the balancer"))
}
