//! A notes service that embeds Freehold: its own tables, handlers and SQL.
//!
//! No statement names a tenant or a schema. A handler that takes a [`Tenant`](freehold::axum::Tenant) is reached only
//! with a valid token, and its context is the only way to a table.

mod daily;
mod error;
mod handlers;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use freehold::control::sessions::SignIn;
use freehold::{Baseline, Migration, Result};

pub use daily::count_everywhere;

/// The tables of every tenant. Compiled in, so that the program needs no folder beside it.
pub fn baseline() -> Result<Baseline> {
    Baseline::from_migrations(vec![
        Migration::new(1, "notes", include_str!("../migrations/0001_notes.sql")),
        Migration::new(2, "daily_counts", include_str!("../migrations/0002_daily_counts.sql")),
    ])
}

/// All routes. `SignIn` is the whole state: it leads to the fleet too.
pub fn router(sign_in: Arc<SignIn>) -> Router {
    Router::new()
        .route("/login", post(handlers::log_in))
        .route("/notes", get(handlers::list).post(handlers::create))
        .route("/notes/{id}/move", post(handlers::move_note))
        .route("/stats", get(handlers::stats))
        .with_state(sign_in)
}
