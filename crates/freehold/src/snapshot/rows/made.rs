//! Values that a new tenant gets anew although their columns have no default: the time, and random ids, which
//! are the same wherever they stand. Migrations write both, as `now()` and `gen_random_uuid()`. Two runs of a
//! file show which values these are.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::schema::policy::quote_literal;
use crate::wire;

/// How a value is produced.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Made {
    Now,
    /// The time in UTC, in a column without time zone.
    NowInUtc,
    /// A random UUID.
    Id,
}

impl Made {
    /// The value for a tenant. `ids` are those that it got instead of the template's.
    pub(super) fn literal<'c>(
        &self,
        kind: Option<&str>,
        was: &'c str,
        ids: &mut HashMap<&'c str, String>,
    ) -> String {
        let kind = kind.unwrap_or("timestamptz");
        match self {
            Made::Now => format!("CAST(now() AS {kind})"),
            Made::NowInUtc => format!("CAST(now() AT TIME ZONE 'UTC' AS {kind})"),
            Made::Id => {
                let id = ids.entry(was).or_insert_with(|| uuid::Uuid::new_v4().to_string());
                quote_literal(id)
            }
        }
    }
}

/// What `now()` and its time in UTC were as values of each type. They are the same during a transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moments(HashMap<String, [String; 2]>);

impl Moments {
    pub(super) async fn read(
        client: &mut wire::Connection,
        kinds: impl Iterator<Item = &str>,
    ) -> Result<Moments> {
        let kinds: HashSet<&str> = kinds.filter(|kind| kind.starts_with("timestamp")).collect();
        let mut moments = Moments::default();
        for kind in kinds {
            let sql = format!(
                "SELECT CAST(now() AS {kind})::text, CAST(now() AT TIME ZONE 'UTC' AS {kind})::text"
            );
            let rows = client.query_once(&sql, &[]).await?;
            let texts = rows.first().map(|row| [row.get(0), row.get(1)]).unwrap_or_default();
            moments.0.insert(kind.to_owned(), texts);
        }
        Ok(moments)
    }
}

/// How a value of this type was produced, from those of two runs.
pub(super) fn recognised(
    kind: &str,
    (here, there): (&str, &str),
    (now_here, now_there): (&Moments, &Moments),
) -> Option<Made> {
    let is_text = ["text", "character"].iter().any(|text| kind.starts_with(text));
    if kind == "uuid" || is_text {
        return (is_random_id(here) && is_random_id(there)).then_some(Made::Id);
    }
    let (now_here, now_there) = (now_here.0.get(kind)?, now_there.0.get(kind)?);
    let is = |at: usize| now_here[at] == here && now_there[at] == there;
    match () {
        () if is(0) => Some(Made::Now),
        () if is(1) => Some(Made::NowInUtc),
        () => None,
    }
}

/// Whether it is a UUID of version 4, as PostgreSQL prints it.
fn is_random_id(text: &str) -> bool {
    uuid::Uuid::try_parse(text)
        .is_ok_and(|id| id.get_version_num() == 4 && id.hyphenated().to_string() == text)
}

/// A value as it is after its column has changed from a time without time zone to one with.
pub(super) fn key(text: &str) -> &str {
    text.strip_suffix("+00").unwrap_or(text)
}

/// The ids of one run with those of another.
#[derive(Default)]
pub(super) struct Ids {
    there: HashMap<String, String>,
    /// Those in columns that no default produces.
    copied: HashSet<String>,
}

impl Ids {
    /// None if the id stands beside another one than before: then it is none of the copies of one value.
    pub(super) fn pair(&mut self, here: &str, there: &str, has_default: bool) -> Option<()> {
        if !has_default {
            self.copied.insert(here.to_owned());
        }
        let known = self.there.entry(here.to_owned()).or_insert_with(|| there.to_owned());
        (known == there).then_some(())
    }

    /// Whether other cells need the same value as one that a default produces.
    pub(super) fn is_shared(&self, here: &str) -> bool {
        self.copied.contains(here)
    }
}
