//! Common behaviour of all commands: lists, names of tenants, closed pipes, and help.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use freehold::testing::{self, TestDatabase};
use serde_json::{Value, json};

use crate::process::{
    Env, Folder, Running, env_of, free_port, freehold, http, send_signal, start_freehold, with,
};
use crate::support::{SOON, admin_url, connect, eventually, project, shop, text};

/// Tenants without anything in them, as many as a page of a list does not hold.
async fn make_rows(database: &TestDatabase, count: i32) {
    let sql = connect(&database.superuser_url()).await;
    sql.execute(
        "INSERT INTO freehold.tenant (id, slug, name, status, version)
         SELECT gen_random_uuid(), 'many-' || lpad(n::text, 4, '0'), 'Many', 'suspended', 1
         FROM generate_series(1, $1::int) n",
        &[&count],
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_whole_or_says_that_it_is_not_and_where_the_rest_begins() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = env_of(&app, &owner);
    let run = |arguments: &[&str]| freehold(arguments, &env).ended(0);
    // An empty list says so, and in JSON is one.
    for (list, said) in [
        (&["tenant", "list"][..], "There are no tenants."),
        (&["person", "list"], "There are no people."),
        (&["operator", "list"], "There are no operators."),
        (&["violations", "list"], "There are no such violations."),
        (&["insight", "tenants"], "No tenant has run a statement."),
        (&["insight", "slow"], "No statement has taken SLOW_QUERY_MS or longer."),
        (&["insight", "sizes"], "Nothing has been measured yet"),
        (&["indexes", "list"], "No tenant has or lacks an index on its own account"),
        (&["analytics", "list"], "There are no analytics"),
        (&["top"], "no tenant is busy"),
    ] {
        let told = run(list).stdout();
        assert!(told.starts_with(said), "{list:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{list:?}: {told}");
        let value = run(&[list, &["--json"]].concat()).json();
        let none = if value.is_array() { json!([]) } else { json!({"items": [], "next": null}) };
        assert_eq!(value, none, "{list:?}");
    }

    make_rows(&database, 450).await;
    let slugs = |ran: &Value| -> Vec<String> {
        ran["items"].as_array().unwrap().iter().map(|tenant| text(&tenant["slug"])).collect()
    };
    let all = run(&["tenant", "list", "--json"]).json();
    assert_eq!((slugs(&all).len(), &all["next"]), (450, &Value::Null));
    let told = run(&["tenant", "list"]);
    assert_eq!((told.stdout().lines().count(), told.stderr().as_str()), (451, ""));
    // By pages of any size, each once.
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = run(&["tenant", "list", "--json", "--limit", "201", "--after", &after]).json();
        seen.extend(slugs(&page));
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    assert_eq!(seen, slugs(&all));
    let told = run(&["tenant", "list", "--limit", "450"]);
    assert_eq!((told.stdout().lines().count(), told.stderr().as_str()), (451, ""));
    let told = run(&["tenant", "list", "--limit", "449"]);
    assert_eq!(told.stdout().lines().count(), 450);
    assert!(told.stderr().contains("there are more: --after many-0449"), "{}", told.stderr());
    freehold(&["tenant", "list", "--limit", "0"], &env).ended(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_named_by_slug_id_or_schema_wherever_one_is_named() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let (acme, _) = testing::create_tenant(&fleet, "acme").await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let analytics = database.analytics_url();
    let mut env = env_of(&app, &owner);
    env.push(("DATABASE_ANALYTICS_URL", &analytics));
    let (id, schema) = (acme.id.to_string(), acme.id.schema());
    let upper = id.to_uppercase();
    let commands: [(&[&str], &[&str]); 9] = [
        (&["tenant", "show"], &["--json"]),
        (&["tenant", "suspend"], &["--json"]),
        (&["tenant", "resume"], &["--json"]),
        (&["insight", "tenant"], &["--json"]),
        (&["insight", "slow", "--tenant"], &["--json"]),
        (&["violations", "list", "--tenant"], &["--json"]),
        (&["audit", "list", "--tenant"], &["--json"]),
        (&["indexes", "list"], &["--json"]),
        (&["indexes", "advise"], &["--json"]),
    ];
    for name in ["acme", &upper] {
        freehold(&["tenant", "show", name], &env).ended(0);
    }
    for (before, after) in commands {
        let run = |name: &str| {
            freehold(&[before, &[name], after].concat(), &env).ended(0);
        };
        [&id, &schema].into_iter().for_each(|name| run(name));
        let nobody = "00000000-0000-4000-8000-000000000000";
        // One and the same function understands them.
        let wrong = ["nobody", nobody, "tenant_0000", "freehold_template", "tenant"];
        for name in wrong.into_iter().take(if before == ["tenant", "show"] { 5 } else { 1 }) {
            let ran = freehold(&[before, &[name], after].concat(), &env).ended(1);
            let said = ran.stderr();
            assert!(said.contains("there is no such tenant") && said.contains(name), "{said}");
        }
    }

    // The doctor's findings in a schema also name the slug.
    let sql = connect(&database.superuser_url()).await;
    let table = format!("{schema}.orders");
    sql.batch_execute(&format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")).await.unwrap();
    let told = freehold(&["doctor"], &env).ended(3).stdout();
    let line = told.lines().find(|line| line.contains(&table));
    assert!(line.is_some_and(|line| line.contains(&format!("{table} [acme]:"))), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn insight_says_of_which_hours_its_figures_are_and_how_late_they_may_be() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    testing::create_tenant(&database.freehold().await.unwrap(), "acme").await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = env_of(&app, &owner);
    let late = "Servers add what they have counted every INSIGHT_WRITE_SECS, 60 s if not set.";
    for command in [&["insight", "tenants"][..], &["insight", "tenant", "acme"]] {
        for (hours, window) in [
            (&[][..], "Of the current hour and the 24 hours before it."),
            (&["--hours", "2"], "Of the current hour and the 1 hour before it."),
            (&["--hours", "1"], "Of the current hour."),
        ] {
            let arguments = [command, hours].concat();
            let said = freehold(&arguments, &env).ended(0).stderr();
            assert_eq!(said, format!("{window} {late}\n"), "{arguments:?}");
            // The JSON output contains only the figures.
            let ran = freehold(&[&arguments[..], &["--json"]].concat(), &env).ended(0);
            ran.json();
            assert_eq!(ran.stderr(), "", "{arguments:?}");
        }
    }
}

/// A command's output on a terminal, which `script` provides.
fn said_on_a_terminal(arguments: &str, env: Env) -> String {
    let program = format!("exec {} {arguments}", env!("CARGO_BIN_EXE_freehold"));
    let mut command = Command::new("script");
    command.args(["-qefc", &program, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm");
    let mut running = Running::spawn({
        command.envs(env.iter().copied());
        command
    });
    running.wait(SOON);
    running.said()
}

/// Help and errors have none. The log has something to say here: that the server waits for its database.
#[test]
fn no_color_takes_the_colours_from_the_log() {
    let nowhere = format!("postgres://freehold_app:x@127.0.0.1:{}/freehold", free_port());
    let env = with(env_of(&nowhere, &nowhere), "STARTUP_SECS", "1");
    let of = |no_color: Option<&'static str>| {
        let mut env = env.clone();
        env.extend(no_color.map(|value| ("NO_COLOR", value)));
        let told = said_on_a_terminal("serve", &env);
        assert!(told.contains("waiting for the database"), "{told}");
        told.contains('\x1b')
    };
    // An empty value counts as not set: https://no-color.org.
    assert_eq!([None, Some(""), Some("1")].map(of), [true, true, false]);
}

/// Every command that prints without a database, and one of each kind that needs one.
const PRINTING: &[&[&str]] = &[
    &["--help"],
    &["tenant", "list", "--help"],
    &["openapi"],
    &["config"],
    &["config", "--json"],
    &["completions", "bash"],
    &["doctor", "--list"],
    &["doctor"],
    &["tenant", "list"],
    &["tenant", "show", "acme"],
    &["person", "list", "--json"],
    &["audit", "list"],
    &["violations", "list"],
    &["key", "list"],
    &["migrate", "status"],
    &["insight", "tenants"],
    &["top", "--once"],
    &["analytics", "list"],
];

fn print_to(arguments: &[&str], env: Env, out: Stdio, err: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freehold"));
    command.args(arguments).env_clear().envs(env.iter().copied());
    let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_ends_first_is_no_failure_and_a_full_disk_is_one_and_neither_is_a_panic() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    testing::create_tenant(&fleet, "acme").await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = env_of(&app, &owner);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for arguments in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, said) = print_to(arguments, &env, writer.into(), Stdio::piped());
        let told = (code, said.contains("panicked"), said.contains("error"));
        assert_eq!(told, (Some(0), false, false), "{arguments:?}: {said}");

        let (code, said) = print_to(arguments, &env, full(), Stdio::piped());
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert_eq!(
            said.matches("standard output cannot be written: No space left").count(),
            1,
            "{said}"
        );
        // Neither can it be said: 101 would be a panic.
        let (code, _) = print_to(arguments, &env, full(), full());
        assert_eq!(code, Some(1), "{arguments:?}");
    }
    let nowhere = [("DATABASE_URL", "postgres://freehold_app:x@127.0.0.1:1/x")];
    for (arguments, expected) in [(&["tenant", "list"][..], 1), (&["fly"], 2), (&[], 2)] {
        let (code, _) = print_to(arguments, &nowhere, Stdio::null(), full());
        assert_eq!(code, Some(expected), "{arguments:?}");
    }
}

/// Its log cannot be written; it serves nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_log_cannot_be_written_serves() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let env = with(env_of(&app, &owner), "LISTEN", &listen);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_freehold"));
    command.arg("serve").env_clear().envs(env).stdin(Stdio::null()).stdout(full()).stderr(full());
    let mut child = command.spawn().unwrap();
    eventually("it serves", Duration::from_secs(60), async || {
        assert_eq!(child.try_wait().unwrap(), None, "it has ended");
        http(port, "GET", "/livez", "", &Value::Null).is_ok_and(|told| told.0 == 200)
    })
    .await;
    send_signal(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_commands_help_has_its_own_arguments_first_and_few_of_the_connection() {
    let env = [("DATABASE_URL", "postgres://x")];
    for command in [
        &["tenant", "create"][..],
        &["tenant", "list"],
        &["indexes", "apply"],
        &["violations", "list"],
        &["analytics", "run"],
        &["migrate", "up"],
        &["doctor"],
        &["top"],
    ] {
        let help = freehold(&[command, &["--help"]].concat(), &env).ended(0).stdout();
        let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("no {text} in\n{help}"));
        assert!(at("Options:") < at("\nConnection:"), "{help}");
        assert!(at("--json") < at("\nConnection:"), "{help}");
        for (of, own) in [("create", "--owner"), ("list", "--after"), ("run", "--changed-only")] {
            let is_of = command.last() == Some(&of);
            assert!(!is_of || at(own) < at("--json"), "{help}");
        }
        assert!(at("\nConnection:") < help.rfind("--database-url").unwrap(), "{help}");
        let of_connections = help.lines().filter(|line| line.trim_start().starts_with("--"));
        let after = help.split("\nConnection:").nth(1).unwrap().split("\n\n").next().unwrap();
        let shown = after.lines().filter(|line| line.trim_start().starts_with("--")).count();
        assert!((1..=4).contains(&shown), "{shown} settings of the connection in\n{help}");
        assert!(of_connections.count() < 20 && !help.contains("--pooler"), "{help}");
    }
    // Options that the help does not show are still accepted.
    let arguments = ["tenant", "list", "--pooler", "session", "--max-connection-pool", "3"];
    let nowhere = [("DATABASE_URL", "postgres://freehold_app:x@127.0.0.1:1/x")];
    freehold(&arguments, &nowhere).ended(1);
    assert!(freehold(&["serve", "--help"], &[]).ended(0).stdout().contains("--pooler"));
}

#[test]
fn settings_are_shown_without_a_database_and_as_json() {
    let shown = freehold(&["config"], &[]).ended(0).stdout();
    let line = shown.lines().find(|line| line.starts_with("JWT_SECRET ")).unwrap();
    assert!(line.split_whitespace().skip(1).take(2).eq(["-", "missing"]), "{line}");
    let env = [("JWT_SECRET", "hush and thirty-two bytes and more"), ("LISTEN", "127.0.0.1:9999")];
    let ran = freehold(&["config", "--json"], &env).ended(0);
    assert!(!ran.stdout().contains("hush"), "{}", ran.stdout());
    let all = ran.json();
    let of = |name: &str| {
        let all = all.as_array().unwrap();
        all.iter().find(|one| one["setting"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let secret = of("JWT_SECRET");
    assert_eq!((&secret["value"], &secret["from"]), (&Value::Null, &json!("environment")));
    assert_eq!((&secret["is_secret"], &secret["is_required"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&of("LISTEN")["value"], &of("LISTEN")["from"]),
        (&json!("127.0.0.1:9999"), &json!("environment"))
    );
    assert_eq!(
        (&of("SESSION_DAYS")["value"], &of("SESSION_DAYS")["from"]),
        (&json!("30"), &json!("default"))
    );
    assert_eq!(
        (&of("DATABASE_URL")["value"], &of("DATABASE_URL")["from"]),
        (&Value::Null, &Value::Null)
    );
    freehold(&["config"], &[("MAX_CONNECTION_POOL", "many")]).ended(2);
}

#[test]
fn shells_are_told_the_commands_and_their_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = freehold(&["completions", shell], &[]).ended(0).stdout();
        for known in ["violations", "sign-out", "retire-after-secs"] {
            assert!(script.contains(known), "{shell}: no {known}");
        }
    }
    let folder = Folder::new();
    let file = folder.path().join("completions");
    std::fs::write(&file, freehold(&["completions", "bash"], &[]).ended(0).stdout()).unwrap();
    let asked = "source \"$0\"; COMP_WORDS=(freehold tenant s) COMP_CWORD=2
        _freehold freehold s tenant; echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash").args(["-c", asked]).arg(&file).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.trim(), "show suspend", "{}", String::from_utf8_lossy(&output.stderr));
    freehold(&["completions", "basic"], &[]).ended(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misspelt_analytics_are_suggested_and_a_run_waits_for_another() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let analytics = database.analytics_url();
    let mut env = env_of(&app, &owner);
    env.push(("DATABASE_ANALYTICS_URL", &analytics));
    let demo = project().join("demo/analytics");
    let run = |arguments: &[&str]| freehold(arguments, &env);
    for command in ["run", "show"] {
        let said = run(&["analytics", command, "revenue_per_day"]).ended(1).stderr();
        assert!(said.contains("freehold analytics apply"), "{said}");
    }
    run(&["analytics", "apply", "--folder", demo.to_str().unwrap()]).ended(0);
    for command in ["run", "show"] {
        let said = run(&["analytics", command, "revenue_per_dya"]).ended(1).stderr();
        assert!(said.contains("did you mean revenue_per_day?"), "{said}");
        let said = run(&["analytics", command, "zzz"]).ended(1).stderr();
        assert!(said.contains("there are") && said.contains("revenue_per_day"), "{said}");
    }

    // Another session holds the lock that a scheduled run holds: the command waits and says so.
    let sql = connect(&analytics).await;
    let lock = "SELECT pg_advisory_lock(72374652, hashtext('revenue_per_day'))";
    sql.execute(lock, &[]).await.unwrap();
    let mut waiting = start_freehold(&["analytics", "run", "revenue_per_day"], &env);
    waiting.wait_for("revenue_per_day is being run by somebody else", Duration::from_secs(30));
    drop(sql);
    assert_eq!(waiting.wait(Duration::from_secs(30)).code(), Some(0), "{}", waiting.said());
    let said = waiting.said();
    assert!(said.contains("revenue_per_day: published; 0 of 0 tenants collected"), "{said}");
}
