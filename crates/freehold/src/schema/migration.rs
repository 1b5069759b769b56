//! Migrations: reading, ordering and checking a folder, which needs no database, and running one migration.

pub(crate) mod rewriting;

use std::path::Path;

use sha2::{Digest, Sha256};

use self::files::Listing;
pub use self::layout::Layout;
pub(super) use self::public::{made_by, unqualified};
use crate::error::{Error, ErrorKind, Result};

mod check;
mod files;
mod flyway;
mod foreign;
mod layout;
mod marks;
mod order;
mod public;
pub(crate) mod run;
mod serial;

/// One SQL file of a baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its place in the order, above 0: the number in the file's name. If that is missing or not above the
    /// previous file's version, the next number after that version.
    pub version: i64,
    /// The part of the file's name after the number.
    pub name: String,
    /// The name in errors and reports: that of the file without its extension, or of its folder.
    pub label: String,
    /// SHA-256 of the file's text, in hex. A byte order mark and the kind of line ends are ignored.
    pub checksum: String,
    /// The SQL, run in one transaction with the search path on one tenant's schema. Its lines are those of
    /// the file, without the down migration in a file of goose, sql-migrate or dbmate, which is never run.
    pub statements: String,
}

/// A folder of migrations, in the [`Layout`] of one of several tools.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    migrations: Vec<Migration>,
    layout: Option<layout::Found>,
    /// Migrations of another tool whose text was changed.
    changed: Vec<(String, foreign::Changed)>,
    /// Migrations that asked to run without a transaction.
    transacted: Vec<String>,
    /// Notes about skipped files.
    remarks: Vec<String>,
}

impl Baseline {
    /// Reads a folder and detects its [`Layout`] from its contents. A file that would be ignored by mistake
    /// is an error, such as a file that ends in `.sql` and has no number. Down migrations are never run.
    ///
    /// What another tool's migrations say about one schema and one database is changed for many: `public.`
    /// before names is removed, in bodies of functions too, and CONCURRENTLY is left out.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`], with the file's name: a file cannot be read or is not named like the others, two
    /// files have the same number, a file contains what cannot be run, or the folder contains no migrations.
    pub fn read(folder: impl AsRef<Path>) -> Result<Baseline> {
        let listing = Listing::of(folder.as_ref())?;
        match layout::detect(&listing)? {
            Some(found) => Baseline::of(&listing, found),
            None => Err(listing.nothing("such as 0001_shop.sql, of any layout that is known")),
        }
    }

    /// Reads a folder in the given layout.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_as(folder: impl AsRef<Path>, layout: Layout) -> Result<Baseline> {
        let listing = Listing::of(folder.as_ref())?;
        Baseline::of(&listing, layout::Found { layout, said: layout.as_str() })
    }

    fn of(listing: &Listing, found: layout::Found) -> Result<Baseline> {
        let ordered = order::in_order(listing, found.layout)?;
        let versions = files::versions(&ordered.files)?;
        let migrations: Result<Vec<Migration>> =
            ordered.files.iter().zip(versions).map(|(file, version)| file.read(version)).collect();
        let mut baseline = Baseline::new(migrations?, Some(found))?;
        let asks = ordered.files.iter().filter(|file| file.wants_no_transaction());
        baseline.transacted.extend(asks.map(|file| file.label.clone()));
        baseline.remarks = ordered.remarks;
        Ok(baseline)
    }

    /// Sorts migrations; two of the same number are an error.
    ///
    /// If one of them contains Drizzle's `--> statement-breakpoint`, all are treated as Drizzle's, which
    /// writes `"public"."role"` where a bare name would do: they are changed as [`read`](Self::read) changes
    /// another tool's.
    pub fn from_migrations(migrations: Vec<Migration>) -> Result<Baseline> {
        Baseline::new(migrations, None)
    }

    fn new(mut migrations: Vec<Migration>, layout: Option<layout::Found>) -> Result<Baseline> {
        migrations.sort_by_key(|m| m.version);
        if let Some(pair) = migrations.windows(2).find(|pair| pair[0].version == pair[1].version) {
            let why = format!(
                "{} and {} have the same number: give one of them another",
                pair[0].label, pair[1].label
            );
            return Err(Error::new(ErrorKind::Setup, why));
        }
        let mut transacted = Vec::new();
        for migration in &migrations {
            if marks::wants_no_transaction(migration)? {
                transacted.push(migration.label.clone());
            }
            if layout.is_some_and(|found| found.layout == Layout::Flyway) {
                refuse_placeholder(migration)?;
            }
        }
        let is_foreign = match layout {
            Some(found) => found.layout != Layout::Freehold,
            None => migrations.iter().any(|m| public::is_of_drizzle(&m.statements)),
        };
        let changed = if is_foreign { foreign::adapt(&mut migrations) } else { Vec::new() };
        Ok(Baseline { migrations, layout, changed, transacted, remarks: Vec::new() })
    }

    /// The notices for these new migrations: which of them are not run as written or requested, and which
    /// files were skipped.
    pub(crate) fn notices(&self, labels: &[String]) -> Vec<String> {
        if labels.is_empty() {
            return Vec::new();
        }
        let asked: Vec<&String> =
            self.transacted.iter().filter(|label| labels.contains(label)).collect();
        let transacted = first_and_more(&asked).map(|which| {
            format!(
                "{which}: no transaction is asked for, and each file was run in one all the same, for each tenant: all of it or nothing"
            )
        });
        let changed = foreign::notices(&self.changed, labels);
        changed.into_iter().chain(transacted).chain(self.remarks.iter().cloned()).collect()
    }

    /// The migrations, in the order of their versions.
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }

    /// The layout of the folder; `None` for migrations that are compiled in.
    pub fn layout(&self) -> Option<Layout> {
        self.layout.map(|found| found.layout)
    }

    /// The layout with the evidence for it: `goose (-- +goose Up)`.
    pub fn layout_said(&self) -> Option<&'static str> {
        self.layout.map(|found| found.said)
    }
}

/// `0001_a and 3 more`.
fn first_and_more(labels: &[&String]) -> Option<String> {
    match labels {
        [] => None,
        [label] => Some((*label).clone()),
        [first, others @ ..] => Some(format!("{first} and {} more", others.len())),
    }
}

/// Flyway would substitute a value.
fn refuse_placeholder(migration: &Migration) -> Result<()> {
    let Some((at, placeholder)) = flyway::placeholder(&migration.statements) else { return Ok(()) };
    let line = 1 + crate::sql::script::lines_in(&migration.statements[..at]);
    let why = format!(
        "{} line {line}: Flyway would replace {placeholder}, and Freehold does not: write its value (if it is meant as it stands, --layout refinery reads the folder so)",
        migration.label
    );
    Err(Error::new(ErrorKind::Setup, why))
}

impl Migration {
    /// For a migration that is compiled in: `Migration::new(1, "shop", include_str!(…))` equals the file
    /// `0001_shop.sql` with that text.
    pub fn new(version: i64, name: &str, statements: impl Into<String>) -> Migration {
        let statements = files::plain(statements.into());
        let digest = Sha256::digest(statements.as_bytes());
        let checksum = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let statements = marks::way_up(&statements);
        let label = format!("{version:04}_{name}");
        Migration { version, name: name.to_owned(), label, checksum, statements }
    }
}
