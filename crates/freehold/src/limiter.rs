//! Limits on guesses at sign-in: so many for one e-mail address, so many for one client. In this
//! process's memory; what counts requests that are not guesses lives elsewhere.
//!
//! Several servers have a limit each, so an attacker who reaches all of them has as many times the
//! guesses. Whether an address belongs to anybody is not known here, so cannot show.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use sha2::{Digest, Sha256};

/// How often keys that are as good as new are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// When a limiter is full, keys share this many places.
const SHARED_PLACES: u16 = 4096;

/// So many at once, then so many a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once, after a quiet time.
    pub burst: NonZeroU32,
    /// How many a minute from then on.
    pub per_minute: NonZeroU32,
}

impl Rate {
    const fn both(count: u32) -> Self {
        let count = NonZeroU32::new(count).expect("a rate is not zero");
        Rate { burst: count, per_minute: count }
    }
}

/// Limits on attempts at passwords, in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignInLimits {
    /// For one e-mail address, whether or not it belongs to anybody.
    pub per_email: Rate,
    /// A client is an IPv4 address or an IPv6 network of 64 bits. Many people may be behind one.
    pub per_client: Rate,
    /// How many addresses, and as many clients, are told apart; each takes some 50 bytes.
    pub keys_max: usize,
}

impl Default for SignInLimits {
    fn default() -> Self {
        SignInLimits { per_email: Rate::both(10), per_client: Rate::both(60), keys_max: 100_000 }
    }
}

/// Refused: the wait after which one more attempt is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts; try again in {} s", self.seconds())]
pub(crate) struct RetryAfter(pub(crate) Duration);

impl RetryAfter {
    /// For the header `Retry-After`: whole seconds, rounded up, at least one.
    pub(crate) fn seconds(&self) -> u64 {
        self.0.as_secs_f64().ceil().max(1.0) as u64
    }
}

/// Counts attempts to sign in. One per server, shared by its requests.
#[derive(Debug)]
pub(crate) struct SignInLimiter<C: Clock = MonotonicClock> {
    emails: Counter<C>,
    clients: Counter<C>,
}

impl SignInLimiter {
    pub(crate) fn new(limits: SignInLimits) -> Self {
        Self::with_clock(limits, MonotonicClock)
    }
}

impl<C: Clock + Clone> SignInLimiter<C> {
    pub(crate) fn with_clock(limits: SignInLimits, clock: C) -> Self {
        SignInLimiter {
            emails: Counter::new(limits.per_email, limits.keys_max, clock.clone()),
            clients: Counter::new(limits.per_client, limits.keys_max, clock),
        }
    }

    /// To be asked before an attempt's password is looked at; counts the attempt.
    ///
    /// The client comes first: once refused, it uses up nobody's address. `client` must be the
    /// peer's address, or the one that a trusted proxy tells.
    pub(crate) fn check(&self, email: &str, client: IpAddr) -> Result<(), RetryAfter> {
        self.clients.check(client_key(client))?;
        self.emails.check(email_key(email))
    }
}

/// Hashed, so that every key has one size, however long an address someone sends.
type CounterKey = [u8; 16];

fn hashed(parts: &[&[u8]]) -> CounterKey {
    let digest = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

/// Spellings that find the same identity must have one key: fold here whatever the catalog's
/// lookup folds.
fn email_key(email: &str) -> CounterKey {
    hashed(&[email.trim().to_lowercase().as_bytes()])
}

/// A client commonly has a whole IPv6 network of 64 bits to choose its addresses from.
fn client_key(client: IpAddr) -> CounterKey {
    match client.to_canonical() {
        IpAddr::V4(address) => hashed(&[b"4", &address.octets()]),
        IpAddr::V6(address) => hashed(&[b"6", &network(address)]),
    }
}

fn network(address: Ipv6Addr) -> [u8; 8] {
    let mut network = [0; 8];
    network.copy_from_slice(&address.octets()[..8]);
    network
}

/// Attempts by key, in bounded memory.
#[derive(Debug)]
struct Counter<C: Clock> {
    limiter: RateLimiter<CounterKey, DashMapStateStore<CounterKey>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    keys_max: usize,
    swept: Mutex<C::Instant>,
}

impl<C: Clock + Clone> Counter<C> {
    fn new(rate: Rate, keys_max: usize, clock: C) -> Self {
        let quota = Quota::per_minute(rate.per_minute).allow_burst(rate.burst);
        Counter {
            limiter: RateLimiter::dashmap_with_clock(quota, clock.clone()),
            swept: Mutex::new(clock.now()),
            clock,
            keys_max,
        }
    }

    fn check(&self, key: CounterKey) -> Result<(), RetryAfter> {
        self.sweep_at_times();
        let key = if self.limiter.len() < self.keys_max { key } else { shared_place(key) };
        self.limiter
            .check_key(&key)
            .map_err(|until| RetryAfter(until.wait_time_from(self.clock.now())))
    }

    /// A sweep looks at every key, so it is the clock that asks for one, not the load: a flood of
    /// new keys must not buy a sweep each.
    fn sweep_at_times(&self) {
        let now = self.clock.now();
        // Someone else is at it, or was until a panic: either way not our turn.
        let Ok(mut swept) = self.swept.try_lock() else { return };
        if Duration::from(now.duration_since(*swept)) < SWEEP_EVERY {
            return;
        }
        *swept = now;
        drop(swept);
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// Where a key is counted while there is no room for more: together with others. So a flood of
/// invented addresses costs honest people a wait, but never opens the limit, which forgetting keys
/// would; someone may have their quota twice, once under either key.
fn shared_place(key: CounterKey) -> CounterKey {
    let place = u16::from_be_bytes([key[0], key[1]]) % SHARED_PLACES;
    let mut shared = [0; 16];
    shared[..2].copy_from_slice(&place.to_be_bytes());
    shared
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use governor::clock::FakeRelativeClock;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limiter(limits: SignInLimits) -> (SignInLimiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (SignInLimiter::with_clock(limits, clock.clone()), clock)
    }

    /// A client of its own for each number.
    fn client(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `tries` are let through.
    fn passed(tries: u32, mut attempt: impl FnMut(u32) -> Result<(), RetryAfter>) -> u32 {
        (0..tries).map(|number| u32::from(attempt(number).is_ok())).sum()
    }

    #[test]
    fn an_address_is_guessed_at_ten_times_then_every_six_seconds() {
        let (limiter, clock) = limiter(SignInLimits::default());
        let guess = |number| limiter.check("a@acme.example", client(number));
        assert_eq!(passed(1000, guess), 10);
        assert_eq!(guess(0), Err(RetryAfter(Duration::from_secs(6))));
        clock.advance(Duration::from_secs(4));
        let refused = guess(0).unwrap_err();
        assert_eq!((refused.0, refused.seconds()), (Duration::from_secs(2), 2));
        clock.advance(Duration::from_secs(2));
        assert_eq!(passed(10, guess), 1);
        clock.advance(MINUTE);
        assert_eq!(passed(1000, guess), 10);
        // Another address is not touched.
        assert_eq!(limiter.check("b@acme.example", client(0)), Ok(()));
    }

    #[test]
    fn a_client_guesses_sixty_times_whatever_the_address() {
        let (limiter, clock) = limiter(SignInLimits::default());
        let guess = |number: u32| limiter.check(&format!("{number}@acme.example"), client(1));
        assert_eq!(passed(1000, guess), 60);
        assert_eq!(guess(0).unwrap_err().seconds(), 1);
        assert_eq!(limiter.check("a@acme.example", client(2)), Ok(()));
        clock.advance(MINUTE);
        assert_eq!(passed(1000, guess), 60);
    }

    #[test]
    fn a_refused_client_uses_up_nobodys_address() {
        let (limiter, _) = limiter(SignInLimits::default());
        passed(60, |number| limiter.check(&number.to_string(), client(1)));
        assert_eq!(passed(100, |_| limiter.check("victim@acme.example", client(1))), 0);
        assert_eq!(limiter.check("victim@acme.example", client(2)), Ok(()));
    }

    #[test]
    fn spellings_of_one_address_share_its_limit() {
        let spellings = [
            "a@acme.example",
            "A@ACME.example",
            " a@acme.example",
            "a@acme.example\n",
            "A@acme.exAmple\t",
        ];
        let (limiter, _) = limiter(SignInLimits::default());
        let guess = |number| limiter.check(spellings[number as usize % 5], client(number));
        assert_eq!(passed(100, guess), 10);
    }

    #[test]
    fn addresses_of_one_client_share_its_limit() {
        let same = |a, b| client_key(ip(a)) == client_key(ip(b));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(!same("::ffff:192.0.2.1", "::ffff:192.0.2.2"), "not one network of 64 bits");
        assert!(!same("::1", "0.0.0.1"));
    }

    #[test]
    fn keys_that_are_as_good_as_new_are_forgotten() {
        let (limiter, clock) = limiter(SignInLimits::default());
        for number in 0..1000 {
            limiter.check(&number.to_string(), client(number)).unwrap();
        }
        assert_eq!(limiter.emails.limiter.len(), 1000);
        clock.advance(2 * MINUTE);
        limiter.check("a@acme.example", client(0)).unwrap();
        assert_eq!(limiter.emails.limiter.len(), 1);
        assert_eq!(limiter.clients.limiter.len(), 1);
    }

    /// Forgetting must not be a way to new guesses.
    #[test]
    fn a_key_that_is_refused_is_not_forgotten() {
        let (limiter, clock) = limiter(SignInLimits::default());
        let guess = |number| limiter.check("a@acme.example", client(number));
        assert_eq!(passed(1000, guess), 10);
        clock.advance(SWEEP_EVERY);
        // Ten seconds give one guess back; the sweep that they bring gives none.
        assert_eq!(passed(1000, guess), 1);
    }

    #[test]
    fn a_flood_of_keys_neither_fills_the_memory_nor_opens_the_limit() {
        let limits = SignInLimits { keys_max: 100, ..SignInLimits::default() };
        let (limiter, clock) = limiter(limits);
        for number in 0..100_000 {
            let _ = limiter.check(&number.to_string(), client(number));
        }
        let keys_max = 100 + usize::from(SHARED_PLACES);
        assert!(limiter.emails.limiter.len() <= keys_max);
        assert!(limiter.clients.limiter.len() <= keys_max);

        let victim = |limiter: &SignInLimiter<_>| {
            passed(1000, |number| limiter.check("victim@acme.example", client(number)))
        };
        assert!(victim(&limiter) <= 10);
        // When the flood is over, all is as before.
        clock.advance(5 * MINUTE);
        assert_eq!(victim(&limiter), 10);
        assert_eq!(limiter.check("another@acme.example", client(0)), Ok(()));
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_too_short() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (5999, 6), (6000, 6)] {
            assert_eq!(RetryAfter(Duration::from_millis(millis)).seconds(), seconds);
        }
    }

    #[test]
    fn many_threads_share_one_limit() {
        let (limiter, _) = limiter(SignInLimits::default());
        let guess = |number| limiter.check("a@acme.example", client(number));
        let total: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| passed(1000, guess))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 10);
    }

    #[test]
    fn the_real_clock_runs() {
        let limiter = SignInLimiter::new(SignInLimits::default());
        assert_eq!(passed(10, |_| limiter.check("a@acme.example", client(1))), 10);
        let RetryAfter(wait) = limiter.check("a@acme.example", client(1)).unwrap_err();
        assert!(wait <= Duration::from_secs(6) && wait > Duration::from_secs(3), "{wait:?}");
    }
}
