//! The members of a tenant.

use serde_json::json;

use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::{identities, memberships};
use crate::control::{check_after, clamp_page};
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::actor::{Action, Role, require};
use crate::model::audit::AuditAction;
use crate::model::context::TenantContext;
use crate::model::ids::IdentityId;
use crate::sign_in::invitations;
use crate::tx::CatalogTx;

pub use crate::catalog::memberships::Member;

/// Handle for listing and removing members of a tenant and changing their roles: [`Freehold::members`].
#[derive(Clone, Copy)]
pub struct Members<'a>(&'a Freehold);

impl Freehold {
    /// Lists and removes members of a tenant, and changes their roles.
    pub fn members(&self) -> Members<'_> {
        Members(self)
    }
}

impl Members<'_> {
    /// Pages through the members in the order of e-mails, beginning after `after`. `limit` defaults to 50 and
    /// is at most [`PAGE_MAX`](crate::control::PAGE_MAX).
    pub async fn list(
        self,
        context: &TenantContext,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<Member>> {
        require(context.role(), Action::ListMembers)?;
        let after = check_after(after)?;
        let mut tx = self.0.catalog_of(context).await?;
        let members =
            memberships::list(&mut tx, context.tenant(), after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(members)
    }

    /// Changes a member's role. The last owner's cannot be changed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Forbidden`] if the actor may not manage members, or one
    /// of the two roles is above their own; [`ErrorKind::Conflict`] for the last owner.
    pub async fn change_role(
        self,
        context: &TenantContext,
        member: IdentityId,
        role: Role,
    ) -> Result<()> {
        self.0.require_write(context, Action::ManageMembers)?;
        let mut tx = self.0.catalog_of(context).await?;
        let owners = memberships::lock_owners(&mut tx, context.tenant()).await?;
        let current = memberships::lock(&mut tx, context.tenant(), member)
            .await?
            .ok_or_else(no_such_member)?;
        if !context.role().may_grant(current) || !context.role().may_grant(role) {
            return Err(self.0.refused_write(context, above_own_role()));
        }
        if current == Role::Owner && role != Role::Owner && owners == 1 {
            return Err(last_owner());
        }
        memberships::set_role(&mut tx, context.tenant(), member, role).await?;
        // Another server may still make one by the former role; so each is checked again when it is accepted.
        let ended = |action| AuditEvent::in_tenant(action, context);
        invitations::end_of_member(&mut tx, context.tenant(), member, Some(role), ended).await?;
        let event = AuditEvent::in_tenant(AuditAction::MemberRole, context)
            .to(member, &email_of(&mut tx, member).await?);
        audit::record(&mut tx, event.detail(json!({"from": current, "to": role}))).await?;
        tx.commit().await?;
        tracing::info!(tenant = %context.tenant(), actor = %context.actor().id, %member,
            role = role.as_str(), "member's role changed");
        Ok(())
    }

    /// Ends another person's membership, or the caller's own. The last owner cannot be removed.
    ///
    /// # Errors
    /// As for [`change_role`](crate::control::members::Members::change_role).
    pub async fn remove(self, context: &TenantContext, member: IdentityId) -> Result<()> {
        let leaves = member == context.actor().id;
        if !leaves {
            self.0.require_write(context, Action::ManageMembers)?;
        }
        let mut tx = self.0.catalog_of(context).await?;
        let owners = memberships::lock_owners(&mut tx, context.tenant()).await?;
        let current = memberships::lock(&mut tx, context.tenant(), member)
            .await?
            .ok_or_else(no_such_member)?;
        if !leaves && !context.role().may_grant(current) {
            return Err(self.0.refused_write(context, above_own_role()));
        }
        if current == Role::Owner && owners == 1 {
            return Err(last_owner());
        }
        let email = email_of(&mut tx, member).await?;
        memberships::delete(&mut tx, context.tenant(), member).await?;
        let ended = |action| AuditEvent::in_tenant(action, context);
        invitations::end_of_member(&mut tx, context.tenant(), member, None, ended).await?;
        let event = AuditEvent::in_tenant(AuditAction::MemberRemove, context).to(member, &email);
        audit::record(&mut tx, event.detail(json!({"role": current}))).await?;
        tx.commit().await?;
        tracing::info!(tenant = %context.tenant(), actor = %context.actor().id, %member, "member removed");
        Ok(())
    }
}

async fn email_of(tx: &mut CatalogTx, member: IdentityId) -> Result<String> {
    Ok(identities::find(tx, member).await?.map(|identity| identity.email).unwrap_or_default())
}

fn no_such_member() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such member")
}

pub(super) fn above_own_role() -> Error {
    Error::new(ErrorKind::Forbidden, "a role above your own can be neither given nor taken")
}

fn last_owner() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the last owner cannot leave or lose the role; make another owner first",
    )
}
