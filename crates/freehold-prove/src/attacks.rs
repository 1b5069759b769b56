//! Attempts that must be refused: forged tokens, tenants, ids and schemas of others, and writes by viewers.

use freehold::{Error, ErrorKind, Freehold, Params, Role, Row, TenantContext};

use crate::gate::Expect;
use crate::ground::{CANARIES, identity};
use crate::inject::texts_of;
use crate::mint::{self, FORGERIES, NO_MEMBER};
use crate::wire::{self, Answer};
use crate::worker::{Ask, End, Worker};

/// The number of a row that does not exist in any tenant.
const NOBODYS: u64 = 999_999_999;

/// Statements that read another tenant's tables; `{other}` is its schema.
const CROSS_READS: [&str; 12] = [
    "SELECT id, body FROM {other}.canaries LIMIT 5",
    "SELECT count(*) FROM {other}.canaries",
    "SELECT own.body, foe.body FROM canaries AS own JOIN {other}.canaries AS foe ON foe.no = own.no",
    "SELECT body, canary_body FROM {other}.pages",
    "SELECT (SELECT body FROM {other}.canaries ORDER BY no LIMIT 1)",
    "SELECT 1 WHERE EXISTS (SELECT FROM {other}.canaries)",
    "SELECT body FROM canaries UNION ALL SELECT body FROM {other}.canaries",
    "WITH foe AS MATERIALIZED (SELECT * FROM {other}.canaries) SELECT body FROM foe",
    "SELECT coalesce((SELECT body FROM canaries WHERE no < 0), (SELECT max(body) FROM {other}.canaries))",
    // A tenant's claim begins with the schema's name.
    "SELECT body FROM {other}.canaries WHERE set_config('freehold.context', '{other}_00000000000000000000000000000007_owner', true) IS NOT NULL",
    "SELECT body FROM {other}.canaries WHERE set_config('backtrace_functions', '{other}_00000000000000000000000000000007_owner', true) IS NOT NULL",
    "SELECT freehold_guard.admit(repeat('0', 94) || '{other}_00000000000000000000000000000007_owner'), body FROM {other}.canaries",
];

/// Statements that write to another tenant's tables, or copy its rows. `{mark}` is the attacker's own.
const CROSS_WRITES: [&str; 10] = [
    "INSERT INTO {other}.dropped (worker, batch, part, tag, body) VALUES (-1, 0, 0, 0, '{mark}')",
    "INSERT INTO dropped (worker, batch, part, tag, body) SELECT -1, no, 0, tag, body FROM {other}.canaries",
    "UPDATE {other}.canaries SET note = '{mark} was here'",
    "UPDATE canaries SET note = foe.note FROM {other}.canaries AS foe WHERE foe.no = canaries.no",
    "DELETE FROM {other}.ledger",
    "INSERT INTO {other}.canaries (id, no, tag, body, note) VALUES (gen_random_uuid(), 1, 0, '{mark}', '{mark}')
     ON CONFLICT (no) DO UPDATE SET note = excluded.note",
    "INSERT INTO {other}.canaries (id, no, tag, body, note) VALUES (gen_random_uuid(), 1, 0, '{mark}', '{mark}')
     ON CONFLICT DO NOTHING",
    "MERGE INTO {other}.canaries AS foe USING canaries AS own ON foe.no = own.no
     WHEN MATCHED THEN UPDATE SET note = own.note",
    "MERGE INTO canaries AS own USING {other}.canaries AS foe ON foe.no = own.no
     WHEN MATCHED THEN UPDATE SET note = foe.note",
    "SELECT body FROM {other}.canaries FOR UPDATE",
];

/// Writes that a viewer attempts in its own tenant.
const VIEWERS_WRITES: [&str; 3] = [
    "UPDATE canaries SET note = note || ''",
    "DELETE FROM dropped",
    "INSERT INTO dropped (worker, batch, part, tag, body) VALUES (-1, 0, 0, 0, '')",
];

impl Worker {
    pub(crate) async fn http_forged_token(&mut self, ask: &Ask) {
        // Most often the attempt that only the catalog can refuse.
        let which = match self.dice.percent(30) {
            true => NO_MEMBER,
            false => self.dice.below(FORGERIES.len()),
        };
        let other = self.other(ask);
        let other = self.run.ground.residents[other].id;
        let resident = self.resident(ask);
        let person = (resident.people.of(ask.role), resident.id, ask.role);
        let forgery = self.run.ground.mint.forge(which, person, other);
        let request = wire::request("GET", "/v1/data/canaries?limit=5", &forgery.headers, "");
        let Some(answer) = self.exchange(ask, &request).await else { return };
        self.judge(ask, "forged or stale tokens", &answer, forgery.name, |answer| {
            answer.status == 401
        });
    }

    pub(crate) async fn http_other_tenant_named(&mut self, ask: &Ask) {
        let other = self.other(ask);
        let (own, other) = (self.resident(ask).id, self.run.ground.residents[other].id);
        let names = match self.dice.below(4) {
            0 => format!("X-Tenant-Id: {other}\r\n"),
            1 => format!("X-Tenant-Id: {own}\r\nX-Tenant-Id: {other}\r\n"),
            2 => format!("X-Tenant-Id: {other}\r\nx-tenant-id: {own}\r\n"),
            _ => format!("X-Tenant-Id: {own},{other}\r\n"),
        };
        let headers = self.authorization(ask) + &names;
        let request = wire::request("GET", "/v1/data/canaries?limit=5", &headers, "");
        let Some(answer) = self.exchange(ask, &request).await else { return };
        self.judge(ask, "another tenant named in a header", &answer, &names, |answer| {
            answer.status == 403 && answer.code() == "tenant_mismatch"
        });
    }

    /// The same request twice: with the id of another tenant's row, and with one that no row has. The answers
    /// must be equal byte for byte.
    pub(crate) async fn http_other_tenants_ids(&mut self, ask: &Ask) {
        const WHAT: &str = "another tenant's ids";
        let other = self.other(ask);
        let no = self.dice.between(1, CANARIES as usize) as u64;
        let theirs = self.run.ground.residents[other].mark.row_id(no);
        let nobodys = self.resident(ask).mark.row_id(NOBODYS);
        let form = self.dice.below(8);
        let mut shapes = Vec::new();
        for id in [theirs, nobodys] {
            let (method, query, prefer) = match form {
                0 => ("GET", format!("canaries?id=eq.{id}"), ""),
                1 => ("GET", format!("canaries?id=in.({id})&select=id"), "count=exact"),
                2 => ("GET", format!("canaries?or=(id.eq.{id},no.lt.0)&select=no"), ""),
                3 => ("GET", format!("pages?canary_id=eq.{id}&select=no,body"), "count=exact"),
                4 => ("PATCH", format!("canaries?id=eq.{id}"), "return=representation"),
                5 => ("DELETE", format!("canaries?id=eq.{id}"), "return=representation"),
                6 => ("DELETE", format!("ledger?canary_id=eq.{id}"), "count=exact"),
                _ => ("POST", "ledger".to_owned(), ""),
            };
            let body = match method {
                "PATCH" => r#"{"note":"changed"}"#.to_owned(),
                // A reference to another tenant's row must be answered like one to no row.
                "POST" => format!(
                    r#"{{"id":"{nobodys}","worker":-1,"no":0,"revision":0,"tag":0,"canary_id":"{id}","body":"{}"}}"#,
                    self.resident(ask).mark.text
                ),
                _ => String::new(),
            };
            let path = format!("/v1/data/{query}");
            let Some(answer) = self.http(ask, method, &path, prefer, &body).await else { return };
            if !answer.is_success() && self.is_beside_the_point(ask, &answer.code()) {
                return;
            }
            shapes.push(answer.shape());
        }
        let words = format!("{}\nand for an id of nobody's\n{}", shapes[0], shapes[1]);
        // A difference reveals that the row exists.
        let end = if shapes[0] == shapes[1] { End::Refused } else { End::Served };
        self.attempted(ask, WHAT, end, &words);
    }

    pub(crate) async fn http_viewer_writes(&mut self, ask: &Ask) {
        let answer = self.http_write_of_nothing(&ask.by(Role::Viewer)).await;
        let Some(answer) = answer else { return };
        self.judge(ask, "a viewer's writes", &answer, "", is_forbidden);
    }

    /// The token is signed by the service and says owner; the membership says viewer.
    pub(crate) async fn http_role_claimed(&mut self, ask: &Ask) {
        let resident = self.resident(ask);
        let viewer = resident.people.of(Role::Viewer);
        let token = self.run.ground.mint.token(viewer, Some(resident.id), Role::Owner);
        let Some(answer) = self.write_nothing(ask, &mint::bearer(&token)).await else { return };
        self.judge(ask, "a role claimed in the token", &answer, "", is_forbidden);
    }

    /// By a person whose role alternates between member and viewer.
    pub(crate) async fn http_role_changed(&mut self, ask: &Ask) {
        let resident = self.resident(ask);
        let look = resident.changing.look();
        let person = resident.people.changing;
        let token = self.run.ground.mint.token(person, Some(resident.id), Role::Member);
        let Some(answer) = self.write_nothing(ask, &mint::bearer(&token)).await else { return };
        match (self.resident(ask).changing.expect(&look), answer.is_success()) {
            (Expect::Closed, _) => {
                self.judge(ask, "a former member's writes", &answer, "", is_forbidden);
            }
            (_, true) => self.served(ask),
            (Expect::Either, false) if is_forbidden(&answer) => {
                self.tally.share(ask.kind).checked += 1;
            }
            (_, false) => self.refused(ask, &answer),
        }
    }

    async fn http_write_of_nothing(&mut self, ask: &Ask) -> Option<Answer> {
        let headers = self.authorization(ask);
        self.write_nothing(ask, &headers).await
    }

    /// A write that would affect no row if it were permitted.
    async fn write_nothing(&mut self, ask: &Ask, headers: &str) -> Option<Answer> {
        let (method, table) = *self.dice.pick(&[("PATCH", "canaries"), ("DELETE", "ledger")]);
        let path = format!("/v1/data/{table}?no=lt.-1");
        let body = if method == "PATCH" { r#"{"note":"changed"}"# } else { "" };
        self.exchange(ask, &wire::request(method, &path, headers, body)).await
    }

    fn judge(
        &mut self,
        ask: &Ask,
        what: &'static str,
        answer: &Answer,
        how: &str,
        caught: impl Fn(&Answer) -> bool,
    ) {
        if !answer.is_success() && self.is_beside_the_point(ask, &answer.code()) {
            return;
        }
        let body = String::from_utf8_lossy(answer.body());
        let words = format!("{how}: status {}: {body}", answer.status);
        let end = match (caught(answer), answer.is_success()) {
            (true, _) => End::Refused,
            (false, false) => End::RefusedOtherwise,
            (false, true) => End::Served,
        };
        self.attempted(ask, what, end, &words);
    }

    pub(crate) async fn library_viewer_writes(&mut self, ask: &Ask) {
        let ask = &ask.by(Role::Viewer);
        let sql = *self.dice.pick(&VIEWERS_WRITES);
        self.violate(ask, "a viewer's writes", sql, ErrorKind::Forbidden).await;
    }

    pub(crate) async fn library_cross_read(&mut self, ask: &Ask) {
        let sql = *self.dice.pick(&CROSS_READS);
        self.cross(ask, "another tenant's tables read by name", sql).await;
    }

    pub(crate) async fn library_cross_write(&mut self, ask: &Ask) {
        let sql = *self.dice.pick(&CROSS_WRITES);
        self.cross(ask, "another tenant's tables written by name", sql).await;
    }

    async fn cross(&mut self, ask: &Ask, what: &'static str, sql: &str) {
        let other = self.other(ask);
        let schema = self.run.ground.residents[other].id.schema();
        let sql = sql.replace("{other}", &schema).replace("{mark}", &self.resident(ask).mark.text);
        self.violate(ask, what, &sql, ErrorKind::Violation).await;
    }

    /// Runs a statement that must be refused with this kind of error.
    async fn violate(&mut self, ask: &Ask, what: &'static str, sql: &str, kind: ErrorKind) {
        let handle: Freehold = self.handle();
        let resident = self.resident(ask);
        let person = identity(resident.people.of(ask.role));
        let context = match handle.tenant_context(resident.id, person).await {
            Ok(context) => context,
            Err(error) => return self.failed(ask, &error),
        };
        let outcome = match self.dice.percent(50) {
            true => handle.query(&context, sql, &[]).await,
            // After a permitted statement, and never committed.
            false => second_statement(&handle, &context, sql, &[]).await,
        };
        match outcome {
            Ok(rows) => {
                let texts = texts_of(&rows);
                self.look_through(ask, texts.as_bytes());
                self.attempted(ask, what, End::Served, &format!("{sql}: {texts}"));
            }
            Err(error) => {
                // The caller may read this; the other tenant's name in it comes from the statement itself.
                self.look_through(ask, error.message().as_bytes());
                if !self.is_beside_the_point(ask, error.kind().code()) {
                    let words = format!("{sql}: {error}");
                    let as_it_must = error.kind() == kind;
                    let end = if as_it_must { End::Refused } else { End::RefusedOtherwise };
                    self.attempted(ask, what, end, &words);
                }
            }
        }
    }
}

fn is_forbidden(answer: &Answer) -> bool {
    answer.status == 403 && answer.code() == "forbidden"
}

async fn second_statement(
    handle: &Freehold,
    context: &TenantContext,
    sql: &str,
    params: Params<'_>,
) -> Result<Vec<Row>, Error> {
    let mut tx = handle.begin(context).await?;
    tx.query("SELECT count(*) FROM canaries", &[]).await?;
    let rows = tx.query(sql, params).await?;
    tx.rollback().await?;
    Ok(rows)
}
