//! The scheduler: which waiter gets a slot, and what is reserved.

use super::Mutant;
use super::Tests::LibraryUnit;

const FAIR: &str = "crates/freehold/src/pool/scheduler/fair.rs";
const SCHEDULER: &str = "crates/freehold/src/pool/scheduler.rs";
const STATE: &str = "crates/freehold/src/pool/scheduler/state.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "one-tenant-takes-every-connection",
        breaks: "a tenant with many slow requests leaves no connection to others",
        file: FAIR,
        from: "taken < slots - kept.div_ceil(2)",
        to: "taken <= slots",
        tests: LibraryUnit(&[
            "pool::scheduler::tests::no_tenant_takes_every_slot",
            "pool::scheduler::tests::newcomers_find_a_slot_whatever_the_others_hold",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "what-nobody-received-is-lost",
        breaks: "a connection that was given to a request that had gone is never given back",
        file: SCHEDULER,
        from: "scheduler.leave(self.number, self.content.take());",
        to: "if self.content.is_some() { scheduler.leave(self.number, self.content.take()); }",
        tests: LibraryUnit(&["pool::scheduler::tests::no_slot_is_lost_or_lent_twice"]),
        survives_because: None,
    },
    Mutant {
        name: "slow-tenants-hold-what-is-kept",
        breaks: "slow tenants leave no connection to those that ask for little",
        file: FAIR,
        from: "&& (taken < slots - kept || crowd < slots / 2)",
        to: "",
        tests: LibraryUnit(&[
            "pool::scheduler::fair::tests::slow_tenants_leave_a_quarter_free_and_have_half_whatever_the_others_hold",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "busy-databases-are-kept-busy",
        breaks: "slow tenants hold as much of a database that is busy as of one at rest",
        file: FAIR,
        from: "slow < congestion.slow_max",
        to: "slow < usize::MAX",
        tests: LibraryUnit(&[
            "pool::scheduler::fair::tests::the_longer_a_trivial_statement_takes_the_fewer_slots_slow_tenants_get",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "unknown-tenants-fill-the-pool",
        breaks: "a tenant that nothing is known of yet starts as many slow transactions as it likes",
        file: FAIR,
        from: "Some(holder) => holder.is_known && self.has_room_for_quick,",
        to: "Some(_) => self.has_room_for_quick,",
        tests: LibraryUnit(&[
            "pool::scheduler::fair::tests::who_is_not_known_gets_one_slot",
            "pool::scheduler::tests::a_tenant_that_nothing_is_known_of_has_one_slot_until_it_leaves_it",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "rested-tenants-press-a-busy-database",
        breaks: "tenants that were slow a while ago take one slot each, however busy the database is",
        file: FAIR,
        from: "Pace::Rested => self.bears_slow,",
        to: "Pace::Rested => true,",
        tests: LibraryUnit(&[
            "pool::scheduler::fair::tests::who_was_slow_and_rested_gets_one_slot_if_the_database_bears_it",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "slow-tenants-press-at-once",
        breaks: "slow tenants begin with every connection, before it is known how the database bears it",
        file: FAIR,
        from: "slow_max: (slots / START_SHARE).max(1),",
        to: "slow_max: slots,",
        tests: LibraryUnit(&[
            "pool::scheduler::fair::tests::slow_tenants_get_more_slots_quickly_until_it_was_too_many_and_slowly_then",
            "pool::scheduler::tests::slow_tenants_get_more_slots_as_the_database_bears_it",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "weights-weigh-nothing",
        breaks: "a tenant of more weight gets no more connections than others",
        file: STATE,
        from: "usize::from(weight.get())",
        to: "usize::from(weight.get().min(1))",
        tests: LibraryUnit(&[
            "pool::scheduler::tests::a_tenant_of_more_weight_holds_more_before_others_come_first",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "full-databases-are-pressed",
        breaks: "each who comes tries to open a connection that the database has no room for",
        file: STATE,
        from: "self.full_until.is_none_or(|until| now >= until) || self.in_use() == 0",
        to: "self.full_until.is_none_or(|until| now <= until) || self.in_use() == 0",
        tests: LibraryUnit(&[
            "pool::scheduler::tests::where_there_is_no_room_one_waits_for_a_slot_in_use",
            "pool::scheduler::tests::without_room_one_of_those_who_wait_is_sent_to_try_now_and_then",
        ]),
        survives_because: None,
    },
];
