//! Tenants, their statuses and the valid transitions. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::model::ids::{Slug, TenantId};

/// A tenant as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tenant {
    /// Never changes; the schema is named after it.
    pub id: TenantId,
    /// Its name in URLs.
    pub slug: Slug,
    /// Its display name.
    pub name: String,
    /// Whether it is served.
    pub status: TenantStatus,
    /// The newest migration that the tenant's schema has.
    pub version: i64,
    /// Its weight in the pool, which matters when connections are scarce.
    pub weight: Weight,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A tenant's weight when the pool's connections are scarce: among tenants that want more than there are, a
/// tenant of weight 3 gets three connections for each one of a tenant of weight 1. From 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Weight(u8);

impl Weight {
    /// The default weight.
    pub const ONE: Weight = Weight(1);

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<i16> for Weight {
    type Error = Error;

    fn try_from(weight: i16) -> Result<Weight> {
        match u8::try_from(weight) {
            Ok(weight @ 1..=100) => Ok(Weight(weight)),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a weight is from 1 to 100, and not {weight}"),
            )
            .field("weight")),
        }
    }
}

impl From<Weight> for i16 {
    fn from(weight: Weight) -> i16 {
        weight.0.into()
    }
}

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantStatus {
    /// Served.
    Active,
    /// Its data are kept, but no request is served.
    Suspended,
}

impl TenantStatus {
    /// The status in lower case, as in the catalog and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "active" => Ok(Self::Active),
            "suspended" => Ok(Self::Suspended),
            other => Err(Error::new(ErrorKind::Internal, format!("unknown tenant status {other}"))),
        }
    }

    /// Refuses any tenant that is not active, with an error code of its own.
    pub fn require_active(self) -> Result<()> {
        match self {
            Self::Active => Ok(()),
            Self::Suspended => Err(Error::new(
                ErrorKind::TenantSuspended,
                "this tenant is suspended; ask its operator to resume it",
            )),
        }
    }
}

/// A change of status that an operator may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Refuse the tenant's requests; keep its data.
    Suspend,
    /// Serve it again.
    Resume,
}

impl Transition {
    /// The status that results from this transition.
    ///
    /// Asking for the current status is valid and changes nothing, so a repeated command is not an error.
    pub fn apply(self, from: TenantStatus) -> TenantStatus {
        match (self, from) {
            (Self::Suspend, TenantStatus::Active | TenantStatus::Suspended) => {
                TenantStatus::Suspended
            }
            (Self::Resume, TenantStatus::Active | TenantStatus::Suspended) => TenantStatus::Active,
        }
    }
}

/// The longest display name of a tenant or person, in characters.
const NAME_CHARS_MAX: usize = 200;

/// A display name: any text without control characters, trimmed, not empty.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<String> {
    let name = name.trim();
    let refuse = |why: &str| {
        Err(Error::new(ErrorKind::InvalidInput, format!("the {field} {why}")).field(field))
    };
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return refuse("must have 1 to 200 characters");
    }
    if name.chars().any(char::is_control) {
        return refuse("must not hold control characters");
    }
    Ok(name.to_owned())
}
