//! The private PostgreSQL of `freehold dev`.

use std::path::PathBuf;

use clap::Args;

use super::layout::LayoutSettings;
use super::log::LogSettings;

/// The private PostgreSQL of `freehold dev`.
#[derive(Args, Clone)]
pub struct DevSettings {
    /// The port of the API; 0 takes one that is free, and prints it
    #[arg(long, default_value_t = 8080)]
    pub port: u16,

    /// Where the private PostgreSQL and its data are kept
    #[arg(long, value_name = "FOLDER", default_value = ".freehold")]
    pub dir: PathBuf,

    /// The migrations that make up a tenant's schema; new ones are taken while it runs
    #[arg(long, value_name = "FOLDER", default_value = "demo/migrations")]
    pub baseline: PathBuf,

    #[command(flatten)]
    pub layout: LayoutSettings,

    /// Forget all data and start over
    #[arg(long)]
    pub reset: bool,

    /// Only start PostgreSQL; run the command after `--` with DATABASE_URL set to its superuser
    #[arg(long, requires = "command")]
    pub database_only: bool,

    /// With --database-only: start a PgBouncer in transaction mode too, for this user and password;
    /// FREEHOLD_TEST_POOLER tells the command where it listens
    #[arg(long, value_name = "USER:PASSWORD", requires = "database_only")]
    pub pgbouncer: Option<String>,

    /// The folder of initdb and postgres, if they are not where they usually are
    #[arg(long, env = "FREEHOLD_PG_BIN", value_name = "FREEHOLD_PG_BIN")]
    pub postgres_bin: Option<PathBuf>,

    #[command(flatten)]
    pub log: LogSettings,

    /// The command to run with the database
    #[arg(last = true)]
    pub command: Vec<String>,
}
