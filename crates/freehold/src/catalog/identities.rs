//! `freehold.identity` and `credential`: people, their passwords, and whether their address was proven.

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::Result;
use crate::model::ids::{Email, IdentityId};
use crate::tx::CatalogTx;
use crate::wire::Row;

#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: IdentityId,
    pub(crate) email: String,
    pub(crate) name: String,
    pub(crate) is_operator: bool,
    pub(crate) is_proven: bool,
    pub(crate) is_disabled: bool,
    /// Increases with each change of password or address, and with each disabling.
    pub(crate) epoch: i32,
}

/// An identity with its password hash, if it has one.
pub(crate) struct Credential {
    pub(crate) identity: Identity,
    pub(crate) password_hash: Option<String>,
}

impl Credential {
    /// Whether the address is proven and there is a password.
    pub(crate) fn is_known(&self) -> bool {
        self.identity.is_proven && self.password_hash.is_some()
    }
}

/// The proof of an address: by whom, and why.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    /// The operator who vouches, or [`IdentityId::SYSTEM`] for the command line. `None`: the person, by a
    /// token that was sent to the address.
    pub(crate) by: Option<IdentityId>,
    pub(crate) why: String,
}

/// A person, as operators see them.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Person {
    /// The same in every tenant.
    pub id: IdentityId,
    /// In lower case.
    pub email: String,
    /// A display name; empty if none was given.
    pub name: String,
    /// Whether the person is an operator.
    pub is_operator: bool,
    /// Whether the person has a password.
    pub has_password: bool,
    /// When the person was created.
    pub created_at: Timestamp,
    /// When the address was proven; absent if it never was.
    pub proven_at: Option<Timestamp>,
    /// Who proved or vouched for it: the person, an operator, or the nil UUID for the command line.
    pub proven_by: Option<Uuid>,
    /// The reason given.
    pub proven_why: Option<String>,
    /// When the person was disabled; absent if not disabled.
    pub disabled_at: Option<Timestamp>,
}

const COLUMNS: &str = "i.id, i.email, i.name, i.is_operator, i.proven_at IS NOT NULL AS is_proven, \
                       i.disabled_at IS NOT NULL AS is_disabled, i.epoch";

const WITH_CREDENTIAL: &str =
    "FROM freehold.identity i LEFT JOIN freehold.credential c ON c.identity_id = i.id";

const PERSON: &str = "SELECT i.id, i.email, i.name, i.is_operator, i.created_at, i.proven_at, i.proven_by, \
                      i.proven_why, i.disabled_at, c.identity_id IS NOT NULL AS has_password \
                      FROM freehold.identity i LEFT JOIN freehold.credential c ON c.identity_id = i.id";

fn from_row(row: &Row) -> Identity {
    Identity {
        id: IdentityId::from(row.get::<_, Uuid>("id")),
        email: row.get("email"),
        name: row.get("name"),
        is_operator: row.get("is_operator"),
        is_proven: row.get("is_proven"),
        is_disabled: row.get("is_disabled"),
        epoch: row.get("epoch"),
    }
}

fn credential_from_row(row: &Row) -> Credential {
    Credential { identity: from_row(row), password_hash: row.get("password_hash") }
}

fn person_from_row(row: &Row) -> Person {
    Person {
        id: IdentityId::from(row.get::<_, Uuid>("id")),
        email: row.get("email"),
        name: row.get("name"),
        is_operator: row.get("is_operator"),
        has_password: row.get("has_password"),
        created_at: row.get("created_at"),
        proven_at: row.get("proven_at"),
        proven_by: row.get("proven_by"),
        proven_why: row.get("proven_why"),
        disabled_at: row.get("disabled_at"),
    }
}

pub(crate) async fn find(tx: &mut CatalogTx, id: IdentityId) -> Result<Option<Identity>> {
    let sql = format!("SELECT {COLUMNS} FROM freehold.identity i WHERE i.id = $1");
    Ok(tx.query_opt(&sql, &[&id.as_uuid()]).await?.as_ref().map(from_row))
}

/// [`find`]; the row stays locked until the transaction ends.
pub(crate) async fn lock(tx: &mut CatalogTx, id: IdentityId) -> Result<Option<Identity>> {
    let sql =
        format!("SELECT {COLUMNS} FROM freehold.identity i WHERE i.id = $1 FOR NO KEY UPDATE");
    Ok(tx.query_opt(&sql, &[&id.as_uuid()]).await?.as_ref().map(from_row))
}

/// `email` is in lower case.
pub(crate) async fn find_by_email(tx: &mut CatalogTx, email: &str) -> Result<Option<Identity>> {
    let sql = format!("SELECT {COLUMNS} FROM freehold.identity i WHERE i.email = $1");
    Ok(tx.query_opt(&sql, &[&email]).await?.as_ref().map(from_row))
}

/// [`find_by_email`]; the row stays locked until the transaction ends.
pub(crate) async fn lock_by_email(tx: &mut CatalogTx, email: &str) -> Result<Option<Identity>> {
    let sql =
        format!("SELECT {COLUMNS} FROM freehold.identity i WHERE i.email = $1 FOR NO KEY UPDATE");
    Ok(tx.query_opt(&sql, &[&email]).await?.as_ref().map(from_row))
}

/// `email` is in lower case.
pub(crate) async fn find_credential(tx: &mut CatalogTx, email: &str) -> Result<Option<Credential>> {
    let sql = format!("SELECT {COLUMNS}, c.password_hash {WITH_CREDENTIAL} WHERE i.email = $1");
    let row = tx.query_opt(&sql, &[&email]).await?;
    Ok(row.as_ref().map(credential_from_row))
}

pub(crate) async fn find_credential_of(
    tx: &mut CatalogTx,
    id: IdentityId,
) -> Result<Option<Credential>> {
    let sql = format!("SELECT {COLUMNS}, c.password_hash {WITH_CREDENTIAL} WHERE i.id = $1");
    let row = tx.query_opt(&sql, &[&id.as_uuid()]).await?;
    Ok(row.as_ref().map(credential_from_row))
}

/// Creates a person whose address is not proven. `None` if another person has the address.
pub(crate) async fn insert(
    tx: &mut CatalogTx,
    email: &Email,
    name: &str,
) -> Result<Option<Identity>> {
    let sql = format!(
        "INSERT INTO freehold.identity AS i (id, email, name) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT identity_email_key DO NOTHING RETURNING {COLUMNS}"
    );
    let id = IdentityId::generate();
    Ok(tx.query_opt(&sql, &[&id.as_uuid(), &email.as_str(), &name]).await?.as_ref().map(from_row))
}

pub(crate) async fn set_password(
    tx: &mut CatalogTx,
    id: IdentityId,
    password_hash: &str,
) -> Result<()> {
    tx.execute(
        "INSERT INTO freehold.credential (identity_id, password_hash) VALUES ($1, $2)
         ON CONFLICT (identity_id) DO UPDATE SET password_hash = $2, changed_at = now()",
        &[&id.as_uuid(), &password_hash],
    )
    .await?;
    Ok(())
}

/// Stores a new hash of the same password, unless the password was changed meanwhile.
pub(crate) async fn renew_hash(
    tx: &mut CatalogTx,
    id: IdentityId,
    outdated: &str,
    fresh: &str,
) -> Result<()> {
    tx.execute(
        "UPDATE freehold.credential SET password_hash = $3 WHERE identity_id = $1 AND password_hash = $2",
        &[&id.as_uuid(), &outdated, &fresh],
    )
    .await?;
    Ok(())
}

pub(crate) async fn delete_password(tx: &mut CatalogTx, id: IdentityId) -> Result<()> {
    tx.execute("DELETE FROM freehold.credential WHERE identity_id = $1", &[&id.as_uuid()]).await?;
    Ok(())
}

pub(crate) async fn set_proven(tx: &mut CatalogTx, id: IdentityId, proof: &Proof) -> Result<()> {
    let by = proof.by.unwrap_or(id);
    tx.execute(
        "UPDATE freehold.identity SET proven_at = now(), proven_by = $2, proven_why = $3 WHERE id = $1",
        &[&id.as_uuid(), &by.as_uuid(), &proof.why],
    )
    .await?;
    Ok(())
}

pub(crate) async fn set_name(tx: &mut CatalogTx, id: IdentityId, name: &str) -> Result<()> {
    tx.execute("UPDATE freehold.identity SET name = $2 WHERE id = $1", &[&id.as_uuid(), &name])
        .await?;
    Ok(())
}

pub(crate) async fn set_operator(tx: &mut CatalogTx, id: IdentityId, is: bool) -> Result<()> {
    tx.execute(
        "UPDATE freehold.identity SET is_operator = $2 WHERE id = $1",
        &[&id.as_uuid(), &is],
    )
    .await?;
    Ok(())
}

pub(crate) async fn set_disabled(tx: &mut CatalogTx, id: IdentityId, is: bool) -> Result<()> {
    tx.execute(
        "UPDATE freehold.identity SET disabled_at = CASE WHEN $2 THEN now() END WHERE id = $1",
        &[&id.as_uuid(), &is],
    )
    .await?;
    Ok(())
}

/// False if another person has the address.
pub(crate) async fn set_email(tx: &mut CatalogTx, id: IdentityId, email: &str) -> Result<bool> {
    let set = tx
        .execute(
            "UPDATE freehold.identity SET email = $2 WHERE id = $1
             AND NOT EXISTS (SELECT FROM freehold.identity o WHERE o.email = $2)",
            &[&id.as_uuid(), &email],
        )
        .await?;
    Ok(set == 1)
}

/// Invalidates everything that was signed for the person until now.
pub(crate) async fn raise_epoch(tx: &mut CatalogTx, id: IdentityId) -> Result<()> {
    tx.execute("UPDATE freehold.identity SET epoch = epoch + 1 WHERE id = $1", &[&id.as_uuid()])
        .await?;
    Ok(())
}

/// Deletes the person with password, sessions, memberships and tokens.
pub(crate) async fn delete(tx: &mut CatalogTx, id: IdentityId) -> Result<()> {
    tx.execute("DELETE FROM freehold.identity WHERE id = $1", &[&id.as_uuid()]).await?;
    Ok(())
}

pub(crate) async fn find_person(tx: &mut CatalogTx, id: IdentityId) -> Result<Option<Person>> {
    let sql = format!("{PERSON} WHERE i.id = $1");
    Ok(tx.query_opt(&sql, &[&id.as_uuid()]).await?.as_ref().map(person_from_row))
}

/// A page of people, or of operators only, in the order of addresses, after a given one.
pub(crate) async fn list_people(
    tx: &mut CatalogTx,
    operators: bool,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Person>> {
    let only = if operators { "AND i.is_operator" } else { "" };
    let sql = format!("{PERSON} WHERE i.email > $1 {only} ORDER BY i.email LIMIT $2");
    let rows = tx.query(&sql, &[&after.unwrap_or(""), &limit]).await?;
    Ok(rows.iter().map(person_from_row).collect())
}

/// The operators who can sign in. Their rows stay locked: if two revoke each other at once, the second one
/// notices that it would be the last.
pub(crate) async fn lock_operators(tx: &mut CatalogTx) -> Result<Vec<IdentityId>> {
    let rows = tx
        .query(
            "SELECT id FROM freehold.identity WHERE is_operator AND disabled_at IS NULL ORDER BY id FOR NO KEY UPDATE",
            &[],
        )
        .await?;
    Ok(rows.iter().map(|row| IdentityId::from(row.get::<_, Uuid>(0))).collect())
}
