//! Standard output of commands: text for people, or JSON.
//!
//! If the reader closes the pipe, as `head` does, the command continues silently, and its exit code is
//! unaffected. Output that cannot be written for another reason, such as a full disk, is a failure.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use terminal_size::{Height, Width};

pub struct Output;

/// The reader has closed the pipe.
static ENDED: AtomicBool = AtomicBool::new(false);
/// Output was lost that a reader may be waiting for.
static LOST: AtomicBool = AtomicBool::new(false);

impl Output {
    /// Text for the person who ran the command.
    pub fn text(text: &str) {
        if ENDED.load(Ordering::Relaxed) {
            return;
        }
        let mut out = io::stdout().lock();
        let written = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
        Output::heed(written);
    }

    /// Records the result of writing to standard output.
    pub(super) fn heed(written: io::Result<()>) {
        let Err(error) = written else { return };
        ENDED.store(true, Ordering::Relaxed);
        if error.kind() != ErrorKind::BrokenPipe && !LOST.swap(true, Ordering::Relaxed) {
            Output::note(&format!("error: standard output cannot be written: {error}"));
        }
    }

    /// The exit code of a command with this outcome.
    pub fn exit_code(outcome: ExitCode) -> ExitCode {
        if LOST.load(Ordering::Relaxed) { ExitCode::FAILURE } else { outcome }
    }

    /// A note for a person at the terminal, which is not part of the output for programs.
    pub fn note(text: &str) {
        // There is no other place to report this failure.
        let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
    }

    /// Replaces the content of the terminal with lines, as many as fit. One write, so that nothing flickers.
    pub(super) fn screen(lines: &[String]) {
        let mut out = io::stdout().lock();
        let (columns, rows) = match terminal_size::terminal_size_of(&out) {
            Some((Width(columns), Height(rows))) => (columns.into(), rows.into()),
            None => (usize::MAX, usize::MAX),
        };
        // The cursor occupies the last row.
        let shown = lines.iter().take(rows.saturating_sub(1));
        let lines: String = shown.map(|line| format!("{}\x1b[K\n", first(line, columns))).collect();
        // If the terminal is gone, its signal ends the program.
        let _ = out.write_all(format!("\x1b[H{lines}\x1b[J").as_bytes());
        let _ = out.flush();
    }

    /// The one JSON value that a command prints.
    pub fn json(value: &impl Serialize) {
        Output::text(&serde_json::to_string_pretty(value).expect("answers always serialise"));
    }

    /// Aligned columns; the first row is the heading.
    pub(super) fn table(rows: &[Vec<String>]) {
        aligned(rows).iter().for_each(|line| Output::text(line));
    }

    /// A table, or a sentence if it has no rows besides the heading.
    pub(super) fn table_or(rows: &[Vec<String>], none: &str) {
        if rows.len() > 1 { Output::table(rows) } else { Output::text(none) }
    }

    /// A line that fits the terminal; without a terminal, the whole line.
    pub(super) fn line(text: &str) {
        match terminal_size::terminal_size_of(io::stdout()) {
            Some((Width(columns), _)) => Output::text(&first(text, columns.into())),
            None => Output::text(text),
        }
    }
}

/// The part of a line that fits, with a mark if it was cut.
fn first(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    line.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

/// One line per row, with columns as wide as their widest cell.
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
