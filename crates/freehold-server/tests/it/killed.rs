//! Programs that are killed in the middle of their work: nothing is left half done or orphaned, and a
//! repeated request is served.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use freehold::OperatorContext;
use freehold::control::tenants::NewTenant;
use freehold::testing::{PASSWORD, TestDatabase};
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::process::{Folder, Server, env_of, freehold, http, http_with, start_freehold, token};
use crate::support::{SOON, admin_url, connect, eventually, project, shop};

/// A lock on a table that is to be written, at which the work stops.
struct Barrier {
    holder: Client,
    table: &'static str,
}

impl Barrier {
    async fn at(table: &'static str, database: &TestDatabase) -> Barrier {
        let holder = connect(&database.superuser_url()).await;
        holder.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN SHARE MODE")).await.unwrap();
        Barrier { holder, table }
    }

    async fn is_reached(&self, sql: &Client) {
        let waiting = format!(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{}'::regclass
             AND database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))",
            self.table
        );
        eventually(self.table, SOON, async || {
            sql.query_one(&waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
    }

    async fn lift(self) {
        self.holder.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// The backends of a killed program notice that it is gone.
async fn the_backends_end(sql: &Client) {
    let left = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND usename LIKE 'freehold%'";
    eventually("the backends end", SOON, async || {
        sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

/// The catalog and the schemas must agree whenever nothing is under way.
async fn nothing_is_half_done(sql: &Client) {
    let column = async |query: &str| -> BTreeSet<String> {
        sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let schemas =
        column("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'tenant\\_%'").await;
    let tenants =
        column("SELECT 'tenant_' || replace(id::text, '-', '') FROM freehold.tenant").await;
    assert_eq!(schemas, tenants, "a schema without a tenant, or a tenant without a schema");
    let half = column(
        "SELECT slug FROM freehold.tenant t WHERE version <> 3
         OR (SELECT count(*) FROM freehold.ledger l WHERE l.tenant_id = t.id) <> 3
         OR (SELECT count(*) FROM freehold.membership m WHERE m.tenant_id = t.id) <> 1
         OR (SELECT count(*) FROM pg_class c WHERE c.relnamespace = ('tenant_' || replace(t.id::text, '-', ''))::regnamespace
               AND c.relkind = 'r' AND c.relrowsecurity AND c.relforcerowsecurity) <> 5",
    )
    .await;
    assert_eq!(half, BTreeSet::new(), "half a tenant");
    let homeless = column(
        "SELECT email FROM freehold.identity i WHERE NOT is_operator
         AND NOT EXISTS (SELECT FROM freehold.membership m WHERE m.identity_id = i.id)",
    )
    .await;
    assert_eq!(homeless, BTreeSet::new(), "an owner without a tenant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_amid_many_creations_leaves_whole_tenants_or_none() {
    const WISHES: usize = 24;
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let sql = connect(&database.superuser_url()).await;
    let operator = Uuid::new_v4();
    sql.execute(
        "INSERT INTO freehold.identity (id, email, is_operator, proven_at, proven_by, proven_why)
         VALUES ($1, 'op@x.example', true, now(), $1, 'a test')",
        &[&operator],
    )
    .await
    .unwrap();
    database.open_session(operator).await.unwrap();
    let token = token(operator, None, "operator");
    let create = |port: u16, n: usize| {
        let slug = format!("shop{n}");
        let owner = json!({"email": format!("owner@{slug}.example"), "password": PASSWORD});
        let body = json!({"slug": slug, "name": slug, "owner": owner});
        http(port, "POST", "/v1/tenants", &token, &body).map(|(status, _)| status)
    };
    for round in 0..3 {
        let mut server = Server::start(&database);
        let made = AtomicUsize::new(0);
        thread::scope(|scope| {
            let wishes: Vec<_> = (0..WISHES)
                .map(|n| {
                    let (create, made, port) = (&create, &made, server.port);
                    scope.spawn(move || {
                        let status = create(port, round * WISHES + n);
                        made.fetch_add(1, Ordering::SeqCst);
                        status
                    })
                })
                .collect();
            // In the thick of it: some are made, most are not.
            let began = Instant::now();
            while made.load(Ordering::SeqCst) < 3 + round && began.elapsed() < SOON {
                thread::sleep(Duration::from_millis(1));
            }
            server.running.kill();
            let statuses: Vec<_> =
                wishes.into_iter().map(|wish| wish.join().unwrap().ok()).collect();
            let cut_short = statuses.iter().filter(|status| status.is_none()).count();
            assert!(cut_short > 0, "it was killed too late: {statuses:?}");
        });
        the_backends_end(&sql).await;
        nothing_is_half_done(&sql).await;
    }
    // After a restart, the interrupted requests succeed, and the completed ones are recognised as repeated.
    let mut server = Server::start(&database);
    for n in 0..WISHES {
        let status = create(server.port, n).unwrap();
        assert!([201, 409].contains(&status), "{status}");
    }
    let slugs: Vec<_> = (0..WISHES).map(|n| format!("shop{n}")).collect();
    let row = sql
        .query_one("SELECT count(*) FROM freehold.tenant WHERE slug = ANY ($1)", &[&slugs])
        .await;
    assert_eq!(row.unwrap().get::<_, i64>(0), WISHES as i64);
    nothing_is_half_done(&sql).await;
    server.running.stop();
}

/// Kills a server while its request waits for a table, and waits until its backends are gone.
async fn killed_at(
    table: &'static str,
    server: &mut Server,
    database: &TestDatabase,
    sql: &Client,
    request: &(impl Fn(u16) -> std::io::Result<u16> + Sync),
) {
    let barrier = Barrier::at(table, database).await;
    let port = server.port;
    thread::scope(|scope| {
        let request = scope.spawn(move || request(port));
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(barrier.is_reached(sql));
        });
        server.running.kill();
        assert!(request.join().unwrap().is_err(), "{table}: it was answered");
    });
    barrier.lift().await;
    the_backends_end(sql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_at_any_step_of_a_sign_up_leaves_nothing_of_it() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let sql = connect(&database.superuser_url()).await;
    let wish = json!({"slug": "initech", "name": "Initech", "email": "p@initech.example", "password": PASSWORD});
    let sign_up = |port: u16| {
        let key = [("Idempotency-Key", "once")];
        http_with(port, "POST", "/v1/signup", &key, &wish).map(|(status, _)| status)
    };
    for table in [
        "freehold.idempotency",
        "freehold.tenant",
        "freehold.identity",
        "freehold.credential",
        "freehold.membership",
        "pg_catalog.pg_namespace",
        "pg_catalog.pg_class",
        "pg_catalog.pg_policy",
        "freehold.ledger",
    ] {
        let mut server = Server::start_with(&database, &[("SIGNUP", "open")]);
        killed_at(table, &mut server, &database, &sql, &sign_up).await;
        let left = "SELECT (SELECT count(*) FROM freehold.tenant), (SELECT count(*) FROM freehold.identity),
            (SELECT count(*) FROM freehold.idempotency), (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenant\\_%')";
        let row = sql.query_one(left, &[]).await.unwrap();
        let left: Vec<i64> = (0..4).map(|column| row.get(column)).collect();
        assert_eq!(left, [0; 4], "killed at {table}: tenants, people, keys, schemas");
    }
    // The same request, sent again to a server that lives, and once more.
    let mut server = Server::start_with(&database, &[("SIGNUP", "open")]);
    for _ in 0..2 {
        assert_eq!(sign_up(server.port).unwrap(), 201);
    }
    nothing_is_half_done(&sql).await;
    server.running.stop();
}

/// With the proof of an address: the tenant and the consumed token are one transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_at_any_step_of_a_confirmation_leaves_the_link_as_good_as_it_was() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let sql = connect(&database.superuser_url()).await;
    let folder = crate::process::Folder::new();
    let settings = [
        ("MAIL", "log"),
        ("MAIL_FOLDER", folder.text()),
        ("PUBLIC_URL", "https://app.example.com"),
    ];
    let mut server = Server::start_with(&database, &settings);
    let wish = json!({"slug": "initech", "name": "Initech", "email": "p@initech.example", "password": PASSWORD});
    let (status, _) = http_with(server.port, "POST", "/v1/signup", &[], &wish).unwrap();
    assert_eq!(status, 202);
    let letter = async || {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
        let mut texts = files.map(|path| std::fs::read_to_string(path).unwrap());
        texts.find(|text| text.contains("#fhs_"))
    };
    eventually("the letter is written", SOON, async || letter().await.is_some()).await;
    let letter = letter().await.unwrap();
    let token = letter.split_once('#').unwrap().1.split_whitespace().next().unwrap().to_owned();
    server.running.stop();
    let body = json!({"token": token, "password": PASSWORD});
    let confirm = |port: u16| {
        http_with(port, "POST", "/v1/signup/confirm", &[], &body).map(|(status, _)| status)
    };
    for table in [
        "freehold.sign_up",
        "freehold.tenant",
        "freehold.identity",
        "freehold.membership",
        "pg_catalog.pg_class",
    ] {
        let mut server = Server::start(&database);
        killed_at(table, &mut server, &database, &sql, &confirm).await;
        let left = "SELECT (SELECT count(*) FROM freehold.tenant), (SELECT count(*) FROM freehold.identity),
            (SELECT count(*) FROM freehold.sign_up), (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tenant\\_%')";
        let row = sql.query_one(left, &[]).await.unwrap();
        let left: Vec<i64> = (0..4).map(|column| row.get(column)).collect();
        assert_eq!(left, [0, 0, 1, 0], "killed at {table}: tenants, people, sign-ups, schemas");
    }
    let mut server = Server::start(&database);
    assert_eq!(confirm(server.port).unwrap(), 201);
    assert_eq!(confirm(server.port).unwrap(), 404);
    nothing_is_half_done(&sql).await;
    server.running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migrator_killed_anywhere_leaves_each_tenant_before_or_after() {
    const TENANTS: i64 = 20;
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let context = OperatorContext::system("a test");
    for n in 0..TENANTS {
        let slug = format!("shop{n}");
        let new = NewTenant { name: slug.clone(), slug, ..NewTenant::default() };
        fleet.tenants().create(&context, new).await.unwrap();
    }
    fleet.close();
    drop(fleet);
    let sql = connect(&database.superuser_url()).await;
    let folder = Folder::new();
    for file in std::fs::read_dir(project().join("demo/migrations")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let slow = "CREATE TABLE extra (id int); SELECT pg_sleep(0.2); CREATE TABLE more (id int)";
    std::fs::write(folder.path().join("0009_slow.sql"), slow).unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = env_of(&app, &owner);
    let up = ["migrate", "up", "--baseline", folder.text()];

    // Of every schema: is it at the newest version, by its row, its ledger and its tables?
    let states = async || -> BTreeSet<String> {
        let states = "SELECT DISTINCT concat_ws(' ', t.version = 9,
              EXISTS (SELECT FROM freehold.ledger l WHERE l.tenant_id = t.id AND l.version = 9),
              to_regclass('tenant_' || replace(t.id::text, '-', '') || '.extra') IS NOT NULL,
              to_regclass('tenant_' || replace(t.id::text, '-', '') || '.more') IS NOT NULL)
            FROM freehold.tenant t";
        sql.query(states, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    let (before, after) = ("f f f f".to_owned(), "t t t t".to_owned());
    let adopted = async || -> i64 {
        let adopted = "SELECT count(*) FROM freehold.baseline WHERE version = 9
            OR to_regclass('freehold_template.extra') IS NOT NULL";
        sql.query_one(adopted, &[]).await.unwrap().get(0)
    };

    // In the template, and where every tenant's ledger is written.
    for (table, template) in [("freehold.baseline", 0), ("freehold.ledger", 4)] {
        let barrier = Barrier::at(table, &database).await;
        let mut running = start_freehold(&up, &env);
        barrier.is_reached(&sql).await;
        running.kill();
        barrier.lift().await;
        the_backends_end(&sql).await;
        assert_eq!(states().await, BTreeSet::from([before.clone()]), "killed at {table}");
        assert_eq!(adopted().await, template, "killed at {table}");
    }
    // Amid the fleet.
    let mut running = start_freehold(&up, &env);
    eventually("some are migrated", SOON, async || {
        let done = "SELECT count(*) FROM freehold.tenant WHERE version = 9";
        sql.query_one(done, &[]).await.unwrap().get::<_, i64>(0) > 2
    })
    .await;
    running.kill();
    the_backends_end(&sql).await;
    assert_eq!(
        states().await,
        BTreeSet::from([before, after.clone()]),
        "killed too late, or amid a tenant"
    );
    // A second run migrates the remaining tenants.
    freehold(&up, &env).ended(0);
    assert_eq!(states().await, BTreeSet::from([after]));
    let status = freehold(&["migrate", "status", "--json"], &env).ended(0).json();
    assert_eq!((&status["version"], &status["failed"]), (&json!(9), &json!([])));
}
