//! Indexes of single tenants: what is known of them, what is advised, and how they are created and dropped
//! without interrupting the tenant.
//!
//! `survey` reads tenants' tables and PostgreSQL's counts of them, `sampler` counts query shapes of the data
//! API, `advice` and `fleet` are pure, `plan` asks the planner, `build` changes a schema. `control::indexes`
//! checks permissions and records changes.
//!
//! The data API samples one request in sixteen (`Freehold::count_query`), and `recording::reporter` writes
//! the query shapes down. A build is recorded in `freehold.tenant_index` before and after it runs, for the
//! doctor's drift check and the migrator.

pub(crate) mod advice;
pub(crate) mod build;
pub(crate) mod fleet;
pub(crate) mod plan;
pub(crate) mod sampler;
pub(crate) mod survey;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::TenantId;
use crate::schema::policy::quote_ident;

/// A shape with more conditions and sort columns than this is not counted.
const SHAPE_COLUMNS_MAX: usize = 16;

/// The shape of a query on one table: columns and operators, no values. Only conditions that must all hold
/// are included: one inside an OR finds no rows by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QueryShape {
    /// The table, in the tenant's schema.
    pub table: String,
    /// Columns and their operators, as in SQL.
    pub conditions: Vec<(String, String)>,
    /// Columns of ORDER BY.
    pub order: Vec<IndexColumn>,
}

impl QueryShape {
    /// The canonical form, so that few shapes are distinguished; `None` if it has no conditions and no order,
    /// or too many.
    fn reduced(mut self) -> Option<QueryShape> {
        self.conditions.sort();
        self.conditions.dedup();
        let columns = self.conditions.len() + self.order.len();
        (1..=SHAPE_COLUMNS_MAX).contains(&columns).then_some(self)
    }
}

/// A shape that was requested, and how often.
#[derive(Clone, Debug)]
pub(crate) struct SampledShape {
    pub(crate) tenant: TenantId,
    pub(crate) shape: QueryShape,
    /// Estimated from the sample.
    pub(crate) requests: i64,
    pub(crate) first_at: Timestamp,
}

/// A column of an index or of a sort order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IndexColumn {
    /// Its name.
    pub name: String,
    /// Descending instead of ascending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub descending: bool,
}

impl IndexColumn {
    /// An ascending column.
    pub fn new(name: impl Into<String>) -> IndexColumn {
        IndexColumn { name: name.into(), descending: false }
    }

    /// `name`, or `name desc`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a direction other than `asc` and `desc`.
    pub fn parse(text: &str) -> Result<IndexColumn> {
        let text = text.trim();
        let (name, direction) = text.rsplit_once(' ').unwrap_or((text, "asc"));
        let descending = match direction.to_ascii_lowercase().as_str() {
            "asc" => false,
            "desc" => true,
            _ => {
                let message = format!("{text} is no column: write `name` or `name desc`");
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
        };
        Ok(IndexColumn { name: name.trim().to_owned(), descending })
    }

    fn sql(&self) -> String {
        let direction = if self.descending { " DESC" } else { "" };
        format!("{}{direction}", quote_ident(&self.name))
    }
}

impl std::fmt::Display for IndexColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if self.descending { f.write_str(" desc") } else { Ok(()) }
    }
}

/// The progress of a change of one tenant's indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexState {
    /// Creation has begun; an interrupted attempt stays here until it is repeated.
    Creating,
    /// The tenant has it, and the template does not.
    Created,
    /// Dropping has begun.
    Dropping,
    /// The template has it, and the tenant does not.
    Dropped,
}

impl IndexState {
    /// The name in the catalog and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            IndexState::Creating => "creating",
            IndexState::Created => "created",
            IndexState::Dropping => "dropping",
            IndexState::Dropped => "dropped",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<IndexState> {
        match text {
            "creating" => Ok(IndexState::Creating),
            "created" => Ok(IndexState::Created),
            "dropping" => Ok(IndexState::Dropping),
            "dropped" => Ok(IndexState::Dropped),
            _ => {
                Err(Error::new(ErrorKind::Internal, "the catalog has an unknown state of an index"))
            }
        }
    }
}

/// An index by which one tenant differs from the template, as recorded.
#[derive(Clone, Debug, Serialize)]
pub struct TenantIndex {
    /// The tenant.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: String,
    /// The index.
    pub name: String,
    /// Its table.
    pub table: String,
    /// As PostgreSQL prints it, with `@schema.` before names in the tenant's schema.
    pub definition: String,
    /// The progress.
    pub state: IndexState,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When this state was reached.
    pub changed_at: Option<Timestamp>,
}

/// A recorded definition, in a tenant's schema.
pub(crate) fn in_schema(definition: &str, schema: &str) -> String {
    definition.replace("@schema.", &format!("{schema}."))
}

/// The name of an index for one tenant, chosen so that no baseline would use it.
pub(crate) fn name_for(table: &str, columns: &[IndexColumn]) -> String {
    use sha2::{Digest as _, Sha256};
    const SUFFIX: &str = "_tenant_idx";
    let mut stem = table.to_owned();
    for column in columns {
        stem.push('_');
        stem.push_str(&column.name);
        if column.descending {
            stem.push_str("_desc");
        }
    }
    // PostgreSQL truncates a name at 63 bytes, which would make two names with the same beginning equal.
    if stem.len() + SUFFIX.len() > 63 {
        let hash = Sha256::digest(stem.as_bytes());
        let mut end = 63 - SUFFIX.len() - 9;
        while !stem.is_char_boundary(end) {
            end -= 1;
        }
        stem.truncate(end);
        stem.push_str(&format!("_{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3]));
    }
    format!("{stem}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_columns_and_never_exceed_postgresqls_bound() {
        let columns = [IndexColumn::new("status"), IndexColumn::parse("created_at desc").unwrap()];
        assert_eq!(name_for("orders", &columns), "orders_status_created_at_desc_tenant_idx");
        let long = [IndexColumn::new("é".repeat(30)), IndexColumn::new("b".repeat(60))];
        let other = [IndexColumn::new("é".repeat(30)), IndexColumn::new("c".repeat(60))];
        let (one, two) = (name_for("orders", &long), name_for("orders", &other));
        assert!(one.len() <= 63 && two.len() <= 63 && one != two, "{one} {two}");
    }

    #[test]
    fn a_column_is_read_with_its_direction() {
        assert_eq!(IndexColumn::parse(" a ").unwrap(), IndexColumn::new("a"));
        assert!(IndexColumn::parse("a DESC").unwrap().descending);
        assert!(IndexColumn::parse("a sideways").is_err());
    }
}
