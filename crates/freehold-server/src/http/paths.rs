//! Ids in paths. A text that is not an id is answered like the id of an object that does not exist.

use axum::extract::{FromRequestParts, Path};
use freehold::{IdentityId, TenantId};
use http::request::Parts;
use serde::Deserialize;

use super::error::{Problem, no_such, parse_id};
use super::state::AppState;

/// The tenant that `{id}` in the path names.
pub(super) struct TenantPath(pub(super) TenantId);

/// The person whom `{id}` in the path names.
pub(super) struct PersonPath(pub(super) IdentityId);

/// The path may have other parameters too.
#[derive(Deserialize)]
struct Named {
    id: String,
}

async fn id_of<T: From<uuid::Uuid>>(
    parts: &mut Parts,
    state: &AppState,
    what: &str,
) -> Result<T, Problem> {
    let named = Path::<Named>::from_request_parts(parts, state).await;
    let Path(Named { id }) = named.map_err(|_| no_such(what))?;
    parse_id(&id, what)
}

impl FromRequestParts<AppState> for TenantPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        id_of(parts, state, "tenant").await.map(TenantPath)
    }
}

impl FromRequestParts<AppState> for PersonPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        id_of(parts, state, "person").await.map(PersonPath)
    }
}
