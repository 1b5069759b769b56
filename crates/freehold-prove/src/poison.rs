//! Poisoned sessions: one tenant's SQL changes what it can in its session, the transaction ends in various
//! ways, and another tenant checks what it finds there.

use freehold::{Error, Freehold, Role, TenantContext};
use serde::Deserialize;
use tokio_postgres::Client;

use crate::Failure;
use crate::ground::{BaselineCode, Resident, identity};
use crate::mint::{Mint, bearer};
use crate::session::{LOOK, SEED, Session};
use crate::wire::{self, Answer, Wire};
use crate::worker::{Ask, End, Worker};

const WHAT: &str = "what a tenant's SQL leaves on a session";

const RUN: &str = "SELECT run($1)";
const CALL: &str = "CALL call_run($1)";
const INSERT: &str = "INSERT INTO poisoned (body, sql, late) VALUES ($1, $2, $3) RETURNING pid";

/// Settings, each set for the rest of the session; `{mark}` is the tenant's.
const SETTINGS: [(&str, &str); 32] = [
    ("prove.note", "{mark}"),
    ("prove.note", "{mark}"),
    ("application_name", "{mark}"),
    ("array_nulls", "off"),
    ("bytea_output", "escape"),
    ("client_encoding", "LATIN1"),
    ("client_min_messages", "debug5"),
    ("DateStyle", "German"),
    ("default_transaction_deferrable", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "on"),
    ("enable_indexscan", "off"),
    ("extra_float_digits", "-15"),
    ("gin_fuzzy_search_limit", "1"),
    ("idle_in_transaction_session_timeout", "1"),
    ("idle_session_timeout", "1"),
    ("IntervalStyle", "iso_8601"),
    ("lock_timeout", "1"),
    ("plan_cache_mode", "force_custom_plan"),
    ("role", "none"),
    ("role", "freehold_viewer"),
    ("role", "freehold_owner"),
    ("row_security", "off"),
    ("search_path", "pg_temp"),
    ("session_authorization", "freehold_app"),
    ("standard_conforming_strings", "off"),
    ("statement_timeout", "1"),
    ("TimeZone", "Asia/Tokyo"),
    ("transform_null_equals", "on"),
    ("work_mem", "64"),
    ("xmlbinary", "hex"),
    ("xmloption", "document"),
];

/// Other changes that the caller's privileges permit.
const OTHERS: [&str; 10] = [
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
    "SET SESSION AUTHORIZATION freehold_app",
    "SET ROLE freehold_admin",
    "RESET ROLE",
    "RESET ALL",
    "DEALLOCATE ALL",
    "DISCARD SEQUENCES",
    "NOTIFY freehold, '{mark}'",
    // Where `init` had no superuser.
    "SELECT pg_try_advisory_lock(7)",
    "SELECT pg_try_advisory_lock_shared(8)",
];

const CHANNEL: &str = "LISTEN \"of {mark}\"";

const CURSORS: [&str; 2] = [
    "DECLARE held CURSOR WITH HOLD FOR SELECT body FROM canaries",
    "DECLARE \"of {mark}\" CURSOR WITH HOLD FOR SELECT 1",
];

/// Changes that a helper function with the owner's rights permits. The first would hide the real table if
/// temporary ones were found first.
const TEMPORARY: [&str; 2] = [
    "CREATE TEMP TABLE canaries AS SELECT gen_random_uuid() AS id, 1 AS no, 0 AS tag, '{mark}' AS body, '{mark}' AS note",
    "CREATE TEMP TABLE \"of {mark}\" (body text)",
];

/// Also by a helper with the owner's rights. Several sessions can hold them.
const SESSION_LOCKS: [&str; 2] =
    ["SELECT pg_try_advisory_lock(9)", "SELECT pg_advisory_lock_shared(10)"];

/// How the transaction that left something ends.
#[derive(Clone, Copy)]
enum Ending {
    Alone,
    Committed,
    CommittedInOneFlush,
    Pipelined,
    PipelinedEach,
    Called,
    AtItsCommit,
    RolledBack,
    Dropped,
    Failed,
    Read,
}

const ENDINGS: [Ending; 11] = [
    Ending::Alone,
    Ending::Committed,
    Ending::CommittedInOneFlush,
    Ending::Pipelined,
    Ending::PipelinedEach,
    Ending::Called,
    Ending::AtItsCommit,
    Ending::RolledBack,
    Ending::Dropped,
    Ending::Failed,
    Ending::Read,
];

/// The state of untouched sessions.
pub(crate) struct Clean {
    services: Vec<Session>,
    handles: Vec<Session>,
    /// The numbers of `random()` with the known seed.
    random: Vec<f64>,
}

/// A row of the view, or what of it a row of `poisoned` has.
#[derive(Deserialize)]
struct Row {
    pid: i32,
    #[serde(default)]
    seen: String,
}

impl Clean {
    /// Records the state of a session of each service and handle, before the run.
    pub(crate) async fn look(
        services: &[std::net::SocketAddr],
        handles: &[Freehold],
        resident: &Resident,
        mint: &Mint,
        observer: &Client,
    ) -> Result<Clean, Failure> {
        let person = resident.people.of(Role::Member);
        let token = bearer(&mint.token(person, Some(resident.id), Role::Member));
        let read = |seen: &str| {
            Session::read(seen, &resident.id.schema()).ok_or("a session cannot be looked at")
        };
        let mut clean = Clean { services: Vec::new(), handles: Vec::new(), random: Vec::new() };
        for address in services {
            let answer = Wire::to(*address).send(&look_request(&token)).await?;
            let row = row_of(&answer).ok_or("a service shows no session")?;
            clean.services.push(read(&row.seen)?);
        }
        for handle in handles {
            let context = handle.tenant_context(resident.id, identity(person)).await?;
            let rows = handle.query(&context, LOOK, &[]).await?;
            clean.handles.push(read(rows[0].get(1))?);
        }
        observer.batch_execute(SEED).await?;
        let random = "SELECT random() FROM generate_series(1, 8)";
        let rows = observer.query(random, &[]).await?;
        clean.random.extend(rows.iter().map(|row| row.get::<_, f64>(0)));
        Ok(clean)
    }
}

fn look_request(authorization: &str) -> Vec<u8> {
    wire::request("GET", "/v1/data/session_now", authorization, "")
}

fn row_of(answer: &Answer) -> Option<Row> {
    serde_json::from_slice::<Vec<Row>>(answer.body()).ok()?.pop()
}

impl Worker {
    pub(crate) async fn http_poisoned(&mut self, ask: &Ask) {
        let (body, late) = (self.resident(ask).mark.text.clone(), self.dice.percent(30));
        let sql = match self.choose_poison(&body) {
            (sql, true) => format!("SELECT run_as_owner($q${sql}$q$)"),
            (sql, false) => sql,
        };
        let service = self.dice.below(self.wires.len());
        let row = serde_json::json!({ "body": body, "sql": sql, "late": late }).to_string();
        let prefer = format!("{}Prefer: return=representation\r\n", self.authorization(ask));
        let request = wire::request("POST", "/v1/data/poisoned", &prefer, &row);
        // Its outcome does not matter: some poisons end their own transaction.
        let Some(answer) = self.exchange_with(ask, service, &request).await else { return };
        if answer.code() == "tenant_suspended" {
            return self.refused(ask, &answer);
        }
        let left_on = row_of(&answer).map(|row| row.pid);

        let ask = &self.next_tenant(ask);
        let request = look_request(&self.authorization(ask));
        let Some(answer) = self.exchange_with(ask, service, &request).await else { return };
        match row_of(&answer) {
            Some(row) if answer.is_success() => {
                let clean = |clean: &Clean| clean.services[service].clone();
                self.judge_session(ask, &sql, left_on, &row, clean);
            }
            _ => self.refused(ask, &answer),
        }
    }

    pub(crate) async fn library_poisoned(&mut self, ask: &Ask) {
        let mark = self.resident(ask).mark.text.clone();
        let (poison, as_owner) = self.choose_poison(&mark);
        let sql = match as_owner {
            true => format!("SELECT run_as_owner($q${poison}$q$)"),
            false => poison,
        };
        let ending = *self.dice.pick(&ENDINGS);
        // Most often a handle with a single session, which the next tenant must then use.
        let number = if self.dice.percent(60) { 0 } else { self.handle_number() };
        let handle = self.run.ground.handles[number].clone();
        let Some(context) = self.context(ask, &handle).await else { return };
        let left_on = match leave(&handle, &context, ending, &sql, &mark).await {
            Ok(pid) => pid,
            Err(error) => {
                self.look_through(ask, error.message().as_bytes());
                None
            }
        };
        let ask = &self.next_tenant(ask);
        let Some(context) = self.context(ask, &handle).await else { return };
        match handle.query(&context, LOOK, &[]).await {
            Ok(rows) => {
                let row = Row { pid: rows[0].get(0), seen: rows[0].get(1) };
                self.look_through(ask, row.seen.as_bytes());
                let clean = |clean: &Clean| clean.handles[number].clone();
                self.judge_session(ask, &sql, left_on, &row, clean);
            }
            Err(error) => self.failed(ask, &error),
        }
    }

    /// A statement that leaves something, and whether it needs the owner's rights.
    fn choose_poison(&mut self, mark: &str) -> (String, bool) {
        let which = match self.run.ground.conditions.baseline {
            BaselineCode::ExecutesText => self.dice.below(9),
            BaselineCode::ChangesSettings => *self.dice.pick(&[0, 1, 2, 6]),
        };
        let sql = match which {
            0..=2 => {
                let (name, value) = self.dice.pick(&SETTINGS);
                // Without an E or a backslash, since one of the settings changes how quotes are read.
                format!("SELECT set_config('{name}', '{value}', false)")
            }
            3 => (*self.dice.pick(&OTHERS)).to_owned(),
            4 => CHANNEL.to_owned(),
            5 => (*self.dice.pick(&CURSORS)).to_owned(),
            6 => SEED.to_owned(),
            7 => (*self.dice.pick(&TEMPORARY)).to_owned(),
            _ => (*self.dice.pick(&SESSION_LOCKS)).to_owned(),
        };
        (sql.replace("{mark}", mark), which > 6)
    }

    /// The same operation goes on as a member of another tenant.
    fn next_tenant(&mut self, ask: &Ask) -> Ask {
        let other = self.other(ask);
        self.ask_of(ask, other).by(Role::Member)
    }

    /// It counts as an attempt if the session is known to be the poisoned one; deviations on other sessions
    /// are reported as well.
    fn judge_session(
        &mut self,
        ask: &Ask,
        sql: &str,
        left_on: Option<i32>,
        row: &Row,
        clean: impl Fn(&Clean) -> Session,
    ) {
        let ground = &self.run.ground;
        let session = Session::read(&row.seen, &ground.residents[ask.tenant].id.schema());
        let found = match session {
            Some(session) => session.differs(&clean(&ground.clean), &ground.clean.random),
            None => Some("it cannot be read".to_owned()),
        };
        match found {
            Some(words) => {
                let words = format!("after {sql}, or another's before it: {words}");
                self.attempted(ask, WHAT, End::Served, &words);
            }
            None if left_on == Some(row.pid) => self.attempted(ask, WHAT, End::Refused, ""),
            None => self.served(ask),
        }
    }
}

/// The session on which it was left, if known.
async fn leave(
    handle: &Freehold,
    by: &TenantContext,
    ending: Ending,
    sql: &str,
    mark: &str,
) -> Result<Option<i32>, Error> {
    const WHERE: &str = "SELECT pg_backend_pid()";
    let first = |rows: &[freehold::Row]| rows.first().and_then(|row| row.try_get(0).ok());
    match ending {
        Ending::Alone => Ok(first(&handle.query(by, RUN, &[&sql]).await?)),
        Ending::Pipelined => {
            let answers = handle.pipeline(by, &[(WHERE, &[]), (RUN, &[&sql])]).await;
            Ok(first(&answers.map_err(freehold::PipelineError::into_error)?[0].rows))
        }
        Ending::PipelinedEach | Ending::Called => {
            let run = if matches!(ending, Ending::Called) { CALL } else { RUN };
            let mut answers = handle.pipeline_each(by, &[(WHERE, &[]), (run, &[&sql])]).await?;
            Ok(first(&answers.swap_remove(0)?.rows))
        }
        Ending::Read => {
            let mut tx = handle.begin_read(by, None).await?;
            Ok(first(&tx.query_and_end(RUN, &[&sql]).await?))
        }
        _ => {
            let mut tx = handle.begin(by).await?;
            let pid = first(&tx.query(WHERE, &[]).await?);
            // From here on an error is one of the endings.
            match ending {
                Ending::CommittedInOneFlush => drop(tx.query_and_commit(RUN, &[&sql]).await),
                Ending::AtItsCommit => {
                    let _ = tx.query(INSERT, &[&mark, &sql, &true]).await;
                    let _ = tx.commit().await;
                }
                Ending::Failed => drop(tx.query("SELECT run($1), 1 / 0", &[&sql]).await),
                Ending::RolledBack => {
                    let _ = tx.query(RUN, &[&sql]).await;
                    let _ = tx.rollback().await;
                }
                Ending::Dropped => drop(tx.query(RUN, &[&sql]).await),
                _ => {
                    let _ = tx.query(RUN, &[&sql]).await;
                    let _ = tx.commit().await;
                }
            }
            Ok(pid)
        }
    }
}
