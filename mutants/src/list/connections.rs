//! Transactions, and the connections that tenants use one after another.

use super::Mutant;
use super::Tests::{Library, LibraryUnit, Server};

const TX: &str = "crates/freehold/src/tx.rs";
const TRANSACTION: &str = "crates/freehold/src/tx/transaction.rs";
const WIRE: &str = "crates/freehold/src/wire.rs";
const PIPELINE: &str = "crates/freehold/src/tx/transaction/pipeline.rs";
const BATCH: &str = "crates/freehold/src/wire/batch.rs";
const CONNECTION: &str = "crates/freehold/src/pool/connection.rs";
const POOLER: &str = "crates/freehold/src/pool/pooler.rs";
const OUTAGE: &str = "crates/freehold/src/tx/transaction/outage.rs";
const POOL: &str = "crates/freehold/src/pool.rs";
const CONNECT_FAILURE: &str = "crates/freehold/src/wire/connect_failure.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "statements-of-all-tenants-are-one",
        breaks: "a statement that was prepared for one tenant is executed for another",
        file: TX,
        from: "format!(\"{} {}\\n\", context.tenant().as_uuid().simple(), context.role().as_str())",
        to: "format!(\"{}\\n\", context.role().as_str())",
        tests: Library(&[
            "isolation::one_text_through_the_library_serves_two_tenants_in_turn",
            "transactions::tenants_at_different_migrations_are_served_side_by_side",
        ]),
        survives_because: Some(
            "PostgreSQL plans a statement anew when the search path has changed, and one that cannot \
             be planned anew is prepared again; the key is for speed",
        ),
    },
    Mutant {
        name: "statements-of-all-roles-are-one",
        breaks: "a statement that was prepared for one role is executed for another",
        file: TX,
        from: "format!(\"{} {}\\n\", context.tenant().as_uuid().simple(), context.role().as_str())",
        to: "format!(\"{}\\n\", context.tenant().as_uuid().simple())",
        tests: Library(&["roles::a_viewer_reads_and_does_not_write"]),
        survives_because: Some(
            "PostgreSQL checks rights whenever a statement is executed, and plans anew for another role \
             where row-level security is in play; the key is for speed",
        ),
    },
    Mutant {
        name: "catalog-of-a-tenant-is-an-operators",
        breaks: "a tenant's own affairs are handled with an operator's context",
        file: TX,
        from: "Self::of(pool, Principal::Tenant(*context)).await",
        to: "let _ = context;
        Self::of(pool, Principal::Operator(OperatorContext::system(\"\"))).await",
        tests: Library(&["isolation::the_librarys_own_catalog_work_for_a_tenant_is_bound_to_it"]),
        survives_because: None,
    },
    Mutant {
        name: "owner-enters-no-context",
        breaks: "a migration runs without its tenant's context",
        file: TX,
        from: "SELECT freehold_guard.admit($1), set_config('search_path', $2, true)",
        to: "SELECT set_config('backtrace_functions', left($1, 0), true), set_config('search_path', $2, true)",
        tests: Library(&["migrations::a_migration_reaches_no_other_tenants_rows"]),
        survives_because: None,
    },
    Mutant {
        name: "sessions-can-be-changed",
        breaks: "a tenant's last statement may be about the session",
        file: TX,
        from: "        require_query(sql)?;
        self.0.query_and_commit(",
        to: "        self.0.query_and_commit(",
        tests: Library(&["transactions::what_another_tenant_will_run_cannot_be_replaced"]),
        survives_because: None,
    },
    Mutant {
        name: "statements-have-names-to-guess",
        breaks: "SQL that is injected can put a statement of its own in another's place",
        file: CONNECTION,
        from: "format!(\"{prefix}_{next}\")",
        to: "format!(\"{}_{next}\", prefix.len())",
        tests: LibraryUnit(&[
            "pool::connection::tests::no_two_connections_name_their_statements_alike",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "single-statements-miss-the-door",
        breaks: "a statement that is first and last runs without its context",
        file: TRANSACTION,
        from: "            entry.put(&mut batch, fixed, pass)?;
        }
        batch.query",
        to: "            if !alone {
                entry.put(&mut batch, fixed, pass)?;
            }
        }
        batch.query",
        tests: Library(&["transactions::a_tenant_reads_what_it_wrote_and_no_other_tenant_does"]),
        survives_because: None,
    },
    Mutant {
        name: "commit-comes-before-the-query",
        breaks: "a last statement runs after its COMMIT, without a context",
        file: TRANSACTION,
        from: "        batch.query(statement, params)?;
        match alone {
            true => leave(&mut batch, fixed, *ran_utility)?,
            false => end(&mut batch, fixed, ending, *ran_utility)?,
        }",
        to: "        if !alone {
            end(&mut batch, fixed, ending, *ran_utility)?;
        }
        batch.query(statement, params)?;",
        tests: Library(&[
            "transactions::an_error_in_the_last_statement_commits_nothing_of_those_before",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "refused-parameters-commit",
        breaks: "a last statement that cannot be sent commits what came before it",
        file: TRANSACTION,
        from: "        batch.query(statement, params)?;
        match alone {
            true => leave(&mut batch, fixed, *ran_utility)?,
            false => end(&mut batch, fixed, ending, *ran_utility)?,
        }",
        to: "        let put = batch.query(statement, params);
        if !alone {
            end(&mut batch, fixed, ending, *ran_utility)?;
        }
        if let Err(refused) = put {
            batch.run().await?;
            return Err(refused.into());
        }",
        tests: Library(&["transactions::a_parameter_of_the_wrong_type_commits_nothing"]),
        survives_because: None,
    },
    Mutant {
        name: "pipelines-of-transactions-miss-the-door",
        breaks: "a statement of a pipeline runs without its context, or in that of one before",
        file: PIPELINE,
        from: "                entry.put(&mut batch, fixed, &pass)?;
",
        to: "",
        tests: Library(&["pipelines::each_of_its_own_fails_alone"]),
        survives_because: None,
    },
    Mutant {
        name: "pipelines-of-transactions-are-one",
        breaks: "one statement's error undoes what others of the pipeline did",
        file: PIPELINE,
        from: "            batch.end_section();
",
        to: "",
        tests: Library(&["pipelines::each_of_its_own_fails_alone"]),
        survives_because: None,
    },
    Mutant {
        name: "waiting-seals-expire",
        breaks: "what waits behind a slow statement of a pipeline is refused",
        file: PIPELINE,
        from: "if is_expired_seal(db) && turn > 0 {",
        to: "if is_expired_seal(db) && turn > 1_000 {",
        tests: Library(&["pipelines::what_waits_behind_a_slow_statement_is_sealed_again"]),
        survives_because: None,
    },
    Mutant {
        name: "statements-prepared-for-nobody-stay",
        breaks: "who asks and goes away fills the server's memory with prepared statements",
        file: CONNECTION,
        from: "self.discarded.push(Statement::named(name.clone()));",
        to: "self.discarded.push(Statement::named(String::new()));",
        tests: Library(&["abandonment::a_dropped_pipeline_leaves_no_statement_on_the_server"]),
        survives_because: None,
    },
    Mutant {
        name: "pipelines-are-cancelled-once",
        breaks: "an abandoned pipeline runs on behind the statement that was cancelled",
        file: TRANSACTION,
        from: "                settled?;
                break;
            }
            patience *= 2;
        }",
        to: "                settled?;
                break;
            }
            patience *= 2;
            wire.settle().await?;
        }",
        tests: Library(&["abandonment::a_dropped_pipeline_is_cancelled_statement_by_statement"]),
        survives_because: None,
    },
    Mutant {
        name: "failed-transactions-commit",
        breaks: "a transaction of which a statement failed says that it was committed",
        file: TRANSACTION,
        from: "                self.rollback().await?;
                Err(self.aborted())",
        to: "                self.rollback().await",
        tests: Library(&["transactions::an_error_inside_a_transaction_commits_nothing"]),
        survives_because: None,
    },
    Mutant {
        name: "violations-are-not-recorded",
        breaks: "what PostgreSQL refuses leaves no word",
        file: TRANSACTION,
        from: "            self.violations.record(match",
        to: "            drop(match",
        tests: Library(&["violations::what_the_database_refuses_is_recorded_by_itself"]),
        survives_because: None,
    },
    Mutant {
        name: "dropped-is-not-rolled-back",
        breaks: "a dropped transaction stays open on its connection",
        file: TRANSACTION,
        from: "!wire.is_busy() && wire.status() == TransactionStatus::Idle",
        to: "!wire.is_busy()",
        tests: Library(&[
            "abandonment::a_transaction_dropped_between_its_statements_is_rolled_back",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "busy-connections-go-back",
        breaks: "a connection whose answer is outstanding goes back to the pool as it is",
        file: TRANSACTION,
        from: "Ok(runtime) => drop(runtime.spawn(tidy(connection))),",
        to: "Ok(_) => drop(connection),",
        tests: Library(&["abandonment::a_dropped_request_leaves_no_open_transaction"]),
        survives_because: None,
    },
    Mutant {
        name: "abandoned-queries-run-on",
        breaks: "what a dropped request asked is not cancelled",
        file: TRANSACTION,
        from: "        cancel.cancel().await?;
",
        to: "",
        tests: Library(&[
            "abandonment::a_long_statement_that_is_dropped_is_cancelled_in_the_server",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "answers-of-others-are-read",
        breaks: "the answer to what was abandoned is taken for the next one's",
        file: WIRE,
        from: "        while self.unanswered > 1 + later {
            self.skip_batch().await?;
        }
",
        to: "",
        tests: Library(&[
            "abandonment::who_comes_after_an_abandoned_transaction_reads_its_own_answer",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "unsent-batches-stay",
        breaks: "what was not sent of a refused statement is sent with the next one",
        file: BATCH,
        from: "            self.connection.outbox.truncate(self.begins_at);
",
        to: "",
        tests: Library(&["transactions::a_parameter_of_the_wrong_type_commits_nothing"]),
        survives_because: None,
    },
    Mutant {
        name: "changed-sessions-are-lent",
        breaks: "a session that one tenant has changed serves the next",
        file: WIRE,
        from: "        self.settings.changed.is_empty()
",
        to: "        true
",
        tests: Library(&[
            "transactions::a_setting_left_on_the_session_is_not_met_by_the_next_tenant",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "dead-connections-are-lent",
        breaks: "a connection that was lost is given to the next",
        file: CONNECTION,
        from: "self.wire.is_reusable() && ",
        to: "",
        tests: Library(&["transactions::a_connection_that_died_in_the_pool_is_not_lent"]),
        survives_because: None,
    },
    Mutant {
        name: "a-lost-session-is-lost-for-all",
        breaks: "a tenant whose functions reset the session takes its connection from all others",
        file: TRANSACTION,
        from: "if is_unknown_seal(db) && held(&mut self.connection).lose_session() {",
        to: "if false && held(&mut self.connection).lose_session() {",
        tests: Library(&["sealing::who_resets_a_session_is_in_nobodys_way"]),
        survives_because: None,
    },
    Mutant {
        name: "poolers-are-not-seen",
        breaks: "a pooler in transaction mode is taken for PostgreSQL itself",
        file: POOLER,
        from: "Pooler::Detect => pid == wire.backend_pid(),",
        to: "Pooler::Detect => pid == pid,",
        tests: Server(&["pooler::many_clients_of_two_tenants_share_few_sessions_behind_a_pooler"]),
        survives_because: None,
    },
    Mutant {
        name: "every-pooler-will-do",
        breaks: "a pooler that breaks transactions apart is served behind",
        file: POOLER,
        from: "        Ok(outcome) => outcome,",
        to: "        Ok(_) => Ok(()),",
        tests: Server(&["pooler::a_pooler_that_mixes_its_clients_up_is_not_served_behind"]),
        survives_because: None,
    },
    Mutant {
        name: "certificate-of-any-host",
        breaks: "a certificate of another host is taken for the database's",
        file: "crates/freehold/src/wire/tls.rs",
        from: "\"verify-full\" => Check::Host,",
        to: "\"verify-full\" => Check::Authority,",
        tests: Server(&["tls::tls_to_postgresql_is_checked_as_sslmode_says"]),
        survives_because: None,
    },
    Mutant {
        name: "listeners-behind-poolers-are-believed",
        breaks: "a server behind a pooler waits for word that goes to others",
        file: "crates/freehold/src/resolve/resolver.rs",
        from: "if pooler.is_direct(&target).await.is_ok_and(|direct| !direct) {",
        to: "if pooler.is_direct(&target).await.is_err() {",
        tests: Server(&["pooler::a_suspension_is_heard_of_behind_a_pooler"]),
        survives_because: None,
    },
    Mutant {
        name: "read-only-servers-are-the-statements-fault",
        breaks: "a write to a server that takes none is a 500",
        file: TRANSACTION,
        from: "if is_refused_write(db) && self.entry.access == Access::Write {",
        to: "if is_refused_write(db) && self.entry.access == Access::Read {",
        tests: Library(&[
            "outages::a_write_to_a_server_that_takes_none_is_an_outage_and_its_connection_is_replaced",
            "outages::work_on_the_catalog_hears_of_an_outage_too",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "read-only-connections-are-kept",
        breaks: "a connection that said that it takes no writes is lent again",
        file: OUTAGE,
        from: "        if !takes_writes {
            held(&mut self.connection).wire.condemn();
        }
",
        to: "",
        tests: Library(&[
            "outages::a_write_to_a_server_that_takes_none_is_an_outage_and_its_connection_is_replaced",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "outages-in-a-pipeline-are-forgotten",
        breaks: "a commit after an outage in a pipeline is answered as a fault of the caller's",
        file: PIPELINE,
        from: "        self.failed_by = outcome.as_ref().err().map(|failed| failed.error.kind());
",
        to: "",
        tests: Library(&[
            "outages::a_write_to_a_server_that_takes_none_is_an_outage_and_its_connection_is_replaced",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "read-only-transactions-are-outages",
        breaks: "SQL that makes its own transaction read-only is answered as an outage",
        file: OUTAGE,
        from: "let takes_writes = matches!(asked.await, Ok(true));",
        to: "let takes_writes = matches!(asked.await, Ok(true)) && false;",
        tests: Library(&["outages::a_transaction_that_sql_has_made_read_only_is_no_outage"]),
        survives_because: None,
    },
    Mutant {
        name: "read-only-sessions-outlast-the-spell",
        breaks: "sessions that were opened while the server took no writes are lent for half an hour",
        file: CONNECTION,
        from: "                false => READ_ONLY_AGE_MAX,",
        to: "                false => AGE_MAX,",
        tests: Library(&[
            "outages::a_session_that_was_opened_in_a_read_only_spell_does_not_outlast_it",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "full-databases-fail-requests",
        breaks: "where the database has no room for more connections, requests fail though some are open",
        file: POOL,
        from: "if error.is_full() && scheduler.give_up(checkout.0) {",
        to: "if error.is_full() && scheduler.give_up(checkout.0) && false {",
        tests: Library(&[
            "outages::where_the_database_has_no_room_one_waits_for_a_connection_that_is_open",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "statements-taken-away-stay-so",
        breaks: "one tenant's DEALLOCATE ALL is the next tenant's error",
        file: TRANSACTION,
        from: "held(&mut self.connection).prepare_anew().await?;",
        to: "",
        tests: Library(&[
            "sessions::prepared_statements_that_a_tenant_takes_away_are_prepared_anew_for_the_next",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "closes-go-with-a-dropped-batch",
        breaks: "statements stay in the backend that were to be closed by a batch that was never sent",
        file: BATCH,
        from: "        self.closes = Some(statements);",
        to: "        statements.clear();",
        tests: LibraryUnit(&[
            "wire::tests::a_statement_is_closed_even_if_the_batch_that_should_have_is_never_sent",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "connect-failures-do-not-say-what-to-do",
        breaks: "a wrong password is not named as one",
        file: CONNECT_FAILURE,
        from: "(Some(\"28P01\"), _) => {",
        to: "(Some(\"28P99\"), _) => {",
        tests: Library(&[
            "outages::a_failure_to_connect_names_its_setting_and_what_to_do_to_the_log_alone",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "trouble-is-told-at-each-attempt",
        breaks: "what lasts fills the log",
        file: "crates/freehold/src/observe/trouble.rs",
        from: "        if !is_known {",
        to: "        let is_known = false;
        if !is_known {",
        tests: LibraryUnit(&[
            "observe::trouble::tests::trouble_is_told_when_it_begins_when_it_changes_and_when_it_is_over",
            "observe::trouble::tests::what_comes_and_goes_is_told_now_and_then",
        ]),
        survives_because: None,
    },
];
