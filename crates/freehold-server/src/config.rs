//! The settings of a server, each as a flag and as an environment variable; a file per heading. Arguments of
//! single commands are in `cli`.
//!
//! A setting whose `hide_env_values` is set is a secret: it is never printed.

mod cache;
mod connections;
mod database;
#[cfg(feature = "dev")]
mod dev;
mod http;
mod insight;
mod layout;
mod log;
mod mail;
mod sign_in;
mod worker;

use clap::Args;

pub use self::cache::CacheSettings;
pub use self::connections::ConnectionSettings;
pub use self::database::{DatabaseSettings, PoolerSetting};
#[cfg(feature = "dev")]
pub use self::dev::DevSettings;
pub use self::http::HttpSettings;
pub use self::insight::InsightSettings;
pub use self::layout::LayoutSettings;
pub use self::log::{LogFormat, LogSettings, TraceSettings};
pub use self::mail::{MailMode, MailSettings};
pub(crate) use self::mail::{SmtpServer, SmtpTls};
pub use self::sign_in::{SignInSettings, SignUpMode};
pub use self::worker::{AnalyticsSettings, WorkerSettings};

/// Whether NO_COLOR asks for output without colours (<https://no-color.org>): no setting of Freehold's own.
#[expect(clippy::disallowed_methods, reason = "this is the reader of the environment")]
pub(crate) fn is_without_colours() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// What a server needs to serve.
#[derive(Args, Clone)]
pub struct ServeSettings {
    #[command(flatten)]
    pub database: DatabaseSettings,

    #[command(flatten)]
    pub cache: CacheSettings,

    #[command(flatten)]
    pub sign_in: SignInSettings,

    #[command(flatten)]
    pub mail: MailSettings,

    #[command(flatten)]
    pub http: HttpSettings,

    #[command(flatten)]
    pub worker: WorkerSettings,

    #[command(flatten)]
    pub insight: InsightSettings,

    #[command(flatten)]
    pub log: LogSettings,

    #[command(flatten)]
    pub traces: TraceSettings,
}
