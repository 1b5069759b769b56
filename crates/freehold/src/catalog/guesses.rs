//! `freehold.guess`: the state of the budgets of guesses, for all servers together.
//!
//! A guess is taken and committed before the password is hashed, so concurrent guesses are bounded like
//! successive ones. A right password gives it back in the transaction that opens the session; that
//! transaction also locks the person and compares the epoch, so a password that was replaced meanwhile opens
//! nothing.
//!
//! The budgets are in PostgreSQL since counters in memory would give ten servers ten times the guesses, and
//! Redis may be unavailable and decides nothing. One upsert costs little beside a hash of 20 ms.

use crate::error::{Error, ErrorKind, Result};
use crate::tx::CatalogTx;

/// This many guesses at once, then one more after each `secs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) key: [u8; 16],
    pub(crate) burst: i32,
    pub(crate) secs: f64,
}

/// Takes a guess from each budget in order. `Some`: the budget with this key is exhausted, and has a guess
/// again after this many seconds.
pub(crate) async fn take(tx: &mut CatalogTx, budgets: &[Budget]) -> Result<Option<(Vec<u8>, f64)>> {
    let (keys, secs) = columns(budgets);
    let bursts: Vec<i32> = budgets.iter().map(|budget| budget.burst).collect();
    let row = tx
        .query_opt(
            "SELECT used_up, wait FROM freehold.take_guess($1, $2, $3)",
            &[&keys, &bursts, &secs],
        )
        .await?
        .ok_or_else(|| Error::new(ErrorKind::Internal, "guesses cannot be counted"))?;
    Ok(row.get::<_, Option<Vec<u8>>>(0).zip(row.get(1)))
}

/// Gives back what [`take`] took.
pub(crate) async fn give_back(tx: &mut CatalogTx, budgets: &[Budget]) -> Result<()> {
    let (keys, secs) = columns(budgets);
    tx.query("SELECT freehold.return_guess($1, $2)", &[&keys, &secs]).await?;
    Ok(())
}

fn columns(budgets: &[Budget]) -> (Vec<&[u8]>, Vec<f64>) {
    budgets.iter().map(|budget| (budget.key.as_slice(), budget.secs)).unzip()
}

/// Deletes budgets that are full again.
pub(crate) async fn prune(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("DELETE FROM freehold.guess WHERE free_at < now()", &[]).await?;
    Ok(())
}
