//! What a file of a baseline must not contain, judged by its text: psql commands, and statements that begin
//! or end transactions. PostgreSQL would refuse them too, but without a line, or with a syntax error at what
//! follows. Pure.

use std::collections::HashSet;

use super::Migration;
use crate::error::{Error, ErrorKind, Result};
use crate::sql::script::{Statement, Token, lines_in, statements};

/// Refuses such a file, with the line and the remedy.
pub(super) fn require_plain_sql<'m>(migration: &'m Migration) -> Result<Vec<Statement<'m>>> {
    let text = &migration.statements;
    if let Some(at) = text.find('\0') {
        let line = 1 + lines_in(&text[..at]);
        return Err(refused(migration, line, "a NUL byte is no part of SQL: save it as UTF-8"));
    }
    let statements = without_transactions(statements(text));
    for statement in &statements {
        if let Some(why) = fault(statement) {
            return Err(refused(migration, statement.line, &why));
        }
        if let Some(command) = statement.tokens.iter().find(|token| token.is_symbol("\\")) {
            let line = 1 + lines_in(&text[..command.start]);
            let word = text[command.start..].split_whitespace().next().unwrap_or_default();
            let word: String = word.chars().take(20).collect();
            let why = format!(
                "{word} is a command of psql, and a file is SQL for the server: take the line out (what \\i names belongs into the file)"
            );
            return Err(refused(migration, line, &why));
        }
    }
    Ok(statements)
}

/// Removes each BEGIN with the COMMIT that follows it, which tools and people write around statements that
/// belong together: the file is one transaction already. A BEGIN or COMMIT without its counterpart stays, and
/// is refused.
fn without_transactions(statements: Vec<Statement<'_>>) -> Vec<Statement<'_>> {
    let mut taken_out = HashSet::new();
    let mut begun = None;
    for (at, statement) in statements.iter().enumerate() {
        match (boundary(statement), begun) {
            (Some(Boundary::Begin), None) => begun = Some(at),
            (Some(Boundary::Commit), Some(begin)) => {
                taken_out.extend([begin, at]);
                begun = None;
            }
            _ => {}
        }
    }
    let kept = statements.into_iter().enumerate().filter(|(at, _)| !taken_out.contains(at));
    kept.map(|(_, statement)| statement).collect()
}

enum Boundary {
    Begin,
    Commit,
}

/// A plain BEGIN or COMMIT. One with a mode or a chain asks for more than a file can have.
fn boundary(statement: &Statement<'_>) -> Option<Boundary> {
    let tokens = &statement.tokens;
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
    let is_noise = |token: &Token<'_>| token.is_word("work") || token.is_word("transaction");
    match tokens.len() {
        1 => {}
        2 if is_noise(&tokens[1]) => {}
        _ => return None,
    }
    if is(0, "begin") || is(0, "start") && is(1, "transaction") {
        return Some(Boundary::Begin);
    }
    (is(0, "commit") || is(0, "end")).then_some(Boundary::Commit)
}

fn refused(migration: &Migration, line: usize, why: &str) -> Error {
    Error::new(ErrorKind::Migration, format!("{} line {line}: {why}", migration.label))
}

fn fault(statement: &Statement<'_>) -> Option<String> {
    let tokens = &statement.tokens;
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
    let first = tokens.first()?;
    let transactions =
        ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"];
    let prepares = is(0, "prepare") && is(1, "transaction");
    if prepares || transactions.iter().any(|word| first.is_word(word)) {
        let command = first.text.to_ascii_uppercase();
        return Some(format!(
            "{command} begins, ends or divides a transaction, and each file is one already: take it out"
        ));
    }
    if is(0, "copy") && to_or_from_client(&tokens[1..]) {
        return Some(
            "COPY from stdin or to stdout is for psql: write the rows as INSERT, as pg_dump --column-inserts does".into(),
        );
    }
    let quotes = tokens.iter().any(|token| token.is_word("standard_conforming_strings"));
    if is(0, "set") && quotes && !tokens.last().is_some_and(is_on) {
        return Some(
            "a file is read with standard_conforming_strings on: take the line out, and write strings with backslashes as E'…'".into(),
        );
    }
    None
}

fn is_on(value: &Token<'_>) -> bool {
    ["on", "true", "'on'", "'true'", "1", "yes", "default"]
        .iter()
        .any(|on| value.text.eq_ignore_ascii_case(on))
}

/// `FROM STDIN` or `TO STDOUT`, outside of a query's parentheses.
fn to_or_from_client(tokens: &[Token<'_>]) -> bool {
    let mut depth = 0_i32;
    for pair in tokens.windows(2) {
        depth += i32::from(pair[0].is_symbol("(")) - i32::from(pair[0].is_symbol(")"));
        let is_direction = pair[0].is_word("from") || pair[0].is_word("to");
        if depth == 0 && is_direction && (pair[1].is_word("stdin") || pair[1].is_word("stdout")) {
            return true;
        }
    }
    false
}
