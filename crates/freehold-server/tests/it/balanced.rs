//! HAProxy with the shipped configuration in front of two servers, and clients that keep connections.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Folder, Running, http};
use crate::support::project;

const SOON: Duration = Duration::from_secs(60);

/// A client that keeps its connection, as browsers and services do.
pub(crate) struct Client {
    port: u16,
    pub(crate) token: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub(crate) fn new(port: u16, token: String) -> Client {
        Client { port, token, stream: None }
    }

    /// An answer's status and body. The client reconnects only if the previous answer asked for it. `headers`
    /// are whole lines.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port))?;
                stream.set_read_timeout(Some(SOON))?;
                BufReader::new(stream)
            }
        };
        let (token, length) = (&self.token, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_lowercase();
        let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest);
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        if !head.contains("connection: close") {
            self.stream = Some(stream);
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, String::from_utf8(body).unwrap()))
    }
}

/// A balancer of connections, such as a Service of Kubernetes: a client stays with its server until that
/// server asks it to reconnect.
const LAYER_4: &str = "
frontend layer4
    mode tcp
    bind 127.0.0.1:8004
    default_backend layer4
backend layer4
    mode tcp
    balance roundrobin
    option httpchk
    http-check send meth GET uri /readyz
    http-check expect status 200
    default-server check inter 500ms fall 2 rise 2
    server one 127.0.0.1:8081
    server two 127.0.0.1:8082
";

/// HAProxy with the shipped configuration, on ports of this test's own, and the other balancer.
pub(crate) fn balance(folder: &Folder, fronts: [u16; 2], servers: [u16; 2]) -> Running {
    let shipped = std::fs::read_to_string(project().join("deploy/haproxy.cfg")).unwrap();
    let mut settings = shipped + LAYER_4;
    for (written, port) in
        [(8000, fronts[0]), (8004, fronts[1]), (8081, servers[0]), (8082, servers[1])]
    {
        let written = format!("127.0.0.1:{written}");
        assert!(settings.contains(&written), "{written} is not in deploy/haproxy.cfg");
        settings = settings.replace(&written, &format!("127.0.0.1:{port}"));
    }
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, settings).unwrap();
    let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/opt/homebrew/bin/haproxy"];
    let program = program.into_iter().find(|path| std::path::Path::new(path).exists());
    let mut command = Command::new(program.unwrap_or("haproxy"));
    command.arg("-db").arg("-f").arg(file);
    let haproxy = Running::spawn(command);
    fronts.into_iter().for_each(wait_until_ready);
    haproxy
}

pub(crate) fn wait_until_ready(port: u16) {
    let began = Instant::now();
    let mut answer = http(port, "GET", "/readyz", "", &Value::Null);
    while !answer.as_ref().is_ok_and(|(status, _)| *status == 200) {
        assert!(began.elapsed() < SOON, "the server at {port} is not ready: {answer:?}");
        thread::sleep(Duration::from_millis(20));
        answer = http(port, "GET", "/readyz", "", &Value::Null);
    }
}

/// Until HAProxy says that it sends requests to a server again, which it had taken out.
pub(crate) fn wait_until_taken_in(haproxy: &Running, server: &str) {
    let began = Instant::now();
    let is_up = |backend: &str| {
        let said = haproxy.said();
        let last = said.rsplit_once(&format!("Server {backend}/{server} is "));
        last.is_some_and(|(_, state)| state.starts_with("UP"))
    };
    while !["servers", "layer4"].into_iter().all(is_up) {
        assert!(began.elapsed() < SOON, "{server} is not taken in: {}", haproxy.said());
        thread::sleep(Duration::from_millis(20));
    }
}
