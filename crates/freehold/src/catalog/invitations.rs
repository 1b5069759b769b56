//! `freehold.invitation`: memberships that wait to be accepted.

use jiff::Timestamp;
use uuid::Uuid;

use crate::actor::Role;
use crate::error::Result;
use crate::ids::{IdentityId, TenantId};
use crate::tx::CatalogTx;

/// An offer of membership, as [`Freehold::list_invitations`](crate::Freehold::list_invitations)
/// shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Invitation {
    /// Names it, for taking it back. It is not the token and opens nothing.
    pub id: Uuid,
    /// Whom it is for, in lower case.
    pub email: String,
    /// The role it gives.
    pub role: Role,
    /// Cannot be accepted from then on.
    pub expires_at: Timestamp,
}

/// A later invitation of the same e-mail takes the place of the earlier one.
pub(crate) async fn upsert(
    tx: &mut CatalogTx,
    tenant: TenantId,
    invitation: &Invitation,
    token_hash: &[u8; 32],
    invited_by: IdentityId,
) -> Result<()> {
    tx.execute(
        "INSERT INTO invitation (id, tenant_id, email, role, token_hash, invited_by, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT ON CONSTRAINT invitation_email_key DO UPDATE
         SET id = $1, role = $4, token_hash = $5, invited_by = $6, expires_at = $7, created_at = now()",
        &[
            &invitation.id,
            &tenant.as_uuid(),
            &invitation.email,
            &invitation.role.as_str(),
            &token_hash.as_slice(),
            &invited_by.as_uuid(),
            &invitation.expires_at,
        ],
    )
    .await?;
    Ok(())
}

pub(crate) async fn list(
    tx: &mut CatalogTx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<Invitation>> {
    let rows = tx
        .query(
            "SELECT id, email, role, expires_at FROM invitation
             WHERE tenant_id = $1 AND expires_at > now() ORDER BY email LIMIT $2",
            &[&tenant.as_uuid(), &limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Invitation {
                id: row.get(0),
                email: row.get(1),
                role: Role::parse_in_tenant(row.get(2))?,
                expires_at: row.get(3),
            })
        })
        .collect()
}

/// The role it offers, if there is such an invitation; its row stays locked.
pub(crate) async fn lock(tx: &mut CatalogTx, tenant: TenantId, id: Uuid) -> Result<Option<Role>> {
    let row = tx
        .query_opt(
            "SELECT role FROM invitation WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
            &[&tenant.as_uuid(), &id],
        )
        .await?;
    row.map(|row| Role::parse_in_tenant(row.get(0))).transpose()
}

pub(crate) async fn delete(tx: &mut CatalogTx, tenant: TenantId, id: Uuid) -> Result<()> {
    tx.execute(
        "DELETE FROM invitation WHERE tenant_id = $1 AND id = $2",
        &[&tenant.as_uuid(), &id],
    )
    .await?;
    Ok(())
}

/// Takes the invitation that a token stands for: gone afterwards, so a token is good once.
pub(crate) async fn take(
    tx: &mut CatalogTx,
    token_hash: &[u8; 32],
) -> Result<Option<(TenantId, String, Role)>> {
    let row = tx
        .query_opt(
            "DELETE FROM invitation WHERE token_hash = $1 AND expires_at > now()
             RETURNING tenant_id, email, role",
            &[&token_hash.as_slice()],
        )
        .await?;
    row.map(|row| {
        let tenant = TenantId::from(row.get::<_, Uuid>(0));
        Ok((tenant, row.get(1), Role::parse_in_tenant(row.get(2))?))
    })
    .transpose()
}
