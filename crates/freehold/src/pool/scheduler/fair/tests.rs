//! Which tenants may have one more slot, and how many slots slow tenants get.

use super::*;

const QUICK: Duration = Duration::from_millis(1);

fn tenant(number: u64) -> TenantKey {
    TenantKey::Tenant(number)
}

fn holders(slots: usize, taken: &[(u64, Instant)], averages: &Averages, now: Instant) -> Holders {
    let taken = taken.iter().map(|(number, since)| (tenant(*number), *since));
    Holders::new(slots, taken, averages, &at_ease(slots), now)
}

/// Averages of tenants that have held a slot for a moment.
fn all_quick(now: Instant) -> Averages {
    let mut averages = Averages::default();
    (0..20).for_each(|number| averages.note(tenant(number), QUICK, SLOW, now));
    averages
}

/// The limit of a database that bears any load.
fn at_ease(slots: usize) -> Congestion {
    Congestion { slow_max: slots, ..Congestion::new(slots) }
}

#[test]
fn who_holds_one_leaves_an_eighth_free() {
    let now = Instant::now();
    let averages = all_quick(now);
    let taken = [(1, now), (1, now), (1, now), (2, now), (2, now), (3, now)];
    assert!(
        holders(8, &taken, &averages, now).may_take(tenant(1), |_| Pace::Quick),
        "two of eight are free"
    );
    let taken = [(1, now), (1, now), (1, now), (2, now), (2, now), (3, now), (4, now)];
    let held = holders(8, &taken, &averages, now);
    assert!(
        !held.may_take(tenant(1), |_| Pace::Quick) && !held.may_take(tenant(3), |_| Pace::Quick)
    );
    assert!(held.may_take(tenant(5), |_| Pace::Quick), "who has none may take what is kept");
    assert!(held.may_take(TenantKey::None, |_| Pace::Quick));
}

#[test]
fn slow_tenants_leave_a_quarter_free_and_have_half_whatever_the_others_hold() {
    let now = Instant::now();
    let averages = all_quick(now);
    let long_ago = now.checked_sub(SLOW).unwrap();
    let six: Vec<_> = (1..=6).map(|number| (number, long_ago)).collect();
    assert!(!holders(8, &six, &averages, now).may_take(tenant(1), |_| Pace::Quick));
    assert!(holders(8, &six, &averages, now).may_take(tenant(7), |_| Pace::Quick));
    let before = now.checked_sub(QUICK).unwrap();
    assert!(
        holders(8, &six, &averages, before).may_take(tenant(1), |_| Pace::Quick),
        "none was slow yet"
    );
    let mixed: Vec<_> =
        (1..=7).map(|number| (number, if number < 4 { long_ago } else { now })).collect();
    assert!(
        holders(8, &mixed, &averages, now).may_take(tenant(1), |_| Pace::Quick),
        "a fourth of eight"
    );
    let mixed: Vec<_> =
        (1..=7).map(|number| (number, if number < 5 { long_ago } else { now })).collect();
    assert!(!holders(8, &mixed, &averages, now).may_take(tenant(1), |_| Pace::Quick));
}

#[test]
fn what_is_kept_is_no_slow_tenants_while_others_that_hold_several_are_not_known_yet() {
    let now = Instant::now();
    let averages = all_quick(now);
    let long_ago = now.checked_sub(SLOW).unwrap();
    let taken = [(1, long_ago), (1, now), (2, now), (2, now), (3, long_ago), (4, now), (5, now)];
    assert!(!holders(8, &taken, &averages, now).may_take(tenant(3), |_| Pace::Quick));
}

#[test]
fn who_is_slow_on_average_is_no_newcomer_for_a_while() {
    let (now, mut averages) = (Instant::now(), Averages::default());
    assert_eq!(averages.pace(tenant(1), now), Pace::Unknown);
    for _ in 0..3 {
        averages.note(tenant(1), SLOW - QUICK, SLOW, now);
        averages.note(TenantKey::None, SLOW * 9, SLOW, now);
    }
    averages.note(tenant(2), SLOW * 2, SLOW, now);
    averages.note(tenant(3), QUICK, SLOW, now);
    averages.note(tenant(3), SLOW * 3, SLOW, now);
    let pace = |averages: &Averages, number| averages.pace(tenant(number), now);
    assert_eq!(pace(&averages, 1), Pace::Quick);
    assert_eq!(averages.pace(TenantKey::None, now), Pace::Quick);
    assert_eq!(pace(&averages, 2), Pace::Slow, "by its first");
    assert_eq!(pace(&averages, 3), Pace::Quick, "by chance, once");
    averages.note(tenant(2), SLOW * 2, SLOW * 9, now);
    assert_eq!(pace(&averages, 2), Pace::Slow, "though all take long by now");
    let later = now + SLOW * 2 * REST_FACTOR;
    assert_eq!(averages.pace(tenant(2), later), Pace::Rested);
    for _ in 0..3 {
        averages.note(tenant(2), QUICK, SLOW, now);
    }
    assert_eq!(pace(&averages, 2), Pace::Quick, "it is quick again");
    averages.note(tenant(3), Duration::from_secs(3600), SLOW, now);
    assert_eq!(averages.pace(tenant(3), now + REST_MAX), Pace::Rested);
}

#[test]
fn who_was_slow_and_rested_gets_one_slot_if_the_database_bears_it() {
    let (start, mut averages) = (Instant::now(), Averages::default());
    averages.note(tenant(2), SLOW * 2, SLOW, start);
    let now = start + SLOW * 2 * REST_FACTOR;
    let holders = |taken: [u64; 6], slow_max: usize| {
        let taken = taken.iter().map(|number| (tenant(*number), start));
        let congestion = Congestion { slow_max, ..Congestion::new(8) };
        Holders::new(8, taken, &averages, &congestion, now)
    };
    let others = [4, 5, 6, 7, 8, 9];
    assert!(!holders(others, 8).may_take(tenant(2), |_| Pace::Slow));
    assert!(holders(others, 8).may_take(tenant(2), |_| Pace::Rested));
    assert!(!holders(others, 6).may_take(tenant(2), |_| Pace::Rested));
    assert!(holders(others, 6).may_take(tenant(3), |_| Pace::Unknown));
    // With this slot the tenant counts as possibly slow, though no transaction of it has lasted yet.
    let taken = [(tenant(2), now)].into_iter();
    let congestion = Congestion { slow_max: 1, ..Congestion::new(8) };
    let held = Holders::new(8, taken, &averages, &congestion, now);
    assert!(!held.may_take(tenant(3), |_| Pace::Rested));
}

#[test]
fn who_is_not_known_gets_one_slot() {
    let (now, averages) = (Instant::now(), Averages::default());
    let held = holders(8, &[(1, now)], &averages, now);
    assert!(held.may_take(tenant(2), |_| Pace::Unknown));
    assert!(!held.may_take(tenant(1), |_| Pace::Unknown));
    assert!(holders(8, &[(1, now)], &all_quick(now), now).may_take(tenant(1), |_| Pace::Quick));
}

#[test]
fn what_is_remembered_has_a_bound() {
    let (now, mut averages) = (Instant::now(), Averages::default());
    for number in 0..3 * REMEMBERED as u64 {
        averages.note(tenant(number), SLOW, SLOW, now);
    }
    assert!(averages.0.len() <= REMEMBERED);
}

#[test]
fn of_few_slots_none_is_kept() {
    let now = Instant::now();
    let averages = all_quick(now);
    assert!(holders(3, &[(1, now), (1, now)], &averages, now).may_take(tenant(1), |_| Pace::Slow));
}

const LATE: Duration = Duration::from_millis(8);

fn heed(congestion: &mut Congestion, took: Duration, times: u32) -> usize {
    (0..times).for_each(|_| congestion.heed(Some(took), 16));
    congestion.slow_max
}

#[test]
fn the_longer_a_trivial_statement_takes_the_fewer_slots_slow_tenants_get() {
    let now = Instant::now();
    let averages = all_quick(now);
    let mut congestion = at_ease(16);
    heed(&mut congestion, QUICK, 1);
    assert!(LATE > QUICK * 3 + CONGESTED);
    for slow_max in [16, 8, 4, 2, 1, 1] {
        assert_eq!(heed(&mut congestion, LATE, 1), slow_max);
    }
    let long_ago = now.checked_sub(SLOW * 2).unwrap();
    let may_take = |taken: &[(u64, Instant)], key: u64| {
        let taken = taken.iter().map(|(number, since)| (tenant(*number), *since));
        let known = if key > 7 { Pace::Slow } else { Pace::Quick };
        Holders::new(16, taken, &averages, &congestion, now).may_take(tenant(key), |_| known)
    };
    let one_is_slow = [(1, long_ago), (2, now)];
    assert!(!may_take(&one_is_slow, 1), "it is slow itself");
    assert!(!may_take(&one_is_slow, 8), "it was slow of late");
    assert!(may_take(&one_is_slow, 2), "it is not slow");
    assert!(may_take(&[(2, now)], 8), "one may");
}

#[test]
fn slow_tenants_get_more_slots_quickly_until_it_was_too_many_and_slowly_then() {
    let mut congestion = Congestion::new(16);
    assert_eq!(congestion.slow_max, 8);
    assert_eq!(heed(&mut congestion, QUICK, CALM_AT_START * 4), 12);
    assert_eq!(heed(&mut congestion, LATE, 4), 1, "the first of these may be chance");
    assert_eq!(heed(&mut congestion, QUICK, CALM - 1), 1);
    assert_eq!(heed(&mut congestion, QUICK, 1), 2);
    // That was one slot too many: the next attempt comes later.
    assert_eq!(heed(&mut congestion, LATE, 2), 1);
    assert_eq!(heed(&mut congestion, QUICK, CALM * 2 - 1), 1);
    assert_eq!(heed(&mut congestion, QUICK, 1), 2);
    assert_eq!(heed(&mut congestion, QUICK, CALM * 2), 3);
    assert_eq!(heed(&mut congestion, QUICK, CALM), 4, "two in a row were not");
    assert_eq!(heed(&mut congestion, QUICK, CALM * 100), 16);
}

#[test]
fn what_was_learnt_of_slow_tenants_ends_with_them() {
    let mut congestion = Congestion::new(16);
    heed(&mut congestion, QUICK, 1);
    assert_eq!(heed(&mut congestion, LATE, 10), 1);
    (1..FORGET_AFTER).for_each(|_| congestion.heed(None, 16));
    assert_eq!(congestion.slow_max, 1);
    congestion.heed(None, 16);
    assert_eq!(congestion.slow_max, 8);
    assert!(congestion.quickest < QUICK * 2, "but for how quick the database can be");
}

#[test]
fn where_all_take_longer_who_is_slow_takes_longer_still() {
    let mut congestion = Congestion::new(16);
    assert_eq!(congestion.slow(), SLOW);
    congestion.heed(Some(SLOW), 16);
    assert_eq!(congestion.slow(), SLOW * SLOW_TRIVIALS);
    (0..FORGET_AFTER).for_each(|_| congestion.heed(None, 16));
    assert_eq!(congestion.slow(), SLOW);
}

#[test]
fn what_is_quick_is_learned_anew_where_it_takes_longer_for_good() {
    let mut congestion = Congestion::new(16);
    congestion.heed(Some(QUICK), 16);
    for _ in 0..500 {
        congestion.heed(Some(QUICK * 20), 16);
    }
    assert!(congestion.slow_max > 1);
}
