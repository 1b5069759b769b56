//! A broken pooler, which no package contains: it passes each of a client's messages to a random session,
//! whatever transaction is under way there.

use std::sync::Arc;

use freehold::testing::PASSWORD;
use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::support::server_and_database;

const SSL_REQUEST: u32 = 80_877_103;
const CANCEL_REQUEST: u32 = 80_877_102;

/// Which session a client's message goes to.
#[derive(Clone, Copy)]
pub(super) enum Choice {
    /// The client's own, as it should be.
    Own,
    /// The same for all.
    First,
    /// Another each time.
    Next,
}

pub(super) struct MixingPooler {
    url: String,
    serving: JoinHandle<()>,
}

impl MixingPooler {
    /// In front of the server and database of a URL.
    pub(super) async fn before(url: &str, choice: Choice) -> MixingPooler {
        let (server, name) = server_and_database(url);
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sessions = Arc::new(Sessions { server, choice, open: Mutex::default() });
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let sessions = Arc::clone(&sessions);
                // Errors of a client that has disconnected are ignored.
                tokio::spawn(async move { sessions.serve(client).await });
            }
        });
        let url = format!("postgres://freehold_app:{PASSWORD}@{address}/{name}?sslmode=disable");
        MixingPooler { url, serving }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for MixingPooler {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Sessions {
    server: String,
    choice: Choice,
    open: Mutex<Vec<Arc<Mutex<TcpStream>>>>,
}

impl Sessions {
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let mut server = TcpStream::connect(&self.server).await?;
        if !sign_in(&mut client, &mut server).await? {
            return Ok(());
        }
        let own = {
            let mut open = self.open.lock().await;
            open.push(Arc::new(Mutex::new(server)));
            open.len() - 1
        };
        for sent in 0.. {
            let mut request = Vec::new();
            // The server answers after a simple query or a Sync.
            while !matches!(read_message(&mut client, &mut request).await?, b'Q' | b'S') {}
            let session = {
                let open = self.open.lock().await;
                let chosen = match self.choice {
                    Choice::Own => own,
                    Choice::First => 0,
                    Choice::Next => (own + sent) % open.len(),
                };
                Arc::clone(&open[chosen])
            };
            let mut session = session.lock().await;
            session.write_all(&request).await?;
            let mut answer = Vec::new();
            while read_message(&mut session, &mut answer).await? != b'Z' {}
            client.write_all(&answer).await?;
        }
        Ok(())
    }
}

/// Forwards the traffic of client and server until the session is usable; false if it is not.
async fn sign_in(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<bool> {
    loop {
        let mut startup = vec![0; client.read_u32().await? as usize - 4];
        client.read_exact(&mut startup).await?;
        match u32::from_be_bytes(startup[..4].try_into().unwrap()) {
            SSL_REQUEST => client.write_all(b"N").await?,
            CANCEL_REQUEST => return Ok(false),
            _ => {
                server.write_u32(startup.len() as u32 + 4).await?;
                server.write_all(&startup).await?;
                break;
            }
        }
    }
    loop {
        let mut message = Vec::new();
        let kind = read_message(server, &mut message).await?;
        client.write_all(&message).await?;
        let asks = kind == b'R' && matches!(message[8], 3 | 5 | 10 | 11);
        if asks {
            let mut answer = Vec::new();
            read_message(client, &mut answer).await?;
            server.write_all(&answer).await?;
        }
        match kind {
            b'Z' => return Ok(true),
            b'E' => return Ok(false),
            _ => {}
        }
    }
}

/// Appends one message, and returns its kind.
async fn read_message(from: &mut TcpStream, to: &mut Vec<u8>) -> io::Result<u8> {
    let kind = from.read_u8().await?;
    let length = from.read_u32().await?;
    to.push(kind);
    to.extend(length.to_be_bytes());
    let body = to.len();
    to.resize(body + length as usize - 4, 0);
    from.read_exact(&mut to[body..]).await?;
    Ok(kind)
}
