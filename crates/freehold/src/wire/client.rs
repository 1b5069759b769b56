//! Clients of a driver with conveniences, for set-up, for LISTEN and for looks from outside: no
//! tenant's work goes over them.

use tokio_postgres::Client;

use crate::error::Result;
use crate::wire::tls::{self, Target};

/// A connection as whoever `url` names, in no tenant's context: for those who prepare a database
/// or look at what is really in it. Policies bind it as they bind its role.
///
/// # Errors
/// [`ErrorKind::Setup`](crate::ErrorKind::Setup) if it is no connection string, [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable).
pub async fn connect_bare(url: &str) -> Result<Client> {
    connect(&tls::target(url, "the database's URL")?).await
}

/// Connects by a driver with conveniences, for set-up, and lets the connection's own task run
/// until the client is dropped.
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

/// [`connect`], to read in a transaction: behind a pooler what follows is then one session's, which
/// knows the statements that the driver has prepared. What the role has set for itself (`settings`) is in
/// no way here. To be ended by ROLLBACK.
pub(crate) async fn connect_to_read(target: &Target) -> Result<Client> {
    let client = connect(target).await?;
    let begin = "BEGIN READ ONLY; SET LOCAL statement_timeout = '30s'; SET LOCAL ROLE NONE;
                 SET LOCAL search_path = pg_temp; SET LOCAL row_security = on";
    client.batch_execute(begin).await?;
    Ok(client)
}
