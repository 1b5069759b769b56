//! A minimal HTTP/1.1 client for benchmarks: one request after another over one connection, answers with a
//! Content-Length.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Result;

pub(crate) struct HttpConnection {
    stream: TcpStream,
    /// The bytes received of the current answer; kept to reuse its memory.
    received: Vec<u8>,
}

impl HttpConnection {
    pub(crate) async fn open(address: SocketAddr) -> Result<HttpConnection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(HttpConnection { stream, received: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request unchanged, and returns the answer's body. An answer that is not a success is an error.
    pub(crate) async fn send(&mut self, request: &str) -> Result<&[u8]> {
        match self.ask(request).await? {
            (200..=299, body) => Ok(body),
            (_, body) => Err(format!("refused: {}", String::from_utf8_lossy(body)).into()),
        }
    }

    /// Sends a request unchanged, and returns the answer's status and body.
    pub(crate) async fn ask(&mut self, request: &str) -> Result<(u16, &[u8])> {
        self.stream.write_all(request.as_bytes()).await?;
        self.received.clear();
        let head = loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.receive().await?;
        };
        let text = std::str::from_utf8(&self.received[..head])?;
        let length = content_length(text).ok_or("an answer without a length came")?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or("an answer without a status came")?;
        while self.received.len() < head + length {
            self.receive().await?;
        }
        Ok((status, &self.received[head..]))
    }

    async fn receive(&mut self) -> Result<()> {
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }
}

/// A request with a body and without a token.
pub(crate) fn post(path: &str, body: &serde_json::Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn content_length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}
