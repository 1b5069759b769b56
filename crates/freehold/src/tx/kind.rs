//! Which statements a tenant's transaction runs, told by how they begin. Pure.
//!
//! What is not named here is refused, so that a kind which PostgreSQL gets later is refused too.
//! Each statement is sent by the extended protocol, which takes one of them at a time: what a text
//! begins with is what it is.

use crate::error::{Error, ErrorKind, Result};

/// What reads and writes rows. PostgreSQL checks the policies of each table that they name, and
/// nothing of them stays on the session.
const QUERIES: &[&str] =
    &["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE", "WITH", "CALL"];

/// What else may be run in a transaction and ends with it, or is data as rows are. No policy is
/// asked by these: LOCK and EXPLAIN reach any table that the role may read.
const UTILITIES: &[&str] = &[
    "ALTER", "ANALYZE", "CLOSE", "CLUSTER", "COMMENT", "CREATE", "DECLARE", "DO", "DROP",
    "EXPLAIN", "FETCH", "GRANT", "LOCK", "MOVE", "NOTIFY", "REFRESH", "REINDEX", "REVOKE", "SET",
    "SHOW", "TRUNCATE",
];

/// Refuses what neither reads nor writes rows: SQL that somebody chose the beginning of could lock
/// another tenant's tables by it, read PostgreSQL's statistics of them, or leave something on the
/// session that the next tenant meets.
pub(super) fn require_query(sql: &str) -> Result<()> {
    if is_query(sql) {
        return Ok(());
    }
    let first = keyword(sql).to_ascii_uppercase();
    if is_utility(&first, sql) {
        return Err(refused(&format!(
            "{first} is for TenantTx::run_utility; here is run what begins with {}",
            QUERIES.join(", ")
        )));
    }
    Err(refuse(&first))
}

/// Refuses what outlives its transaction, ends it, or takes the connection over.
pub(super) fn require_utility(sql: &str) -> Result<()> {
    let first = keyword(sql).to_ascii_uppercase();
    if is_query(sql) || is_utility(&first, sql) {
        return Ok(());
    }
    Err(refuse(&first))
}

/// Whether it runs a procedure. One that commits would end a transaction that was not begun by
/// BEGIN, and with it the context; in a block, PostgreSQL refuses its COMMIT.
pub(super) fn is_call(sql: &str) -> bool {
    keyword(sql).eq_ignore_ascii_case("CALL")
}

fn is_query(sql: &str) -> bool {
    let first = keyword(sql);
    QUERIES.iter().any(|known| known.eq_ignore_ascii_case(first))
}

fn is_utility(first: &str, sql: &str) -> bool {
    if !UTILITIES.contains(&first) {
        return false;
    }
    let mut rest = words(sql).skip(1);
    match first {
        "SET" => rest.next().is_some_and(|second| {
            ["LOCAL", "CONSTRAINTS", "TRANSACTION"].contains(&second.as_str())
        }),
        // Settings of a role or database are those of every session that begins later.
        "ALTER" => rest.next().is_none_or(|second| {
            !["ROLE", "USER", "GROUP", "DATABASE", "SYSTEM"].contains(&second.as_str())
        }),
        // WITH HOLD: such a cursor is open after the commit, for who gets the connection next.
        "DECLARE" => !rest.take_while(|word| word != "FOR").any(|word| word == "WITH"),
        _ => true,
    }
}

fn refuse(first: &str) -> Error {
    // Only words that were looked for are repeated: the text may be anybody's, and of any length.
    let named = UTILITIES.iter().chain(&["PREPARE", "EXECUTE", "DEALLOCATE", "COPY", "LISTEN"]);
    let named = named.chain(&["COMMIT", "ROLLBACK", "BEGIN", "RESET", "DISCARD"]);
    match named.copied().find(|known| *known == first) {
        Some("SET") => refused(
            "SET outlives the transaction and is refused; SET LOCAL does not, and is run by TenantTx::run_utility",
        ),
        Some(known) => refused(&format!(
            "this {known} is not for a tenant's transaction, because it outlives or ends it, or takes the connection over"
        )),
        None => refused(&format!(
            "a tenant's transaction does not run this kind of statement, but what begins with {}; others by TenantTx::run_utility",
            QUERIES.join(", ")
        )),
    }
}

fn refused(message: &str) -> Error {
    Error::new(ErrorKind::Statement, message)
}

/// What a statement begins with; empty if that is no word.
fn keyword(sql: &str) -> &str {
    word(past_blank(sql, &[';', '(']))
}

/// The bare words of a statement in upper case; what is quoted counts as none.
fn words(sql: &str) -> impl Iterator<Item = String> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        loop {
            rest = past_blank(rest, &[]);
            let first = rest.chars().next()?;
            let word = word(rest);
            if !word.is_empty() {
                rest = &rest[word.len()..];
                return Some(word.to_ascii_uppercase());
            }
            rest = match first {
                '"' => past_quoted(&rest[1..]),
                other => &rest[other.len_utf8()..],
            };
        }
    })
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    &text[..end]
}

/// Past spaces, comments and such characters, as PostgreSQL's scanner passes over them.
fn past_blank<'s>(sql: &'s str, others: &[char]) -> &'s str {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
        rest = rest.trim_start_matches(others);
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if rest.starts_with("/*") {
            rest = past_comment(rest);
        } else if !rest
            .starts_with(|c: char| c.is_ascii_whitespace() || c == '\u{b}' || others.contains(&c))
        {
            return rest;
        }
    }
}

/// Comments of this kind nest.
fn past_comment(sql: &str) -> &str {
    let mut depth = 0_usize;
    let mut rest = sql;
    loop {
        let Some(at) = rest.find("*/").into_iter().chain(rest.find("/*")).min() else { return "" };
        depth = if rest[at..].starts_with("/*") { depth + 1 } else { depth.saturating_sub(1) };
        rest = &rest[at + 2..];
        if depth == 0 {
            return rest;
        }
    }
}

/// A quote within is doubled, and so opens the next one at once.
fn past_quoted(sql: &str) -> &str {
    sql.find('"').map_or("", |end| &sql[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_and_writes_rows_is_run_however_it_is_written() {
        for sql in [
            "SELECT 1",
            "select 1",
            "(SELECT 1)",
            "((\n-- one\n(SELECT 1)))",
            ";; SELECT 1",
            "/* a /* nested */ one */ SELECT 1",
            "/**/SELECT 1",
            "\u{b}SELECT 1",
            "-- PREPARE\nSELECT 1",
            "/* RESET ALL */ DELETE FROM t",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "WITH x AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM x",
            "INSERT INTO t VALUES ('PREPARE p AS SELECT 1')",
            "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
            "VALUES (1)",
            "TABLE notes",
            "CALL close_month()",
        ] {
            assert!(require_query(sql).is_ok(), "{sql}");
            assert!(require_utility(sql).is_ok(), "{sql}");
            assert_eq!(is_call(sql), sql.starts_with("CALL"), "{sql}");
        }
        assert!(is_call("/* */ ; call p()"));
    }

    #[test]
    fn what_ends_with_its_transaction_has_a_method_of_its_own() {
        for sql in [
            "SET LOCAL statement_timeout = '1s'",
            "set constraints all deferred",
            "SET TRANSACTION READ ONLY",
            "SET/**/LOCAL ROLE freehold_viewer",
            "LOCK TABLE notes",
            "EXPLAIN SELECT 1",
            "explain(analyze) SELECT 1",
            "ALTER TABLE notes ADD COLUMN x int",
            "ALTER",
            "DECLARE c CURSOR FOR SELECT 1",
            "DECLARE c CURSOR WITHOUT HOLD FOR WITH x AS (SELECT 1) TABLE x",
            "DECLARE \"with\" SCROLL CURSOR FOR SELECT 1",
            "FETCH 10 FROM c",
            "TRUNCATE notes",
            "NOTIFY x",
            "SHOW search_path",
            "REFRESH MATERIALIZED VIEW CONCURRENTLY totals",
        ] {
            let refused = require_query(sql).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Statement, "{sql}");
            assert!(refused.message().contains("run_utility"), "{sql}: {refused}");
            assert!(require_utility(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn what_outlives_or_ends_a_transaction_has_none() {
        for sql in [
            "PREPARE p AS SELECT 1",
            "prepare p as select 1",
            "  \n\tDeallocate ALL",
            ";; DISCARD ALL",
            "-- a comment\nEXECUTE p",
            "/* a /* nested */ one */ LISTEN x",
            "/**/UNLISTEN *",
            "SET search_path = x",
            "SET SESSION search_path = x",
            "SET ROLE freehold_admin",
            "SET/**/SESSION AUTHORIZATION x",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "RESET ALL",
            "LOAD 'x'",
            "COPY notes TO STDOUT",
            "BEGIN",
            "START TRANSACTION",
            "COMMIT",
            "END",
            "ABORT",
            "ROLLBACK",
            "SAVEPOINT x",
            "RELEASE x",
            "PREPARE TRANSACTION 'x'",
            "VACUUM notes",
            "CHECKPOINT",
            "ALTER ROLE freehold_app SET role = 'x'",
            "ALTER USER x PASSWORD 'x'",
            "ALTER DATABASE x SET role = 'x'",
            "ALTER SYSTEM SET x = 1",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "DECLARE \"a FOR b\" NO SCROLL CURSOR/**/WITH/**/HOLD FOR SELECT 1",
            "DECLARE \"a\"\" FOR\" CURSOR WITH HOLD FOR SELECT 1",
            "SETTLE",
            "/* never closed",
            "-- nothing",
            ";",
            "",
            // No spaces to PostgreSQL: it takes them for a part of the word.
            "\u{a0}SELECT 1",
            "1",
        ] {
            for refused in [require_query(sql), require_utility(sql)] {
                let refused = refused.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Statement, "{sql}");
            }
        }
    }

    #[test]
    fn a_refusal_repeats_nothing_of_a_text_that_it_does_not_know() {
        let refused = require_query(&"SECRET".repeat(1000)).unwrap_err();
        assert!(!refused.message().contains("SECRET"));
    }
}
