//! What commands print to standard output: text for people, or JSON.
//!
//! Whoever reads may end first, as `head` does: the command goes on to its end in silence, and its exit
//! code is its own. Output that cannot be written for another reason, such as a full disk, is a failure.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use terminal_size::{Height, Width};

pub struct Output;

/// Nobody reads any more.
static ENDED: AtomicBool = AtomicBool::new(false);
/// Something could not be written that somebody may be waiting for.
static LOST: AtomicBool = AtomicBool::new(false);

impl Output {
    /// A line or more for who gave the command.
    pub fn text(text: &str) {
        if ENDED.load(Ordering::Relaxed) {
            return;
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
        Output::heed(written);
    }

    /// What became of writing to standard output.
    pub(super) fn heed(written: io::Result<()>) {
        let Err(error) = written else { return };
        ENDED.store(true, Ordering::Relaxed);
        if error.kind() != ErrorKind::BrokenPipe && !LOST.swap(true, Ordering::Relaxed) {
            Output::note(&format!("error: standard output cannot be written: {error}"));
        }
    }

    /// The exit code of a command that ends with this one.
    pub fn exit_code(outcome: ExitCode) -> ExitCode {
        if LOST.load(Ordering::Relaxed) { ExitCode::FAILURE } else { outcome }
    }

    /// For a person who reads along; not part of what a program reads.
    pub fn note(text: &str) {
        // There is no other place to say that it cannot be said.
        let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
    }

    /// Puts lines in the place of what the terminal shows, as many as it has room for. One write, so
    /// nothing flickers.
    pub(super) fn screen(lines: &[String]) {
        let mut out = io::stdout().lock();
        let (columns, rows) = match terminal_size::terminal_size_of(&out) {
            Some((Width(columns), Height(rows))) => (columns.into(), rows.into()),
            None => (usize::MAX, usize::MAX),
        };
        // The cursor takes the last row.
        let shown = lines.iter().take(rows.saturating_sub(1));
        let lines: String = shown.map(|line| format!("{}\x1b[K\n", first(line, columns))).collect();
        // A terminal that is gone ends the program by its signal.
        let _ = out.write_all(format!("\x1b[H{lines}\x1b[J").as_bytes());
        let _ = out.flush();
    }

    /// The one JSON value that a command prints.
    pub fn json(value: &impl Serialize) {
        Output::text(&serde_json::to_string_pretty(value).expect("answers always serialise"));
    }

    /// Columns, aligned; the first row is the heading.
    pub(super) fn table(rows: &[Vec<String>]) {
        aligned(rows).iter().for_each(|line| Output::text(line));
    }

    /// A table, or a sentence where it has nothing but its heading.
    pub(super) fn table_or(rows: &[Vec<String>], none: &str) {
        if rows.len() > 1 { Output::table(rows) } else { Output::text(none) }
    }

    /// A line that a terminal has room for in one; where none is, all of it.
    pub(super) fn line(text: &str) {
        match terminal_size::terminal_size_of(io::stdout()) {
            Some((Width(columns), _)) => Output::text(&first(text, columns.into())),
            None => Output::text(text),
        }
    }
}

/// So much of a line as fits, with a sign that there is more.
fn first(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    line.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

/// A line for each row, with columns as wide as the widest of their cells.
pub(super) fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
