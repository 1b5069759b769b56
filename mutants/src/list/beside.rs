//! What tenants share besides rows: kinds of statements, other sessions' statements, locks, sequences.

use super::Mutant;
use super::Tests::{Library, LibraryUnit};

const KIND: &str = "crates/freehold/src/tx/kind.rs";
const TRANSACTION: &str = "crates/freehold/src/tx/transaction.rs";
const PIPELINE: &str = "crates/freehold/src/tx/transaction/pipeline.rs";
const INIT: &str = "crates/freehold/src/init.rs";
const BESIDE: &str = "crates/freehold/src/init/beside.rs";
const EXTENSIONS: &str = "crates/freehold/src/doctor/extensions.rs";
const POLICY: &str = "crates/freehold/src/schema/policy.rs";
const SEQUENCES: &str = "crates/freehold/src/schema/policy/sequences.rs";
const SEQUENCES_SQL: &str = "crates/freehold/migrations/0090_sequences.sql";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "queries-are-anything",
        breaks: "LOCK and EXPLAIN are run by the methods for queries",
        file: KIND,
        from: "    if is_utility(&first, sql) {
        return Err(refused(",
        to: "    if is_utility(&first, sql) {
        return Ok(());
    }
    if first.is_empty() {
        return Err(refused(",
        tests: Library(&["statements::what_is_no_query_needs_a_method_that_says_so"]),
        survives_because: None,
    },
    Mutant {
        name: "utilities-are-anything",
        breaks: "what outlives a transaction is run by the method for utilities",
        file: KIND,
        from: "    if is_query(sql) || is_utility(&first, sql) {
        return Ok(());
    }
    Err(refuse(&first))",
        to: "    if first.len() < 100 {
        return Ok(());
    }
    Err(refuse(&first))",
        tests: Library(&["statements::what_outlives_a_transaction_or_ends_it_is_run_by_no_method"]),
        survives_because: None,
    },
    Mutant {
        name: "cursors-outlive-transactions",
        breaks: "a cursor WITH HOLD is open for the next tenant",
        file: KIND,
        from: "        \"DECLARE\" => !rest.take_while(|word| word != \"FOR\").any(|word| word == \"WITH\"),\n",
        to: "",
        tests: Library(&["statements::what_outlives_a_transaction_or_ends_it_is_run_by_no_method"]),
        survives_because: None,
    },
    Mutant {
        name: "procedures-end-their-transaction",
        breaks: "a procedure that is called by itself commits, and the context is gone",
        file: TRANSACTION,
        from: "ending == Ending::Commit && !is_call;",
        to: "ending == Ending::Commit && (!is_call || pass.is_some());",
        tests: Library(&["statements::a_procedure_cannot_end_the_transaction_it_is_called_in"]),
        survives_because: None,
    },
    Mutant {
        name: "procedures-of-many-end-their-transaction",
        breaks: "a procedure among statements of their own commits, and the context is gone",
        file: PIPELINE,
        from: "                [call] if kind::is_call(call.0) => self.call_once(*call).await,\n",
        to: "",
        tests: Library(&["statements::a_procedure_cannot_end_the_transaction_it_is_called_in"]),
        survives_because: None,
    },
    Mutant {
        name: "a-failed-procedure-leaves-its-block-open",
        breaks: "what comes after a procedure that failed fails with it",
        file: PIPELINE,
        from: "if wire.status() != TransactionStatus::Idle && wire",
        to: "if wire.status() == TransactionStatus::Idle && wire",
        tests: Library(&["statements::a_procedure_cannot_end_the_transaction_it_is_called_in"]),
        survives_because: None,
    },
    Mutant {
        name: "init-waits-for-anybody",
        breaks: "an advisory lock of the app role holds init up for ever",
        file: INIT,
        from: "const TAKE_TURN: &str = \"CREATE SCHEMA freehold_init_under_way\";
const END_TURN: &str = \"DROP SCHEMA freehold_init_under_way\";",
        to: "const TAKE_TURN: &str = \"SELECT pg_advisory_xact_lock(7237465)\";
const END_TURN: &str = \"SELECT\";",
        tests: Library(&["beside::no_lock_of_the_app_role_holds_init_up"]),
        survives_because: None,
    },
    Mutant {
        name: "inits-meet",
        breaks: "two inits at once disturb each other",
        file: INIT,
        from: "const TAKE_TURN: &str = \"CREATE SCHEMA freehold_init_under_way\";
const END_TURN: &str = \"DROP SCHEMA freehold_init_under_way\";",
        to: "const TAKE_TURN: &str = \"SELECT\";
const END_TURN: &str = \"SELECT\";",
        tests: Library(&["beside::two_inits_of_a_fresh_database_take_turns"]),
        survives_because: None,
    },
    Mutant {
        name: "sessions-locks-open",
        breaks: "a lock goes with the connection to the next tenant",
        file: BESIDE,
        from: "    \"pg_try_advisory_lock_shared\",\n",
        to: "",
        tests: Library(&["beside::no_lock_outlasts_the_transaction_that_took_it"]),
        survives_because: None,
    },
    Mutant {
        name: "others-statements-open",
        breaks: "injected SQL reads what other tenants run",
        file: BESIDE,
        from: "&[\"pg_stat_get_activity\", \"pg_stat_get_backend_activity\"]",
        to: "&[\"pg_stat_get_backend_activity\"]",
        tests: Library(&["beside::no_session_sees_what_another_runs"]),
        survives_because: None,
    },
    Mutant {
        name: "monitoring-loses-its-view",
        breaks: "tools for monitoring no longer see what runs",
        file: BESIDE,
        from: "[(SESSION_LOCKS, LOCKERS), (ACTIVITY, MONITORS)]",
        to: "[(SESSION_LOCKS, LOCKERS), (ACTIVITY, \"freehold_owner\")]",
        tests: Library(&["beside::monitoring_goes_on_by_the_roles_that_postgresql_has_for_it"]),
        survives_because: None,
    },
    Mutant {
        name: "kept-statements-open-by-function",
        breaks: "the view of kept statements is closed, and the function behind it open",
        file: BESIDE,
        from: "SELECT 'EXECUTE ON ROUTINE ' || p.oid::regprocedure::text
FROM pg_extension e",
        to: "SELECT 'EXECUTE ON ROUTINE ' || p.oid::regprocedure::text
FROM (SELECT * FROM pg_extension WHERE false) e",
        tests: Library(&["beside::statements_that_an_extension_keeps_are_nobodys_in_a_tenant"]),
        survives_because: None,
    },
    Mutant {
        name: "doctor-passes-over-functions-of-kept-statements",
        breaks: "the doctor finds the view of kept statements and not its function",
        file: EXTENSIONS,
        from: "EXISTS (SELECT FROM called WHERE has_function_privilege(role, m.objid, 'EXECUTE'))
  FROM member m JOIN pg_proc p",
        to: "false
  FROM member m JOIN pg_proc p",
        tests: Library(&["doctor::faults::every_planted_fault_is_found_under_its_code"]),
        survives_because: None,
    },
    Mutant {
        name: "sequences-granted",
        breaks: "another tenant's numbers can be read and advanced",
        file: POLICY,
        from: "            RelationKind::MaterializedView
            | RelationKind::ForeignTable
            | RelationKind::Sequence => {}
        }
    }
    for domain",
        to: "            RelationKind::Sequence => {
                let _ = writeln!(sql, \"GRANT USAGE, SELECT ON SEQUENCE {name} TO freehold_member;\");
            }
            RelationKind::MaterializedView | RelationKind::ForeignTable => {}
        }
    }
    for domain",
        tests: Library(&["sequences::no_sequence_is_read_set_or_advanced_by_anybody_in_a_tenant"]),
        survives_because: None,
    },
    Mutant {
        name: "next-value-of-any-tenant",
        breaks: "the way to a number is a way to every tenant's",
        file: SEQUENCES_SQL,
        from: "  IF owner = (CASE tenant",
        to: "  IF owner ~ '^tenant_' OR owner = (CASE tenant",
        tests: Library(&[
            "sequences::next_value_gives_numbers_of_the_contexts_tenant_and_of_no_other",
            "sequences::a_definer_function_that_asks_what_it_is_told_asks_for_its_callers_tenant",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "next-value-passes-whoever-the-owner-serves",
        breaks: "without a context, SQL of the app role takes numbers as the owner",
        file: SEQUENCES_SQL,
        from: "(session_user = 'freehold_owner' AND",
        to: "(current_user = 'freehold_owner' AND",
        tests: Library(&[
            "sequences::next_value_gives_numbers_of_the_contexts_tenant_and_of_no_other",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "sequences-lose-their-position",
        breaks: "a serial column begins again at 1",
        file: SEQUENCES,
        from: "SELECT pg_catalog.setval('{literal}', last_value, is_called) FROM",
        to: "SELECT '{literal}', last_value, is_called FROM",
        tests: Library(&["sequences::a_serial_column_keeps_its_sequences_name_settings_and_position"]),
        survives_because: None,
    },
    Mutant {
        name: "routines-ask-as-their-caller",
        breaks: "a function of the baseline that asks a sequence is refused",
        file: SEQUENCES,
        from: "        let _ = writeln!(sql, \"{};\", replace_calls(&routine.definition));",
        to: "        let _ = writeln!(sql, \"{};\", routine.definition);",
        tests: Library(&[
            "sequences::every_table_numbers_its_rows_and_each_tenant_has_numbers_of_its_own",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "what-is-quoted-is-called",
        breaks: "a word in a text of the baseline's is changed for the tenants",
        file: SEQUENCES,
        from: "        out.push_str(&quoted[..end]);",
        to: "        out.push_str(&replace_calls(&quoted[..end]));",
        tests: LibraryUnit(&["schema::policy::sequences::tests::what_is_no_serial_column_asks_through_the_owner"]),
        survives_because: None,
    },
];
