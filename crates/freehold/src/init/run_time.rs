//! Tables that a tenant's SQL creates at run time: an event trigger protects them at once. Only a superuser
//! can create it.

use tokio_postgres::Client;

use super::roles::is_superuser;
use crate::error::Result;

/// The event trigger's name.
pub(crate) const EVENT_TRIGGER: &str = "freehold_protect_new_tables";

const IS_THERE: &str = "
SELECT EXISTS (SELECT FROM pg_event_trigger t WHERE t.evtname = $1 AND t.evtenabled = 'O'
  AND t.evtevent = 'ddl_command_end' AND t.evtfoid = to_regproc('freehold_guard.protect_new_tables')
  AND t.evttags @> ARRAY['CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO'])";

/// Creates it if this is a superuser; otherwise returns the consequence of its absence.
pub(super) async fn ensure(client: &Client) -> Result<Option<String>> {
    if client.query_one(IS_THERE, &[&EVENT_TRIGGER]).await?.get(0) {
        return Ok(None);
    }
    if !is_superuser(client).await? {
        return Ok(Some(
            "tables that functions of a baseline make at run time stay unprotected, and out of everybody's \
             reach, until the doctor repairs them; only a superuser can change this (run init as one)"
                .to_owned(),
        ));
    }
    client
        .batch_execute(&format!(
            "DROP EVENT TRIGGER IF EXISTS {EVENT_TRIGGER};
             CREATE EVENT TRIGGER {EVENT_TRIGGER} ON ddl_command_end
               WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO')
               EXECUTE FUNCTION freehold_guard.protect_new_tables()"
        ))
        .await?;
    Ok(None)
}
