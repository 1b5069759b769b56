//! `freehold.sign_up`: tenants that people have requested, which wait for proof of an address.
//!
//! A sign-up is confirmed by a DELETE in the transaction that creates the tenant, which makes its token
//! single-use.

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Result;
use crate::model::ids::Email;
use crate::tx::CatalogTx;

/// How long its link is valid.
const LIFETIME: &str = "interval '24 hours'";

pub(crate) struct SignUpRow {
    pub(crate) id: Uuid,
    pub(crate) email: String,
    pub(crate) slug: String,
    pub(crate) name: String,
    /// The hash of the password that has to be repeated; without one, a password is chosen with the token.
    pub(crate) password_hash: Option<String>,
    pub(crate) expires_at: Timestamp,
}

fn from_row(row: &crate::wire::Row) -> SignUpRow {
    SignUpRow {
        id: row.get(0),
        email: row.get(1),
        slug: row.get(2),
        name: row.get(3),
        password_hash: row.get(4),
        expires_at: row.get(5),
    }
}

const COLUMNS: &str = "id, email, slug, name, password_hash, expires_at";

pub(crate) async fn insert(
    tx: &mut CatalogTx,
    id: Uuid,
    email: &Email,
    slug: &str,
    name: &str,
    password_hash: Option<&str>,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO freehold.sign_up (id, email, slug, name, password_hash, expires_at)
         VALUES ($1, $2, $3, $4, $5, now() + {LIFETIME})"
    );
    tx.execute(&sql, &[&id, &email.as_str(), &slug, &name, &password_hash]).await?;
    Ok(())
}

/// Stores the token of the message that is now being written. `None` if the sign-up has been confirmed or has
/// expired.
pub(crate) async fn set_token(
    tx: &mut CatalogTx,
    id: Uuid,
    token_hash: &[u8; 32],
) -> Result<Option<SignUpRow>> {
    let sql = format!(
        "UPDATE freehold.sign_up SET token_hash = $2 WHERE id = $1 AND expires_at > now() RETURNING {COLUMNS}"
    );
    Ok(tx.query_opt(&sql, &[&id, &token_hash.as_slice()]).await?.as_ref().map(from_row))
}

pub(crate) async fn find(tx: &mut CatalogTx, token_hash: &[u8; 32]) -> Result<Option<SignUpRow>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM freehold.sign_up WHERE token_hash = $1 AND expires_at > now()"
    );
    Ok(tx.query_opt(&sql, &[&token_hash.as_slice()]).await?.as_ref().map(from_row))
}

/// Deletes it, so a token works once. False if a concurrent request was first.
pub(crate) async fn take(tx: &mut CatalogTx, id: Uuid, token_hash: &[u8; 32]) -> Result<bool> {
    let taken = tx
        .execute(
            "DELETE FROM freehold.sign_up WHERE id = $1 AND token_hash = $2 AND expires_at > now()",
            &[&id, &token_hash.as_slice()],
        )
        .await?;
    Ok(taken == 1)
}

/// Deletes all sign-ups of this address.
pub(crate) async fn delete_of(tx: &mut CatalogTx, email: &str) -> Result<()> {
    tx.execute("DELETE FROM freehold.sign_up WHERE email = $1", &[&email]).await?;
    Ok(())
}

pub(crate) async fn prune(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("DELETE FROM freehold.sign_up WHERE expires_at < now()", &[]).await?;
    Ok(())
}
