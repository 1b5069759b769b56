//! Detects which tool's layout a folder of migrations has, from its contents. Pure, except that it reads
//! files which only their text tells apart.

use std::fmt;
use std::str::FromStr;

use super::files::{Entry, Listing};
use super::flyway::{self, Kind};
use super::{marks, public};
use crate::error::{Error, ErrorKind, Result};

/// The tool that a folder of migrations was written for. It determines which files are migrations, and their
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// `0001_name.sql`, Freehold's own.
    Freehold,
    /// `20230101120000_name/migration.sql`, in the order of the folders' names.
    Prisma,
    /// `0000_name.sql`, in the order of `meta/_journal.json`.
    Drizzle,
    /// `2023-01-01-120000_name/up.sql`.
    Diesel,
    /// `20230101120000_name.sql`, or `.up.sql` and `.down.sql`.
    Sqlx,
    /// `000001_name.up.sql` and `.down.sql`.
    GolangMigrate,
    /// `00001_name.sql` with `-- +goose Up` and `-- +goose Down`.
    Goose,
    /// `20230101120000_name.sql` with `-- migrate:up` and `-- migrate:down`.
    Dbmate,
    /// `name.sql` with `-- +migrate Up` and `-- +migrate Down`, by number and then by name.
    SqlMigrate,
    /// `V1_2__name.sql`, in folders below too. `U1_2__name.sql` is never run.
    Flyway,
    /// `V1__name.sql` and `U2__name.sql`, by number.
    Refinery,
    /// `20230101120000_name.sql`.
    Ecto,
    /// `20230101120000_name.sql`, beside `atlas.sum`.
    Atlas,
    /// `supabase/migrations/20230101120000_name.sql`.
    Supabase,
}

/// A layout, with its description.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) layout: Layout,
    /// Its name, with the evidence for it.
    pub(super) said: &'static str,
}

/// The digits of a time to the second: `20230101120000`.
const TIMESTAMP_DIGITS: usize = 14;

impl Layout {
    /// Every one.
    pub const ALL: [Layout; 14] = [
        Layout::Freehold,
        Layout::Prisma,
        Layout::Drizzle,
        Layout::Diesel,
        Layout::Sqlx,
        Layout::GolangMigrate,
        Layout::Goose,
        Layout::Dbmate,
        Layout::SqlMigrate,
        Layout::Flyway,
        Layout::Refinery,
        Layout::Ecto,
        Layout::Atlas,
        Layout::Supabase,
    ];

    /// The name in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Layout::Freehold => "freehold",
            Layout::Prisma => "prisma",
            Layout::Drizzle => "drizzle",
            Layout::Diesel => "diesel",
            Layout::Sqlx => "sqlx",
            Layout::GolangMigrate => "golang-migrate",
            Layout::Goose => "goose",
            Layout::Dbmate => "dbmate",
            Layout::SqlMigrate => "sql-migrate",
            Layout::Flyway => "flyway",
            Layout::Refinery => "refinery",
            Layout::Ecto => "ecto",
            Layout::Atlas => "atlas",
            Layout::Supabase => "supabase",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Layout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Layout> {
        Layout::ALL.into_iter().find(|layout| layout.as_str() == text).ok_or_else(|| {
            let known = Layout::ALL.map(Layout::as_str).join(", ");
            let why = format!("there is no layout {text}: it is one of {known}");
            Error::new(ErrorKind::InvalidInput, why)
        })
    }
}

impl serde::Serialize for Layout {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The layout of a folder; `None` if it contains no migration of any layout.
pub(super) fn detect(listing: &Listing) -> Result<Option<Found>> {
    let by_folders = drizzle_with_journal(listing)
        .or_else(|| prisma(listing))
        .or_else(|| diesel(listing))
        .or_else(|| flyway_or_refinery(listing));
    match by_folders {
        Some(found) => Ok(Some(found)),
        None => flat(listing),
    }
}

const fn found(layout: Layout, said: &'static str) -> Option<Found> {
    Some(Found { layout, said })
}

fn drizzle_with_journal(listing: &Listing) -> Option<Found> {
    let has_journal = listing.folder.join("meta/_journal.json").is_file();
    found(Layout::Drizzle, "drizzle (meta/_journal.json)").filter(|_| has_journal)
}

fn prisma(listing: &Listing) -> Option<Found> {
    if listing.entries.iter().any(|entry| entry.holds("snapshot.json")) {
        return found(Layout::Drizzle, "drizzle (*/migration.sql and snapshot.json)");
    }
    let has_lock = listing.entries.iter().any(|entry| entry.name == "migration_lock.toml");
    let is_prisma = has_lock || listing.entries.iter().any(|entry| entry.holds("migration.sql"));
    found(Layout::Prisma, "prisma (*/migration.sql)").filter(|_| is_prisma)
}

fn diesel(listing: &Listing) -> Option<Found> {
    let is_diesel = listing.entries.iter().any(|entry| entry.holds("up.sql"));
    found(Layout::Diesel, "diesel (*/up.sql)").filter(|_| is_diesel)
}

/// Both use V; U undoes the V of the same version in Flyway, and is a migration in refinery.
fn flyway_or_refinery(listing: &Listing) -> Option<Found> {
    let has_own = listing.sql().next().is_some();
    if has_own && listing.entries.iter().all(|entry| flyway::name(&entry.name).is_none()) {
        return None;
    }
    let below = listing.below();
    let is_here = below.len() == listing.entries.len();
    let names: Vec<flyway::Name<'_>> =
        below.iter().filter_map(|entry| flyway::name(&entry.name)).collect();
    let of = |kind| names.iter().filter(move |name| name.kind == kind);
    of(Kind::Versioned).next()?;
    let is_undo = |undo: &flyway::Name<'_>| of(Kind::Versioned).any(|v| v.parts == undo.parts);
    let is_whole = |name: &flyway::Name<'_>| name.parts.len() == 1;
    if of(Kind::Undo).any(|undo| !is_undo(undo)) {
        return found(Layout::Refinery, "refinery (V1__name.sql, U2__name.sql)");
    }
    let is_plain = is_here && names.iter().all(|n| n.kind == Kind::Versioned && is_whole(n));
    match is_plain {
        true => found(Layout::Flyway, "flyway, or refinery (V1__name.sql)"),
        false => found(Layout::Flyway, "flyway (V1_2__name.sql)"),
    }
}

/// Numbered files, distinguished by comments in them, by neighbouring files or by the width of their numbers.
fn flat(listing: &Listing) -> Result<Option<Found>> {
    let mut has_breakpoints = false;
    for entry in listing.sql() {
        let text = entry.text()?;
        match marks::tool(&text) {
            Some("+goose") => return Ok(found(Layout::Goose, "goose (-- +goose Up)")),
            Some("+migrate") => {
                return Ok(found(Layout::SqlMigrate, "sql-migrate (-- +migrate Up)"));
            }
            Some("migrate:up") => return Ok(found(Layout::Dbmate, "dbmate (-- migrate:up)")),
            _ => has_breakpoints |= public::is_of_drizzle(&text),
        }
    }
    let is_named = |name: &str| listing.entries.iter().any(|entry| entry.name == name);
    let mut sql = listing.sql().peekable();
    if sql.peek().is_none() {
        return Ok(None);
    }
    let is_timestamp = |entry: &Entry| entry.digits().len() == TIMESTAMP_DIGITS;
    let (is_pair, are_timestamps) = sql.fold((false, true), |(pair, timestamps), entry| {
        (pair || entry.stem().ends_with(".up"), timestamps && is_timestamp(entry))
    });
    Ok(if has_breakpoints {
        found(Layout::Drizzle, "drizzle (--> statement-breakpoint)")
    } else if listing.folder.canonicalize().is_ok_and(|path| path.ends_with("supabase/migrations"))
    {
        found(Layout::Supabase, "supabase (supabase/migrations)")
    } else if is_named("atlas.sum") {
        found(Layout::Atlas, "atlas (atlas.sum)")
    } else if is_pair {
        found(Layout::GolangMigrate, "golang-migrate, or sqlx (*.up.sql)")
    } else if are_timestamps {
        found(Layout::Sqlx, "sqlx, or Ecto (20230101120000_name.sql)")
    } else {
        found(Layout::Freehold, "freehold (0001_name.sql)")
    })
}
