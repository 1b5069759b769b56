//! `freehold.membership`: the members of each tenant, with their roles.

use uuid::Uuid;

use crate::catalog::tenants;
use crate::error::Result;
use crate::model::actor::Role;
use crate::model::ids::{IdentityId, TenantId};
use crate::model::tenant::Tenant;
use crate::tx::CatalogTx;

/// A person in a tenant.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Member {
    /// The same in every tenant that the person belongs to.
    pub id: IdentityId,
    /// In lower case.
    pub email: String,
    /// A display name; empty if none was given.
    pub name: String,
    /// The role in this tenant.
    pub role: Role,
    /// When the person joined.
    pub joined_at: jiff::Timestamp,
}

/// What is needed to admit a request.
pub(crate) struct Standing {
    pub(crate) tenant: Tenant,
    /// The identity's role in the tenant; `None` if it is not a member, or disabled.
    pub(crate) role: Option<Role>,
    /// Whether the session belongs to the identity and has not ended; false if no session was given.
    pub(crate) session_lives: bool,
}

/// The role of an identity in a tenant, and whether a session of it has not ended.
pub(crate) async fn find_standing(
    tx: CatalogTx,
    tenant: TenantId,
    identity: IdentityId,
    session: Option<Uuid>,
) -> Result<Option<Standing>> {
    let rows = tx
        .query_and_commit(
            "SELECT t.id, t.slug, t.name, t.status, t.version, t.weight, t.created_at,
                    (SELECT m.role FROM freehold.membership m JOIN freehold.identity i ON i.id = m.identity_id
                     WHERE m.tenant_id = t.id AND m.identity_id = $2 AND i.disabled_at IS NULL) AS role,
                    EXISTS (SELECT FROM freehold.session s WHERE s.id = $3 AND s.identity_id = $2
                            AND s.revoked_at IS NULL AND s.expires_at > now()) AS session_lives
             FROM freehold.tenant t WHERE t.id = $1",
            &[&tenant.as_uuid(), &identity.as_uuid(), &session],
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let role: Option<&str> = row.get("role");
    Ok(Some(Standing {
        tenant: tenants::from_row(row)?,
        role: role.map(Role::parse_in_tenant).transpose()?,
        session_lives: row.get("session_lives"),
    }))
}

/// The tenants of a person in the order of slugs, or only the tenant with a slug.
pub(crate) async fn list_tenants(
    tx: &mut CatalogTx,
    identity: IdentityId,
    slug: Option<&str>,
    limit: i64,
) -> Result<Vec<(Tenant, Role)>> {
    let rows = tx
        .query(
            "SELECT t.id, t.slug, t.name, t.status, t.version, t.weight, t.created_at, m.role
             FROM freehold.membership m JOIN freehold.tenant t ON t.id = m.tenant_id
             WHERE m.identity_id = $1 AND ($2::text IS NULL OR t.slug = $2)
             ORDER BY t.slug LIMIT $3",
            &[&identity.as_uuid(), &slug, &limit],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((tenants::from_row(row)?, Role::parse_in_tenant(row.get("role"))?)))
        .collect()
}

/// One of a person's tenants.
pub(crate) async fn find_tenant(
    tx: &mut CatalogTx,
    identity: IdentityId,
    tenant: TenantId,
) -> Result<Option<(Tenant, Role)>> {
    let row = tx
        .query_opt(
            "SELECT t.id, t.slug, t.name, t.status, t.version, t.weight, t.created_at, m.role
             FROM freehold.membership m JOIN freehold.tenant t ON t.id = m.tenant_id
             WHERE m.identity_id = $1 AND m.tenant_id = $2",
            &[&identity.as_uuid(), &tenant.as_uuid()],
        )
        .await?;
    row.map(|row| Ok((tenants::from_row(&row)?, Role::parse_in_tenant(row.get("role"))?)))
        .transpose()
}

/// A page in the order of addresses, after a given one.
pub(crate) async fn list(
    tx: &mut CatalogTx,
    tenant: TenantId,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Member>> {
    let rows = tx
        .query(
            "SELECT i.id, i.email, i.name, m.role, m.created_at
             FROM freehold.membership m JOIN freehold.identity i ON i.id = m.identity_id
             WHERE m.tenant_id = $1 AND i.email > $2 ORDER BY i.email LIMIT $3",
            &[&tenant.as_uuid(), &after.unwrap_or(""), &limit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Member {
                id: IdentityId::from(row.get::<_, uuid::Uuid>(0)),
                email: row.get(1),
                name: row.get(2),
                role: Role::parse_in_tenant(row.get(3))?,
                joined_at: row.get(4),
            })
        })
        .collect()
}

/// The role of a member, whose row stays locked until the transaction ends.
pub(crate) async fn lock(
    tx: &mut CatalogTx,
    tenant: TenantId,
    identity: IdentityId,
) -> Result<Option<Role>> {
    let row = tx
        .query_opt(
            "SELECT role FROM freehold.membership WHERE tenant_id = $1 AND identity_id = $2 FOR UPDATE",
            &[&tenant.as_uuid(), &identity.as_uuid()],
        )
        .await?;
    row.map(|row| Role::parse_in_tenant(row.get(0))).transpose()
}

/// The role of a member.
pub(crate) async fn find_role(
    tx: &mut CatalogTx,
    tenant: TenantId,
    identity: IdentityId,
) -> Result<Option<Role>> {
    let row = tx
        .query_opt(
            "SELECT role FROM freehold.membership WHERE tenant_id = $1 AND identity_id = $2",
            &[&tenant.as_uuid(), &identity.as_uuid()],
        )
        .await?;
    row.map(|row| Role::parse_in_tenant(row.get(0))).transpose()
}

/// The number of owners. Their rows stay locked: if two leave at once, the second one notices that it would
/// be the last.
pub(crate) async fn lock_owners(tx: &mut CatalogTx, tenant: TenantId) -> Result<usize> {
    let rows = tx
        .query(
            "SELECT identity_id FROM freehold.membership WHERE tenant_id = $1 AND role = 'owner'
             ORDER BY identity_id FOR UPDATE",
            &[&tenant.as_uuid()],
        )
        .await?;
    Ok(rows.len())
}

/// False if the identity is already a member.
pub(crate) async fn insert(
    tx: &mut CatalogTx,
    tenant: TenantId,
    identity: IdentityId,
    role: Role,
) -> Result<bool> {
    let inserted = tx
        .execute(
            "INSERT INTO freehold.membership (tenant_id, identity_id, role) VALUES ($1, $2, $3)
             ON CONFLICT DO NOTHING",
            &[&tenant.as_uuid(), &identity.as_uuid(), &role.as_str()],
        )
        .await?;
    Ok(inserted == 1)
}

pub(crate) async fn set_role(
    tx: &mut CatalogTx,
    tenant: TenantId,
    identity: IdentityId,
    role: Role,
) -> Result<()> {
    tx.execute(
        "UPDATE freehold.membership SET role = $3 WHERE tenant_id = $1 AND identity_id = $2",
        &[&tenant.as_uuid(), &identity.as_uuid(), &role.as_str()],
    )
    .await?;
    Ok(())
}

pub(crate) async fn delete(
    tx: &mut CatalogTx,
    tenant: TenantId,
    identity: IdentityId,
) -> Result<()> {
    tx.execute(
        "DELETE FROM freehold.membership WHERE tenant_id = $1 AND identity_id = $2",
        &[&tenant.as_uuid(), &identity.as_uuid()],
    )
    .await?;
    Ok(())
}

/// Whether the person with this address belongs to the tenant.
pub(crate) async fn is_member(tx: &mut CatalogTx, tenant: TenantId, email: &str) -> Result<bool> {
    let row = tx
        .query_opt(
            "SELECT 1 FROM freehold.membership m JOIN freehold.identity i ON i.id = m.identity_id
             WHERE m.tenant_id = $1 AND i.email = $2",
            &[&tenant.as_uuid(), &email],
        )
        .await?;
    Ok(row.is_some())
}

/// The slugs of at most 20 tenants whose only owner is this person. The rows of the owners of the person's
/// tenants stay locked: if two owners are removed at once, the second one is found to be the last.
pub(crate) async fn list_owned_alone(
    tx: &mut CatalogTx,
    identity: IdentityId,
) -> Result<Vec<String>> {
    tx.query(
        "SELECT FROM freehold.membership WHERE role = 'owner' AND tenant_id IN
           (SELECT tenant_id FROM freehold.membership WHERE identity_id = $1 AND role = 'owner')
         ORDER BY tenant_id, identity_id FOR UPDATE",
        &[&identity.as_uuid()],
    )
    .await?;
    let rows = tx
        .query(
            "SELECT t.slug FROM freehold.membership m JOIN freehold.tenant t ON t.id = m.tenant_id
             WHERE m.identity_id = $1 AND m.role = 'owner'
               AND NOT EXISTS (SELECT FROM freehold.membership o WHERE o.tenant_id = m.tenant_id
                               AND o.role = 'owner' AND o.identity_id <> $1)
             ORDER BY t.slug LIMIT 20",
            &[&identity.as_uuid()],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Deletes all memberships of a person, and returns them.
pub(crate) async fn delete_of(
    tx: &mut CatalogTx,
    identity: IdentityId,
) -> Result<Vec<(TenantId, Role)>> {
    let sql = "DELETE FROM freehold.membership WHERE identity_id = $1 RETURNING tenant_id, role";
    let rows = tx.query(sql, &[&identity.as_uuid()]).await?;
    rows.iter()
        .map(|row| Ok((TenantId::from(row.get::<_, Uuid>(0)), Role::parse_in_tenant(row.get(1))?)))
        .collect()
}
