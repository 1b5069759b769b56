//! What one tenant's SQL leaves in a session is gone or harmless before the next tenant's first statement,
//! however the transaction ended. The baseline here executes text from tenants, so anything that SQL can
//! leave is left.

use std::collections::BTreeMap;

use freehold::{Freehold, SealMode, TenantContext};
use serde_json::Value;

use crate::support::{
    House, SOON, drop_after_polls, house_of_one_with, notes_and, pooler, wait_until,
};

/// `run` executes text as its caller, `run_as_owner` as the owner role, and a row of `deferred` runs its
/// text when the transaction commits.
const HOSTILE: &str = "
CREATE FUNCTION run(sql text) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN EXECUTE sql; RETURN true; END $$;
CREATE FUNCTION run_as_owner(sql text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS
  $$ BEGIN EXECUTE sql; RETURN true; END $$;
CREATE PROCEDURE call_run(sql text) LANGUAGE plpgsql AS
  $$ BEGIN EXECUTE sql; END $$;
CREATE TABLE deferred (sql text NOT NULL);
CREATE FUNCTION run_row() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN EXECUTE NEW.sql; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER run_row AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION run_row()";

/// Everything visible in a session. PostgreSQL keeps the names of settings like `app.note` once they have
/// been set, with an empty value.
const LOOK: &str = "
SELECT json_build_object(
  'settings', (SELECT json_object_agg(name, setting) FROM pg_settings
               WHERE name NOT LIKE '%.%' AND name <> 'transaction_isolation'),
  'own settings', (SELECT count(*) FROM pg_settings WHERE name LIKE 'app.%' AND setting <> ''),
  'isolation', current_setting('transaction_isolation'),
  'users', current_user || ' ' || session_user,
  'channels', (SELECT count(*) FROM pg_listening_channels()),
  'cursors', (SELECT count(*) FROM pg_cursors WHERE is_holdable),
  'temporary', (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
  'locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
)::text";

/// The state of random() that `setseed(0.5)` leaves, which another tenant must not meet.
const RANDOM: &str = "SELECT random()::text";

fn settings() -> Vec<String> {
    [
        ("app.note", "acme"),
        ("application_name", "acme"),
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
        ("row_security", "off"),
        ("search_path", "pg_temp"),
        ("standard_conforming_strings", "off"),
        ("statement_timeout", "1"),
        ("TimeZone", "Asia/Tokyo"),
        ("transform_null_equals", "on"),
        ("work_mem", "64"),
        ("xmlbinary", "hex"),
    ]
    .iter()
    // Without quotes, since one of the settings changes the meaning of quotes.
    .map(|(name, value)| format!("SELECT set_config('{name}', '{value}', false)"))
    .collect()
}

/// What a transaction's SQL can leave besides settings.
const OTHERS: [&str; 10] = [
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
    "SET SESSION AUTHORIZATION freehold_app",
    "LISTEN acme",
    "DECLARE held CURSOR WITH HOLD FOR SELECT 1",
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_try_advisory_lock_shared(8)",
    "SELECT setseed(0.5)",
    "SET statement_timeout = 1",
    "RESET ALL",
    "DEALLOCATE ALL",
];

/// What only the owner's rights can leave, through a function of the baseline. A temporary table would hide
/// the real one if it were found first.
const OF_THE_OWNER: [&str; 4] = [
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_try_advisory_lock_shared(8)",
    "CREATE TEMP TABLE notes AS SELECT ''of acme'' AS body",
    "CREATE TEMP SEQUENCE numbers",
];

fn residue() -> Vec<String> {
    let mut all = settings();
    all.extend(OTHERS.map(str::to_owned));
    // Without parameters, so that each ending can run it by `run`.
    all.extend(OF_THE_OWNER.map(|sql| format!("SELECT run_as_owner('{sql}')")));
    all
}

/// How the transaction that leaves something ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Alone,
    Committed,
    CommittedInOneFlush,
    Pipeline,
    PipelineOfEach,
    Called,
    AtItsCommit,
    RolledBack,
    Dropped,
    DroppedBusy,
    Failed,
    Read,
}

const ENDINGS: [Ending; 12] = [
    Ending::Alone,
    Ending::Committed,
    Ending::CommittedInOneFlush,
    Ending::Pipeline,
    Ending::PipelineOfEach,
    Ending::Called,
    Ending::AtItsCommit,
    Ending::RolledBack,
    Ending::Dropped,
    Ending::DroppedBusy,
    Ending::Failed,
    Ending::Read,
];

const RUN: &str = "SELECT run($1)";

/// Its success does not matter: some residue is refused in some places.
async fn leave(freehold: &Freehold, by: &TenantContext, ending: Ending, sql: &str) {
    match ending {
        Ending::Alone => drop(freehold.query(by, RUN, &[&sql]).await),
        Ending::Committed => {
            let mut tx = freehold.begin(by).await.unwrap();
            let _ = tx.query(RUN, &[&sql]).await;
            let _ = tx.commit().await;
        }
        Ending::CommittedInOneFlush => {
            let mut tx = freehold.begin(by).await.unwrap();
            let _ = tx.query("SELECT 1", &[]).await;
            let _ = tx.query_and_commit(RUN, &[&sql]).await;
        }
        Ending::Pipeline => drop(freehold.pipeline(by, &[(RUN, &[&sql]), (RUN, &[&sql])]).await),
        Ending::PipelineOfEach => {
            drop(freehold.pipeline_each(by, &[(RUN, &[&sql]), (RUN, &[&sql])]).await);
        }
        Ending::Called => {
            drop(freehold.pipeline_each(by, &[("CALL call_run($1)", &[&sql])]).await);
        }
        Ending::AtItsCommit => {
            drop(freehold.query(by, "INSERT INTO deferred VALUES ($1)", &[&sql]).await);
            let mut tx = freehold.begin(by).await.unwrap();
            let _ = tx.execute("INSERT INTO deferred VALUES ($1)", &[&sql]).await;
            let _ = tx.commit().await;
        }
        Ending::RolledBack => {
            let mut tx = freehold.begin(by).await.unwrap();
            let _ = tx.query(RUN, &[&sql]).await;
            let _ = tx.rollback().await;
        }
        Ending::Dropped => {
            let mut tx = freehold.begin(by).await.unwrap();
            let _ = tx.query(RUN, &[&sql]).await;
        }
        Ending::DroppedBusy => {
            let mut tx = freehold.begin(by).await.unwrap();
            let sql = format!("{sql}; SELECT pg_sleep(20)");
            let params: freehold::Params<'_> = &[&sql];
            drop(drop_after_polls(1, tx.query(RUN, params)).await);
        }
        Ending::Failed => drop(freehold.query(by, "SELECT run($1), 1 / 0", &[&sql]).await),
        Ending::Read => {
            let mut tx = freehold.begin_read(by, None).await.unwrap();
            let _ = tx.query_and_end(RUN, &[&sql]).await;
        }
    }
}

async fn look(freehold: &Freehold, by: &TenantContext) -> BTreeMap<String, Value> {
    let rows = freehold.query(by, LOOK, &[]).await.unwrap();
    serde_json::from_str(rows[0].get(0)).unwrap()
}

async fn hostile_house() -> House {
    house_of_one_with(&notes_and(&[HOSTILE])).await
}

async fn leaves_nothing(house: &House, endings: &[Ending]) {
    let (acme, globex) = house.acme_and_globex().await;
    let before = look(&house.freehold, &globex).await;
    for ending in endings {
        for sql in residue() {
            leave(&house.freehold, &acme, *ending, &sql).await;
            let rows = house.freehold.query(&globex, LOOK, &[]).await;
            let rows = rows.unwrap_or_else(|error| panic!("{ending:?}: {sql}: {error}"));
            let after: BTreeMap<String, Value> = serde_json::from_str(rows[0].get(0)).unwrap();
            assert_eq!(after, before, "{ending:?}: {sql}");
        }
    }
}

#[tokio::test]
async fn nothing_that_a_transaction_leaves_reaches_the_next_tenant() {
    leaves_nothing(&hostile_house().await, &ENDINGS).await;
}

/// The entry point differs in each of them.
#[tokio::test]
async fn nothing_is_left_in_the_other_seal_modes() {
    let endings = [Ending::Alone, Ending::Called, Ending::AtItsCommit, Ending::Failed];
    for mode in [SealMode::Portable, SealMode::Plain] {
        let house = hostile_house().await;
        house.database.change_seal(mode).await.unwrap();
        leaves_nothing(&house, &endings).await;
    }
}

/// No rollback gives them back.
#[tokio::test]
async fn prepared_statements_that_a_tenant_takes_away_are_prepared_anew_for_the_next() {
    let house = hostile_house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let freehold = &house.freehold;
    let read: (&str, freehold::Params<'_>) = ("SELECT body FROM notes", &[]);
    for ending in ENDINGS {
        for way in ["in a transaction", "in a pipeline", "as transactions of a pipeline"] {
            leave(freehold, &acme, ending, "DEALLOCATE ALL").await;
            let rows = match way {
                "in a transaction" => {
                    let mut tx = freehold.begin(&globex).await.unwrap();
                    let rows = tx.query(read.0, read.1).await.unwrap();
                    tx.commit().await.unwrap();
                    rows
                }
                "in a pipeline" => {
                    let answers = freehold.pipeline(&globex, &[read, read]).await.unwrap();
                    answers.into_iter().next().unwrap().rows
                }
                _ => {
                    let answers = freehold.pipeline_each(&globex, &[read, read]).await.unwrap();
                    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
                    assert_eq!(answers.len(), 2);
                    answers.into_iter().next().unwrap().rows
                }
            };
            assert_eq!(rows[0].get::<_, &str>(0), "globex", "{ending:?}, {way}");
        }
    }
}

/// Waits until the server knows whether only settings have to be cleaned after a transaction, or more.
async fn until_cleaned(house: &House, only_settings: bool) {
    let what = format!("only settings are cleaned: {only_settings}");
    let so = async || house.freehold.cleans_only_settings() == only_settings;
    wait_until(&what, SOON, so).await;
}

/// Without code in the baseline, the text of a query can leave only these.
#[tokio::test]
async fn where_only_settings_can_be_left_they_and_what_a_query_makes_are_gone() {
    if pooler().is_some() {
        return; // Changes are not heard behind it, so everything is cleaned there.
    }
    let harmless =
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER stamp BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION stamp()";
    let house = house_of_one_with(&notes_and(&[harmless])).await;
    let (acme, globex) = house.acme_and_globex().await;
    until_cleaned(&house, true).await;
    let before = look(&house.freehold, &globex).await;
    for sql in settings() {
        drop(house.freehold.query(&acme, &sql, &[]).await);
        assert_eq!(look(&house.freehold, &globex).await, before, "{sql}");
    }
    for sql in [
        "SELECT pg_advisory_lock(7)",
        "SELECT body INTO TEMP notes FROM notes",
        "SELECT set_config('search_path', 'pg_temp', false), set_config('role', 'freehold_viewer', false)",
    ] {
        drop(house.freehold.query(&acme, sql, &[]).await);
        assert_eq!(look(&house.freehold, &globex).await, before, "{sql}");
        assert_eq!(house.bodies(&globex).await, ["globex"], "{sql}");
    }
    // A statement that is not a query may leave more, and is followed by more cleaning. Tenants may not run
    // DO by default.
    let granted = "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC";
    house.superuser().await.batch_execute(granted).await.unwrap();
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.run_utility("DO $$ BEGIN EXECUTE 'LISTEN anything'; END $$", &[]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(look(&house.freehold, &globex).await, before);
}

#[tokio::test]
async fn code_that_may_leave_more_than_settings_is_known_by_what_it_says() {
    if pooler().is_some() {
        return;
    }
    let harmless =
        "CREATE FUNCTION harmless() RETURNS int LANGUAGE sql AS 'SELECT 1 -- listening, holder'";
    let house = house_of_one_with(&notes_and(&[harmless])).await;
    until_cleaned(&house, true).await;
    let superuser = house.superuser().await;
    let shared = "CREATE FUNCTION public.f() RETURNS void LANGUAGE";
    for (made, taken_back) in [
        (format!("{shared} plpgsql AS 'BEGIN execute ''SELECT 1''; END'"), "DROP FUNCTION public.f()"),
        (format!("{shared} sql AS 'Listen x'"), "DROP FUNCTION public.f()"),
        (format!("{shared} sql AS 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'"), "DROP FUNCTION public.f()"),
        (
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON freehold_template.notes DEFERRABLE FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()".to_owned(),
            "DROP TRIGGER late ON freehold_template.notes",
        ),
    ] {
        superuser.batch_execute(&format!("{made}; NOTIFY freehold, 'baseline'")).await.unwrap();
        until_cleaned(&house, false).await;
        superuser.batch_execute(&format!("{taken_back}; NOTIFY freehold, 'baseline'")).await.unwrap();
        until_cleaned(&house, true).await;
    }
}

/// That each of these is left at all, and by what it would be seen.
#[tokio::test]
async fn what_needs_the_owners_rights_to_leave_is_there_in_its_own_transaction() {
    let house = hostile_house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let before = look(&house.freehold, &globex).await;
    for sql in OF_THE_OWNER {
        let run = format!("SELECT run_as_owner('{sql}')");
        let mut tx = house.freehold.begin(&acme).await.unwrap();
        tx.query(&run, &[]).await.unwrap();
        let seen = tx.query(LOOK, &[]).await.unwrap();
        let seen: BTreeMap<String, Value> = serde_json::from_str(seen[0].get(0)).unwrap();
        let differ = ["locks", "temporary"].iter().any(|name| seen[*name] != before[*name]);
        assert!(differ, "{sql} leaves nothing to see");
        tx.commit().await.unwrap();
        assert_eq!(house.bodies(&globex).await, ["globex"], "{sql}");
    }
}

/// Which tokens a baseline makes of random() is not for another tenant to choose.
#[tokio::test]
async fn no_tenant_knows_what_random_gives_the_next() {
    let house = hostile_house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let random = async |by: &TenantContext, sql: &str| -> String {
        house.freehold.query(by, sql, &[]).await.unwrap()[0].get(0)
    };
    let known = random(&acme, "SELECT random()::text FROM (SELECT setseed(0.5) OFFSET 0) s").await;
    assert_eq!(
        random(&acme, "SELECT random()::text FROM (SELECT setseed(0.5) OFFSET 0) s").await,
        known
    );
    house.freehold.query(&acme, "SELECT setseed(0.5)", &[]).await.unwrap();
    assert_ne!(random(&globex, RANDOM).await, known);
}

/// A cursor that one function opens and another reads still belongs to one tenant.
#[tokio::test]
async fn rows_of_a_held_cursor_are_for_the_tenant_that_opened_it() {
    let pages = "
CREATE FUNCTION open_pages() RETURNS void LANGUAGE sql AS
  'DECLARE pages CURSOR WITH HOLD FOR SELECT body FROM notes';
CREATE FUNCTION next_page() RETURNS text LANGUAGE plpgsql AS
  $$ DECLARE pages refcursor := 'pages'; page text; BEGIN FETCH pages INTO page; RETURN page; END $$";
    let house = house_of_one_with(&notes_and(&[pages])).await;
    let (acme, globex) = house.acme_and_globex().await;
    house.freehold.query(&acme, "SELECT open_pages()", &[]).await.unwrap();
    let read = house.freehold.query(&globex, "SELECT next_page()", &[]).await;
    assert_eq!(crate::support::sqlstate(&read.unwrap_err()), "34000", "no such cursor");
}

/// The case in which one tenant's text reached the next.
#[tokio::test]
async fn a_setting_that_a_trigger_leaves_is_not_the_next_tenants_default() {
    let kept = "
CREATE TABLE kept (note text, before text DEFAULT current_setting('app.note', true));
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM set_config('app.note', NEW.note, false); RETURN NEW; END $$;
CREATE TRIGGER keep BEFORE INSERT ON kept FOR EACH ROW EXECUTE FUNCTION keep()";
    let house = house_of_one_with(&notes_and(&[kept])).await;
    let (acme, globex) = house.acme_and_globex().await;
    let insert = "INSERT INTO kept (note) VALUES ($1) RETURNING before";
    house.freehold.query(&acme, insert, &[&"of acme"]).await.unwrap();
    let rows = house.freehold.query(&globex, insert, &[&"of globex"]).await.unwrap();
    // PostgreSQL knows a name for good that was set once, and gives '' for it.
    assert!(matches!(rows[0].get::<_, Option<&str>>(0), None | Some("")));
}

/// Nor does a migration's file set anything for the next file, or the next tenant.
#[tokio::test]
async fn a_migrations_settings_end_with_its_transaction() {
    let house = house_of_one_with(&notes_and(&[])).await;
    let (acme, globex) = house.acme_and_globex().await;
    let set = "SELECT set_config('app.note', 'of acme', false); SET work_mem = '64kB'; LISTEN acme";
    house.script(&acme, set).await;
    for _ in 0..4 {
        house
            .script(&globex, "INSERT INTO notes (body) SELECT concat_ws(' ', current_setting('app.note', true), current_setting('work_mem'), (SELECT count(*) FROM pg_listening_channels()))")
            .await;
    }
    let seen = house.bodies(&globex).await;
    assert!(
        seen[1..].iter().all(|seen| !seen.contains("acme") && seen.ends_with(" 0")),
        "{seen:?}"
    );
    assert!(seen[1..].iter().all(|seen| !seen.contains("64kB")), "{seen:?}");
}

/// Settings that the app role makes for itself, by SQL that a baseline executes, outlive its sessions. New
/// connections send the settings that they rely on.
#[tokio::test]
async fn what_the_app_role_sets_for_itself_changes_nothing_that_is_relied_on() {
    let house = hostile_house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let before = look(&house.freehold, &globex).await;
    let database = name_of_database(&house).await;
    let mut set = 0;
    for (name, value, by_pooler) in [
        ("DateStyle", "German", true),
        ("bytea_output", "escape", true),
        ("client_encoding", "LATIN1", true),
        ("exit_on_error", "on", true),
        ("lock_timeout", "1", true),
        ("row_security", "off", true),
        // Of newer versions.
        ("transaction_timeout", "60000", true),
        ("restrict_nonsystem_relation_kind", "view", true),
        // Behind a pooler these are the role's; see docs/isolation.md.
        ("statement_timeout", "1", false),
        ("search_path", "public", false),
        ("default_transaction_isolation", "serializable", false),
        ("role", "freehold_viewer", false),
    ] {
        if pooler().is_some() && !by_pooler || before["settings"].get(name).is_none() {
            continue;
        }
        let sql = format!("ALTER ROLE freehold_app IN DATABASE {database} SET {name} = '{value}'");
        let alter = "SELECT set_config('role', 'none', true), run($1)";
        house.freehold.query(&acme, alter, &[&sql]).await.unwrap();
        set += 1;
    }
    assert!(set >= 6, "only {set} of them are settings of this server");
    // Open sessions began before the change, so they are ended.
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
               WHERE datname = current_database() AND usename = 'freehold_app'";
    house.superuser().await.batch_execute(end).await.unwrap();
    // A pooler notices the end of a session when it is next asked.
    let served = async || house.freehold.query(&globex, LOOK, &[]).await.is_ok();
    wait_until("a session that began with them", SOON, served).await;
    let after = look(&house.freehold, &globex).await;
    assert_eq!(after["settings"], before["settings"]);
    assert_eq!(after["users"], before["users"]);
}

#[tokio::test]
async fn init_removes_what_a_login_role_has_set_for_itself() {
    let house = house_of_one_with(&notes_and(&[])).await;
    let app = house.attacker().await;
    let database = name_of_database(&house).await;
    for setting in ["work_mem = 64", "TimeZone = 'Asia/Tokyo'"] {
        let alter = format!("ALTER ROLE freehold_app IN DATABASE {database} SET {setting}");
        app.batch_execute(&alter).await.unwrap();
    }
    let superuser = house.superuser().await;
    let left = async || -> i64 {
        let sql =
            "SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                   WHERE d.datname = current_database()";
        superuser.query_one(sql, &[]).await.unwrap().get(0)
    };
    assert_eq!(left().await, 1);
    house.database.change_seal(SealMode::Best).await.unwrap();
    assert_eq!(left().await, 0);
}

async fn name_of_database(house: &House) -> String {
    let sql = "SELECT quote_ident(current_database())";
    house.superuser().await.query_one(sql, &[]).await.unwrap().get(0)
}
