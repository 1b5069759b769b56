//! Comments that have a meaning for migration tools: where the up and down migrations begin, and options of a
//! file. Pure.

use super::Migration;
use crate::error::{Error, ErrorKind, Result};

/// The meaning of a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// The up migration follows; possibly without a transaction.
    Up {
        no_transaction: bool,
    },
    /// The down migration follows, which is never run.
    Down,
    /// A plain `-- up` or `-- down`, which counts only if both occur.
    PlainUp,
    PlainDown,
    /// The file asks to run without a transaction.
    NoTransaction,
    /// A request that is not supported: what it is and what to do.
    Refused(&'static str),
}

/// The meaning of a line that is a comment, if a tool reads it.
fn mark(line: &str) -> Option<Mark> {
    let line = line.trim();
    // Play's evolutions begin with `# --- !Ups`.
    if !line.starts_with("--") && !line.starts_with("# ---") {
        return None;
    }
    let comment = line.trim_start_matches(['-', '#', ' ']).trim_end_matches(['-', ' ']);
    let words: Vec<String> = comment.split_whitespace().map(str::to_ascii_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(match words[..] {
        // goose, sql-migrate, micrate; dbmate; MyBatis; tern; rambler; Play; node-pg-migrate.
        ["+goose" | "+migrate" | "+micrate", "down", ..]
        | ["migrate:down", ..]
        | ["//@undo", ..]
        | ["create", "above", "/", "drop", "below"]
        | ["rambler", "down"]
        | ["!downs"]
        | ["down", "migration"] => Mark::Down,
        ["+goose" | "+migrate" | "+micrate", "up", ref options @ ..]
        | ["migrate:up", ref options @ ..] => {
            let is_without =
                |option: &&str| ["notransaction", "transaction:false"].contains(option);
            Mark::Up { no_transaction: options.iter().any(is_without) }
        }
        ["rambler", "up"] | ["!ups"] | ["up", "migration"] => Mark::Up { no_transaction: false },
        ["+goose", "no", "transaction"] | ["no-transaction"] | ["atlas:txmode", "none"] => {
            Mark::NoTransaction
        }
        ["freehold:", "no-transaction"] | ["freehold:no-transaction"] => Mark::Refused(
            "each file is one transaction, for each tenant, and none can do without: take the line out (of CREATE INDEX leave CONCURRENTLY out; a plain index locks one tenant's table while it is built)",
        ),
        ["atlas:checkpoint", ..] => Mark::Refused(
            "a checkpoint of Atlas stands for the files before it, which would be run as well: take it out of the folder, or them",
        ),
        ["+goose", "envsub", "on"] => Mark::Refused(
            "goose would put values of the environment here, and Freehold does not: write them, and take the line out",
        ),
        _ => match plain(&words)? {
            "up" => Mark::PlainUp,
            _ => Mark::PlainDown,
        },
    })
}

/// `up` or `down`, if it is the only word: `-- Down:`, `-- === UP ===`, `-- @down`.
fn plain<'w>(words: &[&'w str]) -> Option<&'w str> {
    let bare = words.iter().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    let mut bare = bare.filter(|word| !word.is_empty());
    let word = bare.next().filter(|word| ["up", "down"].contains(word))?;
    bare.next().is_none().then_some(word)
}

/// The word by which a tool marks the up migration, if a text contains such a comment.
pub(super) fn tool(sql: &str) -> Option<&'static str> {
    let begins = |line: &str, mark: &str| {
        let comment = line.trim().strip_prefix("--").unwrap_or_default().trim_start();
        comment.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(mark))
    };
    let mut lines = sql.lines();
    lines.find_map(|line| {
        ["+goose", "+migrate", "migrate:up"].into_iter().find(|mark| begins(line, mark))
    })
}

/// A text without the parts that a tool's comments mark as the down migration. Line numbers stay the same.
pub(super) fn way_up(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    // The lines of a removed part, which are needed only if something follows.
    let (mut is_down, mut has_up, mut blank) = (false, false, 0);
    for line in text.split_inclusive('\n') {
        let mark = mark(line);
        match mark {
            Some(Mark::Down) => is_down = true,
            Some(Mark::PlainDown) if has_up => is_down = true,
            Some(Mark::Up { .. } | Mark::PlainUp) => (is_down, has_up) = (false, true),
            _ => {}
        }
        if is_down || mark.is_some() && line.trim_start().starts_with('#') {
            blank += usize::from(line.ends_with('\n'));
            continue;
        }
        made.extend(std::iter::repeat_n('\n', blank));
        blank = 0;
        made.push_str(line);
    }
    made
}

/// Whether the file asks to run without a transaction. It runs in one nevertheless.
///
/// # Errors
/// A comment asks for something that would otherwise be ignored; the error has the line.
pub(super) fn wants_no_transaction(migration: &Migration) -> Result<bool> {
    let mut wants = false;
    for (at, line) in migration.statements.lines().enumerate() {
        match mark(line) {
            Some(Mark::NoTransaction | Mark::Up { no_transaction: true }) => wants = true,
            Some(Mark::Refused(why)) => {
                let why = format!("{} line {}: {why}", migration.label, at + 1);
                return Err(Error::new(ErrorKind::Setup, why));
            }
            _ => {}
        }
    }
    Ok(wants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_mark_changes_nothing() {
        for text in [
            "SELECT '-- +goose Down';\n-- going down\nSELECT 2;\n",
            "-- down\nSELECT 1;\n",
            "-- Down migration is not meant\nSELECT 1;\n",
            "-- Up\nSELECT 1; -- down\n",
            "# --- other\n",
            "",
        ] {
            assert_eq!(way_up(text), text);
        }
    }

    #[test]
    fn the_way_back_is_left_out_wherever_it_stands() {
        for (text, up) in [
            ("a\n-- +migrate Down\nb\nc\n-- +migrate Up\nd\n", "a\n\n\n\n-- +migrate Up\nd\n"),
            ("a\n---- create above / drop below ----\nb", "a\n"),
            ("-- rambler up\na\n-- rambler down\nb", "-- rambler up\na\n"),
            ("# --- !Ups\na\n# --- !Downs\nb\n", "\na\n"),
            ("-- Up Migration\na\n-- Down Migration\nb", "-- Up Migration\na\n"),
            ("-- Up:\na\n-- === DOWN ===\nb\n", "-- Up:\na\n"),
            (
                "-- migrate:up transaction:false\na\n-- migrate:down\nb",
                "-- migrate:up transaction:false\na\n",
            ),
        ] {
            assert_eq!(way_up(text), up, "{text}");
        }
    }
}
