//! What commands print to standard output: text for people, or JSON.

use std::io::Write as _;

use serde::Serialize;
use terminal_size::{Height, Width};

pub(super) struct Output;

impl Output {
    pub(super) fn text(text: &str) {
        println!("{text}");
    }

    /// For a person who reads along; not part of what a program reads.
    pub(super) fn note(text: &str) {
        eprintln!("{text}");
    }

    /// Puts lines in the place of what the terminal shows, as many as it has room for. One write, so
    /// nothing flickers.
    pub(super) fn screen(lines: &[String]) {
        let mut out = std::io::stdout().lock();
        let (columns, rows) = match terminal_size::terminal_size_of(&out) {
            Some((Width(columns), Height(rows))) => (columns.into(), rows.into()),
            None => (usize::MAX, usize::MAX),
        };
        // The cursor takes the last row.
        let shown = lines.iter().take(rows.saturating_sub(1));
        let cut = |line: &String| line.chars().take(columns).collect::<String>();
        let lines: String = shown.map(|line| format!("{}\x1b[K\n", cut(line))).collect();
        // A terminal that is gone ends the program by its signal.
        let _ = out.write_all(format!("\x1b[H{lines}\x1b[J").as_bytes());
        let _ = out.flush();
    }

    pub(super) fn json(value: &impl Serialize) {
        println!("{}", serde_json::to_string_pretty(value).expect("answers always serialise"));
    }

    /// Columns, aligned; the first row is the heading.
    pub(super) fn table(rows: &[Vec<String>]) {
        aligned(rows).iter().for_each(|line| Output::text(line));
    }
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
