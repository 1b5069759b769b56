//! Sealing: the server proves to the database that it made a context. The database's part is in
//! `migrations/context/`, which also describes the format of a sealed context.
//!
//! A seal is made for one backend and expires within seconds, so a seal that an attacker reads later in a log
//! or a dump is useless.
//!
//! In the mode `best`, and without a pooler, a connection uses one seal to open a session: the backend keeps
//! a random number of 64 bits in its memory, as the `currval` of a sequence, which SQL can neither read nor
//! set without a privilege. Each transaction then shows the number instead of a seal. If the session is gone,
//! the connection seals its contexts again. A hash beside the verdict was used before; it took a tenth of a
//! page's time with OpenSSL 3. `best.sql` verifies at the entry point and keeps the verdict where SQL cannot
//! write it, in `backtrace_functions`; `portable.sql` verifies in each policy; `plain.sql` believes every
//! context.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::error::{Error, ErrorKind, Result, is_unknown_seal};
use crate::model::context::{Claim, OperatorContext};
use crate::observe::trouble::Trouble;
use crate::wire::client;
use crate::wire::tls::Target;

/// How long a sealed context is valid, by the database's clock.
const LIFETIME_SECS: u64 = 5;
/// SHA-256's block size, to which HMAC pads its key.
const BLOCK_BYTES: usize = 64;
const KEY_BYTES: usize = 32;
const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;
/// The context as policies see it. If a seal was not verified at the entry point, it is verified here.
pub(crate) const SEEN_CONTEXT: &str = "SELECT freehold_guard.context()";
/// The newest key, as the owner role can read it.
pub(crate) const NEWEST_KEY: &str = "SELECT id, inner_pad FROM freehold_guard.newest_key()";
const UNKNOWN: &str = "the database refuses every context of this server";

/// How the database verifies a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SealMode {
    /// Not at all: injected SQL can set another context.
    Plain,
    /// Sealed, and verified once per query. Needs no superuser.
    Portable,
    /// Sealed, and verified once per transaction. A superuser must have allowed it.
    Best,
}

impl SealMode {
    /// The mode in lower case, as `freehold_guard.seal_mode()` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            SealMode::Plain => "plain",
            SealMode::Portable => "portable",
            SealMode::Best => "best",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<SealMode> {
        [SealMode::Plain, SealMode::Portable, SealMode::Best]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| {
                Error::new(ErrorKind::Setup, format!("the catalog's seal mode {text} is not known"))
            })
    }
}

/// The key that contexts are sealed with: `<id>:<64 hex digits>`, as `freehold key show` prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct ContextKey {
    /// Ten digits.
    id: String,
    secret: [u8; KEY_BYTES],
}

/// The key is never printed: with it, SQL can enter every tenant.
impl fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextKey({}:…)", self.id())
    }
}

impl FromStr for ContextKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<ContextKey> {
        ContextKey::parse(text)
    }
}

impl ContextKey {
    /// Reads a key as `freehold key show` prints it.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`], with a message that contains no part of the text.
    pub fn parse(text: &str) -> Result<ContextKey> {
        let malformed = || {
            Error::new(
                ErrorKind::Setup,
                "the context key must read as `freehold key show` prints it: a number, a colon and 64 hex digits",
            )
        };
        let (id, hex) = text.trim().split_once(':').ok_or_else(malformed)?;
        let id: u32 = id.parse().map_err(|_| malformed())?;
        if hex.len() != 2 * KEY_BYTES || !hex.is_ascii() {
            return Err(malformed());
        }
        let mut secret = [0; KEY_BYTES];
        for (at, byte) in secret.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| malformed())?;
        }
        Ok(ContextKey { id: format!("{id:010}"), secret })
    }

    pub(crate) fn generate(id: u32) -> Result<ContextKey> {
        let mut secret = [0; KEY_BYTES];
        getrandom::fill(&mut secret).map_err(|source| {
            Error::new(ErrorKind::Internal, "no random numbers can be had").because(source)
        })?;
        Ok(ContextKey { id: format!("{id:010}"), secret })
    }

    /// From the padded keys that the database stores.
    pub(crate) fn from_pads(id: String, inner_pad: &[u8]) -> Result<ContextKey> {
        let secret = inner_pad
            .get(..KEY_BYTES)
            .and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok())
            .ok_or_else(|| Error::new(ErrorKind::Setup, "a key of the catalog is malformed"))?;
        Ok(ContextKey { id, secret: secret.map(|byte| byte ^ INNER_PAD) })
    }

    /// The key's number.
    pub fn id(&self) -> &str {
        self.id.trim_start_matches('0')
    }

    /// The id as the database stores it, and the key combined with HMAC's inner and outer pad.
    pub(crate) fn pads(&self) -> (&str, Vec<u8>, Vec<u8>) {
        let padded = |pad: u8| {
            let mut bytes = vec![pad; BLOCK_BYTES];
            for (byte, secret) in bytes.iter_mut().zip(self.secret) {
                *byte ^= secret;
            }
            bytes
        };
        (&self.id, padded(INNER_PAD), padded(OUTER_PAD))
    }

    /// The whole key, as [`parse`](Self::parse) reads it.
    pub fn reveal(&self) -> String {
        let hex: String = self.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}:{hex}", self.id())
    }
}

/// What a sealed context is bound to.
#[derive(Clone, Copy)]
pub(crate) struct BackendBinding {
    /// The backend's process id; 0 if a pooler hides it.
    pub(crate) pid: i32,
    /// The database's clock when the connection was opened, in seconds since 1970, and this process's clock
    /// then.
    pub(crate) clock: (f64, Instant),
}

impl BackendBinding {
    fn expires_at(&self) -> u64 {
        let (database, ours) = self.clock;
        (database + ours.elapsed().as_secs_f64()) as u64 + LIFETIME_SECS
    }
}

/// What a transaction shows at the entry point.
pub(crate) struct ContextProof {
    /// Sealed, or the bare claim if a session vouches for it.
    context: String,
    session: Option<SessionNumber>,
}

impl ContextProof {
    pub(crate) fn sealed(context: String) -> ContextProof {
        ContextProof { context, session: None }
    }

    pub(crate) fn context(&self) -> &str {
        &self.context
    }

    pub(crate) fn session(&self) -> Option<i64> {
        self.session.map(|session| session.0)
    }
}

/// What a connection shows instead of a seal once the database has opened a session for it. Known only to
/// this process and its backend.
#[derive(Clone, Copy)]
pub(crate) struct SessionNumber(i64);

impl SessionNumber {
    fn new() -> Option<(SessionNumber, String)> {
        let mut number = [0; 8];
        getrandom::fill(&mut number).ok()?;
        let number = i64::from_ne_bytes(number);
        Some((SessionNumber(number), format!("session_{number}")))
    }

    pub(crate) fn vouch(self, claim: &Claim) -> ContextProof {
        ContextProof { context: claim.as_str().to_owned(), session: Some(self) }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Seals contexts for every connection of a [`Freehold`](crate::Freehold).
#[derive(Clone)]
pub(crate) struct Sealer(Arc<Shared>);

struct Shared {
    key: RwLock<Option<Key>>,
    origin: KeyOrigin,
    /// Set while the database does not know the key.
    trouble: Trouble,
}

/// Where the key comes from, for the message about an unknown key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyOrigin {
    /// From CONTEXT_KEY.
    Given,
    /// From the catalog, read by the owner connection.
    Read,
}

impl KeyOrigin {
    fn advice(self) -> &'static str {
        match self {
            KeyOrigin::Given => {
                "the key of CONTEXT_KEY is not, or no longer, one of this database's: set it to what `freehold key show` prints"
            }
            KeyOrigin::Read => {
                "the key that was read by DATABASE_OWNER_URL is not one of the database's that DATABASE_URL leads to: both must lead to the same"
            }
        }
    }
}

/// A key, and an HMAC initialised with it.
struct Key {
    id: String,
    hmac: Hmac<Sha256>,
}

impl Sealer {
    pub(crate) fn new(key: Option<&ContextKey>, origin: KeyOrigin) -> Sealer {
        let key = RwLock::new(key.map(Key::new));
        Sealer(Arc::new(Shared { key, origin, trouble: Trouble::default() }))
    }

    fn change(&self, key: &ContextKey) {
        *self.0.key.write().unwrap_or_else(PoisonError::into_inner) = Some(Key::new(key));
    }

    fn key(&self) -> RwLockReadGuard<'_, Option<Key>> {
        self.0.key.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs once that the database does not know the key, and what to do.
    pub(crate) fn tell_unknown_key(&self) {
        self.0.trouble.note::<(), _>(&Err(self.0.origin.advice()), UNKNOWN);
    }

    /// Checks that the database knows the key.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] if it does not.
    pub(crate) async fn require_known(&self, client: &Client) -> Result<()> {
        if self.key().is_none() {
            return Ok(());
        }
        let now = client.query_one("SELECT date_part('epoch', clock_timestamp())", &[]).await?;
        let binding = BackendBinding { pid: 0, clock: (now.get(0), Instant::now()) };
        let sealed = self.seal(&Claim::from(&OperatorContext::system("try the key")), binding);
        let tried = async {
            client.query_one("SELECT freehold_guard.admit($1)", &[&sealed]).await?;
            client.query_one(SEEN_CONTEXT, &[]).await
        };
        match tried.await.map_err(Error::from) {
            Err(error) if error.database().is_some_and(is_unknown_seal) => {
                Err(Error::new(ErrorKind::Setup, self.0.origin.advice()).because(error))
            }
            Err(error) => Err(error),
            Ok(_) => {
                self.0.trouble.note::<_, Error>(&Ok(()), UNKNOWN);
                Ok(())
            }
        }
    }

    /// Without a key, for a database in plain mode, the seal consists of zeros.
    pub(crate) fn seal(&self, claim: &Claim, binding: BackendBinding) -> String {
        match self.key().as_ref() {
            Some(key) => key.seal(claim.as_str(), binding),
            None => format!("{:094}{}", 0, claim.as_str()),
        }
    }

    /// A session for the backend of this binding, and the sealed claim that `freehold_guard.open_session`
    /// takes. `None` without a key, and behind a pooler, where clients share sessions.
    pub(crate) fn session(&self, binding: BackendBinding) -> Option<(SessionNumber, String)> {
        let key = self.key();
        let key = key.as_ref().filter(|_| binding.pid != 0)?;
        let (session, claim) = SessionNumber::new()?;
        Some((session, key.seal(&claim, binding)))
    }
}

impl Key {
    fn new(key: &ContextKey) -> Key {
        let hmac = Hmac::new_from_slice(&key.secret).expect("HMAC takes a key of any length");
        Key { id: key.id.clone(), hmac }
    }

    fn seal(&self, claim: &str, binding: BackendBinding) -> String {
        let message = format!("{}{:010}{:010}{claim}", self.id, binding.expires_at(), binding.pid);
        let mut hmac = self.hmac.clone();
        hmac.update(message.as_bytes());
        hex(&hmac.finalize().into_bytes()) + &message
    }
}

/// The newest key of the catalog. Only the owner role can read it.
pub(crate) async fn read_key(owner: &Target) -> Result<ContextKey> {
    let client = client::connect(owner).await?;
    let row = client.query_opt(NEWEST_KEY, &[]).await?;
    let row = row.ok_or_else(|| {
        Error::new(
            ErrorKind::Setup,
            "the catalog has no key to seal contexts with: run `freehold init`",
        )
    })?;
    ContextKey::from_pads(row.get(0), row.get(1))
}

/// Adopts each new key that the catalog gets. Runs until the task is dropped.
pub(crate) async fn follow_keys(
    sealer: Sealer,
    owner: Arc<Target>,
    mut changes: watch::Receiver<u64>,
) {
    let trouble = Trouble::default();
    while changes.changed().await.is_ok() {
        loop {
            let read = read_key(&owner).await;
            trouble.note(&read, "the key that seals contexts cannot be read; trying again");
            match read {
                Ok(key) => break sealer.change(&key),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::actor::Actor;
    use crate::model::context::TenantContext;
    use crate::model::ids::TenantId;

    fn claim() -> Claim {
        Claim::from(&TenantContext::new(TenantId::TEMPLATE, Actor::SYSTEM))
    }

    fn binding() -> BackendBinding {
        BackendBinding { pid: 77, clock: (1_000_000_000.5, Instant::now()) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_seal_ends_five_seconds_after_it_was_made_by_the_databases_clock() {
        let sealer = Sealer::new(Some(&ContextKey::generate(1).unwrap()), KeyOrigin::Given);
        let binding = binding();
        let expires_at = |sealed: String| sealed[74..84].parse::<u64>().unwrap();
        assert_eq!(expires_at(sealer.seal(&claim(), binding)), 1_000_000_005);
        // The expiry does not depend on the connection's age or on this machine's time of day.
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(expires_at(sealer.seal(&claim(), binding)), 1_000_003_605);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(expires_at(sealer.seal(&claim(), binding)), 1_000_003_606);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sealed_context_has_its_parts_where_the_database_looks_for_them() {
        let key = ContextKey::parse(&format!("3:{}", "0a".repeat(32))).unwrap();
        let sealed = Sealer::new(Some(&key), KeyOrigin::Given).seal(&claim(), binding());
        assert_eq!(&sealed[64..94], "000000000310000000050000000077");
        assert_eq!(&sealed[94..101], "tenant_");
        assert!(sealed[..64].bytes().all(|byte| byte.is_ascii_hexdigit()));
        let plain = Sealer::new(None, KeyOrigin::Given).seal(&claim(), binding());
        assert_eq!((&plain[..94], &plain[94..]), ("0".repeat(94).as_str(), &sealed[94..]));
    }

    #[test]
    fn a_session_shows_its_number_instead_of_a_seal() {
        let sealer = Sealer::new(Some(&ContextKey::generate(1).unwrap()), KeyOrigin::Given);
        let (session, sealed) = sealer.session(binding()).unwrap();
        let pass = session.vouch(&claim());
        assert_eq!(pass.context(), &sealer.seal(&claim(), binding())[94..]);
        assert_eq!(sealed[94..], format!("session_{}", pass.session().unwrap()));
        assert!(
            sealer.session(BackendBinding { pid: 0, ..binding() }).is_none(),
            "behind a pooler"
        );
        assert!(Sealer::new(None, KeyOrigin::Given).session(binding()).is_none(), "plain");
    }

    #[test]
    fn a_key_is_read_as_it_is_shown_and_shown_to_no_log() {
        let key = ContextKey::generate(12).unwrap();
        assert!(ContextKey::parse(&key.reveal()).unwrap() == key);
        let (id, inner, outer) = key.pads();
        assert_eq!((id, inner.len(), outer.len()), ("0000000012", 64, 64));
        assert!(ContextKey::from_pads(id.to_owned(), &inner).unwrap() == key);
        assert_eq!(format!("{key:?}"), "ContextKey(12:…)");
        for text in ["", "1", "1:", "1:00", "x:00", &format!("1:{}", "g".repeat(64))] {
            assert!(ContextKey::parse(text).is_err(), "{text}");
        }
    }
}
