//! SQL scripts, split as PostgreSQL's scanner and psql split them: into tokens and statements. Pure.
//!
//! The only grammar it knows is where a statement ends: at a semicolon outside of strings, comments,
//! parentheses and the body of a function in `BEGIN ATOMIC … END`. Backslashes are escapes in `E'…'` only, as
//! they are while `standard_conforming_strings` is on.

/// The kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Space,
    Comment,
    /// A keyword or an unquoted name.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A string in single quotes, with its prefix.
    Text,
    /// A string between two tags, `$tag$ … $tag$`.
    Dollar,
    Number,
    /// A parameter, `$1`, or any other single character.
    Symbol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'s> {
    pub(crate) kind: Kind,
    /// Where it begins, as a byte offset.
    pub(crate) start: usize,
    pub(crate) text: &'s str,
}

impl<'s> Token<'s> {
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self.kind, Kind::Space | Kind::Comment)
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub(crate) fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// Whether it is this name, plain or quoted. The name is in lower case.
    pub(crate) fn names(&self, name: &str) -> bool {
        match self.kind {
            Kind::Word => self.text.eq_ignore_ascii_case(name),
            Kind::Quoted => {
                let bare = self.text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                bare.is_some_and(|text| text.replace("\"\"", "\"") == name)
            }
            _ => false,
        }
    }

    /// The name that it is, as PostgreSQL stores it.
    pub(crate) fn plain_name(&self) -> String {
        match self.text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => self.text.to_ascii_lowercase(),
        }
    }

    /// The content between the tags of a [`Kind::Dollar`], and where it begins.
    pub(crate) fn body(&self) -> Option<(usize, &'s str)> {
        let open = (self.kind == Kind::Dollar).then_some(self.text)?;
        let tag = &open[..open[1..].find('$')? + 2];
        let body = open.strip_prefix(tag)?.strip_suffix(tag)?;
        Some((self.start + tag.len(), body))
    }
}

/// All tokens of a text. Concatenated they are the text again, byte for byte.
pub(crate) fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = &sql[start..];
        let (kind, length) = scan(rest)?;
        let token = Token { kind, start, text: &rest[..length] };
        start += length;
        Some(token)
    })
}

/// A statement without surrounding white space and without its semicolon.
#[derive(Clone, Debug)]
pub(crate) struct Statement<'s> {
    pub(crate) text: &'s str,
    /// The line in which it begins, counted from 1.
    pub(crate) line: usize,
    /// All tokens except white space.
    pub(crate) tokens: Vec<Token<'s>>,
}

/// The statements of a text, in order.
pub(crate) fn statements(sql: &str) -> Vec<Statement<'_>> {
    let mut statements = Vec::new();
    let (mut line, mut counted) = (1, 0);
    let mut rest = tokens(sql).filter(|token| !token.is_blank()).peekable();
    while rest.peek().is_some() {
        let tokens = next_statement(&mut rest);
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { continue };
        line += lines_in(&sql[counted..first.start]);
        counted = first.start;
        let text = &sql[first.start..last.start + last.text.len()];
        statements.push(Statement { text, line, tokens });
    }
    statements
}

/// The first statement of a text, without its comments and its semicolon, and where it ends. None if there is
/// no more.
pub(crate) fn first_statement(sql: &str) -> Option<(Vec<Token<'_>>, usize)> {
    let mut end = 0;
    let mut rest = tokens(sql).inspect(|token| end = token.start + token.text.len());
    let mut solid = rest.by_ref().filter(|token| !token.is_blank());
    let statement = next_statement(&mut solid);
    if statement.is_empty() && end == sql.len() && !sql.trim_end().ends_with(';') {
        return None;
    }
    Some((statement, end))
}

/// The number of line ends in a text.
pub(crate) fn lines_in(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

/// The tokens up to the semicolon, which is consumed too. psql finds the end by the same rules.
fn next_statement<'s>(rest: &mut impl Iterator<Item = Token<'s>>) -> Vec<Token<'s>> {
    let mut tokens: Vec<Token<'s>> = Vec::new();
    let (mut parentheses, mut blocks) = (0_usize, 0_usize);
    for token in rest {
        match token.text {
            ";" if parentheses == 0 && blocks == 0 => break,
            "(" => parentheses += 1,
            ")" => parentheses = parentheses.saturating_sub(1),
            _ if parentheses > 0 || token.kind != Kind::Word || is_label(&tokens) => {}
            // CASE is closed by END too.
            _ if blocks > 0 && token.is_word("case") => blocks += 1,
            _ if token.is_word("end") => blocks = blocks.saturating_sub(1),
            _ if token.is_word("atomic")
                && tokens.last().is_some_and(|last| last.is_word("begin"))
                && makes_routine(&tokens) =>
            {
                blocks += 1;
            }
            _ => {}
        }
        tokens.push(token);
    }
    tokens
}

/// Whether the next word is a name even if it is a keyword elsewhere: `t.end`, `AS end`.
fn is_label(before: &[Token<'_>]) -> bool {
    before.last().is_some_and(|last| last.is_symbol(".") || last.is_word("as"))
}

/// Whether it creates a function or procedure.
pub(crate) fn makes_routine(tokens: &[Token<'_>]) -> bool {
    let is = |at: usize, words: &[&str]| {
        tokens.get(at).is_some_and(|token| words.iter().any(|word| token.is_word(word)))
    };
    let at = if is(1, &["or"]) && is(2, &["replace"]) { 3 } else { 1 };
    is(0, &["create"]) && is(at, &["function", "procedure"])
}

/// The kind and length of the first token of a text; `None` at its end.
fn scan(sql: &str) -> Option<(Kind, usize)> {
    let first = sql.chars().next()?;
    let (kind, length) = if is_space(first) {
        (Kind::Space, span(sql, is_space))
    } else if sql.starts_with("--") {
        (Kind::Comment, sql.find(['\n', '\r']).unwrap_or(sql.len()))
    } else if sql.starts_with("/*") {
        (Kind::Comment, comment(sql))
    } else if first == '\'' {
        (Kind::Text, quoted(sql, 1, '\''))
    } else if first == '"' {
        (Kind::Quoted, quoted(sql, 1, '"'))
    } else if first == '$' {
        dollar(sql)
    } else if first.is_ascii_digit()
        || first == '.' && sql[1..].starts_with(|c: char| c.is_ascii_digit())
    {
        (Kind::Number, number(sql))
    } else if is_name(first) {
        word(sql)
    } else {
        (Kind::Symbol, first.len_utf8())
    };
    Some((kind, length))
}

/// PostgreSQL's white space. Other white space of Unicode counts as part of a name.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

/// Whether a name may begin with this character.
fn is_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn span(sql: &str, is_in: impl Fn(char) -> bool) -> usize {
    sql.find(|c| !is_in(c)).unwrap_or(sql.len())
}

/// A word, or a string or name of which it is the prefix.
fn word(sql: &str) -> (Kind, usize) {
    let length = span(sql, |c| is_name(c) || c.is_ascii_digit() || c == '$');
    let (word, after) = sql.split_at(length);
    let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| word.eq_ignore_ascii_case(prefix));
    if is(&["u"]) && after.starts_with("&'") {
        (Kind::Text, quoted(sql, length + 2, '\''))
    } else if is(&["u"]) && after.starts_with("&\"") {
        (Kind::Quoted, quoted(sql, length + 2, '"'))
    } else if is(&["e"]) && after.starts_with('\'') {
        (Kind::Text, escaped(sql, length + 1))
    } else if is(&["b", "x", "n"]) && after.starts_with('\'') {
        (Kind::Text, quoted(sql, length + 1, '\''))
    } else {
        (Kind::Word, length)
    }
}

/// A number: its digits, separators and trailing letters, which PostgreSQL refuses.
fn number(sql: &str) -> usize {
    let is_in = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let whole = span(sql, is_in);
    // `1..10` is two numbers, in the loops of PL/pgSQL.
    if !sql[whole..].starts_with('.') || sql[whole..].starts_with("..") {
        return whole;
    }
    whole + 1 + span(&sql[whole + 1..], is_in)
}

/// The end of a quoted part that began before `from`. A doubled quote is part of its content. A part that is
/// never closed extends to the end of the text.
fn quoted(sql: &str, from: usize, quote: char) -> usize {
    let mut chars = sql[from..].char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return from + at + quote.len_utf8();
        }
    }
    sql.len()
}

/// The end of an `E'…'` that began before `from`. After a new line it may continue with another quote, and
/// backslashes are escapes in that part too.
fn escaped(sql: &str, from: usize) -> usize {
    let mut from = from;
    'part: loop {
        let mut chars = sql[from..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c == '\\' {
                chars.next();
            } else if c == '\'' && chars.next_if(|(_, next)| *next == '\'').is_none() {
                let end = from + at + 1;
                match continued(&sql[end..]) {
                    Some(blank) => from = end + blank + 1,
                    None => return end,
                }
                continue 'part;
            }
        }
        return sql.len();
    }
}

/// The length of the white space, containing a new line, before a string's continuation.
fn continued(after: &str) -> Option<usize> {
    let mut at = 0;
    let mut is_new_line = false;
    loop {
        let rest = &after[at..];
        if rest.starts_with(is_space) {
            let length = span(rest, is_space);
            is_new_line |= rest[..length].contains(['\n', '\r']);
            at += length;
        } else if rest.starts_with("--") {
            at += rest.find(['\n', '\r']).unwrap_or(rest.len());
        } else {
            return (is_new_line && rest.starts_with('\'')).then_some(at);
        }
    }
}

/// A parameter, `$1`, or a string between two tags.
fn dollar(sql: &str) -> (Kind, usize) {
    let digits = span(&sql[1..], |c| c.is_ascii_digit());
    if digits > 0 {
        return (Kind::Symbol, 1 + digits);
    }
    let tag = 1 + span(&sql[1..], |c| is_name(c) || c.is_ascii_digit());
    if !sql[tag..].starts_with('$') {
        return (Kind::Symbol, 1);
    }
    let (open, body) = sql.split_at(tag + 1);
    let end = body.find(open).map_or(sql.len(), |at| open.len() + at + open.len());
    (Kind::Dollar, end)
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
mod tests;
