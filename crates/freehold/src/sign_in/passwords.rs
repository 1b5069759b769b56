//! Passwords: the rules for new ones, and argon2id on a bounded number of threads. Other modules decide what
//! a password gives access to.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::{Semaphore, oneshot};

#[cfg(test)]
mod tests;

/// NIST SP 800-63B: a minimum length, a generous maximum, and no rules of composition.
const CHARACTERS_MIN: usize = 8;
const BYTES_MAX: usize = 1024;

/// 19 MiB, two passes, one lane: what OWASP's Password Storage Cheat Sheet asks for at least. One
/// hash took 20 ms where this was written, with optimisation.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const HASH_BYTES: usize = 32;

/// A stored hash with higher parameters than these was not made by Freehold, and is not worth the memory.
const STORED_MEMORY_KIB_MAX: u32 = 256 * 1024;
const STORED_PASSES_MAX: u32 = 16;

/// The hash that a password is compared with if there is no stored one. Salt and hash were drawn at random,
/// so no matching password is known, and a match would not count.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$UUWBm1A3dpAmGaHhxDm3Fw$ByjsRnvaEbkmztmJwRvyhIXXPxt+Vw4fak5rDbGCd+w";

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("the password must not be blank")]
    Blank,
    #[error("the password must have at least {CHARACTERS_MIN} characters")]
    TooShort,
    #[error("the password must have at most {BYTES_MAX} bytes")]
    TooLong,
    /// The queue is full; the caller should try again in a second.
    #[error("too many sign-ins at this moment")]
    Busy,
    /// The runtime shut down meanwhile, or the system had no memory or no random numbers.
    #[error("the password could not be hashed")]
    Failed,
}

/// Checks a newly chosen password, without hashing it. Not for sign-in: a password chosen under older rules
/// stays valid.
///
/// The bytes are used as they were typed: two Unicode spellings of a letter are two passwords.
pub(crate) fn check_rules(password: &str) -> Result<(), PasswordError> {
    if password.len() > BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    if password.trim().is_empty() {
        return Err(PasswordError::Blank);
    }
    if password.chars().count() < CHARACTERS_MIN {
        return Err(PasswordError::TooShort);
    }
    Ok(())
}

/// Checks a new password and hashes it, as a PHC string. Takes tens of milliseconds of CPU: in
/// async code use [`PasswordHasher`].
#[cfg(test)]
pub(crate) fn hash(password: &str) -> Result<String, PasswordError> {
    hash_in(&mut Scratch::default(), password)
}

/// Whether the password matches the stored hash. Without a hash, because no person has the e-mail address or
/// the person has no password, the answer is no, after the same work. Takes tens of milliseconds of CPU: in
/// async code use [`PasswordHasher`].
///
/// A hash with other parameters takes another time until it is renewed: see [`needs_rehash`].
#[cfg(test)]
pub(crate) fn verify(password: &str, stored: Option<&str>) -> bool {
    verify_in(&mut Scratch::default(), password, stored)
}

/// Whether the hash was made with other parameters than the present ones. Call it after a successful sign-in,
/// when the password is at hand.
pub(crate) fn needs_rehash(stored: &str) -> bool {
    StoredHash::read(stored).is_none_or(|stored| {
        let params = &stored.params;
        stored.algorithm != Algorithm::Argon2id
            || stored.version != Version::V0x13
            || (params.m_cost(), params.t_cost(), params.p_cost()) != (MEMORY_KIB, PASSES, LANES)
            || params.output_len() != Some(HASH_BYTES)
    })
}

fn hash_in(scratch: &mut Scratch, password: &str) -> Result<String, PasswordError> {
    check_rules(password)?;
    let mut salt = [0; Salt::RECOMMENDED_LENGTH];
    getrandom::fill(&mut salt).map_err(|_| PasswordError::Failed)?;
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).expect("constants");
    let text = ParamsString::try_from(&params).expect("constants");
    let (algorithm, version) = (Algorithm::Argon2id, Version::V0x13);
    let hash = scratch
        .argon2(Argon2::new(algorithm, version, params), password, &salt, HASH_BYTES)
        .ok_or(PasswordError::Failed)?;
    let hash = PasswordHash {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: text,
        salt: Some(Salt::new(&salt).expect("of the recommended length")),
        hash: Some(hash),
    };
    Ok(hash.to_string())
}

fn verify_in(scratch: &mut Scratch, password: &str, stored: Option<&str>) -> bool {
    // Depends only on the input, so it reveals nothing about which people exist.
    if password.len() > BYTES_MAX {
        return false;
    }
    let somebody = stored.and_then(StoredHash::read);
    let known = somebody.is_some();
    let StoredHash { algorithm, version, params, salt, hash } =
        somebody.or_else(|| StoredHash::read(NOBODY)).expect("a constant");
    let argon2 = Argon2::new(algorithm, version, params);
    let computed = scratch.argon2(argon2, password, salt.as_ref(), hash.len());
    // `Output` compares in constant time.
    computed == Some(hash) && known
}

/// A stored hash that argon2 can check within bounds; any other counts as absent.
struct StoredHash {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Salt,
    hash: Output,
}

impl StoredHash {
    fn read(text: &str) -> Option<Self> {
        let phc = PasswordHash::new(text).ok()?;
        let params = Params::try_from(&phc).ok()?;
        if params.m_cost() > STORED_MEMORY_KIB_MAX || params.t_cost() > STORED_PASSES_MAX {
            return None;
        }
        Some(StoredHash {
            algorithm: Algorithm::try_from(phc.algorithm.as_str()).ok()?,
            // A hash without a version is of the first one.
            version: phc.version.map_or(Ok(Version::V0x10), Version::try_from).ok()?,
            params,
            salt: phc.salt?,
            hash: phc.hash?,
        })
    }
}

/// The 19 MiB of memory that one argon2 hash needs, reused for the next.
///
/// If it is allocated anew each time, the allocator does not return it: 1,200 verifications, two at a time,
/// left a process of 860 MB behind with glibc (RustCrypto/password-hashes issue 478 saw 1.5 GB). The contents
/// of an earlier use are overwritten before they are read.
#[derive(Default)]
struct Scratch(Vec<Block>);

impl Scratch {
    fn argon2(
        &mut self,
        argon2: Argon2<'_>,
        password: &str,
        salt: &[u8],
        length: usize,
    ) -> Option<Output> {
        let mut buffer = [0; Output::MAX_LENGTH];
        let out = buffer.get_mut(..length)?;
        let password = password.as_bytes();
        if argon2.params().m_cost() > MEMORY_KIB {
            // A stored hash with higher parameters: its memory is not kept.
            argon2.hash_password_into(password, salt, out).ok()?;
        } else {
            self.0.resize(MEMORY_KIB as usize, Block::new());
            argon2.hash_password_into_with_memory(password, salt, out, &mut self.0).ok()?;
        }
        Output::new(out).ok()
    }
}

/// How much lower than the priority of requests that of hashing is, as a `nice` value: if both want a core,
/// hashing gets a tenth. Not 19, which gives a seventieth: sign-ins must not starve on a busy machine, and a
/// thread that holds a lock of the runtime while it delivers its result must make progress.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// How many hashes may run at a time so that half of the cores stay free.
fn at_a_time(cores: usize) -> usize {
    (cores / 2).clamp(1, 8)
}

/// Hashes and verifies on threads of its own, a few at a time, with a short queue. Each hash takes a core for
/// tens of milliseconds and 19 MiB: without a bound, a burst of sign-ins would starve every tenant's requests
/// and exhaust the memory. The memory is kept: at most 19 MiB per concurrent hash.
#[derive(Clone)]
pub(crate) struct PasswordHasher {
    /// Limits the running and the waiting jobs together.
    places: Arc<Semaphore>,
    /// Limits the running jobs.
    workers: Arc<Semaphore>,
    /// Memory that is not in use at this moment.
    scratch: Arc<Mutex<Vec<Scratch>>>,
    /// The queue to the threads, which are started with the first job.
    jobs: Arc<OnceLock<mpsc::Sender<Job>>>,
    parallel: usize,
}

type Job = Box<dyn FnOnce() + Send>;

impl PasswordHasher {
    /// Runs `parallel` hashes at a time, at least one; `waiting_max` more may wait.
    pub(crate) fn new(parallel: usize, waiting_max: usize) -> Self {
        let parallel = parallel.clamp(1, 1024);
        PasswordHasher {
            places: Arc::new(Semaphore::new(parallel + waiting_max.min(1 << 20))),
            workers: Arc::new(Semaphore::new(parallel)),
            scratch: Arc::default(),
            jobs: Arc::default(),
            parallel,
        }
    }

    /// Runs half as many at a time as there are cores, at least one and at most eight (150 MiB, about 400
    /// sign-ins a second), so that the other half is left to requests. A hundred times as many may wait,
    /// which takes two to three seconds.
    pub(crate) fn for_half_the_cores() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let parallel = at_a_time(cores);
        Self::new(parallel, parallel * 100)
    }

    /// [`hash`]; a password against the rules is refused at once.
    pub(crate) async fn hash(&self, password: String) -> Result<String, PasswordError> {
        check_rules(&password)?;
        self.work(move |scratch| hash_in(scratch, &password)).await?
    }

    /// [`verify`]. With or without a stored hash, the path and the wait are the same.
    pub(crate) async fn verify(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        self.work(move |scratch| verify_in(scratch, &password, stored.as_deref())).await
    }

    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.places);
        let place = place.try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let worker = Arc::clone(&self.workers);
        let worker = worker.acquire_owned().await.map_err(|_| PasswordError::Failed)?;
        let shelf = Arc::clone(&self.scratch);
        let (answer, answered) = oneshot::channel();
        // The job holds the permits, not this future: a caller who is cancelled does not stop the thread, and
        // a running job must still count.
        let job = move || {
            let permits = (place, worker);
            let kept = locked(&shelf).pop();
            let mut scratch = kept.unwrap_or_default();
            let done = job(&mut scratch);
            locked(&shelf).push(scratch);
            // First, so that the permits are free when the caller gets the answer.
            drop(permits);
            let _ = answer.send(done);
        };
        let jobs = self.jobs.get_or_init(|| start_threads(self.parallel));
        jobs.send(Box::new(job)).map_err(|_| PasswordError::Failed)?;
        answered.await.map_err(|_| PasswordError::Failed)
    }
}

/// Starts as many threads as may hash at a time. They are not the runtime's, because a lowered priority
/// cannot be raised again. They end when the last sender is dropped.
fn start_threads(parallel: usize) -> mpsc::Sender<Job> {
    let (jobs, queue) = mpsc::channel::<Job>();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..parallel {
        let queue = Arc::clone(&queue);
        let thread = move || {
            give_way();
            loop {
                // The thread that waits for a job holds the lock; the others wait for the lock.
                let job = locked(&queue).recv();
                let Ok(job) = job else { return };
                // The panic hook has logged a panic, and the caller notices the dropped channel.
                let _ = std::panic::catch_unwind(AssertUnwindSafe(job));
            }
        };
        // If some threads cannot be started, the others do the work; if none can, callers get an error.
        if let Err(error) = std::thread::Builder::new().name("hashing".to_owned()).spawn(thread) {
            tracing::warn!(%error, "a thread that hashes passwords cannot be started");
        }
    }
    jobs
}

/// Lowers this thread's priority. On other systems than Linux this would lower that of the whole process.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "passwords are hashed at the priority of requests");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for PasswordHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = self.workers.available_permits();
        f.debug_struct("PasswordHasher").field("idle", &idle).finish_non_exhaustive()
    }
}
