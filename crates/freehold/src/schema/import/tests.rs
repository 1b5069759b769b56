use super::*;

fn imported(text: &str) -> Imported {
    import_dump(text).unwrap_or_else(|refused| panic!("{text}: {refused:?}"))
}

fn refused(text: &str) -> Vec<(usize, String)> {
    let refusals = import_dump(text).unwrap_err();
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
            let _ = import_dump(&text);
        }
    }
}
