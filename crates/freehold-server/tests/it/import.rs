//! `freehold migrate import`: a dump of an application without tenants becomes a baseline.

use std::path::Path;
use std::process::Command;

use freehold::testing::{TestDatabase, create_tenant};
use freehold::{Baseline, ErrorKind};
use uuid::Uuid;

use crate::process::{Folder, freehold};
use crate::support::{admin_url, connect};

/// The database of such an application, with typical contents of dumps.
const APPLICATION: &str = "
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE state AS ENUM ('open', 'done');
CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN UPDATE public.projects SET changes = changes + 1 WHERE id = NEW.project_id; RETURN NEW; END $$;
CREATE TABLE projects (id serial PRIMARY KEY, name citext NOT NULL UNIQUE, changes int NOT NULL DEFAULT 0);
CREATE TABLE tasks (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project_id int NOT NULL REFERENCES projects ON DELETE CASCADE,
  state state NOT NULL DEFAULT 'open', note text, size numeric CHECK (size > 0), raw bytea
);
CREATE INDEX tasks_state ON tasks (project_id, state);
CREATE TRIGGER bump AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION bump();
CREATE VIEW open_tasks AS SELECT t.id, p.name FROM tasks t JOIN projects p ON p.id = t.project_id WHERE state = 'open';
CREATE TABLE schema_migrations (version text PRIMARY KEY);
INSERT INTO projects (name) VALUES ('Inbox'), (E'It''s a \\\\ and a\ttab');
INSERT INTO tasks (project_id, note, size, raw) VALUES (1, E'two\nlines', 1.5, '\\x00ff'), (2, NULL, NULL, NULL);
INSERT INTO schema_migrations VALUES ('20240101000000');
COMMENT ON TABLE tasks IS 'What there is to do';
";

fn pg_dump(url: &str, to: &Path) {
    let beside = std::env::var_os("FREEHOLD_PG_BIN").map(|bin| Path::new(&bin).join("pg_dump"));
    let program = beside.filter(|program| program.exists()).unwrap_or("pg_dump".into());
    let dumped = Command::new(program)
        .args(["--schema=public", "--extension=*", "--dbname", url, "--file"])
        .arg(to)
        .status()
        .unwrap();
    assert!(dumped.success());
}

async fn dump_of_an_application(folder: &Folder) -> std::path::PathBuf {
    let (admin, name) = (connect(&admin_url()).await, format!("app_{}", Uuid::new_v4().simple()));
    admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let url = format!("{}/{name}", admin_url().rsplit_once('/').unwrap().0);
    let application = connect(&url).await;
    application.batch_execute(APPLICATION).await.unwrap();
    let file = folder.path().join("structure.sql");
    pg_dump(&url, &file);
    drop(application);
    admin.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    file
}

#[tokio::test]
async fn a_dump_of_an_application_makes_tenants_that_work() {
    let folder = Folder::new();
    let dump = dump_of_an_application(&folder).await;
    let to = folder.path().join("migrations");
    let arguments = ["migrate", "import", dump.to_str().unwrap(), "--to", to.to_str().unwrap()];
    let ran = freehold(&arguments, &[]).ended(0);
    for said in [
        "OWNER TO",
        "`public.` before names",
        "bodies of functions",
        "written as INSERT",
        "--dry-run",
    ] {
        assert!(ran.stdout().contains(said), "{said} is not in\n{}", ran.stdout());
    }
    // A second import overwrites no file.
    let again = freehold(&arguments, &[]).ended(1);
    assert!(again.stderr().contains("0001_structure.sql is there already"), "{}", again.stderr());

    let baseline = Baseline::read(&to).unwrap();
    let database = TestDatabase::create(&admin_url(), &baseline).await.unwrap();
    let freehold = database.freehold().await.unwrap();
    let (_, acme) = create_tenant(&freehold, "acme").await.unwrap();
    let (_, globex) = create_tenant(&freehold, "globex").await.unwrap();
    let text = async |context, sql: &str| {
        freehold.query(context, sql, &[]).await.unwrap()[0].get::<_, String>(0)
    };
    for tenant in [&acme, &globex] {
        let rows = "SELECT string_agg(name || '|' || changes, ';' ORDER BY id) FROM projects";
        assert_eq!(text(tenant, rows).await, "Inbox|1;It's a \\ and a\ttab|1");
        let note = "SELECT note || size || encode(raw, 'hex') FROM tasks WHERE project_id = 1";
        assert_eq!(text(tenant, note).await, "two\nlines1.500ff");
        // Sequences continue after the dump's values, and the trigger's function finds its tenant's table.
        let insert = "INSERT INTO tasks (project_id) SELECT id FROM projects WHERE name = 'INBOX' RETURNING id::text";
        assert_eq!(text(tenant, insert).await, "3");
        assert_eq!(text(tenant, "SELECT changes::text FROM projects WHERE id = 1").await, "2");
        assert_eq!(text(tenant, "SELECT count(*)::text FROM open_tasks").await, "3");
        let more = "INSERT INTO projects (name) VALUES ('more') RETURNING id::text";
        assert_eq!(text(tenant, more).await, "3");
    }
    let other = format!("SELECT count(*) FROM {}.tasks", acme.tenant().schema());
    let refused = freehold.query(&globex, &other, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Violation);
    let found = freehold::doctor::examine(&database.options(), &Default::default()).await.unwrap();
    assert!(found.findings.is_empty(), "{:?}", found.findings);
}

#[test]
fn what_cannot_be_imported_is_named_and_nothing_is_written() {
    let folder = Folder::new();
    let from = folder.path().join("dumps");
    std::fs::create_dir(&from).unwrap();
    std::fs::write(from.join("1_good.sql"), "CREATE TABLE public.a (id int);").unwrap();
    std::fs::write(from.join("2_bad.sql"), "SELECT 1;\n\nCREATE SCHEMA audit;").unwrap();
    let to = folder.path().join("migrations");
    let arguments = ["migrate", "import", from.to_str().unwrap(), "--to", to.to_str().unwrap()];
    let ran = freehold(&arguments, &[]).ended(1);
    assert!(ran.stderr().contains("2_bad.sql line 3: the schema audit"), "{}", ran.stderr());
    assert!(!to.exists());
    std::fs::remove_file(from.join("2_bad.sql")).unwrap();
    let ran = freehold(&[&arguments[..], &["--json"]].concat(), &[]).ended(0);
    assert_eq!(ran.json()[0]["remarks"][0]["count"], 1);
    assert_eq!(
        std::fs::read_to_string(to.join("0001_good.sql")).unwrap(),
        "CREATE TABLE a (id int);\n\n"
    );
}

#[test]
fn numbers_in_the_names_of_files_count_as_numbers() {
    let folder = Folder::new();
    let from = folder.path().join("dumps");
    std::fs::create_dir(&from).unwrap();
    for name in ["10_c.sql", "2_b.sql", "a.sql"] {
        std::fs::write(from.join(name), "CREATE TABLE public.a (id int);").unwrap();
    }
    let to = folder.path().join("migrations");
    let arguments = ["migrate", "import", from.to_str().unwrap(), "--to", to.to_str().unwrap()];
    freehold(&arguments, &[]).ended(0);
    for name in ["0001_a.sql", "0002_b.sql", "0003_c.sql"] {
        assert!(to.join(name).exists(), "{name}");
    }
}
