//! Marks by which servers that cannot LISTEN notice changes of what they keep until it changes.

use crate::error::{Error, ErrorKind, Result};
use crate::tx::CatalogTx;

/// A text for each state; it differs between states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChangeMarks {
    pub(crate) baseline: String,
    /// The id of the key that seals contexts; empty if there is none.
    pub(crate) newest_key: String,
}

/// A migration never changes, but one that was withdrawn and adopted with another text has another checksum.
const MARKS_SQL: &str = "
SELECT (SELECT md5(coalesce(string_agg(concat_ws(' ', version, checksum), ',' ORDER BY version), '')) FROM freehold.baseline),
       coalesce(freehold_guard.newest_key_id(), '')";

/// All marks, by one query.
pub(crate) async fn read(tx: CatalogTx) -> Result<ChangeMarks> {
    let rows = tx.query_and_commit(MARKS_SQL, &[]).await?;
    let row = rows.first();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Internal, "the catalog says nothing"))?;
    Ok(ChangeMarks { baseline: row.try_get(0)?, newest_key: row.try_get(1)? })
}
