//! Excerpts: the beginning of a statement without its values, as it may be stored beside an event. Also used
//! for the expressions of a plan. Pure.
//!
//! It follows PostgreSQL's lexical rules only: strings of every form, numbers, comments and quoted aliases
//! are removed, names and keywords are kept.

const WRITES: [&str; 6] = ["INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "COPY"];

/// An excerpt of at most `chars_max` characters, and whether the statement writes, judging by its keywords.
pub(crate) fn excerpt(sql: &str, chars_max: usize) -> (String, bool) {
    let mut out = String::new();
    let mut chars = 0;
    let mut writes = false;
    let mut is_named = false;
    let mut rest = sql;
    while let Some(token) = next_token(&mut rest) {
        let text = match token {
            Token::Space => " ",
            Token::Value => "?",
            Token::Word(word) => {
                writes |= WRITES.iter().any(|write| word.eq_ignore_ascii_case(write));
                is_named = word.eq_ignore_ascii_case("as");
                word
            }
            // In the data API, a column's alias is the caller's choice.
            Token::Other(name) if is_named && name.starts_with('"') => "?",
            Token::Other(text) => text,
        };
        is_named &= text == " " || text.eq_ignore_ascii_case("as");
        if text == " " && (out.is_empty() || out.ends_with(' ')) {
            continue;
        }
        // The scan goes on to the end, since a keyword that writes may come late.
        out.extend(text.chars().take(chars_max.saturating_sub(chars)));
        chars += text.chars().count();
    }
    let shown = out.trim_end().len();
    out.truncate(shown);
    if chars > chars_max {
        out.push('…');
    }
    (out, writes)
}

pub(crate) enum Token<'a> {
    /// White space, or a comment.
    Space,
    /// A string or a number.
    Value,
    /// A keyword or an unquoted name.
    Word(&'a str),
    /// A quoted name, a parameter, an operator.
    Other(&'a str),
}

/// The next token, if there is one.
pub(crate) fn next_token<'a>(rest: &mut &'a str) -> Option<Token<'a>> {
    let sql = *rest;
    let first = sql.chars().next()?;
    let (length, kind): (usize, fn(&'a str) -> Token<'a>) = if first.is_whitespace() {
        (span(sql, char::is_whitespace), |_| Token::Space)
    } else if sql.starts_with("--") {
        (sql.find(['\n', '\r']).unwrap_or(sql.len()), |_| Token::Space)
    } else if sql.starts_with("/*") {
        (comment(sql), |_| Token::Space)
    } else if first == '\'' {
        (quoted(sql, 1, '\'', false), |_| Token::Value)
    } else if first == '"' {
        (quoted(sql, 1, '"', false), Token::Other)
    } else if first == '$' {
        dollar(sql)
    } else if first.is_ascii_digit() {
        // Numbers of all spellings: 1e5, 0xFF, 1_000, 1.5.
        (span(sql, |c| c.is_alphanumeric() || c == '.' || c == '_'), |_| Token::Value)
    } else if is_name(first) {
        word(sql)
    } else {
        (first.len_utf8(), Token::Other)
    };
    let (token, after) = sql.split_at(length);
    *rest = after;
    Some(kind(token))
}

fn span(sql: &str, belongs: impl Fn(char) -> bool) -> usize {
    sql.find(|c| !belongs(c)).unwrap_or(sql.len())
}

fn is_name(c: char) -> bool {
    c.is_alphabetic() || c == '_' || !c.is_ascii()
}

/// A word, unless it is the prefix of a string: E'…', B'…', X'…', N'…', U&'…'.
fn word<'a>(sql: &'a str) -> (usize, fn(&'a str) -> Token<'a>) {
    let length = span(sql, |c| is_name(c) || c.is_ascii_digit() || c == '$');
    let (word, after) = sql.split_at(length);
    let escapes = word.eq_ignore_ascii_case("e");
    if after.starts_with('\'')
        && (escapes || ["b", "x", "n"].iter().any(|p| word.eq_ignore_ascii_case(p)))
    {
        return (quoted(sql, length + 1, '\'', escapes), |_| Token::Value);
    }
    if word.eq_ignore_ascii_case("u") && after.starts_with("&'") {
        return (quoted(sql, length + 2, '\'', false), |_| Token::Value);
    }
    (length, Token::Word)
}

/// The end of a quoted part that began before `from`. A doubled quote is part of its content. A part that is
/// never closed extends to the end.
fn quoted(sql: &str, from: usize, quote: char, escapes: bool) -> usize {
    let mut chars = sql[from..].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return from + at + quote.len_utf8();
        }
    }
    sql.len()
}

/// A parameter, `$1`, or a string between two tags, `$tag$ … $tag$`.
fn dollar<'a>(sql: &'a str) -> (usize, fn(&'a str) -> Token<'a>) {
    let digits = span(&sql[1..], |c| c.is_ascii_digit());
    if digits > 0 {
        return (1 + digits, Token::Other);
    }
    let tag = 1 + span(&sql[1..], |c| is_name(c) || c.is_ascii_digit());
    if !sql[tag..].starts_with('$') {
        return (1, Token::Other);
    }
    let (open, body) = sql.split_at(tag + 1);
    let end = body.find(open).map_or(sql.len(), |at| open.len() + at + open.len());
    (end, |_| Token::Value)
}

/// Block comments nest.
fn comment(sql: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < sql.len() {
        let rest = &sql[at..];
        if rest.starts_with("/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest.starts_with("*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    sql.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHARS_MAX: usize = 300;

    #[test]
    fn no_value_of_any_spelling_is_kept() {
        for (sql, kept) in [
            ("SELECT * FROM notes WHERE body = 'SECRET'", "SELECT * FROM notes WHERE body = ?"),
            ("SELECT 'SEC''RET', E'SEC\\'RET', 1", "SELECT ?, ?, ?"),
            ("SELECT e'SECRET\\\\', b'0101', X'5ec4e7', n'SECRET'", "SELECT ?, ?, ?, ?"),
            ("SELECT U&'SECRET' UESCAPE '!', u&'SECRET'", "SELECT ? UESCAPE ?, ?"),
            ("SELECT $$SECRET$$, $a$ SECRET $$ $b$ $a$, $1", "SELECT ?, ?, $1"),
            ("SELECT 42, 4.2e1, 0xFF, 1_000, -7", "SELECT ?, ?, ?, ?, -?"),
            (
                "SELECT 1 -- SECRET\n, 2 /* SECRET /* SECRET */ SECRET */ FROM t",
                "SELECT ? , ? FROM t",
            ),
            ("SELECT 'SECRET", "SELECT ?"),
            ("SELECT $x$SECRET", "SELECT ?"),
            ("SELECT /* SECRET", "SELECT"),
            (
                "SELECT a1, t.b2, \"Name 3\" FROM \"x\"\"y\"",
                "SELECT a1, t.b2, \"Name 3\" FROM \"x\"\"y\"",
            ),
            ("SELECT größe FROM tische WHERE a$b = $2", "SELECT größe FROM tische WHERE a$b = $2"),
            ("  SELECT\n\t1  ", "SELECT ?"),
            (
                "SELECT a AS \"SECRET\", b as/**/\"SEC\"\"RET\", c AS d, \"e\" FROM t AS u",
                "SELECT a AS ?, b as ?, c AS d, \"e\" FROM t AS u",
            ),
            ("", ""),
        ] {
            let (excerpt, _) = excerpt(sql, CHARS_MAX);
            assert_eq!(excerpt, kept, "{sql}");
        }
    }

    #[test]
    fn a_long_statement_is_cut_and_still_read_to_its_end() {
        let (excerpt, writes) =
            excerpt(&format!("WITH {} DELETE FROM t", "é, ".repeat(5_000)), CHARS_MAX);
        assert!((CHARS_MAX - 1..=CHARS_MAX + 1).contains(&excerpt.chars().count()), "{excerpt}");
        assert!(excerpt.ends_with('…') && writes);
    }

    #[test]
    fn what_writes_is_told_by_its_words_and_not_by_names_or_values() {
        for (sql, expected) in [
            ("insert into t values (1)", true),
            ("WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x", true),
            ("MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", true),
            ("SELECT * FROM t FOR UPDATE", true),
            ("SELECT \"update\", 'delete', deleted FROM t -- insert", false),
        ] {
            assert_eq!(excerpt(sql, CHARS_MAX).1, expected, "{sql}");
        }
    }
}
