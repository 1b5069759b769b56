//! A server behind a pooler that cannot LISTEN: it polls for changes.

use std::time::Duration;

use freehold::testing::TestDatabase;
use freehold::{Freehold, Pooler};

use crate::support::{House, SOON, admin_url, notes_and, notes_baseline, operator, wait_until};

/// A fleet, and a server that believes itself behind a pooler and has looked for changes at least once.
async fn deaf() -> (House, Freehold) {
    let database = TestDatabase::create(&admin_url(), &notes_baseline()).await.unwrap();
    let freehold = database.freehold().await.unwrap();
    let mut options = database.options();
    options.pooler = Pooler::Transaction;
    let deaf = Freehold::connect(&options).await.unwrap();
    deaf.look_for_changes().await.unwrap();
    (House { freehold, database }, deaf)
}

#[tokio::test]
async fn where_nothing_can_be_heard_nothing_is_read_again_unless_it_has_changed() {
    let (house, deaf) = deaf().await;
    let acme = house.tenant("acme").await;
    let (mut baseline, mut keys) = (deaf.migrations().changes(), deaf.key_changes());
    let mut told = async || {
        deaf.look_for_changes().await.unwrap();
        [&mut baseline, &mut keys].map(|changes| {
            let has_changed = changes.has_changed().unwrap();
            changes.mark_unchanged();
            has_changed
        })
    };
    // No report for state that is cached only for half a second.
    house.freehold.tenants().suspend(&operator(), acme.tenant()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(told().await, [false, false]);
    }
    house.migrate(&notes_and(&["ALTER TABLE notes ADD COLUMN done boolean"])).await.unwrap();
    assert_eq!(told().await, [true, false]);
    assert_eq!(told().await, [false, false]);
    house.freehold.context_keys().rotate(&operator(), SOON).await.unwrap();
    assert_eq!(told().await, [false, true]);
    assert_eq!(told().await, [false, false]);
}

/// The server adopts the new key although its queries with the old one, which retires at once, are refused.
#[tokio::test]
async fn where_nothing_can_be_heard_a_new_key_is_taken_up_all_the_same() {
    let (house, deaf) = deaf().await;
    let acme = house.tenant("acme").await;
    deaf.query(&acme, "SELECT body FROM notes", &[]).await.unwrap();
    house.freehold.context_keys().rotate(&operator(), Duration::ZERO).await.unwrap();
    wait_until("it seals with the new key", SOON, async || {
        deaf.query(&acme, "SELECT body FROM notes", &[]).await.is_ok()
    })
    .await;
}
