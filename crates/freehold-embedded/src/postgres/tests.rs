//! Tests against real servers, with as few runs of initdb (1 to 2 s each) as possible.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::*;

/// Speed over durability, as in every test; a test that kills overrides this.
const FAST: [(&str, &str); 3] =
    [("fsync", "off"), ("full_page_writes", "off"), ("shared_buffers", "16MB")];

/// A folder for one test, through which another user may pass; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("freehold {name} {}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn start(dir: &Path) -> (Result<EmbeddedPostgres, StartError>, Vec<String>) {
    start_with(dir, &FAST).await
}

async fn start_with(
    dir: &Path,
    settings: &[(&str, &str)],
) -> (Result<EmbeddedPostgres, StartError>, Vec<String>) {
    let said = Mutex::new(Vec::new());
    let options = Options { dir, bin: None, settings };
    let starting =
        EmbeddedPostgres::start(options, |line| said.lock().unwrap().push(line.to_owned()));
    can_be_spawned(&starting);
    let result = starting.await;
    (result, said.into_inner().unwrap())
}

fn can_be_spawned(_: &impl Send) {}

async fn client(postgres: &EmbeddedPostgres) -> tokio_postgres::Client {
    let url = postgres.superuser_url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Adds a row, which is on disk when this returns.
async fn add_row(postgres: &EmbeddedPostgres) {
    let sql = "SET synchronous_commit = on; CREATE TABLE IF NOT EXISTS kept (n int); \
               INSERT INTO kept VALUES (1)";
    client(postgres).await.batch_execute(sql).await.unwrap();
}

async fn rows(postgres: &EmbeddedPostgres) -> i64 {
    client(postgres).await.query_one("SELECT count(*) FROM kept", &[]).await.unwrap().get(0)
}

/// Leaves what a kill of the program leaves: the server, and a released lock.
fn leave_as_if_killed(postgres: EmbeddedPostgres) -> u32 {
    let pid = postgres.postmaster.pid();
    std::mem::forget(postgres.postmaster);
    drop(postgres.folder);
    pid
}

/// The relative path to `path` from here.
fn relative(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap();
    let up = here.components().filter(|part| matches!(part, Component::Normal(_))).count();
    let down = path.strip_prefix("/").unwrap();
    std::iter::repeat_n("..", up).collect::<PathBuf>().join(down)
}

#[tokio::test]
async fn a_server_and_its_data_survive_stops_kills_and_a_taken_port() {
    let folder = Folder::new("life");
    let dir = folder.0.join("pg");

    // Left by an initdb that was killed.
    let half = dir.join("data.tmp-0123");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("PG_VERSION"), "15\n").unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();

    let (first, said) = start(&dir).await;
    let first = first.unwrap();
    assert!(said.iter().any(|line| line.contains("creating a private PostgreSQL")), "{said:?}");
    assert!(!half.exists());
    assert_eq!(fs::metadata(dir.join("password")).unwrap().mode() & 0o777, 0o600);
    add_row(&first).await;
    let port = first.port();

    // Only one owner is possible.
    let message = start(&dir).await.0.unwrap_err().to_string();
    assert!(message.contains(&format!("already running, pid {}", std::process::id())), "{message}");
    let refused = reset(&dir).await.unwrap_err();
    assert!(matches!(refused, StartError::AlreadyRunning { .. }), "{refused}");

    // Ctrl-C in a terminal reaches our process group, which is not the server's.
    #[cfg(target_os = "linux")]
    {
        let pid = first.postmaster.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let group = stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().to_owned();
        assert_eq!(group, pid.to_string());
    }
    first.stop().await.unwrap();

    // A restart prints nothing, as it is quick, and uses the same port; a relative path is the same folder.
    let (second, said) = start(&relative(&dir)).await;
    let second = second.unwrap();
    assert_eq!((second.port(), said), (port, vec![]));
    assert_eq!(rows(&second).await, 1);
    add_row(&second).await;

    // The program is killed: its server still runs, and is found.
    let orphan = leave_as_if_killed(second);
    let (third, said) = start(&dir).await;
    let third = third.unwrap();
    assert!(said.iter().any(|line| line.contains(&format!("pid {orphan}"))), "{said:?}");
    assert_eq!((third.port(), rows(&third).await), (port, 2));
    add_row(&third).await;

    // The server is killed too, while one of its backends is too busy to notice.
    let busy = client(&third).await;
    let forever = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$";
    let busy = tokio::spawn(async move { busy.batch_execute(forever).await });
    let loops =
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'";
    let eyes = client(&third).await;
    while eyes.query_one(loops, &[]).await.unwrap().get::<_, i64>(0) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let account = Account::owning(third.data_dir()).unwrap();
    let dead = leave_as_if_killed(third);
    process::signal(&account, dead, "KILL").unwrap();
    let (fourth, _) = start(&dir).await;
    let fourth = fourth.unwrap();
    assert!(busy.await.unwrap().is_err());
    assert_eq!((fourth.port(), rows(&fourth).await), (port, 3));
    fourth.stop().await.unwrap();

    // Another program takes its port: the server moves to another one, and stays there.
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (fifth, said) = start(&dir).await;
    let fifth = fifth.unwrap();
    assert_ne!(fifth.port(), port);
    assert!(said.iter().any(|line| line.contains("is taken")), "{said:?}");
    assert_eq!(fs::read_to_string(dir.join("port")).unwrap(), fifth.port().to_string());
    drop(taken);

    // A panic or a lost handle stops the server.
    let (data, pid) = (fifth.data_dir().to_owned(), fifth.postmaster.pid());
    drop(fifth);
    assert_eq!(process::arguments(pid), None);
    assert!(!data.join("postmaster.pid").exists());

    // A server that cannot start reports why.
    let message = start_with(&dir, &[("shared_buffers", "much")]).await.0.unwrap_err().to_string();
    assert!(message.contains("invalid value for parameter \"shared_buffers\""), "{message}");

    // Data of a version that is not installed.
    fs::write(data.join("PG_VERSION"), "99\n").unwrap();
    let message = start(&dir).await.0.unwrap_err().to_string();
    assert!(message.contains("made by PostgreSQL 99") && message.contains("--reset"), "{message}");

    reset(&dir).await.unwrap();
    let left: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[tokio::test]
async fn where_the_server_cannot_live_its_data_is_elsewhere_and_found_again() {
    let folder = Folder::new("elsewhere");
    // As root: a folder that the server's user cannot enter. As another user: a path that is too long.
    let root = account::effective_uid().unwrap() == 0;
    let dir = if root {
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).unwrap();
        folder.0.join("pg")
    } else {
        (0..5).fold(folder.0.clone(), |path, _| path.join("d".repeat(200))).join("pg")
    };
    let (first, said) = start(&dir).await;
    let first = first.unwrap();
    let home = first.data_dir().parent().unwrap().to_owned();
    assert_eq!(home.parent(), Some(Path::new("/var/tmp")));
    assert!(said.iter().any(|line| line.contains(home.to_str().unwrap())), "{said:?}");
    assert_eq!(fs::metadata(&home).unwrap().mode() & 0o777, if root { 0o711 } else { 0o700 });
    add_row(&first).await;

    // The folder is deleted while the server runs: still only one owner.
    fs::remove_dir_all(&dir).unwrap();
    let refused = start(&dir).await.0.unwrap_err();
    assert!(matches!(refused, StartError::AlreadyRunning { .. }), "{refused}");
    first.stop().await.unwrap();

    // If the folder was deleted, the server starts over; if it was moved, the data move along.
    let (second, _) = start(&dir).await;
    let second = second.unwrap();
    assert_eq!(second.data_dir(), home.join("data"));
    assert!(client(&second).await.query("SELECT FROM kept", &[]).await.is_err());
    add_row(&second).await;
    second.stop().await.unwrap();
    let moved = dir.with_file_name("moved");
    fs::rename(&dir, &moved).unwrap();
    let (third, said) = start(&moved).await;
    let third = third.unwrap();
    assert_eq!((rows(&third).await, said), (1, vec![]));
    third.stop().await.unwrap();

    // A copy does not share the data.
    fs::create_dir(&dir).unwrap();
    fs::copy(moved.join("location"), dir.join("location")).unwrap();
    let mut copy = DataFolder::open(&dir).unwrap();
    copy.follow(&mut |_: &str| {}).unwrap();
    assert_eq!((copy.home(), dir.join("location").exists()), (dir.as_path(), false));

    reset(&moved).await.unwrap();
    assert!(!home.exists());
}

#[tokio::test]
async fn two_starts_at_once_have_one_winner() {
    let folder = Folder::new("race");
    let dir = folder.0.join("pg");
    let (one, two) = tokio::join!(start(&dir), start(&dir));
    let (won, lost): (Vec<_>, Vec<_>) = [one.0, two.0].into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 1));
    assert!(matches!(lost[0], Err(StartError::AlreadyRunning { .. })));
}

#[tokio::test]
async fn settings_that_would_break_the_file_are_refused() {
    let folder = Folder::new("settings");
    for setting in [("a b", "1"), ("", "1"), ("work_mem", "1\nfsync = off")] {
        let error = start_with(&folder.0, &[setting]).await.0.unwrap_err();
        assert!(matches!(error, StartError::Setting { .. }), "{error}");
    }
}

#[test]
fn a_lock_that_is_a_link_is_not_followed() {
    let folder = Folder::new("link");
    let precious = folder.0.join("precious");
    fs::write(&precious, "kept").unwrap();
    std::os::unix::fs::symlink(&precious, folder.0.join("lock")).unwrap();
    assert!(DataFolder::open(&folder.0).is_err());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
}
