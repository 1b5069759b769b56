//! What a migration did outside of its schema, as a sentence with the line and the remedy. Pure.

use std::collections::HashSet;

use crate::wire::Row;

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Depend,
    Create,
    Change,
    Write,
    Drop,
    /// A role, a membership, or a setting of a role or a database.
    Role,
    LargeObject,
    DefaultPrivileges,
    Public,
    Analytics,
    OwnSchema,
}

/// An object outside, and what the migration did with it.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    what: What,
    class: u32,
    oid: u32,
    /// The kind as PostgreSQL names it: `table`, `function`, `schema`.
    kind: String,
    /// Qualified and quoted as SQL needs it.
    identity: String,
    schema: Option<String>,
    /// What depends on it, or which privileges were granted.
    by: String,
}

impl Finding {
    pub(super) fn read(row: &Row) -> Finding {
        let text = |index| row.get::<_, Option<String>>(index);
        let what = match row.get::<_, &str>(0) {
            "depend" => What::Depend,
            "create" => What::Create,
            "write" => What::Write,
            "drop" => What::Drop,
            "role" => What::Role,
            "large object" => What::LargeObject,
            "default privileges" => What::DefaultPrivileges,
            "public" => What::Public,
            "analytics" => What::Analytics,
            _ => What::Change,
        };
        Finding {
            what,
            class: row.get(1),
            oid: row.get(2),
            kind: text(3).unwrap_or_default(),
            identity: text(4).unwrap_or_default(),
            schema: text(5),
            by: text(6).unwrap_or_default(),
        }
    }

    pub(super) fn own_schema(schema: &str) -> Finding {
        Finding {
            what: What::OwnSchema,
            class: 0,
            oid: 0,
            kind: "schema".to_owned(),
            identity: schema.to_owned(),
            schema: None,
            by: String::new(),
        }
    }

    /// A dropped object that has no name of its own.
    pub(super) fn dropped_unknown() -> Finding {
        let mut finding = Finding::own_schema("");
        (finding.what, finding.kind) = (What::Drop, "something".to_owned());
        finding
    }

    /// The line at which the migration did it, if its text tells.
    fn line(&self, migration: &str) -> Option<usize> {
        line_of(migration, &self.traces())
    }

    /// ` line 3: it …; remedy`, without the line if the text does not name the object.
    pub(super) fn sentence(&self, migration: &str) -> String {
        let line = self.line(migration);
        let place = line.map(|line| format!(" line {line}")).unwrap_or_default();
        let (kind, object, by) = (&self.kind, &self.identity, &self.by);
        let outside = "outside of the schema that it runs in";
        let why = match self.what {
            What::Depend => format!(
                "it makes {by} depend on {kind} {object}, {outside}. \
                 Have each tenant's schema hold what it needs: make it in a migration without naming a schema, \
                 and copy what tenants share; keep only the id of what is elsewhere, without a foreign key"
            ),
            What::Create if kind == "schema" => format!(
                "it makes the schema {object}. A tenant has one schema: make what it needs without naming any; \
                 what tenants share is set up once, by hand, and not by a migration, which runs for each of them"
            ),
            What::Create if self.schema.is_some() => format!(
                "it makes {kind} {object}, {outside}, where all tenants would share it. \
                 Leave the schema out of its name, and each tenant gets its own"
            ),
            What::Create => format!(
                "it makes {kind} {object}, which is the whole database's and no tenant's. \
                 Make it once, by hand, before migrating"
            ),
            What::Change => format!(
                "it changes {kind} {object}, {outside}: its definition, owner, rights or comment. \
                 Do that once, by hand; a migration runs for each tenant"
            ),
            What::Write => format!(
                "it writes to, alters or locks {kind} {object}, {outside}. \
                 Leave the schema out of the name if the tenant's own is meant; otherwise do it once, by hand"
            ),
            What::Drop => format!(
                "it drops {kind} {object}, {outside}. \
                 Leave the schema out of the name if the tenant's own is meant; otherwise do it once, by hand"
            ),
            What::Role => "it changes a role, a membership, or a setting of a role or database, which are the whole server's. \
                 Do that once, by hand, as a role that may; a setting for one transaction is SET LOCAL"
                .to_owned(),
            What::LargeObject => "it writes a large object: these are the whole database's, and no row-level security protects them. \
                 Keep the bytes in a column of type bytea"
                .to_owned(),
            What::DefaultPrivileges => "it changes default privileges, by which whatever is made later is open at once, before it is protected. \
                 GRANT on each table, in the migration that makes it"
                .to_owned(),
            What::Public => format!(
                "it leaves {kind} {object} granted to PUBLIC ({by}), which is every role of the server, those of other applications too. \
                 GRANT it TO freehold_viewer or freehold_member"
            ),
            What::Analytics => format!(
                "it leaves {by} on {kind} {object} granted to freehold_analytics, which passes every tenant's policy and must only read. \
                 GRANT it TO freehold_member"
            ),
            What::OwnSchema => "it changes owner or rights of the schema that it runs in, which every tenant's has from when it was made. \
                 Leave them as they are, and GRANT on tables"
                .to_owned(),
        };
        format!("{place}: {why}")
    }

    /// Sequences of words that the migration's text contains where it did it, the most likely first.
    fn traces(&self) -> Vec<Vec<String>> {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let named = tokens(&self.identity);
        let mut name: Vec<String> =
            named.iter().map(|(_, token)| token.clone()).take_while(|token| token != "(").collect();
        name.retain(|token| token != ")");
        let last = name.last().cloned().unwrap_or_default();
        let mut traces = match self.what {
            What::Role => [
                "alter role",
                "alter user",
                "alter database",
                "create role",
                "create user",
                "drop role",
                "grant",
            ]
            .map(words)
            .to_vec(),
            What::LargeObject => {
                ["lo_create", "lo_creat", "lo_from_bytea", "lo_put", "lo_import", "lo_unlink"]
                    .map(words)
                    .to_vec()
            }
            What::DefaultPrivileges => vec![words("default privileges")],
            What::Public => vec![words("to public")],
            What::Analytics => vec![words("to freehold_analytics"), words("freehold_analytics")],
            What::OwnSchema => vec![words("on schema"), words("alter schema")],
            _ => Vec::new(),
        };
        if self.kind == "cast" {
            traces.push(words("cast ("));
        }
        traces.extend([name, vec![last]]);
        traces.retain(|trace| !trace.is_empty() && trace.iter().all(|word| !word.is_empty()));
        traces
    }
}

/// Keeps one finding per object, the first one. Findings with a line come first, and among these objects that
/// contain others.
pub(super) fn distinct(findings: &mut Vec<Finding>, migration: &str) {
    let mut seen = HashSet::new();
    findings.retain(|finding| {
        let key = match finding.what {
            // Several locks result from one statement.
            What::Role | What::LargeObject | What::DefaultPrivileges => {
                (u32::MAX, finding.what.clone() as u32)
            }
            _ => (finding.class, finding.oid),
        };
        seen.insert(key)
    });
    findings.sort_by_cached_key(|finding| {
        let holds_others = finding.kind == "schema" || finding.kind == "extension";
        (finding.line(migration).is_none(), !holds_others)
    });
}

/// The first line that contains one of these sequences of words.
fn line_of(text: &str, traces: &[Vec<String>]) -> Option<usize> {
    let tokens = tokens(text);
    let same = |trace: &[String], at: &[(usize, String)]| {
        trace.iter().zip(at).all(|(word, (_, token))| word == token)
    };
    traces
        .iter()
        .find_map(|trace| tokens.windows(trace.len()).find(|at| same(trace, at)).map(|at| at[0].0))
}

/// Words, quoted names and symbols, each with its line. Comments are skipped; strings and function bodies are
/// read as well, since they may be executed.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let (mut found, mut line, mut i) = (Vec::new(), 1, 0);
    while i < chars.len() {
        match chars[i] {
            '-' if at(i + 1) == '-' => {
                while i < chars.len() && chars[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                while i < chars.len() && !(chars[i] == '*' && at(i + 1) == '/') {
                    line += usize::from(chars[i] == '\n');
                    i += 1;
                }
                i += 2;
            }
            '"' => {
                let (begin, mut name) = (line, String::new());
                i += 1;
                while i < chars.len() && (chars[i] != '"' || at(i + 1) == '"') {
                    line += usize::from(chars[i] == '\n');
                    i += usize::from(chars[i] == '"');
                    name.push(chars[i]);
                    i += 1;
                }
                found.push((begin, name));
                i += 1;
            }
            c if c.is_alphanumeric() || c == '_' => {
                let begin = i;
                while at(i).is_alphanumeric() || at(i) == '_' || at(i) == '$' {
                    i += 1;
                }
                found.push((line, chars[begin..i].iter().collect::<String>().to_lowercase()));
            }
            '\n' => {
                line += 1;
                i += 1;
            }
            c => {
                if !c.is_whitespace() {
                    found.push((line, c.to_string()));
                }
                i += 1;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, words: &[&str]) -> Option<usize> {
        line_of(text, &[words.iter().map(|word| (*word).to_owned()).collect()])
    }

    #[test]
    fn a_name_is_found_where_it_is_used_and_not_where_it_is_spoken_of() {
        let text = "-- public.notes is shared\n/* public.notes,\n again */\nCREATE TABLE Public . \"notes\" ();";
        assert_eq!(line(text, &["public", ".", "notes"]), Some(4));
        assert_eq!(
            line(
                "DO $$ BEGIN\nEXECUTE 'DROP TABLE public.notes'; END $$",
                &["public", ".", "notes"]
            ),
            Some(2)
        );
        assert_eq!(line("CREATE TABLE notes ();", &["public", ".", "notes"]), None);
        assert_eq!(line("\"No\"\"tes\n\"\n x", &["x"]), Some(3));
    }
}
