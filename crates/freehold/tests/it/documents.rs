//! The documentation names only tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

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
            for part in text.split("fn ").skip(1) {
                let name = part.split('(').next().unwrap_or_default();
                names.insert(format!("{within}::{name}"));
            }
        }
    }
}

#[test]
fn every_test_that_the_pages_about_isolation_and_people_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut names = BTreeSet::new();
    for tests in [
        "crates/freehold/tests/it",
        "crates/freehold-server/tests/it",
        "crates/freehold-prove/tests/it",
    ] {
        tests_of(&root.join(tests), "", &mut names);
    }
    for page in ["docs/isolation.md", "docs/people.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        // Names of tests are in lower case; words with capitals are code.
        let named = text.split('`').filter(|word| {
            let is_part =
                |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c);
            word.contains("::") && word.chars().all(is_part)
        });
        let unknown: Vec<_> = named.filter(|name| !names.contains(*name)).collect();
        assert!(unknown.is_empty(), "{page} names tests that are not there: {unknown:#?}");
    }
}
