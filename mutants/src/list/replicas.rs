//! Replicas: which are read, and what they must prove.

use super::Mutant;
use super::Tests::Server;

const REPLICAS: &str = "crates/freehold/src/replicas.rs";
const MONITOR: &str = "crates/freehold/src/replicas/monitor.rs";
const READ: &str = "crates/freehold/src/tx/read.rs";
const TRANSACTION: &str = "crates/freehold/src/tx/transaction.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "replicas-prove-nothing",
        breaks: "a replica that was promoted a moment ago is read",
        file: TRANSACTION,
        from: "            require_position(answers.pop(), floor)?;",
        to: "            let _ = require_position(answers.pop(), floor);",
        tests: Server(&[
            "replicas::fitness::a_promoted_replica_is_not_read_from_the_moment_of_its_promotion",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "replicas-are-never-behind",
        breaks: "a read that sends back an LSN does not see the write",
        file: REPLICAS,
        from: "        let floor = since.into_iter().chain(young).max();",
        to: "        let floor = since.into_iter().chain(young).min();",
        tests: Server(&[
            "replicas::reads::a_read_that_sends_back_the_lsn_of_a_write_sees_it_wherever_it_is_answered",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "a-replica-refusal-is-a-violation",
        breaks: "a replica that has not heard of a key yet accuses a tenant",
        file: TRANSACTION,
        from: "        let is_final = !(self.is_fresh() && matches!(self.entry.access, Access::Replica(_)));",
        to: "        let is_final = true;",
        tests: Server(&[
            "replicas::reads::what_a_replica_has_not_heard_of_yet_is_read_on_the_primary",
            "replicas::isolation::on_a_replica_another_tenants_rows_are_refused_and_it_is_recorded_once",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "replicas-have-the-last-word",
        breaks: "a request fails because its replica does",
        file: READ,
        from: "            Err(error) if first && !lasts(error.kind()) => {",
        to: "            Err(error) if first && lasts(error.kind()) => {",
        tests: Server(&[
            "replicas::reads::a_replica_killed_in_the_middle_fails_no_request_and_comes_back_by_itself",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "replicas-of-anybody-are-read",
        breaks: "another database's copy answers",
        file: MONITOR,
        from: "if *system != primary.system || *database != primary.database {",
        to: "if *system != primary.system && *database != primary.database {",
        tests: Server(&["replicas::fitness::what_is_no_replica_of_this_database_is_not_read"]),
        survives_because: None,
    },
    Mutant {
        name: "every-replica-role-will-do",
        breaks: "a server starts with a replica URL that row-level security does not bind",
        file: MONITOR,
        from: "            Err(error) if error.kind() == ErrorKind::Setup => Err(error),",
        to: "            Err(error) if error.kind() == ErrorKind::Internal => Err(error),",
        tests: Server(&[
            "replicas::fitness::a_replica_url_that_row_level_security_does_not_bind_stops_the_start",
        ]),
        survives_because: None,
    },
];
