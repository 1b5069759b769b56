//! The documentation names only tests that exist, and all actions of the record.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use freehold::control::audit::AUDIT_ACTIONS;

const PAGES: [&str; 2] = ["docs/isolation.md", "docs/people.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap()
}

/// The names of a file's tests: functions with an attribute that says so.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut names = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ") else {
            continue;
        };
        let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        let is_test = |line: &str| line.starts_with("#[test") || line.starts_with("#[tokio::test");
        if attributes.copied().any(is_test) {
            names.extend(rest.split('(').next());
        }
    }
    names.into_iter()
}

/// The names of all tests below a folder, as `module::name`.
fn tests_of(folder: &Path, module: &str, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let within = match (module, stem) {
            (_, "mod" | "main") => module.to_owned(),
            ("", stem) => stem.to_owned(),
            (module, stem) => format!("{module}::{stem}"),
        };
        if path.is_dir() {
            tests_of(&path, &within, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            names.extend(tests_in(&text).map(|name| format!("{within}::{name}")));
        }
    }
}

/// The integration tests of a crate, and every unit test without its module.
fn known_tests() -> ([(&'static str, BTreeSet<String>); 3], BTreeSet<String>) {
    let crates = root().join("crates");
    let of = |folder: &str| {
        let mut names = BTreeSet::new();
        tests_of(&crates.join(folder), "", &mut names);
        names
    };
    let units = ["freehold/src", "freehold-server/src"].iter().flat_map(|folder| of(folder));
    let units = units.filter_map(|name| Some(name.rsplit_once("::")?.1.to_owned())).collect();
    let suites = [
        ("library", of("freehold/tests/it")),
        ("server", of("freehold-server/tests/it")),
        ("proof", of("freehold-prove/tests/it")),
    ];
    (suites, units)
}

/// The cells of a table's row. A bar in code is written as `\|`.
fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|').replace("\\|", "\u{1}");
    inner.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// The rows of a page's tables that have a column of this heading, as the page's line, the table's columns and
/// the row's cells.
fn rows_with<'p>(text: &'p str, heading: &str) -> Vec<(&'p str, Vec<String>, Vec<String>)> {
    let (mut rows, mut columns) = (Vec::new(), None);
    for line in text.lines() {
        if !line.starts_with('|') {
            columns = None;
        } else if let Some(columns) = &columns {
            let columns: &Vec<String> = columns;
            if columns.iter().any(|column| column == heading) && !line.starts_with("|---") {
                rows.push((line, columns.clone(), cells(line)));
            }
        } else {
            columns = Some(cells(line));
        }
    }
    rows
}

/// The names in code style, each with what has been said before it in the cell.
fn named(cell: &str) -> impl Iterator<Item = (String, &str)> {
    let mut said = String::new();
    cell.split('`').enumerate().filter_map(move |(at, part)| {
        if at % 2 == 0 {
            said.push_str(part);
            return None;
        }
        Some((said.clone(), part))
    })
}

/// Whether it is code rather than the name of a test.
fn is_code(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_uppercase() || c == '.')
}

#[test]
fn every_test_that_the_pages_about_isolation_and_people_name_exists() {
    let (suites, units) = known_tests();
    for page in PAGES {
        let text = read(page);
        let rows = rows_with(&text, "Test");
        assert!(rows.len() > 20, "{page} has lost its tables");
        let mut unknown = Vec::new();
        for (line, columns, row) in &rows {
            assert_eq!(row.len(), columns.len(), "{page}: {line}");
            let column = columns.iter().position(|column| column == "Test").unwrap();
            for (said, name) in named(&row[column]).filter(|(_, name)| !is_code(name)) {
                let suite = suites.iter().max_by_key(|(suite, _)| said.rfind(suite));
                let known = match name.contains("::") {
                    true => suite.is_some_and(|(_, names)| names.contains(name)),
                    false => units.contains(name),
                };
                if !known {
                    unknown.push(name.to_owned());
                }
            }
        }
        assert!(unknown.is_empty(), "{page} names tests that are not there: {unknown:#?}");
    }
}

/// An attack without a test or a limit has at least been thought of.
#[test]
fn each_attack_on_people_has_its_defence_test_and_limit() {
    let text = read("docs/isolation.md");
    let (_, people) = text.split_once("\n### People\n").expect("the section has this heading");
    let people = people.split("\n##").next().unwrap_or_default();
    let rows = rows_with(people, "Limit");
    assert!(rows.len() > 20, "the table of people has no limits");
    for (line, _, row) in rows {
        assert!(row.iter().all(|cell| !cell.is_empty()), "{line}");
    }
}

#[test]
fn the_page_about_people_has_every_action_of_the_record_and_no_other() {
    let text = read("docs/people.md");
    let rows = rows_with(&text, "Actions");
    let mut told: Vec<&str> =
        rows.iter().flat_map(|(_, _, row)| named(&row[1]).map(|(_, name)| name)).collect();
    told.sort_unstable();
    let mut known = AUDIT_ACTIONS.to_vec();
    known.sort_unstable();
    assert_eq!(told, known);
}
