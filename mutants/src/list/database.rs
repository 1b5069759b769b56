//! Objects in the database: policies, grants, roles, schemas, and their check at the start.

use super::Mutant;
use super::Tests::{Library, LibraryUnit, Server};

const POLICY: &str = "crates/freehold/src/schema/policy.rs";
const INVENTORY: &str = "crates/freehold/src/schema/policy/inventory.rs";
const PATHS: &str = "crates/freehold/src/schema/policy/paths.rs";
const REWRITING: &str = "crates/freehold/src/schema/migration/rewriting.rs";
const ROLES: &str = "crates/freehold/src/init/roles.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "tables-not-forced",
        breaks: "the owner of the tables is not bound by their policies",
        file: POLICY,
        from: "ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;",
        to: "ENABLE ROW LEVEL SECURITY;",
        tests: Library(&["isolation::no_statement_of_one_tenant_reaches_another"]),
        survives_because: None,
    },
    Mutant {
        name: "policy-permissive",
        breaks: "the policy widens what others allow, rather than to narrow it",
        file: POLICY,
        from: "AS RESTRICTIVE USING ({isolated})",
        to: "USING ({isolated})",
        tests: Library(&[
            "isolation::a_policy_that_opens_everything_still_opens_nothing_to_others",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "column-grants-are-none",
        breaks: "a table with grants on columns alone is granted to everybody as a whole",
        file: INVENTORY,
        from: "WHERE t.attrelid = c.oid AND t.attacl IS NOT NULL AND NOT t.attisdropped) a",
        to: "WHERE false) a",
        tests: Library(&["baselines::columns_that_are_not_granted_are_read_by_analytics_alone"]),
        survives_because: None,
    },
    Mutant {
        name: "indexes-call-what-has-no-path",
        breaks: "dumps, ANALYZE and autovacuum fail where an index calls a function that needs the tenant's path",
        file: PATHS,
        from: "(self.reached || self.definer)",
        to: "self.definer",
        tests: Library(&[
            "baselines::functions_that_find_names_by_the_search_path",
            "baselines::what_indexes_and_checks_call_comes_back_from_a_dump",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "views-hide-whom-they-call",
        breaks: "a function that a materialized view calls by a view has no path of its own",
        file: PATHS,
        from: "WHERE r.classid = 'pg_rewrite'::regclass AND w.oid = r.objid",
        to: "WHERE false",
        tests: Library(&["baselines::a_function_behind_a_view_of_a_materialized_view_has_a_path"]),
        survives_because: None,
    },
    Mutant {
        name: "functions-bring-roles-along",
        breaks: "a function of a baseline changes the role that a request runs as",
        file: PATHS,
        from: "'^(role=|session_authorization=|",
        to: "'^(session_authorization=|",
        tests: Library(&["baselines::a_function_that_brings_a_role_along_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "public-without-the-tenants-schema",
        breaks: "a function with SET search_path = public finds no table of the tenant's",
        file: REWRITING,
        from: "let insert = is_public && !*has_public && !*has_schema;",
        to: "let insert = false;",
        tests: Library(&["baselines::public_as_the_search_path"]),
        survives_because: None,
    },
    Mutant {
        name: "faults-go-unseen",
        breaks: "a schema that is not protected passes for one that is",
        file: POLICY,
        from: "    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::new(",
        to: "    if faults.len() < 1000 {
        return Ok(());
    }
    Err(Error::new(",
        tests: Library(&[
            "migrations::a_migration_whose_tables_cannot_be_protected_fails_as_a_whole",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "another-policy-of-the-name-passes",
        breaks: "a policy tenant_isolation of somebody's own is taken for ours",
        file: POLICY,
        from: "                            && p.using == expected
                            && p.check == expected => {}",
        to: "                            && expected.is_some() => {}",
        tests: Library(&[
            "migrations::a_migration_whose_tables_cannot_be_protected_fails_as_a_whole",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "views-of-their-owner",
        breaks: "a view reads with its owner's rights, past the policies",
        file: POLICY,
        from: "                if !relation.security_invoker {
                    let _ = writeln!(sql,",
        to: "                if relation.name.is_empty() {
                    let _ = writeln!(sql,",
        tests: Library(&["migrations::a_view_of_a_migration_reads_with_the_rights_of_who_asks"]),
        survives_because: None,
    },
    Mutant {
        name: "materialized-views-granted",
        breaks: "what no policy can protect is granted to the tenants' roles",
        file: POLICY,
        from: "            RelationKind::MaterializedView
            | RelationKind::ForeignTable
            | RelationKind::Sequence => {}
        }
    }
    for",
        to: "            RelationKind::MaterializedView => relation.grants(&name, &mut sql),
            RelationKind::ForeignTable | RelationKind::Sequence => {}
        }
    }
    for",
        tests: LibraryUnit(&["schema::policy::tests::what_no_policy_can_protect_is_never_granted"]),
        survives_because: None,
    },
    Mutant {
        name: "members-may-truncate",
        breaks: "TRUNCATE, which asks no policy, is granted",
        file: POLICY,
        from: "GRANT INSERT, UPDATE, DELETE ON {name} TO freehold_member;",
        to: "GRANT INSERT, UPDATE, DELETE, TRUNCATE ON {name} TO freehold_member;",
        tests: Library(&["privileges::nothing_that_leads_out_of_a_tenant_is_permitted"]),
        survives_because: None,
    },
    Mutant {
        name: "app-role-owns-what-it-likes",
        breaks: "the server starts with a role that row-level security does not bind",
        file: ROLES,
        from: "        let Some(fault) = row.get::<_, Option<&str>>(2) else { continue };",
        to: "        let Some(fault) = row.get::<_, Option<&str>>(2).filter(|_| role.is_empty()) else { continue };",
        tests: Library(&["mutants::each_fault_of_the_database_is_caught"]),
        survives_because: None,
    },
    Mutant {
        name: "app-role-by-another-name",
        breaks: "the server starts with any role",
        file: ROLES,
        from: "    if rows.first().is_none_or(|row| row.get::<_, &str>(1) != wanted) {",
        to: "    if rows.is_empty() {",
        tests: Server(&["cli::serve_refuses_with_a_sentence_that_says_what_to_do"]),
        survives_because: None,
    },
    Mutant {
        name: "temporary-tables-allowed",
        breaks: "anybody may make temporary tables, which can shadow real ones",
        file: ROLES,
        from: "REVOKE CREATE, TEMPORARY ON DATABASE {database} FROM PUBLIC;",
        to: "REVOKE CREATE ON DATABASE {database} FROM PUBLIC;",
        tests: Library(&["privileges::nothing_that_leads_out_of_a_tenant_is_permitted"]),
        survives_because: None,
    },
    Mutant {
        name: "large-objects-open",
        breaks: "large objects are a drop box between tenants",
        file: ROLES,
        from: "    \"lo_from_bytea\",\n",
        to: "",
        tests: Library(&["privileges::nothing_that_leads_out_of_a_tenant_is_permitted"]),
        survives_because: None,
    },
    Mutant {
        name: "sessions-can-be-ended",
        breaks: "a tenant's SQL may end the sessions of others",
        file: ROLES,
        from: "    \"pg_terminate_backend\",\n",
        to: "",
        tests: Library(&["privileges::nothing_that_leads_out_of_a_tenant_is_permitted"]),
        survives_because: None,
    },
    Mutant {
        name: "app-role-inherits",
        breaks: "outside of a tenant's transaction the app role has a tenant's rights",
        file: ROLES,
        from: "let inherit = if role == \"freehold_app\" { \"NOINHERIT\" } else { \"INHERIT\" };",
        to: "let inherit = if role.is_empty() { \"NOINHERIT\" } else { \"INHERIT\" };",
        tests: Library(&["isolation::the_role_that_connects_has_no_rights_of_its_own"]),
        survives_because: None,
    },
];
