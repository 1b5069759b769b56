use super::*;

fn texts(sql: &str) -> Vec<&str> {
    statements(sql).iter().map(|statement| statement.text).collect()
}

#[test]
fn a_semicolon_ends_a_statement_only_where_postgresql_sees_one() {
    for one in [
        "SELECT ';'",
        "SELECT 'it''s;', 1",
        "SELECT E'a\\';b', 'a\\'",
        "SELECT E'a'\n -- more; of it\n 'b\\';c'",
        "SELECT e'\\\\'",
        "SELECT U&'\\0061;', u&\"a;b\"",
        "SELECT B'01', X'1f', n';'",
        "SELECT \"a;b\", \"a\"\";b\"",
        "SELECT $$;$$, $a$ $$ ; $b$ $a$, $1",
        "SELECT a$b$c FROM t",
        "SELECT /* ; /* ; */ ; */ 1",
        "SELECT 1 -- ;\n + 1",
        "SELECT 1 --;\r + 1",
        "SELECT 1.5, .5, 1e5, 0x1f, 1_000",
        "SELECT größe$ß$größe FROM t",
        "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM u; DELETE FROM v)",
        "DO $do$ BEGIN PERFORM 1; END $do$",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 ELSE 2 END; END",
        "create or replace procedure p() begin atomic insert into t values (1); insert into t select x.end, 1 as end from x; end",
        "CREATE FUNCTION f(a int, b text) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE a WHEN 1 THEN CASE b WHEN '' THEN 2 END END; END",
        "CREATE TABLE begin (atomic int, \"end\" int)",
        "CREATE FUNCTION f() RETURNS int RETURN CASE WHEN true THEN 1 END",
    ] {
        assert_eq!(texts(&format!("{one};\n SELECT 2 ;")), [one, "SELECT 2"], "{one}");
    }
}

#[test]
fn what_is_never_closed_goes_to_the_end() {
    for one in ["SELECT 'a; b", "SELECT $x$a; $y$", "SELECT \"a; b", "SELECT /* ; ", "SELECT (1; 2"]
    {
        let found = texts(one);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(one.starts_with(found[0]), "{found:?}");
    }
}

#[test]
fn a_statement_knows_the_line_that_it_begins_in() {
    let text = "-- a comment\n\nSELECT 1;SELECT\n2;\n/* two\nlines */ SELECT '\n';\n;;\nSELECT 4";
    let lines: Vec<_> = statements(text).iter().map(|s| (s.line, s.text)).collect();
    assert_eq!(lines, [(3, "SELECT 1"), (3, "SELECT\n2"), (6, "SELECT '\n'"), (9, "SELECT 4")]);
    assert!(statements("-- nothing\n;; /* at all */").is_empty());
}

#[test]
fn a_dollar_string_has_a_body() {
    let token = |sql| tokens(sql).next().unwrap();
    assert_eq!(token("$$a$$").body(), Some((2, "a")));
    assert_eq!(token("$x$a$$b$x$ c").body(), Some((3, "a$$b")));
    assert_eq!(token("$x$").body(), None);
    assert_eq!(token("$x$never closed").body(), None);
    assert_eq!(token("$1").body(), None);
    assert_eq!(token("$$UéU").body(), None);
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    /// Text that contains separators inside every construct that hides them.
    fn hidden() -> impl Strategy<Value = String> {
        let inner = "[a-zé;' \"$\\\\(\n-]{0,8}";
        prop_oneof![
            inner.prop_map(|text| format!("'{}'", text.replace('\'', "''"))),
            inner
                .prop_map(|text| format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))),
            inner.prop_map(|text| format!("\"{}\"", text.replace('"', "\"\""))),
            inner.prop_map(|text| format!("$q${}$q$", text.replace('$', ""))),
            inner.prop_map(|text| format!("/*{text}*/ x")),
            inner.prop_map(|text| format!("--{}\nx", text.replace('\n', ""))),
            inner.prop_map(|text| format!("('{}')", text.replace('\'', "''"))),
            "[a-zé_][a-z0-9$é]{0,5}",
            "[0-9]{1,3}(\\.[0-9])?",
        ]
    }

    proptest! {
        #[test]
        fn tokens_are_the_text_again(sql in "(?s).{0,60}|['\"$aéEU;()/*\\\\ \n.1&-]{0,20}") {
            let mut end = 0;
            for token in tokens(&sql) {
                prop_assert_eq!(token.start, end);
                prop_assert!(!token.text.is_empty());
                end += token.text.len();
                if let Some((at, body)) = token.body() {
                    prop_assert!(sql[at..].starts_with(body));
                }
            }
            prop_assert_eq!(end, sql.len());
            for statement in statements(&sql) {
                prop_assert!(sql.contains(statement.text));
            }
        }

        #[test]
        fn what_is_put_together_comes_apart_again(
            written in prop::collection::vec(prop::collection::vec(hidden(), 1..5), 1..6)
        ) {
            let written: Vec<String> =
                written.iter().map(|words| format!("SELECT {}", words.join(" "))).collect();
            let sql = written.join(" ;\n");
            prop_assert_eq!(texts(&sql), written.iter().map(|s| s.trim_end()).collect::<Vec<_>>());
        }
    }
}
