//! A database with a fleet of shops, and for each shop a copy of its orders in a table without any
//! protection.

use std::path::Path;

use freehold::control::people::PersonRef;
use freehold::control::tenants::{NewOwner, NewTenant};
use freehold::testing::{PASSWORD, TestDatabase};
use freehold::{
    Actor, Baseline, Freehold, IdentityId, OperatorContext, Role, Tenant, TenantContext,
};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::Result;

pub(crate) fn operator() -> OperatorContext {
    OperatorContext::system("benchmark")
}

pub(crate) const OWNER_EMAIL: &str = "owner@bench.example";

/// The number of connections in the owner pool.
const TENANTS_AT_A_TIME: usize = 4;

pub(crate) struct Fleet {
    pub(crate) freehold: Freehold,
    pub(crate) tenants: Vec<Member>,
    pub(crate) database: TestDatabase,
}

/// A tenant and its owner, who is the same person in all tenants.
pub(crate) struct Member {
    pub(crate) tenant: Tenant,
    pub(crate) context: TenantContext,
}

/// The demo shop's migrations, relative to the project's folder, in which benchmarks are started.
pub(crate) fn demo_baseline() -> Result<Baseline> {
    Ok(Baseline::read(Path::new("demo/migrations"))?)
}

impl Fleet {
    /// Creates a session for each person, with the person's id, so that access tokens issued without a
    /// sign-in are valid.
    pub(crate) async fn open_sessions(&self) -> Result<()> {
        for member in &self.tenants {
            self.database.open_session(member.context.actor().id.as_uuid()).await?;
        }
        Ok(())
    }

    /// Shops without data.
    pub(crate) async fn empty(admin_url: &str, count: usize) -> Result<Fleet> {
        Fleet::of(&demo_baseline()?, admin_url, count).await
    }

    /// Tenants whose baseline begins with the demo's, without data.
    async fn of(baseline: &Baseline, admin_url: &str, count: usize) -> Result<Fleet> {
        eprintln!("creating {count} tenants");
        let database = TestDatabase::create(admin_url, baseline).await?;
        let freehold = database.freehold().await?;
        let mut tenants = vec![create_first(&freehold).await?];
        let others: Vec<Tenant> = stream::iter(1..count)
            .map(|number| create(&freehold, format!("shop-{number}")))
            .buffer_unordered(TENANTS_AT_A_TIME)
            .try_collect()
            .await?;
        let owner = tenants[0].context.actor();
        for tenant in others {
            let context = freehold.tenant_context(tenant.id, owner.id).await?;
            tenants.push(Member { tenant, context });
        }
        Ok(Fleet { freehold, tenants, database })
    }

    /// Shops with 300 orders each, and copies of the orders in the schemas `bare_0`, `bare_1`, …
    pub(crate) async fn with_orders(admin_url: &str, count: usize) -> Result<Fleet> {
        Fleet::with_orders_of(&demo_baseline()?, admin_url, count).await
    }

    /// The same, with a baseline that begins with the demo's.
    pub(crate) async fn with_orders_of(
        baseline: &Baseline,
        admin_url: &str,
        count: usize,
    ) -> Result<Fleet> {
        let fleet = Fleet::of(baseline, admin_url, count).await?;
        eprintln!("filling them with orders");
        let seed = std::fs::read_to_string("demo/seed.sql")?;
        stream::iter(&fleet.tenants)
            .map(|member| {
                let Tenant { id, slug, .. } = &member.tenant;
                let sql = format!(
                    "SELECT set_config('freehold.seed', '{}', true);\n{seed}",
                    slug.as_str()
                );
                let freehold = &fleet.freehold;
                async move { freehold.tenants().run_script(&operator(), *id, &sql).await }
            })
            .buffer_unordered(TENANTS_AT_A_TIME)
            .try_collect::<()>()
            .await?;
        let admin = connect(&fleet.database.superuser_url()).await?;
        for (number, member) in fleet.tenants.iter().enumerate() {
            let (bare, schema) = (bare_schema(number), member.tenant.id.schema());
            admin
                .batch_execute(&format!(
                    "CREATE SCHEMA {bare};
                     CREATE TABLE {bare}.orders (LIKE {schema}.orders INCLUDING DEFAULTS INCLUDING INDEXES);
                     INSERT INTO {bare}.orders SELECT * FROM {schema}.orders;
                     GRANT USAGE ON SCHEMA {bare} TO freehold_app;
                     GRANT SELECT ON {bare}.orders TO freehold_app"
                ))
                .await?;
        }
        // So that autovacuum has nothing to do during the measurement.
        admin.batch_execute("VACUUM ANALYZE").await?;
        Ok(fleet)
    }
}

pub(crate) fn bare_schema(number: usize) -> String {
    format!("bare_{number}")
}

/// The first tenant is created with its owner; all later ones belong to the same person.
async fn create_first(freehold: &Freehold) -> Result<Member> {
    let (email, password) = (OWNER_EMAIL.into(), Some(PASSWORD.into()));
    let person = PersonRef { email, password, existing: false };
    let owner = NewOwner { person, name: String::new() };
    let new = NewTenant {
        slug: "shop-0".into(),
        name: "shop-0".into(),
        owner: Some(owner),
        idempotency: None,
    };
    let tenant = freehold.tenants().create(&operator(), new).await?.tenant;
    let anybody = Actor { id: IdentityId::from(Uuid::new_v4()), role: Role::Owner };
    let context = freehold.tenant_context_as(tenant.id, anybody).await?;
    let members = freehold.members().list(&context, None, None).await?;
    let owner = members.first().ok_or("the first tenant has no owner")?.id;
    let context = freehold.tenant_context(tenant.id, owner).await?;
    Ok(Member { tenant, context })
}

/// A tenant that belongs to the owner of the first.
pub(crate) async fn create(freehold: &Freehold, slug: String) -> Result<Tenant> {
    let person = PersonRef { email: OWNER_EMAIL.into(), password: None, existing: true };
    let owner = NewOwner { person, name: String::new() };
    let new = NewTenant { name: slug.clone(), slug, owner: Some(owner), idempotency: None };
    Ok(freehold.tenants().create(&operator(), new).await?.tenant)
}

pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
