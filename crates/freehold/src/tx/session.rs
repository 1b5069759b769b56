//! Statements that would leave something on the session, where the next tenant meets it. Pure.

use crate::error::{Error, ErrorKind, Result};

/// Refuses a statement that is about the session rather than the transaction.
///
/// A second wall: who can choose a statement's beginning could otherwise replace what another
/// tenant will run (DEALLOCATE, then PREPARE under the same name). `set_config(…, false)` inside a
/// SELECT is not seen here; a context cannot be set by it, and a setting that PostgreSQL reports
/// makes the pool close the connection.
pub(super) fn refuse_session_statement(sql: &str) -> Result<()> {
    let (first, rest) = word(sql);
    let refused = match first.to_ascii_uppercase().as_str() {
        "PREPARE" | "EXECUTE" | "DEALLOCATE" | "DISCARD" | "LISTEN" | "UNLISTEN" | "LOAD"
        | "RESET" | "COPY" => true,
        "SET" => {
            let second = word(rest).0.to_ascii_uppercase();
            !["LOCAL", "CONSTRAINTS", "TRANSACTION"].contains(&second.as_str())
        }
        _ => false,
    };
    if refused {
        return Err(Error::new(
            ErrorKind::Statement,
            format!(
                "{} is not for a tenant's transaction, because it outlives it or takes the \
                 connection over; SET LOCAL does not",
                first.to_ascii_uppercase()
            ),
        ));
    }
    Ok(())
}

/// The first word of some SQL, past what PostgreSQL passes over, and what follows it.
fn word(sql: &str) -> (&str, &str) {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '(');
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if rest.starts_with("/*") {
            rest = past_comment(rest);
        } else {
            break;
        }
    }
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    rest.split_at(end)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outlives_a_transaction_is_refused_however_it_is_written() {
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
            "RESET ALL",
            "LOAD 'x'",
            "COPY notes TO STDOUT",
        ] {
            let refused = refuse_session_statement(sql).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Statement, "{sql}");
        }
    }

    #[test]
    fn what_ends_with_its_transaction_is_not() {
        for sql in [
            "SELECT 1",
            "(SELECT 1)",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "SET LOCAL statement_timeout = '1s'",
            "set constraints all deferred",
            "SET TRANSACTION READ ONLY",
            "INSERT INTO t VALUES ('PREPARE p AS SELECT 1')",
            "-- PREPARE\nSELECT 1",
            "/* RESET ALL */ DELETE FROM t",
            "SETTLE",
            "/* never closed",
            "",
        ] {
            assert!(refuse_session_statement(sql).is_ok(), "{sql}");
        }
    }
}
