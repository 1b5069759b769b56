//! Invitations to a tenant: by its members, and as operators see them.

use serde_json::json;
use uuid::Uuid;

use super::members::above_own_role;
use super::tenants::no_such_tenant;
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::invitations::{Inviter, Offer};
use crate::catalog::outbox::{self, Full, Letter};
use crate::catalog::{invitations, memberships, tenants};
use crate::control::{check_after, clamp_page};
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::model::actor::{Action, Role, require};
use crate::model::audit::AuditAction;
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::{Email, IdentityId, TenantId};
use crate::model::mail::MailKind;
use crate::sign_in::invitations::may_offer;
use crate::tx::CatalogTx;

pub use crate::catalog::invitations::Invitation;

/// An invitation as operators see it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TenantInvitation {
    /// The invitation.
    #[serde(flatten)]
    pub invitation: Invitation,
    /// The person who invites; [`IdentityId::SYSTEM`] for the command line.
    pub invited_by: IdentityId,
    /// Whether that person invites as an operator rather than as a member.
    pub by_operator: bool,
}

impl From<Offer> for TenantInvitation {
    fn from(offer: Offer) -> Self {
        TenantInvitation {
            by_operator: matches!(offer.inviter, Inviter::Operator(_)),
            invited_by: offer.inviter.id(),
            invitation: offer.invitation,
        }
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
    /// [`revoke`](crate::control::invitations::Invitations::revoke); [`ErrorKind::RateLimited`] after too many
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
        let list = invitations::list(&mut tx, context.tenant(), "", clamp_page(limit)).await?;
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
        let detail = json!({"email": offer.invitation.email, "role": offer.invitation.role});
        audit::record(&mut tx, event.detail(detail)).await?;
        tx.commit().await
    }

    /// Pages through the invitations to a tenant that have not expired, by members and operators, in the
    /// order of e-mails, beginning after `after`. `limit` defaults to 50 and is at most
    /// [`PAGE_MAX`](crate::control::PAGE_MAX).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such tenant.
    pub async fn list_of(
        self,
        context: &OperatorContext,
        tenant: TenantId,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<TenantInvitation>> {
        let after = check_after(after)?.unwrap_or_default();
        let mut tx = self.0.catalog(context).await?;
        tenants::find(&mut tx, tenant).await?.ok_or_else(no_such_tenant)?;
        let list = invitations::list(&mut tx, tenant, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list.into_iter().map(|(offer, _)| offer.into()).collect())
    }

    /// The tenant's invitation of an address.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn find_id(
        self,
        context: &OperatorContext,
        tenant: TenantId,
        email: &str,
    ) -> Result<Uuid> {
        let email: Email = email.parse()?;
        let mut tx = self.0.catalog(context).await?;
        let found = invitations::lock_of(&mut tx, tenant, email.as_str()).await?;
        tx.commit().await?;
        found.map(|offer| offer.invitation.id).ok_or_else(no_such_invitation)
    }

    /// Withdraws any invitation of a tenant, an owner's too, as an operator.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn withdraw(
        self,
        context: &OperatorContext,
        tenant: TenantId,
        id: Uuid,
    ) -> Result<()> {
        let mut tx = self.0.catalog(context).await?;
        let offer = invitations::lock(&mut tx, tenant, id).await?;
        let Invitation { email, role, .. } = offer.ok_or_else(no_such_invitation)?.invitation;
        invitations::delete(&mut tx, tenant, id).await?;
        let event = AuditEvent::of(AuditAction::MemberUninvite, context).tenant(tenant);
        audit::record(&mut tx, event.detail(json!({"email": email, "role": role}))).await?;
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
            Inviter::Member(id) => memberships::find_role(tx, context.tenant(), id).await?,
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

fn no_such_invitation() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such invitation")
}
