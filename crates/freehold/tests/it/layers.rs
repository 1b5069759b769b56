//! The direction of imports, held by reading the `use` lines of the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules that are pure: no driver, no async.
const PURE: &[&str] = &["actor", "context", "excerpt", "ids", "lsn", "mail", "script", "tenant"];

/// What each layer must not import, of the library.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "wire",
        &[
            "client",
            "connection",
            "pool",
            "tx",
            "context",
            "catalog",
            "control",
            "resolver",
            "provisioner",
            "migrator",
        ],
    ),
    (
        "client",
        &[
            "connection",
            "pool",
            "replicas",
            "tx",
            "catalog",
            "control",
            "resolver",
            "provisioner",
            "migrator",
            "analytics",
        ],
    ),
    (
        "pooler",
        &["connection", "pool", "tx", "catalog", "control", "resolver", "provisioner", "migrator"],
    ),
    ("seal", &["tx", "catalog", "control", "resolver", "provisioner", "migrator"]),
    (
        "connection",
        &[
            // Not `pooler`, which is below.
            "pool::",
            "replicas",
            "tx",
            "catalog",
            "control",
            "resolver",
            "provisioner",
            "migrator",
            "analytics",
        ],
    ),
    (
        "pool",
        &[
            "replicas",
            "tx",
            "catalog",
            "control",
            "resolver",
            "provisioner",
            "migrator",
            "analytics",
        ],
    ),
    ("replicas", &["tx", "catalog", "control", "resolver", "provisioner", "migrator", "analytics"]),
    (
        "tx",
        &[
            "catalog",
            "control",
            "resolver",
            "recorder",
            "reporter",
            "slow_log",
            "provisioner",
            "migrator",
            "analytics",
        ],
    ),
    ("lease", &["tx", "catalog", "control", "resolver", "provisioner", "migrator", "analytics"]),
    // Its connections are of a role of its own; requests' are not its to use.
    ("analytics", &["tx", "catalog", "control", "resolver", "provisioner", "migrator"]),
    ("policy", &["tx", "pool", "catalog", "control", "resolver", "provisioner", "migrator"]),
    (
        "catalog",
        &["control", "resolver", "provisioner", "pool", "actor::permits", "actor::require"],
    ),
    (
        "violations",
        &["tx", "pool", "catalog", "control", "resolver", "recorder", "provisioner", "migrator"],
    ),
    ("recorder", &["control", "resolver", "provisioner", "migrator"]),
    (
        "insight",
        &["tx", "pool", "catalog", "control", "resolver", "reporter", "provisioner", "migrator"],
    ),
    ("reporter", &["control", "resolver", "provisioner", "migrator"]),
    ("slow_log", &["control", "provisioner", "migrator"]),
    ("indexes", &["control", "resolver", "reporter", "provisioner", "catalog"]),
    ("resolver", &["control", "provisioner", "migrator"]),
    ("cache", &["control", "provisioner", "migrator"]),
    ("migration", &["tx", "pool", "catalog", "control", "resolver", "provisioner", "migrator"]),
    (
        "outside",
        &["tx", "pool", "catalog", "control", "resolver", "provisioner", "migrator", "policy"],
    ),
    ("migrator", &["control", "provisioner", "resolver"]),
    ("provisioner", &["control", "resolver"]),
    ("doctor", &["tx", "catalog", "control", "resolver", "provisioner", "migrator"]),
    ("tokens", &["tx", "pool", "catalog", "control"]),
    ("passwords", &["tx", "pool", "catalog", "control"]),
    ("mail", &["tx", "pool", "catalog", "control"]),
    ("proof", &["pool", "control", "provisioner", "resolver"]),
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

/// The layer of a file: the first part of its path below `src`.
fn layer(root: &Path, file: &Path) -> String {
    let below = file.strip_prefix(root).unwrap().with_extension("");
    below.components().next().unwrap().as_os_str().to_string_lossy().into_owned()
}

/// Code without its comments and tests.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let body = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    body.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn src(crate_name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(crate_name).join("src")
}

#[test]
fn imports_point_down() {
    let root = src("freehold");
    let mut faults = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for file in sources(&root) {
        let (layer, code) = (layer(&root, &file), code(&file));
        for (name, forbidden) in FORBIDDEN.iter().filter(|(name, _)| *name == layer) {
            seen.insert(*name);
            for module in *forbidden {
                if code.contains(&format!("crate::{module}")) {
                    faults.insert(format!("{} imports {module}", file.display()));
                }
            }
        }
        if PURE.contains(&layer.as_str()) {
            for impure in ["tokio", "async fn", "crate::tx", "crate::pool"] {
                if code.contains(impure) {
                    faults.insert(format!("{} is pure and has {impure}", file.display()));
                }
            }
        }
    }
    assert_eq!(seen.len(), FORBIDDEN.len(), "a layer named here is gone: {seen:?}");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The catalog's SQL stands in `catalog`, and no transaction is begun outside of `tx`, whose BEGIN
/// `pool` prepares, but by who prepares the database and who tries out a pooler.
#[test]
fn only_tx_begins_a_transaction() {
    let root = src("freehold");
    for file in sources(&root) {
        let layer = layer(&root, &file);
        let begins = code(&file).contains("\"BEGIN");
        assert!(
            !begins
                || ["tx", "client", "connection", "pooler", "init", "doctor"]
                    .contains(&layer.as_str()),
            "{} begins one",
            file.display()
        );
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
