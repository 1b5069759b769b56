//! A small PostgreSQL for one test, and real streaming replicas of it, to be paused, killed, promoted and
//! restarted.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use freehold::Baseline;
use freehold::testing::TestDatabase;
use freehold_embedded::postgres::{EmbeddedPostgres, Options};
use tokio_postgres::{Client, NoTls};

use crate::process::{Folder, free_port};
use crate::support::connect;

/// How long a server may take to come up, on a busy machine.
const UP_MAX: Duration = Duration::from_secs(60);

/// A primary.
pub(crate) struct Primary {
    server: EmbeddedPostgres,
    folder: Folder,
}

impl Primary {
    pub(crate) async fn start() -> Primary {
        let folder = Folder::new();
        let bin = std::env::var_os("FREEHOLD_PG_BIN").map(PathBuf::from);
        let options = Options {
            dir: &folder.path().join("primary"),
            bin: bin.as_deref(),
            settings: &[
                ("fsync", "off"),
                ("synchronous_commit", "on"),
                ("shared_buffers", "16MB"),
                ("wal_level", "replica"),
            ],
        };
        let server = EmbeddedPostgres::start(options, |_| {}).await.unwrap();
        Primary { server, folder }
    }

    pub(crate) async fn database(&self, baseline: &Baseline) -> TestDatabase {
        TestDatabase::create(&self.server.superuser_url("postgres"), baseline).await.unwrap()
    }

    /// A replica of all that is here.
    pub(crate) async fn replica(&self) -> Replica {
        self.replica_in(self.folder()).await
    }

    pub(crate) async fn replica_in(&self, folder: &Path) -> Replica {
        let from = self.server.superuser_url("postgres");
        Replica::of(&from, self.server.data_dir(), folder).await
    }

    /// Where replicas live, too.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A streaming replica. Killed when it is dropped.
pub(crate) struct Replica {
    postmaster: Option<Child>,
    data: PathBuf,
    bin: PathBuf,
    account: (u32, u32),
    pub(crate) port: u16,
    /// To the server that it was copied from.
    from: String,
}

impl Replica {
    async fn of(from: &str, data_of_from: &Path, folder: &Path) -> Replica {
        let meta = fs::metadata(data_of_from).unwrap();
        let account = (meta.uid(), meta.gid());
        let started_by = fs::read_to_string(data_of_from.join("postmaster.opts")).unwrap();
        let postgres = started_by.split(" \"").next().unwrap().trim();
        let bin = Path::new(postgres).parent().unwrap().to_owned();
        let port = free_port();
        let data = folder.join(format!("replica-{port}"));
        let home = data_of_from.parent().unwrap();
        // The folder of the primary is its account's; the copy's must be as well.
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&data, Some(account.0), Some(account.1)).unwrap();
        let copied = command(&bin.join("pg_basebackup"), account)
            .args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"])
            .args(["--no-sync", "--dbname", from, "--pgdata"])
            .arg(&data)
            .current_dir(home)
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let mut replica =
            Replica { postmaster: None, data, bin, account, port, from: from.to_owned() };
        replica.start().await;
        replica
    }

    /// A replica of this one.
    pub(crate) async fn replica_in(&self, folder: &Path) -> Replica {
        Replica::of(&self.superuser_url(), &self.data, folder).await
    }

    /// Starts it, also after a kill; returns when it can be read.
    pub(crate) async fn start(&mut self) {
        let began = Instant::now();
        loop {
            let _ = fs::remove_file(self.data.join("postmaster.pid"));
            let log = fs::File::create(self.log()).unwrap();
            let child = command(&self.bin.join("postgres"), self.account)
                .arg("-D")
                .arg(&self.data)
                .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
                .args(["-c", "fsync=off", "-c", "shared_buffers=16MB", "-c", "hot_standby=on"])
                .args(["-c", "max_locks_per_transaction=256", "-c"])
                .arg(format!("port={}", self.port))
                .stderr(log)
                .spawn()
                .unwrap();
            self.postmaster = Some(child);
            if self.comes_up(began).await {
                return;
            }
        }
    }

    /// Starts it if it has ended, and waits for it if it recovers by itself.
    pub(crate) async fn recover(&mut self) {
        let began = Instant::now();
        if !self.comes_up(began).await {
            self.start().await;
        }
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// False if it ended: remains of a killed server may prevent the start.
    async fn comes_up(&mut self, began: Instant) -> bool {
        loop {
            if tokio_postgres::connect(&self.superuser_url(), NoTls).await.is_ok() {
                return true;
            }
            assert!(
                began.elapsed() < UP_MAX,
                "the replica does not come up: {}",
                fs::read_to_string(self.log()).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
            if self.postmaster.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
        }
    }

    /// The same place on this server.
    pub(crate) fn url(&self, url: &str) -> String {
        let (before, rest) = url.rsplit_once("127.0.0.1:").unwrap();
        let (_, path) = rest.split_once('/').unwrap();
        format!("{before}127.0.0.1:{}/{path}", self.port)
    }

    pub(crate) fn superuser_url(&self) -> String {
        self.url(&self.from)
    }

    pub(crate) async fn sql(&self, sql: &str) {
        let client: Client = connect(&self.superuser_url()).await;
        client.batch_execute(sql).await.unwrap();
    }

    /// Pauses its replay from here on.
    pub(crate) async fn pause(&self) {
        self.sql("SELECT pg_wal_replay_pause()").await;
        let client = connect(&self.superuser_url()).await;
        let state = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
        while !client.query_one(state, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn resume(&self) {
        self.sql("SELECT pg_wal_replay_resume()").await;
    }

    /// How far it has the primary's log.
    pub(crate) async fn received(&self) -> i64 {
        let client = connect(&self.superuser_url()).await;
        let received = "SELECT pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(),
            pg_last_wal_replay_lsn()), '0/0')::int8";
        client.query_one(received, &[]).await.unwrap().get(0)
    }

    /// It streams from another from here on.
    pub(crate) async fn follow(&self, primary: &Replica) {
        let url = primary.superuser_url();
        self.sql(&format!("ALTER SYSTEM SET primary_conninfo = '{url}'")).await;
        self.sql("SELECT pg_reload_conf()").await;
    }

    pub(crate) async fn promote(&self) {
        self.sql("SELECT pg_promote(wait => true, wait_seconds => 60)").await;
    }

    /// As if the machine were gone: every process of it at once.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        if let Some(mut postmaster) = self.postmaster.take() {
            postmaster.wait().unwrap();
        }
    }

    /// Like a stop by an operator: sessions are ended, and committed data are sent to replicas.
    pub(crate) fn stop(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        let pid = postmaster.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        postmaster.wait().unwrap();
    }

    /// Keeps its connections open and answers nothing.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let Some(postmaster) = &self.postmaster else { return };
        let parent = postmaster.id().to_string();
        let children = Command::new("ps").args(["-o", "pid=", "--ppid", &parent]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        // The postmaster first, since it would restart processes that end.
        for pid in std::iter::once(parent.as_str()).chain(children.split_whitespace()) {
            let _ = Command::new("kill").args([&format!("-{name}"), pid]).status();
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(program: &Path, (uid, gid): (u32, u32)) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .current_dir("/");
    let own = fs::metadata("/proc/self").map_or(uid, |meta| meta.uid());
    if own != uid {
        command.uid(uid).gid(gid);
    }
    command
}
