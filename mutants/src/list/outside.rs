//! What migrations do outside of their schema, and what a tenant's SQL does to all servers.

use super::Mutant;
use super::Tests::{Library, Server};

const OUTSIDE: &str = "crates/freehold/src/schema/outside.rs";
const QUESTION: &str = "crates/freehold/src/schema/outside/question.rs";
const GUARD: &str = "crates/freehold/migrations/context/guard.sql";
const RUN_TIME: &str = "crates/freehold/migrations/0095_run_time.sql";
const EXAMINATION: &str = "crates/freehold/src/doctor/examination.rs";

const REFUSED: &str =
    "outside::what_is_outside_is_refused_in_the_template_with_line_and_cure_and_leaves_nothing";
const AT_ONCE: &str = "run_time::a_table_made_at_run_time_is_protected_at_once";
const CLOSED: &str = "run_time::a_table_that_lies_open_is_kept_from_other_tenants_by_who_finds_it";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "outside-is-written",
        breaks: "a migration makes, alters and grants what is outside of its schema",
        file: OUTSIDE,
        from: "[question::DEPENDENCIES, question::WRITTEN, question::GRANTS]",
        to: "[question::DEPENDENCIES, question::GRANTS]",
        tests: Library(&[REFUSED]),
        survives_because: None,
    },
    Mutant {
        name: "tenants-may-do-what-the-template-may-not",
        breaks: "a migration reaches out of the schema where it is a tenant's",
        file: "crates/freehold/src/fleet/migrator/rehearsal.rs",
        from: "        outside::refuse(client, &before, migration).await\n",
        to: "        Ok(drop((before, migration)))\n",
        tests: Library(&[
            "outside::what_only_tenants_would_do_outside_is_refused_in_the_rehearsal",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "outside-is-depended-on",
        breaks: "a view or foreign key leads out of a tenant's schema",
        file: OUTSIDE,
        from: "[question::DEPENDENCIES, question::WRITTEN, question::GRANTS]",
        to: "[question::WRITTEN, question::GRANTS]",
        tests: Library(&[REFUSED]),
        survives_because: None,
    },
    Mutant {
        name: "outside-is-dropped",
        breaks: "a migration drops what is outside of its schema",
        file: OUTSIDE,
        from: "    if !gone.is_empty() {",
        to: "    if gone.len() > 1000 {",
        tests: Library(&[REFUSED, "outside::another_tenants_schema_is_outside"]),
        survives_because: None,
    },
    Mutant {
        name: "outside-rows-are-written",
        breaks: "a migration writes to a table of the catalog that its transaction has written to before",
        file: OUTSIDE,
        from: "before.locks.contains(&lock(&row)) && !wrote",
        to: "before.locks.contains(&lock(&row))",
        tests: Library(&[REFUSED]),
        survives_because: None,
    },
    Mutant {
        name: "outside-is-everybodys-doing",
        breaks: "what others commit meanwhile is held against a migration",
        file: QUESTION,
        from: "::xid8) = 'in progress'",
        to: "::xid8) <> 'aborted'",
        tests: Library(&["outside::what_others_change_meanwhile_is_not_held_against_a_migration"]),
        survives_because: None,
    },
    Mutant {
        name: "run-time-tables-bare",
        breaks: "a table that a function makes while a tenant works has no row-level security",
        file: GUARD,
        from: "IF session_user NOT IN ('freehold_app', 'freehold_catalog', 'freehold_analytics') THEN",
        to: "IF session_user <> '' THEN",
        tests: Library(&[AT_ONCE]),
        survives_because: None,
    },
    Mutant {
        name: "run-time-trigger-for-all",
        breaks: "the event trigger is in the way of who restores a dump",
        file: GUARD,
        from: "IF session_user NOT IN ('freehold_app', 'freehold_catalog', 'freehold_analytics') THEN",
        to: "IF session_user = '' THEN",
        tests: Library(&["run_time::the_event_trigger_is_in_nobodys_way_and_nobodys_to_call"]),
        survives_because: None,
    },
    Mutant {
        name: "open-tables-stay-open",
        breaks: "a table whose policy was replaced is not kept from other tenants",
        file: RUN_TIME,
        from: "AND pg_get_expr(p.polqual, p.polrelid) = bare.isolated AND",
        to: "AND",
        tests: Library(&[CLOSED]),
        survives_because: None,
    },
    Mutant {
        name: "one-tenants-fault-is-all-servers",
        breaks: "what one tenant's SQL brings about takes all servers out",
        file: EXAMINATION,
        from: "let is_fleets = tenants == 0 || tenants > 1 && tenants == self.tenants;",
        to: "let is_fleets = count > 0;",
        tests: Library(&[
            "run_time::where_nothing_protects_it_nobody_reaches_it_and_it_is_one_tenants_finding",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "every-tenants-fault-is-nobodys",
        breaks: "servers are ready though no tenant at all is protected",
        file: EXAMINATION,
        from: "let is_fleets = tenants == 0 || tenants > 1 && tenants == self.tenants;",
        to: "let is_fleets = tenants == 0;",
        tests: Library(&[
            "run_time::what_is_wrong_with_every_tenant_or_the_template_is_the_fleets",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "server-closes-nothing",
        breaks: "a server that finds a table open leaves it so",
        file: "crates/freehold-server/src/http/readiness.rs",
        from: "    if !findings.open_tables.is_empty() {",
        to: "    if findings.open_tables.len() > 1000 {",
        tests: Server(&[
            "http::health::what_is_wrong_in_one_tenants_schema_is_closed_and_takes_no_server_out",
        ]),
        survives_because: None,
    },
];
