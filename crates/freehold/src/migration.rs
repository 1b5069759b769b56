//! A folder of migrations, as its user wrote it: read, ordered, and checked without a database.

pub(crate) mod rewriting;

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// One numbered SQL file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The file's number, above 0. Migrations are applied in its order.
    pub version: i32,
    /// What follows the number in the file's name.
    pub name: String,
    /// SHA-256 of the file, in hex.
    pub checksum: String,
    /// The SQL, run in one transaction with the search path on one tenant's schema.
    pub statements: String,
}

/// A folder of migrations, `0001_name.sql` and on.
#[derive(Clone, Debug, Default)]
pub struct Baseline {
    migrations: Vec<Migration>,
}

impl Baseline {
    /// Reads a folder. Files that don't end in `.sql` are passed over; one that does and has no
    /// number is an error, for it would be forgotten otherwise.
    pub fn read(folder: impl AsRef<Path>) -> Result<Baseline> {
        let folder = folder.as_ref();
        let refuse = |why: String| Error::new(ErrorKind::Setup, why);
        let entries = std::fs::read_dir(folder).map_err(|source| {
            refuse(format!("the folder of migrations {} cannot be read", folder.display()))
                .because(source)
        })?;
        let mut migrations = Vec::new();
        for entry in entries {
            let path =
                entry.map_err(|e| refuse("a migration cannot be read".into()).because(e))?.path();
            if path.extension().is_none_or(|extension| extension != "sql") {
                continue;
            }
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let (number, name) = stem.split_once('_').unwrap_or((stem, ""));
            let version: i32 = number.parse().ok().filter(|v| *v > 0).ok_or_else(|| {
                refuse(format!(
                    "{} must be named by a number and a word, such as 0001_shop.sql",
                    path.display()
                ))
            })?;
            let statements = std::fs::read_to_string(&path).map_err(|e| {
                refuse(format!("{} cannot be read as UTF-8", path.display())).because(e)
            })?;
            migrations.push(Migration::new(version, name, statements));
        }
        Baseline::from_migrations(migrations)
    }

    /// Puts migrations in order; two of one number are an error.
    pub fn from_migrations(mut migrations: Vec<Migration>) -> Result<Baseline> {
        migrations.sort_by_key(|m| m.version);
        if let Some(pair) = migrations.windows(2).find(|pair| pair[0].version == pair[1].version) {
            let why = format!("two migrations have the number {}", pair[0].version);
            return Err(Error::new(ErrorKind::Setup, why));
        }
        Ok(Baseline { migrations })
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
        let statements = statements.into();
        let digest = Sha256::digest(statements.as_bytes());
        let checksum = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Migration { version, name: name.to_owned(), checksum, statements }
    }

    /// As errors and reports name it: `0001_shop`.
    pub(crate) fn label(&self) -> String {
        format!("{:04}_{}", self.version, self.name)
    }
}
