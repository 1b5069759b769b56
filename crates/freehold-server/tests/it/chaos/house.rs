//! The whole installation: HAProxy, two servers, PgBouncer, Redis, a primary and two replicas, at least one
//! of which has each commit before it is acknowledged.
//!
//! The primary and each replica have an address that stays the same after a failover.

use std::collections::BTreeMap;

use freehold::testing::{self, TestDatabase};

use super::address::Address;
use super::clock::Clock;
use super::disk::Disk;
use super::load::{Resident, Sent, Verdict};
use crate::balanced::{balance, wait_until_ready};
use crate::cluster::{Primary, Replica};
use crate::pooler::PgBouncer;
use crate::process::{Folder, Running, Server, free_port, token};
use crate::redis_server::RedisServer;
use crate::support::{connect, shop_and};

const TENANTS: usize = 4;
const PAPERS: &str = "CREATE TABLE papers (id int PRIMARY KEY, body text)";
const LARGE_ROW: &str = "INSERT INTO papers (id, body) VALUES (1, repeat('x', 1500000))";

/// As in `deploy/pgbouncer.ini`.
const POOLER: &str = "pool_mode = transaction
    default_pool_size = 16
    max_client_conn = 2000
    query_wait_timeout = 10
    server_connect_timeout = 5
    server_login_retry = 1";

/// Settings that the replicas inherit by being copied. A standby looks for its primary each half second
/// instead of each five: meanwhile no commit is acknowledged.
const CLUSTER: &str = "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)';
    ALTER SYSTEM SET wal_retrieve_retry_interval = '500ms';
    ALTER SYSTEM SET wal_keep_size = '128MB';
    ALTER SYSTEM SET max_wal_size = '256MB'";

pub(super) struct House {
    // Fields are dropped from top to bottom, so no component waits for one that is gone.
    _haproxy: Running,
    pub(super) servers: Vec<Server>,
    pub(super) front: u16,
    pub(super) lines: Lines,
    pub(super) primary: Replica,
    /// That of the primary, until another takes over.
    pub(super) disk: Option<Disk>,
    pub(super) replicas: Vec<Replica>,
    pub(super) residents: Vec<Resident>,
    /// A token of a tenant without clients, with one row of more than a megabyte.
    pub(super) greedy: String,
    _folder: Folder,
    /// The server from which the first of the cluster was copied, and whose folder contains all servers
    /// without a disk of their own.
    seed: Primary,
}

/// The addresses that servers are given.
pub(super) struct Lines {
    pub(super) pooler: PgBouncer,
    pub(super) redis: RedisServer,
    pub(super) to_primary: Address,
    to_replicas: [Address; 2],
    database: TestDatabase,
    /// The clock of the second server, if there is one.
    pub(super) clock: Option<Clock>,
}

impl House {
    pub(super) async fn build() -> House {
        let seed = Primary::start().await;
        let database = seed.database(&shop_and(PAPERS)).await;
        let (residents, greedy) = settle(&database).await;
        let disk = Disk::find();
        let folder = disk.as_ref().map_or(seed.folder(), Disk::folder);
        let primary = seed.replica_in(folder).await;
        primary.promote().await;
        for setting in CLUSTER.split(';') {
            primary.sql(setting).await;
        }
        let folder = seed.folder();
        let replicas = vec![primary.replica_in(folder).await, primary.replica_in(folder).await];
        primary.sql("SELECT pg_reload_conf()").await;
        let to_primary = Address::of(primary.port).await;
        let to_replicas =
            [Address::of(replicas[0].port).await, Address::of(replicas[1].port).await];
        let pooler = PgBouncer::before(&at(&database.app_url(), to_primary.port), POOLER);
        let redis = RedisServer::start().await;
        let clock = Clock::find();
        let lines = Lines { pooler, redis, to_primary, to_replicas, database, clock };
        let servers = vec![lines.server(0, 0).await, lines.server(1, 0).await];
        let (folder, front) = (Folder::new(), free_port());
        let ports = [servers[0].port, servers[1].port];
        let haproxy = tokio::task::block_in_place(|| balance(&folder, [front, free_port()], ports));
        House {
            _haproxy: haproxy,
            servers,
            front,
            lines,
            primary,
            disk,
            replicas,
            residents,
            greedy,
            _folder: folder,
            seed,
        }
    }

    /// The most advanced replica takes over, and the other follows it. The former primary is gone.
    pub(super) async fn promote(&mut self) {
        let mut received = Vec::new();
        for replica in &self.replicas {
            received.push(replica.received().await);
        }
        let best = usize::from(received[1] > received[0]);
        let new = self.replicas.remove(best);
        new.promote().await;
        self.lines.to_primary.lead_to(new.port);
        self.disk = None;
        self.replicas[0].follow(&new).await;
        self.primary = new;
        self.point_to_replicas();
    }

    /// After a failover: creates a replica in place of the one that was promoted.
    pub(super) async fn fill_up(&mut self) {
        self.replicas.push(self.primary.replica_in(self.seed.folder()).await);
        self.point_to_replicas();
    }

    fn point_to_replicas(&self) {
        for (n, address) in self.lines.to_replicas.iter().enumerate() {
            address.lead_to(self.replicas[n % self.replicas.len()].port);
        }
    }

    /// Compares the tables with what was sent.
    pub(super) async fn audit(&self, sent: &BTreeMap<usize, Sent>, verdict: &mut Verdict) {
        let database = &self.lines.database;
        let sql = connect(&at(&database.superuser_url(), self.primary.port)).await;
        for (number, resident) in self.residents.iter().enumerate() {
            let rows = format!("SELECT email, full_name, city FROM {}.customers", resident.schema);
            let rows = sql.query(&rows, &[]).await.unwrap();
            let found: BTreeMap<String, String> =
                rows.iter().map(|row| (row.get(0), row.get(2))).collect();
            let nothing = Sent::new();
            let sent = sent.get(&number).unwrap_or(&nothing);
            for (email, row) in sent.iter().filter(|(_, row)| row.is_acknowledged) {
                let city = found.get(email);
                if !city.is_some_and(|city| row.cities.contains(city)) {
                    verdict.add_lost(format!("{email}: {city:?}, not {:?}", row.cities));
                }
            }
            for row in rows {
                let (email, name): (String, String) = (row.get(0), row.get(1));
                if name != resident.mark || !sent.contains_key(&email) {
                    verdict.add_foreign(format!("{email} of {name} in {}", resident.schema));
                }
            }
        }
    }
}

impl Lines {
    /// The first or second server, which listens at a port; 0 is any.
    pub(super) async fn server(&self, number: usize, port: u16) -> Server {
        let database = &self.database;
        let primary = |url: String| at(&url, self.to_primary.port);
        let replicas =
            self.to_replicas.each_ref().map(|address| at(&database.app_url(), address.port));
        let pooled = self.pooler.url(database);
        let (owner, app) = (primary(database.owner_url()), primary(database.app_url()));
        let listener = format!("{app}?application_name=listener");
        let analytics = primary(database.analytics_url());
        let redis = self.redis.url();
        let (replicas, listen) = (replicas.join(","), format!("127.0.0.1:{port}"));
        let mut settings = vec![
            ("DATABASE_URL", pooled.as_str()),
            ("DATABASE_OWNER_URL", &owner),
            ("DATABASE_LISTEN_URL", &listener),
            ("DATABASE_ANALYTICS_URL", &analytics),
            ("DATABASE_REPLICA_URLS", &replicas),
            ("REDIS_URL", &redis),
            ("LISTEN", &listen),
            ("STARTUP_SECS", "60"),
        ];
        if let (Some(clock), 1) = (&self.clock, number) {
            settings.extend(clock.settings());
        }
        tokio::task::block_in_place(|| {
            let server = Server::start_with(database, &settings);
            wait_until_ready(server.port);
            // Two checks, until HAProxy knows it too.
            std::thread::sleep(std::time::Duration::from_millis(1500));
            server
        })
    }

    /// As a superuser, at an address that stays.
    pub(super) fn superuser_url(&self) -> String {
        at(&self.database.superuser_url(), self.to_primary.port)
    }

    pub(super) fn app_url(&self) -> String {
        at(&self.database.app_url(), self.to_primary.port)
    }
}

async fn settle(database: &TestDatabase) -> (Vec<Resident>, String) {
    let freehold = database.freehold().await.unwrap();
    let mut residents = Vec::new();
    for n in 0..TENANTS {
        let slug = format!("shop{n}");
        let (tenant, context) = testing::create_tenant(&freehold, &slug).await.unwrap();
        let owner = context.actor().id.as_uuid();
        residents.push(Resident::new(tenant.id.as_uuid(), owner, tenant.id.schema()));
    }
    let (tenant, context) = testing::create_tenant(&freehold, "greedy").await.unwrap();
    freehold.execute(&context, LARGE_ROW, &[]).await.unwrap();
    let owner = context.actor().id.as_uuid();
    freehold.close();
    (residents, token(owner, Some(tenant.id.as_uuid()), "owner"))
}

/// The same database at another port.
fn at(url: &str, port: u16) -> String {
    let (before, rest) = url.rsplit_once("127.0.0.1:").unwrap();
    let (_, path) = rest.split_once('/').unwrap();
    format!("{before}127.0.0.1:{port}/{path}")
}
