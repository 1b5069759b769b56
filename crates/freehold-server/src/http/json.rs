//! Request bodies: strict JSON. An unknown field is refused, so that a caller does not believe it was
//! applied.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use http::StatusCode;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::error::Problem;

/// A body and the hash of its bytes, which distinguishes a repeated request from another one.
pub(super) struct Body<T> {
    pub(super) value: T,
    pub(super) hash: [u8; 32],
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state).await.map_err(unread)?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_input",
                format!("the body is not what is expected: {error}"),
            )
        })?;
        Ok(Body { value, hash: Sha256::digest(&bytes).into() })
    }
}

/// The error for a body that could not be read: too large, or the connection broke.
pub(super) fn unread(rejection: BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "the body is larger than this server takes",
        ),
        _ => Problem::new(StatusCode::BAD_REQUEST, "invalid_input", "the body could not be read"),
    }
}
