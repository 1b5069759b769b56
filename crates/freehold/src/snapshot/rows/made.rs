//! Values that a new tenant gets anew, whether or not their columns have a default: the time, and random ids,
//! which are the same wherever they stand. Migrations write both, as `now()` and `gen_random_uuid()`. Two runs
//! of a file show which values these are: they differ, each is the time of its run or looks like an id, and an
//! id stands beside the same id of the other run everywhere. A value that does not differ is a constant,
//! whatever it looks like.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
    /// A UUID of version 4 or 7, which contain random bits.
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
                let make = || match random_version(was) {
                    Some(7) => Uuid::now_v7().to_string(),
                    _ => Uuid::new_v4().to_string(),
                };
                quote_literal(ids.entry(was).or_insert_with(make))
            }
        }
    }
}

/// What `now()` and its time in UTC were as values of each type, exactly and rounded: the column's type may
/// have been another one when the value was written. They are the same during a transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moments(HashMap<String, Vec<[String; 2]>>);

impl Moments {
    pub(super) async fn read(
        client: &mut wire::Connection,
        kinds: impl Iterator<Item = &str>,
    ) -> Result<Moments> {
        let kinds: HashSet<&str> = kinds.filter(|kind| kind.starts_with("timestamp")).collect();
        let mut moments = Moments::default();
        for kind in kinds {
            let rounded = (0..=6).rev().map(|digits| {
                format!(
                    "SELECT CAST(CAST(now() AS timestamptz({digits})) AS {kind})::text,
                       CAST(CAST(now() AT TIME ZONE 'UTC' AS timestamp({digits})) AS {kind})::text"
                )
            });
            let sql = rounded.collect::<Vec<_>>().join(" UNION ALL ");
            let rows = client.query_once(&sql, &[]).await?;
            let texts = rows.iter().map(|row| [row.get(0), row.get(1)]);
            moments.0.insert(kind.to_owned(), texts.collect());
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
        let version = random_version(here)?;
        return (random_version(there) == Some(version)).then_some(Made::Id);
    }
    let (now_here, now_there) = (now_here.0.get(kind)?, now_there.0.get(kind)?);
    let is = |at: usize| {
        now_here
            .iter()
            .zip(now_there)
            .any(|(now_here, now_there)| now_here[at] == here && now_there[at] == there)
    };
    match () {
        () if is(0) => Some(Made::Now),
        () if is(1) => Some(Made::NowInUtc),
        () => None,
    }
}

/// The version of a UUID that contains random bits, written as PostgreSQL prints it.
fn random_version(text: &str) -> Option<usize> {
    let id = Uuid::try_parse(text).ok()?;
    let version = id.get_version_num();
    (matches!(version, 4 | 7) && id.hyphenated().to_string() == text).then_some(version)
}

/// A value as it is after its column has changed from a time without time zone to one with.
pub(super) fn key(text: &str) -> &str {
    text.strip_suffix("+00").unwrap_or(text)
}

/// The ids of one run with those of another.
#[derive(Default)]
pub(super) struct Ids(HashMap<String, String>);

impl Ids {
    /// None if the id stands beside another one than before: then it is none of the copies of one value.
    pub(super) fn pair(&mut self, here: &str, there: &str) -> Option<()> {
        let known = self.0.entry(here.to_owned()).or_insert_with(|| there.to_owned());
        (known == there).then_some(())
    }
}
