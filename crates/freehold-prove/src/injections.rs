//! Statements that an attacker who can inject SQL into a tenant's query would try. `{other}` is another
//! tenant's schema, `{mark}` the tenant's own mark.

/// How a statement must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// Refused before it is sent, since it is not a query.
    BeNoQuery,
    /// Refused in the same way by the method for utility statements.
    BeRunByNothing,
    /// Refused by the database, for lack of a privilege or of a context.
    LackTheRight,
    /// Refused by the database, because a procedure would end its transaction.
    NotEndTheTransaction,
    /// Answered without rows.
    ShowNothing,
}

/// Statements of one kind.
pub(crate) struct Injections {
    /// The name in the report.
    pub(crate) what: &'static str,
    pub(crate) must: Must,
    /// Tried again after the transaction returned to the role that it logged in as.
    pub(crate) as_app: bool,
    pub(crate) statements: &'static [&'static str],
}

pub(crate) const INJECTIONS: [Injections; 9] = [
    Injections {
        what: "statements that are no queries",
        must: Must::BeNoQuery,
        as_app: false,
        statements: &[
            "LOCK TABLE {other}.canaries IN ACCESS EXCLUSIVE MODE",
            "EXPLAIN SELECT * FROM {other}.canaries WHERE body < 'm'",
            "EXPLAIN (ANALYZE) SELECT * FROM {other}.canaries",
            "DO $$ BEGIN PERFORM 1 FROM {other}.canaries; END $$",
            "NOTIFY freehold, '{mark}'",
            "SET LOCAL ROLE none",
            "SET LOCAL search_path = {other}",
            "/* of {mark} */ ; LOCK TABLE {other}.ledger",
            "-- of {mark}\nEXPLAIN TABLE {other}.ledger",
            "DECLARE c CURSOR FOR SELECT body FROM {other}.canaries",
            "TRUNCATE {other}.ledger",
            "DROP TABLE {other}.ledger",
            "ALTER TABLE {other}.canaries DISABLE ROW LEVEL SECURITY",
            "GRANT SELECT ON {other}.canaries TO PUBLIC",
            "CREATE TABLE public.loot AS SELECT * FROM {other}.canaries",
            "REFRESH MATERIALIZED VIEW {other}.none",
        ],
    },
    Injections {
        what: "statements that outlive or end a transaction",
        must: Must::BeRunByNothing,
        as_app: false,
        statements: &[
            "COPY {other}.canaries TO STDOUT",
            "COPY (SELECT body FROM {other}.canaries) TO PROGRAM 'cat'",
            "COPY dropped FROM STDIN",
            "SET ROLE freehold_owner",
            "SET SESSION AUTHORIZATION freehold_owner",
            "SET search_path = {other}",
            "RESET ROLE",
            "RESET ALL",
            "DISCARD ALL",
            "PREPARE p AS SELECT body FROM {other}.canaries",
            "EXECUTE p",
            "DEALLOCATE ALL",
            "LISTEN freehold",
            "UNLISTEN *",
            "LOAD 'plpgsql'",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "SAVEPOINT s",
            "PREPARE TRANSACTION 'of {mark}'",
            "VACUUM {other}.canaries",
            "CHECKPOINT",
            "ALTER ROLE freehold_app SET search_path = {other}",
            "ALTER SYSTEM SET work_mem = '1MB'",
            "DECLARE c CURSOR WITH HOLD FOR SELECT body FROM {other}.canaries",
        ],
    },
    Injections {
        what: "the catalog's own tables and functions",
        must: Must::LackTheRight,
        as_app: true,
        statements: &[
            "SELECT email FROM freehold.identity LIMIT 5",
            "SELECT slug FROM freehold.tenant LIMIT 5",
            "SELECT tenant_id::text FROM freehold.membership LIMIT 5",
            "SELECT count(*)::text FROM freehold.session",
            "SELECT count(*)::text FROM freehold.credential",
            "SELECT count(*)::text FROM freehold.audit",
            "UPDATE freehold.membership SET role = 'owner'",
            "INSERT INTO freehold.membership SELECT * FROM freehold.membership",
            "DELETE FROM freehold.session",
            "SELECT freehold.prune_violations()",
            "SELECT freehold.record_violations('[]')",
            // In the mode portable, a context is verified where it is used.
            "SELECT freehold.enter_catalog('operator_00000000000000000000000000000007') AND freehold.in_catalog()",
            "SELECT freehold.run_migration('SELECT 1')",
            "SELECT encode(inner_pad, 'hex') FROM freehold_guard.seal_key",
            "SELECT encode(inner_pad, 'hex') FROM freehold_guard.newest_key()",
            "SELECT freehold_guard.next_key()",
        ],
    },
    Injections {
        what: "what others run",
        must: Must::LackTheRight,
        as_app: true,
        statements: &[
            "SELECT string_agg(query, ' ') FROM pg_stat_activity",
            "SELECT string_agg(query, ' ') FROM pg_stat_get_activity(NULL)",
            "SELECT string_agg(pg_stat_get_backend_activity(id), ' ') FROM pg_stat_get_backend_idset() id",
            "SELECT string_agg(statement, ' ') FROM pg_prepared_statements",
            "SELECT pg_terminate_backend(0)",
            "SELECT pg_cancel_backend(0)",
            "SELECT pg_advisory_lock(7)",
            "SELECT pg_try_advisory_lock(7, 7)",
        ],
    },
    Injections {
        what: "another tenant's sequences",
        must: Must::LackTheRight,
        as_app: true,
        statements: &[
            "SELECT nextval('{other}.tickets')",
            "SELECT currval('{other}.tickets')",
            "SELECT setval('{other}.tickets', 1000)",
            "SELECT last_value FROM {other}.tickets",
            "SELECT nextval('{other}.poisoned_no_seq')",
            "SELECT setval('{other}.poisoned_no_seq', 1)",
            "SELECT last_value FROM {other}.poisoned_no_seq",
            "SELECT freehold.next_value('{other}.tickets')",
            "SELECT currval('freehold_guard.session_number')",
        ],
    },
    Injections {
        what: "other roles",
        must: Must::LackTheRight,
        as_app: true,
        statements: &[
            "SELECT set_config('role', 'freehold_owner', true)",
            "SELECT set_config('role', 'freehold_guard', true)",
            "SELECT set_config('role', 'freehold_catalog', true)",
            "SELECT set_config('role', 'freehold_analytics', true)",
            "SELECT set_config('role', 'pg_read_all_data', true)",
            "SELECT set_config('role', 'pg_monitor', false)",
            "SELECT set_config('session_authorization', 'freehold_owner', false)",
            "SELECT set_config('session_replication_role', 'replica', false)",
            "SELECT set_config('backtrace_functions', '{other}_00000000000000000000000000000007_owner', false)",
        ],
    },
    Injections {
        what: "files, large objects and objects of one's own",
        must: Must::LackTheRight,
        as_app: true,
        statements: &[
            "SELECT pg_read_file('postgresql.conf')",
            "SELECT pg_ls_dir('.')::text",
            "SELECT lo_from_bytea(0, '{mark}')",
            "SELECT 1 AS one INTO public.loot",
            "SELECT 1 AS one INTO TEMP loot",
        ],
    },
    Injections {
        what: "procedures that commit",
        must: Must::NotEndTheTransaction,
        as_app: false,
        statements: &["CALL commits('{mark}')", "/* of {mark} */ ; call commits('{mark}')"],
    },
    Injections {
        what: "what PostgreSQL shows of all tables",
        must: Must::ShowNothing,
        as_app: true,
        statements: &[
            "SELECT last_value FROM pg_sequences WHERE schemaname = '{other}' AND last_value IS NOT NULL",
            "SELECT most_common_vals::text FROM pg_stats WHERE schemaname = '{other}'",
            "SELECT statistics_name FROM pg_stats_ext WHERE schemaname = '{other}'",
            "SELECT last_value FROM pg_sequences WHERE schemaname = 'freehold_guard' AND last_value IS NOT NULL",
        ],
    },
];

/// Statements that succeed where `init` had no superuser: docs/isolation.md states it.
pub(crate) const OPEN_WITHOUT_SUPERUSER: &[&str] = &[
    "SELECT string_agg(query, ' ') FROM pg_stat_activity",
    "SELECT string_agg(query, ' ') FROM pg_stat_get_activity(NULL)",
    "SELECT string_agg(pg_stat_get_backend_activity(id), ' ') FROM pg_stat_get_backend_idset() id",
    "SELECT string_agg(statement, ' ') FROM pg_prepared_statements",
    "SELECT pg_terminate_backend(0)",
    "SELECT pg_cancel_backend(0)",
    "SELECT pg_advisory_lock(7)",
    "SELECT pg_try_advisory_lock(7, 7)",
    "SELECT lo_from_bytea(0, '{mark}')",
];

/// Calls of a helper function of the baseline that has the owner's rights.
pub(crate) const HELPERS: Injections = Injections {
    what: "helpers with the owner's rights",
    must: Must::LackTheRight,
    as_app: false,
    statements: &[
        "SELECT t.body FROM (SELECT set_as_owner('backtrace_functions', '{other}_00000000000000000000000000000007_owner') OFFSET 0) s, LATERAL (SELECT body FROM {other}.canaries) t",
        "SELECT t.body FROM (SELECT set_as_owner('freehold.context', '{other}_00000000000000000000000000000007_owner') OFFSET 0) s, LATERAL (SELECT body FROM {other}.canaries) t",
        "SELECT t.body FROM (SELECT set_as_owner('freehold.context', repeat('0', 94) || '{other}_00000000000000000000000000000007_owner') OFFSET 0) s, LATERAL (SELECT body FROM {other}.canaries) t",
        "SELECT set_as_owner('session_authorization', 'freehold_owner')",
        "SELECT ask_as_owner('SELECT body FROM {other}.canaries')",
        "SELECT ask_as_owner('SELECT count(*) FROM {other}.ledger')",
        "SELECT ask_as_owner('UPDATE {other}.canaries SET note = ''{mark}'' RETURNING body')",
        "SELECT ask_as_owner('DELETE FROM {other}.ledger RETURNING body')",
        "SELECT ask_as_owner('SELECT nextval(''freehold_guard.session_number'')')",
        "SELECT ask_as_owner('SELECT currval(''freehold_guard.session_number'')')",
        "SELECT ask_as_owner('SELECT setval(''freehold_guard.session_number'', 7)')",
        "SELECT ask_as_owner('SELECT last_value FROM freehold_guard.session_number')",
        "SELECT ask_as_owner('SELECT encode(inner_pad, ''hex'') FROM freehold_guard.seal_key')",
        "SELECT ask_as_owner('SELECT encode(inner_pad, ''hex'') FROM freehold_guard.newest_key()')",
        "SELECT ask_as_owner('SELECT id FROM freehold_guard.list_keys()')",
        "SELECT ask_as_owner('SELECT freehold_guard.next_key()')",
        "SELECT ask_as_owner('SELECT freehold_guard.add_key(''0000000009'', decode(repeat(''00'', 64), ''hex''), decode(repeat(''00'', 64), ''hex''), 0)')",
        "SELECT ask_as_owner('SELECT set_config(''backtrace_functions'', ''{other}_00000000000000000000000000000007_owner'', true)')",
        "SELECT ask_as_owner('SELECT freehold.next_value(''{other}.tickets'')')",
        "SELECT run_as_owner('GRANT freehold_guard TO freehold_app')",
        "SELECT run_as_owner('CREATE FUNCTION freehold_guard.mine() RETURNS int LANGUAGE sql AS ''SELECT 1''')",
        "SELECT run_as_owner('SET SESSION AUTHORIZATION freehold_guard')",
        "SELECT run_as_owner('COPY (SELECT 1) TO PROGRAM ''cat''')",
        "SELECT run_as_owner('COPY (SELECT body FROM {other}.canaries) TO ''/tmp/loot''')",
    ],
};
