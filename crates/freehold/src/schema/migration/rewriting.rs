//! The parts of a migration that are run differently from how they are written, because the migration was
//! written for one schema and runs for many tenants. Pure. Line numbers stay the same.
//!
//! - A database has each extension once: the first schema creates it, and for the others it exists. So
//!   `CREATE EXTENSION` runs with `IF NOT EXISTS`, and `COMMENT ON EXTENSION`, which dumps contain and only
//!   its owner may run, is left out. Extensions go to `public` (`fleet/migrator/adopt.rs`), with which every
//!   search path ends; only the owner may create anything there.
//! - `SET search_path = public` of a function means the application's tables, which are in the tenant's
//!   schema: so that is inserted first. PostgreSQL checks an SQL function when it is created, so this cannot
//!   wait.

use crate::sql::excerpt::{Token, next_token};

/// The text as it runs in this schema.
pub(crate) fn rewritten(statements: &str, schema: &str) -> String {
    let mut made = String::with_capacity(statements.len() + 64);
    let mut statement = Statement::default();
    let mut rest = statements;
    loop {
        let at = rest;
        let Some(token) = next_token(&mut rest) else { break };
        let text = &at[..at.len() - rest.len()];
        if matches!(token, Token::Space) {
            made.push_str(text);
            continue;
        }
        let word = match token {
            Token::Word(word) => word.to_ascii_lowercase(),
            _ => String::new(),
        };
        match statement.read(text, &word, &mut made, schema) {
            Insert::Nothing => {}
            Insert::Omission(from) => {
                let lines = made[from..].matches('\n').count() + text.matches('\n').count();
                made.truncate(from);
                made.push_str(&"\n".repeat(lines));
                continue;
            }
            Insert::IfNotExists => made.push_str("IF NOT EXISTS "),
            Insert::Schema => {
                made.push_str(schema);
                made.push_str(", ");
            }
        }
        made.push_str(text);
    }
    statement.end_path(&mut made);
    made
}

/// What to insert before a token, or that everything since this byte is left out.
enum Insert {
    Nothing,
    IfNotExists,
    Schema,
    Omission(usize),
}

/// The part of a statement that has been read.
#[derive(Default)]
enum Statement {
    #[default]
    Begin,
    Create,
    Alter,
    /// COMMENT, from this byte of the output on.
    Comment(usize),
    CommentOn(usize),
    /// COMMENT ON EXTENSION.
    Omitted(usize),
    Extension,
    /// CREATE or ALTER FUNCTION or PROCEDURE.
    Routine,
    Set,
    SearchPath,
    /// The list of its search path, up to this byte of the output.
    Path {
        end: usize,
        has_public: bool,
        has_schema: bool,
        has_temp: bool,
        wants_name: bool,
    },
    Other,
}

impl Statement {
    /// Reads the next token, and says what to insert before it.
    fn read(&mut self, text: &str, word: &str, made: &mut String, schema: &str) -> Insert {
        use Statement::*;
        if let Path { end, has_public, has_schema, has_temp, wants_name } = self {
            if *wants_name && text != ";" {
                let name = text.trim_matches(['"', '\'']);
                let is_public = name == "public" || word == "public";
                let insert = is_public && !*has_public && !*has_schema;
                *has_public |= is_public;
                *has_schema |= name == schema;
                *has_temp |= name == "pg_temp" || word == "pg_temp";
                *wants_name = false;
                let before = if insert { schema.len() + ", ".len() } else { 0 };
                *end = made.len() + before + text.len();
                return if insert { Insert::Schema } else { Insert::Nothing };
            }
            if text == "," {
                *wants_name = true;
                return Insert::Nothing;
            }
            self.end_path(made);
            *self = Routine;
        }
        if text == ";" {
            *self = Begin;
            return Insert::Nothing;
        }
        let (next, insert) = match (&self, word) {
            (Omitted(from), _) => (Omitted(*from), Insert::Omission(*from)),
            (Begin, "comment") => (Comment(made.len()), Insert::Nothing),
            (Comment(from), "on") => (CommentOn(*from), Insert::Nothing),
            (CommentOn(from), "extension") => (Omitted(*from), Insert::Omission(*from)),
            (Begin, "create") => (Create, Insert::Nothing),
            (Begin, "alter") => (Alter, Insert::Nothing),
            (Create, "extension") => (Extension, Insert::Nothing),
            (Create, "or" | "replace") => (Create, Insert::Nothing),
            (Create | Alter, "function" | "procedure" | "routine") => (Routine, Insert::Nothing),
            (Extension, "if") => (Other, Insert::Nothing),
            (Extension, _) => (Other, Insert::IfNotExists),
            (Routine, "set") => (Set, Insert::Nothing),
            (Set, "search_path") => (SearchPath, Insert::Nothing),
            (SearchPath, "to") => (Statement::path(), Insert::Nothing),
            (SearchPath, _) if text == "=" => (Statement::path(), Insert::Nothing),
            (Routine | Set | SearchPath, _) => (Routine, Insert::Nothing),
            _ => (Other, Insert::Nothing),
        };
        *self = next;
        insert
    }

    fn path() -> Statement {
        Statement::Path {
            end: 0,
            has_public: false,
            has_schema: false,
            has_temp: false,
            wants_name: true,
        }
    }

    /// Without being named, pg_temp comes first, and a caller's temporary table before the tenant's.
    fn end_path(&self, made: &mut String) {
        if let Statement::Path { end, has_public: true, has_temp: false, .. } = self {
            made.insert_str(*end, ", pg_temp");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_made(text: &str, made: &str) {
        assert_eq!(rewritten(text, "tenant_x"), made);
        assert_eq!(rewritten(made, "tenant_x"), made, "what is as it must be stays");
    }

    #[test]
    fn an_extension_is_made_unless_it_is_there() {
        is_made("CREATE EXTENSION pg_trgm;", "CREATE EXTENSION IF NOT EXISTS pg_trgm;");
        is_made(
            "create /* c */ extension\n  \"uuid-ossp\" with schema x cascade",
            "create /* c */ extension\n  IF NOT EXISTS \"uuid-ossp\" with schema x cascade",
        );
        is_made(
            "SELECT 1;CREATE EXTENSION a;CREATE EXTENSION b",
            "SELECT 1;CREATE EXTENSION IF NOT EXISTS a;CREATE EXTENSION IF NOT EXISTS b",
        );
    }

    #[test]
    fn what_an_extension_is_said_to_be_is_left_out_and_lines_stay() {
        is_made("a;\nCOMMENT ON\n EXTENSION a IS\n'b;\nc';\nd", "a;\n\n\n\n;\nd");
        is_made("comment on extension \"a\" is null", "");
    }

    #[test]
    fn public_in_a_functions_path_comes_after_the_tenants_schema() {
        for (path, made) in [
            ("= public AS 'x'", "= tenant_x, public, pg_temp AS 'x'"),
            ("TO 'public';", "TO tenant_x, 'public', pg_temp;"),
            ("= \"$user\", public", "= \"$user\", tenant_x, public, pg_temp"),
            ("to Public , pg_temp AS", "to tenant_x, Public , pg_temp AS"),
            (
                "=pg_catalog,public SET work_mem = 1",
                "=pg_catalog,tenant_x, public, pg_temp SET work_mem = 1",
            ),
        ] {
            for start in [
                "CREATE OR REPLACE FUNCTION f(a int) RETURNS int SET search_path ",
                "ALTER PROCEDURE f SET search_path ",
            ] {
                is_made(&format!("{start}{path}"), &format!("{start}{made}"));
            }
        }
    }

    #[test]
    fn what_only_reads_like_it_stays() {
        for text in [
            "",
            "-- CREATE EXTENSION a\nSELECT 'CREATE EXTENSION a', $$ CREATE EXTENSION a; $$",
            "/* CREATE EXTENSION a */ SELECT 1",
            "COMMENT ON TABLE extension IS 'create'; DROP EXTENSION a; ALTER EXTENSION a UPDATE",
            "CREATE TABLE extension (a int); CREATE EXTENSION",
            "SET search_path = public; SET search_path TO public; SELECT set_config('search_path', 'public', false)",
            "CREATE FUNCTION f() SET search_path = '' AS 'SET search_path = public'",
            "CREATE FUNCTION f() SET search_path FROM CURRENT AS $$ SET search_path = public $$",
            "CREATE FUNCTION f() SET search_path = pg_catalog, extensions SET role = public",
            "CREATE FUNCTION f() RETURNS int; SET search_path = public",
        ] {
            is_made(text, text);
        }
    }
}
