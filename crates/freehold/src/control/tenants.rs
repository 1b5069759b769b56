//! Tenants: create, list, get, suspend, resume.

use crate::Freehold;
use crate::catalog::identities::Identity;
use crate::catalog::{cache_epochs, idempotency, identities, tenants};
use crate::context::OperatorContext;
use crate::control::{check_after, clamp_page};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Email, IdentityId, Slug, TenantId};
use crate::provisioner::{self, Order, Owner};
use crate::tenant::{Tenant, Transition, check_name};
use crate::tx::{CatalogTx, OwnerTx};

pub use crate::catalog::idempotency::IdempotencyKey;
pub use crate::provisioner::Provisioned;

/// A tenant that somebody asks for, as they typed it.
#[derive(Clone, Debug, Default)]
pub struct NewTenant {
    /// As for a [`Slug`].
    pub slug: String,
    /// A display name, 1 to 200 characters.
    pub name: String,
    /// Without one, nobody can sign in to it yet.
    pub owner: Option<NewOwner>,
    /// With one, a repeated request answers with the tenant that the first one made.
    pub idempotency: Option<IdempotencyKey>,
}

/// The first owner of a new tenant. A password is needed only if the person is new here.
#[derive(Clone, Default)]
pub struct NewOwner {
    /// Who they are.
    pub email: String,
    /// A display name, or nothing.
    pub name: String,
    /// Ignored for a person who is known already.
    pub password: Option<String>,
}

impl std::fmt::Debug for NewOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewOwner").field("email", &self.email).finish_non_exhaustive()
    }
}

impl Freehold {
    /// Creates a tenant: schema, baseline, policies, catalog rows and first owner, or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::SlugTaken`], [`ErrorKind::InvalidInput`], [`ErrorKind::IdempotencyKeyReused`];
    /// [`ErrorKind::Setup`] if this server has no owner connection.
    pub async fn create_tenant(
        &self,
        context: &OperatorContext,
        new: NewTenant,
    ) -> Result<Provisioned> {
        let slug: Slug = new.slug.parse()?;
        let name = check_name("name", &new.name)?;
        let _turn = self.turns().take(&slug).await;
        self.require_free(context, &slug, new.idempotency.as_ref()).await?;
        let owner = match new.owner {
            Some(owner) => Some(self.find_or_prepare_owner(context, owner).await?),
            None => None,
        };
        let order = Order { slug, name, owner, idempotency: new.idempotency };
        self.provision(context, order).await
    }

    /// An operator's word is enough to make somebody known the owner; a new person needs a password.
    async fn find_or_prepare_owner(
        &self,
        context: &OperatorContext,
        owner: NewOwner,
    ) -> Result<Owner> {
        let email: Email = owner.email.parse()?;
        let mut tx = self.catalog(context).await?;
        let known = identities::find_credential(&mut tx, email.as_str()).await?;
        tx.commit().await?;
        if let Some(known) = known {
            return Ok(Owner::Known(known.identity));
        }
        let Some(password) = owner.password else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "nobody has this e-mail yet; give a password too",
            )
            .field("owner.password"));
        };
        self.prepare_owner(email, &owner.name, password).await
    }

    pub(crate) async fn prepare_owner(
        &self,
        email: Email,
        name: &str,
        password: String,
    ) -> Result<Owner> {
        let name = if name.trim().is_empty() { String::new() } else { check_name("name", name)? };
        let password_hash = self.hasher().hash(password).await?;
        let identity = Identity {
            id: IdentityId::generate(),
            email: email.as_str().to_owned(),
            name,
            is_operator: false,
        };
        Ok(Owner::New { identity, password_hash })
    }

    /// Refuses a slug that is taken before a password is hashed or a connection is held that can
    /// DDL. A request that may be the repetition of one that succeeded is let through.
    pub(crate) async fn require_free(
        &self,
        context: &OperatorContext,
        slug: &Slug,
        key: Option<&IdempotencyKey>,
    ) -> Result<()> {
        let mut tx = self.catalog(context).await?;
        let taken = tenants::find_by_slug(&mut tx, slug).await?.is_some();
        let repeats = match key {
            Some(key) if taken => idempotency::is_known(&mut tx, key).await?,
            _ => false,
        };
        tx.commit().await?;
        if taken && !repeats { Err(tenants::slug_taken(slug)) } else { Ok(()) }
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

    /// Runs SQL in a tenant's schema as the owner role, in one transaction: seeds, repairs.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] if this server has no owner connection.
    pub async fn run_script(
        &self,
        context: &OperatorContext,
        tenant: TenantId,
        sql: &str,
    ) -> Result<()> {
        let mut tx = OwnerTx::new(self.owner_pool()?, context).await?;
        tenants::lock(tx.catalog(), tenant).await?.ok_or_else(no_such_tenant)?;
        tx.enter_schema(tenant).await?;
        tx.catalog().query("SELECT freehold.run_migration($1)", &[&sql]).await?;
        cache_epochs::end_all(tx.catalog(), tenant.as_uuid()).await?;
        tx.commit().await?;
        self.cache().drop_tenant(tenant);
        Ok(())
    }

    /// Pages through the fleet in the order of slugs, beginning after one. Tenants of every status
    /// are in it; `limit` is 50 if not given and [`PAGE_MAX`](crate::control::PAGE_MAX) at most.
    ///
    /// Work that no request asks for goes through the fleet by it:
    ///
    /// ```
    /// # use freehold::testing::{TestDatabase, create_tenant};
    /// # use freehold::{Baseline, Migration};
    /// use freehold::{Actor, Freehold, OperatorContext, Result, TenantStatus};
    ///
    /// async fn prune_everywhere(freehold: &Freehold) -> Result<()> {
    ///     let operator = OperatorContext::system("prune notes");
    ///     let mut page = freehold.list_tenants(&operator, None, None).await?;
    ///     while let Some(last) = page.last().map(|tenant| tenant.slug.clone()) {
    ///         for tenant in page.iter().filter(|t| t.status == TenantStatus::Active) {
    ///             let context = freehold.tenant_context_as(tenant.id, Actor::SYSTEM).await?;
    ///             freehold.query(&context, "DELETE FROM notes WHERE id < 100", &[]).await?;
    ///         }
    ///         page = freehold.list_tenants(&operator, Some(last.as_str()), None).await?;
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
    pub async fn list_tenants(
        &self,
        context: &OperatorContext,
        after: Option<&str>,
        limit: Option<i64>,
    ) -> Result<Vec<Tenant>> {
        let after = check_after(after)?;
        let mut tx = self.catalog(context).await?;
        let list = tenants::list(&mut tx, after, clamp_page(limit)).await?;
        tx.commit().await?;
        Ok(list)
    }

    /// A tenant, whatever its status.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn get_tenant(&self, context: &OperatorContext, id: TenantId) -> Result<Tenant> {
        let mut tx = self.catalog(context).await?;
        let tenant = tenants::find(&mut tx, id).await?;
        tx.commit().await?;
        tenant.ok_or_else(no_such_tenant)
    }

    /// By slug, for people.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub async fn get_tenant_by_slug(
        &self,
        context: &OperatorContext,
        slug: &str,
    ) -> Result<Tenant> {
        let slug: Slug = slug.parse().map_err(|_| no_such_tenant())?;
        let mut tx = self.catalog(context).await?;
        let tenant = tenants::find_by_slug(&mut tx, &slug).await?;
        tx.commit().await?;
        tenant.ok_or_else(no_such_tenant)
    }

    /// Within a second the tenant is refused on every server; its data stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]. One that is suspended already is no error.
    pub async fn suspend_tenant(&self, context: &OperatorContext, id: TenantId) -> Result<Tenant> {
        self.change_status(context, id, Transition::Suspend).await
    }

    /// The tenant is served again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]. One that is active already is no error.
    pub async fn resume_tenant(&self, context: &OperatorContext, id: TenantId) -> Result<Tenant> {
        self.change_status(context, id, Transition::Resume).await
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
            tenant.status = status;
            tracing::info!(tenant = %id, status = status.as_str(), actor = %context.actor(),
                reason = context.reason(), "tenant status changed");
        }
        tx.commit().await?;
        // Its epochs ended with its status; this leaves nothing of it in memory.
        self.cache().drop_tenant(id);
        Ok(tenant)
    }

    /// Creates an operator, or makes a known person one. A password is needed for a new person;
    /// for a known one it is set anew if given.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`].
    pub async fn create_operator(
        &self,
        context: &OperatorContext,
        email: &str,
        password: Option<String>,
    ) -> Result<IdentityId> {
        let email: Email = email.parse()?;
        let hash = match password {
            Some(password) => Some(self.hasher().hash(password).await?),
            None => None,
        };
        let mut tx = self.catalog(context).await?;
        let known = identities::find_credential(&mut tx, email.as_str()).await?;
        let id = match (known, hash) {
            (Some(known), hash) => {
                identities::make_operator(&mut tx, known.identity.id).await?;
                if let Some(hash) = hash {
                    identities::set_password(&mut tx, known.identity.id, &hash).await?;
                }
                known.identity.id
            }
            (None, Some(hash)) => {
                let identity = Identity {
                    id: IdentityId::generate(),
                    email: email.as_str().to_owned(),
                    name: String::new(),
                    is_operator: true,
                };
                identities::insert(&mut tx, &identity, &hash).await?;
                identity.id
            }
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "nobody has this e-mail yet; give a password too",
                )
                .field("password"));
            }
        };
        tx.commit().await?;
        Ok(id)
    }
}

pub(super) fn no_such_tenant() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such tenant")
}
