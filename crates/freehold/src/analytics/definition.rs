//! Definitions: a file with a short header and a SELECT about one tenant. Pure except for reading the folder.
//!
//! ```sql
//! -- name: orders_per_day
//! -- about: Orders and what they came to
//! -- grain: day
//! -- schedule: every 5m
//! -- minimum group: 5
//! -- watermark: changed_at
//! SELECT created_at::date AS day, count(*) AS orders, max(updated_at) AS changed_at
//! FROM orders GROUP BY 1
//! ```

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// The most characters of a name: a table's name consists of it and a prefix.
const NAME_CHARS_MAX: usize = 40;
/// A group of fewer tenants is withheld, unless the definition sets another minimum.
const MINIMUM_GROUP: i32 = 5;
/// A longer interval is taken for a mistake.
const SCHEDULE_MAX: Duration = Duration::from_secs(31 * 24 * 3600);

/// One file of analytics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnalyticsDefinition {
    /// In lower case; part of the rollup's name and of addresses.
    pub name: String,
    /// A description in one line.
    pub about: String,
    /// The columns that identify a row; the others are measures.
    pub grain: Vec<String>,
    /// How often it is collected and published.
    pub schedule: Duration,
    /// Figures of fewer tenants than this are not shown across tenants.
    pub minimum_group: i32,
    /// The measures whose average over tenants is published instead of their sum.
    pub averages: Vec<String>,
    /// How changed groups are recognised.
    pub watermark: Option<Watermark>,
    /// The SELECT.
    pub statement: String,
    /// The whole file.
    #[serde(skip)]
    pub source: String,
}

/// A column of the SELECT that increases in a group whenever the group changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Its name.
    pub column: String,
    /// Whether it covers inserts only, and not updates.
    pub inserts_only: bool,
}

/// A folder of definitions, one file each.
#[derive(Clone, Debug, Default)]
pub struct AnalyticsFolder {
    definitions: Vec<AnalyticsDefinition>,
}

impl AnalyticsFolder {
    /// Reads every `.sql` file of a folder.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] with the file and what to do.
    pub fn read(folder: impl AsRef<Path>) -> Result<AnalyticsFolder> {
        let folder = folder.as_ref();
        let entries = std::fs::read_dir(folder).map_err(|source| {
            refuse(format!("the folder of analytics {} cannot be read", folder.display()))
                .because(source)
        })?;
        let mut definitions = Vec::new();
        for entry in entries {
            let path = entry
                .map_err(|source| refuse("a definition cannot be read").because(source))?
                .path();
            if path.extension().is_none_or(|extension| extension != "sql") {
                continue;
            }
            let text = std::fs::read_to_string(&path).map_err(|source| {
                refuse(format!("{} cannot be read as UTF-8", path.display())).because(source)
            })?;
            let definition = AnalyticsDefinition::parse(&text)
                .map_err(|error| refuse(format!("{}: {}", path.display(), error.message())))?;
            definitions.push(definition);
        }
        AnalyticsFolder::from_definitions(definitions)
    }

    /// Sorts definitions by name; two of the same name are an error.
    pub fn from_definitions(mut definitions: Vec<AnalyticsDefinition>) -> Result<AnalyticsFolder> {
        definitions.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = definitions.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(refuse(format!("two definitions have the name {}", pair[0].name)));
        }
        Ok(AnalyticsFolder { definitions })
    }

    /// The definitions, in the order of their names.
    pub fn definitions(&self) -> &[AnalyticsDefinition] {
        &self.definitions
    }
}

impl AnalyticsDefinition {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] with the line and what would be right.
    pub fn parse(source: &str) -> Result<AnalyticsDefinition> {
        let mut header = Header::default();
        let mut rest = source;
        let mut number = 0;
        while !rest.is_empty() {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            number += 1;
            match line.trim().strip_prefix("--") {
                Some(comment) => header
                    .take(comment.trim())
                    .map_err(|why| refuse(format!("line {number}: {why}")))?,
                None if line.trim().is_empty() => {}
                None => break,
            }
            rest = after;
        }
        let statement = rest.trim().trim_end_matches(';').trim_end().to_owned();
        if statement.is_empty() {
            return Err(refuse("the SELECT is missing below the header"));
        }
        let missing = |key: &str, example: &str| {
            refuse(format!("the header lacks a line such as `-- {key}: {example}`"))
        };
        let grain = header.grain.ok_or_else(|| missing("grain", "day"))?;
        let averages = header.averages.unwrap_or_default();
        if let Some(both) = averages.iter().find(|column| grain.contains(column)) {
            return Err(refuse(format!("{both} is in the grain, so it is no measure to average")));
        }
        Ok(AnalyticsDefinition {
            name: header.name.ok_or_else(|| missing("name", "orders_per_day"))?,
            about: header.about.unwrap_or_default(),
            grain,
            schedule: header.schedule.ok_or_else(|| missing("schedule", "every 5m"))?,
            minimum_group: header.minimum_group.unwrap_or(MINIMUM_GROUP),
            averages,
            watermark: header.watermark,
            statement,
            source: source.to_owned(),
        })
    }

    /// SHA-256 of the file, in hex.
    pub fn checksum(&self) -> String {
        Sha256::digest(self.source.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The lines of a header that have been read.
#[derive(Default)]
struct Header {
    name: Option<String>,
    about: Option<String>,
    grain: Option<Vec<String>>,
    schedule: Option<Duration>,
    minimum_group: Option<i32>,
    averages: Option<Vec<String>>,
    watermark: Option<Watermark>,
}

impl Header {
    fn take(&mut self, line: &str) -> Result<(), String> {
        let Some((key, value)) = line.split_once(':') else { return Ok(()) };
        let value = value.trim();
        match key.trim() {
            "name" => set(&mut self.name, key, name(value)?),
            "about" => set(&mut self.about, key, value.to_owned()),
            "grain" => set(&mut self.grain, key, columns(value)?),
            "schedule" => set(&mut self.schedule, key, schedule(value)?),
            "minimum group" => set(&mut self.minimum_group, key, minimum_group(value)?),
            "average" => set(&mut self.averages, key, columns(value)?),
            "watermark" => set(&mut self.watermark, key, watermark(value)?),
            other => Err(format!(
                "`{other}:` is none of name, about, grain, schedule, minimum group, average, \
                 watermark; put other comments below the first line of the SELECT"
            )),
        }
    }
}

fn set<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("`{key}:` is there twice")),
    }
}

fn name(text: &str) -> Result<String, String> {
    let plain = text.len() <= NAME_CHARS_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain {
        return Ok(text.to_owned());
    }
    Err(format!(
        "a name has 1 to {NAME_CHARS_MAX} of a-z, 0-9 and _, beginning with a letter; this is {text:?}"
    ))
}

fn columns(text: &str) -> Result<Vec<String>, String> {
    let columns: Vec<_> = text.split(',').map(|column| column.trim().to_owned()).collect();
    if columns.iter().any(String::is_empty) {
        return Err("name columns of the SELECT, with commas between them".to_owned());
    }
    Ok(columns)
}

fn schedule(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "a schedule is such as `every 30s`, `every 5m`, `every 1h` or `every 1d`; this is {text:?}"
        )
    };
    let period = text.strip_prefix("every ").map(str::trim).ok_or_else(wrong)?;
    let unit = match period.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = period[..period.len() - 1].trim().parse().map_err(|_| wrong())?;
    let schedule = Duration::from_secs(count.saturating_mul(unit));
    if schedule.is_zero() || schedule > SCHEDULE_MAX {
        return Err("a schedule is between a second and 31 days".to_owned());
    }
    Ok(schedule)
}

fn minimum_group(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|count| (1..=1_000_000).contains(count)).ok_or_else(|| {
        format!("a minimum group is a number of tenants, 1 or more; this is {text:?}")
    })
}

fn watermark(text: &str) -> Result<Watermark, String> {
    let (column, rest) = text.split_once(',').unwrap_or((text, ""));
    let inserts_only = match rest.trim() {
        "" => false,
        "inserts only" => true,
        other => {
            return Err(format!(
                "after the watermark's column stands nothing or `, inserts only`, not {other:?}"
            ));
        }
    };
    let column = column.trim();
    if column.is_empty() {
        return Err("name the column of the SELECT that rises with every change".to_owned());
    }
    Ok(Watermark { column: column.to_owned(), inserts_only })
}

fn refuse(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Setup, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "-- name: orders_per_day
-- about: Orders: how many
-- Prose without a key is passed over.
-- grain: day, country
-- schedule: every 5m
-- minimum group: 3
-- average: share
-- watermark: changed_at, inserts only

SELECT 1 AS day -- not: a header
;
";

    #[test]
    fn a_whole_header_is_read() {
        let read = AnalyticsDefinition::parse(WHOLE).unwrap();
        assert_eq!(read.name, "orders_per_day");
        assert_eq!(read.about, "Orders: how many");
        assert_eq!(read.grain, ["day", "country"]);
        assert_eq!(read.schedule, Duration::from_secs(300));
        assert_eq!(read.minimum_group, 3);
        assert_eq!(read.averages, ["share"]);
        let watermark = Watermark { column: "changed_at".into(), inserts_only: true };
        assert_eq!(read.watermark, Some(watermark));
        assert_eq!(read.statement, "SELECT 1 AS day -- not: a header");
    }

    #[test]
    fn what_may_be_left_out_has_a_careful_default() {
        let read =
            AnalyticsDefinition::parse("-- name: a\n-- grain: d\n-- schedule: every 1d\nTABLE x")
                .unwrap();
        assert_eq!((read.minimum_group, read.watermark), (5, None));
    }

    #[test]
    fn each_malformed_header_is_refused_with_what_would_be_right() {
        for (from, to, told) in [
            ("-- name: orders_per_day\n", "", "-- name: orders_per_day"),
            ("name: orders_per_day", "name: Orders", "1 to 40 of a-z"),
            ("name: orders_per_day", "name: a\"; DROP TABLE x", "1 to 40 of a-z"),
            ("-- grain: day, country\n", "", "-- grain: day"),
            ("grain: day, country", "grain: day,,country", "commas"),
            ("every 5m", "5m", "every 5m"),
            ("every 5m", "every 5 weeks", "every 5m"),
            ("every 5m", "every 0s", "between a second and 31 days"),
            ("every 5m", "every 99999999999999999999s", "every 5m"),
            ("group: 3", "group: none", "1 or more"),
            ("group: 3", "group: 0", "1 or more"),
            ("inserts only", "sometimes", "inserts only"),
            ("average: share", "average: day", "no measure"),
            ("-- minimum group: 3", "-- minimum: 3", "none of name"),
            ("-- minimum group: 3", "-- grain: day", "twice"),
            ("SELECT 1 AS day -- not: a header", "", "SELECT is missing"),
        ] {
            assert!(WHOLE.contains(from), "{from}");
            let error = AnalyticsDefinition::parse(&WHOLE.replacen(from, to, 1)).unwrap_err();
            assert!(error.message().contains(told), "{to:?}: {}", error.message());
        }
    }

    #[test]
    fn two_of_one_name_are_refused() {
        let one = AnalyticsDefinition::parse(WHOLE).unwrap();
        assert!(AnalyticsFolder::from_definitions(vec![one.clone(), one]).is_err());
    }
}
