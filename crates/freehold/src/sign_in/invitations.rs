//! The right to invite, and the end of invitations whose inviter loses it.

use serde_json::json;

use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::invitations::{self, Offer};
use crate::error::Result;
use crate::model::actor::{Action, MEMBER_ROLES, Role, permits};
use crate::model::audit::AuditAction;
use crate::model::ids::{IdentityId, TenantId};
use crate::tx::CatalogTx;

/// Whether a member with the role `inviter` may invite to the role `offered`.
pub(crate) fn may_offer(inviter: Role, offered: Role) -> bool {
    permits(inviter, Action::ManageMembers) && inviter.may_grant(offered)
}

/// Ends the invitations to a tenant that a member has no right to make any more: all of them, if `role`, the
/// present one, is none.
pub(crate) async fn end_of_member(
    tx: &mut CatalogTx,
    tenant: TenantId,
    member: IdentityId,
    role: Option<Role>,
    event: impl Fn(AuditAction) -> AuditEvent,
) -> Result<()> {
    let lost = |offered: &Role| !role.is_some_and(|role| may_offer(role, *offered));
    let lost: Vec<Role> = MEMBER_ROLES.into_iter().filter(lost).collect();
    let ended = invitations::delete_of_member(tx, tenant, member, &lost).await?;
    record(tx, ended, event).await
}

/// Ends all invitations that members of a tenant made. Those by operators stay.
pub(crate) async fn end_of_members(
    tx: &mut CatalogTx,
    tenant: TenantId,
    event: impl Fn(AuditAction) -> AuditEvent,
) -> Result<()> {
    let ended = invitations::delete_of_members(tx, tenant).await?;
    record(tx, ended, event).await
}

/// Ends all invitations that a person made, as a member or as an operator.
pub(crate) async fn end_of_person(
    tx: &mut CatalogTx,
    inviter: IdentityId,
    event: impl Fn(AuditAction) -> AuditEvent,
) -> Result<()> {
    let ended = invitations::delete_by(tx, inviter).await?;
    record(tx, ended, event).await
}

async fn record(
    tx: &mut CatalogTx,
    ended: Vec<Offer>,
    event: impl Fn(AuditAction) -> AuditEvent,
) -> Result<()> {
    for offer in ended {
        let event = event(AuditAction::MemberInviteEnd).tenant(offer.tenant);
        let detail = json!({
            "email": offer.invitation.email, "role": offer.invitation.role,
            "invited_by": offer.inviter.id(),
        });
        audit::record(tx, event.detail(detail)).await?;
    }
    Ok(())
}
