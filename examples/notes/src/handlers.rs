//! One function per route, with its request, its SQL and its answer.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::StatusCode;
use freehold::Row;
use freehold::axum::Tenant;
use freehold::control::credentials::Credentials;
use freehold::control::sessions::{SignIn, Tokens};
use freehold::jiff::Timestamp;
use freehold::uuid::Uuid;
use freehold::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::explain;

#[derive(Deserialize)]
pub(crate) struct LogIn {
    email: String,
    password: String,
    /// Needed by people who belong to several tenants.
    tenant: Option<String>,
    /// From the last sign-in on this device.
    device_token: Option<String>,
}

pub(crate) async fn log_in(
    State(sign_in): State<Arc<SignIn>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Json(who): Json<LogIn>,
) -> Result<Json<Tokens>> {
    let LogIn { email, password, tenant, device_token } = who;
    let credentials = Credentials { email, password, tenant, device_token };
    Ok(Json(sign_in.log_in(credentials, client.ip()).await?))
}

#[derive(Serialize)]
pub(crate) struct Note {
    id: i64,
    notebook: String,
    title: String,
    body: String,
    author: Uuid,
    created_at: Timestamp,
}

impl From<&Row> for Note {
    fn from(row: &Row) -> Note {
        Note {
            id: row.get("id"),
            notebook: row.get("notebook"),
            title: row.get("title"),
            body: row.get("body"),
            author: row.get("author_id"),
            created_at: row.get("created_at"),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Filter {
    title: Option<String>,
}

/// The newest hundred notes, or those with exactly this title.
pub(crate) async fn list(
    State(sign_in): State<Arc<SignIn>>,
    Tenant(context): Tenant,
    Query(filter): Query<Filter>,
) -> Result<Json<Vec<Note>>> {
    const ALL: &str = "SELECT * FROM note_list ORDER BY id DESC LIMIT 100";
    const TITLED: &str = "SELECT * FROM note_list WHERE title = $1 ORDER BY id DESC LIMIT 100";
    let rows = match &filter.title {
        None => sign_in.freehold().query(&context, ALL, &[]).await?,
        Some(title) => sign_in.freehold().query(&context, TITLED, &[title]).await?,
    };
    Ok(Json(rows.iter().map(Note::from).collect()))
}

/// Finds a notebook by its name, or makes it.
const ENSURE_NOTEBOOK: &str = "INSERT INTO notebooks (name) VALUES ($1)
    ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id";

#[derive(Deserialize)]
pub(crate) struct NewNote {
    notebook: String,
    title: String,
    #[serde(default)]
    body: String,
}

pub(crate) async fn create(
    State(sign_in): State<Arc<SignIn>>,
    Tenant(context): Tenant,
    Json(new): Json<NewNote>,
) -> Result<(StatusCode, Json<Note>)> {
    let mut tx = sign_in.freehold().begin(&context).await?;
    let row = tx.query_one(ENSURE_NOTEBOOK, &[&new.notebook]).await.map_err(explain)?;
    let notebook: i64 = row.get("id");
    let insert = "INSERT INTO notes (notebook_id, title, body) VALUES ($1, $2, $3)
        RETURNING id, $4 AS notebook, title, body, author_id, created_at";
    let row = tx
        .query_one(insert, &[&notebook, &new.title, &new.body, &new.notebook])
        .await
        .map_err(explain)?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(Note::from(&row))))
}

#[derive(Deserialize)]
pub(crate) struct Target {
    notebook: String,
}

/// Four statements, one transaction: an early return rolls all of it back, the new notebook too.
pub(crate) async fn move_note(
    State(sign_in): State<Arc<SignIn>>,
    Tenant(context): Tenant,
    Path(id): Path<i64>,
    Json(target): Json<Target>,
) -> Result<Json<Value>> {
    let mut tx = sign_in.freehold().begin(&context).await?;
    let row = tx.query_one(ENSURE_NOTEBOOK, &[&target.notebook]).await.map_err(explain)?;
    let new: i64 = row.get("id");
    let lock = "SELECT notebook_id FROM notes WHERE id = $1 FOR UPDATE";
    let row = tx.query_opt(lock, &[&id]).await?;
    let row = row.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such note"))?;
    let old: i64 = row.get("notebook_id");
    let update = "UPDATE notes SET notebook_id = $1 WHERE id = $2";
    tx.execute(update, &[&new, &id]).await.map_err(explain)?;
    let count = "SELECT count(*) FILTER (WHERE notebook_id = $1) AS old,
            count(*) FILTER (WHERE notebook_id = $2) AS new
        FROM notes WHERE notebook_id IN ($1, $2)";
    let row = tx.query_one(count, &[&old, &new]).await?;
    tx.commit().await?;
    let (old, new): (i64, i64) = (row.get("old"), row.get("new"));
    Ok(Json(json!({"left_in_old": old, "now_in_new": new})))
}

/// Counts of this tenant, and of no other: the tables are the tenant's own.
pub(crate) async fn stats(
    State(sign_in): State<Arc<SignIn>>,
    Tenant(context): Tenant,
) -> Result<Json<Value>> {
    let sql = "SELECT json_build_object(
            'notes', (SELECT count(*) FROM notes),
            'notebooks', (SELECT count(*) FROM notebooks),
            'days_counted', (SELECT count(*) FROM daily_counts))";
    let row = sign_in.freehold().begin(&context).await?.query_one(sql, &[]).await?;
    Ok(Json(row.get(0)))
}
