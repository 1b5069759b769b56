//! Creates a tenant: schema, baseline, policies, grants, catalog rows and first owner, in one transaction.
//! Either all of it exists afterwards, or nothing.

use tokio::time::Instant;
use uuid::Uuid;

use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::idempotency::{self, Claimed, IdempotencyKey};
use crate::catalog::identities::{self, Identity, Proof};
use crate::catalog::invitations::{self, Inviter};
use crate::catalog::outbox::{self, Letter};
use crate::catalog::{baseline, memberships, sign_ups, tenants};
use crate::error::{Error, ErrorKind, Result};
use crate::fleet::migrator;
use crate::model::actor::Role;
use crate::model::audit::AuditAction;
use crate::model::context::OperatorContext;
use crate::model::ids::{Email, Slug, TenantId};
use crate::model::mail::MailKind;
use crate::model::tenant::Tenant;
use crate::pool::Pool;
use crate::schema::policy;
use crate::sign_in::proof;
use crate::snapshot;
use crate::tx::{CatalogTx, OwnerTx};

/// A tenant to be created; all fields have been checked.
pub(crate) struct Order {
    pub(crate) slug: Slug,
    pub(crate) name: String,
    pub(crate) owner: Option<Owner>,
    pub(crate) idempotency: Option<IdempotencyKey>,
    /// The sign-up that is confirmed by this, and used up.
    pub(crate) sign_up: Option<SignUpToken>,
}

/// A sign-up with the hash of the token that confirms it.
pub(crate) struct SignUpToken {
    pub(crate) id: Uuid,
    pub(crate) hash: [u8; 32],
}

/// The first owner of a new tenant.
pub(crate) enum Owner {
    /// A known person.
    Known(Identity),
    New(NewPerson),
    /// An address that is invited to be the owner.
    Invited(Email),
}

/// A person to be created.
pub(crate) struct NewPerson {
    pub(crate) email: Email,
    pub(crate) name: String,
    pub(crate) password_hash: String,
    /// Without a proof, the address is stored as not proven.
    pub(crate) proof: Option<Proof>,
}

/// A tenant, and whether this call or an earlier one with the same key created it.
pub struct Provisioned {
    /// The tenant.
    pub tenant: Tenant,
    /// True if an earlier call with the same key created it.
    pub repeated: bool,
}

pub(crate) async fn provision(
    owner_pool: &Pool,
    context: &OperatorContext,
    order: Order,
) -> Result<Provisioned> {
    let id = TenantId::generate();
    let mut tx = OwnerTx::new(owner_pool, context).await?;
    if let Some(key) = &order.idempotency
        && let Claimed::Repeated(earlier) = idempotency::claim(tx.catalog(), key, Some(id)).await?
    {
        let gone =
            || Error::new(ErrorKind::Conflict, "the tenant that this Idempotency-Key made is gone");
        let earlier = earlier.ok_or_else(gone)?;
        let tenant = tenants::find(tx.catalog(), earlier).await?.ok_or_else(gone)?;
        return Ok(Provisioned { tenant, repeated: true });
    }
    if let Some(SignUpToken { id, hash }) = &order.sign_up
        && !sign_ups::take(tx.catalog(), *id, hash).await?
    {
        return Err(proof::unknown_link());
    }
    // The slug first: of concurrent requests for it, all but one fail before any work is done.
    tenants::insert(tx.catalog(), id, &order.slug, &order.name).await?;
    let made = AuditEvent::of(AuditAction::TenantCreate, context).tenant(id);
    let detail = serde_json::json!({"slug": order.slug.as_str(), "name": order.name});
    audit::record(tx.catalog(), made.detail(detail)).await?;
    if let Some(owner) = order.owner {
        add_owner(tx.catalog(), context, id, owner).await?;
    }
    baseline::hold(tx.catalog()).await?;
    let newest = baseline::newest_snapshot(tx.catalog()).await?;
    let (version, snapshot) = newest.unwrap_or_default();
    let started = Instant::now();
    snapshot::create_schema(&mut tx, id, &snapshot).await?;
    tx.ddl(async |client| policy::verify(client, id).await).await?;
    baseline::record_all(tx.catalog(), id, migrator::millis(started)).await?;
    tenants::set_version(tx.catalog(), id, version).await?;
    let tenant = tenants::find(tx.catalog(), id).await?;
    tx.commit().await?;
    let tenant =
        tenant.ok_or_else(|| Error::new(ErrorKind::Internal, "the new tenant is not there"))?;
    Ok(Provisioned { tenant, repeated: false })
}

/// Makes a person an owner of a tenant, or invites them to be one.
pub(crate) async fn add_owner(
    tx: &mut CatalogTx,
    context: &OperatorContext,
    tenant: TenantId,
    owner: Owner,
) -> Result<()> {
    let identity = match owner {
        Owner::Known(known) => {
            // The present state: if the person was disabled or the password changed meanwhile, the caller's
            // check no longer holds.
            let present = identities::lock(tx, known.id).await?;
            let unchanged = |now: &Identity| now.epoch == known.epoch && !now.is_disabled;
            present.filter(unchanged).ok_or_else(|| {
                Error::new(ErrorKind::Retryable, "this person has changed meanwhile; try again")
            })?
        }
        Owner::New(new) => create_person(tx, context, &new).await?,
        Owner::Invited(email) => {
            let inviter = Inviter::Operator(context.actor());
            let email = email.as_str();
            let invitation = invitations::upsert(tx, tenant, email, Role::Owner, inviter).await?;
            let letter = Letter::new(MailKind::Invitation, email).of_tenant(tenant);
            outbox::insert(tx, &letter.about(invitation.id)).await?;
            let event = AuditEvent::of(AuditAction::MemberInvite, context).tenant(tenant);
            let detail = serde_json::json!({"email": email, "role": Role::Owner});
            return audit::record(tx, event.detail(detail)).await;
        }
    };
    if memberships::insert(tx, tenant, identity.id, Role::Owner).await? {
        let event = AuditEvent::of(AuditAction::OwnerAdd, context).tenant(tenant);
        audit::record(tx, event.to(identity.id, &identity.email)).await?;
        return Ok(());
    }
    memberships::set_role(tx, tenant, identity.id, Role::Owner).await?;
    let event = AuditEvent::of(AuditAction::OwnerRaise, context).tenant(tenant);
    audit::record(tx, event.to(identity.id, &identity.email)).await
}

async fn create_person(
    tx: &mut CatalogTx,
    context: &OperatorContext,
    new: &NewPerson,
) -> Result<Identity> {
    let known = || {
        Error::new(ErrorKind::EmailTaken, "a person with this e-mail has become known; try again")
    };
    let identity = match &new.proof {
        Some(by) => {
            // The lock prevents the address from becoming known between this check and the proof.
            let held = proof::hold(tx, &new.email, &new.name).await?;
            // A token from a message allows setting a password for a proven person who has none.
            let vouched = by.by.is_some();
            if held.is_proven && (vouched || proof::is_known(tx, &held.email).await?) {
                return Err(known());
            }
            proof::prove(tx, &new.email, &new.name, by).await?
        }
        None => identities::insert(tx, &new.email, &new.name).await?.ok_or_else(known)?,
    };
    identities::set_password(tx, identity.id, &new.password_hash).await?;
    let event = AuditEvent::of(AuditAction::PasswordSet, context).to(identity.id, &identity.email);
    audit::record(tx, event).await?;
    Ok(identity)
}
