//! Converts a dump of `pg_dump`, or a `structure.sql`, to a baseline. Pure.
//!
//! A dump restores one database, with its owners, roles and schema. A baseline is run in many schemas, by one
//! role. So statements about the database are left out, names lose `public.`, and rows of COPY become INSERT.
//! Each of these changes is reported. Statements that a baseline cannot contain are refused, with their line.

use std::fmt::Write as _;

use super::migration::{without_public, without_public_in};
use crate::schema::policy::quote_literal;
use crate::sql::script::{Kind, Token, first_statement, lines_in, makes_routine};

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

/// Converts a dump to a baseline.
///
/// # Errors
/// All statements that a baseline cannot contain.
pub fn import_dump(text: &str) -> Result<Imported, Vec<ImportRefusal>> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let mut import = Import::default();
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
            import.psql_command(rest[..end].trim_end(), line);
            at += end;
            continue;
        }
        let Some((tokens, end)) = first_statement(rest) else { break };
        at += end;
        if tokens.is_empty() {
            continue;
        }
        let statement = Parts { text: rest, tokens: &tokens, line };
        match statement.copies() {
            Some(target) => {
                let data = &text[at..];
                let (rows, end) = copied(data);
                at += end;
                import.rows(&target, &rows, line);
            }
            None => import.statement(&statement),
        }
    }
    import.end()
}

/// The length of white space and comments before a statement.
fn blank(text: &str) -> usize {
    let blank = crate::sql::script::tokens(text).take_while(Token::is_blank);
    blank.map(|token| token.text.len()).sum()
}

/// A statement of a dump.
struct Parts<'s> {
    text: &'s str,
    tokens: &'s [Token<'s>],
    line: usize,
}

impl<'s> Parts<'s> {
    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_word(word))
    }

    fn begins(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(at, word)| self.is(at, word))
    }

    fn has(&self, words: &[&str]) -> bool {
        self.tokens
            .windows(words.len())
            .any(|window| window.iter().zip(words).all(|(token, word)| token.is_word(word)))
    }

    /// The text from the token `from` up to, but not including, the token `to`.
    fn between(&self, from: usize, to: usize) -> &'s str {
        match (self.tokens.get(from), self.tokens.get(to.wrapping_sub(1))) {
            (Some(first), Some(last)) if from < to => {
                &self.text[first.start..last.start + last.text.len()]
            }
            _ => "",
        }
    }

    fn whole(&self) -> &'s str {
        self.between(0, self.tokens.len())
    }

    /// The table and columns of `COPY … FROM stdin`.
    fn copies(&self) -> Option<String> {
        let from = self
            .tokens
            .windows(2)
            .position(|two| two[0].is_word("from") && two[1].is_word("stdin"))?;
        self.is(0, "copy").then(|| self.between(1, from).to_owned())
    }
}

#[derive(Default)]
struct Import {
    sql: String,
    statements: usize,
    rows: usize,
    remarks: Vec<ImportRemark>,
    refusals: Vec<ImportRefusal>,
}

impl Import {
    fn end(self) -> Result<Imported, Vec<ImportRefusal>> {
        let Import { sql, statements, rows, remarks, mut refusals } = self;
        if rows > ROWS_MAX {
            let why = format!(
                "{rows} rows: a baseline has the rows that every tenant begins with, {ROWS_MAX} at most. Dump with --schema-only, and the tables of such rows with --data-only --table"
            );
            refusals.insert(0, ImportRefusal { line: 1, why });
        }
        if statements == 0 && refusals.is_empty() {
            refusals.push(ImportRefusal {
                line: 1,
                why: "there is no statement in it that makes anything".to_owned(),
            });
        }
        if refusals.is_empty() { Ok(Imported { sql, statements, remarks }) } else { Err(refusals) }
    }

    fn remark(&mut self, what: impl Into<String>, count: usize, line: usize) {
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

    fn statement(&mut self, statement: &Parts<'_>) {
        let line = statement.line;
        // The kind of the object: its name may be any word.
        let mut kind = if statement.begins(&["comment", "on"]) { 2 } else { 1 };
        while ["or", "replace", "trusted", "procedural"].iter().any(|word| statement.is(kind, word))
        {
            kind += 1;
        }
        let of_database = |words: &[&str]| words.iter().any(|word| statement.is(kind, word));
        let is_definition =
            ["create", "alter", "drop", "comment"].iter().any(|word| statement.is(0, word));
        if statement.begins(&["set"]) || statement.is(0, "select") && statement.has(&["set_config"])
        {
            if statement.has(&["standard_conforming_strings"]) && statement.has(&["off"]) {
                return self.refuse(
                    "strings with backslashes: dump with standard_conforming_strings on",
                    line,
                );
            }
            if statement.has(&["check_function_bodies"]) {
                return self.leave_bodies_unchecked();
            }
            return self.left_out("SET", "which is for the session that restores", line);
        }
        let boundaries = ["begin", "commit", "start", "end", "rollback"];
        if boundaries.iter().any(|word| statement.is(0, word)) {
            return self.left_out(
                "bounds of transactions (BEGIN, COMMIT)",
                "since each file is one transaction",
                line,
            );
        }
        if statement.begins(&["alter", "default", "privileges"]) {
            return self.left_out(
                "ALTER DEFAULT PRIVILEGES",
                "which is about roles of the database",
                line,
            );
        }
        if statement.is(0, "alter")
            && statement.has(&["owner", "to"])
            && !statement.has(&["rename"])
        {
            return self.left_out(
                "OWNER TO",
                "since all of a tenant's schema is freehold_owner's",
                line,
            );
        }
        if statement.is(0, "grant") || statement.is(0, "revoke") {
            return self.grant(statement);
        }
        if is_definition
            && (statement.is(1, "schema") || statement.begins(&["comment", "on", "schema"]))
        {
            return self.schema(statement);
        }
        if statement.begins(&["create", "extension"]) {
            return self.extension(statement);
        }
        if statement.begins(&["comment", "on", "extension"]) {
            return self.left_out("COMMENT ON EXTENSION", "which is one for all tenants", line);
        }
        if is_definition && of_database(&["publication", "subscription"])
            || statement.begins(&["security", "label"])
        {
            let what = statement.between(0, 2).to_uppercase();
            return self.left_out(&what, "which is of the database", line);
        }
        if is_definition
            && of_database(&["role", "user", "group", "database", "tablespace", "system"])
        {
            let why =
                "it is about the whole server: dump one database with pg_dump, without --create";
            return self.refuse(format!("{}: {why}", statement.between(0, 2).to_uppercase()), line);
        }
        if is_definition
            && (statement.is(kind, "event") && statement.is(kind + 1, "trigger")
                || statement.has(&["foreign", "data", "wrapper"])
                || of_database(&["server", "language", "transform"]))
        {
            let why = "it is the database's, not a schema's: make it by hand, once, if the application needs it";
            return self.refuse(format!("{}: {why}", statement.between(0, 3).to_uppercase()), line);
        }
        if statement.begins(&["create", "policy"]) {
            return self.policy(statement);
        }
        if statement.has(&["enable", "row", "level", "security"]) {
            self.remark(
                "look at: row-level security of the application. Without a policy it denied everything; here members of the tenant read and write the table unless a migration grants or restricts otherwise",
                1,
                line,
            );
        }
        self.keep(statement);
    }

    /// A dump has functions before the tables that their bodies name.
    fn leave_bodies_unchecked(&mut self) {
        const SET: &str = "SET LOCAL check_function_bodies = off;\n\n";
        if !self.sql.starts_with(SET) {
            self.sql.insert_str(0, SET);
        }
    }

    /// Refuses one for roles of the database that was dumped.
    fn policy(&mut self, statement: &Parts<'_>) {
        let tokens = statement.tokens;
        let to = tokens.iter().position(|token| token.is_word("to"));
        let end = tokens.iter().position(|token| token.is_word("using") || token.is_word("with"));
        let roles =
            to.map_or(&[][..], |to| &tokens[to + 1..end.unwrap_or(tokens.len()).max(to + 1)]);
        let is_foreign = |token: &&Token<'_>| {
            let name = token.text.trim_matches('"');
            !token.is_symbol(",")
                && !name.eq_ignore_ascii_case("public")
                && !name.starts_with("freehold_")
        };
        match roles.iter().find(is_foreign) {
            Some(role) => self.refuse(
                format!("a policy for {}, a role of the database that was dumped: write TO freehold_viewer, freehold_member or freehold_admin, or leave TO out", role.text),
                statement.line,
            ),
            None => self.keep(statement),
        }
    }

    fn schema(&mut self, statement: &Parts<'_>) {
        let tokens = statement.tokens;
        if tokens.iter().any(|token| token.names("public")) {
            return self.left_out(
                "statements about the schema public",
                "since each tenant has one of its own",
                statement.line,
            );
        }
        let name = tokens.last().map_or("", |token| token.text);
        self.refuse(
            format!("the schema {name}: a tenant has one schema. Bring its objects to public first (ALTER … SET SCHEMA public), or dump with --schema=public --extension='*'"),
            statement.line,
        );
    }

    fn extension(&mut self, statement: &Parts<'_>) {
        let tokens = statement.tokens;
        let at = if statement.has(&["if", "not", "exists"]) { 5 } else { 2 };
        let name = tokens.get(at).map_or("", |token| token.text);
        if name.trim_matches('"').eq_ignore_ascii_case("plpgsql") {
            return self.left_out(
                "the extension plpgsql",
                "which every database has",
                statement.line,
            );
        }
        if statement.has(&["schema"]) {
            self.remark("changed: CREATE EXTENSION names no schema any more: a database has each once, in public", 1, statement.line);
        }
        self.write(&format!("CREATE EXTENSION IF NOT EXISTS {name}"));
    }

    /// Privileges of Freehold's roles stay; other roles belong to the dumped database.
    fn grant(&mut self, statement: &Parts<'_>) {
        let word = if statement.is(0, "grant") { "to" } else { "from" };
        let to = statement.tokens.iter().rposition(|token| token.is_word(word));
        let role = to.and_then(|at| statement.tokens.get(at + 1)).map_or("", |token| token.text);
        let is_ours = role.trim_matches('"').starts_with("freehold_");
        if is_ours && !statement.has(&["on", "schema"]) {
            return self.keep(statement);
        }
        let of_routine =
            ["function", "procedure", "routine"].iter().any(|kind| statement.has(&["on", kind]));
        if word == "from" && role.eq_ignore_ascii_case("public") && of_routine {
            self.remark("look at: functions that were revoked from PUBLIC stay so; grant EXECUTE to freehold_viewer or freehold_member where they may call them", 1, statement.line);
            return self.keep(statement);
        }
        let what = format!("rights of {role}");
        self.left_out(&what, "a role of the database that was dumped; docs/tables.md says what members of a tenant may", statement.line);
    }

    fn keep(&mut self, statement: &Parts<'_>) {
        let (text, in_strings) = strings_without_public(statement);
        let (text, count) = without_public(&text);
        let (text, in_bodies) = without_public_in(&text, makes_routine);
        if count + in_strings > 0 {
            self.remark(UNQUALIFIED, count + in_strings, statement.line);
        }
        if in_bodies > 0 {
            self.remark("changed: `public.` in bodies of functions; look at what they put together at run time", in_bodies, statement.line);
        }
        self.write(&text);
    }

    fn rows(&mut self, target: &str, rows: &[&str], line: usize) {
        let (target, count) = without_public(target);
        self.rows += rows.len();
        if rows.is_empty() {
            return;
        }
        self.remark("changed: rows of COPY … FROM stdin are written as INSERT", rows.len(), line);
        if count > 0 {
            self.remark(UNQUALIFIED, count, line);
        }
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

/// Removes `public.` from strings that PostgreSQL reads as names: `'public.orders_id_seq'::regclass`,
/// `nextval('public.…')`.
fn strings_without_public(statement: &Parts<'_>) -> (String, usize) {
    const NAMING: [&str; 5] =
        ["nextval", "setval", "currval", "pg_get_serial_sequence", "to_regclass"];
    let tokens = statement.tokens;
    let names = |at: usize| {
        let is_cast = tokens.get(at + 1).is_some_and(|token| token.is_symbol(":"))
            && tokens
                .get(at + 3)
                .is_some_and(|token| token.text.to_ascii_lowercase().starts_with("reg"));
        let is_argument = at >= 2
            && tokens[at - 1].is_symbol("(")
            && NAMING.iter().any(|name| tokens[at - 2].is_word(name));
        is_cast || is_argument
    };
    let whole = statement.whole();
    let begin = tokens.first().map_or(0, |token| token.start);
    let (mut out, mut from, mut count) = (String::with_capacity(whole.len()), 0, 0);
    for (at, token) in tokens.iter().enumerate() {
        let bare =
            ["'public.", "'\"public\"."].iter().find_map(|prefix| token.text.strip_prefix(prefix));
        if let (Kind::Text, Some(bare), true) = (token.kind, bare, names(at)) {
            let start = token.start - begin;
            let _ = write!(out, "{}'{bare}", &whole[from..start]);
            from = start + token.text.len();
            count += 1;
        }
    }
    out.push_str(&whole[from..]);
    (out, count)
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

/// A row of COPY's text format, as the values of an INSERT.
fn values(row: &str) -> String {
    let value = |field: &str| match field {
        "\\N" => "NULL".to_owned(),
        field => quote_literal(&unescaped(field)),
    };
    row.split('\t').map(value).collect::<Vec<_>>().join(", ")
}

fn unescaped(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('v') => out.push('\u{b}'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests;
