//! The service of docs/handlers.md, as it stands there.
#![allow(clippy::disallowed_methods, reason = "a service of its own has settings of its own")]

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use freehold::axum::Tenant;
use freehold::control::sessions::{SignIn, SignInOptions};
use freehold::{Error, ErrorKind, Freehold, Options, Result};

/// Whoever comes here has a valid token, an active tenant and a present membership.
async fn list(
    State(app): State<Arc<SignIn>>,
    Tenant(context): Tenant,
) -> Result<Json<Vec<String>>> {
    let rows = app.freehold().query(&context, "SELECT body FROM notes ORDER BY id", &[]).await?;
    Ok(Json(rows.iter().map(|row| row.get("body")).collect()))
}

/// Several statements, one transaction: any early return rolls all of it back.
async fn merge(State(app): State<Arc<SignIn>>, Tenant(context): Tenant) -> Result<()> {
    let mut tx = app.freehold().begin(&context).await?;
    let all = tx.query_one("SELECT string_agg(body, ', ') AS body FROM notes", &[]).await?;
    let body: Option<String> = all.get("body");
    let body = body.ok_or_else(|| Error::new(ErrorKind::NotFound, "there are no notes"))?;
    tx.execute("DELETE FROM notes", &[]).await?;
    tx.execute("INSERT INTO notes (body) VALUES ($1)", &[&body]).await?;
    tx.commit().await
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let setting = |name: &str| std::env::var(name).map_err(|_| format!("set {name}"));
    let mut options = Options::new(setting("DATABASE_URL")?);
    options.context_key = Some(setting("CONTEXT_KEY")?.parse()?);
    let freehold = Freehold::connect(&options).await?;
    let app = Arc::new(SignIn::new(freehold, SignInOptions::new(&setting("JWT_SECRET")?)?));
    let router = Router::new().route("/notes", get(list).post(merge)).with_state(app);
    let listener = tokio::net::TcpListener::bind(setting("LISTEN")?).await?;
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    Ok(axum::serve(listener, service).await?)
}
