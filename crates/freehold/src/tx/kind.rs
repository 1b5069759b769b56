//! Which statements a tenant's transaction may run, decided by their first word. Pure.
//!
//! Kinds that are not listed here are refused, so a kind that a later PostgreSQL adds is refused too. Each
//! text is sent by the extended protocol, which accepts one statement per message, so its first word
//! determines its kind.

use crate::error::{Error, ErrorKind, Result};

/// Statements that read and write rows. PostgreSQL checks the policies of each table that they name, and they
/// leave nothing on the session.
const QUERIES: &[&str] =
    &["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE", "WITH", "CALL"];

/// Other statements that end with the transaction. They are not subject to policies: LOCK and EXPLAIN reach
/// any table that the role may read.
const UTILITIES: &[&str] = &[
    "ALTER", "ANALYZE", "CLOSE", "CLUSTER", "COMMENT", "CREATE", "DECLARE", "DO", "DROP",
    "EXPLAIN", "FETCH", "GRANT", "LOCK", "MOVE", "NOTIFY", "REFRESH", "REINDEX", "REVOKE", "SET",
    "SHOW", "TRUNCATE",
];

/// Refuses statements that neither read nor write rows. SQL of which an attacker chose the beginning could
/// use them to lock another tenant's tables, read PostgreSQL's statistics of them, or leave something on the
/// session for the next tenant.
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

/// Refuses statements that outlive the transaction, end it, or take over the connection.
pub(super) fn require_utility(sql: &str) -> Result<()> {
    let first = keyword(sql).to_ascii_uppercase();
    if is_query(sql) || is_utility(&first, sql) {
        return Ok(());
    }
    Err(refuse(&first))
}

/// Whether the statement calls a procedure. A procedure that commits would end an implicit transaction, and
/// the context with it; in a transaction block PostgreSQL refuses the COMMIT.
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
        // The settings of a role or a database apply to every session that begins later.
        "ALTER" => rest.next().is_none_or(|second| {
            !["ROLE", "USER", "GROUP", "DATABASE", "SYSTEM"].contains(&second.as_str())
        }),
        // A cursor WITH HOLD stays open after COMMIT, for the next transaction on the connection.
        "DECLARE" => !rest.take_while(|word| word != "FOR").any(|word| word == "WITH"),
        _ => true,
    }
}

fn refuse(first: &str) -> Error {
    // The error repeats only known words: the text may come from an untrusted caller, and be of any length.
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

/// The first word of a statement; empty if the text does not begin with a word.
fn keyword(sql: &str) -> &str {
    word(past_blank(sql, &[';', '(']))
}

/// The unquoted words of a statement in upper case. Quoted parts are skipped.
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

/// Skips spaces, comments and the given characters, as PostgreSQL's scanner does.
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

/// Block comments nest.
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

/// A doubled quote ends the quoted part and begins the next one at once, so it needs no special case.
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
            // PostgreSQL does not treat these as spaces but as part of the word.
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
