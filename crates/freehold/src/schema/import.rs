//! Converts a dump of `pg_dump`, or a `structure.sql`, to a baseline. Pure.
//!
//! A dump restores one database, with its owners, roles and schema. A baseline is run in many schemas, by one
//! role. So statements about the database are left out, names lose `public.`, and rows of COPY become INSERT.
//! Each of these changes is reported. Statements that a baseline cannot contain are refused, with their line.
//! `rules.rs` has the kinds of statements.

use std::collections::HashSet;
use std::fmt::Write as _;

use self::reading::{Part, Words, parts};
use self::rows::values;
use super::migration::{made_by, unqualified};

/// More rows than this are a customer's data, not seed rows of every tenant.
const ROWS_MAX: usize = 10_000;
/// A remark that statements and rows share.
const UNQUALIFIED: &str =
    "changed: `public.` before names, since a tenant's schema has another name";
/// How many rows one INSERT has.
const ROWS_AT_ONCE: usize = 100;

/// The result of importing a dump.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Imported {
    /// The baseline's SQL.
    pub sql: String,
    /// The number of its statements.
    pub statements: usize,
    /// What differs from the dump.
    pub remarks: Vec<ImportRemark>,
}

/// A change or an omission, and its reason.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ImportRemark {
    /// The change and its reason.
    pub what: String,
    /// How often it was made.
    pub count: usize,
    /// The line of the dump where it was made first, from 1.
    pub first_line: usize,
}

/// A statement that a baseline cannot contain.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ImportRefusal {
    /// The line of the dump, from 1.
    pub line: usize,
    /// The reason, and what to do.
    pub why: String,
}

/// Converts dumps, such as the files of a folder, to a baseline: each to a migration, in this order.
///
/// # Errors
/// For each dump, all statements that a baseline cannot contain.
pub fn import_dumps(texts: &[String]) -> Vec<Result<Imported, Vec<ImportRefusal>>> {
    let plain = |text: &String| text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let texts: Vec<String> = texts.iter().map(plain).collect();
    let dumps: Vec<Vec<Part<'_>>> = texts.iter().map(|text| parts(text)).collect();
    let statement = |part: &Part<'_>| match part {
        Part::Statement(statement) => made_by(&statement.tokens),
        _ => None,
    };
    let made: HashSet<String> = dumps.iter().flatten().filter_map(statement).collect();
    let mut rows = 0;
    let import = |parts: &Vec<Part<'_>>| {
        let mut import = Import::new(&made, rows);
        parts.iter().for_each(|part| import.part(part));
        rows = import.rows;
        import.end()
    };
    dumps.iter().map(import).collect()
}

struct Import<'m> {
    /// The names of all that the dumps create.
    made: &'m HashSet<String>,
    sql: String,
    statements: usize,
    rows: usize,
    remarks: Vec<ImportRemark>,
    refusals: Vec<ImportRefusal>,
}

impl<'m> Import<'m> {
    /// `rows` are those of the dumps before it.
    fn new(made: &'m HashSet<String>, rows: usize) -> Import<'m> {
        Import {
            made,
            sql: String::new(),
            statements: 0,
            rows,
            remarks: Vec::new(),
            refusals: Vec::new(),
        }
    }

    fn end(mut self) -> Result<Imported, Vec<ImportRefusal>> {
        if self.statements == 0 && self.refusals.is_empty() {
            self.refuse("there is no statement in it that makes anything", 1);
        }
        match self.refusals.is_empty() {
            true => {
                Ok(Imported { sql: self.sql, statements: self.statements, remarks: self.remarks })
            }
            false => Err(self.refusals),
        }
    }

    fn part(&mut self, part: &Part<'_>) {
        match part {
            Part::Command { text, line } => self.psql_command(text, *line),
            Part::Statement(statement) => rules::apply(self, statement),
            Part::Rows { copy, rows } => self.rows_of(copy, rows),
        }
    }

    fn remark(&mut self, what: impl Into<String>, count: usize, line: usize) {
        if count == 0 {
            return;
        }
        let what = what.into();
        match self.remarks.iter_mut().find(|remark| remark.what == what) {
            Some(remark) => remark.count += count,
            None => self.remarks.push(ImportRemark { what, count, first_line: line }),
        }
    }

    fn left_out(&mut self, what: &str, why: &str, line: usize) {
        self.remark(format!("left out: {what}, {why}"), 1, line);
    }

    fn refuse(&mut self, why: impl Into<String>, line: usize) {
        self.refusals.push(ImportRefusal { line, why: why.into() });
    }

    fn write(&mut self, statement: &str) {
        self.statements += 1;
        let _ = writeln!(self.sql, "{statement};\n");
    }

    fn psql_command(&mut self, command: &str, line: usize) {
        let name = command.split_whitespace().next().unwrap_or_default();
        match name {
            "\\restrict" | "\\unrestrict" | "\\connect" | "\\c" | "\\encoding" | "\\." | "\\set" => {
                self.left_out(name, "a command of psql", line);
            }
            _ => self.refuse(
                format!("{name} is a command of psql, and a baseline is SQL for the server: put in its place what it does"),
                line,
            ),
        }
    }

    /// A dump has functions before the tables that their bodies name.
    fn leave_bodies_unchecked(&mut self) {
        const SET: &str = "SET LOCAL check_function_bodies = off;\n\n";
        if !self.sql.starts_with(SET) {
            self.sql.insert_str(0, SET);
        }
    }

    fn keep(&mut self, statement: &Words<'_>) {
        let text = self.unqualified(statement.whole(), statement.line);
        self.write(&text);
    }

    fn unqualified(&mut self, sql: &str, line: usize) -> String {
        let text = unqualified(sql, self.made);
        self.remark(UNQUALIFIED, text.names, line);
        self.remark(
            "changed: `public.` in bodies of functions; look at what they put together at run time",
            text.in_bodies,
            line,
        );
        self.remark(
            "changed: functions get a search path on which the tenant's tables are found",
            text.paths,
            line,
        );
        text.sql
    }

    /// More rows than a baseline may have are refused once.
    fn count_rows(&mut self, rows: usize, line: usize) {
        let before = self.rows;
        self.rows += rows;
        if before <= ROWS_MAX && self.rows > ROWS_MAX {
            self.refuse(
                format!("more than {ROWS_MAX} rows: a baseline has the rows that every tenant begins with. Dump with --schema-only, and the tables of such rows with --data-only --table"),
                line,
            );
        }
    }

    fn rows_of(&mut self, copy: &Words<'_>, rows: &[&str]) {
        let line = copy.line;
        let from = copy.place_of(&["from", "stdin"]).unwrap_or_default();
        if copy.tokens.len() > from + 2 {
            let options = copy.between(from + 2, copy.tokens.len());
            return self.refuse(
                format!("COPY … FROM stdin {options}: rows are read in the text format without options, as pg_dump writes them; write them so, or as INSERT"),
                line,
            );
        }
        self.count_rows(rows.len(), line);
        if rows.is_empty() || self.rows > ROWS_MAX {
            return;
        }
        let target = self.unqualified(copy.between(1, from), line);
        self.remark("changed: rows of COPY … FROM stdin are written as INSERT", rows.len(), line);
        for some in rows.chunks(ROWS_AT_ONCE) {
            let values: Vec<String> =
                some.iter().map(|row| format!("  ({})", values(row))).collect();
            self.write(&format!(
                "INSERT INTO {target} OVERRIDING SYSTEM VALUE VALUES\n{}",
                values.join(",\n")
            ));
        }
    }
}

mod reading;
mod rows;
mod rules;

#[cfg(test)]
mod tests;
