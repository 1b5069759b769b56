//! Which slot is given, and to which waiter.

use super::*;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(20);

fn tenant(number: u64) -> TenantKey {
    TenantKey::Tenant(number)
}

async fn take(scheduler: &Arc<Scheduler<u32>>, key: TenantKey) -> SlotGuard<u32> {
    scheduler.take(key, Weight::ONE, Instant::now(), LONG).await.ok().unwrap()
}

/// A scheduler whose tenants have each had one slot.
async fn known_to(slots: usize, tenants: std::ops::Range<u64>) -> Arc<Scheduler<u32>> {
    let scheduler = Scheduler::new(slots);
    for number in tenants {
        drop(take(&scheduler, tenant(number)).await);
    }
    scheduler
}

/// Records this many timely answers of the database.
fn at_ease(scheduler: &Arc<Scheduler<u32>>, answers: usize) {
    (0..answers).for_each(|_| scheduler.heed(Some(Duration::from_millis(1))));
    scheduler.reconsider();
}

/// A caller that is waiting by the time this returns.
async fn waiting(
    scheduler: &Arc<Scheduler<u32>>,
    key: TenantKey,
) -> tokio::task::JoinHandle<Result<SlotGuard<u32>, NoSlot>> {
    waiting_as(scheduler, key, Weight::ONE).await
}

async fn waiting_as(
    scheduler: &Arc<Scheduler<u32>>,
    key: TenantKey,
    weight: Weight,
) -> tokio::task::JoinHandle<Result<SlotGuard<u32>, NoSlot>> {
    let before = scheduler.occupancy().waiting;
    let task = tokio::spawn({
        let scheduler = Arc::clone(scheduler);
        async move { scheduler.take(key, weight, Instant::now(), LONG).await }
    });
    while scheduler.occupancy().waiting == before {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test(start_paused = true)]
async fn rest_is_when_nobody_has_a_slot() {
    let scheduler = Scheduler::new(2);
    scheduler.rest().await;
    let (one, other) = (take(&scheduler, tenant(0)).await, take(&scheduler, tenant(1)).await);
    let next = waiting(&scheduler, TenantKey::None).await;
    let resting = {
        let scheduler = Arc::clone(&scheduler);
        tokio::spawn(async move { scheduler.rest().await })
    };
    drop(one);
    let next = next.await.unwrap().ok().unwrap();
    drop(other);
    tokio::time::sleep(SHORT).await;
    assert!(!resting.is_finished(), "a slot went to the next who waited");
    drop(next);
    tokio::time::timeout(LONG, resting).await.expect("nobody has a slot").unwrap();
    let last = take(&scheduler, tenant(0)).await;
    scheduler.close();
    drop(last);
    tokio::time::timeout(LONG, scheduler.rest()).await.expect("a closed pool is at rest");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_comes_back_to_its_connection() {
    let scheduler = Scheduler::new(4);
    for number in [5, 6, 9, 5, 6] {
        let mut slot = take(&scheduler, tenant(number)).await;
        assert_eq!(slot.number as u64, number % 4);
        slot.content.get_or_insert(number as u32 % 4);
    }
    for number in [1, 2] {
        assert_eq!(take(&scheduler, tenant(number)).await.content, Some(number as u32));
    }
    let Occupancy { idle, taken, .. } = scheduler.occupancy();
    assert_eq!((idle, taken), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_home_is_taken_for_long_goes_elsewhere() {
    let scheduler = Scheduler::new(3);
    let home = take(&scheduler, tenant(1)).await;
    assert_eq!(take(&scheduler, tenant(4)).await.number, 2);
    tokio::time::sleep(PATIENCE).await;
    let waits = scheduler.occupancy().waits.count;
    let (one, other) = (take(&scheduler, tenant(4)).await, take(&scheduler, TenantKey::None).await);
    assert_eq!((one.number, other.number), (2, 0));
    assert_eq!(scheduler.occupancy().waits.count, waits, "nobody waited");
    drop(home);
}

#[tokio::test(start_paused = true)]
async fn a_home_that_is_free_soon_is_waited_for() {
    let scheduler = Scheduler::new(2);
    let home = take(&scheduler, tenant(2)).await;
    let next = waiting(&scheduler, tenant(4)).await;
    drop(home);
    assert_eq!(next.await.unwrap().ok().unwrap().number, 0);
}

#[tokio::test(start_paused = true)]
async fn no_tenant_takes_every_slot() {
    let scheduler = known_to(4, 0..1).await;
    let mut greedy = Vec::new();
    for _ in 0..3 {
        greedy.push(take(&scheduler, tenant(0)).await);
    }
    let refused = scheduler.take(tenant(0), Weight::ONE, Instant::now(), SHORT).await;
    assert_eq!(refused.err(), Some(NoSlot::Busy));
    assert_eq!(scheduler.occupancy().waits.refused, 1);
    let fourth = waiting(&scheduler, tenant(0)).await;
    let other = take(&scheduler, tenant(4)).await;
    assert_eq!(other.number, 3);
    drop(other);
    assert_eq!(scheduler.occupancy().waiting, 1, "not even one that nobody else wants");
    drop(greedy.pop());
    drop(fourth.await.unwrap().ok().unwrap());
}

#[tokio::test(start_paused = true)]
async fn newcomers_find_a_slot_whatever_the_others_hold() {
    let scheduler = known_to(8, 0..3).await;
    let mut held = Vec::new();
    for number in [0, 1, 2, 0, 1, 2, 0] {
        held.push(take(&scheduler, tenant(number)).await);
    }
    let more = [waiting(&scheduler, tenant(0)).await, waiting(&scheduler, tenant(1)).await];
    for number in 3..20 {
        drop(take(&scheduler, tenant(number)).await);
    }
    assert_eq!(scheduler.occupancy().waiting, 2);
    drop(held.pop());
    let [first, second] = more;
    drop(first.await.unwrap().ok().unwrap());
    drop(second.await.unwrap().ok().unwrap());
}

#[tokio::test(start_paused = true)]
async fn of_those_who_wait_who_holds_the_fewest_is_next() {
    let scheduler = known_to(3, 1..4).await;
    scheduler.forget_homes();
    let (one, two) = (take(&scheduler, tenant(1)).await, take(&scheduler, tenant(1)).await);
    let other = take(&scheduler, tenant(2)).await;
    let third = waiting(&scheduler, tenant(1)).await;
    let second = waiting(&scheduler, tenant(2)).await;
    let first = waiting(&scheduler, tenant(3)).await;
    drop(one);
    let first = first.await.unwrap().ok().unwrap();
    drop(first);
    // Both tenants hold one slot: the earlier waiter is next.
    let third = third.await.unwrap().ok().unwrap();
    drop((two, third));
    drop(second.await.unwrap().ok().unwrap());
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_of_more_weight_holds_more_before_others_come_first() {
    let scheduler = known_to(3, 1..3).await;
    scheduler.forget_homes();
    let (one, two) = (take(&scheduler, tenant(1)).await, take(&scheduler, tenant(1)).await);
    let other = take(&scheduler, tenant(2)).await;
    let light = waiting(&scheduler, tenant(2)).await;
    let first = waiting_as(&scheduler, tenant(1), 3.try_into().unwrap()).await;
    drop(one);
    let first = first.await.unwrap().ok().unwrap();
    assert!(
        !light.is_finished(),
        "two for a weight of three are fewer than one for a weight of one"
    );
    drop((two, first));
    drop(light.await.unwrap().ok().unwrap());
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_nothing_is_known_of_has_one_slot_until_it_leaves_it() {
    let scheduler = Scheduler::new(8);
    let mut first = take(&scheduler, tenant(0)).await;
    first.content = Some(7);
    let second = waiting(&scheduler, tenant(0)).await;
    drop(take(&scheduler, tenant(1)).await);
    tokio::time::sleep(PATIENCE * 2).await;
    assert_eq!(scheduler.occupancy().waiting, 1);
    drop(first);
    let second = second.await.unwrap().ok().unwrap();
    drop((take(&scheduler, tenant(0)).await, second));
}

#[tokio::test(start_paused = true)]
async fn slow_tenants_get_more_slots_as_the_database_bears_it() {
    let scheduler = known_to(16, 0..5).await;
    let mut held = Vec::new();
    for number in 0..5 {
        held.push(take(&scheduler, tenant(number)).await);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for number in 0..3 {
        held.push(take(&scheduler, tenant(number)).await);
    }
    let mut more = Vec::new();
    for number in 0..5 {
        more.push(waiting(&scheduler, tenant(number)).await);
    }
    tokio::time::sleep(PATIENCE).await;
    at_ease(&scheduler, 0);
    assert_eq!(scheduler.occupancy().taken, 8, "half, before the database was asked");
    at_ease(&scheduler, 2);
    assert_eq!(scheduler.occupancy().taken, 9);
    // While every open connection is taken, the load cannot be measured.
    scheduler.heed_unasked();
    scheduler.heed_unasked();
    scheduler.reconsider();
    assert_eq!(scheduler.occupancy().taken, 10);
}

/// A slow tenant becomes rested by time alone, without a slot being released at that moment.
#[tokio::test(start_paused = true)]
async fn who_was_slow_gets_a_free_slot_when_that_is_over() {
    let scheduler = Scheduler::new(4);
    for _ in 0..8 {
        let slow = take(&scheduler, tenant(0)).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(slow);
    }
    let mut held = Vec::new();
    for number in [1, 2, 3] {
        held.push(take(&scheduler, tenant(number)).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    at_ease(&scheduler, 8);
    let next = waiting(&scheduler, tenant(0)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(scheduler.occupancy().waiting, 1);
    scheduler.reconsider();
    assert_eq!(next.await.unwrap().ok().unwrap().number, 0);
}

#[tokio::test(start_paused = true)]
async fn where_there_is_no_room_one_waits_for_a_slot_in_use() {
    let scheduler = Scheduler::new(4);
    let mut held = take(&scheduler, tenant(0)).await;
    held.content = Some(7);
    let refused = take(&scheduler, tenant(1)).await;
    assert!(scheduler.give_up(refused), "one is in use");
    let next = waiting(&scheduler, tenant(1)).await;
    drop(held);
    let next = next.await.unwrap().ok().unwrap();
    assert_eq!((next.number, next.content), (0, Some(7)), "and no vacant one");
    assert!(scheduler.note_room() && !scheduler.note_room());
    assert_eq!(take(&scheduler, tenant(1)).await.number, 1, "now there is room");
}

#[tokio::test(start_paused = true)]
async fn who_holds_what_is_open_is_sent_to_try_for_more_too() {
    let scheduler = known_to(8, 0..2).await;
    let mut held = Vec::new();
    for number in [0, 1, 0, 1] {
        let mut slot = take(&scheduler, tenant(number)).await;
        slot.content = Some(7);
        held.push(slot);
    }
    scheduler.give_up(take(&scheduler, tenant(2)).await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    at_ease(&scheduler, 8);
    let next = waiting(&scheduler, tenant(0)).await;
    assert_eq!(next.await.unwrap().ok().unwrap().content, None);
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_in_use_there_is_nothing_to_wait_for() {
    let scheduler = Scheduler::new(4);
    for _ in 0..3 {
        let refused = take(&scheduler, tenant(1)).await;
        assert!(!scheduler.give_up(refused));
    }
    let refused = take(&scheduler, tenant(1)).await;
    let other = take(&scheduler, tenant(2)).await;
    assert!(scheduler.give_up(refused), "the other may yet be filled");
    let next = waiting(&scheduler, tenant(1)).await;
    assert!(!scheduler.give_up(other));
    assert_eq!(next.await.unwrap().ok().unwrap().content, None, "it is left to try");
}

#[tokio::test(start_paused = true)]
async fn without_room_one_of_those_who_wait_is_sent_to_try_now_and_then() {
    let scheduler = Scheduler::new(8);
    let held = take(&scheduler, tenant(0)).await;
    scheduler.give_up(take(&scheduler, tenant(1)).await);
    let (one, other) = (waiting(&scheduler, tenant(1)).await, waiting(&scheduler, tenant(2)).await);
    let until = scheduler.state().full_until.unwrap();
    let may_fill = |now| scheduler.state().may_fill(now);
    assert!(!may_fill(until - Duration::from_nanos(1)) && may_fill(until));
    let first = one.await.unwrap().ok().unwrap();
    assert_eq!(first.content, None);
    assert!(!may_fill(until), "the next who tries comes later");
    assert!(scheduler.note_room());
    drop(other.await.unwrap().ok().unwrap());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_has_not_lost_its_turn() {
    let scheduler = Scheduler::new(1);
    let held = take(&scheduler, tenant(0)).await;
    let later = waiting(&scheduler, tenant(1)).await;
    let long_ago = Instant::now().checked_sub(SHORT).unwrap();
    let earlier = tokio::spawn({
        let scheduler = Arc::clone(&scheduler);
        async move { scheduler.take(tenant(1), Weight::ONE, long_ago, LONG).await }
    });
    while scheduler.occupancy().waiting < 2 {
        tokio::task::yield_now().await;
    }
    drop(held);
    drop(earlier.await.unwrap().ok().unwrap());
    drop(later.await.unwrap().ok().unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_has_no_home_gets_a_turn_beside_those_who_have() {
    let scheduler = Scheduler::new(1);
    let mut held = take(&scheduler, tenant(0)).await;
    let key = waiting(&scheduler, TenantKey::None).await;
    let mut served = 0;
    while !key.is_finished() {
        let next = waiting(&scheduler, tenant(served)).await;
        drop(held);
        tokio::task::yield_now().await;
        served += 1;
        assert!(served < 20, "the key starves");
        if scheduler.occupancy().waiting > 0 && !next.is_finished() {
            // It was this key's turn.
            drop(key.await.unwrap().ok().unwrap());
            assert_eq!(served, u64::from(HOME_STREAK_MAX) + 1);
            drop(next.await.unwrap().ok().unwrap());
            return;
        }
        held = next.await.unwrap().ok().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_given_to_one_who_left_is_given_to_the_next() {
    let scheduler = Scheduler::new(1);
    let mut held = take(&scheduler, tenant(0)).await;
    held.content = Some(7);
    let (left, stays) =
        (waiting(&scheduler, tenant(0)).await, waiting(&scheduler, tenant(0)).await);
    left.abort();
    let _ = left.await;
    assert_eq!(scheduler.occupancy().waiting, 1);
    drop(held);
    assert_eq!(stays.await.unwrap().ok().unwrap().content, Some(7));
}

#[tokio::test(start_paused = true)]
async fn closed_lanes_are_empty_and_refuse() {
    let scheduler = Scheduler::new(1);
    let mut held = take(&scheduler, tenant(0)).await;
    held.content = Some(7);
    let waits = waiting(&scheduler, tenant(0)).await;
    scheduler.close();
    assert_eq!(waits.await.unwrap().err(), Some(NoSlot::Closed));
    drop(held);
    let refused = scheduler.take(TenantKey::None, Weight::ONE, Instant::now(), LONG).await;
    assert_eq!(refused.err(), Some(NoSlot::Closed));
    let Occupancy { idle, taken, waiting, .. } = scheduler.occupancy();
    assert_eq!((idle, taken, waiting), (0, 0, 0));
}

/// Whatever waiters arrive, give up, or are dropped: a slot has one holder, and at the end all are free.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_slot_is_lost_or_lent_twice() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    let scheduler = Scheduler::new(4);
    let holders: Arc<[AtomicU32; 4]> = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..24_u64 {
        let (scheduler, holders) = (Arc::clone(&scheduler), Arc::clone(&holders));
        tasks.spawn(async move {
            let mut dice = worker * 7919 + 1;
            for _ in 0..400 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let roll = dice >> 33;
                let key = if roll % 5 == 0 { TenantKey::None } else { tenant(roll % 7) };
                let patience = Duration::from_micros(roll % 5000);
                let take =
                    scheduler.take(key, Weight::ONE, Instant::now(), Duration::from_millis(3));
                let taken = tokio::time::timeout(patience, take);
                if let Ok(Ok(mut slot)) = taken.await {
                    assert_eq!(holders[slot.number].fetch_add(1, SeqCst), 0);
                    if roll % 3 == 0 {
                        tokio::time::sleep(Duration::from_micros(roll % 300)).await;
                    }
                    assert_eq!(*slot.content.get_or_insert(slot.number as u32), slot.number as u32);
                    if roll % 11 == 0 {
                        slot.content = None;
                    }
                    holders[slot.number].fetch_sub(1, SeqCst);
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let Occupancy { taken, waiting, .. } = scheduler.occupancy();
    assert_eq!((taken, waiting), (0, 0));
}
