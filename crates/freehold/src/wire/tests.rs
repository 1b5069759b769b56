//! The driver over a socket that buffers, splits and delays messages.

use std::time::Duration;

use bytes::BufMut as _;
use tokio::io::ReadBuf;

use super::*;

/// A server that answers each `SELECT $1` with its parameter, once the whole message was written and flushed.
struct Stubborn {
    /// The most bytes per read and per write.
    bytes: usize,
    /// Every other call returns pending before anything is done.
    delays: bool,
    /// The number of calls of write, flush and read.
    asked: [usize; 3],
    /// Written bytes that reach the server only when they are flushed.
    kept: Vec<u8>,
    seen: Vec<u8>,
    answers: BytesMut,
}

impl Stubborn {
    fn connection(bytes: usize, delays: bool) -> Connection {
        let (kept, seen) = (Vec::new(), Vec::new());
        let answers = BytesMut::new();
        Connection::over(Box::new(Stubborn { bytes, delays, asked: [0; 3], kept, seen, answers }))
    }

    /// Returns pending and wakes the task at once, as a socket does that has become ready.
    fn delay(&mut self, act: usize, cx: &Context<'_>) -> bool {
        self.asked[act] += 1;
        let delays = self.delays && self.asked[act] % 2 == 1;
        if delays {
            cx.waker().wake_by_ref();
        }
        delays
    }

    /// Answers the messages that are complete.
    fn serve(&mut self) {
        while self.seen.len() >= 5 {
            let length = 1 + u32::from_be_bytes(self.seen[1..5].try_into().unwrap()) as usize;
            if self.seen.len() < length {
                return;
            }
            let message: Vec<u8> = self.seen.drain(..length).collect();
            self.answer(message[0], &message[5..]);
        }
    }

    fn answer(&mut self, kind: u8, body: &[u8]) {
        let mut say = |kind: u8, body: &[u8]| {
            self.answers.put_u8(kind);
            self.answers.put_u32(4 + body.len() as u32);
            self.answers.put_slice(body);
        };
        match kind {
            b'P' => say(b'1', b""),
            b'D' => {
                // One parameter and one column, both text.
                say(b't', &[0, 1, 0, 0, 0, 25]);
                say(b'T', b"\0\x01c\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
            }
            b'B' => {
                say(b'2', b"");
                // Portal, statement, one format, one parameter with its length, one format.
                let names =
                    body.iter().enumerate().filter(|(_, byte)| **byte == 0).nth(1).unwrap().0;
                let formats = u16::from_be_bytes(body[names + 1..names + 3].try_into().unwrap());
                let at = names + 5 + 2 * formats as usize;
                let length = u32::from_be_bytes(body[at..at + 4].try_into().unwrap()) as usize;
                let mut row = vec![0, 1];
                row.extend_from_slice(&body[at..at + 4 + length]);
                say(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mby the way\0\0");
                say(b'S', b"application_name\0x\0");
                say(b'D', &row);
                say(b'C', b"SELECT 1\0");
            }
            b'C' => say(b'3', b""),
            b'E' | b'X' => {}
            b'S' => say(b'Z', b"I"),
            b'Q' => {
                say(b'C', b"SELECT 1\0");
                say(b'Z', b"I");
            }
            other => panic!("{}", other as char),
        }
    }
}

impl AsyncWrite for Stubborn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.delay(0, cx) {
            return Poll::Pending;
        }
        let count = bytes.len().min(self.bytes);
        self.kept.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.delay(1, cx) {
            return Poll::Pending;
        }
        let kept = std::mem::take(&mut self.kept);
        self.seen.extend_from_slice(&kept);
        self.serve();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stubborn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Only the server's bytes wake the reader.
        if self.answers.is_empty() || self.delay(2, cx) {
            return Poll::Pending;
        }
        let count = self.answers.len().min(self.bytes).min(buffer.remaining());
        buffer.put_slice(&self.answers.split_to(count));
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn no_answer_is_waited_for_while_its_question_is_still_with_the_socket() {
    for delays in [false, true] {
        // Small messages are split at every position, large ones at some.
        for (bytes, large) in [(1, 300), (7, 3_000), (1000, 200_000), (usize::MAX, 2_000_000)] {
            let mut connection = Stubborn::connection(bytes, delays);
            let text = "x".repeat(large);
            let asked = async {
                for text in ["short", &text] {
                    let rows = connection.query_once("SELECT $1", &[&text]).await.unwrap();
                    assert_eq!(rows[0].get::<_, &str>(0), text);
                }
                connection.batch_execute(&format!("SELECT '{text}'")).await.unwrap();
            };
            let heard = tokio::time::timeout(Duration::from_secs(30), asked).await;
            heard
                .unwrap_or_else(|_| panic!("by {bytes} bytes, delays {delays}: it waits for ever"));
        }
    }
}

#[tokio::test]
async fn a_statement_is_closed_even_if_the_batch_that_should_have_is_never_sent() {
    let mut connection = Stubborn::connection(usize::MAX, false);
    let mut unwanted = vec![Statement::named("one".to_owned())];
    drop(connection.batch_that_closes(&mut unwanted).unwrap());
    assert!(connection.outbox.is_empty(), "nothing is sent of it");
    assert_eq!(unwanted.len(), 1);

    connection.batch_that_closes(&mut unwanted).unwrap().run().await.unwrap();
    assert!(unwanted.is_empty());
}
