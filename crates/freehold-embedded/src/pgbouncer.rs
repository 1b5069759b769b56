//! A private PgBouncer in front of a server, for the proof and for tests: in transaction mode, with so few
//! connections to the server that different tenants constantly use the same ones.
//!
//! It is restarted whenever it ends, as a supervisor does in production: PgBouncer before 1.20.1 may end with
//! `server in bad state` when many queries are cancelled (its issue 822).

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use uuid::Uuid;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connections to the server, for all clients together.
const SERVER_CONNECTIONS: usize = 4;
const START_MAX: Duration = Duration::from_secs(10);
/// The pause before a restart.
const RESTART_AFTER: Duration = Duration::from_millis(200);
/// PgBouncer refuses to run as root; then it runs as the first of these accounts that exists.
const ACCOUNTS: [&str; 3] = ["pgbouncer", "postgres", "nobody"];

/// A running PgBouncer. It ends with this value.
pub struct PgBouncer {
    /// Owns the process, which ends with it.
    keeper: JoinHandle<()>,
    restarts: Arc<AtomicU64>,
    folder: PathBuf,
    url: String,
    version: String,
}

impl PgBouncer {
    /// Starts a PgBouncer in front of the server of `app_url`, for its user and any database, on a free port
    /// of 127.0.0.1.
    ///
    /// # Errors
    /// If `pgbouncer` is not installed, or does not start.
    pub async fn start(app_url: &str) -> Result<PgBouncer, Failure> {
        let (program, version) = find().await.ok_or(
            "there is no pgbouncer here: install it (Debian: apt-get install pgbouncer), or name \
             one that runs with --pooler-url",
        )?;
        let app: Config = app_url.parse()?;
        let folder =
            std::env::temp_dir().join(format!("freehold-pgbouncer-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let account = account_to_become(&folder)?;
        let written =
            [("users.txt", users(&app)?), ("pgbouncer.ini", settings(&app, port, &folder)?)];
        for (name, text) in written {
            write_for(&folder.join(name), &text, account.as_ref())?;
        }
        let mut command = Command::new(program);
        if let Some(account) = &account {
            chown(&folder, Some(account.uid), Some(account.gid))?;
            command.arg("-u").arg(&account.name);
        }
        let log = fs::File::create(folder.join("pgbouncer.log"))?;
        command
            .arg(folder.join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        if let Err(failure) = wait_until_up(&mut child, port, &folder).await {
            let _ = fs::remove_dir_all(&folder);
            return Err(failure);
        }
        let restarts = Arc::new(AtomicU64::new(0));
        let keeper = tokio::spawn(keep(child, command, Arc::clone(&restarts)));
        Ok(PgBouncer { keeper, restarts, folder, url: by_port(app_url, port), version })
    }

    /// How often it ended and was restarted.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// The URL of the same user and database through this pooler.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The host and port on which it listens.
    pub fn address(&self) -> String {
        let authority = self.url.split('@').nth(1).unwrap_or_default();
        authority.split('/').next().unwrap_or_default().to_owned()
    }

    /// The version that it reports.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.keeper.abort();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

async fn wait_until_up(child: &mut Child, port: u16, folder: &Path) -> Result<(), Failure> {
    let began = Instant::now();
    while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
        if child.try_wait()?.is_some() || began.elapsed() > START_MAX {
            let log = fs::read_to_string(folder.join("pgbouncer.log")).unwrap_or_default();
            return Err(format!("pgbouncer does not come up: {log}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Restarts it whenever it has ended, until that is no longer possible.
async fn keep(mut child: Child, mut command: Command, restarts: Arc<AtomicU64>) {
    while child.wait().await.is_ok() {
        tokio::time::sleep(RESTART_AFTER).await;
        match command.spawn() {
            Ok(another) => child = another,
            Err(_) => return,
        }
        restarts.fetch_add(1, Ordering::Relaxed);
    }
}

/// Finds it in PATH, or in folders that only root's PATH contains, as on Debian; and its version.
async fn find() -> Option<(&'static str, String)> {
    for program in ["pgbouncer", "/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer"] {
        if let Ok(output) = Command::new(program).arg("--version").output().await {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let version = text.lines().next().unwrap_or("PgBouncer");
            return Some((program, version.to_owned()));
        }
    }
    None
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

/// The account to run as; `None` for an ordinary user, which shows in the owner of the files that it creates.
fn account_to_become(folder: &Path) -> Result<Option<Account>, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    if fs::metadata(folder)?.uid() != 0 {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    let entry = |wanted: &&str| {
        passwd.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            (name == *wanted).then(|| Some((name.to_owned(), uid.parse().ok()?, gid.parse().ok()?)))
        })?
    };
    let found = ACCOUNTS.iter().find_map(entry);
    let (name, uid, gid) =
        found.ok_or("pgbouncer does not run as root, and there is no other user")?;
    Ok(Some(Account { name, uid, gid }))
}

fn write_for(path: &Path, text: &str, account: Option<&Account>) -> Result<(), Failure> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    if let Some(account) = account {
        chown(path, Some(account.uid), Some(account.gid))?;
    }
    Ok(())
}

/// The URL's user, and freehold_catalog with the same password, since a server connects as both.
fn users(app: &Config) -> Result<String, Failure> {
    let user = app.get_user().ok_or("the URL names no user")?;
    let password = app.get_password().ok_or("the URL has no password")?;
    let password = String::from_utf8_lossy(password).replace('"', "\"\"");
    let line = |user| format!("\"{user}\" \"{password}\"\n");
    Ok([user, "freehold_catalog"].map(line).concat())
}

fn settings(app: &Config, port: u16, folder: &Path) -> Result<String, Failure> {
    let host = match app.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "127.0.0.1".to_owned(),
    };
    let server_port = app.get_ports().first().copied().unwrap_or(5432);
    let mut text = format!("[databases]\n* = host={host} port={server_port}\n\n[pgbouncer]\n");
    let users = folder.join("users.txt");
    for (name, value) in [
        ("listen_addr", "127.0.0.1".to_owned()),
        ("listen_port", port.to_string()),
        ("unix_socket_dir", String::new()),
        ("auth_type", "scram-sha-256".to_owned()),
        ("auth_file", users.display().to_string()),
        ("pool_mode", "transaction".to_owned()),
        ("default_pool_size", SERVER_CONNECTIONS.to_string()),
        ("max_client_conn", "1000".to_owned()),
        ("server_tls_sslmode", "prefer".to_owned()),
        // After a failed login, PgBouncer refuses all clients for this long; the default is 15 s.
        ("server_login_retry", "1".to_owned()),
        ("ignore_startup_parameters", "extra_float_digits".to_owned()),
        ("log_connections", "0".to_owned()),
        ("log_disconnections", "0".to_owned()),
    ] {
        let _ = writeln!(text, "{name} = {value}");
    }
    Ok(text)
}

/// The same URL with another port on this machine.
fn by_port(url: &str, port: u16) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    format!("{scheme}://{user}@127.0.0.1:{port}{}", path.split('?').next().unwrap_or(path))
}
