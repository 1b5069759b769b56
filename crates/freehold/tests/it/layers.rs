//! The direction of imports, checked by reading the `use` lines of the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The library's layers from the bottom up: a module imports from its own layer and from those before it.
const LIBRARY: &[&str] = &[
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

/// The server's.
const SERVER: &[&str] =
    &["database_url", "config", "telemetry", "data", "http", "mail", "worker", "cli", "main"];
const HTTP: &[&str] = &[
    "error",
    "json",
    "connections",
    "arrival",
    "readiness",
    "slugs",
    "state",
    "auth",
    "paths",
    "cache",
    "middleware",
    "cors",
    // One file per resource.
    "links",
    "pages",
    "sessions",
    "tenants",
    "me",
    "addresses",
    "credentials",
    "signup",
    "invitations",
    "members",
    "people",
    "operators",
    "audit",
    "violations",
    "slow_queries",
    "insight",
    "analytics",
    "data",
    "batch",
    "health",
    "metrics",
    "openapi",
    "router",
];
const DATA: &[&str] = &[
    "error", "model", "request", "scan", "operator", "filter", "query", "body", "headers", "sql",
    "plan", "answer", "database", "batch", "shape",
];

/// Files and folders that are pure: no driver, no async.
const PURE: &[&str] = &[
    "model/actor",
    "model/audit",
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

/// Whether a module is one of these, or inside of one.
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
    // Tests in the file itself are at its end; a test module in another file may be declared anywhere.
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    body.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn src(crate_name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(crate_name).join("src")
}

/// The imports from a higher layer in these sources. `folder` is a path from `src`, whose modules may also be
/// named by `super::`; a listed layer that does not exist is a fault as well.
fn faults_of(crate_name: &str, folder: &str, floors: &[&str]) -> BTreeSet<String> {
    let root = src(crate_name).join(folder);
    let floor_of = |name: &str| floors.iter().position(|floor| *floor == name);
    let mut faults = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let within = folder.split('/').filter(|part| !part.is_empty()).map(|part| format!("{part}::"));
    let path_of = format!("crate::{}", within.collect::<String>());
    for file in sources(&root) {
        let (module, code) = (module(&root, &file), code(&file));
        let mut parts = module.split('/');
        let name = parts.next().unwrap().to_owned();
        if ["lib", "mod"].contains(&name.as_str()) || ["tests", "fixture"].contains(&name.as_str())
        {
            continue;
        }
        let Some(floor) = floor_of(&name) else {
            faults.insert(format!("{name} is no floor"));
            continue;
        };
        seen.insert(name);
        let up = "super::".repeat(1 + parts.count());
        let mut paths: Vec<&str> = code.split(&path_of).skip(1).collect();
        if !folder.is_empty() {
            let beside = code.split(&up).skip(1).filter(|path| !path.starts_with("super::"));
            paths.extend(beside);
        }
        let names = paths.into_iter().flat_map(first_names);
        for imported in names {
            match floor_of(&imported) {
                Some(below) if below <= floor => {}
                Some(_) => drop(faults.insert(format!("{module} imports {imported}, above it"))),
                None if folder.is_empty() => {
                    faults.insert(format!("{module} imports crate::{imported}, which is no floor"));
                }
                // A name of the folder itself.
                None => {}
            }
        }
    }
    faults.extend(
        floors
            .iter()
            .filter(|floor| !seen.contains(**floor))
            .map(|floor| format!("{floor} is gone")),
    );
    faults
}

/// The modules that a path, or a list of paths in braces, begins with.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| {
        let text = text.trim_start();
        text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
    };
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names, mut begins) = (0, vec![name(list)], None);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = Some(at + 1),
            _ => {}
        }
        if let Some(at) = begins.take() {
            names.push(name(&list[at..]));
        }
    }
    names
}

#[test]
fn imports_point_down() {
    for (crate_name, folder, floors) in [
        ("freehold", "", LIBRARY),
        ("freehold-server", "", SERVER),
        ("freehold-server", "http", HTTP),
        ("freehold-server", "data", DATA),
    ] {
        let faults = faults_of(crate_name, folder, floors);
        assert!(faults.is_empty(), "{crate_name}/{folder}: {faults:#?}");
    }
}

#[test]
fn what_is_pure_waits_for_nothing() {
    let root = src("freehold");
    for file in sources(&root) {
        let module = module(&root, &file);
        let code = code(&file);
        for impure in ["tokio", "async fn"] {
            assert!(!is_in(&module, PURE) || !code.contains(impure), "{module} has {impure}");
        }
    }
}

/// The catalog's SQL is in `catalog`, and only `tx` begins transactions, with the BEGIN that `pool` prepares;
/// except where a database is prepared or a pooler is tested.
#[test]
fn only_tx_begins_a_transaction() {
    let root = src("freehold");
    for file in sources(&root) {
        let module = module(&root, &file);
        // Analytics reads on connections of its own, which no tenant's transaction uses.
        let analytics = "analytics/collector";
        let may =
            ["tx", "wire/client", "pool/connection", "pool/pooler", "init", "doctor", analytics];
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

/// All time limits of the library use tokio's clock, which a test can pause. Times that other servers or
/// people compare use the system's time of day.
#[test]
fn the_clock_of_the_library_can_be_stopped() {
    let root = src("freehold");
    for file in sources(&root) {
        let code = code(&file);
        for line in code.lines().filter(|line| line.contains("Instant")) {
            // An import for moka's trait for expiry, which requires this type.
            let is_the_systems =
                line.contains("std::time") && !line.trim().ends_with("std::time::Instant,");
            assert!(!is_the_systems, "{}: {line}", file.display());
        }
    }
}
