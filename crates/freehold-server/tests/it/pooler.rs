//! The library behind a PgBouncer, where tenants share sessions.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use freehold::testing::{PASSWORD, TestDatabase, create_tenant};
use freehold::{Actor, ErrorKind, Freehold, OperatorContext, Pooler};

use self::mixing::{Choice, MixingPooler};
use crate::process::{Folder, free_port};
use crate::support::{SOON, admin_url, connect, eventually, server_and_database, shop};

mod mixing;

pub(crate) struct PgBouncer {
    child: Child,
    port: u16,
    folder: Folder,
}

impl PgBouncer {
    /// In front of the test server, with one connection for all clients.
    pub(crate) fn start(database: &TestDatabase, settings: &str) -> PgBouncer {
        PgBouncer::before(&database.app_url(), settings)
    }

    /// In front of the server and database of a URL.
    pub(crate) fn before(url: &str, settings: &str) -> PgBouncer {
        let folder = Folder::new();
        let port = free_port();
        let (server, name) = server_and_database(url);
        let (host, server_port) = server.rsplit_once(':').unwrap_or((server, "5432"));
        let users = folder.path().join("users.txt");
        let ini = format!(
            "[databases]\n{name} = host={host} port={server_port}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = plain\nauth_file = {}\ndefault_pool_size = 1\n{settings}\n",
            users.display()
        );
        let line = |role| format!("\"{role}\" \"{PASSWORD}\"\n");
        let lines = ["freehold_app", "freehold_catalog"].map(line).concat();
        std::fs::write(&users, lines).unwrap();
        std::fs::write(folder.path().join("pgbouncer.ini"), ini).unwrap();
        // It contains only a test's password, and the user that PgBouncer runs as must be able to read it.
        std::fs::set_permissions(&users, std::fs::Permissions::from_mode(0o644)).unwrap();
        let child = PgBouncer::spawn(&folder, port);
        PgBouncer { child, port, folder }
    }

    fn spawn(folder: &Folder, port: u16) -> Child {
        let known =
            ["/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
        let program = known.iter().find(|path| std::path::Path::new(path).exists());
        let mut command = Command::new(program.unwrap_or(&"pgbouncer"));
        if is_root(folder) {
            command.args(["-u", "nobody"]);
        }
        let child = command
            .arg(folder.path().join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer runs; ./dev test installs it");
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < SOON, "pgbouncer does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }

    /// Ends it at once, wherever it is.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// After a kill, at the same port.
    pub(crate) fn start_again(&mut self) {
        self.child = PgBouncer::spawn(&self.folder, self.port);
    }

    pub(crate) fn url(&self, database: &TestDatabase) -> String {
        self.url_of(&database.app_url())
    }

    /// The same database, by this pooler.
    pub(crate) fn url_of(&self, url: &str) -> String {
        let name = url.rsplit_once('/').unwrap().1;
        format!("postgres://freehold_app:{PASSWORD}@127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// PgBouncer does not run as root.
fn is_root(folder: &Folder) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(folder.path()).unwrap().uid() == 0
}

async fn database() -> TestDatabase {
    TestDatabase::create(&admin_url(), &shop()).await.unwrap()
}

/// A server whose requests go through the pooler.
async fn behind(pooler: &PgBouncer, database: &TestDatabase) -> freehold::Result<Freehold> {
    let mut options = database.options();
    options.app_url = pooler.url(database);
    Freehold::connect(&options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_of_two_tenants_share_few_sessions_behind_a_pooler() {
    // One session is shared by all clients; of three, a client gets another one each time.
    for sessions in [1, 3] {
        share(sessions).await;
    }
}

async fn share(sessions: usize) {
    let database = database().await;
    let pooler = PgBouncer::start(
        &database,
        &format!("pool_mode = transaction\ndefault_pool_size = {sessions}"),
    );
    let freehold = behind(&pooler, &database).await.unwrap();
    let (_, acme) = create_tenant(&freehold, "acme").await.unwrap();
    let (_, globex) = create_tenant(&freehold, "globex").await.unwrap();
    let work = |tenant: freehold::TenantContext| {
        let freehold = freehold.clone();
        async move {
            let ask = "SELECT freehold.tenant(), count(*) FROM orders WHERE true = $1";
            for _ in 0..10 {
                let rows = freehold.query(&tenant, ask, &[&true]).await?;
                assert_eq!(rows[0].get::<_, uuid::Uuid>(0), tenant.tenant().as_uuid());
                let mut tx = freehold.begin(&tenant).await?;
                tx.execute("SELECT 1", &[]).await?;
                let row = tx.query_one(ask, &[&true]).await?;
                assert_eq!(row.get::<_, uuid::Uuid>(0), tenant.tenant().as_uuid());
                tx.commit().await?;
            }
            Ok::<(), freehold::Error>(())
        }
    };
    let clients: Vec<_> =
        (0..8).map(|n| tokio::spawn(work(if n % 2 == 0 { acme } else { globex }))).collect();
    for client in clients {
        client.await.unwrap().unwrap();
    }
    // Whatever was left on the session would be met by the next client of the pooler.
    let bare = connect(&pooler.url(&database)).await;
    let rows = bare.simple_query("SELECT current_user, current_setting('search_path')").await;
    let row = rows.unwrap().into_iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.unwrap();
    assert_eq!((row.get(0), row.get(1)), (Some("freehold_app"), Some("pg_temp")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_breaks_transactions_apart_is_not_served_behind() {
    let database = database().await;
    let pooler = PgBouncer::start(&database, "pool_mode = statement");
    let refused = behind(&pooler, &database).await.err().expect("it is served behind");
    assert_eq!(refused.kind(), ErrorKind::Setup, "{refused}");
    assert!(refused.to_string().contains("pool_mode = transaction"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_mixes_its_clients_up_is_not_served_behind() {
    let database = database().await;
    let cases = [
        (Choice::Own, None),
        (Choice::First, Some("lets one client see what another's transaction has set")),
        (Choice::Next, Some("gives the statements of one transaction to different sessions")),
    ];
    for (choice, expected) in cases {
        let pooler = MixingPooler::before(&database.app_url(), choice).await;
        let mut options = database.options();
        options.app_url = pooler.url().to_owned();
        options.pooler = Pooler::Transaction;
        match (Freehold::connect(&options).await, expected) {
            (Ok(freehold), None) => freehold.close(),
            (Err(refused), Some(expected)) => {
                assert_eq!(refused.kind(), ErrorKind::Setup, "{refused}");
                assert!(refused.to_string().contains(expected), "{refused}");
            }
            (Ok(_), Some(fault)) => panic!("it is served behind a pooler that {fault}"),
            (Err(error), None) => panic!("{error:?}"),
        }
    }
}

/// A pooler that rotates its sessions gives each transaction another one, without the previous one's prepared
/// statements.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_behind_a_pooler_of_many_sessions() {
    let database = database().await;
    let settings = "pool_mode = transaction\ndefault_pool_size = 8\nserver_round_robin = 1";
    let pooler = PgBouncer::start(&database, settings);
    let mut others = Vec::new();
    for _ in 0..4 {
        let other = connect(&pooler.url(&database)).await;
        other.batch_execute("BEGIN").await.unwrap();
        others.push(other);
    }
    for other in &others {
        other.batch_execute("ROLLBACK").await.unwrap();
    }
    for _ in 0..4 {
        behind(&pooler, &database).await.unwrap().close();
    }
}

/// LISTEN is not possible there, so cached state must not be used for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspension_is_heard_of_behind_a_pooler() {
    let database = database().await;
    let pooler = PgBouncer::start(&database, "pool_mode = transaction");
    let (direct, behind) =
        (database.freehold().await.unwrap(), behind(&pooler, &database).await.unwrap());
    let (acme, _) = create_tenant(&direct, "acme").await.unwrap();
    // Long enough for the listener to count as connected.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        behind.tenant_context_as(acme.id, Actor::SYSTEM).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    direct.tenants().suspend(&OperatorContext::system("a test"), acme.id).await.unwrap();
    eventually("the suspension is known", SOON, async || {
        match behind.tenant_context_as(acme.id, Actor::SYSTEM).await {
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::TenantSuspended,
        }
    })
    .await;
}
