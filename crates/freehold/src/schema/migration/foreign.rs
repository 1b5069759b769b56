//! What is changed in the text of migrations that were written for another tool, and so for one schema and one
//! database. Each change is a notice. Pure.

use std::collections::HashSet;

use super::Migration;
use super::public::{made_by, unqualified, with_semicolons};
use crate::sql::script::{Statement, Token, statements};

/// What was changed in one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed {
    /// Names that lost `public.`.
    names: usize,
    /// The same in bodies of functions.
    in_bodies: usize,
    /// Functions that got a search path.
    paths: usize,
    /// Statements that lost CONCURRENTLY.
    concurrently: usize,
    /// Statements that drop an extension.
    extensions: usize,
    /// Statements that set the transaction's isolation level.
    isolation: usize,
}

/// Changes all texts. Returns the files that were changed, by label.
pub(super) fn adapt(migrations: &mut [Migration]) -> Vec<(String, Changed)> {
    let texts: Vec<String> = migrations.iter().map(|m| with_semicolons(&m.statements)).collect();
    let made = |text: &String| -> Vec<String> {
        statements(text).iter().filter_map(|s| made_by(&s.tokens)).collect()
    };
    let made: HashSet<String> = texts.iter().flat_map(made).collect();
    let mut changes = Vec::new();
    for (migration, text) in migrations.iter_mut().zip(texts) {
        let (text, concurrently) = without_concurrently(&text);
        let (text, extensions) = without(&text, drops_extension);
        let (text, isolation) = without(&text, sets_isolation);
        let text = unqualified(&text, &made);
        let changed = Changed {
            names: text.names,
            in_bodies: text.in_bodies,
            paths: text.paths,
            concurrently,
            extensions,
            isolation,
        };
        migration.statements = text.sql;
        if changed.names + changed.in_bodies + changed.paths + concurrently + extensions + isolation
            > 0
        {
            changes.push((migration.label.clone(), changed));
        }
    }
    changes
}

/// The notices for these files.
pub(super) fn notices(changes: &[(String, Changed)], labels: &[String]) -> Vec<String> {
    let told: Vec<_> = changes.iter().filter(|(label, _)| labels.contains(label)).collect();
    let notice = |count: fn(&Changed) -> usize, what: &str| {
        let of: Vec<_> = told.iter().filter(|(_, changed)| count(changed) > 0).collect();
        let labels: Vec<&String> = of.iter().map(|(label, _)| label).collect();
        let count: usize = of.iter().map(|(_, changed)| count(changed)).sum();
        let plural = if count == 1 { "" } else { "s" };
        let what = what.replace("{count}", &count.to_string()).replace("{s}", plural);
        super::first_and_more(&labels).map(|which| format!("{which}: {what}"))
    };
    [
        notice(
            |changed| changed.names,
            "public. was taken away from {count} name{s}: they are each tenant's own (tables of all tenants have no place here)",
        ),
        notice(
            |changed| changed.in_bodies,
            "public. was taken away from {count} name{s} in bodies of functions; look at statements that they assemble at run time",
        ),
        notice(
            |changed| changed.paths,
            "{count} function{s} got a search path on which the tenant's tables are found",
        ),
        notice(
            |changed| changed.concurrently,
            "CONCURRENTLY was left out of {count} statement{s}, since each file is one transaction: a plain index locks one tenant's table while it is built",
        ),
        notice(
            |changed| changed.extensions,
            "DROP EXTENSION was left out {count} time{s}, since a database has each extension once, for all tenants; drop it by hand when no schema needs it",
        ),
        notice(
            |changed| changed.isolation,
            "SET TRANSACTION ISOLATION LEVEL was left out {count} time{s}: the file is run at READ COMMITTED, where a statement sees what a server wrote since the one before",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The text without CONCURRENTLY, where PostgreSQL refuses it in a transaction.
fn without_concurrently(sql: &str) -> (String, usize) {
    let (mut made, mut done, mut count) = (String::with_capacity(sql.len()), 0, 0);
    for statement in statements(sql) {
        if let Some(token) = concurrently(&statement) {
            made.push_str(&sql[done..token.start]);
            done = token.start + token.text.len();
            count += 1;
        }
    }
    (made + &sql[done..], count)
}

/// The text without such statements; its lines stay.
fn without(sql: &str, is_left_out: fn(&[Token<'_>]) -> bool) -> (String, usize) {
    let (mut made, mut done, mut count) = (String::with_capacity(sql.len()), 0, 0);
    for Statement { tokens, text, .. } in statements(sql) {
        if is_left_out(&tokens) {
            made.push_str(&sql[done..tokens[0].start]);
            made.push_str(&"\n".repeat(text.matches('\n').count()));
            done = tokens[0].start + text.len();
            count += 1;
        }
    }
    (made + &sql[done..], count)
}

/// With CASCADE it would drop tenants' columns too: that stays, and is refused.
fn drops_extension(tokens: &[Token<'_>]) -> bool {
    begins(tokens, &["drop", "extension"]) && !tokens.iter().any(|token| token.is_word("cascade"))
}

fn sets_isolation(tokens: &[Token<'_>]) -> bool {
    begins(tokens, &["set", "transaction", "isolation", "level"])
}

fn begins(tokens: &[Token<'_>], words: &[&str]) -> bool {
    tokens.len() > words.len() && words.iter().zip(tokens).all(|(word, token)| token.is_word(word))
}

fn concurrently<'s>(statement: &Statement<'s>) -> Option<Token<'s>> {
    let tokens = &statement.tokens;
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
    let is_unique = usize::from(is(1, "unique"));
    let at = if (is(0, "create") || is(0, "drop")) && is(1 + is_unique, "index") {
        2 + is_unique
    } else if is(0, "reindex") {
        tokens.iter().position(|token| token.is_word("concurrently"))?
    } else if is(0, "alter") && tokens.iter().any(|token| token.is_word("detach")) {
        tokens.len() - 1
    } else {
        return None;
    };
    tokens.get(at).filter(|token| token.is_word("concurrently")).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_tenants_transaction_can_do_is_left_out() {
        let isolation = "BEGIN;\nSET TRANSACTION ISOLATION\nLEVEL REPEATABLE READ; SELECT 1";
        assert_eq!(without(isolation, sets_isolation).0, "BEGIN;\n\n; SELECT 1");
        for (sql, kept) in [
            ("SELECT 1; DROP EXTENSION\n IF EXISTS a, \"b\"; SELECT 2", "SELECT 1; \n; SELECT 2"),
            ("drop extension a restrict", ""),
            ("DROP EXTENSION a CASCADE", "DROP EXTENSION a CASCADE"),
            ("DROP TABLE extension", "DROP TABLE extension"),
        ] {
            assert_eq!(without(sql, drops_extension).0, kept);
        }
    }

    #[test]
    fn indexes_are_plain_and_nothing_else_changes() {
        for (sql, plain) in [
            (
                "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);",
                "CREATE INDEX  IF NOT EXISTS i ON t (a);",
            ),
            ("create unique index\nconcurrently i ON t (a)", "create unique index\n i ON t (a)"),
            ("DROP INDEX CONCURRENTLY a; DROP INDEX b", "DROP INDEX  a; DROP INDEX b"),
            ("REINDEX INDEX CONCURRENTLY a", "REINDEX INDEX  a"),
            ("ALTER TABLE t DETACH PARTITION p CONCURRENTLY", "ALTER TABLE t DETACH PARTITION p "),
            (
                "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
                "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
            ),
            (
                "CREATE INDEX concurrently_i ON concurrently (concurrently)",
                "CREATE INDEX concurrently_i ON concurrently (concurrently)",
            ),
            ("SELECT 'CREATE INDEX CONCURRENTLY'", "SELECT 'CREATE INDEX CONCURRENTLY'"),
        ] {
            assert_eq!(without_concurrently(sql).0, plain);
        }
    }
}
