//! `freehold dev`: from nothing to two tenants, and recovery from any end.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Folder, Running, free_port, freehold, http, send_signal, start_freehold};
use crate::support::{connect, project, text};

/// The first start makes a database server; on a busy machine that takes its time.
const FIRST: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(60);

struct Dev {
    running: Running,
    port: u16,
}

impl Dev {
    fn start(folder: &Folder, more: &[&str], within: Duration) -> Dev {
        let port = free_port();
        let running = start_freehold(&arguments(folder, &port.to_string(), more), &[]);
        let mut dev = Dev { running, port };
        dev.running.wait_for("Freehold is at", within);
        dev
    }

    fn ask(&self, method: &str, path: &str, token: &str, body: Value) -> (u16, Value) {
        http(self.port, method, path, token, &body).unwrap()
    }

    fn sign_in(&self, email: &str) -> String {
        let body = json!({"email": email, "password": "freehold-demo"});
        let (status, tokens) = self.ask("POST", "/v1/auth/login", "", body);
        assert_eq!(status, 200, "{tokens}");
        text(&tokens["access_token"])
    }

    fn rows(&self, path: &str, token: &str) -> Vec<Value> {
        let (status, rows) = self.ask("GET", path, token, Value::Null);
        assert_eq!(status, 200, "{rows}");
        rows.as_array().unwrap().clone()
    }
}

fn arguments<'a>(folder: &'a Folder, port: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let baseline: &'static str =
        project().join("demo/migrations").to_str().unwrap().to_owned().leak();
    let mut arguments = vec!["dev", "--dir", folder.text(), "--port", port, "--baseline", baseline];
    arguments.extend(more);
    arguments
}

#[test]
fn one_command_makes_two_tenants_with_data_of_their_own_and_starts_again_quickly() {
    let folder = Folder::new();
    let mut dev = Dev::start(&folder, &[], FIRST);
    let said = dev.running.said();
    for told in [
        &format!("http://127.0.0.1:{}", dev.port),
        "owner@acme.example",
        "owner@globex.example",
        "freehold-demo",
    ] {
        assert!(said.contains(told), "{told} is not told:\n{said}");
    }

    let mut orders = Vec::new();
    for owner in ["owner@acme.example", "owner@globex.example"] {
        let token = dev.sign_in(owner);
        let rows = dev.rows("/v1/data/orders?select=id&limit=1000", &token);
        assert!((200..1000).contains(&rows.len()), "{owner} has {} orders", rows.len());
        orders.push(rows);
    }
    assert!(orders[0].iter().all(|order| !orders[1].contains(order)), "orders are shared");
    let token = dev.sign_in("operator@freehold.example");
    // Its people are proven, and its mailbox is a folder, so a sign-up can be followed from message to
    // tenant.
    let (_, people) = dev.ask("GET", "/v1/people", &token, Value::Null);
    let people = people["items"].as_array().unwrap().clone();
    assert_eq!(people.len(), 3);
    assert!(people.iter().all(|person| person["proven_at"].is_string()), "{people:?}");
    let mailbox = folder.path().join("mail");
    assert!(said.contains(mailbox.to_str().unwrap()), "the mailbox is not told:\n{said}");
    let wish = json!({"slug": "initech", "name": "Initech", "email": "bill@initech.example"});
    assert_eq!(dev.ask("POST", "/v1/signup", "", wish).0, 202);
    let began = Instant::now();
    let letter = loop {
        assert!(began.elapsed() < AGAIN, "no letter is written");
        let files = std::fs::read_dir(&mailbox).into_iter().flatten();
        let files = files.map(|file| file.unwrap().path());
        let text = files.filter(|path| path.extension().is_some_and(|end| end == "txt"));
        if let Some(path) = text.into_iter().next() {
            break std::fs::read_to_string(path).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let link = letter.lines().find(|line| line.contains("/confirm#")).unwrap();
    assert!(link.starts_with(&format!("http://127.0.0.1:{}/confirm#fhs_", dev.port)), "{link}");
    let confirm = json!({"token": link.split_once('#').unwrap().1, "password": "freehold-demo"});
    assert_eq!(dev.ask("POST", "/v1/signup/confirm", "", confirm).0, 201);
    dev.sign_in("bill@initech.example");
    // The demo's analytics have figures from the start.
    let (_, list) = dev.ask("GET", "/v1/analytics", &token, Value::Null);
    let list = list["items"].as_array().unwrap().clone();
    assert_eq!(list.len(), 4);
    for definition in list {
        assert_eq!(definition["coverage"]["complete"], true, "{definition}");
        let path = format!("/v1/analytics/{}?limit=200", text(&definition["name"]));
        let (status, figures) = dev.ask("GET", &path, &token, Value::Null);
        assert_eq!((status, &figures["coverage"]["tenants"]), (200, &json!(2)), "{figures}");
        assert!(figures["items"].as_array().is_some_and(|rows| rows.len() > 3), "{figures}");
    }

    // The folder serves one program at a time, and says so at once.
    let port = free_port().to_string();
    let second = freehold(&arguments(&folder, &port, &[]), &[]).ended(1);
    assert!(second.stderr().contains("already running"), "{}", second.stderr());
    let token = dev.sign_in("owner@acme.example");

    dev.running.stop();
    let mut dev = Dev::start(&folder, &[], AGAIN);
    // Sessions are still valid, and nothing was created twice.
    assert_eq!(dev.rows("/v1/data/orders?select=id&limit=1000", &token).len(), orders[0].len());
    dev.running.stop();
}

#[test]
fn a_kill_loses_nothing_and_a_reset_loses_all() {
    let folder = Folder::new();
    let mut dev = Dev::start(&folder, &[], FIRST);
    let token = dev.sign_in("owner@acme.example");
    let product = json!({"sku": "KEPT", "name": "Kept", "price_cents": 1});
    let (status, _) = dev.ask("POST", "/v1/data/products", &token, product);
    assert_eq!(status, 201);
    dev.running.kill();

    let mut dev = Dev::start(&folder, &[], AGAIN);
    assert_eq!(dev.rows("/v1/data/products?sku=eq.KEPT", &token).len(), 1);
    dev.running.stop();

    let mut dev = Dev::start(&folder, &["--reset"], FIRST);
    let token = dev.sign_in("owner@acme.example");
    assert_eq!(dev.rows("/v1/data/products?sku=eq.KEPT", &token).len(), 0);
    assert!(!dev.rows("/v1/data/products?limit=1", &token).is_empty());
    dev.running.stop();
}

#[test]
fn a_command_runs_beside_a_database_alone_and_its_exit_code_counts() {
    let folder = Folder::new();
    let run = |script: &str| {
        freehold(&["dev", "--database-only", "--dir", folder.text(), "--", "sh", "-c", script], &[])
    };
    let ran = run("echo \"$DATABASE_URL\"").ended(0);
    assert!(ran.stdout().starts_with("postgres://postgres:"), "{}", ran.stdout());
    run("exit 7").ended(7);
    // Ctrl-C is the command's own affair.
    run("kill -INT $PPID; exit 6").ended(6);
    let ran = freehold(&["dev", "--database-only", "--dir", folder.text()], &[]).ended(2);
    assert!(ran.stderr().contains("<COMMAND>"), "{}", ran.stderr());
}

/// The port that `freehold dev` chose itself.
fn told_port(line: &str) -> u16 {
    let rest = line.split("http://127.0.0.1:").nth(1).unwrap();
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn ones_own_tables_are_shown_and_new_migrations_taken_while_it_runs() {
    let (folder, mine) = (Folder::new(), Folder::new());
    let write = |name: &str, sql: &str| std::fs::write(mine.path().join(name), sql).unwrap();
    write("0001_pets.sql", "CREATE TABLE pets (id bigint PRIMARY KEY, name text);");
    let arguments = ["dev", "--dir", folder.text(), "--port", "0", "--baseline", mine.text()];
    let mut running = start_freehold(&arguments, &[]);
    let line = running.wait_for("Freehold is at", FIRST);
    let mut dev = Dev { port: told_port(&line), running };
    assert_ne!(dev.port, 0);
    dev.running.wait_for("/openapi.json", AGAIN);

    // The printed command works unchanged.
    let said = dev.running.said();
    let shell: String = said
        .lines()
        .skip_while(|line| !line.contains("TOKEN=$("))
        .take_while(|line| !line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(shell.contains(&format!(":{}/v1/data/pets", dev.port)), "{said}");
    let ran = std::process::Command::new("bash").args(["-euc", &shell]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "[]", "{shell}{ran:?}");

    // Written by two writes, as an editor may.
    let token = dev.sign_in("owner@acme.example");
    write("0002_toys.sql", "");
    write("0002_toys.sql", "CREATE TABLE toys (id bigint PRIMARY KEY);");
    dev.running.wait_for("Applied 0002_toys.", AGAIN);
    let began = Instant::now();
    while dev.ask("GET", "/v1/data/toys", &token, Value::Null).0 != 200 {
        assert!(began.elapsed() < AGAIN, "the new table is not served");
        std::thread::sleep(Duration::from_millis(50));
    }

    // A faulty migration is reported, and applied once it is corrected.
    write(
        "0003_bowls.sql",
        "CREATE TABLE bowls (id bigint PRIMARY KEY, pet bigint REFERENCES pet);",
    );
    let line = dev.running.wait_for("No migration was taken", AGAIN);
    assert!(line.contains("0003_bowls") && line.contains("pet"), "{line}");
    write(
        "0003_bowls.sql",
        "CREATE TABLE bowls (id bigint PRIMARY KEY, pet bigint REFERENCES pets);",
    );
    dev.running.wait_for("Applied 0003_bowls.", AGAIN);

    // One that was applied stays as it is.
    write("0001_pets.sql", "CREATE TABLE pets (id bigint PRIMARY KEY, name text, age int);");
    let line = dev.running.wait_for("0001_pets was changed after it had been applied", AGAIN);
    assert!(line.contains("put the change into a new migration"), "{line}");
    assert!(line.contains("freehold dev --reset"), "{line}");
    dev.rows("/v1/data/pets", &token);
    dev.running.stop();
    let ran = freehold(&arguments, &[]).ended(1);
    assert!(ran.stderr().contains("0001_pets was changed"), "{}", ran.stderr());
}

/// A kill of the database may lose the last half second before this, since it commits without waiting for the
/// disk.
async fn write_all_to_disk(folder: &Folder) {
    let read = |name: &str| std::fs::read_to_string(folder.path().join("pg").join(name)).unwrap();
    let (password, port) = (read("password"), read("port"));
    let url = format!("postgres://postgres:{}@127.0.0.1:{}/postgres", password.trim(), port.trim());
    connect(&url).await.batch_execute("CHECKPOINT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_is_started_again_where_it_was() {
    let folder = Folder::new();
    let mut dev = Dev::start(&folder, &[], FIRST);
    let token = dev.sign_in("owner@acme.example");
    let product = json!({"sku": "KEPT", "name": "Kept", "price_cents": 1});
    assert_eq!(dev.ask("POST", "/v1/data/products", &token, product).0, 201);
    for times in 1..=2 {
        write_all_to_disk(&folder).await;
        let file = folder.path().join("pg/data/postmaster.pid");
        let pid = std::fs::read_to_string(file).unwrap().lines().next().unwrap().to_owned();
        send_signal(pid.parse().unwrap(), "KILL");
        let began = Instant::now();
        while dev.running.said().matches("PostgreSQL runs again").count() < times {
            assert!(began.elapsed() < FIRST, "it does not come back:\n{}", dev.running.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        let began = Instant::now();
        let kept = loop {
            match dev.ask("GET", "/v1/data/products?sku=eq.KEPT", &token, Value::Null) {
                (200, rows) => break rows,
                (status, told) => {
                    assert!(began.elapsed() < AGAIN, "{status}: {told}");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        };
        assert_eq!(kept.as_array().map(Vec::len), Some(1));
    }
    dev.running.stop();

    // So is that of a command.
    let script = "read -r pid < \"$1/pg/data/postmaster.pid\"; kill -9 \"$pid\"
        for _ in $(seq 600); do
          { read -r now < \"$1/pg/data/postmaster.pid\"; } 2>/dev/null || now=$pid
          [ \"$now\" = \"$pid\" ] || exit 5
          sleep 0.1
        done";
    let beside = ["dev", "--database-only", "--dir", folder.text(), "--", "bash", "-c", script];
    let ran = freehold(&[&beside[..], &["bash", folder.text()]].concat(), &[]).ended(5);
    assert!(ran.stderr().contains("starting it again"), "{}", ran.stderr());
}
