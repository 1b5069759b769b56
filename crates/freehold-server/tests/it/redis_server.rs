//! A Redis for one test, which can be killed, stopped and filled.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use freehold::CacheOptions;
use redis::aio::MultiplexedConnection;
use uuid::Uuid;

use crate::support::eventually;

const START_MAX: Duration = Duration::from_secs(60);

/// It listens on a socket in its own folder, and ends with this value.
pub(crate) struct RedisServer {
    child: Child,
    folder: PathBuf,
}

impl RedisServer {
    pub(crate) async fn start() -> RedisServer {
        let folder =
            std::env::temp_dir().join(format!("freehold-redis-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        let child = spawn(&folder);
        let server = RedisServer { child, folder };
        server.wait_until_up().await;
        server
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A cache that uses it; it may take its time, the machine being busy.
    pub(crate) fn cache(&self) -> CacheOptions {
        CacheOptions {
            redis_url: Some(self.url()),
            redis_timeout: Duration::from_secs(2),
            ..CacheOptions::default()
        }
    }

    async fn wait_until_up(&self) {
        eventually("redis-server answers", START_MAX, async || self.try_connect().await.is_some())
            .await;
    }

    async fn try_connect(&self) -> Option<MultiplexedConnection> {
        let client = redis::Client::open(self.url()).unwrap();
        let patient = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(START_MAX))
            .set_response_timeout(Some(START_MAX));
        let connected = client.get_multiplexed_async_connection_with_config(&patient).await;
        let mut connection = connected.ok()?;
        let pong: Result<String, _> = redis::cmd("PING").query_async(&mut connection).await;
        pong.ok().map(|_| connection)
    }

    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.expect("redis-server answers")
    }

    pub(crate) async fn command<T: redis::FromRedisValue>(&self, words: &[&[u8]]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query_async(&mut self.connect().await).await.unwrap()
    }

    /// The keys of the values of a name, in order. There are others, such as the model's.
    pub(crate) async fn keys(&self, name: &str) -> Vec<String> {
        let pattern = format!("freehold:*:{name}:*");
        let mut keys: Vec<String> = self.command(&[b"KEYS", pattern.as_bytes()]).await;
        keys.sort();
        keys
    }

    /// SIGKILL: unsaved data are lost.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(&self.folder);
        self.wait_until_up().await;
    }

    /// SIGSTOP: connections stay open, and nothing is answered.
    pub(crate) fn stop(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn spawn(folder: &Path) -> Child {
    let socket = folder.join("redis.sock");
    let has = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let program = ["redis-server", "valkey-server"].into_iter().find(has);
    Command::new(program.expect("redis-server is there; ./dev test installs it"))
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
        .arg("--unixsocket")
        .arg(&socket)
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
