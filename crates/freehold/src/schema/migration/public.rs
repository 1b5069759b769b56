//! Removes `public.` in layouts whose tool always writes it. Drizzle qualifies each enum and each table that
//! a foreign key refers to, `"public"."role"`, and has no option against it; the tenant's own object is
//! meant. Pure.

use std::fmt::Write as _;

use crate::sql::script::{Kind, Token, statements, tokens};

/// Separates the statements in a file of Drizzle.
const BREAKPOINT: &str = "--> statement-breakpoint";

/// Whether a text was written by Drizzle.
pub(super) fn is_of_drizzle(sql: &str) -> bool {
    sql.contains(BREAKPOINT) && tokens(sql).any(|token| is_breakpoint(&token))
}

fn is_breakpoint(token: &Token<'_>) -> bool {
    token.kind == Kind::Comment && token.text.trim_end() == BREAKPOINT
}

/// The text with unqualified names, on the same lines, and the number of qualifiers removed. Strings,
/// comments and the bodies of functions stay as they are. The body of a `DO` runs at once and is treated like
/// statements.
pub(in crate::schema) fn without_public(sql: &str) -> (String, usize) {
    without_public_in(sql, |tokens| tokens[0].is_word("do"))
}

/// [`without_public`], where the bodies of the chosen statements are treated like statements.
pub(in crate::schema) fn without_public_in(
    sql: &str,
    enters: impl Fn(&[Token<'_>]) -> bool,
) -> (String, usize) {
    let bodies: Vec<usize> = statements(sql)
        .iter()
        .filter(|statement| enters(&statement.tokens))
        .flat_map(|statement| statement.tokens.iter().filter(|token| token.kind == Kind::Dollar))
        .map(|token| token.start)
        .collect();
    let tokens: Vec<Token<'_>> = tokens(sql).collect();
    let next = |at: usize| {
        let mut rest = tokens.iter().enumerate().skip(at);
        rest.find(|(_, token)| !token.is_blank())
    };
    let mut out = String::with_capacity(sql.len());
    let (mut count, mut at) = (0, 0);
    let mut before: Option<&Token<'_>> = None;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let is_part = before.is_some_and(|before| before.is_symbol("."));
        match next(at) {
            Some((dot, after)) if token.names("public") && !is_part && after.is_symbol(".") => {
                // White space around the dot stays, to keep the line numbers.
                let end = next(dot + 1).map_or(tokens.len(), |(end, _)| end);
                for blank in tokens[at..end].iter().filter(|token| token.is_blank()) {
                    out.push_str(blank.text);
                }
                (count, at) = (count + 1, end);
                // The next token is the name itself, not a schema.
                before = tokens.get(dot);
                if let Some(name) = tokens.get(end) {
                    out.push_str(name.text);
                    (before, at) = (Some(name), end + 1);
                }
                continue;
            }
            _ => {}
        }
        match token.body().filter(|_| bodies.contains(&token.start)) {
            Some((start, body)) => {
                let (body, inside) = without_public(body);
                let tag = &token.text[..start - token.start];
                let _ = write!(out, "{tag}{body}{tag}");
                count += inside;
            }
            // Drizzle sends each part between two of these separately, with or without a semicolon.
            None if is_breakpoint(token) && before.is_some_and(|before| !before.is_symbol(";")) => {
                let _ = write!(out, ";{}", token.text);
            }
            None => out.push_str(token.text),
        }
        if !token.is_blank() {
            before = Some(token);
        }
    }
    (out, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_schema_and_nothing_else_changes() {
        for (sql, bare) in [
            (
                r#"CREATE TYPE "public"."role" AS ENUM ('a');"#,
                r#"CREATE TYPE "role" AS ENUM ('a');"#,
            ),
            ("CREATE TABLE public.a (id int, b PUBLIC.role);", "CREATE TABLE a (id int, b role);"),
            ("SELECT public.a.id FROM public . a", "SELECT a.id FROM   a"),
            ("SELECT public\n.\n-- here\na", "SELECT \n\n-- here\na"),
            ("SELECT 'public.a', \"public.a\", E'public.a' -- public.a", ""),
            ("SELECT $$ public.a $$ /* public.a */", ""),
            ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 FROM public.a $$", ""),
            ("SELECT t.public.x, public, \"Public\".a, publics.a FROM public", ""),
            ("GRANT SELECT ON a TO public; SELECT 1", ""),
            (
                "DO $$ BEGIN CREATE TYPE \"public\".\"role\" AS ENUM ('public.a'); END $$;",
                "DO $$ BEGIN CREATE TYPE \"role\" AS ENUM ('public.a'); END $$;",
            ),
            (
                "CREATE TABLE a ()\n--> statement-breakpoint\nCREATE TABLE b ();--> statement-breakpoint\n",
                "CREATE TABLE a ()\n;--> statement-breakpoint\nCREATE TABLE b ();--> statement-breakpoint\n",
            ),
        ] {
            let expected = if bare.is_empty() { sql } else { bare };
            assert_eq!(without_public(sql).0, expected);
        }
        assert_eq!(without_public("SELECT public.a, \"public\".\"b\", 'public.c'").1, 2);
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
                    ],
                    0..20,
                )
            ) {
                let sql = words.join(" ");
                let (bare, _) = without_public(&sql);
                prop_assert_eq!(bare.matches('\n').count(), sql.matches('\n').count());
            }
        }
    }
}
