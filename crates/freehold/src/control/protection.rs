//! Whether row-level security stands where it must, as the app role sees it.

use crate::doctor;
use crate::error::Result;
use crate::freehold::Freehold;
use crate::model::context::OperatorContext;
use crate::schema::policy;
use crate::wire::client;

/// Handle over whether row-level security stands where it must: [`Freehold::protection`].
#[derive(Clone, Copy)]
pub struct Protection<'a>(&'a Freehold);

impl Freehold {
    /// Whether row-level security stands where it must.
    pub fn protection(&self) -> Protection<'_> {
        Protection(self)
    }
}

impl Protection<'_> {
    /// Tables of tenants that row-level security does not protect, as `schema.table`, at most
    /// `limit`. Reads the whole fleet's entries in PostgreSQL's catalog, so ask now and then.
    pub async fn list_unprotected(self, limit: i64) -> Result<Vec<String>> {
        let client = client::connect_to_read(&self.0.app_pool().target()).await?;
        let tables = policy::list_unprotected(&client, limit).await;
        client.batch_execute("ROLLBACK").await?;
        tables
    }

    /// What [`doctor`] finds critical, as far as the app role can see it: the other half of a
    /// readiness probe, which should heed what is the fleet's. It reads the whole fleet's entries in
    /// PostgreSQL's catalog, which takes seconds for a large one, so ask now and then.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable); [`ErrorKind::Setup`](crate::ErrorKind::Setup) if the catalog does not fit this build.
    pub async fn examine_critical(self) -> Result<doctor::CriticalFindings> {
        doctor::examine_critical(&self.0.app_pool().target()).await
    }

    /// What of that is quickly seen: tables without row-level security or a policy of ours.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
    pub async fn examine_tables(self) -> Result<doctor::CriticalFindings> {
        doctor::examine_tables(&self.0.app_pool().target()).await
    }

    /// Keeps tables of tenants from every other tenant, by row-level security or, where there is none, by
    /// taking all rights away; says which of them were open. Nothing happens to one that is protected.
    ///
    /// # Errors
    /// The first table's that could not be locked within half a second, or another; the rest are closed.
    pub async fn isolate(self, tables: &[String]) -> Result<Vec<String>> {
        let (mut closed, mut first) = (Vec::new(), None);
        for table in tables {
            let context = OperatorContext::system("isolate a table that is not protected");
            let tx = self.0.catalog(&context).await?;
            match tx.query_and_commit("SELECT freehold.isolate_table($1)", &[table]).await {
                Ok(rows) if rows.first().is_some_and(|row| row.get(0)) => {
                    closed.push(table.clone());
                }
                Ok(_) => {}
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(closed), Err)
    }

    /// All sentences of [`Freehold::protection`].
    ///
    /// # Errors
    /// As there.
    pub async fn list_critical(self) -> Result<Vec<String>> {
        let found = self.examine_critical().await?;
        Ok(found.fleet.into_iter().chain(found.tenants).collect())
    }
}
