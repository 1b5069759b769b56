//! Makes a tenant: schema, baseline, policies, grants, catalog rows and first owner, in one
//! transaction. Either all of it is there, or nothing.

use std::time::Instant;

use crate::actor::Role;
use crate::catalog::idempotency::{self, IdempotencyKey};
use crate::catalog::identities::{self, Identity};
use crate::catalog::{baseline, memberships, tenants};
use crate::context::OperatorContext;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Slug, TenantId};
use crate::migrator;
use crate::pool::Pool;
use crate::tenant::Tenant;
use crate::tx::OwnerTx;

/// A tenant to be made; everything in it has been checked.
pub(crate) struct Order {
    pub(crate) slug: Slug,
    pub(crate) name: String,
    pub(crate) owner: Option<Owner>,
    pub(crate) idempotency: Option<IdempotencyKey>,
}

/// The first owner of a new tenant.
pub(crate) enum Owner {
    /// Somebody who is known already.
    Known(Identity),
    New {
        identity: Identity,
        password_hash: String,
    },
}

/// A tenant, and whether this call made it or an earlier one with the same key did.
pub struct Provisioned {
    /// The tenant.
    pub tenant: Tenant,
    /// True if an earlier call with the same key made it.
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
        && let Some(earlier) = idempotency::claim(tx.catalog(), key, id).await?
    {
        let tenant = tenants::find(tx.catalog(), earlier).await?.ok_or_else(|| {
            Error::new(ErrorKind::Conflict, "the tenant that this Idempotency-Key made is gone")
        })?;
        return Ok(Provisioned { tenant, repeated: true });
    }
    // The slug first: of those who race for it, the others learn so before any work is done.
    tenants::insert(tx.catalog(), id, &order.slug, &order.name).await?;
    if let Some(owner) = order.owner {
        add_owner(&mut tx, id, owner).await?;
    }
    baseline::hold(tx.catalog()).await?;
    let migrations = baseline::list(tx.catalog()).await?;
    let schema = id.schema();
    tx.ddl(async |client| {
        Ok(client
            .batch_execute(&format!(
                "CREATE SCHEMA {schema};
                 GRANT USAGE ON SCHEMA {schema} TO freehold_app, freehold_viewer, freehold_analytics"
            ))
            .await?)
    })
    .await?;
    for migration in &migrations {
        let started = Instant::now();
        tx.enter_schema(id).await?;
        tx.ddl(async |client| migrator::apply(client, id, migration).await).await?;
        baseline::record(tx.catalog(), id, migration, migrator::millis(started)).await?;
    }
    let version = migrations.last().map_or(0, |m| m.version);
    tx.catalog().execute("SET LOCAL search_path = freehold, pg_temp", &[]).await?;
    tenants::set_version(tx.catalog(), id, version).await?;
    let tenant = tenants::find(tx.catalog(), id).await?;
    tx.commit().await?;
    let tenant =
        tenant.ok_or_else(|| Error::new(ErrorKind::Internal, "the new tenant is not there"))?;
    Ok(Provisioned { tenant, repeated: false })
}

async fn add_owner(tx: &mut OwnerTx, tenant: TenantId, owner: Owner) -> Result<()> {
    let identity = match owner {
        Owner::Known(identity) => identity,
        Owner::New { identity, password_hash } => {
            if !identities::insert(tx.catalog(), &identity, &password_hash).await? {
                return Err(Error::new(
                    ErrorKind::EmailTaken,
                    "somebody with this e-mail exists; sign up with their password",
                ));
            }
            identity
        }
    };
    memberships::insert(tx.catalog(), tenant, identity.id, Role::Owner).await?;
    Ok(())
}
