//! Reads on real streaming replicas: right, isolated, and never failing because of a replica.

mod analytics;
mod failover;
mod fitness;
mod http;
mod isolation;
mod reads;

use std::time::Duration;

use freehold::testing::{TestDatabase, create_tenant};
use freehold::{
    Baseline, Freehold, Lsn, Migration, Options, ReplicaLimits, ReplicaReads, ReplicaState,
    TenantContext,
};

use crate::cluster::{Primary, Replica};
use crate::support::{connect, eventually};

/// On a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn notes() -> Baseline {
    let sql = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL)";
    Baseline::from_migrations(vec![Migration::new(1, "notes", sql)]).unwrap()
}

/// A primary, a replica, and a server that reads both.
struct House {
    // Fields are dropped from top to bottom, so no component waits for a server that is gone.
    freehold: Freehold,
    replica: Replica,
    database: TestDatabase,
    primary: Primary,
}

/// Limits that no test comes near unless it wants to.
fn patient() -> ReplicaLimits {
    ReplicaLimits { lag_max: Duration::from_secs(3600), wait_max: Duration::from_millis(100) }
}

async fn house(limits: ReplicaLimits) -> House {
    house_with(limits, |_| {}).await
}

async fn house_with(limits: ReplicaLimits, change: impl FnOnce(&mut Options)) -> House {
    let primary = Primary::start().await;
    let database = primary.database(&notes()).await;
    let replica = primary.replica().await;
    let mut options = options(&database, &replica, limits);
    change(&mut options);
    let freehold = Freehold::connect(&options).await.unwrap();
    let house = House { freehold, replica, database, primary };
    house.until_serving().await;
    house
}

fn options(database: &TestDatabase, replica: &Replica, limits: ReplicaLimits) -> Options {
    let mut options = database.options().replica_url(replica.url(&database.app_url()));
    options.replica_limits = limits;
    options
}

impl House {
    async fn tenant(&self, slug: &str) -> TenantContext {
        create_tenant(&self.freehold, slug).await.unwrap().1
    }

    /// Writes a note; returns what a read must send to see it.
    async fn note(&self, tenant: &TenantContext, body: &str) -> Option<Lsn> {
        let tx = self.freehold.begin(tenant).await.unwrap();
        let insert = "INSERT INTO notes (body) VALUES ($1)";
        tx.query_and_commit_at(insert, &[&body]).await.unwrap().1
    }

    /// The result of a read, and whether the replica answered.
    async fn read(&self, tenant: &TenantContext, since: Option<Lsn>) -> (Vec<String>, bool) {
        let mut tx = self.freehold.begin_read(tenant, since).await.unwrap();
        let rows = tx.query_and_end("SELECT body FROM notes ORDER BY id", &[]).await.unwrap();
        (rows.iter().map(|row| row.get(0)).collect(), tx.is_on_replica())
    }

    fn violations(&self) -> u64 {
        self.freehold.violations().counts().by_kind.iter().map(|(_, count)| count).sum()
    }

    fn state(&self) -> ReplicaState {
        self.freehold.replica_status()[0].state
    }

    fn reads(&self) -> ReplicaReads {
        self.freehold.replica_reads()
    }

    async fn until(&self, state: ReplicaState) {
        eventually(state.as_str(), SOON, async || self.state() == state).await;
    }

    async fn until_serving(&self) {
        self.until(ReplicaState::Serving).await;
    }

    /// Until the replica is known to have all that was committed.
    async fn until_replayed(&self) {
        let sql = connect(&self.database.superuser_url()).await;
        let written = "SELECT pg_current_wal_flush_lsn()::text";
        let written: String = sql.query_one(written, &[]).await.unwrap().get(0);
        let written: Lsn = written.parse().unwrap();
        eventually("the replica has caught up", SOON, async || {
            let status = self.freehold.replica_status()[0].clone();
            status.replayed >= Some(written) && status.lag == Some(Duration::ZERO)
        })
        .await;
    }
}

fn bodies<const N: usize>(bodies: [&str; N]) -> Vec<String> {
    bodies.map(str::to_owned).into()
}
