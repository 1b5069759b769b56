//! What a tenant's SQL leaves in a session, and the ownership of what vouches for a context.

use super::Mutant;
use super::Tests::{Library, LibraryUnit};

const TRANSACTION: &str = "crates/freehold/src/tx/transaction.rs";
const CONNECTION: &str = "crates/freehold/src/pool/connection.rs";
const SETTINGS: &str = "crates/freehold/src/wire/settings.rs";
const CONTEXT_SQL: &str = "crates/freehold/migrations/context/common.sql";
const GUARD_SQL: &str = "crates/freehold/migrations/context/guard.sql";
const CATALOG_SQL: &str = "crates/freehold/migrations/0001_catalog.sql";
const INIT: &str = "crates/freehold/src/init.rs";
const ROLES: &str = "crates/freehold/src/init/roles.rs";

const LEFT: &[&str] = &["sessions::nothing_that_a_transaction_leaves_reaches_the_next_tenant"];

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "sessions-left-as-they-are",
        breaks: "a setting that a tenant's SQL has made for the session is the next tenant's",
        file: TRANSACTION,
        from: "    fixed.leave(any).try_for_each(|statement| batch.quiet(statement, &[]))",
        to: "    fixed.leave(any).take(0).try_for_each(|statement| batch.quiet(statement, &[]))",
        tests: Library(LEFT),
        survives_because: None,
    },
    Mutant {
        name: "code-that-leaves-more-is-not-seen",
        breaks: "a cursor or LISTEN of one tenant's function is the next tenant's",
        file: "crates/freehold/src/catalog/code.rs",
        from: "p.prosrc ~* '\\m(listen|hold|execute)\\M'",
        to: "p.prosrc ~* '\\m(nothing)\\M'",
        tests: Library(&[
            "sessions::code_that_may_leave_more_than_settings_is_known_by_what_it_says",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "statements-that-are-no-queries-leave-what-they-like",
        breaks: "what DO has begun on a session is the next tenant's",
        file: TRANSACTION,
        from: "        self.ran_utility = true;\n",
        to: "",
        tests: Library(&[
            "sessions::where_only_settings_can_be_left_they_and_what_a_query_makes_are_gone",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "deferred-after-the-reset",
        breaks: "a deferred trigger runs after the session was cleaned",
        file: CONNECTION,
        from: "\"SET CONSTRAINTS ALL IMMEDIATE\"",
        to: "\"RESET ALL\"",
        tests: Library(LEFT),
        survives_because: None,
    },
    Mutant {
        name: "held-cursors-stay",
        breaks: "a tenant's cursor is open in the next tenant's transaction",
        file: CONNECTION,
        from: "\"CLOSE ALL\"",
        to: "\"RESET ALL\"",
        tests: Library(LEFT),
        survives_because: None,
    },
    Mutant {
        name: "sessions-go-on-listening",
        breaks: "the next tenant sees the channels that a tenant listens on",
        file: CONNECTION,
        from: "\"UNLISTEN *\"",
        to: "\"RESET ALL\"",
        tests: Library(LEFT),
        survives_because: None,
    },
    Mutant {
        name: "calls-clean-nothing",
        breaks: "what a procedure leaves on the session is met by the next tenant",
        file: "crates/freehold/src/tx/transaction/pipeline.rs",
        from: "        leave(&mut batch, fixed, false)?;\n        batch.quiet(&fixed.commit, &[])?;",
        to: "        batch.quiet(&fixed.commit, &[])?;",
        tests: Library(LEFT),
        survives_because: None,
    },
    Mutant {
        name: "analytics-keeps-its-session",
        breaks: "what a function leaves on the reader's session is in the figures of the next tenant",
        file: "crates/freehold/src/analytics/collector.rs",
        from: "ROLLBACK\"",
        to: "COMMIT\"",
        tests: Library(&[
            "analytics::isolation::what_a_function_leaves_on_the_session_is_not_in_the_figures_of_the_next_tenant",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "lastval-is-taken",
        breaks: "a function with the owner's rights tells the last number of another tenant's row",
        file: "crates/freehold/src/schema/policy.rs",
        from: "    faults.extend(inventory.lastval.iter().map(|name| sequences::lastval_fault(name)));\n",
        to: "",
        tests: Library(&[
            "sequences::what_asks_for_the_last_number_of_the_session_is_refused_with_its_cure",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "lock-timeout-is-the-roles",
        breaks: "a lock timeout that the app role sets for itself fails the requests of all tenants",
        file: SETTINGS,
        from: "    (\"lock_timeout\", \"0\"),\n",
        to: "",
        tests: Library(&[
            "sessions::what_the_app_role_sets_for_itself_changes_nothing_that_is_relied_on",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "session-locks-stay",
        breaks: "a session lock is held in the next tenant's transaction",
        file: CONTEXT_SQL,
        from: " AND pg_catalog.pg_advisory_unlock_all() IS NOT NULL",
        to: "",
        tests: Library(LEFT),
        survives_because: None,
    },
    Mutant {
        name: "temporary-tables-stay",
        breaks: "a temporary table of a tenant's is there in the next tenant's transaction",
        file: CONTEXT_SQL,
        from: "  DISCARD TEMP;\n",
        to: "",
        tests: Library(LEFT),
        survives_because: None,
    },
    Mutant {
        name: "random-goes-on",
        breaks: "a tenant chooses what random() gives the next",
        file: CONTEXT_SQL,
        from: "pg_catalog.setseed(seed) IS NOT NULL AND ",
        to: "",
        tests: Library(&["sessions::no_tenant_knows_what_random_gives_the_next"]),
        survives_because: None,
    },
    Mutant {
        name: "connections-without-settings",
        breaks: "what the app role has set for itself is what its connections begin with",
        file: SETTINGS,
        from: "    let all = [COMMON, BEFORE_THE_DOOR, bounds, newer].concat();",
        to: "    let all = [COMMON, BEFORE_THE_DOOR, bounds, newer].concat();
    let all: Vec<Setting> = all.into_iter().take(0).collect();",
        tests: Library(&[
            "sessions::what_the_app_role_sets_for_itself_changes_nothing_that_is_relied_on",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "settings-against-the-url",
        breaks: "what an operator says in a connection string is overruled",
        file: SETTINGS,
        from: "filter(|(name, _)| !given.contains(&name.to_ascii_lowercase()))",
        to: "filter(|(name, _)| !given.contains(&name.to_ascii_uppercase()))",
        tests: LibraryUnit(&["wire::settings::tests::what_the_connection_string_says_stands"]),
        survives_because: None,
    },
    Mutant {
        name: "init-leaves-settings",
        breaks: "what a login role has set for itself outlives an init",
        file: ROLES,
        from: "    client.batch_execute(&sql).await.map_err(explain_roles)?;
    Ok(removed)",
        to: "    Ok(removed)",
        tests: Library(&["sessions::init_removes_what_a_login_role_has_set_for_itself"]),
        survives_because: None,
    },
    Mutant {
        name: "verdict-of-the-owner",
        breaks: "a function with the owner's rights sets what is believed of a context",
        file: INIT,
        from: "REVOKE SET ON PARAMETER {VERDICT} FROM freehold_owner",
        to: "GRANT SET ON PARAMETER {VERDICT} TO freehold_owner",
        tests: Library(&[
            "sealing::a_helper_with_the_owners_rights_neither_sets_the_verdict_nor_reads_a_key",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "keys-in-any-session",
        breaks: "a function with the owner's rights reads a key in a tenant's session",
        file: GUARD_SQL,
        from: "  IF session_user OPERATOR(pg_catalog.<>) 'freehold_owner' THEN",
        to: "  IF false THEN",
        tests: Library(&[
            "sealing::a_helper_with_the_owners_rights_neither_sets_the_verdict_nor_reads_a_key",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "catalog-open-to-the-app-role",
        breaks: "SQL in a tenant's transaction writes the tenant's members",
        file: CATALOG_SQL,
        from: "GRANT SELECT ON freehold.catalog_migration TO freehold_app;",
        to: "GRANT SELECT ON freehold.catalog_migration TO freehold_app;
GRANT SELECT, UPDATE ON freehold.membership TO freehold_app;",
        tests: Library(&["privileges::one_statement_of_a_tenant_reaches_no_table_of_the_catalog"]),
        survives_because: None,
    },
];
