//! Creates and drops an index without interrupting the tenant. CONCURRENTLY cannot run in a transaction, so
//! this uses a connection of its own, as the owner role. An interrupted build leaves an invalid index, and
//! the next attempt begins by dropping it.

use std::time::Duration;

use tokio_postgres::Client;

use super::{IndexColumn, in_schema};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::policy::quote_ident;
use crate::wire::client;
use crate::wire::tls::Target;

/// The class of the lock that an index change holds: "idx". A transaction of the app role can hold it too,
/// until it ends; then the change is tried again later.
const LOCK_CLASS: i32 = 0x0069_6478;
/// CONCURRENTLY waits for every earlier transaction; no other session waits for it meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A connection that changes one index of one schema, exclusively.
pub(crate) struct Builder {
    client: Client,
    schema: String,
    name: String,
}

impl Builder {
    /// # Errors
    /// [`ErrorKind::Retryable`] if another connection is changing this index.
    pub(crate) async fn begin(target: &Target, schema: String, name: &str) -> Result<Builder> {
        let client = client::connect(target).await?;
        client
            .batch_execute(&format!(
                "SET lock_timeout = {}; SET statement_timeout = 0; SET search_path = pg_catalog, pg_temp",
                WAIT_MAX.as_millis()
            ))
            .await?;
        let what = format!("{schema}.{name}");
        let taken: bool = client
            .query_one("SELECT pg_try_advisory_lock($1, hashtext($2))", &[&LOCK_CLASS, &what])
            .await?
            .get(0);
        if !taken {
            return Err(Error::new(
                ErrorKind::Retryable,
                format!("somebody else is changing the index {name} of this tenant at this moment"),
            ));
        }
        Ok(Builder { client, schema, name: name.to_owned() })
    }

    /// Creates the index, unless a valid one exists.
    pub(crate) async fn create(&self, table: &str, columns: &[IndexColumn]) -> Result<()> {
        let columns: Vec<String> = columns.iter().map(IndexColumn::sql).collect();
        let (name, schema, table) =
            (quote_ident(&self.name), quote_ident(&self.schema), quote_ident(table));
        self.make(&format!(
            "CREATE INDEX CONCURRENTLY {name} ON {schema}.{table} ({})",
            columns.join(", ")
        ))
        .await
    }

    /// Creates it again from the definition that [`definition`](Self::definition) returned.
    pub(crate) async fn restore(&self, definition: &str) -> Result<()> {
        let create = definition.replacen("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1);
        self.make(&in_schema(&create, &self.schema)).await
    }

    async fn make(&self, create: &str) -> Result<()> {
        match self.is_valid().await? {
            Some(true) => return Ok(()),
            Some(false) => self.drop_it().await?,
            None => {}
        }
        if let Err(error) = self.client.batch_execute(create).await {
            // An invalid index would slow down every write.
            if self.is_valid().await.unwrap_or_default() == Some(false) {
                let _ = self.drop_it().await;
            }
            return Err(self.failure(error));
        }
        Ok(())
    }

    /// Drops the index, if it exists.
    pub(crate) async fn drop_it(&self) -> Result<()> {
        let (schema, name) = (quote_ident(&self.schema), quote_ident(&self.name));
        let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {schema}.{name}");
        self.client.batch_execute(&drop).await.map_err(|error| self.failure(error))
    }

    /// As PostgreSQL prints it, with `@schema.` for the schema.
    pub(crate) async fn definition(&self) -> Result<Option<String>> {
        let row = self
            .client
            .query_opt(
                "SELECT replace(pg_get_indexdef(c.oid), n.nspname || '.', '@schema.') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'i'",
                &[&self.schema, &self.name],
            )
            .await?;
        Ok(row.map(|row| row.get(0)))
    }

    async fn is_valid(&self) -> Result<Option<bool>> {
        let row = self
            .client
            .query_opt(
                "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1 AND c.relname = $2",
                &[&self.schema, &self.name],
            )
            .await?;
        Ok(row.map(|row| row.get(0)))
    }

    fn failure(&self, error: tokio_postgres::Error) -> Error {
        let waited = tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE;
        if error.code() != Some(&waited) {
            return Error::from(error);
        }
        let message = format!(
            "a transaction that began earlier was still running after {} s; try the index {} again later",
            WAIT_MAX.as_secs(),
            self.name
        );
        Error::new(ErrorKind::Retryable, message).because(Error::from(error))
    }
}
