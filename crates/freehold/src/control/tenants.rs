//! Tenants: creates, finds, lists, suspends, resumes and weighs them.

use crate::cache::epochs;
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::{idempotency, tenants};
use crate::control::people::{PersonRef, ResolvedPerson, known};
use crate::control::{check_after, clamp_page};
use crate::error::{Error, ErrorKind, Result};
use crate::fleet::provisioner::{self, NewPerson, Order, Owner};
use crate::freehold::Freehold;
use crate::model::audit::AuditAction;
use crate::model::context::OperatorContext;
use crate::model::ids::{Slug, TenantId};
use crate::model::tenant::{Tenant, Transition, Weight, check_name};
use crate::sign_in::{invitations, proof};
use crate::tx::{CatalogTx, OwnerTx};

pub use crate::catalog::idempotency::IdempotencyKey;
pub use crate::fleet::provisioner::Provisioned;

/// A request for a new tenant, with unchecked fields.
#[derive(Clone, Debug, Default)]
pub struct NewTenant {
    /// As for a [`Slug`].
    pub slug: String,
    /// A display name, 1 to 200 characters.
    pub name: String,
    /// Without an owner, nobody can sign in to the tenant yet.
    pub owner: Option<NewOwner>,
    /// With a key, a repeated request returns the tenant that the first one created.
    pub idempotency: Option<IdempotencyKey>,
}

/// The first owner of a tenant, or a further one: a known person, if [`PersonRef::existing`] says so; a new
/// person with a password, for whom the caller vouches; or a person who is invited by mail.
#[derive(Clone, Debug, Default)]
pub struct NewOwner {
    /// The person.
    pub person: PersonRef,
    /// The display name of a new person, or empty.
    pub name: String,
}

/// Handle for creating, listing, suspending and changing tenants: [`Freehold::tenants`].
#[derive(Clone, Copy)]
pub struct Tenants<'a>(&'a Freehold);

impl Freehold {
    /// Creates, lists, suspends and changes tenants.
    pub fn tenants(&self) -> Tenants<'_> {
        Tenants(self)
    }
}

impl Tenants<'_> {
    /// Creates a tenant with schema, baseline, policies, catalog rows and first owner: either all of it or
    /// nothing.
    ///
    /// # Errors
    /// [`ErrorKind::SlugTaken`], [`ErrorKind::InvalidInput`], [`ErrorKind::IdempotencyKeyReused`];
    /// [`ErrorKind::EmailTaken`] if the owner is known and [`PersonRef::existing`] is false,
    /// [`ErrorKind::NotFound`] if they are unknown and `existing` is true; [`ErrorKind::Setup`] if this
    /// server has no owner connection.
    pub async fn create(self, context: &OperatorContext, new: NewTenant) -> Result<Provisioned> {
        let slug: Slug = new.slug.parse()?;
        let name = check_name("name", &new.name)?;
        let _turn = self.0.slug_locks().take(&slug).await;
        let repeats = self.0.require_free(context, &slug, new.idempotency.as_ref()).await?;
        let owner = match new.owner {
            // The first request has created the owner, so they are known by now.
            Some(owner) if !repeats => Some(self.0.understand_owner(context, owner).await?),
            _ => None,
        };
        let order = Order { slug, name, owner, idempotency: new.idempotency, sign_up: None };
        self.0.provision(context, order).await
    }

    /// Adds an owner to a tenant that was created without one, or whose owner was removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such tenant; as for
    /// [`create`](crate::control::tenants::Tenants::create) otherwise.
    pub async fn add_owner(
        self,
        context: &OperatorContext,
        id: TenantId,
        owner: NewOwner,
    ) -> Result<()> {
        let owner = self.0.understand_owner(context, owner).await?;
        let mut tx = self.0.catalog(context).await?;
        tenants::find(&mut tx, id).await?.ok_or_else(no_such_tenant)?;
        provisioner::add_owner(&mut tx, context, id, owner).await?;
        tx.commit().await
    }

    /// Runs SQL in a tenant's schema as the owner role, in one transaction; for seed rows and repairs.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] if this server has no owner connection.
    pub async fn run_script(
        self,
        context: &OperatorContext,
        tenant: TenantId,
        sql: &str,
    ) -> Result<()> {
        let mut tx = OwnerTx::new(self.0.owner_pool()?, context).await?;
        tenants::lock(tx.catalog(), tenant).await?.ok_or_else(no_such_tenant)?;
        audit::record(
            tx.catalog(),
            AuditEvent::of(AuditAction::TenantScript, context).tenant(tenant),
        )
        .await?;
        tx.enter_schema(tenant).await?;
        tx.catalog().query("SELECT freehold.run_migration($1)", &[&sql]).await?;
        epochs::end_all(tx.catalog(), tenant.as_uuid()).await?;
        tx.commit().await?;
        self.0.cache().drop_tenant(tenant);
        Ok(())
    }

    /// Pages through the fleet in the order of slugs, beginning after `after`. It contains tenants of every
    /// status; `limit` defaults to 50 and is at most [`PAGE_MAX`](crate::control::PAGE_MAX).
    ///
    /// Work that is not part of a request, such as a scheduled job, visits the fleet with it:
    ///
    /// ```
    /// # use freehold::testing::{TestDatabase, create_tenant};
    /// # use freehold::{Baseline, Migration};
    /// use freehold::{Actor, Freehold, OperatorContext, Result, TenantStatus};
    ///
    /// async fn prune_everywhere(freehold: &Freehold) -> Result<()> {
    ///     let operator = OperatorContext::system("prune notes");
    ///     let mut page = freehold.tenants().list(&operator, None, None).await?;
    ///     while let Some(last) = page.last().map(|tenant| tenant.slug.clone()) {
    ///         for tenant in page.iter().filter(|t| t.status == TenantStatus::Active) {
    ///             let context = freehold.tenant_context_as(tenant.id, Actor::SYSTEM).await?;
    ///             freehold.query(&context, "DELETE FROM notes WHERE id < 100", &[]).await?;
    ///         }
    ///         page = freehold.tenants().list(&operator, Some(last.as_str()), None).await?;
    ///     }
    ///     Ok(())
    /// }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<()> {
    /// # let server = std::env::var("DATABASE_URL").expect("DATABASE_URL leads to a test server");
    /// # let notes = "CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL UNIQUE)";
    /// # let baseline = Baseline::from_migrations(vec![Migration::new(1, "notes", notes)])?;
    /// # let database = TestDatabase::create(&server, &baseline).await?;
    /// # let freehold = database.freehold().await?;
    /// # let mut contexts = Vec::new();
    /// # for slug in ["acme", "globex"] {
    /// #     let (_, context) = create_tenant(&freehold, slug).await?;
    /// #     freehold.query(&context, "INSERT INTO notes (body) VALUES ('old')", &[]).await?;
    /// #     contexts.push(context);
    /// # }
    /// # prune_everywhere(&freehold).await?;
    /// # for context in contexts {
    /// #     assert!(freehold.query(&context, "SELECT * FROM notes", &[]).await?.is_empty());
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(
        self,
        context: &OperatorContext,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<Tenant>> {
        let after = check_after(after)?;
        let mut tx = self.0.catalog(context).await?;
        let list = tenants::list(&mut tx, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// A tenant, whatever its status.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn get(self, context: &OperatorContext, id: TenantId) -> Result<Tenant> {
        let mut tx = self.0.catalog(context).await?;
        let tenant = tenants::find(&mut tx, id).await?;
        tx.commit().await?;
        tenant.ok_or_else(no_such_tenant)
    }

    /// A tenant by its slug, whatever its status.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn get_by_slug(self, context: &OperatorContext, slug: &str) -> Result<Tenant> {
        let slug: Slug = slug.parse().map_err(|_| no_such_tenant())?;
        let mut tx = self.0.catalog(context).await?;
        let tenant = tenants::find_by_slug(&mut tx, &slug).await?;
        tx.commit().await?;
        tenant.ok_or_else(no_such_tenant)
    }

    /// Suspends a tenant: within a second every server refuses it. Its data stays as it is; invitations by its
    /// members end.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]. Suspending a suspended tenant is no error.
    pub async fn suspend(self, context: &OperatorContext, id: TenantId) -> Result<Tenant> {
        self.0.change_status(context, id, Transition::Suspend).await
    }

    /// Ends a suspension.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]. Resuming an active tenant is no error.
    pub async fn resume(self, context: &OperatorContext, id: TenantId) -> Result<Tenant> {
        self.0.change_status(context, id, Transition::Resume).await
    }

    /// Sets a tenant's weight: its share of the connections when other tenants want them too.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn weigh(
        self,
        context: &OperatorContext,
        id: TenantId,
        weight: Weight,
    ) -> Result<Tenant> {
        let mut tx: CatalogTx = self.0.catalog(context).await?;
        let mut tenant = tenants::lock(&mut tx, id).await?.ok_or_else(no_such_tenant)?;
        if weight != tenant.weight {
            tenants::set_weight(&mut tx, id, weight).await?;
            let event = AuditEvent::of(AuditAction::TenantWeigh, context).tenant(id);
            audit::record(&mut tx, event.detail(serde_json::json!({ "weight": weight }))).await?;
            tenant.weight = weight;
        }
        tx.commit().await?;
        Ok(tenant)
    }
}

impl Freehold {
    async fn understand_owner(&self, context: &OperatorContext, owner: NewOwner) -> Result<Owner> {
        let name = owner.name.trim();
        let name = if name.is_empty() { String::new() } else { check_name("name", name)? };
        Ok(match self.understand(context, owner.person).await? {
            ResolvedPerson::Known(email) => {
                let mut tx = self.catalog(context).await?;
                let identity = known(&mut tx, &email).await?;
                tx.commit().await?;
                Owner::Known(identity)
            }
            ResolvedPerson::New { email, password_hash: Some(password_hash) } => {
                let proof = Some(proof::by_word(context.actor(), context.reason()));
                Owner::New(NewPerson { email, name, password_hash, proof })
            }
            ResolvedPerson::New { email, password_hash: None } => Owner::Invited(email),
        })
    }

    /// Refuses a taken slug before a password is hashed or an owner connection is taken. A request with a
    /// known key may repeat one that succeeded: then it is accepted, and true is returned.
    pub(crate) async fn require_free(
        &self,
        context: &OperatorContext,
        slug: &Slug,
        key: Option<&IdempotencyKey>,
    ) -> Result<bool> {
        let mut tx = self.catalog(context).await?;
        let taken = tenants::find_by_slug(&mut tx, slug).await?.is_some();
        let repeats = match key {
            Some(key) if taken => idempotency::is_known(&mut tx, key).await?,
            _ => false,
        };
        tx.commit().await?;
        if taken && !repeats { Err(tenants::slug_taken(slug)) } else { Ok(repeats) }
    }

    pub(crate) async fn provision(
        &self,
        context: &OperatorContext,
        order: Order,
    ) -> Result<Provisioned> {
        let provisioned = provisioner::provision(self.owner_pool()?, context, order).await?;
        if !provisioned.repeated {
            tracing::info!(tenant = %provisioned.tenant.id, slug = %provisioned.tenant.slug,
                reason = context.reason(), "tenant created");
        }
        Ok(provisioned)
    }

    async fn change_status(
        &self,
        context: &OperatorContext,
        id: TenantId,
        transition: Transition,
    ) -> Result<Tenant> {
        let mut tx: CatalogTx = self.catalog(context).await?;
        let mut tenant = tenants::lock(&mut tx, id).await?.ok_or_else(no_such_tenant)?;
        let status = transition.apply(tenant.status);
        if status != tenant.status {
            tenants::set_status(&mut tx, id, status).await?;
            let action = match transition {
                Transition::Suspend => AuditAction::TenantSuspend,
                Transition::Resume => AuditAction::TenantResume,
            };
            audit::record(&mut tx, AuditEvent::of(action, context).tenant(id)).await?;
            // When it resumes too: a server that did not know of the suspension yet may have made another.
            let ended = |action| AuditEvent::of(action, context);
            invitations::end_of_members(&mut tx, id, ended).await?;
            tenant.status = status;
            tracing::info!(tenant = %id, status = status.as_str(), actor = %context.actor(),
                reason = context.reason(), "tenant status changed");
        }
        tx.commit().await?;
        // Its cache entries are invalid since the change of status; this also frees their memory.
        self.cache().drop_tenant(id);
        Ok(tenant)
    }
}

pub(super) fn no_such_tenant() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such tenant")
}
