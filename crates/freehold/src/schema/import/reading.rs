//! The parts of a dump, as psql reads it: statements, commands of psql, and the rows after `COPY … FROM stdin`.
//! Pure.

use crate::sql::script::{Token, first_statement, lines_in, tokens};

pub(super) enum Part<'t> {
    /// A command of psql.
    Command {
        text: &'t str,
        line: usize,
    },
    Statement(Words<'t>),
    /// Rows, in the format that the statement names.
    Rows {
        copy: Words<'t>,
        rows: Vec<&'t str>,
    },
}

/// A statement, without white space and comments.
pub(super) struct Words<'t> {
    text: &'t str,
    pub(super) tokens: Vec<Token<'t>>,
    /// The line in which it begins, from 1.
    pub(super) line: usize,
}

/// The parts of a text, which has plain line ends.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut at, mut line, mut counted) = (0, 1, 0);
    loop {
        at += blank(&text[at..]);
        let rest = &text[at..];
        if rest.is_empty() {
            break;
        }
        line += lines_in(&text[counted..at]);
        counted = at;
        if rest.starts_with('\\') {
            let end = rest.find('\n').map_or(rest.len(), |end| end + 1);
            parts.push(Part::Command { text: rest[..end].trim_end(), line });
            at += end;
            continue;
        }
        let Some((tokens, end)) = first_statement(rest) else { break };
        at += end;
        if tokens.is_empty() {
            continue;
        }
        let words = Words { text: rest, tokens, line };
        if words.is(0, "copy") && words.has(&["from", "stdin"]) {
            let (rows, end) = copied(&text[at..]);
            at += end;
            parts.push(Part::Rows { copy: words, rows });
        } else {
            parts.push(Part::Statement(words));
        }
    }
    parts
}

/// The length of white space and comments before a statement.
fn blank(text: &str) -> usize {
    tokens(text).take_while(Token::is_blank).map(|token| token.text.len()).sum()
}

/// The rows after `COPY … FROM stdin;`, and the offset at which they end.
fn copied(text: &str) -> (Vec<&str>, usize) {
    let mut end = text.find('\n').map_or(text.len(), |end| end + 1);
    let mut rows = Vec::new();
    while end < text.len() {
        let length = text[end..].find('\n').map_or(text.len() - end, |length| length + 1);
        let row = text[end..end + length].trim_end_matches('\n');
        end += length;
        if row == "\\." {
            break;
        }
        rows.push(row);
    }
    (rows, end)
}

impl<'t> Words<'t> {
    pub(super) fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_word(word))
    }

    pub(super) fn is_one_of(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(at, word))
    }

    pub(super) fn begins(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(at, word)| self.is(at, word))
    }

    /// Where these words follow each other.
    pub(super) fn place_of(&self, words: &[&str]) -> Option<usize> {
        self.tokens
            .windows(words.len())
            .position(|window| window.iter().zip(words).all(|(token, word)| token.is_word(word)))
    }

    pub(super) fn has(&self, words: &[&str]) -> bool {
        self.place_of(words).is_some()
    }

    /// Whether it creates, alters, drops or comments on something.
    pub(super) fn is_definition(&self) -> bool {
        self.is_one_of(0, &["create", "alter", "drop", "comment"])
    }

    /// The place of the word for the kind of object, in a definition: the object's name may be any word.
    pub(super) fn kind(&self) -> usize {
        let mut kind = if self.begins(&["comment", "on"]) { 2 } else { 1 };
        while self.is_one_of(kind, &["or", "replace", "trusted", "procedural"]) {
            kind += 1;
        }
        kind
    }

    /// Whether it defines an object of one of these kinds.
    pub(super) fn defines(&self, kinds: &[&str]) -> bool {
        self.is_definition() && self.is_one_of(self.kind(), kinds)
    }

    /// The text from the token `from` up to, but not including, the token `to`.
    pub(super) fn between(&self, from: usize, to: usize) -> &'t str {
        match (self.tokens.get(from), self.tokens.get(to.wrapping_sub(1))) {
            (Some(first), Some(last)) if from < to => {
                &self.text[first.start..last.start + last.text.len()]
            }
            _ => "",
        }
    }

    pub(super) fn whole(&self) -> &'t str {
        self.between(0, self.tokens.len())
    }

    /// Its first words, to name it by.
    pub(super) fn head(&self, words: usize) -> String {
        self.between(0, words.min(self.tokens.len())).to_uppercase()
    }
}
