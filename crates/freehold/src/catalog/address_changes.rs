//! `freehold.address_change`: changes of address that both mailboxes have to confirm.

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Result;
use crate::model::ids::{Email, IdentityId};
use crate::tx::CatalogTx;

/// How long its links are valid.
const LIFETIME: &str = "interval '24 hours'";

/// One of the two mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mailbox {
    /// That of the current address.
    Old,
    /// That of the new address.
    New,
}

#[derive(Clone, Debug)]
pub(crate) struct AddressChange {
    pub(crate) id: Uuid,
    pub(crate) identity: IdentityId,
    /// The new address.
    pub(crate) email: String,
    /// The current address.
    pub(crate) present: String,
    pub(crate) old_confirmed: bool,
    pub(crate) new_confirmed: bool,
    pub(crate) expires_at: Timestamp,
}

const COLUMNS: &str = "a.id, a.identity_id, a.email, i.email, a.old_confirmed_at IS NOT NULL,
                       a.new_confirmed_at IS NOT NULL, a.expires_at";

fn from_row(row: &crate::wire::Row) -> AddressChange {
    AddressChange {
        id: row.get(0),
        identity: IdentityId::from(row.get::<_, Uuid>(1)),
        email: row.get(2),
        present: row.get(3),
        old_confirmed: row.get(4),
        new_confirmed: row.get(5),
        expires_at: row.get(6),
    }
}

/// A later request replaces the earlier one.
pub(crate) async fn upsert(
    tx: &mut CatalogTx,
    id: Uuid,
    identity: IdentityId,
    email: &Email,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO freehold.address_change (id, identity_id, email, expires_at)
         VALUES ($1, $2, $3, now() + {LIFETIME})
         ON CONFLICT (identity_id) DO UPDATE SET id = $1, email = $3, expires_at = now() + {LIFETIME},
           old_token_hash = NULL, new_token_hash = NULL, old_confirmed_at = NULL, new_confirmed_at = NULL"
    );
    tx.execute(&sql, &[&id, &identity.as_uuid(), &email.as_str()]).await?;
    Ok(())
}

/// Stores the token of the message that is now being written to one of the mailboxes.
pub(crate) async fn set_token(
    tx: &mut CatalogTx,
    id: Uuid,
    mailbox: Mailbox,
    token_hash: &[u8; 32],
) -> Result<Option<AddressChange>> {
    let column = match mailbox {
        Mailbox::Old => "old_token_hash",
        Mailbox::New => "new_token_hash",
    };
    let sql = format!(
        "UPDATE freehold.address_change a SET {column} = $2 FROM freehold.identity i
         WHERE a.id = $1 AND a.expires_at > now() AND i.id = a.identity_id RETURNING {COLUMNS}"
    );
    Ok(tx.query_opt(&sql, &[&id, &token_hash.as_slice()]).await?.as_ref().map(from_row))
}

/// The change that a token belongs to, and which mailbox it was sent to; the row stays locked.
pub(crate) async fn lock(
    tx: &mut CatalogTx,
    token_hash: &[u8; 32],
) -> Result<Option<(AddressChange, Mailbox)>> {
    let sql = format!(
        "SELECT {COLUMNS}, a.old_token_hash IS NOT DISTINCT FROM $1
         FROM freehold.address_change a JOIN freehold.identity i ON i.id = a.identity_id
         WHERE (a.old_token_hash = $1 OR a.new_token_hash = $1) AND a.expires_at > now() FOR UPDATE OF a"
    );
    let row = tx.query_opt(&sql, &[&token_hash.as_slice()]).await?;
    Ok(row.map(|row| {
        let mailbox = if row.get(7) { Mailbox::Old } else { Mailbox::New };
        (from_row(&row), mailbox)
    }))
}

/// Records that this mailbox has confirmed; its token is used up.
pub(crate) async fn confirm(tx: &mut CatalogTx, id: Uuid, mailbox: Mailbox) -> Result<()> {
    let set = match mailbox {
        Mailbox::Old => "old_confirmed_at = now(), old_token_hash = NULL",
        Mailbox::New => "new_confirmed_at = now(), new_token_hash = NULL",
    };
    tx.execute(&format!("UPDATE freehold.address_change SET {set} WHERE id = $1"), &[&id]).await?;
    Ok(())
}

pub(crate) async fn delete_of(tx: &mut CatalogTx, identity: IdentityId) -> Result<()> {
    tx.execute(
        "DELETE FROM freehold.address_change WHERE identity_id = $1",
        &[&identity.as_uuid()],
    )
    .await?;
    Ok(())
}

pub(crate) async fn prune(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("DELETE FROM freehold.address_change WHERE expires_at < now()", &[]).await?;
    Ok(())
}
