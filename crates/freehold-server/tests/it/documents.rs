//! The documentation is correct: its commands run and print what is shown, its links have targets, and
//! exceptions are listed here with their reasons.
//!
//! One shell runs the fenced blocks of a page in order. `sh` must succeed. In `console`, each line that
//! begins with `$` is a command and the rest is its output, where `…` stands for anything; in `console fails`
//! it must fail. A block with `file=PATH` is the content of that file. `no-run` is not run.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use freehold_embedded::postgres::{EmbeddedPostgres, Options};

use crate::process::{Folder, free_port, start_freehold};
use crate::shipped::{is_a_variable, known_settings};
use crate::support::project;

/// Blocks that cannot be run here: the page, how the block begins, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("README.md", "./dev up ", "builds, and never ends; `dev.rs` starts what it starts"),
    ("README.md", "./dev up --baseline", "the same"),
    ("docs/backup.md", "pg_basebackup", "the replicas of `cluster.rs` are made by it"),
    ("docs/chaos.md", "./dev chaos", "builds, and takes minutes; it is a test itself"),
    ("docs/deploy.md", "docker build", "no container engine here; `./dev image` builds it"),
    ("docs/deploy.md", "kubectl create", "no cluster here; `./dev manifests` renders and checks"),
    ("docs/deploy.md", "kubectl -n freehold delete", "no cluster here"),
    (
        "docs/indexes.md",
        "freehold indexes",
        "a test of `cli.rs` runs them, with a tenant to advise",
    ),
    ("docs/install.md", "cargo build", "the program under test is built already"),
    ("docs/loopback.md", "sudo apt-get", "`./dev test` has installed them"),
    ("docs/migrations.md", "pg_dump", "a test of `import.rs` does it, with a dump of its own"),
    ("docs/prove.md", "./dev prove", "builds, and takes minutes; its own tests run it briefly"),
    ("docs/prove.md", "cargo build", "takes minutes; its own tests run it briefly"),
];

/// The guide's pages, in an order in which a reader can follow them.
const GUIDE: &[&str] = &[
    "docs/install.md",
    "docs/handlers.md",
    "docs/tables.md",
    "docs/migrations.md",
    "docs/errors.md",
    "docs/people.md",
    "docs/pgbouncer.md",
    "docs/replicas.md",
    "docs/doctor.md",
    "docs/analytics.md",
    "docs/backup.md",
];
const README: &[&str] = &["README.md"];
const DEPLOY: &[&str] = &["docs/deploy.md"];
const LOOPBACK: &[&str] = &["docs/loopback.md"];

/// How long a course may take on a busy machine.
const COURSE_MAX: Duration = Duration::from_secs(600);

// ── Pages and their blocks ────────────────────────────────────────────────────────────────────

struct Block {
    page: String,
    line: usize,
    /// The words after the fence: the language, then attributes.
    info: Vec<String>,
    text: String,
}

impl Block {
    fn is(&self, word: &str) -> bool {
        self.info.iter().any(|known| known == word)
    }

    fn file(&self) -> Option<&str> {
        self.info.iter().find_map(|word| word.strip_prefix("file="))
    }

    fn is_shell(&self) -> bool {
        ["sh", "console"].contains(&self.info.first().map_or("", String::as_str))
    }

    fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }
}

fn pages() -> Vec<String> {
    let docs = std::fs::read_dir(project().join("docs")).unwrap();
    let docs = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<String> =
        docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.push("README.md".to_owned());
    pages.sort();
    pages
}

fn read(page: &str) -> String {
    std::fs::read_to_string(project().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"))
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut inside = false;
    let mut indent = 0;
    for (number, line) in read(page).lines().enumerate() {
        let bare = line.trim_start();
        if let Some(info) = bare.strip_prefix("```") {
            inside = !inside;
            if inside {
                indent = line.len() - bare.len();
                let info = info.split_whitespace().map(str::to_owned).collect();
                let (page, line) = (page.to_owned(), number + 1);
                found.push(Block { page, line, info, text: String::new() });
            }
        } else if inside {
            let line = line.get(indent..).unwrap_or_default();
            writeln!(found.last_mut().unwrap().text, "{line}").unwrap();
        }
    }
    assert!(!inside, "{page}: a block does not end");
    found
}

#[test]
fn every_command_is_run_or_left_out_for_a_reason() {
    let run: BTreeSet<&str> = [GUIDE, README, DEPLOY, LOOPBACK].concat().into_iter().collect();
    let mut left_out = BTreeSet::new();
    for block in pages().iter().flat_map(|page| blocks(page)).filter(Block::is_shell) {
        if !block.is("no-run") {
            assert!(run.contains(block.page.as_str()), "{} is run by no test", block.place());
            continue;
        }
        let reason = NOT_RUN
            .iter()
            .position(|(page, begins, _)| block.page == *page && block.text.starts_with(begins));
        let reason = reason.unwrap_or_else(|| panic!("{}: no reason not to run", block.place()));
        // The longest match, where one beginning is part of another.
        left_out.insert(reason);
    }
    let stale: Vec<_> = (0..NOT_RUN.len()).filter(|at| !left_out.contains(at)).collect();
    assert!(
        stale.iter().all(|at| NOT_RUN[*at].2 == "the same"),
        "{stale:?} are not there any more"
    );
}

#[test]
fn the_service_that_is_run_is_the_one_on_the_page() {
    let page = read("docs/handlers.md");
    let code = page.split("```rust,no_run\n").nth(1).unwrap().split("```").next().unwrap();
    let example = read("crates/freehold-server/examples/handlers.rs");
    let (_, example) = example.split_once("\n\n").unwrap();
    assert_eq!(example, code, "copy the block of docs/handlers.md to examples/handlers.rs");
    assert!(
        guides_service().exists(),
        "build it: cargo build -p freehold-server --example handlers"
    );
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let folder = project().join(&page).parent().unwrap().to_owned();
        let text = read(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { project().join(&page) } else { folder.join(path) };
            if !target.exists() || !(anchor.is_empty() || has_heading(&target, anchor)) {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// As GitHub makes anchors of headings.
fn has_heading(page: &Path, anchor: &str) -> bool {
    let text = std::fs::read_to_string(page).unwrap();
    text.lines().filter(|line| line.starts_with('#')).any(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>() == anchor
    })
}

#[test]
fn every_command_of_dev_that_a_page_names_is_one() {
    let script = read("dev");
    for page in pages().into_iter().chain(["CONTRIBUTING.md".to_owned()]) {
        for rest in read(&page).split("./dev ").skip(1) {
            let name = rest.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next().unwrap();
            let known = script.contains(&format!("\n  {name}) ")) || name.is_empty();
            assert!(known || script.contains(&format!("\n  {name} |")), "{page}: ./dev {name}");
        }
    }
}

/// Variables in capitals that pages name and that are none of the program's settings.
const NOT_SETTINGS: &[&str] = &[
    "ACCESS_KEY_ID",
    "ACCESS_SECRET_KEY",
    // Of FREEHOLD_APP_PASSWORD and the like.
    "FREEHOLD_APP",
    "FREEHOLD_OWNER",
    "FREEHOLD_ANALYTICS",
    "ON_ERROR_STOP",
    "POSTGRES_PASSWORD",
    "REDIS_PASSWORD",
    "REPLICATION_PASSWORD",
];

#[test]
fn every_setting_that_a_page_names_is_one_that_the_program_reads() {
    let known = known_settings();
    let mut unknown = Vec::new();
    for page in pages() {
        for word in read(&page).split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            // Only words with an underscore inside: others are SQL keywords or variables of the reader's
            // shell.
            let is_one = is_a_variable(word) && word.trim_matches('_').contains('_');
            if is_one && !known.contains(word) && !NOT_SETTINGS.contains(&word) {
                unknown.push(format!("{page}: {word}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// The sources of a crate, but for tests.
fn sources(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                found.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(std::fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// The text in quotes, if it follows at once.
fn quoted(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

#[test]
fn every_code_of_an_error_is_on_its_page_and_no_other() {
    let page = read("docs/errors.md");
    let cells = page.lines().filter(|line| line.starts_with("| `")).filter_map(|line| {
        let (cell, rest) = line[2..].split_once('|')?;
        let status = rest.trim_start().get(..3)?;
        status.chars().all(|c| c.is_ascii_digit()).then_some(cell)
    });
    let told: BTreeSet<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let kinds = std::fs::read_to_string(project().join("crates/freehold/src/error.rs")).unwrap();
    let mut used: BTreeSet<String> = kinds
        .split("Self::")
        .filter_map(|rest| quoted(rest.split_once(" => ")?.1))
        .map(str::to_owned)
        .collect();
    let server = sources(&project().join("crates/freehold-server/src"));
    for text in &server {
        let statuses = text.split("StatusCode::").skip(1).filter_map(|rest| rest.split_once(','));
        let by_status = statuses
            .filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
            .filter_map(|(_, rest)| quoted(rest));
        let others = text.split("bad_request(").skip(1).filter_map(quoted);
        used.extend(by_status.chain(others).map(str::to_owned));
    }
    let missing: Vec<_> = used.iter().filter(|code| !told.contains(code.as_str())).collect();
    assert!(missing.is_empty(), "docs/errors.md lacks {missing:?}");
    let is_there = |code: &str| server.iter().any(|text| text.contains(&format!("\"{code}\"")));
    let made_up: Vec<_> =
        told.iter().filter(|code| !used.contains(**code) && !is_there(code)).collect();
    assert!(made_up.is_empty(), "docs/errors.md has {made_up:?}, which nobody says");
}

// ── Courses ───────────────────────────────────────────────────────────────────────────────────

/// Servers and a shell, in which pages are followed.
struct Course {
    folder: Folder,
    /// Texts on the pages, and their replacements on this machine.
    replaced: Vec<(&'static str, String)>,
    environment: Vec<(&'static str, String)>,
    /// Where the shell begins.
    begin: PathBuf,
    /// The account it runs as, if not the test's.
    account: Option<u32>,
}

impl Course {
    fn new() -> Course {
        let folder = Folder::new();
        let port = free_port();
        let at = format!("127.0.0.1:{port}");
        let replaced = vec![("127.0.0.1:8080", at.clone())];
        let (begin, account) = (folder.path().to_owned(), None);
        Course {
            begin,
            account,
            folder,
            replaced,
            environment: vec![("LISTEN", at), ("DRAIN_SECS", "0".to_owned())],
        }
    }

    /// A file or folder of the project, where the page looks for it.
    fn lend(&self, path: &str, name: &str) {
        std::os::unix::fs::symlink(project().join(path), self.folder.path().join(name)).unwrap();
    }

    /// A PostgreSQL that the pages call `host`.
    async fn postgres(&mut self, host: &'static str, at: &'static str) -> EmbeddedPostgres {
        let bin = std::env::var_os("FREEHOLD_PG_BIN").map(PathBuf::from);
        let dir = self.folder.path().join(format!("pg-{host}"));
        let settings = &[("fsync", "off"), ("max_locks_per_transaction", "256")];
        let options = Options { dir: &dir, bin: bin.as_deref(), settings };
        let server = EmbeddedPostgres::start(options, |_| {}).await.unwrap();
        let url = server.superuser_url("");
        let superuser = url.strip_prefix("postgres://").unwrap().trim_end_matches('/');
        let (user, address) = superuser.rsplit_once('@').unwrap();
        let with_user: &'static str = format!("postgres:secret{at}").leak();
        self.replaced.push((with_user, format!("{user}@{address}")));
        self.replaced.push((at, format!("@{address}")));
        server
    }

    fn replace(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// The pages' blocks as one script. The output of console commands goes to separate files.
    fn script(&self, blocks: &[Block]) -> (String, Vec<Shown>) {
        let mut script = String::from(PRELUDE);
        let mut shown = Vec::new();
        for block in blocks {
            let place = block.place();
            let _ = writeln!(script, "echo '▶ {place}' >&2");
            if let Some(file) = block.file() {
                let folder = Path::new(file).parent().unwrap().display();
                let text = &block.text;
                let _ = writeln!(
                    script,
                    "mkdir -p ./{folder}; cat > {file} <<'END OF THE FILE'\n{text}END OF THE FILE"
                );
            } else if block.is("sh") {
                script.push_str(&in_background(&self.replace(&block.text).replace('…', FILLED)));
            } else {
                for (command, expected) in console(&block.text) {
                    let command = self.replace(&command).replace('…', FILLED);
                    let expected = self.replace(&expected);
                    let file = self.begin.join(format!("shown-{}", shown.len()));
                    let fails = if block.is("fails") { "!" } else { "" };
                    let _ = writeln!(
                        script,
                        "{fails} {{ {command}\n}} >{} 2>&1 || shown_failed {}",
                        file.display(),
                        file.display()
                    );
                    shown.push(Shown { place: place.clone(), command, expected, file });
                }
            }
        }
        (script, shown)
    }

    /// Runs the pages: every command must succeed, and print what is shown.
    fn follow(&self, pages: &[&str]) {
        let all = pages.iter().flat_map(|page| blocks(page));
        let is_run = |b: &Block| !b.is("no-run") && (b.is_shell() || b.file().is_some());
        let all: Vec<_> = all.filter(is_run).collect();
        assert!(!all.is_empty(), "{pages:?} hold no commands");
        let (script, shown) = self.script(&all);
        let (file, log) = (self.folder.path().join("script"), self.folder.path().join("log"));
        std::fs::write(&file, script).unwrap();
        let mut shell = Shell::start(self, &file, &log);
        let status = shell.wait(&log);
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(status, "a command of {pages:?} failed:\n{said}");
        for shown in shown {
            let printed = std::fs::read_to_string(&shown.file).unwrap();
            let Shown { place, command, expected, .. } = shown;
            assert!(
                matches(expected.trim(), printed.trim()),
                "{place}: `{command}` printed\n{printed}\nand the page shows\n{expected}"
            );
        }
    }
}

/// In the place of a password that a page leaves out.
const FILLED: &str = "filled-in-by-a-test";

const PRELUDE: &str = r#"set -euo pipefail
# An answer of an error is a failure, too.
curl() {
  case " $* " in
    *' -sf '*) command curl "$@" ;;
    *) command curl --fail-with-body "$@" ;;
  esac
}
shown_failed() { cat "$1" >&2; exit 1; }
listening() {
  for _ in $(seq 600); do
    if command curl -s -o /dev/null "http://$1/"; then return; fi
    sleep 0.1
  done
  echo "nothing listens at $1"; cat "$2"; exit 1
}
serving() {
  for _ in $(seq 600); do
    if command curl -sf "http://$1/readyz" >/dev/null; then return; fi
    sleep 0.1
  done
  echo "nothing serves at $1"; cat server.log; exit 1
}
"#;

/// The program that `cargo run` runs on the page about handlers.
fn guides_service() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_freehold")).parent().unwrap().join("examples/handlers")
}

/// A server continues in the background; the next commands wait until it is ready.
fn in_background(text: &str) -> String {
    let lines = text.lines().map(|line| {
        if let Some((settings, _)) = line.split_once("cargo run") {
            let listen = line.split("LISTEN=").nth(1).and_then(|rest| rest.split(' ').next());
            let (listen, program) = (listen.unwrap(), guides_service());
            return format!(
                "{settings} {} >>service.log 2>&1 &\nlistening {listen} service.log\n",
                program.display()
            );
        }
        if !line.starts_with("freehold serve") {
            return format!("{line}\n");
        }
        let listen = line.split("--listen ").nth(1).unwrap_or("$LISTEN");
        format!("{line} >>server.log 2>&1 &\nserving {listen}\n")
    });
    lines.collect()
}

struct Shown {
    place: String,
    command: String,
    expected: String,
    file: PathBuf,
}

/// The commands of a console block, and the output of each.
fn console(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => found.push((command.to_owned(), String::new())),
            (None, Some((_, expected))) => {
                let _ = writeln!(expected, "{line}");
            }
            (None, None) => panic!("a console block begins with a command: {line}"),
        }
    }
    found
}

/// Compares line by line, where `…` stands for anything, and spaces for any number of spaces.
fn matches(expected: &str, printed: &str) -> bool {
    let line_matches = |(expected, printed): (&str, &str)| {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (expected, printed) = (words(expected), words(printed));
        let mut rest = printed.as_str();
        let parts: Vec<&str> = expected.split('…').collect();
        let last = parts.len() - 1;
        parts.iter().enumerate().all(|(at, part)| {
            let part = if at > 0 && at < last { part.trim() } else { part };
            let found = if at == 0 {
                rest.starts_with(part).then_some(0)
            } else if at == last {
                rest.ends_with(part).then(|| rest.len() - part.len())
            } else {
                rest.find(part)
            };
            found.is_some_and(|begin| {
                rest = &rest[begin + part.len()..];
                at < last || rest.is_empty()
            })
        })
    };
    expected.lines().count() == printed.lines().count()
        && expected.lines().zip(printed.lines()).all(line_matches)
}

/// The shell that follows a course, and all that it started.
struct Shell(Child);

impl Shell {
    fn start(course: &Course, script: &Path, log: &Path) -> Shell {
        let program = Path::new(env!("CARGO_BIN_EXE_freehold")).parent().unwrap();
        let mut path = vec![program.to_owned()];
        path.extend(std::env::var_os("FREEHOLD_PG_BIN").map(PathBuf::from));
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let output = std::fs::File::create(log).unwrap();
        let mut command = Command::new("bash");
        command
            .arg(script)
            .current_dir(&course.begin)
            .env_clear()
            .env("PATH", std::env::join_paths(path).unwrap())
            .envs(course.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0);
        if let Some(account) = course.account {
            command.uid(account).gid(account);
        }
        Shell(command.spawn().expect("bash is here"))
    }

    fn wait(&mut self, log: &Path) -> bool {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            let said = || std::fs::read_to_string(log).unwrap();
            assert!(began.elapsed() < COURSE_MAX, "it does not end:\n{}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Shell {
    /// Ends it and its children, which may take time for a request, but not for ever.
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let signal = |name: &str| {
            let mut kill = Command::new("kill");
            kill.args([name, "--", &group]).stderr(Stdio::null());
            kill.status().is_ok_and(|status| status.success())
        };
        signal("-TERM");
        let _ = self.0.wait();
        for _ in 0..100 {
            if !signal("-0") {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        signal("-KILL");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_can_be_followed_from_the_first_tenant_to_a_restored_backup() {
    let mut course = Course::new();
    let here = course.postgres("db", "@db:5432").await;
    let there = course.postgres("new", "@new:5432").await;
    course.replaced.push(("127.0.0.1:8090", format!("127.0.0.1:{}", free_port())));
    course.replaced.push(("127.0.0.1:8081", format!("127.0.0.1:{}", free_port())));
    course.follow(GUIDE);
    here.stop().await.unwrap();
    there.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_readmes_commands_work() {
    let mut course = Course::new();
    for lent in ["demo", "docs"] {
        course.lend(lent, lent);
    }
    course.lend("demo/migrations", "migrations");
    let demo = course.replaced[0].1.clone();
    let (port, dir) = (demo.rsplit_once(':').unwrap().1, course.folder.path().join(".freehold"));
    let migrations = project().join("demo/migrations");
    let arguments = ["dev", "--port", port, "--dir", dir.to_str().unwrap(), "--baseline"];
    let arguments = [&arguments[..], &[migrations.to_str().unwrap()]].concat();
    let mut running = start_freehold(&arguments, &[]);
    running.wait_for("Freehold is at", Duration::from_secs(90));
    let server = course.postgres("db", "@db:5432").await;
    course.replaced.push(("0.0.0.0:8080", format!("127.0.0.1:{}", free_port())));
    for role in ["APP", "OWNER", "ANALYTICS"] {
        let name: &'static str = format!("FREEHOLD_{role}_PASSWORD").leak();
        course.environment.push((name, FILLED.to_owned()));
    }
    let url = server.superuser_url("postgres");
    crate::support::connect(&url).await.batch_execute("CREATE DATABASE app").await.unwrap();
    course.follow(README);
    server.stop().await.unwrap();
    running.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_page_about_production_work() {
    let mut course = Course::new();
    course.lend("demo/migrations", "migrations");
    let server = course.postgres("db", "@db:5432").await;
    // TLS is tried in `tls.rs` and `shipped.rs`.
    course.replaced.push(("?sslmode=verify-full&sslrootcert=/etc/freehold/ca.pem", String::new()));
    course.replaced.push(("postgres:…", "postgres:secret".to_owned()));
    course.replaced.rotate_right(2);
    let url = server.superuser_url("postgres");
    crate::support::connect(&url).await.batch_execute("CREATE DATABASE freehold").await.unwrap();
    course.follow(DEPLOY);
    server.stop().await.unwrap();
}

/// Ports on the page about loopback and in the files that it uses.
const PORTS: [&str; 8] = ["5432", "5433", "6432", "6379", "8081", "8082", "8000", "9090"];
/// Debian's `nobody`, for programs that refuse to run as root.
const NOBODY: u32 = 65534;

/// Copies a folder, with other ports in text files.
fn copy(from: &Path, to: &Path, ports: &[(&'static str, String)]) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, ports);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = ports.iter().fold(text, |text, (from, to)| text.replace(from, to));
            std::fs::write(target, text).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_production_set_up_stands_on_loopback_by_its_page_alone() {
    let mut course = Course::new();
    course.environment.clear();
    // No port may contain another one as a part, which would be replaced there too.
    let port = || loop {
        let port = free_port().to_string();
        if !PORTS.iter().any(|known| port.contains(known)) {
            return port;
        }
    };
    course.replaced = PORTS.iter().map(|known| (*known, port())).collect();
    let place = course.folder.path().join("repository");
    for lent in ["deploy", "demo"] {
        copy(&project().join(lent), &place.join(lent), &course.replaced);
    }
    let program = course.folder.path().join("bin");
    std::fs::create_dir(&program).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_freehold"), program.join("freehold")).unwrap();
    let servers = match std::env::var("FREEHOLD_PG_BIN") {
        Ok(bin) => bin,
        Err(_) => "$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)".to_owned(),
    };
    let path = format!("{}:{servers}", program.display());
    course.replaced.push(("$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)", path));
    if std::fs::metadata(&place).unwrap().uid() == 0 {
        course.account = Some(NOBODY);
        std::os::unix::fs::chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    course.begin = place;
    course.follow(LOOPBACK);
}
