//! The arrival of requests: bodies, awaited within limits of bytes and time before a request counts among those
//! being served, and how many of these there may be.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use freehold::{Budget, Share, TenantId};
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::connections::{Connection, Phase};
use super::error::Problem;

const NO_ROOM: &str = "the bodies of other requests leave no room for this one; try again shortly";

/// The limits of bodies.
pub(super) struct Bodies {
    pub(super) bytes_max: usize,
    pub(super) time_max: Duration,
    /// Shared by all bodies that have arrived or are arriving, fairly among the clients.
    pub(super) budget: Budget,
}

impl Bodies {
    /// The request with its complete body.
    pub(super) async fn await_body(
        &self,
        request: Request,
        client: IpAddr,
    ) -> Result<Request, Problem> {
        let (parts, body) = request.into_parts();
        if body.is_end_stream() {
            return Ok(Request::from_parts(parts, Body::empty()));
        }
        if body.size_hint().lower() > self.bytes_max as u64 {
            return Err(closing(too_large(self.bytes_max)));
        }
        let connection = parts.extensions.get::<Arc<Connection>>();
        if let Some(connection) = connection {
            connection.enter(Phase::Body);
        }
        let arrived = tokio::time::timeout(self.time_max, self.collect(body, client)).await;
        if let Some(connection) = connection {
            connection.enter(Phase::Serving);
        }
        match arrived {
            Ok(Ok(bytes)) => Ok(Request::from_parts(parts, Body::from(bytes))),
            Ok(Err(problem)) => Err(closing(problem)),
            Err(_) => Err(closing(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "request_too_slow",
                format!(
                    "the body of the request did not arrive within {} ms",
                    self.time_max.as_millis()
                ),
            ))),
        }
    }

    async fn collect(&self, mut body: Body, client: IpAddr) -> Result<Bytes, Problem> {
        let share = self.budget.share_of(network(client), u64::MAX);
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                let detail = "the body could not be read";
                Problem::new(StatusCode::BAD_REQUEST, "invalid_input", detail)
            })?;
            let Ok(bytes) = frame.into_data() else { continue };
            if whole.len() + bytes.len() > self.bytes_max {
                return Err(too_large(self.bytes_max));
            }
            share.take(bytes.len() as u64).map_err(|_| overloaded(NO_ROOM))?;
            whole.extend_from_slice(&bytes);
        }
        Ok(held(whole, share))
    }
}

/// Bytes that hold their share of memory as long as they are referenced, for example by a socket.
pub(super) fn held(bytes: impl AsRef<[u8]> + Send + 'static, share: impl Send + 'static) -> Bytes {
    struct Held<B, S>(B, #[allow(dead_code, reason = "is dropped with the bytes")] S);

    impl<B: AsRef<[u8]>, S> AsRef<[u8]> for Held<B, S> {
        fn as_ref(&self) -> &[u8] {
            self.0.as_ref()
        }
    }

    Bytes::from_owner(Held(bytes, share))
}

pub(super) fn too_large(bytes_max: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the body is larger than {bytes_max} bytes, the most that this server takes"),
    )
}

/// How many requests are served at a time, shared fairly among clients and among tenants.
pub(super) struct Places {
    clients: Budget,
    tenants: Budget,
}

impl Places {
    pub(super) fn new(max: u32) -> Places {
        Places { clients: Budget::new(max.into()), tenants: Budget::new(max.into()) }
    }

    /// One place for a request of this client, or 503.
    pub(super) fn of_client(&self, client: IpAddr) -> Result<Share, Problem> {
        let place = self.clients.share_of(network(client), 1);
        let detail =
            "too many requests are being served, or too many of this client; try again shortly";
        place.take(1).map_err(|_| overloaded(detail)).map(|()| place)
    }

    /// One place for a request of this tenant, which has its client's already.
    pub(super) fn of_tenant(&self, tenant: TenantId) -> Result<Share, Problem> {
        let place = self.tenants.share_of(tenant.as_uuid().as_u128(), 1);
        let detail = "too many requests of this tenant are being served; try again shortly";
        place.take(1).map_err(|_| overloaded(detail)).map(|()| place)
    }
}

/// A client among those that share a budget: an IPv4 address or an IPv6 network of 64 bits.
fn network(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() & !u128::from(u64::MAX),
    }
}

fn overloaded(detail: &str) -> Problem {
    metrics::counter!("freehold_http_refused_total").increment(1);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(1)
}

/// The rest of the body is not read.
fn closing(problem: Problem) -> Problem {
    problem.header(CONNECTION, HeaderValue::from_static("close"))
}
