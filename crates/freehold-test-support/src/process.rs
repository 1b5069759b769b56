//! Programs in separate processes, and HTTP to them over a socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

/// The environment with which a program starts; nothing else of ours is passed on.
pub type Env<'a> = &'a [(&'a str, &'a str)];

/// A program whose environment contains these variables, and what every program needs.
pub fn command(program: &str, arguments: &[&str], env: Env) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(env.iter().copied());
    for kept in ["PATH", "HOME", "FREEHOLD_PG_BIN"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

/// Runs a program to its end.
pub fn run(mut command: Command) -> Ran {
    let asked = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ran { output, asked }
}

/// A program that has ended.
pub struct Ran {
    output: Output,
    asked: String,
}

impl Ran {
    pub fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    /// Fails unless it ended with this code.
    pub fn ended(self, code: i32) -> Ran {
        assert_eq!(self.code(), code, "{}\n{}\n{}", self.asked, self.stdout(), self.stderr());
        self
    }

    /// What it printed, which must be JSON and nothing else.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout())
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.asked, self.stdout()))
    }
}

/// A program that runs. Told to stop, and if need be killed, when it is dropped.
pub struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    listeners: [JoinHandle<()>; 2],
}

impl Running {
    /// Starts the program, and reads its output.
    pub fn spawn(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let listeners = [
            listen(child.stdout.take().unwrap(), &said),
            listen(child.stderr.take().unwrap(), &said),
        ];
        Running { child, said, listeners }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits for a line that contains `text`, and returns it.
    pub fn wait_for(&mut self, text: &str, within: Duration) -> String {
        let began = Instant::now();
        loop {
            if let Some(line) = self.said().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            let late = began.elapsed() > within;
            assert!(ended.is_none() && !late, "no {text:?}, {ended:?}; it said\n{}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        send_signal(self.child.id(), name);
    }

    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.hear_to_the_end();
                return status;
            }
            assert!(began.elapsed() < within, "it does not end; it said\n{}", self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The program may end before its last output is read. A child of it may keep the pipe open for longer,
    /// which is not waited for.
    fn hear_to_the_end(&self) {
        let ended = Instant::now();
        while !self.listeners.iter().all(JoinHandle::is_finished)
            && ended.elapsed() < Duration::from_secs(2)
        {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks it to stop, and requires that it does.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait(Duration::from_secs(15));
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        self.signal("TERM");
        for _ in 0..500 {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(stream: impl io::Read + Send + 'static, said: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let said = Arc::clone(said);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut said = said.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    })
}

/// Sends a request over a new connection; returns the status and the body, `null` if that is not JSON.
pub fn http(
    port: u16,
    method: &str,
    path: &str,
    token: &str,
    body: &Value,
) -> io::Result<(u16, Value)> {
    let bearer = format!("Bearer {token}");
    let authorization = [("Authorization", bearer.as_str())];
    let headers = if token.is_empty() { &[] } else { &authorization[..] };
    http_with(port, method, path, headers, body)
}

/// [`http`] with headers of the caller's choice.
pub fn http_with(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let cut_short = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer is cut short");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut_short)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(cut_short)?, serde_json::from_str(body).unwrap_or_default()))
}

/// A port that is free at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A folder of the test's own that another user may pass through; removed at the end.
pub struct Folder(PathBuf);

impl Default for Folder {
    fn default() -> Folder {
        Folder::new()
    }
}

impl Folder {
    pub fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("freehold-it-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn send_signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// A process of this name that another has started.
pub fn child_of(parent: u32, name: &str) -> Option<u32> {
    std::fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (named, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let (state, started_by) = (fields.next()?, fields.next()?);
        let is_it = named.ends_with(&format!("({name}")) && started_by == parent.to_string();
        (is_it && state != "Z").then_some(pid)
    })
}
