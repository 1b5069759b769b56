//! What commands do is in the record: who, on whom, from where and why.

use freehold::testing::{PASSWORD, TestDatabase};
use serde_json::{Value, json};

use crate::process::{Env, Folder, env_of, freehold};
use crate::support::{admin_url, project, shop, text};

/// What the record has, the newest first.
fn audit(arguments: &[&str], env: Env) -> Vec<Value> {
    let list = [&["audit", "list", "--limit", "1000", "--json"], arguments].concat();
    freehold(&list, env).ended(0).json()["items"].as_array().unwrap().clone()
}

/// The demo's migrations and one more.
fn later_baseline() -> Folder {
    let folder = Folder::new();
    for file in std::fs::read_dir(project().join("demo/migrations")).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(folder.path().join("9000_more.sql"), "CREATE TABLE more (id int PRIMARY KEY);")
        .unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_that_changes_something_is_recorded_with_its_reason() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let (analytics, superuser) = (database.analytics_url(), database.superuser_url());
    let mut env = env_of(&app, &owner);
    env.push(("DATABASE_ANALYTICS_URL", &analytics));
    let demo = project().join("demo/analytics");
    let (demo, later) = (demo.to_str().unwrap(), later_baseline());
    let (op, ann, new) = ("op@x.example", "ann@acme.example", "new@acme.example");
    let commands: &[(&[&str], &str)] = &[
        (&["operator", "create", op, "--password", PASSWORD], "operator.create"),
        (&["operator", "create", "other@x.example", "--password", PASSWORD], "person.vouch"),
        (&["operator", "revoke", op], "operator.revoke"),
        (&["tenant", "create", "acme", "--owner", ann, "--password", PASSWORD], "tenant.create"),
        (&["tenant", "owner", "acme", new, "--password", PASSWORD], "owner.add"),
        (&["tenant", "weigh", "acme", "3"], "tenant.weigh"),
        (&["tenant", "suspend", "acme"], "tenant.suspend"),
        (&["tenant", "resume", "acme"], "tenant.resume"),
        (&["tenant", "owner", "acme", "later@acme.example"], "member.invite"),
        (&["tenant", "uninvite", "acme", "later@acme.example"], "member.uninvite"),
        (&["person", "disable", ann], "person.disable"),
        (&["person", "enable", ann], "person.enable"),
        (&["person", "reset", ann], "person.reset"),
        (&["person", "vouch", ann], "person.vouch"),
        (&["person", "sign-out", ann], "session.end"),
        (&["person", "remove", op], "person.remove"),
        (&["key", "show"], "key.show"),
        (&["key", "rotate"], "key.rotate"),
        (&["indexes", "apply", "acme", "products", "stock"], "index.create"),
        (&["analytics", "apply", "--folder", demo], "analytics.apply"),
        (&["analytics", "run"], "analytics.run"),
        (&["migrate", "up", "--baseline", later.text()], "migration.adopt"),
        (&["init"], "catalog.init"),
    ];
    for (command, action) in commands {
        let why = format!("ticket 7: {}", command.join(" "));
        let with_why = [*command, &["--why", &why]].concat();
        let admin = [("DATABASE_URL", superuser.as_str())];
        freehold(&with_why, if command[0] == "init" { &admin } else { &env }).ended(0);
        // Vouching for a person who has proven the address changes nothing.
        if command.starts_with(&["person", "vouch"]) {
            continue;
        }
        let lines = audit(&[], &env);
        let line = lines.iter().find(|line| line["action"] == *action).expect(action);
        assert_eq!(line["why"], why, "{command:?}");
        assert_eq!(line["actor"], json!(uuid::Uuid::nil()), "{command:?}");
        assert!(text(&line["origin"]).starts_with("command line"), "{command:?}: {line}");
        freehold(&[*command, &["--why", " "]].concat(), &env).ended(1);
    }

    let newest = |action: &str| {
        let lines = audit(&[], &env);
        let line = lines.iter().find(|line| line["action"] == action).cloned();
        line.unwrap_or_else(|| panic!("no {action}"))
    };
    assert_eq!(newest("fleet.migrate")["detail"], json!({"to": 9000, "tenants": 1}));
    assert!(text(&newest("fleet.migrate")["why"]).starts_with("ticket 7: migrate up"));
    let names = &newest("analytics.run")["detail"]["names"];
    assert!(names.as_array().is_some_and(|names| !names.is_empty()), "{names}");
    let init = &newest("catalog.init")["detail"];
    assert_eq!((&init["from"], &init["passwords_set"]), (&init["to"], &json!([])));
    assert_eq!(newest("index.create")["tenant"], newest("tenant.create")["tenant"]);
    // Without a reason it is the command. Where nothing is behind, no fleet is migrated.
    let before = audit(&[], &env).len();
    freehold(&["migrate", "up", "--baseline", later.text()], &env).ended(0);
    assert_eq!(audit(&[], &env).len(), before);
    freehold(&["tenant", "weigh", "acme", "4"], &env).ended(0);
    assert_eq!(newest("tenant.weigh")["why"], "freehold tenant weigh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_person_stands_in_the_record_by_id_and_by_address() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = env_of(&app, &owner);
    let run = |arguments: &[&str]| freehold(arguments, &env).ended(0);
    let ann = "ann@acme.example";
    run(&["tenant", "create", "acme", "--owner", ann, "--password", PASSWORD]);
    run(&["tenant", "owner", "acme", "ben@acme.example", "--password", PASSWORD]);
    let id = text(&run(&["person", "show", ann, "--json"]).json()["id"]);
    run(&["person", "remove", ann]);
    let expected = ["person.remove", "member.remove", "owner.add", "password.set", "person.vouch"];
    for person in [id.as_str(), ann, "Ann@Acme.example"] {
        let lines = audit(&["--person", person], &env);
        let actions: Vec<_> = lines.iter().map(|line| text(&line["action"])).collect();
        assert_eq!(actions, expected, "{person}");
    }
    assert_eq!(audit(&["--person", "nobody@acme.example"], &env), [Value::Null; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invitations_are_listed_and_withdrawn_by_command() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let (app, owner) = (database.app_url(), database.owner_url());
    let env = env_of(&app, &owner);
    let run = |arguments: &[&str]| freehold(arguments, &env);
    run(&["tenant", "create", "acme", "--owner", "ann@acme.example"]).ended(0);
    let list = ["tenant", "invitations", "acme"];
    let said = run(&list).ended(0).stdout();
    for told in ["EMAIL", "ann@acme.example", "owner", "system"] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let uninvite = ["tenant", "uninvite", "acme", "ann@acme.example"];
    let said = run(&uninvite).ended(0).stdout();
    assert!(said.contains("ann@acme.example is not invited to acme any more"), "{said}");
    assert!(run(&uninvite).ended(1).stderr().contains("there is no such invitation"));
    assert!(run(&list).ended(0).stdout().starts_with("No invitations wait."));
}
