//! Tracks where requests begin and end in the bytes of a connection: enough to detect a head that states its
//! length in two ways.
//!
//! A head with both `Content-Length` and `Transfer-Encoding` is how requests are smuggled past a proxy that
//! believes the other header. hyper uses the second, ignores the first and closes after its answer; RFC 9112,
//! 6.1, permits refusing such a request, and this server does. So the bytes are followed from head to head.
//! Other malformed requests are refused by hyper, so nothing after one is tracked.

/// Enough of a line to recognise the two headers. Their values do not matter here.
const LINE_BYTES_KEPT: usize = 64;

pub(super) struct Framing {
    state: State,
    /// The beginning of a line that has not ended yet.
    line: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a head, with what it has stated about its body so far.
    Head {
        began: bool,
        length: Option<u64>,
        chunked: bool,
    },
    /// This many bytes of a body, or of a chunk and its end, are outstanding.
    Bytes {
        left: u64,
        chunked: bool,
    },
    ChunkSize,
    /// After the last chunk.
    Trailer,
    /// The rest is left to hyper.
    Lost,
}

const HEAD: State = State::Head { began: false, length: None, chunked: false };

impl Framing {
    pub(super) fn new() -> Framing {
        Framing { state: HEAD, line: Vec::new() }
    }

    /// Follows bytes that have arrived. If a head ends that contains both headers, its last byte is replaced
    /// by one that no head may contain: hyper answers 400 and closes.
    pub(super) fn follow(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Lost => return,
                State::Bytes { left, chunked } => {
                    let now = left.min((bytes.len() - at) as u64);
                    at += now as usize;
                    self.state = match (left - now, chunked) {
                        (0, true) => State::ChunkSize,
                        (0, false) => HEAD,
                        (left, _) => State::Bytes { left, chunked },
                    };
                }
                State::Head { .. } | State::ChunkSize | State::Trailer => {
                    let end = bytes[at..].iter().position(|byte| *byte == b'\n');
                    let line = &bytes[at..end.map_or(bytes.len(), |end| at + end)];
                    let kept = LINE_BYTES_KEPT.saturating_sub(self.line.len()).min(line.len());
                    self.line.extend_from_slice(&line[..kept]);
                    let Some(end) = end else { return };
                    at += end + 1;
                    let line = std::mem::take(&mut self.line);
                    match self.end_line(line.strip_suffix(b"\r").unwrap_or(&line)) {
                        Some(state) => self.state = state,
                        None => {
                            bytes[at - 1] = 0;
                            self.state = State::Lost;
                        }
                    }
                }
            }
        }
    }

    /// The state after a line; `None` after a head that is to be refused.
    fn end_line(&self, line: &[u8]) -> Option<State> {
        let text = std::str::from_utf8(line).unwrap_or_default();
        Some(match self.state {
            State::Head { began: false, .. } if line.is_empty() => HEAD,
            State::Head { length: Some(_), chunked: true, .. } if line.is_empty() => return None,
            State::Head { chunked: true, .. } if line.is_empty() => State::ChunkSize,
            State::Head { length, .. } if line.is_empty() => after_bytes(length.unwrap_or(0)),
            State::Head { began, length, chunked } => {
                let (name, value) = text.split_once(':').unwrap_or_default();
                let is = |header: &str| began && name.eq_ignore_ascii_case(header);
                match value.trim().parse() {
                    Ok(number) if is("content-length") => {
                        State::Head { began: true, length: Some(number), chunked }
                    }
                    _ if is("content-length") => State::Lost,
                    _ => State::Head {
                        began: true,
                        length,
                        chunked: chunked || is("transfer-encoding"),
                    },
                }
            }
            State::ChunkSize => {
                let size = text.split(';').next().unwrap_or_default().trim();
                match u64::from_str_radix(size, 16) {
                    Ok(0) => State::Trailer,
                    // Includes the end of the line.
                    Ok(size) => State::Bytes { left: size.saturating_add(2), chunked: true },
                    Err(_) => State::Lost,
                }
            }
            State::Trailer if line.is_empty() => HEAD,
            state => state,
        })
    }
}

fn after_bytes(left: u64) -> State {
    match left {
        0 => HEAD,
        left => State::Bytes { left, chunked: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is refused, wherever the bytes are split.
    fn is_refused(text: &str) -> bool {
        let mut verdicts = Vec::new();
        for size in 1..=text.len() {
            let mut framing = Framing::new();
            let mut bytes = text.as_bytes().to_vec();
            bytes.chunks_mut(size).for_each(|chunk| framing.follow(chunk));
            verdicts.push(bytes != text.as_bytes());
        }
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{text}");
        verdicts[0]
    }

    #[test]
    fn a_head_with_both_headers_is_refused_wherever_it_stands() {
        let both =
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
        let other =
            "POST / HTTP/1.1\r\ntransfer-encoding:gzip, chunked\r\nCONTENT-LENGTH:0\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for refused in [both, other] {
            assert!(is_refused(refused), "{refused}");
            for before in [
                "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
                "\r\nGET / HTTP/1.1\n\n".to_owned(),
                "POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n1234\r\n\r".to_owned(),
                format!("{chunked}0\r\n\r\n"),
                format!("{chunked}5;x=y\r\n\r\n\r\n\n\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n"),
            ] {
                assert!(!is_refused(&before), "{before}");
                assert!(is_refused(&format!("{before}{refused}")), "{before}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_it_is_taken() {
        let inner = "X: y\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
        let length = inner.len();
        for taken in [
            format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{inner}"),
            format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"
            ),
            "GET /?Content-Length:4 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nX: Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "Content-Length: 4".repeat(100)),
        ] {
            assert!(!is_refused(&taken), "{taken}");
        }
    }
}
