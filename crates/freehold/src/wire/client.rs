//! Clients by tokio-postgres, for set-up, LISTEN and inspection. No tenant's work uses them.

use tokio_postgres::Client;

use crate::error::Result;
#[cfg(feature = "testing")]
use crate::wire::tls;
use crate::wire::tls::Target;

/// A connection as the user in `url`, without a tenant's context: to prepare a database or to inspect it.
/// Policies apply as they do to its role.
///
/// # Errors
/// [`ErrorKind::Setup`](crate::ErrorKind::Setup) if `url` is not a connection string,
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
#[cfg(feature = "testing")]
pub async fn connect_bare(url: &str) -> Result<Client> {
    connect(&tls::target(url, "the database's URL")?).await
}

/// Connects for set-up work. The connection's task runs until the client is dropped.
pub(crate) async fn connect(target: &Target) -> Result<Client> {
    let (client, connection) = target
        .config
        .connect(target.tls.clone())
        .await
        .map_err(|source| target.cannot_connect(source))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a database connection ended");
        }
    });
    Ok(client)
}

/// [`connect`], with a transaction begun to read in. Behind a pooler, the transaction keeps one session, on
/// which the driver's prepared statements exist. Settings of the role itself (`settings`) are overridden. The
/// caller ends it by ROLLBACK.
pub(crate) async fn connect_to_read(target: &Target) -> Result<Client> {
    let client = connect(target).await?;
    let begin = "BEGIN READ ONLY; SET LOCAL statement_timeout = '30s'; SET LOCAL ROLE NONE;
                 SET LOCAL search_path = pg_temp; SET LOCAL row_security = on";
    client.batch_execute(begin).await?;
    Ok(client)
}
