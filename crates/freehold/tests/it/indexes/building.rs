//! Creating, dropping and restoring an index for one tenant: only in its schema, under its own name, and a
//! failure leaves nothing.

use freehold::control::indexes::{IndexColumn, IndexState, TenantIndex};
use freehold::{Error, ErrorKind, TenantContext};

use super::{
    LATE, apply, baseline_and, columns, drop_it, fill, house, indexes, inside, is_clean, recorded,
};
use crate::support::{House, house_with, operator, wait_until};

async fn attempt(
    house: &House,
    tenant: &TenantContext,
    table: &str,
    by: &[IndexColumn],
) -> Result<TenantIndex, Error> {
    house.freehold.indexes().apply(&operator(), tenant.tenant(), table, by).await
}

/// Waits until a build waits for other transactions, and acts on its session.
async fn at_the_builder(house: &House, does: &str) {
    let superuser = house.superuser().await;
    let sql = format!(
        "SELECT {does} FROM pg_stat_activity WHERE datname = current_database()
         AND query ~ 'CREATE INDEX CONCURRENTLY' AND wait_event_type = 'Lock'"
    );
    wait_until("the builder waits", LATE, async || {
        !superuser.query(&sql, &[]).await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn two_tenants_have_the_same_index_each_in_its_own_schema() {
    let house = house().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let before = indexes(&house, &acme).await;
    let name = apply(&house, &acme, "visits", &["place"]).await;
    assert_eq!(indexes(&house, &globex).await, before);
    apply(&house, &globex, "visits", &["place"]).await;
    assert_eq!(indexes(&house, &globex).await.len(), before.len() + 1);
    is_clean(&house).await;
    drop_it(&house, &acme, &name).await;
    assert_eq!(indexes(&house, &acme).await, before);
    assert_eq!(indexes(&house, &globex).await.len(), before.len() + 1);
    assert_eq!(recorded(&house).await, [format!("globex {name} created")]);
    is_clean(&house).await;
}

#[tokio::test]
async fn a_migration_leaves_alone_what_each_tenant_has_of_its_own() {
    let house = house().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    apply(&house, &acme, "visits", &["place"]).await;
    apply(&house, &globex, "visits", &["at"]).await;
    drop_it(&house, &globex, "people_age_idx").await;
    let before = recorded(&house).await;
    assert_eq!(before.len(), 3);
    let theirs = (indexes(&house, &acme).await, indexes(&house, &globex).await);
    let later = baseline_and(&["ALTER TABLE people ADD COLUMN remark text"]);
    assert_eq!(house.migrate(&later).await.unwrap().migrated, 2);
    assert_eq!(recorded(&house).await, before);
    assert_eq!((indexes(&house, &acme).await, indexes(&house, &globex).await), theirs);
    is_clean(&house).await;
}

#[tokio::test]
async fn names_that_sql_would_read_otherwise_are_quoted() {
    let odd = r#"CREATE TABLE "Odd; ""one""" (id bigint PRIMARY KEY, "Select" int, "a, b" int)"#;
    let house = house_with(&baseline_and(&[odd])).await;
    let acme = house.tenant("acme").await;
    let before = indexes(&house, &acme).await;
    let by = columns(&["Select desc"]).into_iter().chain([IndexColumn::new("a, b")]);
    let by: Vec<IndexColumn> = by.collect();
    let made = attempt(&house, &acme, r#"Odd; "one""#, &by).await.unwrap();
    assert!(made.definition.ends_with(r#"("Select" DESC, "a, b")"#), "{made:?}");
    is_clean(&house).await;
    drop_it(&house, &acme, &made.name).await;
    assert_eq!(indexes(&house, &acme).await, before);
    is_clean(&house).await;
}

/// The name is made from the columns' names, so two lists of columns may result in the same name.
#[tokio::test]
async fn an_index_of_other_columns_is_not_taken_for_one_of_the_same_name() {
    let pairs = "CREATE TABLE pairs (id bigint PRIMARY KEY, a int, b int, a_b int, \"desc\" int);
                 CREATE TABLE pairs_a (id bigint PRIMARY KEY, b int)";
    let house = house_with(&baseline_and(&[pairs])).await;
    let acme = house.tenant("acme").await;
    apply(&house, &acme, "pairs", &["a_b"]).await;
    apply(&house, &acme, "pairs", &["a desc", "desc"]).await;
    let before = (indexes(&house, &acme).await, recorded(&house).await);
    for (table, by) in
        [("pairs", &["a", "b"][..]), ("pairs_a", &["b"]), ("pairs", &["a", "desc desc"])]
    {
        let refused = attempt(&house, &acme, table, &columns(by)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert!(refused.message().contains("of other columns"), "{refused}");
    }
    assert_eq!((indexes(&house, &acme).await, recorded(&house).await), before);
    // Existing indexes may be requested again.
    apply(&house, &acme, "pairs", &["a_b"]).await;
    apply(&house, &acme, "pairs", &["a desc", "desc"]).await;
    is_clean(&house).await;
}

/// Otherwise its record would be lost, and the tenant would lack it unnoticed.
#[tokio::test]
async fn an_index_of_the_baseline_that_was_dropped_is_restored_and_not_made() {
    let things = "CREATE TABLE things (id bigint PRIMARY KEY, a int, b int);
                  CREATE INDEX things_a_tenant_idx ON things (b)";
    let house = house_with(&baseline_and(&[things])).await;
    let acme = house.tenant("acme").await;
    drop_it(&house, &acme, "things_a_tenant_idx").await;
    let refused = attempt(&house, &acme, "things", &columns(&["a"])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert!(refused.message().contains("restore it"), "{refused}");
    assert_eq!(recorded(&house).await, ["acme things_a_tenant_idx dropped"]);
    is_clean(&house).await;
}

#[tokio::test]
async fn a_build_that_fails_leaves_no_index_behind_and_says_why() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    fill(&house, &acme).await;
    let before = indexes(&house, &acme).await;
    let slow = inside(&house, &acme).await;
    slow.batch_execute("BEGIN; INSERT INTO visits (place) VALUES ('here')").await.unwrap();
    let cancel = async {
        at_the_builder(&house, "pg_cancel_backend(pid)").await;
        slow.batch_execute("COMMIT").await.unwrap();
    };
    let by = columns(&["place"]);
    let (failed, ()) = tokio::join!(attempt(&house, &acme, "visits", &by), cancel);
    failed.unwrap_err();
    assert_eq!(indexes(&house, &acme).await, before);
    let list = house.freehold.indexes().list(&operator(), None).await.unwrap();
    assert_eq!((list.len(), list[0].state), (1, IndexState::Creating));
    assert!(list[0].error.is_some(), "{list:?}");
    is_clean(&house).await;
    apply(&house, &acme, "visits", &["place"]).await;
    assert_eq!(recorded(&house).await, ["acme visits_place_tenant_idx created"]);
}

#[tokio::test]
async fn an_index_of_the_baseline_is_restored_while_others_write() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    fill(&house, &acme).await;
    let before = indexes(&house, &acme).await;
    drop_it(&house, &acme, "people_age_idx").await;
    let slow = inside(&house, &acme).await;
    let sql = "INSERT INTO people (name, city, age) VALUES ('slow', 'here', 1)";
    slow.batch_execute(&format!("BEGIN; {sql}")).await.unwrap();
    let writes = async {
        at_the_builder(&house, "pid").await;
        let sql = "INSERT INTO people (name, city, age) VALUES ('quick', 'here', 1)";
        house.freehold.query(&acme, sql, &[]).await.unwrap();
        slow.batch_execute("COMMIT").await.unwrap();
    };
    let operator = operator();
    let restore = house.freehold.indexes().restore(&operator, acme.tenant(), "people_age_idx");
    let (restored, ()) = tokio::join!(restore, writes);
    restored.unwrap();
    assert_eq!(indexes(&house, &acme).await, before);
    assert_eq!(recorded(&house).await, [""; 0]);
    is_clean(&house).await;
}

#[tokio::test]
async fn what_keeps_rows_unique_or_serves_a_foreign_key_is_not_dropped() {
    let later = "CREATE INDEX visits_person_idx ON visits (person_id);
                 CREATE UNIQUE INDEX logs_once_idx ON logs (line)";
    let house = house_with(&baseline_and(&[later])).await;
    let acme = house.tenant("acme").await;
    let before = indexes(&house, &acme).await;
    for (name, part) in [
        ("visits_person_idx", "a foreign key has no other index"),
        ("logs_once_idx", "it keeps rows unique"),
    ] {
        let dropped = house.freehold.indexes().drop(&operator(), acme.tenant(), name).await;
        let refused = dropped.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert!(refused.message().contains(part), "{refused}");
    }
    assert_eq!((indexes(&house, &acme).await, recorded(&house).await.len()), (before, 0));
    // With another that leads by the key, it may go.
    apply(&house, &acme, "visits", &["person_id", "at"]).await;
    drop_it(&house, &acme, "visits_person_idx").await;
    is_clean(&house).await;
}
