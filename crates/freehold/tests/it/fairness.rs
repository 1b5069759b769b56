//! Tenants that wait in the database take no connection from tenants with little load.

use std::time::Duration;

use freehold::{ErrorKind, Freehold, PoolLimits, TenantContext};

use crate::support::{House, notes_baseline, operator, options, wait_until};

const READ: &str = "SELECT body FROM notes";
const SOON: Duration = Duration::from_secs(60);

/// With eight connections, of which tenants that already hold one may take seven.
async fn house_of_eight() -> House {
    let database =
        freehold::testing::TestDatabase::create(&crate::support::admin_url(), &notes_baseline())
            .await
            .unwrap();
    let mut options = options(&database);
    options.app_pool = PoolLimits { connections_max: 8, wait_max: Duration::from_secs(60) };
    let freehold = Freehold::connect(&options).await.unwrap();
    House { freehold, database }
}

/// The five hold their connections for as long as this test holds the locks that they wait for.
#[tokio::test]
async fn a_tenant_is_served_while_a_hundred_requests_of_five_others_wait_in_the_database() {
    let house = house_of_eight().await;
    let (mut crowd, mut locks) = (Vec::new(), String::from("BEGIN;"));
    for number in 0..5 {
        let tenant = house.tenant(&format!("slow-{number}")).await;
        locks.push_str(&format!("LOCK TABLE {}.notes;", tenant.tenant().schema()));
        crowd.push(tenant);
    }
    let (acme, globex) = house.acme_and_globex().await;
    let superuser = house.superuser().await;
    superuser.batch_execute(&locks).await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    let mut ask = |tenant: TenantContext| {
        let freehold = house.freehold.clone();
        asked.spawn(async move { freehold.query(&tenant, READ, &[]).await.map(drop) });
    };
    let held = || {
        let status = house.freehold.pool_status();
        status.connections - status.idle
    };
    // One of each is there before the rest comes, or the last would be a newcomer.
    crowd.iter().copied().for_each(&mut ask);
    wait_until("five are held", SOON, async || held() == 5).await;
    (0..95).for_each(|number| ask(crowd[number % crowd.len()]));
    wait_until("the crowd waits", SOON, async || house.freehold.pool_status().waiting >= 90).await;
    assert!(held() < 8, "{:?}", house.freehold.pool_status());

    // Few, since a statement of the crowd ends after thirty seconds, whatever it waits for.
    for _ in 0..5 {
        for tenant in [&acme, &globex] {
            assert_eq!(house.bodies(tenant).await.len(), 1);
        }
    }
    assert_eq!(asked.try_join_next().map(|_| ()), None, "the crowd goes on waiting");
    superuser.batch_execute("COMMIT").await.unwrap();
    while let Some(done) = asked.join_next().await {
        done.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_weight_is_from_one_to_a_hundred_and_is_kept() {
    let house = house_of_eight().await;
    let acme = house.tenant("acme").await.tenant();
    let weigh = |weight: i16| weight.try_into();
    for weight in [0, 101, -3, i16::MAX] {
        let refused = freehold::Weight::try_from(weight).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{weight}");
    }
    house.freehold.tenants().weigh(&operator(), acme, weigh(7).unwrap()).await.unwrap();
    let tenant = house.freehold.tenants().get(&operator(), acme).await.unwrap();
    assert_eq!(tenant.weight.get(), 7);
}
