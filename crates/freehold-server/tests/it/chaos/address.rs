//! An address that stays the same while the server behind it changes, like a Service of Kubernetes or a
//! virtual address; and a connection that can be stalled.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(super) struct Address {
    pub(super) port: u16,
    leads_to: Arc<AtomicU16>,
    flows: watch::Sender<bool>,
    listener: JoinHandle<()>,
}

impl Address {
    pub(super) async fn of(port: u16) -> Address {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let leads_to = Arc::new(AtomicU16::new(port));
        let (flows, flowing) = watch::channel(true);
        let listener = tokio::spawn(listen(listener, Arc::clone(&leads_to), flowing));
        Address { port: own, leads_to, flows, listener }
    }

    /// New connections go to this port. Open ones stay where they are.
    pub(super) fn lead_to(&self, port: u16) {
        self.leads_to.store(port, Ordering::Relaxed);
    }

    /// Stops all traffic in both directions, and closes nothing.
    pub(super) fn stall(&self) {
        self.flows.send_replace(false);
    }

    /// Releases what was held, and all later traffic.
    pub(super) fn flow(&self) {
        self.flows.send_replace(true);
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn listen(listener: TcpListener, leads_to: Arc<AtomicU16>, flowing: watch::Receiver<bool>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (leads_to, flowing) = (Arc::clone(&leads_to), flowing.clone());
        tokio::spawn(async move {
            // Whatever goes wrong, both ends see a connection that was closed.
            let _ = connect_and_pump(client, &leads_to, flowing).await;
        });
    }
}

async fn connect_and_pump(
    client: TcpStream,
    leads_to: &AtomicU16,
    mut flowing: watch::Receiver<bool>,
) -> io::Result<()> {
    until_it_flows(&mut flowing).await?;
    let server = TcpStream::connect(("127.0.0.1", leads_to.load(Ordering::Relaxed))).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        ended = pump(from_client, to_server, flowing.clone()) => ended,
        ended = pump(from_server, to_client, flowing) => ended,
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flowing: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut chunk).await?;
        until_it_flows(&mut flowing).await?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..read]).await?;
    }
}

async fn until_it_flows(flowing: &mut watch::Receiver<bool>) -> io::Result<()> {
    flowing.wait_for(|flows| *flows).await.map(drop).map_err(io::Error::other)
}
