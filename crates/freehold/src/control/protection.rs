//! Checks that row-level security protects tenants' tables, as far as the app role can see.

use crate::catalog::audit::{self, AuditEvent};
use crate::doctor;
use crate::error::Result;
use crate::freehold::Freehold;
use crate::model::audit::AuditAction;
use crate::model::context::OperatorContext;
use crate::model::ids::TenantId;
use crate::schema::policy;
use crate::wire::client;

/// Handle for finding tables without protection, and closing them: [`Freehold::protection`].
#[derive(Clone, Copy)]
pub struct Protection<'a>(&'a Freehold);

impl Freehold {
    /// Finds tables of tenants without protection, and closes them.
    pub fn protection(&self) -> Protection<'_> {
        Protection(self)
    }
}

impl Protection<'_> {
    /// Tables of tenants that row-level security does not protect, as `schema.table`, at most `limit`. Reads
    /// the whole fleet's entries in PostgreSQL's catalog, so call it seldom.
    pub async fn list_unprotected(self, limit: i64) -> Result<Vec<String>> {
        let client = client::connect_to_read(&self.0.app_pool().target()).await?;
        let tables = policy::list_unprotected(&client, limit).await;
        client.batch_execute("ROLLBACK").await?;
        tables
    }

    /// The [`doctor`]'s critical findings, as far as the app role can see them. A readiness probe should
    /// include those that concern the whole fleet. Reads the whole fleet's entries in PostgreSQL's catalog,
    /// which takes seconds for a large one, so call it seldom.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable); [`ErrorKind::Setup`](crate::ErrorKind::Setup) if the catalog does not fit this build.
    pub async fn examine_critical(self) -> Result<doctor::CriticalFindings> {
        doctor::examine_critical(&self.0.app_pool().target()).await
    }

    /// The part of that which is found quickly: tables without row-level security or without Freehold's
    /// policies.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
    pub async fn examine_tables(self) -> Result<doctor::CriticalFindings> {
        doctor::examine_tables(&self.0.app_pool().target()).await
    }

    /// Closes tables of tenants to every other tenant: by row-level security or, if that is not possible, by
    /// revoking all privileges. Returns the tables that were open. Protected tables are not changed.
    ///
    /// # Errors
    /// The error of the first table that could not be closed, for example because it could not be locked
    /// within half a second. The other tables are closed nevertheless.
    pub async fn isolate(self, tables: &[String]) -> Result<Vec<String>> {
        let (mut closed, mut first) = (Vec::new(), None);
        for table in tables {
            match self.isolate_one(table).await {
                Ok(true) => closed.push(table.clone()),
                Ok(false) => {}
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(closed), Err)
    }

    /// Whether the table was open.
    async fn isolate_one(self, table: &str) -> Result<bool> {
        let context = OperatorContext::system("isolate a table that is not protected");
        let mut tx = self.0.catalog(&context).await?;
        let rows = tx.query("SELECT freehold.isolate_table($1)", &[&table]).await?;
        let was_open = rows.first().is_some_and(|row| row.get(0));
        if was_open {
            let mut event = AuditEvent::of(AuditAction::TableIsolate, &context);
            if let Some(tenant) = table.split('.').next().and_then(TenantId::of_schema) {
                event = event.tenant(tenant);
            }
            audit::record(&mut tx, event.detail(serde_json::json!({ "table": table }))).await?;
        }
        tx.commit().await?;
        Ok(was_open)
    }

    /// All findings of [`examine_critical`](Self::examine_critical), as sentences.
    ///
    /// # Errors
    /// As there.
    pub async fn list_critical(self) -> Result<Vec<String>> {
        let found = self.examine_critical().await?;
        Ok(found.fleet.into_iter().chain(found.tenants).collect())
    }
}
