use std::sync::mpsc;
use std::time::Duration;

use super::*;

const PASSWORD: &str = "correct horse";

#[test]
fn a_new_password_follows_the_rules() {
    let longest = "é".repeat(512);
    for (password, expected) in [
        ("", Err(PasswordError::Blank)),
        ("          ", Err(PasswordError::Blank)),
        ("\u{2003}\t\r\n\u{a0}     ", Err(PasswordError::Blank)),
        ("seven77", Err(PasswordError::TooShort)),
        ("ééééééé", Err(PasswordError::TooShort)), // seven characters of two bytes
        ("eight888", Ok(())),
        ("éééééééé", Ok(())),
        ("with spaces and ünïcödé 🔑", Ok(())),
        (longest.as_str(), Ok(())),
        (&format!("{longest}x"), Err(PasswordError::TooLong)),
    ] {
        assert_eq!(check_rules(password), expected, "{password:?}");
    }
    assert_eq!(hash("short"), Err(PasswordError::TooShort));
}

#[test]
fn only_the_password_fits_its_hash() {
    let stored = hash(PASSWORD).unwrap();
    assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
    assert!(verify(PASSWORD, Some(&stored)));
    for wrong in ["", "correct hors", "correct horse ", "Correct horse", "correct horse\0"] {
        assert!(!verify(wrong, Some(&stored)), "{wrong:?}");
    }
    assert_ne!(hash(PASSWORD).unwrap(), stored, "each has a salt of its own");
}

/// Checks that the hashes are standard argon2. The vectors are from the tests of the reference
/// implementation (phc-winner-argon2): argon2id, 64 MiB, two passes.
#[test]
fn a_hash_of_the_reference_implementation_is_verified() {
    let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
                  $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    assert!(verify("password", Some(stored)));
    assert!(!verify("passwore", Some(stored)));
    assert!(needs_rehash(stored));
}

#[test]
fn nothing_but_a_sound_hash_opens() {
    let good = hash(PASSWORD).unwrap();
    let (settings, digest) = good.rsplit_once('$').unwrap();
    for stored in [
        "",
        "$",
        PASSWORD,
        NOBODY,
        settings,
        &format!("{settings}$"),
        &format!("{settings}${}", &digest[..20]),
        &good.replace("argon2id", "argon2"),
        &good.replace("argon2id", "plain"),
        &good.replace("v=19", "v=16"),
        &good.replace("m=19456", "m=19457"),
        &good.replace("m=19456", "m=0"),
        &good.replace("m=19456", "m=4294967295"),
        &good.replace("t=2", "t=4294967295"),
        "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW",
    ] {
        assert!(!verify(PASSWORD, Some(stored)), "{stored}");
    }
    assert!(!verify(PASSWORD, None));
    assert!(!verify(&"x".repeat(BYTES_MAX + 1), Some(&good)));
}

#[test]
fn a_hash_with_other_parameters_is_to_be_renewed() {
    let good = hash(PASSWORD).unwrap();
    assert!(!needs_rehash(&good));
    for old in [
        "",
        "nonsense",
        &good.replace("argon2id", "argon2i"),
        &good.replace("v=19", "v=16"),
        &good.replace("$v=19", ""),
        &good.replace("m=19456", "m=9216"),
        &good.replace("t=2", "t=1"),
        &good.replace("p=1", "p=4"),
    ] {
        assert!(needs_rehash(old), "{old}");
    }
    // The substitute hash must take the same work as a real one.
    assert!(!needs_rehash(NOBODY));
}

/// The time is spent filling the memory, in as many passes as the parameters say; the substitute hash has the
/// present parameters.
#[test]
fn an_unknown_person_takes_the_work_of_a_wrong_password() {
    let stored = hash(PASSWORD).unwrap();
    let beyond_bounds = stored.replace("m=19456", "m=4194304");
    for nobody in [Some(stored.as_str()), None, Some("damaged"), Some(beyond_bounds.as_str())] {
        let mut scratch = Scratch::default();
        assert!(!verify_in(&mut scratch, "a wrong one", nobody));
        assert_eq!(scratch.0.len(), MEMORY_KIB as usize, "{nobody:?}");
        let is_filled = |block: &mut Block| block.as_mut().iter().any(|word| *word != 0);
        assert!(scratch.0.iter_mut().all(is_filled), "{nobody:?}");
    }
}

#[test]
fn what_is_left_in_the_memory_changes_no_hash() {
    let mut scratch = Scratch::default();
    let stored = hash_in(&mut scratch, PASSWORD).unwrap();
    for dirt in [0, 0x5a5a, u64::MAX] {
        for block in &mut scratch.0 {
            block.as_mut().fill(dirt);
        }
        assert!(verify_in(&mut scratch, PASSWORD, Some(&stored)));
        assert!(verify(PASSWORD, Some(&stored)));
    }
}

#[tokio::test]
async fn the_memory_is_used_again() {
    let hasher = PasswordHasher::new(2, 100);
    let verify = || hasher.verify(PASSWORD.to_owned(), None);
    let (a, b, c, d) = tokio::join!(verify(), verify(), verify(), verify());
    assert_eq!([a, b, c, d], [Ok(false); 4]);
    let kept = hasher.scratch.lock().unwrap();
    assert!((1..=2).contains(&kept.len()), "{}", kept.len());
    assert!(kept.iter().all(|scratch| scratch.0.len() == MEMORY_KIB as usize));
}

#[tokio::test]
async fn the_hasher_answers_like_the_plain_functions() {
    let hasher = PasswordHasher::for_half_the_cores();
    let stored = hasher.hash(PASSWORD.to_owned()).await.unwrap();
    let verify = |password: &str, stored| hasher.verify(password.to_owned(), stored);
    assert_eq!(verify(PASSWORD, Some(stored.clone())).await, Ok(true));
    assert_eq!(verify("a wrong one", Some(stored)).await, Ok(false));
    assert_eq!(verify(PASSWORD, None).await, Ok(false));
    assert_eq!(hasher.hash("short".to_owned()).await, Err(PasswordError::TooShort));
}

/// Starts a job that runs until it is told to end; returns once it has begun.
async fn occupy(hasher: &PasswordHasher) -> (tokio::task::JoinHandle<()>, mpsc::Sender<()>) {
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (end, ended) = mpsc::channel();
    let hasher = hasher.clone();
    let task = tokio::spawn(async move {
        let job = move |_: &mut Scratch| {
            begun.send(()).unwrap();
            ended.recv().unwrap();
        };
        hasher.work(job).await.unwrap();
    });
    has_begun.await.unwrap();
    (task, end)
}

async fn eventually(condition: impl Fn() -> bool) {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never happened");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn beyond_its_queue_the_hasher_is_busy_at_once() {
    let hasher = PasswordHasher::new(1, 1);
    let (working, end) = occupy(&hasher).await;
    let waiting = tokio::spawn({
        let hasher = hasher.clone();
        async move { hasher.work(|_| ()).await }
    });
    eventually(|| hasher.places.available_permits() == 0).await;
    assert_eq!(hasher.work(|_| ()).await, Err(PasswordError::Busy));
    // With or without a stored hash: only the load matters.
    let stored = Some(NOBODY.to_owned());
    assert_eq!(hasher.verify(PASSWORD.to_owned(), stored).await, Err(PasswordError::Busy));
    assert_eq!(hasher.verify(PASSWORD.to_owned(), None).await, Err(PasswordError::Busy));

    // A cancelled caller leaves the queue.
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert_eq!(hasher.places.available_permits(), 1);

    end.send(()).unwrap();
    working.await.unwrap();
    assert_eq!(hasher.work(|_| 7).await, Ok(7));
}

#[tokio::test]
async fn work_whose_caller_is_gone_still_counts() {
    let hasher = PasswordHasher::new(1, 0);
    let (working, end) = occupy(&hasher).await;
    working.abort();
    assert!(working.await.unwrap_err().is_cancelled());
    assert_eq!(hasher.work(|_| ()).await, Err(PasswordError::Busy));
    end.send(()).unwrap();
    eventually(|| hasher.places.available_permits() == 1).await;
    assert_eq!(hasher.work(|_| 7).await, Ok(7));
}

#[tokio::test]
async fn a_panic_on_a_thread_frees_its_place() {
    let hasher = PasswordHasher::new(1, 0);
    assert_eq!(hasher.work(|_| panic!("on purpose")).await, Err::<(), _>(PasswordError::Failed));
    assert_eq!(hasher.work(|_| 7).await, Ok(7));
}

#[tokio::test]
async fn the_threads_are_as_many_as_may_work_and_stay() {
    let hasher = PasswordHasher::new(2, 100);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let id = || hasher.work(|_| std::thread::current().id());
        let (a, b, c, d) = tokio::join!(id(), id(), id(), id());
        seen.extend([a, b, c, d].map(Result::unwrap));
    }
    assert!((1..=2).contains(&seen.len()), "{seen:?}");
    assert!(!seen.contains(&std::thread::current().id()));
}

thread_local! {
    /// Dropped when its thread ends.
    static MARK: std::cell::RefCell<Option<Arc<()>>> = const { std::cell::RefCell::new(None) };
}

#[tokio::test]
async fn the_threads_end_with_the_hasher() {
    let hasher = PasswordHasher::new(2, 100);
    let mark = Arc::new(());
    let clone = Arc::clone(&mark);
    hasher.work(move |_| MARK.set(Some(clone))).await.unwrap();
    assert_eq!(Arc::strong_count(&mark), 2);
    drop(hasher);
    eventually(|| Arc::strong_count(&mark) == 1).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn hashing_gives_way_to_whoever_asked_for_it() {
    let priority = || rustix::process::getpriority_process(None).unwrap();
    let own = priority();
    let hasher = PasswordHasher::new(1, 0);
    // Twice, since the priority must not be lowered again.
    for _ in 0..2 {
        assert_eq!(hasher.work(move |_| priority()).await, Ok((own + NICE).min(19)));
    }
    assert_eq!(priority(), own, "only those threads give way");
}

#[test]
fn hashing_takes_half_the_cores_at_most() {
    let taken: Vec<_> = [1, 2, 3, 4, 8, 16, 64].map(at_a_time).into();
    assert_eq!(taken, [1, 1, 1, 2, 4, 8, 8]);
}
