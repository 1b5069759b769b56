//! The sealed context: a context that no server sealed is refused, whatever SQL does. Tested in every mode,
//! and in plain mode to show that the attack works there.

use std::time::Duration;

use freehold::control::violations::ViolationFilter;
use freehold::testing::TestDatabase;
use freehold::{Freehold, OperatorContext, Params, SealMode, TenantContext};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio_postgres::Client;

use crate::support::{
    House, admin_url, claim, house_sealed, notes_and, options, outcome, pooler, sqlstate,
    wait_until,
};

const REFUSED: &str = "42501";
const SEALED: [SealMode; 2] = [SealMode::Best, SealMode::Portable];

/// The parts of a seal, for an attacker who has some of them.
struct Forgery {
    key_id: String,
    secret: Vec<u8>,
    expires_in_secs: i64,
    pid: i32,
    claim: String,
}

impl Forgery {
    /// What the server would produce for this session.
    async fn genuine(house: &House, attacker: &Client, tenant: &TenantContext) -> Forgery {
        let superuser = house.superuser().await;
        let sql = "SELECT id, inner_pad FROM freehold_guard.seal_key ORDER BY id DESC LIMIT 1";
        let row = superuser.query_one(sql, &[]).await.unwrap();
        let pad: Vec<u8> = row.get(1);
        let pid = attacker.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        Forgery {
            key_id: row.get(0),
            secret: pad[..32].iter().map(|byte| byte ^ 0x36).collect(),
            expires_in_secs: 5,
            pid,
            claim: claim(tenant.tenant(), "member"),
        }
    }

    async fn seal(&self, attacker: &Client) -> String {
        let sql = "SELECT date_part('epoch', clock_timestamp())::int8";
        let now: i64 = attacker.query_one(sql, &[]).await.unwrap().get(0);
        let expires = now + self.expires_in_secs;
        let message = format!("{}{expires:010}{:010}{}", self.key_id, self.pid, self.claim);
        let mut hmac = Hmac::<Sha256>::new_from_slice(&self.secret).unwrap();
        hmac.update(message.as_bytes());
        let seal: String =
            hmac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        seal + &message
    }
}

/// The result of entering with a context and reading the tenant's notes by their full name.
async fn enter_and_read(attacker: &Client, context: &str, tenant: &TenantContext) -> String {
    pass_and_read(attacker, &format!("freehold.enter('{context}')"), tenant).await
}

async fn pass_and_read(attacker: &Client, door: &str, tenant: &TenantContext) -> String {
    attacker.batch_execute("BEGIN").await.unwrap();
    let notes = format!("{}.notes", tenant.tenant().schema());
    let sql = format!("SELECT {door}; SELECT * FROM {notes}");
    let outcome = outcome(attacker, &sql).await;
    attacker.batch_execute("ROLLBACK").await.unwrap();
    outcome
}

#[tokio::test]
async fn a_context_is_believed_only_as_it_was_sealed() {
    for mode in SEALED {
        let house = house_sealed(mode).await;
        let (acme, globex) = house.acme_and_globex().await;
        let attacker = house.attacker().await;
        let genuine = || Forgery::genuine(&house, &attacker, &acme);
        let sealed = genuine().await.seal(&attacker).await;
        assert_eq!(enter_and_read(&attacker, &sealed, &acme).await, "permitted", "{mode:?}");
        let for_any_session = Forgery { pid: 0, ..genuine().await }.seal(&attacker).await;
        assert_eq!(enter_and_read(&attacker, &for_any_session, &acme).await, "permitted");

        let changed =
            sealed.replace(&claim(acme.tenant(), "member"), &claim(globex.tenant(), "member"));
        let raised = sealed.replace("_member", "_owner");
        let forgeries = [
            ("no seal", format!("{:094}{}", 0, claim(acme.tenant(), "member"))),
            ("the bare claim", claim(acme.tenant(), "member")),
            ("another claim under a good seal", changed),
            ("another role under a good seal", raised),
            ("the seal in upper case", format!("{}{}", sealed[..64].to_uppercase(), &sealed[64..])),
            ("half a seal", sealed[32..].to_owned()),
            ("something behind it", format!("{sealed}x")),
            (
                "another key",
                Forgery { secret: vec![7; 32], ..genuine().await }.seal(&attacker).await,
            ),
            (
                "a key that is not there",
                Forgery { key_id: "0000000099".into(), ..genuine().await }.seal(&attacker).await,
            ),
            (
                "a malformed key id",
                Forgery { key_id: "' OR 1=1 -".replace('\'', "x"), ..genuine().await }
                    .seal(&attacker)
                    .await,
            ),
            ("expired", Forgery { expires_in_secs: -1, ..genuine().await }.seal(&attacker).await),
            (
                "good for ever",
                Forgery { expires_in_secs: 60, ..genuine().await }.seal(&attacker).await,
            ),
            ("another session", Forgery { pid: 1, ..genuine().await }.seal(&attacker).await),
        ];
        for (what, context) in forgeries {
            for tenant in [&acme, &globex] {
                let outcome = enter_and_read(&attacker, &context, tenant).await;
                assert_eq!(outcome, REFUSED, "{mode:?}: {what}");
            }
        }
        assert_eq!(
            enter_and_read(&attacker, &sealed, &globex).await,
            REFUSED,
            "a good seal of acme's"
        );
    }
}

/// In portable mode, where a transaction can read its own context.
#[tokio::test]
async fn a_server_seals_for_its_own_session_and_for_seconds() {
    let house = house_sealed(SealMode::Portable).await;
    let (acme, _) = house.acme_and_globex().await;
    let read = "SELECT pg_backend_pid(), substr(sealed, 85, 10)::int4,
                       substr(sealed, 75, 10)::float8 - date_part('epoch', now())
                FROM current_setting('freehold.context') AS sealed";
    let rows = house.freehold.query(&acme, read, &[]).await.unwrap();
    // A pooler hides which session it will be.
    let own: i32 = if pooler().is_some() { 0 } else { rows[0].get(0) };
    assert_eq!(rows[0].get::<_, i32>(1), own, "another session's");
    let seconds: f64 = rows[0].get(2);
    assert!((0.0..=6.0).contains(&seconds), "good for {seconds} s");
}

/// Statements that set another tenant's context on the way, by every name it could be kept under.
fn context_changes(to: &TenantContext) -> Vec<String> {
    let claim = claim(to.tenant(), "owner");
    let unsealed = format!("{:094}{claim}", 0);
    let mut statements = Vec::new();
    for value in [claim, unsealed] {
        for setting in ["freehold.context", "backtrace_functions"] {
            statements.push(format!("SET LOCAL {setting} = '{value}'"));
            statements.push(format!("SET {setting} = '{value}'"));
            statements.push(format!("SELECT set_config('{setting}', '{value}', true)"));
            statements.push(format!("SELECT set_config('{setting}', '{value}', false)"));
        }
        statements.push(format!("SELECT freehold_guard.admit('{value}')"));
        statements.push(format!("SELECT freehold.enter('{value}')"));
        statements.push(format!("SELECT freehold.enter_catalog('{value}')"));
        statements.push(format!("SELECT query_to_xml('SELECT set_config(''freehold.context'', ''{value}'', true)', true, true, '')"));
    }
    statements.extend(
        [
            "RESET ALL",
            "RESET freehold.context",
            "RESET backtrace_functions",
            "RESET ROLE",
            "SET LOCAL backtrace_functions TO DEFAULT",
            "SET LOCAL freehold.context TO DEFAULT",
            "SAVEPOINT s; RELEASE s",
            "SET LOCAL search_path = pg_catalog",
        ]
        .map(str::to_owned),
    );
    statements
}

/// Whether SQL in acme's transaction can see or change globex's rows.
async fn reaches(
    attacker: &Client,
    house: &House,
    acme: &TenantContext,
    globex: &TenantContext,
    sql: &str,
) -> bool {
    let notes = format!("{}.notes", globex.tenant().schema());
    let mut reached = false;
    for attempt in [
        format!("SELECT count(*) FROM {notes}"),
        format!("INSERT INTO {notes} (body) VALUES ('intruder')"),
        format!("SET LOCAL ROLE freehold_admin; UPDATE {notes} SET body = 'intruder'"),
    ] {
        house.enter(attacker, acme.tenant(), "owner").await;
        // It may be refused, and the transaction goes on behind a savepoint.
        let _ = attacker.batch_execute("SAVEPOINT s").await;
        if attacker.batch_execute(sql).await.is_err() {
            attacker.batch_execute("ROLLBACK TO SAVEPOINT s").await.unwrap();
        }
        reached |= attacker.batch_execute(&attempt).await.is_ok();
        attacker.batch_execute("ROLLBACK").await.unwrap();
    }
    reached
}

#[tokio::test]
async fn no_setting_of_ones_own_leads_to_another_tenant() {
    for mode in [SealMode::Best, SealMode::Portable, SealMode::Plain] {
        let house = house_sealed(mode).await;
        let (acme, globex) = house.acme_and_globex().await;
        let attacker = house.attacker().await;
        let mut reached = Vec::new();
        for sql in context_changes(&globex) {
            if reaches(&attacker, &house, &acme, &globex, &sql).await {
                reached.push(sql);
            }
        }
        // In the mode `plain` contexts are not sealed, so one SET changes them.
        assert_eq!(reached.is_empty(), mode != SealMode::Plain, "{mode:?}: {reached:#?}");
        let bodies = house.bodies(&globex).await;
        assert_eq!(bodies, ["globex"], "{mode:?}");
    }
}

#[tokio::test]
async fn one_statement_cannot_change_the_context_under_itself() {
    for mode in SEALED {
        let house = house_sealed(mode).await;
        let (acme, globex) = house.acme_and_globex().await;
        let (own, theirs) = (acme.tenant().schema(), globex.tenant().schema());
        let claim = claim(globex.tenant(), "owner");
        for setting in ["freehold.context", "backtrace_functions"] {
            for sql in [
                format!(
                    "SELECT * FROM {theirs}.notes WHERE set_config('{setting}', '{claim}', true) IS NOT NULL"
                ),
                format!(
                    "SELECT * FROM (SELECT set_config('{setting}', '{claim}', true) OFFSET 0) s, {theirs}.notes"
                ),
                format!(
                    "WITH s AS MATERIALIZED (SELECT set_config('{setting}', '{claim}', true)) SELECT * FROM s, {theirs}.notes"
                ),
                format!(
                    "SELECT n.* FROM {own}.notes o, LATERAL (SELECT * FROM {theirs}.notes WHERE set_config('{setting}', '{claim}', true) <> o.body) n"
                ),
                format!(
                    "INSERT INTO {theirs}.notes (body) SELECT set_config('{setting}', '{claim}', true)"
                ),
                format!(
                    "UPDATE {theirs}.notes SET body = set_config('{setting}', '{claim}', true)"
                ),
            ] {
                let refused = house.freehold.query(&acme, &sql, &[]).await.unwrap_err();
                let code = refused.database().map(|db| db.code().code().to_owned());
                assert_eq!(code.as_deref(), Some(REFUSED), "{mode:?}: {sql}: {refused}");
            }
        }
        assert_eq!(house.bodies(&globex).await, ["globex"]);
    }
}

#[tokio::test]
async fn nobody_but_the_owner_reads_a_key_and_nothing_shows_one() {
    for mode in SEALED {
        let house = house_sealed(mode).await;
        let (acme, _) = house.acme_and_globex().await;
        let attacker = house.attacker().await;
        house.superuser().await.batch_execute("ANALYZE freehold_guard.seal_key").await.unwrap();
        for role in ["viewer", "owner"] {
            house.enter(&attacker, acme.tenant(), role).await;
            for sql in [
                "SELECT * FROM freehold_guard.seal_key",
                "SELECT count(*) FROM freehold_guard.seal_key",
                "UPDATE freehold_guard.seal_key SET retires_at = now()",
                "COPY freehold_guard.seal_key TO STDOUT",
                "INSERT INTO freehold_guard.seal_key VALUES ('0000000009', decode(repeat('00', 64), 'hex'), decode(repeat('00', 64), 'hex'))",
            ] {
                assert_eq!(outcome(&attacker, sql).await, REFUSED, "{mode:?}: {sql}");
            }
            attacker.batch_execute("ROLLBACK").await.unwrap();
        }
        let superuser = house.superuser().await;
        let row = superuser
            .query_one(
                "SELECT (SELECT count(*) FROM pg_stats WHERE tablename = 'seal_key' AND attname LIKE '%pad'),
                        (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'freehold_app' AND query ~ '[0-9a-f]{64}')",
                &[],
            )
            .await
            .unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (0, 0), "{mode:?}");
    }
}

#[tokio::test]
async fn keys_change_under_running_servers_and_retire() {
    for mode in SEALED {
        let house = house_sealed(mode).await;
        let (acme, _) = house.acme_and_globex().await;
        let attacker = house.attacker().await;
        let old = Forgery::genuine(&house, &attacker, &acme).await;
        let operator = OperatorContext::system("a test");
        let hour = Duration::from_secs(3600);
        let new = house.freehold.context_keys().rotate(&operator, hour).await.unwrap();
        assert_eq!(new.id(), "2");
        assert_eq!(house.bodies(&acme).await, ["acme"], "with whichever key");
        let sealed = old.seal(&attacker).await;
        assert_eq!(enter_and_read(&attacker, &sealed, &acme).await, "permitted", "in its grace");

        house.freehold.context_keys().rotate(&operator, Duration::ZERO).await.unwrap();
        let sealed = old.seal(&attacker).await;
        assert_eq!(enter_and_read(&attacker, &sealed, &acme).await, REFUSED, "{mode:?}: retired");
        wait_until("the server seals with the new key", Duration::from_secs(60), async || {
            house.freehold.context_keys().list(&operator).await.is_ok()
                && house.freehold.query(&acme, "SELECT body FROM notes", &[]).await.is_ok()
        })
        .await;
        assert_eq!(house.bodies(&acme).await, ["acme"]);
        let keys = house.freehold.context_keys().list(&operator).await.unwrap();
        assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["3", "2", "1"]);
    }
}

#[tokio::test]
async fn a_transaction_may_last_longer_than_its_seal() {
    let (best, portable) =
        (house_sealed(SealMode::Best).await, house_sealed(SealMode::Portable).await);
    let last = async |house: &House| {
        let (acme, _) = house.acme_and_globex().await;
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        tx.query("SELECT pg_sleep(6.5)", &[]).await.unwrap();
        assert_eq!(tx.query("SELECT body FROM notes", &[]).await.unwrap().len(), 1);
        tx.commit().await.unwrap();
    };
    tokio::join!(last(&best), last(&portable));
}

/// As onboarding and migrations do, which wait for locks before they come into a tenant's schema.
#[tokio::test]
async fn a_context_may_be_sealed_late_in_a_transaction() {
    let house = house_sealed(SealMode::Portable).await;
    let (acme, _) = house.acme_and_globex().await;
    let attacker = house.attacker().await;
    attacker.batch_execute("BEGIN; SELECT pg_sleep(2.5)").await.unwrap();
    let sealed = Forgery::genuine(&house, &attacker, &acme).await.seal(&attacker).await;
    let notes = format!("{}.notes", acme.tenant().schema());
    let sql = format!("SELECT freehold.enter('{sealed}'); SELECT * FROM {notes}");
    assert_eq!(outcome(&attacker, &sql).await, "permitted");
}

/// What a server shows instead of seals once its session is open.
const NUMBER: i64 = -5_702_887_300_000_000_001;
/// PostgreSQL's word for a currval that was never set.
const NO_SESSION: &str = "55000";

fn vouched(number: impl std::fmt::Display, claim: &str) -> String {
    format!("freehold.enter('{claim}', {number})")
}

fn session_claim() -> String {
    format!("session_{NUMBER}")
}

async fn open_session(client: &Client, sealed: &str) -> String {
    match client.batch_execute(&format!("SELECT freehold_guard.open_session('{sealed}')")).await {
        Ok(()) => "permitted".to_owned(),
        Err(error) => error.code().unwrap().code().to_owned(),
    }
}

#[tokio::test]
async fn a_session_is_opened_by_a_seal_and_vouches_for_itself_alone() {
    let house = house_sealed(SealMode::Best).await;
    let (acme, globex) = house.acme_and_globex().await;
    let (server, attacker) = (house.attacker().await, house.attacker().await);
    let member = |tenant: &TenantContext| claim(tenant.tenant(), "member");
    let genuine = async |client: &Client| Forgery {
        claim: session_claim(),
        ..Forgery::genuine(&house, client, &acme).await
    };
    for (what, forgery) in [
        ("another key", Forgery { secret: vec![7; 32], ..genuine(&attacker).await }),
        ("another session", Forgery { pid: 1, ..genuine(&attacker).await }),
        ("any session", Forgery { pid: 0, ..genuine(&attacker).await }),
        ("expired", Forgery { expires_in_secs: -1, ..genuine(&attacker).await }),
        ("a tenant's context", Forgery::genuine(&house, &attacker, &acme).await),
    ] {
        let sealed = forgery.seal(&attacker).await;
        assert_eq!(open_session(&attacker, &sealed).await, REFUSED, "{what}");
        let door = vouched(NUMBER, &member(&acme));
        assert_eq!(pass_and_read(&attacker, &door, &acme).await, NO_SESSION, "{what}");
    }
    // A pooler hides the session that a server would have to name.
    if pooler().is_some() {
        return;
    }
    let sealed = genuine(&server).await.seal(&server).await;
    assert_eq!(open_session(&server, &sealed).await, "permitted");
    for tenant in [&acme, &globex] {
        let door = vouched(NUMBER, &member(tenant));
        assert_eq!(pass_and_read(&server, &door, tenant).await, "permitted");
        assert_eq!(pass_and_read(&attacker, &door, tenant).await, NO_SESSION, "elsewhere");
        let bare = format!("freehold.enter('{}')", member(tenant));
        assert_eq!(pass_and_read(&server, &bare, tenant).await, REFUSED, "no number");
    }
    for guess in [0, 1, NUMBER - 1, NUMBER + 1, -NUMBER] {
        let door = vouched(guess, &member(&globex));
        assert_eq!(pass_and_read(&server, &door, &globex).await, REFUSED, "{guess}");
    }
    assert_eq!(open_session(&attacker, &sealed).await, REFUSED, "another's seal");
}

#[tokio::test]
async fn a_session_is_opened_in_no_mode_but_the_best() {
    for mode in [SealMode::Portable, SealMode::Plain] {
        let house = house_sealed(mode).await;
        let attacker = house.attacker().await;
        let row = attacker.query_one("SELECT freehold_guard.open_session('')", &[]).await.unwrap();
        assert!(!row.get::<_, bool>(0), "{mode:?}");
    }
}

/// The number by which a session knows its server is out of everybody's sight but the owner's.
#[tokio::test]
async fn sql_in_a_transaction_sees_nothing_of_the_session() {
    let house = house_sealed(SealMode::Best).await;
    let (acme, _) = house.acme_and_globex().await;
    for sql in [
        "SELECT setting FROM pg_settings WHERE name <> 'backtrace_functions' AND vartype = 'string' AND concat(setting, ' ', reset_val) ~ '[0-9]{17}|session_[-0-9]'",
        "SELECT current_setting('backtrace_functions') WHERE current_setting('backtrace_functions') NOT LIKE 'tenant\\_%'",
        "SELECT statement FROM pg_cursors WHERE statement ~ '[0-9]{17}'",
        "SELECT last_value::text FROM pg_sequences WHERE schemaname = 'freehold_guard' AND last_value IS NOT NULL",
        "SELECT setting FROM pg_settings WHERE name = 'backtrace_functions' AND setting = ''",
    ] {
        let rows = house.freehold.query(&acme, sql, &[]).await.unwrap();
        assert!(rows.is_empty(), "{sql}: {:?}", rows[0].get::<_, String>(0));
    }
    // As a superuser, who sees other sessions' queries, which SQL in a tenant cannot.
    let activity = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'freehold.*(enter|admit|open_session).*[0-9]{9}'";
    let seen = house.superuser().await.query_one(activity, &[]).await.unwrap();
    assert_eq!(seen.get::<_, i64>(0), 0);
    assert!(house.freehold.query(&acme, activity, &[]).await.is_err());
    for sql in [
        "RESET backtrace_functions",
        "SET backtrace_functions TO DEFAULT",
        "PERFORM currval('freehold_guard.session_number')",
        "PERFORM lastval()",
        "PERFORM nextval('freehold_guard.session_number')",
        "PERFORM setval('freehold_guard.session_number', 7)",
        "PERFORM last_value FROM freehold_guard.session_number",
    ] {
        let sql = format!("DO $$ BEGIN {sql}; END $$");
        assert!(house.freehold.query(&acme, &sql, &[]).await.is_err(), "{sql}");
    }
    let sql = "SELECT last_value, is_called FROM freehold_guard.session_number";
    let kept = house.superuser().await.query_one(sql, &[]).await.unwrap();
    assert_eq!((kept.get(0), kept.get(1)), (0_i64, false), "what a dump would hold");
}

#[tokio::test]
async fn who_resets_a_session_is_in_nobodys_way() {
    let read: (&str, Params<'_>) = ("SELECT body FROM notes", &[]);
    let resets = ["RESET ALL", "DISCARD SEQUENCES"].into_iter();
    for (reset, pipelined) in resets.flat_map(|reset| [(reset, false), (reset, true)]) {
        let house = house_sealed(SealMode::Best).await;
        let (acme, globex) = house.acme_and_globex().await;
        // As a function of a baseline could.
        let reset = format!(
            "CREATE FUNCTION public.reset_all() RETURNS void LANGUAGE plpgsql AS 'BEGIN {reset}; END'"
        );
        house.superuser().await.batch_execute(&reset).await.unwrap();
        house.freehold.query(&acme, "SELECT public.reset_all()", &[]).await.unwrap();
        if pipelined {
            for answer in house.freehold.pipeline_each(&globex, &[read; 3]).await.unwrap() {
                assert_eq!(answer.unwrap().rows[0].get::<_, String>(0), "globex");
            }
        }
        assert_eq!(house.bodies(&globex).await, ["globex"]);
        assert_eq!(house.bodies(&acme).await, ["acme"]);
        let (operator, every) = (OperatorContext::system("a test"), ViolationFilter::default());
        let violations = house.freehold.violations().list(&operator, &every, None, None).await;
        assert!(violations.unwrap().is_empty(), "nobody did anything wrong");
    }
}

#[tokio::test]
async fn who_changes_the_mode_ends_sessions_and_disturbs_nobody() {
    for mode in [SealMode::Portable, SealMode::Plain] {
        let house = house_sealed(SealMode::Best).await;
        let (acme, globex) = house.acme_and_globex().await;
        assert_eq!(house.bodies(&acme).await, ["acme"]);
        house.database.change_seal(mode).await.unwrap();
        assert_eq!(house.bodies(&acme).await, ["acme"], "{mode:?}");
        assert_eq!(house.bodies(&globex).await, ["globex"], "{mode:?}");
        let (operator, every) = (OperatorContext::system("a test"), ViolationFilter::default());
        let violations = house.freehold.violations().list(&operator, &every, None, None).await;
        assert!(violations.unwrap().is_empty(), "{mode:?}");
        house.database.change_seal(SealMode::Best).await.unwrap();
        assert_eq!(house.bodies(&globex).await, ["globex"], "{mode:?} and back");
    }
}

#[tokio::test]
async fn a_parallel_plan_meets_the_same_context() {
    for mode in SEALED {
        let house = house_sealed(mode).await;
        let (acme, globex) = house.acme_and_globex().await;
        house.script(&acme, "INSERT INTO notes (body) SELECT 'note ' || n FROM generate_series(1, 20000) n; ANALYZE notes").await;
        let attacker = house.attacker().await;
        house.enter(&attacker, acme.tenant(), "member").await;
        attacker
            .batch_execute(
                "SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0;
                 SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL parallel_leader_participation = off",
            )
            .await
            .unwrap();
        let explain = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT count(body) FROM notes";
        let plan: serde_json::Value = attacker.query_one(explain, &[]).await.unwrap().get(0);
        assert!(plan.to_string().contains("\"Workers Launched\":"), "{mode:?}: {plan}");
        let count = attacker.query_one("SELECT count(*) FROM notes", &[]).await.unwrap();
        assert_eq!(count.get::<_, i64>(0), 20_001);
        let theirs = format!("SELECT count(*) FROM {}.notes", globex.tenant().schema());
        assert_eq!(outcome(&attacker, &theirs).await, REFUSED, "{mode:?}");
    }
}

/// Functions that a baseline could have for legitimate reasons, with the rights of freehold_owner.
const HELPERS: &str = "
CREATE FUNCTION app_set(n text, v text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS
  'SELECT set_config(n, v, true)';
CREATE FUNCTION app_one(q text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS
  $$ DECLARE one text; BEGIN EXECUTE q INTO one; RETURN one; END $$";

#[tokio::test]
async fn a_helper_with_the_owners_rights_neither_sets_the_verdict_nor_reads_a_key() {
    for mode in SEALED {
        let database = TestDatabase::create(&admin_url(), &notes_and(&[HELPERS])).await.unwrap();
        database.change_seal(mode).await.unwrap();
        let freehold = Freehold::connect(&options(&database)).await.unwrap();
        let house = House { freehold, database };
        let (acme, globex) = house.acme_and_globex().await;
        let theirs = format!("SELECT body FROM {}.notes", globex.tenant().schema());
        let context = claim(globex.tenant(), "owner");
        let unsealed = format!("{:094}{context}", 0);
        let refused = async |sql: &str| {
            let outcome = house.freehold.query(&acme, sql, &[]).await;
            let error = outcome.expect_err(&format!("{mode:?}: {sql}"));
            assert_eq!(sqlstate(&error), REFUSED, "{mode:?}: {sql}: {error}");
        };
        for setting in ["backtrace_functions", "freehold.context"] {
            for value in [&context, &unsealed] {
                refused(&format!(
                    "SELECT t.body FROM (SELECT app_set('{setting}', '{value}') OFFSET 0) s, LATERAL ({theirs}) t"
                ))
                .await;
            }
        }
        for sql in [
            format!("SELECT app_one('SELECT set_config(''backtrace_functions'', ''{context}'', true)')"),
            "SELECT app_one('SELECT encode(inner_pad, ''hex'') FROM freehold_guard.seal_key')".to_owned(),
            "SELECT app_one('SELECT encode(inner_pad, ''hex'') FROM freehold_guard.newest_key()')".to_owned(),
            "SELECT app_one('SELECT id FROM freehold_guard.list_keys()')".to_owned(),
            "SELECT app_one('SELECT freehold_guard.next_key()')".to_owned(),
            "SELECT app_one('SELECT freehold_guard.add_key(''0000000009'', decode(repeat(''00'', 64), ''hex''), decode(repeat(''00'', 64), ''hex''), 0)')".to_owned(),
            "SELECT app_one('SELECT currval(''freehold_guard.session_number'')')".to_owned(),
            "SELECT app_one('SELECT setval(''freehold_guard.session_number'', 7)')".to_owned(),
            "SELECT app_one('SELECT last_value FROM freehold_guard.session_number')".to_owned(),
            "SELECT app_one('CREATE FUNCTION freehold_guard.mine() RETURNS int LANGUAGE sql AS ''SELECT 1''')".to_owned(),
            "SELECT app_one('GRANT freehold_guard TO freehold_app')".to_owned(),
        ] {
            refused(&sql).await;
        }
        assert_eq!(house.bodies(&globex).await, ["globex"]);
    }
}
