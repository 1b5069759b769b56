//! A folder of migrations, as its user wrote it: read, ordered, and checked without a database;
//! and how one of them is run.

pub(crate) mod rewriting;

use std::path::Path;

use sha2::{Digest, Sha256};

use self::files::SqlFile;
use crate::error::{Error, ErrorKind, Result};

mod check;
mod files;
mod public;
mod run;

/// One numbered SQL file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The file's number, above 0. Migrations are applied in its order.
    pub version: i32,
    /// What follows the number in the file's name.
    pub name: String,
    /// SHA-256 of the file's text, in hex. A byte order mark and the kind of its line ends don't count.
    pub checksum: String,
    /// The SQL, run in one transaction with the search path on one tenant's schema. Its lines are
    /// the file's, but for the way back in a file of goose, sql-migrate or dbmate, which is never run.
    pub statements: String,
}

/// A folder of migrations, `0001_name.sql` and on.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    migrations: Vec<Migration>,
    /// Those that lost their `public.`, and how many times.
    unqualified: Vec<(i32, usize)>,
}

impl Baseline {
    /// Reads a folder. Files that don't end in `.sql`, or end in `.down.sql`, are passed over; one that
    /// does and has no number is an error, for it would be forgotten otherwise.
    ///
    /// Where Drizzle wrote the folder, `public.` is taken away from names, as by
    /// [`from_migrations`](Self::from_migrations).
    ///
    /// # Errors
    /// [`ErrorKind::Setup`], with the file's name: one that cannot be read or is not named by its
    /// number, two of one number, numbers of several widths; or a folder without migrations.
    pub fn read(folder: impl AsRef<Path>) -> Result<Baseline> {
        let folder = folder.as_ref();
        let migrations: Result<Vec<Migration>> =
            files::list(folder)?.iter().map(SqlFile::read).collect();
        Baseline::new(migrations?, files::has_journal_of_drizzle(folder))
    }

    /// Puts migrations in order; two of one number are an error.
    ///
    /// If one of them has Drizzle's `--> statement-breakpoint`, all are taken for Drizzle's, which
    /// writes `"public"."role"` where a name would do: `public.` is taken away from names, outside
    /// of strings, comments and the bodies of functions.
    pub fn from_migrations(migrations: Vec<Migration>) -> Result<Baseline> {
        Baseline::new(migrations, false)
    }

    fn new(mut migrations: Vec<Migration>, is_of_drizzle: bool) -> Result<Baseline> {
        migrations.sort_by_key(|m| m.version);
        if let Some(pair) = migrations.windows(2).find(|pair| pair[0].version == pair[1].version) {
            let why = format!(
                "{} and {} have the same number: give one of them another",
                pair[0].label(),
                pair[1].label()
            );
            return Err(Error::new(ErrorKind::Setup, why));
        }
        let mut unqualified = Vec::new();
        if is_of_drizzle || migrations.iter().any(|m| public::is_of_drizzle(&m.statements)) {
            for migration in &mut migrations {
                let (statements, count) = public::without_public(&migration.statements);
                migration.statements = statements;
                if count > 0 {
                    unqualified.push((migration.version, count));
                }
            }
        }
        Ok(Baseline { migrations, unqualified })
    }

    /// What is to be said of those of these migrations that don't stand as they were written.
    pub(crate) fn notices(&self, labels: &[String]) -> Option<String> {
        let named = |version: i32| {
            let migration = self.migrations.iter().find(|m| m.version == version);
            migration.map(Migration::label).filter(|label| labels.contains(label))
        };
        let told: Vec<(String, usize)> = self
            .unqualified
            .iter()
            .filter_map(|(version, count)| Some((named(*version)?, *count)))
            .collect();
        let (first, _) = told.first()?;
        let count: usize = told.iter().map(|(_, count)| count).sum();
        let more = match told.len() - 1 {
            0 => String::new(),
            others => format!(" and {others} more"),
        };
        Some(format!(
            "{first}{more}: public. was taken away from {count} names, since Drizzle writes it always: they are each tenant's own (tables of all tenants have no place here)"
        ))
    }

    /// In the order of their numbers.
    pub fn migrations(&self) -> &[Migration] {
        &self.migrations
    }
}

impl Migration {
    /// For a migration that is compiled in: `Migration::new(1, "shop", include_str!(…))` is the
    /// same as the file `0001_shop.sql` with that text.
    pub fn new(version: i32, name: &str, statements: impl Into<String>) -> Migration {
        let statements = files::plain(statements.into());
        let digest = Sha256::digest(statements.as_bytes());
        let checksum = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let statements = files::way_up(&statements).to_owned();
        Migration { version, name: name.to_owned(), checksum, statements }
    }

    /// As errors and reports name it: `0001_shop`.
    pub(crate) fn label(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
    }
}
