//! Clients' connections: accepted, limited in number and time, and closed.
//!
//! hyper reads and writes HTTP/1. This module adds what hyper leaves out: how many connections there may be,
//! in total and per client, and how long a client may make the server wait. These limits do not apply to a
//! request that has arrived, which has a timeout of its own (`middleware::guard`).

mod files;
mod framing;
mod limits;
mod registry;
mod watched;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse as _, Response};
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::limits::ConnectionLimits;
pub(super) use self::registry::{Connection, Phase};
use self::registry::{Registry, Ticket};
use self::watched::Watched;
use super::error::Problem;

/// A longer head is answered 431. The longest query of the data API is a fraction of this. A client that
/// never ends its head occupies this much memory.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The pause after a lasting failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long the final answer may take to be sent.
const FAREWELL_MAX: Duration = Duration::from_millis(200);

/// The answer on a connection whose head did not arrive in time.
const LATE_HEAD: &str = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
    content-type: application/problem+json\r\ncontent-length: 128\r\n\r\n\
    {\"status\":408,\"title\":\"Request Timeout\",\
    \"code\":\"request_too_slow\",\"detail\":\"the head of the request did not arrive in its time\"}";

/// Serves until `stop` completes; then no further connections are accepted, idle ones are closed, and it
/// returns after the last request under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) {
    let registry = Registry::new(limits);
    let (stopping, is_stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut sweep = tokio::time::interval(registry.sweep_every());
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Some(ticket) = registry.admit(peer.ip()) else { continue };
                    let served = serve_one(stream, peer, ticket, router.clone(), is_stopping.clone());
                    connections.spawn(served);
                }
                // The client closed the connection meanwhile.
                Err(error) if is_of_client(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    registry.make_room();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = sweep.tick() => registry.sweep(),
            () = &mut stop => break,
        }
    }
    drop(listener);
    let _ = stopping.send(true);
    loop {
        tokio::select! {
            ended = connections.join_next() => if ended.is_none() { break },
            _ = sweep.tick() => registry.sweep(),
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve_one(
    stream: TcpStream,
    peer: SocketAddr,
    ticket: Ticket,
    router: Router,
    mut is_stopping: watch::Receiver<bool>,
) {
    // An answer is one write, so Nagle's algorithm would only delay it.
    let _ = stream.set_nodelay(true);
    let connection = Arc::clone(ticket.connection());
    let router = TowerToHyperService::new(router);
    let service =
        service_fn(|request: Request<Incoming>| answer(&router, &connection, peer, request));
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&connection)));
    // This module applies the timeouts: hyper has a single one for the head and the pause before it.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX);
    let mut served = http.serve_connection(io, service);
    let mut stops = pin!(is_stopping.wait_for(|stopping| *stopping));
    let mut told = false;
    loop {
        tokio::select! {
            ended = &mut served => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke");
                }
                return;
            }
            () = connection.told_to_close() => break,
            _ = &mut stops, if !told => {
                told = true;
                Pin::new(&mut served).graceful_shutdown();
            }
        }
    }
    if connection.phase() == Phase::Head {
        let mut stream = served.into_parts().io.into_inner();
        let farewell = stream.write_all(LATE_HEAD.as_bytes());
        let _ = tokio::time::timeout(FAREWELL_MAX, farewell).await;
    }
}

async fn answer(
    router: &TowerToHyperService<Router>,
    connection: &Arc<Connection>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    connection.enter(Phase::Serving);
    let mut response = if connection.is_spare() && !is_probe(request.uri().path()) {
        too_many_connections()
    } else {
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(peer));
        extensions.insert(Arc::clone(connection));
        router.call(request.map(Body::new)).await?
    };
    if connection.is_spare() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let served = Served(Arc::clone(connection));
    Ok(response.map(|body| Body::new(Answer { body, _served: served })))
}

/// The body of an answer, which reports when it has been passed to the socket.
struct Answer {
    body: Body,
    _served: Served,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Paths that are answered even if there is no room for more clients.
fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics")
}

fn too_many_connections() -> Response {
    metrics::counter!("freehold_http_refused_total").increment(1);
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "too many connections are open; try again shortly",
    )
    .retry_after(1)
    .into_response()
}

struct Served(Arc<Connection>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}
