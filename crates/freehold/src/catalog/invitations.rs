//! `freehold.invitation`: memberships that wait to be accepted.

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::actor::Role;
use crate::model::ids::{IdentityId, TenantId};
use crate::tx::CatalogTx;
use crate::wire::Row;

/// How long its link is valid.
const LIFETIME: &str = "interval '7 days'";

/// An invitation, as [`Invitations::list`](crate::control::invitations::Invitations::list) returns it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Invitation {
    /// Identifies it, for withdrawing it. It is not the token and gives no access.
    pub id: Uuid,
    /// The recipient, in lower case.
    pub email: String,
    /// The role it gives.
    pub role: Role,
    /// It cannot be accepted after this time.
    pub expires_at: Timestamp,
}

/// The person who invites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inviter {
    Member(IdentityId),
    /// An operator, or [`IdentityId::SYSTEM`] for the command line.
    Operator(IdentityId),
}

impl Inviter {
    pub(crate) fn id(self) -> IdentityId {
        match self {
            Inviter::Member(id) | Inviter::Operator(id) => id,
        }
    }

    fn read(id: Uuid, by_operator: bool) -> Inviter {
        let id = IdentityId::from(id);
        if by_operator { Inviter::Operator(id) } else { Inviter::Member(id) }
    }
}

/// An invitation with its inviter.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) invitation: Invitation,
    pub(crate) tenant: TenantId,
    pub(crate) inviter: Inviter,
}

const COLUMNS: &str =
    "v.id, v.email, v.role, v.expires_at, v.tenant_id, v.invited_by, v.by_operator";

fn from_row(row: &Row) -> Result<Offer> {
    Ok(Offer {
        invitation: Invitation {
            id: row.get(0),
            email: row.get(1),
            role: Role::parse_in_tenant(row.get(2))?,
            expires_at: row.get(3),
        },
        tenant: TenantId::from(row.get::<_, Uuid>(4)),
        inviter: Inviter::read(row.get(5), row.get(6)),
    })
}

/// A later invitation of the same address replaces the earlier one.
pub(crate) async fn upsert(
    tx: &mut CatalogTx,
    tenant: TenantId,
    email: &str,
    role: Role,
    inviter: Inviter,
) -> Result<Invitation> {
    let sql = format!(
        "INSERT INTO freehold.invitation AS v (id, tenant_id, email, role, invited_by, by_operator, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, now() + {LIFETIME})
         ON CONFLICT ON CONSTRAINT invitation_email_key DO UPDATE
         SET id = $1, role = $4, token_hash = NULL, invited_by = $5, by_operator = $6,
             created_at = now(), expires_at = now() + {LIFETIME}
         RETURNING {COLUMNS}"
    );
    let by_operator = matches!(inviter, Inviter::Operator(_));
    let row = tx
        .query_opt(
            &sql,
            &[
                &Uuid::new_v4(),
                &tenant.as_uuid(),
                &email,
                &role.as_str(),
                &inviter.id().as_uuid(),
                &by_operator,
            ],
        )
        .await?
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the invitation was not written"))?;
    Ok(from_row(&row)?.invitation)
}

/// Invitations that have not expired, with the current role of their inviter: `None` if the inviter is no
/// longer a member.
pub(crate) async fn list(
    tx: &mut CatalogTx,
    tenant: TenantId,
    after: &str,
    limit: i64,
) -> Result<Vec<(Offer, Option<Role>)>> {
    let sql = format!(
        "SELECT {COLUMNS}, m.role FROM freehold.invitation v
         LEFT JOIN freehold.membership m ON m.tenant_id = v.tenant_id AND m.identity_id = v.invited_by
         WHERE v.tenant_id = $1 AND v.expires_at > now() AND v.email > $3 ORDER BY v.email LIMIT $2"
    );
    let rows = tx.query(&sql, &[&tenant.as_uuid(), &limit, &after]).await?;
    rows.iter()
        .map(|row| {
            let role: Option<&str> = row.get(7);
            Ok((from_row(row)?, role.map(Role::parse_in_tenant).transpose()?))
        })
        .collect()
}

/// An invitation of the tenant; its row stays locked.
pub(crate) async fn lock(tx: &mut CatalogTx, tenant: TenantId, id: Uuid) -> Result<Option<Offer>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM freehold.invitation v WHERE v.tenant_id = $1 AND v.id = $2 FOR UPDATE"
    );
    tx.query_opt(&sql, &[&tenant.as_uuid(), &id]).await?.as_ref().map(from_row).transpose()
}

/// The tenant's invitation of an address; its row stays locked.
pub(crate) async fn lock_of(
    tx: &mut CatalogTx,
    tenant: TenantId,
    email: &str,
) -> Result<Option<Offer>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM freehold.invitation v WHERE v.tenant_id = $1 AND v.email = $2 FOR UPDATE"
    );
    tx.query_opt(&sql, &[&tenant.as_uuid(), &email]).await?.as_ref().map(from_row).transpose()
}

pub(crate) async fn delete(tx: &mut CatalogTx, tenant: TenantId, id: Uuid) -> Result<()> {
    tx.execute(
        "DELETE FROM freehold.invitation WHERE tenant_id = $1 AND id = $2",
        &[&tenant.as_uuid(), &id],
    )
    .await?;
    Ok(())
}

/// Deletes the invitations that a person made, in every tenant.
pub(crate) async fn delete_by(tx: &mut CatalogTx, inviter: IdentityId) -> Result<Vec<Offer>> {
    let sql =
        format!("DELETE FROM freehold.invitation v WHERE v.invited_by = $1 RETURNING {COLUMNS}");
    tx.query(&sql, &[&inviter.as_uuid()]).await?.iter().map(from_row).collect()
}

/// Deletes the invitations to these roles that a member made.
pub(crate) async fn delete_of_member(
    tx: &mut CatalogTx,
    tenant: TenantId,
    member: IdentityId,
    roles: &[Role],
) -> Result<Vec<Offer>> {
    let sql = format!(
        "DELETE FROM freehold.invitation v WHERE v.tenant_id = $1 AND v.invited_by = $2 AND NOT v.by_operator
           AND v.role = ANY($3) RETURNING {COLUMNS}"
    );
    let roles: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    let deleted = tx.query(&sql, &[&tenant.as_uuid(), &member.as_uuid(), &roles]).await?;
    deleted.iter().map(from_row).collect()
}

/// Deletes the invitations that members of a tenant made.
pub(crate) async fn delete_of_members(tx: &mut CatalogTx, tenant: TenantId) -> Result<Vec<Offer>> {
    let sql = format!(
        "DELETE FROM freehold.invitation v WHERE v.tenant_id = $1 AND NOT v.by_operator RETURNING {COLUMNS}"
    );
    tx.query(&sql, &[&tenant.as_uuid()]).await?.iter().map(from_row).collect()
}

/// Stores the token of the message that is now being written. `None` if the invitation was withdrawn or has
/// expired.
pub(crate) async fn set_token(
    tx: &mut CatalogTx,
    id: Uuid,
    token_hash: &[u8; 32],
) -> Result<Option<Offer>> {
    let sql = format!(
        "UPDATE freehold.invitation v SET token_hash = $2 WHERE v.id = $1 AND v.expires_at > now()
         RETURNING {COLUMNS}"
    );
    tx.query_opt(&sql, &[&id, &token_hash.as_slice()]).await?.as_ref().map(from_row).transpose()
}

/// Makes the tokens of all invitations to an address void. The invitations stay: sent again, they get new ones.
pub(crate) async fn forget_tokens(tx: &mut CatalogTx, email: &str) -> Result<()> {
    let sql = "UPDATE freehold.invitation SET token_hash = NULL WHERE email = $1";
    tx.execute(sql, &[&email]).await?;
    Ok(())
}

/// The invitation that a token belongs to.
pub(crate) async fn find(tx: &mut CatalogTx, token_hash: &[u8; 32]) -> Result<Option<Offer>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM freehold.invitation v WHERE v.token_hash = $1 AND v.expires_at > now()"
    );
    tx.query_opt(&sql, &[&token_hash.as_slice()]).await?.as_ref().map(from_row).transpose()
}

/// Deletes and returns the invitation that a token belongs to, so a token works once.
pub(crate) async fn take(tx: &mut CatalogTx, token_hash: &[u8; 32]) -> Result<Option<Offer>> {
    let sql = format!(
        "DELETE FROM freehold.invitation v WHERE v.token_hash = $1 AND v.expires_at > now() RETURNING {COLUMNS}"
    );
    tx.query_opt(&sql, &[&token_hash.as_slice()]).await?.as_ref().map(from_row).transpose()
}

/// Deletes invitations that expired a month ago.
pub(crate) async fn prune(tx: &mut CatalogTx) -> Result<()> {
    tx.execute(
        "DELETE FROM freehold.invitation WHERE expires_at < now() - interval '30 days'",
        &[],
    )
    .await?;
    Ok(())
}
