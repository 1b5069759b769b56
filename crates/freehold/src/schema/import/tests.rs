use super::*;

fn one(text: &str) -> Result<Imported, Vec<ImportRefusal>> {
    import_dumps(&[text.to_owned()]).remove(0)
}

fn imported(text: &str) -> Imported {
    one(text).unwrap_or_else(|refused| panic!("{text}: {refused:?}"))
}

fn refused(text: &str) -> Vec<(usize, String)> {
    let refusals = one(text).unwrap_err();
    refusals.into_iter().map(|refusal| (refusal.line, refusal.why)).collect()
}

const DUMP: &str = r#"--
-- PostgreSQL database dump
--

\restrict abc

-- Dumped from database version 17.2

SET statement_timeout = 0;
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);

--
-- Name: EXTENSION citext; Type: COMMENT; Schema: -; Owner: -
--
CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog;
CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public;
COMMENT ON EXTENSION citext IS 'data type';

CREATE SCHEMA public;
ALTER SCHEMA public OWNER TO pg_database_owner;
COMMENT ON SCHEMA public IS 'standard public schema';

CREATE FUNCTION public.touch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN UPDATE public.notes SET body = 'public.x; y'; RETURN NEW; END $$;

CREATE TABLE public.notes (
    id integer NOT NULL,
    body public.citext DEFAULT 'public.'
);
ALTER TABLE public.notes OWNER TO app;
CREATE SEQUENCE public.notes_id_seq AS integer;
ALTER SEQUENCE public.notes_id_seq OWNED BY public.notes.id;
ALTER TABLE ONLY public.notes ALTER COLUMN id SET DEFAULT nextval('public.notes_id_seq'::regclass);

COPY public.notes (id, body) FROM stdin;
1	it's; a \\ backslash\tand a tab
2	\N
\.

COPY public.empty (id) FROM stdin;
\.

SELECT pg_catalog.setval('public.notes_id_seq', 2, true);
ALTER TABLE ONLY public.notes ADD CONSTRAINT notes_pkey PRIMARY KEY (id);
GRANT ALL ON TABLE public.notes TO app;
GRANT SELECT ON TABLE public.notes TO freehold_viewer;
REVOKE USAGE ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA public GRANT ALL ON TABLES TO app;
CREATE PUBLICATION p FOR ALL TABLES;

\unrestrict abc
"#;

#[test]
fn a_dump_becomes_a_baseline() {
    let imported = imported(DUMP);
    insta::assert_snapshot!(imported.sql);
    let remarks: Vec<String> = imported
        .remarks
        .iter()
        .map(|remark| format!("{} × {} (line {})", remark.count, remark.what, remark.first_line))
        .collect();
    insta::assert_snapshot!(remarks.join("\n"));
}

#[test]
fn rows_are_what_copy_would_have_read() {
    for (row, expected) in [
        ("1\ta", "'1', 'a'"),
        ("\\N\t", "NULL, ''"),
        ("a\\tb\\nc\\\\d\t'", "'a\tb\nc\\d', ''''"),
        ("\\b\\f\\v\\r\\x", "'\u{8}\u{c}\u{b}\rx'"),
        ("{1,2}\t\\\\x00ff", "'{1,2}', '\\x00ff'"),
    ] {
        assert_eq!(values(row), expected, "{row}");
    }
}

#[test]
fn what_a_baseline_cannot_have_is_refused_with_its_line() {
    let refusals = refused(
        "CREATE TABLE a (id int);\n\\i other.sql\nCREATE SCHEMA audit;\n\nCREATE ROLE app;\nCREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION f();\nSET standard_conforming_strings = off;",
    );
    let lines: Vec<usize> = refusals.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 5, 6, 7]);
    for ((_, why), word) in
        refusals.iter().zip(["\\i", "audit", "CREATE ROLE", "EVENT", "backslashes"])
    {
        assert!(why.contains(word), "{why}");
    }
    assert_eq!(refused("SET a = 1;\n-- nothing\n").len(), 1);
    assert_eq!(refused("").len(), 1);
}

#[test]
fn a_name_may_be_any_word() {
    for sql in [
        "CREATE TRIGGER subscription AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();",
        "CREATE INDEX publication ON public.t USING btree (id);",
        "CREATE TABLE public.server (id integer);",
        "CREATE POLICY role ON public.t USING (true);",
        "ALTER TABLE public.t RENAME COLUMN owner TO holder;",
        "CREATE POLICY p ON public.t TO PUBLIC, freehold_viewer USING (true);",
        "REVOKE ALL ON FUNCTION public.f() FROM PUBLIC;",
    ] {
        assert_eq!(imported(sql).statements, 1, "{sql}");
    }
    assert!(
        imported("SET check_function_bodies = false; CREATE TABLE a ();")
            .sql
            .starts_with("SET LOCAL")
    );
    let why = &refused("\nCREATE POLICY p ON t FOR SELECT TO authenticated USING (true);")[0];
    assert!(why.0 == 2 && why.1.contains("authenticated"), "{why:?}");
}

#[test]
fn a_customers_data_is_refused() {
    let rows = "1\n".repeat(ROWS_MAX + 1);
    let (line, why) = &refused(&format!("COPY t (id) FROM stdin;\n{rows}\\.\n"))[0];
    assert_eq!(*line, 1);
    assert!(why.contains("--schema-only"), "{why}");
    let inserts = "INSERT INTO public.t VALUES (1, f(')')), (2, '(');\n".repeat(ROWS_MAX / 2);
    assert_eq!(imported(&inserts).statements, ROWS_MAX / 2);
    let more = format!(
        "{inserts}INSERT INTO t SELECT 1;\nINSERT INTO t VALUES (1) ON CONFLICT (a) DO NOTHING;"
    );
    assert_eq!(refused(&more)[0].0, ROWS_MAX / 2 + 2);
    // All files of a folder count.
    let both = import_dumps(&[inserts, "COPY t FROM stdin;\n1\n\\.\n".to_owned()]);
    assert!(both[0].is_ok() && both[1].is_err());
}

#[test]
fn rows_in_another_format_are_refused_with_their_line() {
    for (copy, named) in [
        ("COPY t (a) FROM stdin WITH (FORMAT csv);\n1\n\\.", "FORMAT csv"),
        ("COPY t FROM stdin CSV HEADER;\na;b\n\\.", "CSV HEADER"),
        ("COPY t FROM '/tmp/x';", "INSERT"),
        ("COPY t TO stdout;", "INSERT"),
    ] {
        let refusals = refused(&format!("SELECT 1;\n{copy}\nCREATE TABLE a (id int);"));
        assert!(refusals.len() == 1 && refusals[0].0 == 2, "{copy}: {refusals:?}");
        assert!(refusals[0].1.contains(named), "{refusals:?}");
    }
}

#[test]
fn statistics_of_newer_dumps_are_left_out() {
    let imported = imported(
        "CREATE TABLE public.t (id int);
SELECT * FROM pg_catalog.pg_restore_relation_stats(
\t'version', '180000'::integer, 'schemaname', 'public', 'relname', 't', 'reltuples', '-1'::real
);
SELECT * FROM pg_catalog.pg_restore_attribute_stats('schemaname', 'public');",
    );
    assert_eq!(imported.statements, 1);
    assert!(imported.remarks.iter().any(|r| r.what.contains("statistics") && r.count == 2));
}

#[test]
fn functions_find_the_tenants_own_and_the_extensions() {
    let function = "CREATE FUNCTION public.slug(t text) RETURNS text LANGUAGE sql IMMUTABLE
    SET search_path TO ''
    AS $$ SELECT public.lower_all(public.unaccent('public.unaccent'::regdictionary, t)) $$;";
    let texts = [
        function.to_owned(),
        "CREATE FUNCTION public.lower_all(t text) RETURNS text LANGUAGE sql AS $$ SELECT lower(t) $$;"
            .to_owned(),
    ];
    let made = import_dumps(&texts).remove(0).unwrap();
    assert_eq!(
        made.sql,
        "CREATE FUNCTION slug(t text) RETURNS text LANGUAGE sql IMMUTABLE
    SET search_path TO public
    AS $$ SELECT lower_all(public.unaccent('public.unaccent'::regdictionary, t)) $$;\n\n"
    );
    assert!(made.remarks.iter().any(|remark| remark.what.contains("search path")));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a field contains, the INSERT has exactly that value, in one literal.
        #[test]
        fn a_field_is_one_literal(field in "[^\\\\\t\n\r\0]{0,40}") {
            let value = values(&field);
            let tokens: Vec<_> = crate::sql::script::tokens(&value).collect();
            prop_assert_eq!(tokens.len(), 1);
            prop_assert_eq!(value[1..value.len() - 1].replace("''", "'"), field);
        }

        #[test]
        fn no_text_stops_it(text in "(CREATE|COPY| FROM stdin|;|\n|\\\\|'|\"|\\$\\$|public|\\.|--|a|\t){0,30}") {
            let _ = one(&text);
        }
    }
}
