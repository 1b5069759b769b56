//! The doctor before a PgBouncer: what it finds out about it by two clients.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use freehold::testing::PASSWORD;

use super::{Fleet, codes, doctor};
use crate::process::{Folder, free_port};
use crate::support::text;

struct PgBouncer {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl PgBouncer {
    /// In front of the test server, with one connection for all clients.
    fn start(fleet: &Fleet, settings: &str) -> PgBouncer {
        let folder = Folder::new();
        let (port, url) = (free_port(), fleet.database.app_url());
        let (server, database) = url.rsplit_once('@').unwrap().1.split_once('/').unwrap();
        let (host, server_port) = server.rsplit_once(':').unwrap_or((server, "5432"));
        let users = folder.path().join("users.txt");
        let ini = format!(
            "[databases]\n{database} = host={host} port={server_port}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = plain\nauth_file = {}\ndefault_pool_size = 1\n{settings}\n",
            users.display()
        );
        std::fs::write(&users, format!("\"freehold_app\" \"{PASSWORD}\"\n")).unwrap();
        std::fs::write(folder.path().join("pgbouncer.ini"), ini).unwrap();
        // A test's password; whoever PgBouncer runs as must read it.
        std::fs::set_permissions(&users, std::fs::Permissions::from_mode(0o644)).unwrap();
        let known =
            ["/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
        let program = known.iter().find(|path| std::path::Path::new(path).exists());
        let mut command = Command::new(program.unwrap_or(&"pgbouncer"));
        if is_root(&folder) {
            command.args(["-u", "nobody"]);
        }
        let child = command
            .arg(folder.path().join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer runs; ./dev test installs it");
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "pgbouncer does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
        PgBouncer { child, port, _folder: folder }
    }

    fn url(&self, fleet: &Fleet) -> String {
        let url = fleet.database.app_url();
        let database = url.rsplit_once('/').unwrap().1;
        format!("postgres://freehold_app:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// PgBouncer does not run as root.
fn is_root(folder: &Folder) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(folder.path()).unwrap().uid() == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_transaction_mode_is_seen_and_what_crosses_it_is_told() {
    let fleet = Fleet::new().await;
    let pooler = PgBouncer::start(&fleet, "pool_mode = transaction\nstats_users = freehold_app");
    let owner = fleet.database.owner_url();
    let report = doctor(&pooler.url(&fleet), &owner, &["--json"]).ended(0).json();
    let found = codes(&report);
    assert!(found.contains(&"FH602".to_owned()), "{report:#}");
    assert!(!found.contains(&"FH601".to_owned()), "{report:#}");
    let shared =
        report["findings"].as_array().unwrap().iter().find(|f| f["code"] == "FH602").unwrap();
    let detail = text(&shared["examples"][0]["detail"]);
    assert!(detail.contains("a setting of the first reached the second"), "{detail}");
    assert_eq!(report["not_checked"], serde_json::json!([]));
    // Nothing of the trial is left for the next client.
    let again = doctor(&pooler.url(&fleet), &owner, &["--json"]).ended(0).json();
    assert_eq!(codes(&again), found);
    // All the rest can be asked through it too.
    let report = doctor(&pooler.url(&fleet), "", &["--json"]).ended(0).json();
    assert_eq!(codes(&report), found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_shows_no_settings_is_not_taken_for_a_good_one() {
    let fleet = Fleet::new().await;
    let pooler = PgBouncer::start(&fleet, "pool_mode = transaction");
    let report = doctor(&pooler.url(&fleet), &fleet.database.owner_url(), &["--json"]).json();
    let missing = report["not_checked"].as_array().unwrap();
    assert_eq!(missing.len(), 1, "{report:#}");
    assert_eq!(missing[0]["code"], "FH603");
    assert!(text(&missing[0]["reason"]).contains("stats_users"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_breaks_transactions_apart_is_critical() {
    let fleet = Fleet::new().await;
    let pooler = PgBouncer::start(&fleet, "pool_mode = statement");
    let report =
        doctor(&pooler.url(&fleet), &fleet.database.owner_url(), &["--json"]).ended(3).json();
    assert!(codes(&report).contains(&"FH601".to_owned()), "{report:#}");
}
