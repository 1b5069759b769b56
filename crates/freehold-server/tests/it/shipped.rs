//! The configurations in `deploy/` are run unchanged, except for ports, paths and the size of memory.

mod redis;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use freehold::testing::{self, PASSWORD, TestDatabase};
use serde_json::{Value, json};

use crate::process::{Folder, Running, Server, free_port, freehold, http, token};
use crate::support::{connect, project, server_and_database, shop};
use crate::tls::Encrypted;

fn shipped(name: &str) -> String {
    std::fs::read_to_string(project().join("deploy").join(name)).unwrap()
}

/// `name = value` of each line that is not a comment.
fn settings(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap().trim());
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('\'').to_owned()))
        .collect()
}

/// Replaces a part that must be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in what is shipped");
    text.replace(from, to)
}

/// PgBouncer as it is shipped, between a server and this PostgreSQL.
async fn pool(place: &Encrypted, database: &TestDatabase, folder: &Folder, port: u16) -> Running {
    let url = database.superuser_url();
    let (server, name) = server_and_database(&url);
    let server_port = server.rsplit_once(':').unwrap().1;
    let (users, ca) = (folder.path().join("users.txt"), folder.path().join("ca.pem"));
    let mut ini = shipped("pgbouncer.ini");
    for (from, to) in [
        (
            "host=postgres port=5432 dbname=freehold",
            format!("host=localhost port={server_port} dbname={name}"),
        ),
        ("listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1".to_owned()),
        ("listen_port = 6432", format!("listen_port = {port}")),
        ("/etc/pgbouncer/secret/users.txt", users.display().to_string()),
        ("/etc/pgbouncer/secret/ca.pem", ca.display().to_string()),
    ] {
        ini = replaced(&ini, from, &to);
    }
    // As in docs/deploy.md: PostgreSQL's verifier of the password, not the password.
    let line = "SELECT string_agg(format('\"%s\" \"%s\"', rolname, rolpassword), E'\\n') FROM pg_authid WHERE rolname IN ('freehold_app', 'freehold_catalog')";
    let line: String = connect(&url).await.query_one(line, &[]).await.unwrap().get(0);
    assert!(line.contains("SCRAM-SHA-256$") && !line.contains(PASSWORD), "{line}");
    let authority = std::fs::read_to_string(&place.authority).unwrap();
    for (path, text) in
        [(&users, &line), (&ca, &authority), (&folder.path().join("pgbouncer.ini"), &ini)]
    {
        std::fs::write(path, text).unwrap();
        // The user that PgBouncer runs as must be able to read it.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let known = ["/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
    let program = known.into_iter().find(|path| std::path::Path::new(path).exists());
    let mut command = Command::new(program.unwrap_or("pgbouncer"));
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata(folder.path()).unwrap().uid() == 0 {
        command.args(["-u", "nobody"]);
    }
    command.arg(folder.path().join("pgbouncer.ini"));
    let running = Running::spawn(command);
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", running.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_pgbouncer_and_postgresql_serve() {
    let mut conf = settings(&shipped("postgresql.conf"));
    assert!(conf.len() > 30, "{conf:?}");
    for (name, value) in &mut conf {
        // A test's machine is smaller.
        if name == "shared_buffers" {
            "64MB".clone_into(value);
        }
    }
    let pairs: Vec<_> = conf.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let place = Encrypted::start(&pairs).await;
    let sql = connect(&place.server.superuser_url("postgres")).await;
    for (name, value) in &conf {
        let shown: String =
            sql.query_one("SELECT current_setting($1)", &[name]).await.unwrap().get(0);
        assert_eq!(&shown, value, "{name}");
    }
    let database =
        TestDatabase::create(&place.server.superuser_url("postgres"), &shop()).await.unwrap();
    let (folder, port) = (Folder::new(), free_port());
    let mut pooler = pool(&place, &database, &folder, port).await;

    let verified = |url: String| {
        let url = url.replace("@127.0.0.1:", "@localhost:");
        format!("{url}?sslmode=verify-full&sslrootcert={}", place.authority)
    };
    let app =
        format!("postgres://freehold_app:{PASSWORD}@127.0.0.1:{port}/freehold?sslmode=disable");
    let (owner, listen, analytics) = (
        verified(database.owner_url()),
        verified(database.app_url()),
        verified(database.analytics_url()),
    );
    let through = tokio_postgres::connect(&app, tokio_postgres::NoTls).await;
    assert!(through.is_ok(), "{}", pooler.said());
    drop(through);
    let mut server = Server::start_with(
        &database,
        &[
            ("DATABASE_URL", &app),
            ("DATABASE_OWNER_URL", &owner),
            ("DATABASE_LISTEN_URL", &listen),
            ("DATABASE_ANALYTICS_URL", &analytics),
        ],
    );
    let fleet = database.freehold().await.unwrap();
    for slug in ["acme", "globex"] {
        let (tenant, context) = testing::create_tenant(&fleet, slug).await.unwrap();
        let token = token(context.actor().id.as_uuid(), Some(tenant.id.as_uuid()), "owner");
        let customer = json!({"email": format!("{slug}@x.example"), "full_name": slug, "city": "B", "country_code": "DE"});
        for _ in 0..3 {
            let (status, answer) =
                http(server.port, "GET", "/v1/data/orders", &token, &Value::Null).unwrap();
            assert_eq!((status, answer), (200, json!([])));
        }
        let (status, answer) =
            http(server.port, "POST", "/v1/data/customers", &token, &customer).unwrap();
        assert_eq!(status, 201, "{answer}");
        let (_, answer) =
            http(server.port, "GET", "/v1/data/customers?select=full_name", &token, &Value::Null)
                .unwrap();
        assert_eq!(answer, json!([{"full_name": slug}]));
    }
    // Everything to this PostgreSQL but the test itself is encrypted, and the pooler is in between.
    let how = "SELECT s.ssl, a.usename::text FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
        WHERE a.datname = $1 AND a.usename LIKE 'freehold%'";
    let name = database.superuser_url().rsplit_once('/').unwrap().1.to_owned();
    fleet.close();
    drop(fleet);
    let admin = connect(&place.server.superuser_url("postgres")).await;
    let rows = admin.query(how, &[&name]).await.unwrap();
    let encrypted = rows.iter().filter(|row| row.get::<_, bool>(0)).count();
    assert!(encrypted >= 2, "{encrypted} of {}", rows.len());
    // Whether there is a pooler is found out by settings that one refuses.
    let said = pooler.said().to_lowercase();
    let mut said = said.lines().filter(|line| !line.contains("unsupported startup parameter"));
    assert!(said.all(|line| !line.contains("error")), "{}", pooler.said());
    server.running.stop();
    pooler.kill();
    drop((sql, admin, database));
    place.server.stop().await.unwrap();
}

/// Every variable that the program reads.
pub(crate) fn known_settings() -> BTreeSet<String> {
    let env = [("DATABASE_URL", "postgres://h/d"), ("JWT_SECRET", "of no use")];
    let listed = freehold(&["config"], &env).ended(0).stdout();
    let mut known: BTreeSet<_> = listed
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    for command in [&["init"][..], &["tenant", "create"], &["migrate", "up"], &["dev"]] {
        let help = freehold(&[command, &["--help"]].concat(), &[]).ended(0).stdout();
        // Long lines are wrapped.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let named = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
        known.extend(named.map(str::to_owned));
    }
    assert!(known.len() > 40, "{known:?}");
    known
}

#[test]
fn every_setting_in_what_is_shipped_is_one_that_the_program_reads() {
    let known = known_settings();
    let compose = shipped("compose.yaml");
    let of_servers = compose.split("environment: &settings").nth(1).unwrap();
    let of_servers = of_servers.split("stop_grace_period").next().unwrap();
    let of_init = compose.split("command: [init").nth(1).unwrap().split("volumes:").next().unwrap();
    let mut set: Vec<String> = Vec::new();
    for text in [of_servers, of_init] {
        let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
        set.extend(lines.map(|(name, _)| name.to_owned()).filter(|name| is_a_variable(name)));
    }
    let (env, unit) = (shipped("kubernetes/base/settings.env"), shipped("freehold.service"));
    set.extend(settings(&env).into_iter().map(|(name, _)| name));
    let of_unit = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
    for pair in of_unit.flat_map(str::split_whitespace) {
        set.push(pair.split('=').next().unwrap().to_owned());
    }
    assert!(set.len() > 20, "{set:?}");
    let unknown: Vec<_> = set.iter().filter(|name| !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "deploy/ sets what nobody reads: {unknown:?}");
}

/// Upper case with an underscore, as most settings are written.
pub(crate) fn is_a_variable(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(plain)
}

/// Runs a program that says whether a file is as it must be.
fn is_sound(program: &str, arguments: &[&str]) {
    let folder = project().join("deploy/compose");
    let output = Command::new(program).args(arguments).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_the_containers_of_compose_mount_is_sound() {
    let known = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/opt/homebrew/bin/haproxy"];
    let haproxy = known.into_iter().find(|path| std::path::Path::new(path).exists());
    is_sound(haproxy.unwrap_or("haproxy"), &["-c", "-f", "haproxy.cfg"]);
    is_sound("promtool", &["check", "config", "--syntax-only", "prometheus.yml"]);
    is_sound("sh", &["-n", "replication.sh"]);
    // Two copies of one configuration, which differ in where the servers are.
    let rest = |text: &str| {
        let place = ["bind ", "server ", "default-server ", "parse-resolv-conf", "resolvers ", "#"];
        let kept = text.lines().map(str::trim).filter(|line| !line.is_empty());
        kept.filter(|line| !place.iter().any(|word| line.starts_with(word)))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(rest(&shipped("haproxy.cfg")), rest(&shipped("compose/haproxy.cfg")));
}
