//! What commands print to standard output: text for people, or JSON.

use serde::Serialize;

pub(super) struct Output;

impl Output {
    pub(super) fn text(text: &str) {
        println!("{text}");
    }

    pub(super) fn json(value: &impl Serialize) {
        println!("{}", serde_json::to_string_pretty(value).expect("answers always serialise"));
    }

    /// Columns, aligned; the first row is the heading.
    pub(super) fn table(rows: &[Vec<String>]) {
        let columns = rows.first().map_or(0, Vec::len);
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in rows {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            println!("{}", cells.join("  ").trim_end());
        }
    }
}
