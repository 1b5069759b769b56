//! The direction of imports, held by reading the `use` lines of the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The library's floors from the ground up: a module imports of its own floor, and of those before it.
const FLOORS: &[&str] = &[
    "error",
    "model",
    "sql",
    "wire",
    "observe",
    "schema",
    "pool",
    "init",
    "tasks",
    "replicas",
    "tx",
    "snapshot",
    "indexes",
    "analytics",
    "catalog",
    "cache",
    "resolve",
    "recording",
    "sign_in",
    "fleet",
    "options",
    "doctor",
    "freehold",
    "control",
    "axum",
    "testing",
];

/// Files and folders that are pure: no driver, no async.
const PURE: &[&str] = &[
    "model/actor",
    "model/context",
    "model/ids",
    "model/lsn",
    "model/mail",
    "model/tenant",
    "sql",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// A file's path below `src`, without its extension.
fn module(root: &Path, file: &Path) -> String {
    file.strip_prefix(root).unwrap().with_extension("").to_string_lossy().into_owned()
}

/// Whether a module is one of these, or in one.
fn is_in(module: &str, names: &[&str]) -> bool {
    names.iter().any(|name| {
        module.strip_prefix(*name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Code without its comments and tests.
fn code(file: &Path) -> String {
    if file.file_stem().is_some_and(|name| name == "tests") {
        return String::new();
    }
    let text = std::fs::read_to_string(file).unwrap();
    // Tests in the file itself are its end; those in another may be named anywhere.
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    body.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn src(crate_name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(crate_name).join("src")
}

#[test]
fn imports_point_down() {
    let root = src("freehold");
    let floor_of = |name: &str| FLOORS.iter().position(|floor| *floor == name);
    let mut faults = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for file in sources(&root) {
        let (module, code) = (module(&root, &file), code(&file));
        if module == "lib" {
            continue;
        }
        let name = module.split('/').next().unwrap().to_owned();
        let Some(floor) = floor_of(&name) else {
            faults.insert(format!("{name} is no floor"));
            continue;
        };
        seen.insert(name);
        for path in code.split("crate::").skip(1) {
            let imported = path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            match floor_of(imported) {
                Some(below) if below <= floor => {}
                Some(_) => drop(faults.insert(format!("{module} imports {imported}, above it"))),
                None => drop(
                    faults.insert(format!("{module} imports crate::{imported}, which is no floor")),
                ),
            }
        }
        if is_in(&module, PURE) {
            for impure in ["tokio", "async fn"] {
                if code.contains(impure) {
                    faults.insert(format!("{module} is pure and has {impure}"));
                }
            }
        }
    }
    assert_eq!(seen.len(), FLOORS.len(), "a floor named here is gone: {seen:?}");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The catalog's SQL stands in `catalog`, and no transaction is begun outside of `tx`, whose BEGIN
/// `pool` prepares, but by who prepares the database and who tries out a pooler.
#[test]
fn only_tx_begins_a_transaction() {
    let root = src("freehold");
    for file in sources(&root) {
        let module = module(&root, &file);
        let may = ["tx", "wire/client", "pool/connection", "pool/pooler", "init", "doctor"];
        let begins = code(&file).contains("\"BEGIN");
        assert!(!begins || is_in(&module, &may), "{module} begins one");
    }
}

#[test]
fn handlers_and_commands_hold_no_sql() {
    let root = src("freehold-server");
    for folder in ["http", "cli"] {
        for file in sources(&root.join(folder)) {
            // `freehold dev` makes its own database before there is a catalog.
            if file.ends_with("cli/dev.rs") {
                continue;
            }
            let code = code(&file);
            for sql in ["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE ", "\"BEGIN"] {
                assert!(!code.contains(sql), "{} holds {sql}", file.display());
            }
        }
    }
}

#[test]
fn the_data_api_is_pure() {
    let root = src("freehold-server");
    for file in sources(&root.join("data")) {
        let code = code(&file);
        for impure in ["tokio", "async fn", "freehold::"] {
            assert!(!code.contains(impure), "{} has {impure}", file.display());
        }
    }
}

/// Whatever the library decides by time it decides by tokio's clock, which a test can stop. What is dated for
/// other servers or for people is the system's time of day.
#[test]
fn the_clock_of_the_library_can_be_stopped() {
    let root = src("freehold");
    for file in sources(&root) {
        let code = code(&file);
        for line in code.lines().filter(|line| line.contains("Instant")) {
            // What moka asks of who says how long it keeps something.
            let is_the_systems =
                line.contains("std::time") && !line.trim().ends_with("std::time::Instant,");
            assert!(!is_the_systems, "{}: {line}", file.display());
        }
    }
}

/// The proof stands on the service as its clients do; nothing stands on the proof but its command.
#[test]
fn nothing_but_its_command_imports_the_proof() {
    let root = src("freehold-server");
    for (folder, forbidden) in [
        ("http", "crate::prove"),
        ("data", "crate::prove"),
        ("dev", "crate::prove"),
        ("prove", "crate::cli"),
        ("prove", "crate::data"),
    ] {
        let files = sources(&root.join(folder));
        assert!(!files.is_empty(), "{folder} is gone");
        for file in files {
            assert!(!code(&file).contains(forbidden), "{} imports {forbidden}", file.display());
        }
    }
}
