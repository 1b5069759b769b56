//! Request bodies: awaited before a request counts among those being served, within limits of bytes and time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use freehold::ByteBudget;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::connections::{Connection, Phase};
use super::error::Problem;

/// The limits of bodies.
pub(super) struct Bodies {
    pub(super) bytes_max: usize,
    pub(super) time_max: Duration,
    /// Shared by all bodies that have arrived or are arriving.
    pub(super) budget: ByteBudget,
}

impl Bodies {
    /// The request with its complete body.
    pub(super) async fn await_body(&self, request: Request) -> Result<Request, Problem> {
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
        let arrived = tokio::time::timeout(self.time_max, self.collect(body)).await;
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

    async fn collect(&self, mut body: Body) -> Result<Bytes, Problem> {
        let share = self.budget.share(u64::MAX);
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
            share.take(bytes.len() as u64).map_err(|_| no_room())?;
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

fn no_room() -> Problem {
    metrics::counter!("freehold_http_refused_total").increment(1);
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "the bodies of other requests leave no room for this one; try again shortly",
    )
    .retry_after(1)
}

/// The rest of the body is not read.
fn closing(problem: Problem) -> Problem {
    problem.header(CONNECTION, HeaderValue::from_static("close"))
}
