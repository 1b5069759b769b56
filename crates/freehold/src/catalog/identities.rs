//! `freehold.identity` and `credential`: people, and how they prove it.

use crate::error::Result;
use crate::ids::IdentityId;
use crate::tx::CatalogTx;
use crate::wire::Row;

#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: IdentityId,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) is_operator: bool,
}

/// An identity with its password hash, if it has one.
pub(crate) struct Credential {
    pub(crate) identity: Identity,
    pub(crate) password_hash: Option<String>,
}

fn from_row(row: &Row) -> Identity {
    Identity {
        id: IdentityId::from(row.get::<_, uuid::Uuid>("id")),
        email: row.get("email"),
        name: row.get("name"),
        is_operator: row.get("is_operator"),
    }
}

pub(crate) async fn find(tx: &mut CatalogTx, id: IdentityId) -> Result<Option<Identity>> {
    let row = tx
        .query_opt(
            "SELECT id, email, name, is_operator FROM identity WHERE id = $1",
            &[&id.as_uuid()],
        )
        .await?;
    Ok(row.as_ref().map(from_row))
}

/// `email` is in lower case.
pub(crate) async fn find_credential(tx: &mut CatalogTx, email: &str) -> Result<Option<Credential>> {
    let row = tx
        .query_opt(
            "SELECT i.id, i.email, i.name, i.is_operator, c.password_hash
             FROM identity i LEFT JOIN credential c ON c.identity_id = i.id WHERE i.email = $1",
            &[&email],
        )
        .await?;
    Ok(row.map(|row| Credential {
        identity: from_row(&row),
        password_hash: row.get("password_hash"),
    }))
}

/// False if the e-mail belongs to somebody already.
pub(crate) async fn insert(
    tx: &mut CatalogTx,
    identity: &Identity,
    password_hash: &str,
) -> Result<bool> {
    let inserted = tx
        .execute(
            "INSERT INTO identity (id, email, name, is_operator) VALUES ($1, $2, $3, $4)
             ON CONFLICT ON CONSTRAINT identity_email_key DO NOTHING",
            &[&identity.id.as_uuid(), &identity.email, &identity.name, &identity.is_operator],
        )
        .await?;
    if inserted == 1 {
        set_password(tx, identity.id, password_hash).await?;
    }
    Ok(inserted == 1)
}

pub(crate) async fn set_password(
    tx: &mut CatalogTx,
    id: IdentityId,
    password_hash: &str,
) -> Result<()> {
    tx.execute(
        "INSERT INTO credential (identity_id, password_hash) VALUES ($1, $2)
         ON CONFLICT (identity_id) DO UPDATE SET password_hash = $2, changed_at = now()",
        &[&id.as_uuid(), &password_hash],
    )
    .await?;
    Ok(())
}

pub(crate) async fn make_operator(tx: &mut CatalogTx, id: IdentityId) -> Result<()> {
    tx.execute("UPDATE identity SET is_operator = true WHERE id = $1", &[&id.as_uuid()]).await?;
    Ok(())
}
