//! Search paths of routines: where a routine finds the names in its text. Pure.
//!
//! A dump, its restore, ANALYZE, autovacuum and (since PostgreSQL 17) CREATE INDEX and REFRESH look names up
//! in pg_catalog alone, so the functions that they call must have a search path of their own. PostgreSQL
//! records which objects call a function: indexes, generated columns, checks, statistics, ranges,
//! materialized views, and the views, operators and functions in between; dumps also call it as
//! freehold_owner, to which restrictive policies apply. Only functions that these reach are given a path,
//! since a path prevents inlining; and functions that run with their owner's rights, which are never inlined.
//!
//! A path that names `public` but not the tenant's schema was written for tables in public. Here they are in
//! the tenant's schema, so that is inserted first.

use std::fmt::Write as _;

use serde::Deserialize;

/// A routine, as far as its settings are concerned.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Settled {
    name: String,
    /// With schema and argument types, quoted.
    signature: String,
    kind: String,
    /// Its `search_path`, as PostgreSQL stores it.
    path: Option<String>,
    /// Settings that a tenant's function must not have.
    forbidden: Vec<String>,
    /// Runs with its owner's rights (SECURITY DEFINER).
    definer: bool,
    /// Something calls it that runs without the tenant's path.
    reached: bool,
    /// An index or a generated column calls it although it is not immutable: PostgreSQL accepted the inlined
    /// text, which is immutable.
    inlined: bool,
}

/// The routines whose path must change, or that have forbidden settings, as a JSON array.
///
/// The search goes from functions to all their callers: most have no path and are called only by triggers,
/// which ends the search at once.
pub(super) const SETTLED_SQL: &str = "
WITH RECURSIVE own AS MATERIALIZED (
  SELECT p.oid, p.proname AS name, p.oid::regprocedure::text AS signature, CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind,
    p.prosecdef, p.provolatile = 'i' AS is_immutable, p.prosqlbody IS NOT NULL AS is_parsed,
    (SELECT substr(s, 13) FROM unnest(p.proconfig) s WHERE s LIKE 'search\\_path=%') AS path,
    (SELECT json_agg(s) FROM unnest(p.proconfig) s
     WHERE s ~* '^(role=|session_authorization=|row_security=(off|false|no|0)$)') AS forbidden
  FROM pg_depend n JOIN pg_proc p ON p.oid = n.objid JOIN pg_language l ON l.oid = p.prolang
  WHERE n.refclassid = 'pg_namespace'::regclass AND n.refobjid = $1::text::regnamespace
    AND n.classid = 'pg_proc'::regclass AND p.prokind IN ('f', 'p') AND l.lanname NOT IN ('internal', 'c')
), reach(function, classid, objid) AS (
  -- A body that was parsed when it was made has its names already.
  SELECT oid, 'pg_proc'::regclass::oid, oid FROM own WHERE path IS NULL AND NOT is_parsed
  UNION
  SELECT r.function, x.classid, x.objid FROM reach r CROSS JOIN LATERAL (
    SELECT d.classid, d.objid FROM pg_depend d
    WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND d.classid IN (
      'pg_attrdef'::regclass, 'pg_constraint'::regclass, 'pg_statistic_ext'::regclass, 'pg_class'::regclass, 'pg_rewrite'::regclass,
      'pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_amop'::regclass, 'pg_amproc'::regclass, 'pg_opclass'::regclass, 'pg_policy'::regclass)
    UNION ALL
    SELECT 'pg_class'::regclass, w.ev_class FROM pg_rewrite w WHERE r.classid = 'pg_rewrite'::regclass AND w.oid = r.objid
    UNION ALL
    SELECT 'pg_opclass'::regclass, c.oid FROM pg_amproc a JOIN pg_opclass c ON c.opcfamily = a.amprocfamily
    WHERE r.classid = 'pg_amproc'::regclass AND a.oid = r.objid
    UNION ALL
    SELECT 'pg_opclass'::regclass, c.oid FROM pg_amop a JOIN pg_opclass c ON c.opcfamily = a.amopfamily
    WHERE r.classid = 'pg_amop'::regclass AND a.oid = r.objid
  ) x
  WHERE r.classid NOT IN ('pg_attrdef'::regclass, 'pg_constraint'::regclass, 'pg_statistic_ext'::regclass, 'pg_type'::regclass, 'pg_policy'::regclass)
), reached AS (
  SELECT r.function AS oid, bool_or(c.relkind IN ('i', 'I', 'p') OR a.attgenerated <> '') AS is_fixed FROM reach r
  LEFT JOIN pg_class c ON r.classid = 'pg_class'::regclass AND c.oid = r.objid
  LEFT JOIN pg_attrdef d ON r.classid = 'pg_attrdef'::regclass AND d.oid = r.objid
  LEFT JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
  LEFT JOIN pg_type t ON r.classid = 'pg_type'::regclass AND t.oid = r.objid
  LEFT JOIN pg_policy l ON r.classid = 'pg_policy'::regclass AND l.oid = r.objid AND NOT l.polpermissive
  WHERE r.classid IN ('pg_constraint'::regclass, 'pg_statistic_ext'::regclass)
    -- A partitioned table calls what its rows are told apart by.
    OR c.relkind IN ('i', 'I', 'm', 'p') OR a.attgenerated <> '' OR t.typtype = 'r'
    OR l.polroles && ARRAY[0, 'freehold_owner'::regrole::oid]
  GROUP BY r.function
)
SELECT coalesce(json_agg(json_build_object('name', o.name, 'signature', o.signature, 'kind', o.kind, 'path', o.path,
  'forbidden', coalesce(o.forbidden, '[]'), 'definer', o.prosecdef, 'reached', r.oid IS NOT NULL,
  'inlined', coalesce(r.is_fixed AND NOT o.is_immutable, false)) ORDER BY o.signature), '[]')
FROM own o LEFT JOIN reached r ON r.oid = o.oid
WHERE r.oid IS NOT NULL OR o.forbidden IS NOT NULL
  OR CASE WHEN o.path IS NULL THEN o.prosecdef ELSE o.path ~ '(^|,) *public *(,|$)' END";

impl Settled {
    /// The path that it gets instead.
    fn path(&self, schema: &str) -> Option<String> {
        let Some(path) = &self.path else {
            return (self.reached || self.definer).then(|| format!("{schema}, public, pg_temp"));
        };
        let names = elements(path);
        if names.contains(&schema) || !names.contains(&"public") {
            return None;
        }
        let mut wanted = Vec::new();
        for name in names {
            match name {
                // No role has a schema of its own name here.
                "\"$user\"" => continue,
                "public" if !wanted.contains(&schema) => wanted.push(schema),
                _ => {}
            }
            wanted.push(name);
        }
        // Without being named it comes first, and a caller's temporary table before the tenant's.
        if !wanted.contains(&"pg_temp") {
            wanted.push("pg_temp");
        }
        Some(wanted.join(", "))
    }
}

/// The names in a path, with their quotes.
fn elements(path: &str) -> Vec<&str> {
    let mut is_quoted = false;
    let split = path.split(|c| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    });
    split.map(str::trim).filter(|name| !name.is_empty()).collect()
}

pub(super) fn sql(schema: &str, routines: &[Settled], sql: &mut String) {
    for routine in routines {
        if let Some(path) = routine.path(schema) {
            // A path prevents inlining, so the volatility of the inlined text must be declared.
            let immutable = if routine.inlined { "IMMUTABLE " } else { "" };
            let name = &routine.signature;
            let _ = writeln!(sql, "ALTER ROUTINE {name} {immutable}SET search_path = {path};");
        }
    }
}

/// Faults that cannot be repaired.
pub(super) fn faults(schema: &str, routines: &[Settled]) -> Vec<String> {
    let mut faults = Vec::new();
    for routine in routines {
        let Settled { name, kind, .. } = routine;
        for setting in &routine.forbidden {
            faults.push(format!(
                "{name} is a {kind} that is made with SET {}: it would not run as the one who asks. Leave it out",
                setting.replacen('=', " = ", 1)
            ));
        }
        if let Some(path) = routine.path(schema) {
            faults.push(format!(
                "{name} is a {kind} with the search path {}; SET search_path = {path} is needed",
                routine.path.as_deref().unwrap_or("of its caller")
            ));
        }
    }
    faults
}

/// The remedy if a function no longer finds a name because its caller had no path: since PostgreSQL 17, this
/// happens while an index or a materialized view is created. `context` is PostgreSQL's call stack.
pub(crate) fn cure(code: &str, context: Option<&str>) -> Option<String> {
    if !matches!(code, "42883" | "42P01" | "42704") {
        return None;
    }
    let ours = ["freehold.run_migration", "inline_code_block"];
    let line = context?.lines().find(|line| !ours.iter().any(|name| line.contains(name)))?;
    let (_, called) = line.split_once("SQL function ")?;
    let end =
        [" during ", " statement ", " line "].iter().filter_map(|word| called.find(word)).min()?;
    Some(format!(
        "if it is there, an index, a check or a materialized view calls the function {}, and PostgreSQL searches pg_catalog alone then: create the function with SET search_path FROM CURRENT",
        &called[..end]
    ))
}

/// The routines whose path contains the tenant's schema: their names without schema, and the path.
pub(super) const PATHS_SQL: &str = "
SELECT p.proname::text, substr(s, 13)
FROM pg_depend n JOIN pg_proc p ON p.oid = n.objid CROSS JOIN LATERAL unnest(p.proconfig) s
WHERE n.refclassid = 'pg_namespace'::regclass AND n.refobjid = $1::text::regnamespace AND n.classid = 'pg_proc'::regclass
  AND s LIKE 'search\\_path=%' AND s LIKE '%' || $1::text || '%' ORDER BY p.proname";

/// The notices about the paths of routines that a migration creates.
pub(super) fn notices(migration: &str, routines: &[(&str, &str)]) -> Vec<String> {
    let text = migration.to_lowercase();
    let mut notices = Vec::new();
    for (name, path) in routines {
        let Some(made) = statement_of(&text, &name.to_lowercase()) else { continue };
        match made.split_once("search_path") {
            None => notices.push(format!(
                "{name}() is called where only pg_catalog is searched (by an index, a check, a dump), or runs with its owner's rights; it was given the search path {path}"
            )),
            Some((_, set)) if set.contains("public") => notices.push(format!(
                "{name}() names public in its search path, where a tenant has no tables; it was given {path}"
            )),
            Some(_) => {}
        }
    }
    notices
}

/// The text from a routine's name to the next CREATE, if the text creates the routine.
fn statement_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let at = text.match_indices(name).map(|(at, _)| at).find(|at| {
        let head = text[..*at].trim_end_matches(['"', '.']).trim_end();
        let head = head.strip_suffix("public").map_or(head, |h| h.trim_end_matches('"').trim_end());
        (head.ends_with("function") || head.ends_with("procedure"))
            && !text[at + name.len()..].starts_with(part)
    })?;
    let rest = &text[at..];
    let next = ["create function", "create or replace", "create procedure", "create table"];
    let end = next.iter().filter_map(|word| rest.find(word)).min();
    Some(&rest[..end.unwrap_or(rest.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routine(path: Option<&str>) -> Settled {
        Settled {
            name: "f".into(),
            signature: "tenant_x.f(integer)".into(),
            kind: "function".into(),
            path: path.map(Into::into),
            forbidden: vec![],
            definer: false,
            reached: false,
            inlined: false,
        }
    }

    #[test]
    fn a_path_that_names_public_alone_has_the_tenants_schema_before_it() {
        let wanted = |path| routine(Some(path)).path("tenant_x");
        for (path, becomes) in [
            ("public", "tenant_x, public, pg_temp"),
            ("public, pg_temp", "tenant_x, public, pg_temp"),
            ("\"$user\", public", "tenant_x, public, pg_temp"),
            ("pg_catalog, public", "pg_catalog, tenant_x, public, pg_temp"),
            ("public, extensions", "tenant_x, public, extensions, pg_temp"),
            ("pg_temp, public", "pg_temp, tenant_x, public"),
            ("\"a, public\", public", "\"a, public\", tenant_x, public, pg_temp"),
        ] {
            assert_eq!(wanted(path).as_deref(), Some(becomes), "{path}");
        }
        for kept in [
            "\"\"",
            "pg_catalog",
            "tenant_x, public, pg_temp",
            "public, tenant_x",
            "\"Public\"",
            "\"a, public\"",
        ] {
            assert_eq!(wanted(kept), None, "{kept}");
        }
    }

    #[test]
    fn only_what_is_reached_or_runs_as_its_owner_is_given_a_path() {
        assert_eq!(routine(None).path("tenant_x"), None);
        for given in
            [Settled { reached: true, ..routine(None) }, Settled { definer: true, ..routine(None) }]
        {
            let mut text = String::new();
            sql("tenant_x", std::slice::from_ref(&given), &mut text);
            assert_eq!(
                text,
                "ALTER ROUTINE tenant_x.f(integer) SET search_path = tenant_x, public, pg_temp;\n"
            );
            assert_eq!(faults("tenant_x", &[given]).len(), 1, "until it has it");
        }
    }

    #[test]
    fn a_function_that_finds_a_name_no_more_is_named_with_the_cure() {
        let ours =
            "SQL statement \"…\"\nPL/pgSQL function freehold.run_migration(text) line 3 at EXECUTE";
        for (context, named) in [
            (
                format!("SQL function \"slug\" during inlining\n{ours}"),
                Some("function \"slug\", and"),
            ),
            (
                format!("PL/pgSQL function n(integer) line 1 at RETURN\n{ours}"),
                Some("function n(integer), and"),
            ),
            (
                "SQL function \"a\" statement 1\nSQL function \"b\" during startup".to_owned(),
                Some("function \"a\", and"),
            ),
            (ours.into(), None),
        ] {
            let cure = cure("42883", Some(&context));
            assert_eq!(cure.is_some(), named.is_some(), "{cure:?}");
            assert!(named.is_none_or(|named| cure.unwrap().contains(named)), "{context}");
            assert_eq!(super::cure("23505", Some(&context)), None);
        }
        assert_eq!(cure("42883", None), None);
    }

    #[test]
    fn a_notice_tells_a_path_that_was_given_from_one_that_was_changed() {
        let path = "tenant_x, public, pg_temp";
        let migration = "CREATE FUNCTION slug(t text) …; CREATE OR REPLACE FUNCTION \"count\"() …
            SET search_path = public; CREATE FUNCTION kept() … SET search_path FROM CURRENT;
            CREATE INDEX ON items (slug(title), older(title))";
        let routines =
            [("slug", path), ("count", path), ("kept", path), ("older", path), ("lug", path)];
        let notices = notices(migration, &routines);
        assert_eq!(notices.len(), 2, "{notices:?}");
        assert!(notices[0].starts_with("slug() is called where"), "{notices:?}");
        assert!(notices[1].starts_with("count() names public"), "{notices:?}");
    }
}
