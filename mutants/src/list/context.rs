//! The context and its way to the database: the door's functions, transactions, connections.

use super::Mutant;
use super::Tests::Library;

const CATALOG_SQL: &str = "crates/freehold/migrations/0001_catalog.sql";
const TX: &str = "crates/freehold/src/tx.rs";
const TRANSACTION: &str = "crates/freehold/src/tx/transaction.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "context-outlives-its-transaction",
        breaks: "the context is set for the session instead of the transaction",
        file: CATALOG_SQL,
        from: "  ignored := pg_catalog.set_config('freehold.context', context, true);
  ignored := pg_catalog.set_config('role', role, true);",
        to: "  ignored := pg_catalog.set_config('freehold.context', context, false);
  ignored := pg_catalog.set_config('role', role, true);",
        tests: Library(&["isolation::the_context_is_gone_with_its_transaction"]),
        survives_because: None,
    },
    Mutant {
        name: "role-outlives-its-transaction",
        breaks: "the tenant's role is set for the session",
        file: CATALOG_SQL,
        from: "set_config('role', role, true)",
        to: "set_config('role', role, false)",
        tests: Library(&["isolation::the_context_is_gone_with_its_transaction"]),
        survives_because: None,
    },
    Mutant {
        name: "path-outlives-its-transaction",
        breaks: "the search path is set for the session",
        file: CATALOG_SQL,
        from: "|| ', public, pg_temp', true);",
        to: "|| ', public, pg_temp', false);",
        tests: Library(&["isolation::the_context_is_gone_with_its_transaction"]),
        survives_because: None,
    },
    Mutant {
        name: "temporary-tables-come-first",
        breaks: "pg_temp is not last on the search path, so it is searched first",
        file: CATALOG_SQL,
        from: "|| ', public, pg_temp', true);",
        to: "|| ', public', true);",
        tests: Library(&["privileges::temporary_tables_are_searched_last"]),
        survives_because: None,
    },
    Mutant {
        name: "no-role-is-set",
        breaks: "a transaction keeps the rights of the role that connects",
        file: CATALOG_SQL,
        from: "  ignored := pg_catalog.set_config('role', role, true);\n",
        to: "",
        tests: Library(&["roles::a_viewer_reads_and_does_not_write"]),
        survives_because: None,
    },
    Mutant {
        name: "viewers-become-members",
        breaks: "a viewer's transaction gets a member's role",
        file: CATALOG_SQL,
        from: "WHEN 'viewer' THEN 'freehold_viewer'",
        to: "WHEN 'viewer' THEN 'freehold_member'",
        tests: Library(&["roles::a_viewer_reads_and_does_not_write"]),
        survives_because: None,
    },
    Mutant {
        name: "policies-forget-the-context",
        breaks: "every context is the right one",
        file: CATALOG_SQL,
        from: "    ELSE freehold.pass_or_refuse(pg_catalog.current_setting('freehold.context', true))",
        to: "    ELSE true",
        tests: Library(&["isolation::no_statement_of_one_tenant_reaches_another"]),
        survives_because: None,
    },
    Mutant {
        name: "policies-filter-in-silence",
        breaks: "a violation is an empty answer and no error",
        file: CATALOG_SQL,
        from: "    ELSE freehold.pass_or_refuse(pg_catalog.current_setting('freehold.context', true))",
        to: "    ELSE false",
        tests: Library(&["isolation::no_statement_of_one_tenant_reaches_another"]),
        survives_because: None,
    },
    Mutant {
        name: "no-context-passes",
        breaks: "a transaction without any context sees everything",
        file: CATALOG_SQL,
        from: "  IF session_user OPERATOR(pg_catalog.=) 'freehold_owner' AND coalesce(context, '') OPERATOR(pg_catalog.=) '' THEN",
        to: "  IF coalesce(context, '') OPERATOR(pg_catalog.=) '' THEN",
        tests: Library(&[
            "isolation::without_a_context_or_with_a_wrong_one_every_query_is_refused",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "owner-passes-always",
        breaks: "a migration in one tenant's context reaches another's rows",
        file: CATALOG_SQL,
        from: "  IF session_user OPERATOR(pg_catalog.=) 'freehold_owner' AND coalesce(context, '') OPERATOR(pg_catalog.=) '' THEN",
        to: "  IF session_user OPERATOR(pg_catalog.=) 'freehold_owner' THEN",
        tests: Library(&["roles::the_owner_role_in_one_tenants_context_does_not_touch_another"]),
        survives_because: None,
    },
    Mutant {
        name: "exceptions-by-current-user",
        breaks: "a function of the owner's with SECURITY DEFINER passes for the owner",
        file: CATALOG_SQL,
        from: "  IF session_user OPERATOR(pg_catalog.=) 'freehold_owner' AND",
        to: "  IF current_user OPERATOR(pg_catalog.=) 'freehold_owner' AND",
        tests: Library(&["privileges::a_function_of_the_owners_is_bound_to_its_callers_tenant"]),
        survives_because: None,
    },
    Mutant {
        name: "tenants-see-the-whole-catalog",
        breaks: "a tenant's context reads every tenant's members",
        file: CATALOG_SQL,
        from: "    RETURN session_user OPERATOR(pg_catalog.=) 'freehold_owner';",
        to: "    RETURN true;",
        tests: Library(&["isolation::a_tenant_sees_its_own_part_of_the_catalog_alone"]),
        survives_because: None,
    },
    Mutant {
        name: "catalog-not-forced",
        breaks: "the catalog's owner is not bound by its policies",
        file: CATALOG_SQL,
        from: "    EXECUTE format('ALTER TABLE freehold.%I FORCE ROW LEVEL SECURITY', t);\n",
        to: "",
        tests: Library(&["mutants::every_table_of_the_catalog_is_protected"]),
        survives_because: None,
    },
    Mutant {
        name: "tenant-status-is-the-tenants",
        breaks: "a tenant's context may write the catalog's row of its tenant",
        file: CATALOG_SQL,
        from: "  USING ((SELECT freehold.in_catalog()) OR id = (SELECT freehold.tenant()))
  WITH CHECK ((SELECT freehold.in_catalog()));",
        to: "  USING ((SELECT freehold.in_catalog()) OR id = (SELECT freehold.tenant()));",
        tests: Library(&["isolation::a_tenant_sees_its_own_part_of_the_catalog_alone"]),
        survives_because: None,
    },
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
        name: "catalog-of-a-tenant-is-an-operators",
        breaks: "a tenant's own affairs are handled with an operator's context",
        file: TX,
        from: "        Self::with_claim(pool, context.into()).await
    }

    async fn with_claim",
        to: "        let _ = context;
        Self::with_claim(pool, (&OperatorContext::system(\"\")).into()).await
    }

    async fn with_claim",
        tests: Library(&["isolation::the_librarys_own_catalog_work_for_a_tenant_is_bound_to_it"]),
        survives_because: None,
    },
    Mutant {
        name: "owner-enters-no-context",
        breaks: "a migration runs without its tenant's context",
        file: TX,
        from: "                &[&claim.as_str(), &path],",
        to: "                &[&claim.as_str().replace(char::is_alphanumeric, \"\").replace([':', '-'], \"\").as_str(), &path],",
        tests: Library(&["migrations::a_migration_reaches_no_other_tenants_rows"]),
        survives_because: None,
    },
    Mutant {
        name: "dropped-is-not-rolled-back",
        breaks: "a dropped transaction stays open on its connection",
        file: TRANSACTION,
        from: "                let _ = connection.client.batch_execute(\"ROLLBACK\").now_or_never();",
        to: "                let _ = connection;",
        tests: Library(&[
            "abandonment::a_transaction_dropped_between_its_statements_is_rolled_back",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "busy-connections-go-back",
        breaks: "a connection whose answer is outstanding goes back to the pool as it is",
        file: TRANSACTION,
        from: "                Ok(runtime) => drop(runtime.spawn(tidy(connection))),",
        to: "                Ok(_) => drop(connection),",
        tests: Library(&["abandonment::a_dropped_request_leaves_no_open_transaction"]),
        survives_because: None,
    },
    Mutant {
        name: "abandoned-queries-run-on",
        breaks: "what a dropped request asked is not cancelled",
        file: TRANSACTION,
        from: "        connection.cancel.cancel().await?;\n",
        to: "",
        tests: Library(&[
            "abandonment::a_long_statement_that_is_dropped_is_cancelled_in_the_server",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "commit-comes-before-the-query",
        breaks: "a last statement that is not prepared runs after its COMMIT, without a context",
        file: TRANSACTION,
        from: "            let query = client.query(&statement, params);",
        to: "            let query = client.query(sql, params);",
        tests: Library(&["transactions::a_tenant_reads_what_it_wrote_and_no_other_tenant_does"]),
        survives_because: None,
    },
    Mutant {
        name: "refused-parameters-commit",
        breaks: "a last statement that the driver refuses commits what came before it",
        file: TRANSACTION,
        from: "            if let Some(unsent) = query.as_mut().now_or_never() {
                return unsent.map(|rows| (Ok(rows), Ok(())));
            }
",
        to: "",
        tests: Library(&["transactions::a_parameter_of_the_wrong_type_commits_nothing"]),
        survives_because: None,
    },
    Mutant {
        name: "failed-transactions-commit",
        breaks: "a transaction of which a statement failed says that it was committed",
        file: TRANSACTION,
        from: "                self.rollback().await?;
                Err(aborted())",
        to: "                self.rollback().await",
        tests: Library(&["transactions::an_error_inside_a_transaction_commits_nothing"]),
        survives_because: None,
    },
];
