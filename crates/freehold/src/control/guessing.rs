//! Limits guesses at passwords and names, per address and per client, counted in the database for all servers
//! together. A guess that turns out to be right is given back.
//!
//! A device that has signed in before has a budget of its own, so that guesses from elsewhere do not lock its
//! owner out. A refusal is remembered here for a few seconds, so a flood of guesses from one client does not
//! reach the database.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::catalog::guesses::{self, Budget};
use crate::error::{Error, Result};
use crate::tx::CatalogTx;

/// How many refused keys are remembered; each takes about 100 bytes.
const REFUSED_MAX: u64 = 100_000;
/// How long a refusal is remembered at most before the database is asked again.
const REFUSED_FOR_MAX: Duration = Duration::from_secs(5);

/// A burst, and a rate per minute after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once, after a time without any.
    pub burst: NonZeroU32,
    /// How many per minute after the burst.
    pub per_minute: NonZeroU32,
}

impl Rate {
    const fn both(count: u32) -> Self {
        let count = NonZeroU32::new(count).expect("a rate is not zero");
        Rate { burst: count, per_minute: count }
    }

    fn budget(self, key: [u8; 16]) -> Budget {
        let burst = i32::try_from(self.burst.get()).unwrap_or(i32::MAX);
        Budget { key, burst, secs: 60.0 / f64::from(self.per_minute.get()) }
    }
}

/// Limits on guesses, for all servers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignInLimits {
    /// Wrong passwords for one e-mail address, whether or not it belongs to a person, from devices that have
    /// not signed in before. Each device that has signed in has the same limit of its own.
    pub per_email: Rate,
    /// Wrong passwords, sign-ups and similar requests from one client: an IPv4 address or an IPv6 network of
    /// 64 bits. Many people may share one.
    pub per_client: Rate,
}

impl Default for SignInLimits {
    fn default() -> Self {
        SignInLimits { per_email: Rate::both(10), per_client: Rate::both(60) }
    }
}

/// Counts guesses. One per server.
pub(super) struct Guesses {
    limits: SignInLimits,
    refused: Cache<Vec<u8>, Instant>,
}

/// What a guess has taken from its budgets.
#[must_use]
pub(super) struct Taken(Vec<Budget>);

impl Guesses {
    pub(super) fn new(limits: SignInLimits) -> Guesses {
        let refused = Cache::builder().max_capacity(REFUSED_MAX).time_to_live(REFUSED_FOR_MAX);
        Guesses { limits, refused: refused.build() }
    }

    /// Counts a guess at an address's password: against the budget of a device or session known to be the
    /// person's, otherwise against those of the client and of the address. The client's comes first, so that
    /// a refused client does not use up an address's guesses.
    pub(super) async fn at_password(
        &self,
        tx: &mut CatalogTx,
        email: &str,
        client: IpAddr,
        device: Option<&[u8; 16]>,
    ) -> Result<Taken> {
        let budgets = match device {
            Some(device) => vec![self.limits.per_email.budget(hashed(&[b"device", device]))],
            None => vec![
                self.limits.per_client.budget(client_key(client)),
                self.limits.per_email.budget(email_key(email)),
            ],
        };
        self.take(tx, budgets).await
    }

    /// Counts a request of a client that has not signed in.
    pub(super) async fn by_client(&self, tx: &mut CatalogTx, client: IpAddr) -> Result<Taken> {
        let budgets = vec![self.limits.per_client.budget(client_key(client))];
        self.take(tx, budgets).await
    }

    /// Ends the transaction in which a guess was counted, and returns the result of counting. It commits in
    /// either case, because a refused guess counts too.
    pub(super) async fn commit(tx: CatalogTx, counted: Result<Taken>) -> Result<Taken> {
        tx.commit().await?;
        counted
    }

    async fn take(&self, tx: &mut CatalogTx, budgets: Vec<Budget>) -> Result<Taken> {
        let now = Instant::now();
        for budget in &budgets {
            if let Some(until) = self.refused.get(budget.key.as_slice())
                && until > now
            {
                return Err(refuse((until - now).as_secs_f64()));
            }
        }
        let Some((key, wait)) = guesses::take(tx, &budgets).await? else {
            return Ok(Taken(budgets));
        };
        self.refused.insert(key, now + Duration::from_secs_f64(wait).min(REFUSED_FOR_MAX));
        Err(refuse(wait))
    }
}

impl Taken {
    /// Returns what was taken: the password was right, so it does not count as a guess.
    pub(super) async fn give_back(self, tx: &mut CatalogTx) -> Result<()> {
        guesses::give_back(tx, &self.0).await
    }
}

fn refuse(wait_secs: f64) -> Error {
    Error::rate_limited(wait_secs.ceil().max(1.0) as u64)
}

/// Hashed, so that every key has the same size, however long the address is.
fn hashed(parts: &[&[u8]]) -> [u8; 16] {
    let digest = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

/// Spellings that find the same identity must have the same key, so this folds what the look-up folds.
fn email_key(email: &str) -> [u8; 16] {
    hashed(&[b"email", email.trim().to_lowercase().as_bytes()])
}

/// A client can commonly choose its address from a whole IPv6 network of 64 bits.
fn client_key(client: IpAddr) -> [u8; 16] {
    match client.to_canonical() {
        IpAddr::V4(address) => hashed(&[b"client 4", &address.octets()]),
        IpAddr::V6(address) => hashed(&[b"client 6", &network(address)]),
    }
}

fn network(address: Ipv6Addr) -> [u8; 8] {
    let mut network = [0; 8];
    network.copy_from_slice(&address.octets()[..8]);
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_of_one_address_share_its_budget() {
        for spelling in ["A@ACME.example", " a@acme.example", "a@acme.example\n"] {
            assert_eq!(email_key(spelling), email_key("a@acme.example"));
        }
        assert_ne!(email_key("b@acme.example"), email_key("a@acme.example"));
    }

    #[test]
    fn addresses_of_one_client_share_its_budget() {
        let same = |a, b| client_key(ip(a)) == client_key(ip(b));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"), "not one network of 64 bits");
        assert!(!same("::1", "0.0.0.1"));
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_too_short() {
        for (wait, secs) in [(0.0, 1), (0.001, 1), (1.0, 1), (1.001, 2), (5.999, 6), (6.0, 6)] {
            assert_eq!(refuse(wait).retry_after_secs(), Some(secs));
        }
    }
}
