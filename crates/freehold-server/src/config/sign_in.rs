//! How people sign in, and up.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, ValueEnum};
use freehold::control::sessions::SignInOptions;
use freehold::tokens::{AccessTokens, Keyring};
use freehold::{Rate, SignInLimits};

#[derive(Args, Clone)]
#[command(next_help_heading = "Sign-in")]
pub struct SignInSettings {
    /// The secret that signs access tokens: at least 32 bytes, the same on every server
    // Checked in `options`, because clap would print a malformed value.
    #[arg(long, env, value_name = "JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: String,

    /// Former secrets whose tokens are still good, separated by commas
    #[arg(
        long,
        env,
        value_name = "JWT_SECRETS_RETIRED",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub jwt_secrets_retired: Vec<String>,

    /// The issuer named in tokens, and demanded of them
    #[arg(long, env, value_name = "JWT_ISSUER", default_value = "freehold")]
    pub jwt_issuer: String,

    /// The audience named in tokens, and demanded of them
    #[arg(long, env, value_name = "JWT_AUDIENCE", default_value = "freehold")]
    pub jwt_audience: String,

    /// Seconds that an access token is good for
    #[arg(long, env, value_name = "ACCESS_TOKEN_SECS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub access_token_secs: u64,

    /// Days after which a session ends
    #[arg(long, env, value_name = "SESSION_DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub session_days: u64,

    /// Whether people may create tenants themselves: verified, open, off
    #[arg(long, env, value_name = "SIGNUP", default_value = "verified")]
    pub signup: SignUpMode,

    /// Wrong passwords a minute for one e-mail, at all servers together; a device that has signed in
    /// before has as many of its own
    #[arg(long, env, value_name = "SIGN_IN_PER_EMAIL", default_value = "10")]
    pub sign_in_per_email: NonZeroU32,

    /// Wrong passwords, sign-ups and the like a minute for one client address, at all servers together
    #[arg(long, env, value_name = "SIGN_IN_PER_CLIENT", default_value = "60")]
    pub sign_in_per_client: NonZeroU32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SignUpMode {
    /// Once they have proven their address by a letter
    Verified,
    /// At once, by whatever address they type: for development and closed networks alone
    Open,
    /// Not at all
    Off,
}

impl SignInSettings {
    /// `public_url`: the address in the links of messages.
    pub fn options(&self, public_url: String) -> Result<SignInOptions, String> {
        let retired: Vec<_> =
            self.jwt_secrets_retired.iter().filter(|secret| !secret.is_empty()).collect();
        let keyring = Keyring::new(&self.jwt_secret, &retired)
            .map_err(|error| format!("JWT_SECRET or JWT_SECRETS_RETIRED: {error}"))?;
        let rate = |count| Rate { burst: count, per_minute: count };
        Ok(SignInOptions {
            tokens: AccessTokens::new(keyring, &self.jwt_issuer, &self.jwt_audience),
            access_lifetime: Duration::from_secs(self.access_token_secs),
            session_lifetime: Duration::from_secs(self.session_days * 24 * 3600),
            limits: SignInLimits {
                per_email: rate(self.sign_in_per_email),
                per_client: rate(self.sign_in_per_client),
            },
            public_url,
        })
    }
}
