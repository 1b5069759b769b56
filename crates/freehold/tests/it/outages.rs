//! Outages of the database: it takes no writes, has no room, refuses logins, or does not know the key.

use std::time::Duration;

use freehold::testing::TestDatabase;
use freehold::{ContextKey, Error, ErrorKind, Freehold, PoolLimits, SealMode, TenantContext};

use crate::support::{
    House, admin_url, connect, house, house_of_one, house_sealed, notes_baseline, operator,
    options, sqlstate, wait_until,
};

/// Generous: the awaited event takes a second or two.
const SOON: Duration = Duration::from_secs(60);
const READ: &str = "SELECT body FROM notes";
const INSERT: &str = "INSERT INTO notes (body) VALUES ('new')";

impl House {
    fn database_name(&self) -> String {
        self.database.superuser_url().rsplit_once('/').unwrap().1.to_owned()
    }

    async fn alter_database(&self, how: &str) {
        let alter = format!("ALTER DATABASE {} {how}", self.database_name());
        // From another database: in a read-only spell, this one cannot be altered from within.
        connect(&admin_url()).await.batch_execute(&alter).await.unwrap();
    }

    /// New sessions are read-only, and existing ones are ended: as after a failover to a server that has not
    /// been promoted yet, or when a provider finds the disk full.
    async fn begin_read_only_spell(&self) {
        self.alter_database("SET default_transaction_read_only = on").await;
        self.end_sessions().await;
    }

    async fn end_read_only_spell(&self) {
        self.alter_database("RESET default_transaction_read_only").await;
    }

    async fn end_sessions(&self) {
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
                   WHERE datname = current_database() AND usename LIKE 'freehold%'";
        self.superuser().await.batch_execute(end).await.unwrap();
    }

    async fn pid(&self, tenant: &TenantContext) -> Result<i32, Error> {
        let rows = self.freehold.query(tenant, "SELECT pg_backend_pid()", &[]).await?;
        Ok(rows[0].get(0))
    }
}

fn assert_takes_no_writes<T: std::fmt::Debug>(outcome: Result<T, Error>, what: &str) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
    assert!(error.is_read_only(), "{what}: {error}");
    assert_eq!(sqlstate(&error), "25006", "{what}: {error}");
    assert!(error.message().contains("takes no writes"), "{what}: {}", error.message());
}

#[tokio::test]
async fn a_write_to_a_server_that_takes_none_is_an_outage_and_its_connection_is_replaced() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    house.begin_read_only_spell().await;
    let freehold = &house.freehold;
    for way in ["alone", "in a transaction", "pipeline", "pipeline of a transaction", "each"] {
        let before = house.pid(&acme).await.unwrap();
        let pieces: [(&str, freehold::Params<'_>); 2] = [("SELECT 1", &[]), (INSERT, &[])];
        let outcome = match way {
            "alone" => freehold.query(&acme, INSERT, &[]).await.map(drop),
            "in a transaction" => {
                let mut tx = freehold.begin(&acme).await.unwrap();
                tx.query("SELECT 1", &[]).await.unwrap();
                let outcome = tx.execute(INSERT, &[]).await.map(drop);
                assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Unavailable);
                outcome
            }
            "pipeline" => freehold.pipeline(&acme, &pieces).await.map(drop).map_err(Error::from),
            "pipeline of a transaction" => {
                let mut tx = freehold.begin(&acme).await.unwrap();
                tx.query("SELECT 1", &[]).await.unwrap();
                let outcome = tx.pipeline(&pieces).await.map(drop).map_err(Error::from);
                assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::Unavailable);
                outcome
            }
            _ => {
                let mut outcomes = freehold.pipeline_each(&acme, &pieces).await.unwrap();
                let (write, read) = (outcomes.pop().unwrap(), outcomes.pop().unwrap());
                assert!(read.is_ok());
                write.map(drop)
            }
        };
        assert_takes_no_writes(outcome, way);
        assert_ne!(house.pid(&acme).await.unwrap(), before, "{way}: the connection is kept");
    }
    assert_eq!(house.bodies(&acme).await, ["acme"], "what reads goes on");

    house.end_read_only_spell().await;
    // The connection that said so is gone, so the next can write.
    assert_takes_no_writes(freehold.query(&acme, INSERT, &[]).await, "a session of the spell");
    freehold.query(&acme, INSERT, &[]).await.unwrap();
}

#[tokio::test]
async fn work_on_the_catalog_hears_of_an_outage_too() {
    let house = house().await;
    house.begin_read_only_spell().await;
    let new = freehold::control::tenants::NewTenant {
        slug: "acme".into(),
        name: "Acme".into(),
        ..Default::default()
    };
    let outcome = house.freehold.tenants().create(&operator(), new).await;
    assert_takes_no_writes(outcome.map(drop), "create a tenant");
}

/// However many sessions were opened in the read-only period: none is in use two seconds after its end, even
/// if no write was tried on it.
#[tokio::test]
async fn a_session_that_was_opened_in_a_read_only_spell_does_not_outlast_it() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    house.begin_read_only_spell().await;
    let before = house.pid(&acme).await.unwrap();
    house.end_read_only_spell().await;
    wait_until("the session is replaced", SOON, async || house.pid(&acme).await.unwrap() != before)
        .await;
    house.freehold.query(&acme, INSERT, &[]).await.unwrap();
    let writable = house.pid(&acme).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(house.pid(&acme).await.unwrap(), writable, "one that can write is kept");
}

#[tokio::test]
async fn a_transaction_that_sql_has_made_read_only_is_no_outage() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    house
        .script(
            &acme,
            "CREATE FUNCTION read_and_write() RETURNS void LANGUAGE plpgsql AS $$
             BEGIN
               PERFORM pg_catalog.set_config('transaction_read_only', 'on', true);
               INSERT INTO notes (body) VALUES ('lost');
             END $$",
        )
        .await;
    let before = house.pid(&acme).await.unwrap();
    let alone = house.freehold.query(&acme, "SELECT read_and_write()", &[]).await.map(drop);
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.query("SELECT set_config('transaction_read_only', 'on', true)", &[]).await.unwrap();
    let later = tx.execute(INSERT, &[]).await.map(drop);
    drop(tx);
    let pieces: [(&str, freehold::Params<'_>); 1] = [("SELECT read_and_write()", &[])];
    let mut each = house.freehold.pipeline_each(&acme, &pieces).await.unwrap();
    for outcome in [alone, later, each.pop().unwrap().map(drop)] {
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Statement, "25006"));
        assert!(!error.is_read_only());
    }
    assert_eq!(house.pid(&acme).await.unwrap(), before, "the connection is good");
}

/// A setting of one session says nothing about the others.
#[tokio::test]
async fn a_session_that_sql_has_made_read_only_is_not_taken_for_the_server() {
    let house = house_of_one().await;
    let (acme, _) = house.acme_and_globex().await;
    let leave = "SELECT set_config('default_transaction_read_only', 'on', false)";
    house.freehold.query(&acme, leave, &[]).await.unwrap();
    house.freehold.check().await.unwrap();
    // At the second attempt at the latest.
    let _ = house.freehold.query(&acme, INSERT, &[]).await;
    house.freehold.query(&acme, INSERT, &[]).await.unwrap();
}

#[tokio::test]
async fn a_check_tells_that_the_database_takes_no_writes_and_when_it_does_again() {
    let house = house().await;
    house.freehold.check().await.unwrap();
    house.begin_read_only_spell().await;
    let error = house.freehold.check().await.unwrap_err();
    assert!(error.is_read_only() && error.kind() == ErrorKind::Unavailable, "{error}");
    house.end_read_only_spell().await;
    house.freehold.check().await.unwrap();
}

/// A fleet with eight slots, of which the database has room for those that are open now.
async fn full_house(wait_max: Duration) -> (House, [TenantContext; 2], usize) {
    let database = TestDatabase::create(&admin_url(), &notes_baseline()).await.unwrap();
    let mut options = options(&database);
    options.app_url = database.app_url();
    options.app_pool = PoolLimits { connections_max: 8, wait_max };
    let freehold = Freehold::connect(&options).await.unwrap();
    let house = House { freehold, database };
    let tenants = [house.tenant("acme").await, house.tenant("globex").await];
    for tenant in &tenants {
        house.pid(tenant).await.unwrap();
    }
    // Waits until connections being opened are open or have failed.
    wait_until("at rest", SOON, async || {
        let status = house.freehold.pool_status();
        status.idle == status.connections && status.idle > 0
    })
    .await;
    house.limit_to_present().await;
    let open = house.freehold.pool_status().connections;
    (house, tenants, open)
}

impl House {
    /// This many connections, held by two tenants alternately: one tenant alone may not have all.
    async fn hold(&self, tenants: &[TenantContext; 2], count: usize) -> Vec<freehold::TenantTx> {
        let mut held = Vec::new();
        for turn in 0..count {
            let mut tx = self.freehold.begin(&tenants[turn % 2]).await.unwrap();
            tx.query("SELECT 1", &[]).await.unwrap();
            held.push(tx);
        }
        held
    }

    async fn limit_to_present(&self) {
        let count = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND usename LIKE 'freehold%'";
        let superuser = self.superuser().await;
        let present: i64 = superuser.query_one(count, &[]).await.unwrap().get(0);
        self.alter_database(&format!("CONNECTION LIMIT {present}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_database_has_no_room_one_waits_for_a_connection_that_is_open() {
    let (house, tenants, open) = full_house(SOON).await;
    let freehold = &house.freehold;
    let mut crowd = tokio::task::JoinSet::new();
    for turn in 0..40 {
        let (freehold, tenant) = (freehold.clone(), tenants[turn % 2]);
        crowd.spawn(async move { freehold.query(&tenant, "SELECT pg_sleep(0.01)", &[]).await });
    }
    while let Some(outcome) = crowd.join_next().await {
        outcome.unwrap().unwrap();
    }
    assert!(freehold.pool_status().connections <= open, "{:?}", freehold.pool_status());

    // All open connections are in use; a waiter is served once the database has room.
    let held = house.hold(&tenants, open).await;
    let [acme, _] = tenants;
    let waits = tokio::spawn({
        let freehold = freehold.clone();
        async move { freehold.query(&acme, "SELECT 1", &[]).await }
    });
    wait_until("one waits", SOON, async || freehold.pool_status().waiting > 0).await;
    house.alter_database("CONNECTION LIMIT -1").await;
    tokio::time::timeout(SOON, waits).await.expect("there is room").unwrap().unwrap();
    drop(held);
}

#[tokio::test]
async fn a_wait_for_an_open_connection_has_its_end() {
    let (house, tenants, open) = full_house(Duration::from_secs(2)).await;
    let (held, [acme, _]) = (house.hold(&tenants, open).await, tenants);
    let refused = tokio::time::timeout(SOON, house.freehold.begin(&acme)).await.unwrap();
    let refused = refused.err().expect("there is no connection");
    assert_eq!(refused.kind(), ErrorKind::PoolExhausted);
    assert!(refused.to_string().contains("raise max_connections"), "{refused}");
    drop(held);
    house.freehold.query(&acme, "SELECT 1", &[]).await.unwrap();
}

#[tokio::test]
async fn where_no_connection_is_open_and_none_can_be_it_is_said_why() {
    let (house, [acme, _], _) = full_house(SOON).await;
    house.alter_database("CONNECTION LIMIT 0").await;
    house.end_sessions().await;
    let refused = house.pid(&acme).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let told = refused.to_string();
    for part in ["DATABASE_URL", "no room for more connections (53300)", "raise max_connections"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert_eq!(refused.message(), "the database is not available");
    house.alter_database("CONNECTION LIMIT -1").await;
    house.pid(&acme).await.unwrap();
}

fn another_key() -> ContextKey {
    ContextKey::parse(&format!("1:{}", "0a".repeat(32))).unwrap()
}

#[tokio::test]
async fn a_key_that_the_database_does_not_know_is_refused_at_the_start() {
    for mode in [SealMode::Best, SealMode::Portable] {
        let house = house_sealed(mode).await;
        let mut options = options(&house.database);
        options.context_key = Some(another_key());
        let refused = Freehold::connect(&options).await.err().expect("it is not this database's");
        assert_eq!(refused.kind(), ErrorKind::Setup, "{mode:?}: {refused}");
        for part in ["CONTEXT_KEY", "freehold key show"] {
            assert!(refused.message().contains(part), "{part} is not in {refused}");
        }
        let key = house.freehold.context_keys().show(&operator()).await.unwrap();
        options.context_key = Some(key);
        Freehold::connect(&options).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_that_was_retired_under_a_server_is_its_settings_fault_and_no_violation() {
    for mode in [SealMode::Best, SealMode::Portable] {
        let house = house_sealed(mode).await;
        let (acme, _) = house.acme_and_globex().await;
        let mut options = options(&house.database);
        options.context_key = Some(house.freehold.context_keys().show(&operator()).await.unwrap());
        options.owner_url = None;
        let server = Freehold::connect(&options).await.unwrap();
        server.query(&acme, READ, &[]).await.unwrap();
        server.check().await.unwrap();
        house.freehold.context_keys().rotate(&operator(), Duration::ZERO).await.unwrap();
        // Sessions opened with the key outlive it, so they are ended.
        house.end_sessions().await;

        let tells = |error: &Error| {
            assert_eq!(error.kind(), ErrorKind::Setup, "{mode:?}: {error}");
            error.message().to_owned()
        };
        let refused = server.query(&acme, READ, &[]).await.unwrap_err();
        assert!(!tells(&refused).contains("CONTEXT_KEY"), "a caller hears of no setting");
        let refused = server.pipeline(&acme, &[(READ, &[])]).await.unwrap_err();
        tells(refused.error());
        let each = server.pipeline_each(&acme, &[(READ, &[])]).await.unwrap();
        tells(each[0].as_ref().unwrap_err());
        let refused = server.check().await.unwrap_err();
        assert!(tells(&refused).contains("CONTEXT_KEY"), "{refused}");
        let seen = server.violations().counts().by_kind.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(seen, 0, "{mode:?}");
        // A forged proof in a tenant's SQL is a violation, on a server with a valid key.
        let garbage = "SELECT freehold.enter(repeat('0', 94) || 'tenant_x')";
        let tried = house.freehold.query(&acme, garbage, &[]).await.unwrap_err();
        assert_eq!(tried.kind(), ErrorKind::Violation, "{tried}");
    }
}

/// The address and the remedy are for the log; callers learn that the database is unavailable.
#[tokio::test]
async fn a_failure_to_connect_names_its_setting_and_what_to_do_to_the_log_alone() {
    let house = house().await;
    let with = |from: &str, to: &str| {
        let mut options = house.database.options();
        options.app_url = options.app_url.replace(from, to);
        options
    };
    let cases = [
        (with("freehold-test", "wrong"), ["the password is wrong", "freehold init --app-password"]),
        (with(&house.database_name(), "nowhere"), ["no such database", "DATABASE_URL"]),
        (
            with(&house.database.app_url(), "postgres://freehold_app:x@127.0.0.1:1/x"),
            ["nothing accepts connections there", "127.0.0.1:1"],
        ),
    ];
    for (options, parts) in cases {
        let refused = Freehold::connect(&options).await.err().expect("it leads nowhere");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert_eq!(refused.message(), "the database is not available");
        let told = refused.to_string();
        for part in parts.into_iter().chain(["DATABASE_URL: cannot connect", "freehold_app"]) {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }
}
