//! The members of a tenant, and invitations to become one.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use uuid::Uuid;

use crate::Freehold;
use crate::actor::{Action, Role, require};
use crate::catalog::{invitations, memberships};
use crate::context::TenantContext;
use crate::control::{check_after, clamp_page};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Email, IdentityId};
use crate::tokens::{OpaqueKind, OpaqueToken};

pub use crate::catalog::invitations::Invitation;
pub use crate::catalog::memberships::Member;

const INVITATION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

impl Freehold {
    /// Pages through the members in the order of e-mails, beginning after one. `limit` is 50 if not
    /// given and [`PAGE_MAX`](crate::control::PAGE_MAX) at most.
    pub async fn list_members(
        &self,
        context: &TenantContext,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<Member>> {
        require(context.role(), Action::ListMembers)?;
        let after = check_after(after)?;
        let mut tx = self.catalog_of(context).await?;
        let members =
            memberships::list(&mut tx, context.tenant(), after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(members)
    }

    /// Gives a member another role. The last owner keeps theirs.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Forbidden`] if the actor may not manage members, or one
    /// of the two roles is above their own; [`ErrorKind::Conflict`] for the last owner.
    pub async fn change_member_role(
        &self,
        context: &TenantContext,
        member: IdentityId,
        role: Role,
    ) -> Result<()> {
        self.require_write(context, Action::ManageMembers)?;
        let mut tx = self.catalog_of(context).await?;
        let owners = memberships::lock_owners(&mut tx, context.tenant()).await?;
        let current = memberships::lock(&mut tx, context.tenant(), member)
            .await?
            .ok_or_else(no_such_member)?;
        if !context.role().may_grant(current) || !context.role().may_grant(role) {
            return Err(self.refused_write(context, above_own_role()));
        }
        if current == Role::Owner && role != Role::Owner && owners == 1 {
            return Err(last_owner());
        }
        memberships::set_role(&mut tx, context.tenant(), member, role).await?;
        tx.commit().await?;
        tracing::info!(tenant = %context.tenant(), actor = %context.actor().id, %member,
            role = role.as_str(), "member's role changed");
        Ok(())
    }

    /// Ends a membership: somebody else's, or one's own. The last owner stays.
    ///
    /// # Errors
    /// As for [`change_member_role`](Self::change_member_role).
    pub async fn remove_member(&self, context: &TenantContext, member: IdentityId) -> Result<()> {
        let leaves = member == context.actor().id;
        if !leaves {
            self.require_write(context, Action::ManageMembers)?;
        }
        let mut tx = self.catalog_of(context).await?;
        let owners = memberships::lock_owners(&mut tx, context.tenant()).await?;
        let current = memberships::lock(&mut tx, context.tenant(), member)
            .await?
            .ok_or_else(no_such_member)?;
        if !leaves && !context.role().may_grant(current) {
            return Err(self.refused_write(context, above_own_role()));
        }
        if current == Role::Owner && owners == 1 {
            return Err(last_owner());
        }
        memberships::delete(&mut tx, context.tenant(), member).await?;
        tx.commit().await?;
        tracing::info!(tenant = %context.tenant(), actor = %context.actor().id, %member, "member removed");
        Ok(())
    }

    /// Invites somebody by e-mail. The token is returned once, for the caller to deliver; whoever
    /// holds it can accept, within seven days. A second invitation of an e-mail replaces the first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]; [`ErrorKind::Forbidden`] if the actor may not manage members, or
    /// the role is above their own; [`ErrorKind::Conflict`] for a member.
    pub async fn invite_member(
        &self,
        context: &TenantContext,
        email: &str,
        role: Role,
    ) -> Result<(Invitation, OpaqueToken)> {
        self.require_write(context, Action::ManageMembers)?;
        if !context.role().may_grant(role) {
            return Err(self.refused_write(context, above_own_role()));
        }
        let email: Email = email.parse()?;
        let token = OpaqueToken::generate(OpaqueKind::Invitation);
        let expires_at =
            Timestamp::try_from(SystemTime::now() + INVITATION_LIFETIME).map_err(|source| {
                Error::new(ErrorKind::Internal, "the clock is out of range").because(source)
            })?;
        let invitation =
            Invitation { id: Uuid::new_v4(), email: email.as_str().to_owned(), role, expires_at };
        let mut tx = self.catalog_of(context).await?;
        if memberships::is_member(&mut tx, context.tenant(), &invitation.email).await? {
            return Err(
                Error::new(ErrorKind::Conflict, "this person is a member already").field("email")
            );
        }
        let actor = context.actor().id;
        invitations::upsert(&mut tx, context.tenant(), &invitation, &token.hash(), actor).await?;
        tx.commit().await?;
        Ok((invitation, token))
    }

    /// Lists the invitations that can still be accepted, in the order of e-mails.
    ///
    /// `limit` is 50 if not given and [`PAGE_MAX`](crate::control::PAGE_MAX) at most.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] if the role may not manage members.
    pub async fn list_invitations(
        &self,
        context: &TenantContext,
        limit: Option<i64>,
    ) -> Result<Vec<Invitation>> {
        require(context.role(), Action::ManageMembers)?;
        let mut tx = self.catalog_of(context).await?;
        let list = invitations::list(&mut tx, context.tenant(), clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// Takes an invitation back: its token opens nothing any more.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Forbidden`] if it offers a role above the actor's own.
    pub async fn revoke_invitation(&self, context: &TenantContext, id: Uuid) -> Result<()> {
        self.require_write(context, Action::ManageMembers)?;
        let mut tx = self.catalog_of(context).await?;
        let role = invitations::lock(&mut tx, context.tenant(), id)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such invitation"))?;
        if !context.role().may_grant(role) {
            return Err(self.refused_write(context, above_own_role()));
        }
        invitations::delete(&mut tx, context.tenant(), id).await?;
        tx.commit().await
    }
}

fn no_such_member() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such member")
}

fn above_own_role() -> Error {
    Error::new(ErrorKind::Forbidden, "nobody gives or takes a role above their own")
}

fn last_owner() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the last owner cannot leave or lose the role; make another owner first",
    )
}
