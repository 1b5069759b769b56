//! Statements about a serial column that an identity column refuses. Protection has made an identity column of
//! it (`policy/sequences.rs`), which the writer of a later file does not know or, in another tool's folder,
//! cannot consider. So the column is made serial again before such a statement, and what is serial at the end
//! of the file becomes an identity column again. Pure.
//!
//! A column that a file itself declares as an identity is in no such statement, since PostgreSQL refuses it.

use crate::schema::policy::quote_literal;
use crate::sql::script::{Statement, Token};

const AS_SERIAL_SQL: &str = include_str!("as_serial.sql");

/// The statement to run before this one, if it changes what identity columns keep.
pub(super) fn before(statement: &Statement<'_>) -> Option<String> {
    let which = match changed(statement)? {
        Changed::Columns(table, columns) => {
            let columns: Vec<String> = columns.iter().map(|column| quote_literal(column)).collect();
            let table = quote_literal(&table);
            format!("d.refobjid = to_regclass({table}) AND a.attname IN ({})", columns.join(", "))
        }
        Changed::Sequences(sequences) => {
            let number = |sequence: &String| format!("to_regclass({})", quote_literal(sequence));
            let numbers: Vec<String> = sequences.iter().map(number).collect();
            format!("d.objid IN ({})", numbers.join(", "))
        }
    };
    Some(AS_SERIAL_SQL.replace("{which}", &which))
}

/// Removes the tables that may have become serial. Those of sequences are not known.
pub(super) fn leave_untouched(statement: &Statement<'_>, tables: &mut Vec<String>) {
    match changed(statement) {
        Some(Changed::Sequences(_)) => tables.clear(),
        Some(Changed::Columns(..)) => {
            tables.retain(|table| !statement.tokens.iter().any(|token| token.names(table)));
        }
        None => {}
    }
}

/// Names are as written; those of columns as PostgreSQL stores them.
enum Changed {
    Columns(String, Vec<String>),
    Sequences(Vec<String>),
}

fn changed(statement: &Statement<'_>) -> Option<Changed> {
    let tokens = &statement.tokens;
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
    if is(0, "alter") && is(1, "table") {
        let (table, after) = name(tokens, 2)?;
        let columns = columns(&tokens[after..]);
        return (!columns.is_empty()).then_some(Changed::Columns(table, columns));
    }
    let loses_owner = is(0, "drop") || is(0, "alter") && has_owner(tokens);
    if !is(1, "sequence") || !loses_owner {
        return None;
    }
    let (mut sequences, mut at) = (Vec::new(), 2);
    while let Some((sequence, after)) = name(tokens, at) {
        sequences.push(sequence);
        at = after + 1;
        if !tokens.get(after).is_some_and(|token| token.is_symbol(",")) {
            break;
        }
    }
    (!sequences.is_empty()).then_some(Changed::Sequences(sequences))
}

fn has_owner(tokens: &[Token<'_>]) -> bool {
    tokens.windows(2).any(|two| two[0].is_word("owned") && two[1].is_word("by"))
}

/// The name at this place, as written and after IF EXISTS and ONLY, and where the rest begins.
fn name(tokens: &[Token<'_>], mut at: usize) -> Option<(String, usize)> {
    while ["if", "exists", "only"]
        .iter()
        .any(|word| tokens.get(at).is_some_and(|t| t.is_word(word)))
    {
        at += 1;
    }
    let mut text = tokens.get(at)?.text.to_owned();
    at += 1;
    while tokens.get(at).is_some_and(|token| token.is_symbol(".")) {
        text = format!("{text}.{}", tokens.get(at + 1)?.text);
        at += 2;
    }
    Some((text, at))
}

/// The columns whose default changes, or whose type becomes one that has no numbers.
fn columns(tokens: &[Token<'_>]) -> Vec<String> {
    const WHOLE: [&str; 7] = ["smallint", "int2", "integer", "int", "int4", "bigint", "int8"];
    let mut columns = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
        if !token.is_word("alter") {
            continue;
        }
        let column = at + 1 + usize::from(is(at + 1, "column"));
        let Some(named) = tokens.get(column) else { continue };
        let sets = is(column + 1, "set") || is(column + 1, "drop");
        let kind = column + if is(column + 1, "type") { 2 } else { 4 };
        let is_type = is(column + 1, "type") || is(column + 1, "set") && is(column + 2, "data");
        let is_whole = WHOLE.iter().any(|word| is(kind, word));
        if sets && is(column + 2, "default") || is_type && !is_whole {
            columns.push(named.plain_name());
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::script::statements;

    #[test]
    fn what_an_identity_column_refuses_is_known_by_the_statement() {
        for (sql, which) in [
            (
                "ALTER TABLE IF EXISTS ONLY \"Web\" DROP CONSTRAINT a, ALTER COLUMN \"Id\" DROP DEFAULT, ALTER Id SET DATA TYPE TEXT",
                "d.refobjid = to_regclass('\"Web\"') AND a.attname IN ('Id', 'id')",
            ),
            (
                "ALTER TABLE s.t ALTER a TYPE uuid USING f(a), ALTER b TYPE bigint, ALTER c SET DATA TYPE int, ALTER d SET NOT NULL, ALTER e SET DEFAULT 1",
                "d.refobjid = to_regclass('s.t') AND a.attname IN ('a', 'e')",
            ),
            (
                "drop sequence if exists a, \"B\" cascade",
                "d.objid IN (to_regclass('a'), to_regclass('\"B\"'))",
            ),
            ("ALTER SEQUENCE a OWNED BY NONE", "d.objid IN (to_regclass('a'))"),
        ] {
            let before = before(&statements(sql)[0]).unwrap();
            assert!(before.contains(which), "{before}");
        }
        for sql in [
            "ALTER TABLE t ADD a serial, ALTER b TYPE bigint",
            "ALTER SEQUENCE a RESTART",
            "ALTER VIEW v ALTER a SET DEFAULT 1",
            "DROP TABLE a",
            "ALTER TABLE",
        ] {
            assert_eq!(before(&statements(sql)[0]), None, "{sql}");
        }
    }
}
