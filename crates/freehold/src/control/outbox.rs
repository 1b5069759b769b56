//! Counts messages that wait to be sent.

use crate::catalog::outbox;
use crate::error::Result;
use crate::freehold::Freehold;
use crate::model::context::OperatorContext;

/// Handle for counting messages that wait to be sent: [`Freehold::outbox`].
#[derive(Clone, Copy)]
pub struct Outbox<'a>(&'a Freehold);

impl Freehold {
    /// Counts messages that wait to be sent.
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox(self)
    }
}

impl Outbox<'_> {
    /// How many messages wait, and how many of the last day were given up.
    pub async fn count(self, context: &OperatorContext) -> Result<(i64, i64)> {
        let mut tx = self.0.catalog(context).await?;
        let counts = outbox::count(&mut tx).await?;
        tx.commit().await?;
        Ok(counts)
    }
}
