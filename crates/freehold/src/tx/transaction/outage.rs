//! Refusals that may not be the statement's fault: the database takes no writes, or does not know this
//! server's key. The database is asked once the transaction is over.

use super::{Access, Stage, Transaction, held};
use crate::error::{Error, ErrorKind, Result, is_unknown_seal};
use crate::pool::pooler;
use crate::pool::seal::{ContextProof, SEEN_CONTEXT};
use crate::wire::Statement;

impl Transaction {
    /// Handles a write that was refused in a transaction begun to write. Begins again if the server now takes
    /// writes and the transaction ran nothing before.
    ///
    /// # Errors
    /// An outage, if the server is read-only; the connection is given up, so the next caller gets another.
    /// The refusal unchanged, if SQL made its own transaction read-only.
    pub(super) async fn renew_if_writable(&mut self, error: Error, first: bool) -> Result<()> {
        if self.is_on_read_only_server().await {
            return Err(error.into_read_only());
        }
        if !first {
            return Err(error);
        }
        self.stage = Stage::Fresh;
        Ok(())
    }

    /// Asks in a new transaction whether the server is read-only, and if so gives the connection up.
    pub(super) async fn is_on_read_only_server(&mut self) -> bool {
        let asked = async {
            self.rollback().await?;
            Ok::<_, Error>(pooler::takes_writes(&mut held(&mut self.connection).wire).await?)
        };
        let takes_writes = matches!(asked.await, Ok(true));
        self.stage = Stage::Failed;
        if !takes_writes {
            held(&mut self.connection).wire.condemn();
        }
        !takes_writes
    }

    /// Handles a refused seal that the database does not know. If it does not know this server's key, that is
    /// a fault of the configuration. Otherwise SQL tried a context of its own, and the error is returned
    /// unchanged.
    pub(super) async fn explain_unknown_seal(&mut self, error: Error) -> Error {
        let is_on_replica = matches!(self.entry.access, Access::Replica(_));
        if is_on_replica
            || !error.database().is_some_and(is_unknown_seal)
            || self.is_sealed_with_known_key().await
        {
            return error;
        }
        let message = "this server cannot vouch for its requests; its log says why";
        held(&mut self.connection).tell_unknown_key();
        Error::new(ErrorKind::Setup, message).because(error)
    }

    async fn is_sealed_with_known_key(&mut self) -> bool {
        let asked = async {
            self.rollback().await?;
            let Transaction { connection, entry, .. } = self;
            let connection = held(connection);
            let fixed = connection.fixed.clone();
            let pass = ContextProof::sealed(connection.seal(&entry.claim));
            let mut batch = connection.batch()?;
            entry.put(&mut batch, &fixed, &pass)?;
            batch.quiet(&Statement::unnamed(SEEN_CONTEXT, &[]), &[])?;
            Ok::<_, Error>(batch.run().await?)
        };
        let refused = asked.await.err();
        self.stage = Stage::Failed;
        !refused.is_some_and(|error| error.database().is_some_and(is_unknown_seal))
    }
}
