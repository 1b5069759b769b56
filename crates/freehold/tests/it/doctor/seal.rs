//! The doctor's findings on seal modes and keys, which the database of the other faults cannot show: it has
//! one mode, and valid keys.

use freehold::SealMode;
use freehold::testing::TestDatabase;

use super::{examine_all, lines, tenant};
use crate::support::{house_sealed, house_with, notes_and};

async fn found(database: &TestDatabase) -> Vec<String> {
    lines(&examine_all(database).await)
}

#[tokio::test]
async fn each_mode_is_clean_after_any_other_and_plain_is_warned_of() {
    let house = house_with(&notes_and(&[])).await;
    tenant(&house.freehold, "acme").await;
    use SealMode::{Best, Plain, Portable};
    for mode in [Plain, Best, Portable, Plain, Portable, Best] {
        house.database.change_seal(mode).await.unwrap();
        let found = found(&house.database).await;
        let is_plain = |line: &String| line.starts_with("FH111 database ");
        assert_eq!(found.len(), usize::from(mode == Plain), "{mode:?}: {found:#?}");
        assert!(found.iter().all(is_plain), "{mode:?}: {found:#?}");
    }
}

/// The declared mode and the functions must match.
#[tokio::test]
async fn a_function_of_another_mode_is_a_finding() {
    let house = house_sealed(SealMode::Portable).await;
    let superuser = house.superuser().await;
    for (planted, part) in [
        (
            "CREATE OR REPLACE FUNCTION freehold_guard.admit(context text, session int8 DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
             BEGIN
               RETURN pg_catalog.set_config('freehold.context', pg_catalog.substr(context, 95), true);
             END $$",
            "freehold_guard.admit(text,bigint): it is not the function that this build makes",
        ),
        (
            "CREATE OR REPLACE FUNCTION freehold_guard.seal_mode() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'best' $$",
            "freehold_guard.context(): it is not the function that this build makes",
        ),
        (
            "CREATE OR REPLACE FUNCTION freehold_guard.seal_mode() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'portable' $$",
            "freehold_guard.seal_mode(): it is not the function that this build makes",
        ),
    ] {
        superuser.batch_execute(planted).await.unwrap();
        let found = found(&house.database).await;
        let named = |line: &String| line.starts_with("FH108") && line.contains(part);
        assert!(found.iter().any(named), "{part} of {found:#?}");
    }
}

/// Whether anything can be sealed, and for how long.
#[tokio::test]
async fn keys_that_are_old_or_retire_or_are_gone_are_found() {
    let house = house_with(&notes_and(&[])).await;
    let superuser = house.superuser().await;
    let old = "FH117 freehold_guard.seal_key: the newest key, 1, is 181 days old";
    let last = "FH116 freehold_guard.seal_key: the last key, 1, retires at ";
    let keys = [
        ("created_at = now() - interval '179 days'", None),
        ("created_at = now() - interval '181 days'", Some(old)),
        ("created_at = now(), retires_at = now() + interval '1 hour'", Some(last)),
        ("retires_at = now()", Some("FH115 freehold_guard.seal_key: there is no key")),
    ];
    for (set, part) in keys {
        superuser
            .batch_execute(&format!("UPDATE freehold_guard.seal_key SET {set}"))
            .await
            .unwrap();
        let found = found(&house.database).await;
        assert_eq!(found.len(), usize::from(part.is_some()), "{set}: {found:#?}");
        assert!(found.iter().zip(part).all(|(line, part)| line.starts_with(part)), "{found:#?}");
    }
    // The remedy.
    house.database.change_seal(SealMode::Best).await.unwrap();
    assert_eq!(found(&house.database).await, [""; 0]);
    assert!(house.database.freehold().await.is_ok());
    // Without a seal no key is needed.
    house.database.change_seal(SealMode::Plain).await.unwrap();
    superuser.batch_execute("DELETE FROM freehold_guard.seal_key").await.unwrap();
    let found = found(&house.database).await;
    assert!(found.iter().all(|line| line.starts_with("FH111")), "{found:#?}");
}

#[tokio::test]
async fn statistics_of_keys_are_removed_and_no_longer_kept() {
    let house = house_with(&notes_and(&[])).await;
    let superuser = house.superuser().await;
    let plant = "ALTER TABLE freehold_guard.seal_key ALTER COLUMN inner_pad SET STATISTICS 100;
        INSERT INTO freehold_guard.seal_key SELECT lpad(n::text, 10, '0'), inner_pad, outer_pad, created_at
          FROM freehold_guard.seal_key, generate_series(2, 9) n;
        ANALYZE freehold_guard.seal_key;
        ALTER TABLE freehold_guard.seal_key ALTER COLUMN inner_pad SET STATISTICS 0";
    superuser.batch_execute(plant).await.unwrap();
    let before = found(&house.database).await;
    assert_eq!(before, ["FH118 freehold_guard.seal_key.inner_pad: statistics keep samples of it"]);
    // The remedy.
    house.database.change_seal(SealMode::Best).await.unwrap();
    assert_eq!(found(&house.database).await, [""; 0]);
    superuser.batch_execute("ANALYZE freehold_guard.seal_key").await.unwrap();
    assert_eq!(found(&house.database).await, [""; 0]);
}
