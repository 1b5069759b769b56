//! A minimal HTTP/1.1 client for the proof: it sees the raw bytes of an answer, and can disconnect in the
//! middle of a request.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The service answers within 60 s, at least with a timeout.
const ANSWER_MAX: Duration = Duration::from_secs(90);
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// A connection that was idle for longer is not used again: the service may be about to close it.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// A connection to the service, opened on demand and kept.
pub(crate) struct Wire {
    address: SocketAddr,
    kept: Option<(TcpStream, Instant)>,
}

/// An answer, as received.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line, headers and body.
    pub(crate) bytes: Vec<u8>,
    head: usize,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

impl Answer {
    pub(crate) fn head(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.head]).unwrap_or_default()
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The stable code of an error.
    pub(crate) fn code(&self) -> String {
        serde_json::from_slice::<Problem>(self.body())
            .map_or_else(|_| format!("http_{}", self.status), |problem| problem.code)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(self.head(), name)
    }

    /// The number of rows that it states, and the total, if requested.
    pub(crate) fn rows(&self) -> Option<(u64, Option<u64>)> {
        let (range, total) = self.header("content-range")?.split_once('/')?;
        let rows = match range.split_once('-') {
            Some((first, last)) => {
                last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)?
            }
            None => 0,
        };
        Some((rows, total.parse().ok()))
    }

    /// Everything by which a caller could distinguish it from another answer.
    pub(crate) fn shape(&self) -> String {
        let mut lines: Vec<_> = self
            .head()
            .lines()
            .filter(|line| {
                let name = line.split(':').next().unwrap_or_default();
                !name.eq_ignore_ascii_case("date") && !name.eq_ignore_ascii_case("x-request-id")
            })
            .collect();
        lines.sort_unstable();
        format!("{}\n{}", lines.join("\n"), String::from_utf8_lossy(self.body()))
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (given, value) = line.split_once(':')?;
        given.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A request, ready to be sent.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
    };
    format!("{method} {path} HTTP/1.1\r\nHost: prove\r\n{headers}{content}\r\n{body}").into_bytes()
}

impl Wire {
    pub(crate) fn to(address: SocketAddr) -> Wire {
        Wire { address, kept: None }
    }

    async fn stream(&mut self) -> io::Result<TcpStream> {
        if let Some((stream, since)) = self.kept.take()
            && since.elapsed() < IDLE_MAX
        {
            return Ok(stream);
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<Answer> {
        let mut stream = self.stream().await?;
        let exchange = async {
            stream.write_all(request).await?;
            receive(&mut stream).await
        };
        let answer = tokio::time::timeout(ANSWER_MAX, exchange).await??;
        if !answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.kept = Some((stream, Instant::now()));
        }
        Ok(answer)
    }

    /// Sends the first `bytes` of a request, waits, and disconnects; returns the answer if it came before
    /// that.
    pub(crate) async fn abandon(
        &mut self,
        request: &[u8],
        bytes: usize,
        patience: Duration,
    ) -> io::Result<Option<Answer>> {
        let mut stream = self.stream().await?;
        stream.write_all(&request[..bytes.min(request.len())]).await?;
        match tokio::time::timeout(patience, receive(&mut stream)).await {
            Ok(answer) => Ok(Some(answer?)),
            // The stream closes here.
            Err(_) => Ok(None),
        }
    }
}

async fn receive(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::with_capacity(4096);
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, &mut bytes).await?;
    };
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the answer is malformed");
    let text = std::str::from_utf8(&bytes[..head]).map_err(|_| malformed())?;
    let status: u16 =
        text.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    let length: usize = match header(text, "content-length") {
        Some(length) => length.parse().map_err(|_| malformed())?,
        None => 0,
    };
    while bytes.len() < head + length {
        more(stream, &mut bytes).await?;
    }
    if bytes.len() > head + length {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "more came than the answer's length says",
        ));
    }
    Ok(Answer { status, bytes, head })
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    if bytes.len() > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer has no end"));
    }
    match stream.read_buf(bytes).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the service closed the connection")),
        _ => Ok(()),
    }
}
