//! The members of a tenant, and invitations of new ones.

use serde_json::json;
use uuid::Uuid;

use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::invitations::{Inviter, Offer};
use crate::catalog::outbox::{self, Full, Letter};
use crate::catalog::{identities, invitations, memberships};
use crate::control::{check_after, clamp_page};
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::actor::{Action, Role, permits, require};
use crate::model::audit::AuditAction;
use crate::model::context::TenantContext;
use crate::model::ids::{Email, IdentityId, TenantId};
use crate::model::mail::MailKind;
use crate::tx::CatalogTx;

pub use crate::catalog::invitations::Invitation;
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
        // Their invitations end with the right to invite. If they keep that right, each invitation is checked
        // again when it is accepted.
        if !permits(role, Action::ManageMembers) {
            invitations::delete_by(&mut tx, member, Some(context.tenant())).await?;
        }
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
        invitations::delete_by(&mut tx, member, Some(context.tenant())).await?;
        let event = AuditEvent::in_tenant(AuditAction::MemberRemove, context).to(member, &email);
        audit::record(&mut tx, event.detail(json!({"role": current}))).await?;
        tx.commit().await?;
        tracing::info!(tenant = %context.tenant(), actor = %context.actor().id, %member, "member removed");
        Ok(())
    }
}

/// Handle for creating, listing, resending and revoking invitations to a tenant: [`Freehold::invitations`].
#[derive(Clone, Copy)]
pub struct Invitations<'a>(&'a Freehold);

impl Freehold {
    /// Creates, lists, resends and revokes invitations to a tenant.
    pub fn invitations(&self) -> Invitations<'_> {
        Invitations(self)
    }
}

impl Invitations<'_> {
    /// Invites a person by e-mail, and sends a message. A reader of the mailbox can accept within seven days,
    /// as long as the inviter still has the right to invite. A second invitation of the same address replaces
    /// the first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]; [`ErrorKind::Forbidden`] if the actor may not manage members, the role is
    /// above their own, or the invitation to be replaced was made by a member with a higher role;
    /// [`ErrorKind::Conflict`] if the person is a member; [`ErrorKind::RateLimited`] after too many messages.
    pub async fn create(
        self,
        context: &TenantContext,
        email: &str,
        role: Role,
    ) -> Result<Invitation> {
        self.0.require_write(context, Action::ManageMembers)?;
        if !context.role().may_grant(role) {
            return Err(self.0.refused_write(context, above_own_role()));
        }
        let email: Email = email.parse()?;
        let tenant = context.tenant();
        let mut tx = self.0.catalog_of(context).await?;
        if memberships::is_member(&mut tx, tenant, email.as_str()).await? {
            return Err(
                Error::new(ErrorKind::Conflict, "this person is a member already").field("email")
            );
        }
        if let Some(former) = invitations::lock_of(&mut tx, tenant, email.as_str()).await? {
            self.0.require_above(context, &mut tx, &former).await?;
        }
        let inviter = Inviter::Member(context.actor().id);
        let made = invitations::upsert(&mut tx, tenant, email.as_str(), role, inviter).await?;
        send(&mut tx, tenant, &made).await?;
        let event = AuditEvent::in_tenant(AuditAction::MemberInvite, context);
        audit::record(&mut tx, event.detail(json!({"email": made.email, "role": role}))).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Sends the message of an invitation again; the former link becomes invalid.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Forbidden`] as for
    /// [`revoke`](crate::control::members::Invitations::revoke); [`ErrorKind::RateLimited`] after too many
    /// messages.
    pub async fn resend(self, context: &TenantContext, id: Uuid) -> Result<Invitation> {
        self.0.require_write(context, Action::ManageMembers)?;
        let mut tx = self.0.catalog_of(context).await?;
        let offer = invitations::lock(&mut tx, context.tenant(), id).await?;
        let offer = offer.ok_or_else(no_such_invitation)?;
        self.0.require_above(context, &mut tx, &offer).await?;
        send(&mut tx, context.tenant(), &offer.invitation).await?;
        let event = AuditEvent::in_tenant(AuditAction::MemberInviteAgain, context);
        let detail = json!({"email": offer.invitation.email, "role": offer.invitation.role});
        audit::record(&mut tx, event.detail(detail)).await?;
        tx.commit().await?;
        Ok(offer.invitation)
    }

    /// Lists the invitations that can still be accepted, in the order of e-mails.
    ///
    /// `limit` defaults to 50 and is at most [`PAGE_MAX`](crate::control::PAGE_MAX).
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] if the role may not manage members.
    pub async fn list(
        self,
        context: &TenantContext,
        limit: Option<i64>,
    ) -> Result<Vec<Invitation>> {
        require(context.role(), Action::ManageMembers)?;
        let mut tx = self.0.catalog_of(context).await?;
        let list = invitations::list(&mut tx, context.tenant(), clamp_page(limit)).await?;
        tx.commit().await?;
        let holds = |offer: &Offer, inviter: Option<Role>| match offer.inviter {
            Inviter::Operator(_) => true,
            Inviter::Member(_) => {
                inviter.is_some_and(|role| may_offer(role, offer.invitation.role))
            }
        };
        let list = list.into_iter().filter(|(offer, inviter)| holds(offer, *inviter));
        Ok(list.map(|(offer, _)| offer.invitation).collect())
    }

    /// Revokes an invitation: its token becomes invalid.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Forbidden`] if it offers a role above the actor's own, or was
    /// made by a member with a higher role.
    pub async fn revoke(self, context: &TenantContext, id: Uuid) -> Result<()> {
        self.0.require_write(context, Action::ManageMembers)?;
        let mut tx = self.0.catalog_of(context).await?;
        let offer = invitations::lock(&mut tx, context.tenant(), id).await?;
        let offer = offer.ok_or_else(no_such_invitation)?;
        self.0.require_above(context, &mut tx, &offer).await?;
        invitations::delete(&mut tx, context.tenant(), id).await?;
        let event = AuditEvent::in_tenant(AuditAction::MemberUninvite, context);
        audit::record(&mut tx, event.detail(json!({"email": offer.invitation.email}))).await?;
        tx.commit().await
    }
}

impl Freehold {
    /// Refuses access to an invitation if the actor could not have made it, or has a lower role than its
    /// maker.
    async fn require_above(
        &self,
        context: &TenantContext,
        tx: &mut CatalogTx,
        offer: &Offer,
    ) -> Result<()> {
        let maker = match offer.inviter {
            // Counts as an owner, since only owners may make owners.
            Inviter::Operator(_) => Some(Role::Owner),
            Inviter::Member(id) => memberships::lock(tx, context.tenant(), id).await?,
        };
        let above = |role: Role| !context.role().may_grant(role);
        if above(offer.invitation.role) || maker.is_some_and(above) {
            return Err(self.refused_write(context, above_own_role()));
        }
        Ok(())
    }
}

async fn send(tx: &mut CatalogTx, tenant: TenantId, invitation: &Invitation) -> Result<()> {
    let letter = Letter::new(MailKind::Invitation, &invitation.email);
    let letter = letter.of_tenant(tenant).about(invitation.id);
    match outbox::has_room(tx, &letter).await? {
        Ok(()) => outbox::insert(tx, &letter).await,
        Err(Full::Address) => Err(Error::rate_limited(3600)),
        Err(Full::Tenant) => Err(Error::rate_limited(24 * 3600)),
    }
}

async fn email_of(tx: &mut CatalogTx, member: IdentityId) -> Result<String> {
    Ok(identities::find(tx, member).await?.map(|identity| identity.email).unwrap_or_default())
}

fn no_such_invitation() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such invitation")
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

/// Whether a member with the role `inviter` may invite to the role `offered`.
pub(super) fn may_offer(inviter: Role, offered: Role) -> bool {
    permits(inviter, Action::ManageMembers) && inviter.may_grant(offered)
}
