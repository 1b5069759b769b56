//! Which replicas are read.

use std::time::{Duration, Instant};

use freehold::testing::create_tenant;
use freehold::{ErrorKind, Freehold, ReplicaLimits, ReplicaState};

use super::{SOON, bodies, house, house_with, notes, options, patient};
use crate::cluster::Primary;
use crate::pooler::PgBouncer;
use crate::support::{connect, eventually};

fn impatient() -> ReplicaLimits {
    ReplicaLimits { lag_max: Duration::from_secs(2), wait_max: Duration::from_millis(100) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lags_is_left_out_and_comes_back_when_it_has_caught_up() {
    let house = house(impatient()).await;
    let acme = house.tenant("acme").await;
    house.note(&acme, "old").await;
    house.until_replayed().await;
    house.replica.pause().await;
    house.note(&acme, "new").await;
    house.until(ReplicaState::Lagging).await;
    let status = &house.freehold.replica_status()[0];
    assert!(status.lag_bytes.unwrap() > 0, "{status:?}");
    assert!(status.lag.unwrap() >= Duration::from_secs(1), "{status:?}");
    assert_eq!(house.read(&acme, None).await, (bodies(["old", "new"]), false));
    assert!(house.reads().none_fit > 0);
    house.replica.resume().await;
    house.until_serving().await;
    eventually("it is read again", SOON, async || house.read(&acme, None).await.1).await;
    assert_eq!(house.reads().failed, 0);
}

/// Even between two checks: every read sees what was committed longer ago than the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_the_limit_however_the_replica_stands_still() {
    let house = house(impatient()).await;
    let acme = house.tenant("acme").await;
    house.until_replayed().await;
    house.replica.pause().await;
    house.note(&acme, "new").await;
    let committed = Instant::now();
    let mut both = [false; 2];
    while !both[1] || committed.elapsed() < Duration::from_secs(4) {
        let began = Instant::now();
        let (rows, by_replica) = house.read(&acme, None).await;
        both[usize::from(!by_replica)] = true;
        assert_eq!(by_replica, rows.is_empty());
        // The primary is looked at four times a second.
        let limit = impatient().lag_max + Duration::from_secs(1);
        assert!(!rows.is_empty() || began - committed < limit, "{:?}", began - committed);
        assert!(committed.elapsed() < SOON);
    }
    assert!(both[0], "the replica was read at first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_rests_makes_no_replica_lag() {
    let house = house(impatient()).await;
    let acme = house.tenant("acme").await;
    house.until_replayed().await;
    // The last that it replayed is then older than its data may be.
    tokio::time::sleep(2 * impatient().lag_max).await;
    // Not at every moment: PostgreSQL also writes to its log when it is idle, and a busy machine may query
    // the two servers late.
    eventually("the replica has all there is and is read", SOON, async || {
        let status = house.freehold.replica_status()[0].clone();
        status.state == ReplicaState::Serving
            && status.lag == Some(Duration::ZERO)
            && house.read(&acme, None).await.1
    })
    .await;
}

/// Its data diverge from the promotion on, and no read may see that, not even before the next check.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_is_not_read_from_the_moment_of_its_promotion() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    house.note(&acme, "common").await;
    house.until_replayed().await;
    assert!(house.read(&acme, None).await.1);
    let astray = connect(&house.replica.url(&house.database.superuser_url())).await;
    let schema = acme.tenant().schema();
    let sql = format!("INSERT INTO {schema}.notes (body) VALUES ('astray')");
    let freehold = house.freehold.clone();
    let reader = tokio::spawn(async move {
        let (mut by_replica, mut reads_since) = (0, 0);
        while reads_since < 20 {
            let mut read = freehold.begin_read(&acme, None).await.unwrap();
            let rows = read.query_and_end("SELECT body FROM notes", &[]).await.unwrap();
            assert_eq!(rows.len(), 1, "{rows:?} by the replica: {}", read.is_on_replica());
            match read.is_on_replica() {
                true => by_replica += 1,
                false => reads_since += 1,
            }
        }
        by_replica
    });
    // The row comes as soon as one can, and before the next look at the replica.
    house.replica.sql("SELECT pg_promote(wait => false)").await;
    let promoted = Instant::now();
    while astray.batch_execute(&sql).await.is_err() {
        assert!(promoted.elapsed() < SOON, "it is not promoted");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(reader.await.unwrap() > 0, "it was read before");
    house.until(ReplicaState::Promoted).await;
    assert_eq!(house.read(&acme, None).await, (bodies(["common"]), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_replica_of_this_database_is_not_read() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    let written = house.note(&acme, "here").await;
    let other_database = house.primary.database(&notes()).await;
    house.until_replayed().await;
    let elsewhere = Primary::start().await;
    let stranger = elsewhere.database(&notes()).await;

    // A replica of another database of the same server; another server; the primary itself.
    let app_url = house.database.app_url();
    for (url, state) in [
        (house.replica.url(&other_database.app_url()), ReplicaState::Foreign),
        (stranger.app_url(), ReplicaState::Foreign),
        (app_url, ReplicaState::Promoted),
    ] {
        let mut options = options(&house.database, &house.replica, patient());
        options.replica_urls = vec![url];
        let freehold = Freehold::connect(&options).await.unwrap();
        eventually(state.as_str(), SOON, async || freehold.replica_status()[0].state == state)
            .await;
        let mut read = freehold.begin_read(&acme, written).await.unwrap();
        assert_eq!(read.query_and_end("SELECT FROM notes", &[]).await.unwrap().len(), 1);
        assert!(!read.is_on_replica(), "{state:?}");
    }

    // A replica of a copy that was promoted: the same system, in recovery, and astray all the same.
    let astray = house.replica.replica_in(house.primary.folder()).await;
    house.replica.promote().await;
    let promoted = connect(&house.replica.superuser_url()).await;
    promoted.batch_execute("CHECKPOINT").await.unwrap();
    let follower = connect(&astray.superuser_url()).await;
    eventually("it has followed", SOON, async || {
        follower.batch_execute("CHECKPOINT").await.unwrap();
        let timeline = "SELECT timeline_id FROM pg_control_checkpoint()";
        follower.query_one(timeline, &[]).await.unwrap().get::<_, i32>(0) == 2
    })
    .await;
    let options = options(&house.database, &astray, patient());
    let freehold = Freehold::connect(&options).await.unwrap();
    eventually("foreign", SOON, async || {
        freehold.replica_status()[0].state == ReplicaState::Foreign
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_url_that_row_level_security_does_not_bind_stops_the_start() {
    let house = house(patient()).await;
    let at_replica = |url: String| house.replica.url(&url);
    for (url, says) in [
        (at_replica(house.database.superuser_url()), "a superuser"),
        (at_replica(house.database.owner_url()), "the owner of the tenants' tables"),
        (at_replica(house.database.analytics_url()), "must connect as freehold_app"),
        ("postgres://a@one,two/x".to_owned(), "names one host"),
        ("not a url".to_owned(), "is not a PostgreSQL connection string"),
    ] {
        let mut options = house.database.options();
        options.replica_urls = vec![url];
        let refused = Freehold::connect(&options).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Setup, "{refused}");
        let message = refused.message();
        assert!(message.contains(says) && message.contains("DATABASE_REPLICA_URLS"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_there_at_the_start_is_read_once_it_is() {
    let mut house = house(patient()).await;
    let acme = house.tenant("acme").await;
    house.note(&acme, "here").await;
    house.replica.kill();
    let options = options(&house.database, &house.replica, patient());
    let freehold = Freehold::connect(&options).await.unwrap();
    assert_eq!(freehold.replica_status()[0].state, ReplicaState::Unreachable);
    let ask = "SELECT FROM notes";
    let mut read = freehold.begin_read(&acme, None).await.unwrap();
    assert_eq!(read.query_and_end(ask, &[]).await.unwrap().len(), 1);
    assert!(!read.is_on_replica());
    house.replica.start().await;
    eventually("it is read", SOON, async || {
        let mut read = freehold.begin_read(&acme, None).await.unwrap();
        assert_eq!(read.query_and_end(ask, &[]).await.unwrap().len(), 1);
        read.is_on_replica()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_behind_a_pooler_is_read_and_one_that_mixes_transactions_up_is_refused() {
    let house = house(patient()).await;
    let (_, acme) = create_tenant(&house.freehold, "acme").await.unwrap();
    let (_, globex) = create_tenant(&house.freehold, "globex").await.unwrap();
    for (tenant, slug) in [(&acme, "acme"), (&globex, "globex")] {
        house.note(tenant, slug).await;
    }
    house.until_replayed().await;
    let replica_url = house.replica.url(&house.database.app_url());
    let pooler = PgBouncer::before(&replica_url, "pool_mode = transaction");
    let mut options = options(&house.database, &house.replica, patient());
    options.replica_urls = vec![pooler.url_of(&replica_url)];
    let freehold = Freehold::connect(&options).await.unwrap();
    eventually("it serves", SOON, async || {
        freehold.replica_status()[0].state == ReplicaState::Serving
    })
    .await;
    let clients = [(acme, "acme"), (globex, "globex")].map(|(tenant, slug)| {
        let freehold = freehold.clone();
        tokio::spawn(async move {
            let mut by_replica = 0;
            for _ in 0..20 {
                let mut read = freehold.begin_read(&tenant, None).await.unwrap();
                let row = read.query_one("SELECT body FROM notes", &[]).await.unwrap();
                assert_eq!(row.get::<_, &str>(0), slug);
                by_replica += i32::from(read.is_on_replica());
            }
            by_replica
        })
    });
    for client in clients {
        assert!(client.await.unwrap() > 0, "the replica answers through the pooler");
    }

    let pooler = PgBouncer::before(&replica_url, "pool_mode = statement");
    options.replica_urls = vec![pooler.url_of(&replica_url)];
    let refused = Freehold::connect(&options).await;
    let served = refused.map(|freehold| freehold.replica_status()[0].state);
    assert!(
        served.as_ref().is_err_and(|error| error.kind() == ErrorKind::Setup)
            || served.as_ref().is_ok_and(|state| *state != ReplicaState::Serving),
        "{served:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_replica_has_a_limit_of_connections_and_the_rest_goes_to_the_primary() {
    let house = house_with(patient(), |options| options.app_pool.connections_max = 2).await;
    let acme = house.tenant("acme").await;
    let globex = house.tenant("globex").await;
    let written = house.note(&acme, "here").await;
    house.until_replayed().await;
    let mut held = Vec::new();
    for tenant in [acme, globex] {
        let mut read = house.freehold.begin_read(&tenant, None).await.unwrap();
        read.query("SELECT FROM notes", &[]).await.unwrap();
        assert!(read.is_on_replica());
        held.push(read);
    }
    assert_eq!(house.read(&acme, written).await, (bodies(["here"]), false));
    let pool = house.freehold.replica_status()[0].pool;
    assert_eq!((pool.connections_max, pool.connections, pool.idle), (2, 2, 0));
    drop(held);
    eventually("it is free again", SOON, async || house.read(&acme, written).await.1).await;
}
