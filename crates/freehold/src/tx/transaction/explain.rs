//! The plan of a statement, without running it and without its values.

use serde_json::Value;
use uuid::Uuid;

use super::{Transaction, held};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{Answer, Statement, WireError};

/// Planning must not wait for the tenant's migration or hold it up, and must not use a CPU for long.
const SETTINGS: [&str; 3] = [
    "SET LOCAL statement_timeout = '1s'",
    "SET LOCAL lock_timeout = '50ms'",
    // A plan for any values. EXPLAIN's own GENERIC_PLAN needs PostgreSQL 16.
    "SET LOCAL plan_cache_mode = force_generic_plan",
];

impl Transaction {
    pub(in crate::tx) async fn explain(&mut self, sql: &str) -> Result<Value> {
        let parameters = self.statement(sql).await?.parameters();
        // As unguessable as the names of other prepared statements.
        let name = format!("explain_{}", Uuid::new_v4().simple());
        let explained = self.explain_as(&name, sql, parameters).await;
        // A prepared statement outlives the transaction, and behind a pooler its session is reachable only
        // until the transaction ends: so ROLLBACK and DEALLOCATE are one message.
        let tidy = format!("ROLLBACK; DEALLOCATE {name}");
        match held(&mut self.connection).wire.batch_execute(&tidy).await {
            // The statement was not even prepared.
            Err(WireError::Database(_)) if explained.is_err() => {}
            tidied => tidied?,
        }
        let plan = explained?.pop().and_then(|answer| answer.rows.first()?.try_get(0).ok());
        plan.ok_or_else(|| Error::new(ErrorKind::Internal, "EXPLAIN gave no plan"))
    }

    async fn explain_as(
        &mut self,
        name: &str,
        sql: &str,
        parameters: usize,
    ) -> Result<Vec<Answer>> {
        let Transaction { connection, entry, .. } = self;
        let connection = held(connection);
        let fixed = &connection.fixed.clone();
        let pass = connection.vouch(&entry.claim);
        let nulls = vec!["NULL"; parameters].join(", ");
        let call = if parameters == 0 { name.to_owned() } else { format!("{name}({nulls})") };
        let mut batch = connection.batch()?;
        batch.quiet(&fixed.begin_read, &[])?;
        entry.put(&mut batch, fixed, &pass)?;
        for setting in SETTINGS {
            batch.quiet(&Statement::unnamed(setting, &[]), &[])?;
        }
        batch.quiet(&Statement::unnamed(&format!("PREPARE {name} AS {sql}"), &[]), &[])?;
        batch.query(
            &Statement::unnamed(&format!("EXPLAIN (FORMAT JSON) EXECUTE {call}"), &[]),
            &[],
        )?;
        Ok(batch.run().await?)
    }
}
