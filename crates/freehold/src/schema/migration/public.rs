//! Removes `public.` from names where the tenant's own object is meant: in dumps, and in folders that other
//! tools' users wrote for one schema. Drizzle, Prisma and Supabase write it always. Pure. Line numbers stay.
//!
//! It is removed from names, from strings that PostgreSQL reads as names (`'public.a_id_seq'::regclass`), and
//! in bodies of functions and of `DO`, where statements that EXECUTE assembles are included. In a body, what
//! the texts do not create is an extension's, which is in `public`, and keeps it: a body may run with a path
//! without `public`.

use std::collections::HashSet;

use crate::sql::script::{Kind, Token, makes_routine, statements, tokens};

/// Separates the statements in a file of Drizzle.
const BREAKPOINT: &str = "--> statement-breakpoint";

/// Whether a text was written by Drizzle.
pub(super) fn is_of_drizzle(sql: &str) -> bool {
    sql.contains(BREAKPOINT) && tokens(sql).any(|token| is_breakpoint(&token))
}

fn is_breakpoint(token: &Token<'_>) -> bool {
    token.kind == Kind::Comment && token.text.trim_end() == BREAKPOINT
}

/// Drizzle sends each part between two breakpoints separately, with or without a semicolon.
pub(super) fn with_semicolons(sql: &str) -> String {
    let (mut made, mut is_open) = (String::with_capacity(sql.len()), false);
    for token in tokens(sql) {
        if is_breakpoint(&token) && is_open {
            made.push(';');
        }
        made.push_str(token.text);
        if !token.is_blank() {
            is_open = !token.is_symbol(";");
        }
    }
    made
}

/// A text with unqualified names, and what was changed.
#[derive(Debug, Default)]
pub(in crate::schema) struct Unqualified {
    pub(in crate::schema) sql: String,
    /// How many names lost `public.`.
    pub(in crate::schema) names: usize,
    /// The same in bodies of functions.
    pub(in crate::schema) in_bodies: usize,
    /// How many functions got a search path with the tenant's schema.
    pub(in crate::schema) paths: usize,
}

/// Removes `public.`. `made` are the names that the application's texts create ([`made_by`]).
pub(in crate::schema) fn unqualified(sql: &str, made: &HashSet<String>) -> Unqualified {
    let mut text = Unqualified::default();
    let mut edits = Edits::default();
    for statement in statements(sql) {
        text.statement(&statement.tokens, made, &mut edits);
    }
    text.sql = edits.applied_to(sql);
    text
}

/// The name of the function, type or relation that a statement creates or renames to.
pub(in crate::schema) fn made_by(tokens: &[Token<'_>]) -> Option<String> {
    const KINDS: [&str; 11] = [
        "function",
        "procedure",
        "aggregate",
        "type",
        "domain",
        "table",
        "view",
        "sequence",
        "collation",
        "configuration",
        "dictionary",
    ];
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
    let kind = tokens.iter().take(5).position(|t| KINDS.iter().any(|kind| t.is_word(kind)))?;
    if is(0, "alter") {
        let to = tokens.windows(2).position(|two| two[0].is_word("rename") && two[1].is_word("to"));
        return tokens.get(to? + 2).map(Token::plain_name);
    }
    let mut at = kind + 1;
    if is(at, "if") {
        at += 3;
    }
    if tokens.get(at + 1).is_some_and(|token| token.is_symbol(".")) {
        at += 2;
    }
    tokens.get(at).filter(|_| is(0, "create")).map(Token::plain_name)
}

/// Where in a text the tokens are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Statement,
    Body,
}

impl Unqualified {
    fn statement(&mut self, tokens: &[Token<'_>], made: &HashSet<String>, edits: &mut Edits) {
        let before = self.in_bodies;
        let is_do = tokens.first().is_some_and(|token| token.is_word("do"));
        let has_body = is_do || makes_routine(tokens);
        for (at, token) in tokens.iter().enumerate() {
            if has_body && is_body(tokens, at) {
                self.inside(token, Place::Body, made, edits);
            } else {
                self.name(tokens, at, Place::Statement, made, edits);
            }
        }
        if is_do {
            // It runs at once, like a statement.
            self.names += self.in_bodies - before;
            self.in_bodies = before;
        }
        if is_about_routine(tokens) {
            self.search_path(tokens, self.in_bodies > before, edits);
        }
    }

    /// The statements in a body. PL/pgSQL's own, such as loops, end at semicolons too.
    fn body(&mut self, tokens: &[Token<'_>], made: &HashSet<String>, edits: &mut Edits) {
        let mut is_assembled = false;
        for (at, token) in tokens.iter().enumerate() {
            is_assembled |= token.is_word("execute");
            is_assembled &= !token.is_symbol(";");
            let is_text = matches!(token.kind, Kind::Text | Kind::Dollar);
            if is_text && is_assembled || token.kind == Kind::Dollar && follows_as(tokens, at) {
                self.inside(token, Place::Statement, made, edits);
            } else {
                self.name(tokens, at, Place::Body, made, edits);
            }
        }
    }

    /// The content of a string that is code.
    fn inside(
        &mut self,
        token: &Token<'_>,
        place: Place,
        made: &HashSet<String>,
        edits: &mut Edits,
    ) {
        let quoted = token.text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
        let (tag, content) = match (token.body(), quoted) {
            (Some((start, body)), _) => (&token.text[..start - token.start], body.to_owned()),
            (None, Some(text)) => ("", text.replace("''", "'")),
            _ => return,
        };
        let mut inner = Unqualified::default();
        let mut inner_edits = Edits::default();
        let all = tokens(&content).filter(|token| !token.is_blank()).collect::<Vec<_>>();
        match place {
            Place::Body => inner.body(&all, made, &mut inner_edits),
            Place::Statement => {
                for statement in statements(&content) {
                    inner.statement(&statement.tokens, made, &mut inner_edits);
                }
            }
        }
        if inner_edits.0.is_empty() {
            return;
        }
        self.in_bodies += inner.names + inner.in_bodies;
        let content = inner_edits.applied_to(&content);
        let text = match tag {
            "" => format!("'{}'", content.replace('\'', "''")),
            tag => format!("{tag}{content}{tag}"),
        };
        edits.replace(token, text);
    }

    /// Removes `public.` before the name at this place, or in the string there that is a name.
    fn name(
        &mut self,
        tokens: &[Token<'_>],
        at: usize,
        place: Place,
        made: &HashSet<String>,
        edits: &mut Edits,
    ) {
        let token = &tokens[at];
        let is = |at: Option<usize>, symbol: &str| {
            at.and_then(|at| tokens.get(at)).is_some_and(|token| token.is_symbol(symbol))
        };
        let is_part = is(at.checked_sub(1), ".");
        if token.names("public") && !is_part && is(Some(at + 1), ".") {
            let Some(name) = tokens.get(at + 2) else { return };
            let is_called = is(Some(at + 3), "(") || is(at.checked_sub(1), ":");
            if place == Place::Body && is_called && !made.contains(&name.plain_name()) {
                return;
            }
            edits.replace(token, String::new());
            edits.replace(&tokens[at + 1], String::new());
            self.names += 1;
        }
        let bare =
            ["'public.", "'\"public\"."].iter().find_map(|prefix| token.text.strip_prefix(prefix));
        if let (Kind::Text, Some(bare)) = (token.kind, bare)
            && is_name_as_text(tokens, at, bare, made)
        {
            edits.replace(token, format!("'{bare}"));
            self.names += 1;
        }
    }

    /// `SET search_path = ''` of a function whose names were all qualified: those that are not any more are
    /// looked for in its path. [`rewriting`](super::rewriting) makes the tenant's schema of `public`.
    fn search_path(&mut self, tokens: &[Token<'_>], has_changed: bool, edits: &mut Edits) {
        let is_path = |two: &[Token<'_>]| two[0].is_word("set") && two[1].names("search_path");
        let Some(set) = tokens.windows(2).position(is_path) else {
            // Indexes call it, and since PostgreSQL 17 CREATE INDEX has a path without the schema.
            let has = |word: &str| tokens.iter().any(|token| token.is_word(word));
            if let Some(last) = tokens.last().filter(|_| has_changed && has("immutable")) {
                edits.append(last, " SET search_path FROM CURRENT");
                self.paths += 1;
            }
            return;
        };
        let is_to = |token: &Token<'_>| token.is_word("to") || token.is_symbol("=");
        if !tokens.get(set + 2).is_some_and(is_to) {
            return;
        }
        let mut end = set + 3;
        while tokens.get(end + 1).is_some_and(|token| token.is_symbol(",")) {
            end += 2;
        }
        let Some(last) = tokens.get(end) else { return };
        let path = &tokens[set + 3..=end];
        let names_public = |token: &Token<'_>| {
            token.names("public") || token.text.trim_matches('\'').eq_ignore_ascii_case("public")
        };
        if path.iter().any(names_public) || last.is_word("default") {
            return;
        }
        if path.len() == 1 && ["''", "\"\""].contains(&last.text) {
            edits.replace(last, "public".to_owned());
        } else if has_changed {
            edits.replace(last, format!("{}, public", last.text));
        } else {
            return;
        }
        self.paths += 1;
    }
}

/// Whether the token is the body of the function or `DO` that the tokens are.
fn is_body(tokens: &[Token<'_>], at: usize) -> bool {
    match tokens[at].kind {
        Kind::Dollar => true,
        Kind::Text => follows_as(tokens, at) || at == 1 && tokens[0].is_word("do"),
        _ => false,
    }
}

fn follows_as(tokens: &[Token<'_>], at: usize) -> bool {
    at > 0 && tokens[at - 1].is_word("as")
}

/// Whether it creates or alters a function or procedure.
fn is_about_routine(tokens: &[Token<'_>]) -> bool {
    let is = |at: usize, words: &[&str]| {
        tokens.get(at).is_some_and(|token| words.iter().any(|word| token.is_word(word)))
    };
    makes_routine(tokens) || is(0, &["alter"]) && is(1, &["function", "procedure", "routine"])
}

/// Whether PostgreSQL reads the string as a name: `'a'::regclass`, `nextval('a')`. Those of other kinds are
/// an extension's if the texts do not create them, such as `'unaccent'::regdictionary`.
fn is_name_as_text(tokens: &[Token<'_>], at: usize, bare: &str, made: &HashSet<String>) -> bool {
    const NAMING: [&str; 6] =
        ["nextval", "setval", "currval", "pg_get_serial_sequence", "to_regclass", "regclass"];
    if at >= 2 && tokens[at - 1].is_symbol("(") {
        return NAMING.iter().any(|name| tokens[at - 2].is_word(name));
    }
    let cast = tokens.get(at + 3).filter(|_| tokens[at + 1].is_symbol(":"));
    let cast = cast.map(|token| token.text.to_ascii_lowercase()).unwrap_or_default();
    let name = bare.trim_matches(['\'', '"']);
    cast == "regclass" || cast.starts_with("reg") && made.contains(name)
}

/// Replacements of tokens, in order.
#[derive(Default)]
struct Edits(Vec<(usize, usize, String)>);

impl Edits {
    fn replace(&mut self, token: &Token<'_>, text: String) {
        self.0.push((token.start, token.start + token.text.len(), text));
    }

    fn append(&mut self, token: &Token<'_>, text: &str) {
        let end = token.start + token.text.len();
        self.0.push((end, end, text.to_owned()));
    }

    fn applied_to(mut self, sql: &str) -> String {
        self.0.sort_by_key(|(start, ..)| *start);
        let (mut made, mut done) = (String::with_capacity(sql.len()), 0);
        for (start, end, text) in self.0 {
            made.push_str(&sql[done..start]);
            made.push_str(&text);
            done = end;
        }
        made + &sql[done..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(sql: &str) -> String {
        let made = statements(sql).iter().filter_map(|s| made_by(&s.tokens)).collect();
        unqualified(&with_semicolons(sql), &made).sql
    }

    #[test]
    fn names_lose_their_schema_and_nothing_else_changes() {
        for (sql, expected) in [
            (
                r#"CREATE TYPE "public"."role" AS ENUM ('a');"#,
                r#"CREATE TYPE "role" AS ENUM ('a');"#,
            ),
            ("CREATE TABLE public.a (id int, b PUBLIC.role);", "CREATE TABLE a (id int, b role);"),
            ("SELECT public.a.id FROM public . a", "SELECT a.id FROM   a"),
            ("SELECT public\n.\n-- here\na", "SELECT \n\n-- here\na"),
            ("SELECT 'public.a', \"public.a\", E'public.a' -- public.a", ""),
            ("SELECT $$ public.a $$ /* public.a */", ""),
            ("SELECT t.public.x, public, \"Public\".a, publics.a FROM public", ""),
            ("GRANT SELECT ON a TO public; SELECT 1", ""),
            (
                "DO $$ BEGIN CREATE TYPE \"public\".\"role\" AS ENUM ('public.a'); END $$;",
                "DO $$ BEGIN CREATE TYPE \"role\" AS ENUM ('public.a'); END $$;",
            ),
            (
                "CREATE COLLATION c (); SELECT 'public.c'::regcollation, 'public.d'::regcollation, setval('public.s', 2), 'public.a'::regclass, 'public.a'::text, nextval('\"public\".\"S\"')",
                "CREATE COLLATION c (); SELECT 'c'::regcollation, 'public.d'::regcollation, setval('s', 2), 'a'::regclass, 'public.a'::text, nextval('\"S\"')",
            ),
            (
                "CREATE TABLE a ()\n--> statement-breakpoint\nCREATE TABLE b ();--> statement-breakpoint\n",
                "CREATE TABLE a ()\n;--> statement-breakpoint\nCREATE TABLE b ();--> statement-breakpoint\n",
            ),
        ] {
            let expected = if expected.is_empty() { sql } else { expected };
            assert_eq!(bare(sql), expected);
        }
        let counted = unqualified("SELECT public.a, \"public\".\"b\", 'public.c'", &HashSet::new());
        assert_eq!((counted.names, counted.in_bodies), (2, 0));
    }

    #[test]
    fn bodies_find_what_the_texts_make_and_name_what_extensions_make() {
        let function =
            |head: &str, body: &str| format!("CREATE FUNCTION f() RETURNS int {head} AS {body}");
        for (sql, expected) in [
            (
                function("", "$$ SELECT 1 FROM public.a, 'public.a' $$"),
                function("", "$$ SELECT 1 FROM a, 'public.a' $$"),
            ),
            (
                function("", "'SELECT ''x'' FROM public.a'"),
                function("", "'SELECT ''x'' FROM a'"),
            ),
            (
                function("", "$$ SELECT public.unaccent(public.f(x)), x::public.citext, x::public.own $$; CREATE TYPE own AS (a int)"),
                function("", "$$ SELECT public.unaccent(f(x)), x::public.citext, x::own $$; CREATE TYPE own AS (a int)"),
            ),
            (
                function("", "$$ BEGIN EXECUTE 'INSERT INTO public.a VALUES (''public.b'')' || x; RAISE 'public.a'; EXECUTE format($q$SELECT public.%I$q$, t); END $$"),
                function("", "$$ BEGIN EXECUTE 'INSERT INTO a VALUES (''public.b'')' || x; RAISE 'public.a'; EXECUTE format($q$SELECT %I$q$, t); END $$"),
            ),
            (
                "DO $do$ BEGIN CREATE FUNCTION g() RETURNS int AS $$ SELECT 1 FROM public.a $$; END $do$".to_owned(),
                "DO $do$ BEGIN CREATE FUNCTION g() RETURNS int AS $$ SELECT 1 FROM a $$; END $do$".to_owned(),
            ),
        ] {
            assert_eq!(bare(&sql), expected);
        }
    }

    #[test]
    fn a_function_whose_names_were_qualified_gets_a_path_on_which_they_are_found() {
        for (head, body, expected) in [
            (
                "SET search_path TO ''",
                "$$ SELECT 1 FROM public.a $$",
                "SET search_path TO public AS $$ SELECT 1 FROM a $$",
            ),
            (
                "SET \"search_path\" = \"\"",
                "$$ SELECT 1 $$",
                "SET \"search_path\" = public AS $$ SELECT 1 $$",
            ),
            (
                "SET search_path = pg_catalog, pg_temp",
                "$$ SELECT public.f() $$",
                "SET search_path = pg_catalog, pg_temp, public AS $$ SELECT f() $$",
            ),
            (
                "SET search_path = pg_catalog",
                "$$ SELECT 1 $$",
                "SET search_path = pg_catalog AS $$ SELECT 1 $$",
            ),
            (
                "SET search_path TO 'public'",
                "$$ SELECT public.f() $$",
                "SET search_path TO 'public' AS $$ SELECT f() $$",
            ),
            (
                "IMMUTABLE",
                "$$ SELECT public.f() $$",
                "IMMUTABLE AS $$ SELECT f() $$ SET search_path FROM CURRENT",
            ),
            ("IMMUTABLE", "$$ SELECT 1 $$", "IMMUTABLE AS $$ SELECT 1 $$"),
        ] {
            let sql = format!("CREATE FUNCTION f() RETURNS int {head} AS {body};");
            assert_eq!(bare(&sql), format!("CREATE FUNCTION f() RETURNS int {expected};"));
        }
        assert_eq!(
            bare("ALTER FUNCTION public.f() SET search_path = ''"),
            "ALTER FUNCTION f() SET search_path = public"
        );
        assert_eq!(bare("SET search_path = ''"), "SET search_path = ''");
    }

    #[test]
    fn what_a_statement_makes_is_known_by_its_name() {
        for (sql, name) in [
            ("CREATE OR REPLACE FUNCTION public.f(a int)", Some("f")),
            ("CREATE TABLE IF NOT EXISTS \"public\".\"My \"\"T\"", Some("My \"T")),
            ("CREATE DOMAIN Email AS text", Some("email")),
            ("ALTER TYPE public.a RENAME TO b", Some("b")),
            ("CREATE TEXT SEARCH CONFIGURATION public.c (PARSER = p)", Some("c")),
            ("ALTER TABLE a ADD b int", None),
            ("DROP FUNCTION f", None),
            ("CREATE INDEX ON t (a)", None),
        ] {
            assert_eq!(made_by(&statements(sql)[0].tokens).as_deref(), name, "{sql}");
        }
    }

    #[test]
    fn a_breakpoint_in_a_string_makes_no_file_of_drizzles() {
        assert!(is_of_drizzle("SELECT 1;--> statement-breakpoint\nSELECT 2"));
        assert!(!is_of_drizzle("SELECT '--> statement-breakpoint'"));
        assert!(!is_of_drizzle("-- see --> statement-breakpoint"));
    }

    mod properties {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn every_line_stays_where_it_is(
                words in prop::collection::vec(
                    prop_oneof![
                        Just("public."), Just("\"public\"."), Just("\"a\""), Just("b"), Just(";\n"),
                        Just("'public.x'"), Just("$$public.x$$"), Just("DO"), Just("--c\n"), Just("."),
                        Just("CREATE FUNCTION f() AS"), Just("$$ EXECUTE 'SELECT public.x\n'"), Just("$$"),
                        Just("SET search_path = ''"), Just("::regclass"),
                    ],
                    0..20,
                )
            ) {
                let sql = words.join(" ");
                prop_assert_eq!(bare(&sql).matches('\n').count(), sql.matches('\n').count());
            }
        }
    }
}
