//! Permissions inside a tenant and outside of it: viewer, member, admin and owner, the owner role of the
//! database, and analytics.

use std::time::Duration;

use freehold::testing::create_tenant;
use freehold::{Actor, Error, ErrorKind, IdentityId, Role, TenantContext};

use crate::support::{House, connect, house, notes_and, operator, outcome, sqlstate, wait_until};

const REFUSED: &str = "42501";

async fn acting_as(house: &House, tenant: &TenantContext, id: u128, role: Role) -> TenantContext {
    let actor = Actor { id: IdentityId::from(uuid::Uuid::from_u128(id)), role };
    house.freehold.tenant_context_as(tenant.tenant(), actor).await.unwrap()
}

#[tokio::test]
async fn a_viewer_reads_and_does_not_write() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    let viewer = acting_as(&house, &acme, 1, Role::Viewer).await;
    assert_eq!(house.bodies(&viewer).await, ["acme"]);
    for sql in [
        "INSERT INTO notes (body) VALUES ('x')",
        "UPDATE notes SET body = 'x'",
        "DELETE FROM notes",
        "SELECT * FROM notes FOR UPDATE",
        "MERGE INTO notes t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN DELETE",
    ] {
        let error = house.freehold.query(&viewer, sql, &[]).await.unwrap_err();
        assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Forbidden, REFUSED), "{sql}");
    }
}

#[tokio::test]
async fn member_admin_and_owner_write() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    for role in [Role::Member, Role::Admin, Role::Owner] {
        let actor = acting_as(&house, &acme, 2, role).await;
        for sql in [
            "INSERT INTO notes (id, body) VALUES (9, 'x')",
            "UPDATE notes SET body = 'y' WHERE id = 9",
            "DELETE FROM notes WHERE id = 9",
        ] {
            house.freehold.query(&actor, sql, &[]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_operator_is_no_actor_in_a_tenant() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let actor = Actor { id: IdentityId::SYSTEM, role: Role::Operator };
    let refused = house.freehold.tenant_context_as(acme.tenant(), actor).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
}

#[tokio::test]
async fn the_grants_of_a_baseline_are_kept_as_they_are() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let later = "CREATE TABLE salaries (person text, amount int);
                 GRANT SELECT ON salaries TO freehold_admin;
                 CREATE TABLE rates (name text, value int);
                 GRANT SELECT ON rates TO freehold_viewer;
                 GRANT UPDATE (value) ON rates TO freehold_admin";
    house.migrate(&notes_and(&[later])).await.unwrap();
    let can = async |role: Role, sql: &str| {
        let actor = acting_as(&house, &acme, 3, role).await;
        house.freehold.query(&actor, sql, &[]).await.is_ok()
    };
    assert!(can(Role::Owner, "SELECT * FROM salaries").await);
    assert!(can(Role::Admin, "SELECT * FROM salaries").await);
    assert!(!can(Role::Member, "SELECT * FROM salaries").await);
    assert!(!can(Role::Viewer, "SELECT * FROM salaries").await);
    assert!(!can(Role::Owner, "INSERT INTO salaries VALUES ('ann', 1)").await);
    assert!(can(Role::Viewer, "SELECT * FROM rates").await);
    assert!(!can(Role::Member, "UPDATE rates SET value = 1").await);
    assert!(can(Role::Admin, "UPDATE rates SET value = 1").await);
    assert!(!can(Role::Admin, "UPDATE rates SET name = 'x'").await);
}

#[tokio::test]
async fn restrictive_policies_of_a_baseline_hold_for_actor_and_role() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let later = "CREATE TABLE drafts (author uuid NOT NULL DEFAULT freehold.actor_id(), title text);
                 CREATE POLICY own ON drafts AS RESTRICTIVE
                   USING (author = (SELECT freehold.actor_id()) OR (SELECT freehold.actor_role()) IN ('admin', 'owner'));";
    house.migrate(&notes_and(&[later])).await.unwrap();
    let ann = acting_as(&house, &acme, 4, Role::Member).await;
    let bob = acting_as(&house, &acme, 5, Role::Member).await;
    let eve = acting_as(&house, &globex, 4, Role::Member).await;
    let boss = acting_as(&house, &acme, 6, Role::Admin).await;
    for (who, title) in [(&ann, "ann's"), (&bob, "bob's")] {
        house
            .freehold
            .query(who, "INSERT INTO drafts (title) VALUES ($1)", &[&title])
            .await
            .unwrap();
    }
    let sees = async |who: &TenantContext| -> Vec<String> {
        let sql = "SELECT title FROM drafts ORDER BY title";
        let rows = house.freehold.query(who, sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(sees(&ann).await, ["ann's"]);
    assert_eq!(sees(&bob).await, ["bob's"]);
    assert_eq!(sees(&boss).await, ["ann's", "bob's"]);
    assert!(sees(&eve).await.is_empty());
    let forged = "INSERT INTO drafts (author, title) VALUES ($1, 'forged')";
    let refused =
        house.freehold.query(&ann, forged, &[&bob.actor().id.as_uuid()]).await.unwrap_err();
    assert_eq!(sqlstate(&refused), REFUSED);
    let actor = house
        .freehold
        .query(&bob, "SELECT freehold.actor_id(), freehold.actor_role(), freehold.tenant()", &[])
        .await
        .unwrap();
    assert_eq!(actor[0].get::<_, uuid::Uuid>(0), bob.actor().id.as_uuid());
    assert_eq!(actor[0].get::<_, &str>(1), "member");
    assert_eq!(actor[0].get::<_, uuid::Uuid>(2), acme.tenant().as_uuid());
}

#[tokio::test]
async fn permissive_policies_of_a_baseline_alone_decide_inside_the_tenant() {
    let house = house().await;
    let later = "CREATE TABLE pages (id int PRIMARY KEY, is_public boolean NOT NULL);
                 CREATE POLICY public_pages ON pages TO freehold_viewer USING (is_public)";
    house.migrate(&notes_and(&[later])).await.unwrap();
    let acme = house.tenant("acme").await;
    house.script(&acme, "INSERT INTO pages VALUES (1, true), (2, false)").await;
    let rows = house.freehold.query(&acme, "SELECT id FROM pages", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn the_owner_role_in_one_tenants_context_does_not_touch_another() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let owner = connect(&house.database.owner_url()).await;
    let sealed = house.sealed(acme.tenant(), "member").await;
    owner.batch_execute(&format!("BEGIN; SELECT freehold_guard.admit('{sealed}')")).await.unwrap();
    let theirs = globex.tenant().schema();
    for sql in [
        format!("SELECT * FROM {theirs}.notes"),
        format!("UPDATE {theirs}.notes SET body = 'x'"),
        format!("DELETE FROM {theirs}.notes"),
        format!("INSERT INTO {theirs}.notes (body) VALUES ('x')"),
    ] {
        assert_eq!(outcome(&owner, &sql).await, REFUSED, "{sql}");
    }
    let own = format!("UPDATE {}.notes SET body = 'x'", acme.tenant().schema());
    assert_eq!(outcome(&owner, &own).await, "permitted");
}

/// Under FORCE, an owner without a policy of its own would update nothing, without an error.
#[tokio::test]
async fn a_backfill_of_the_owner_touches_every_row() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let owner = connect(&house.database.owner_url()).await;
    for tenant in [&acme, &globex] {
        let sql = format!("UPDATE {}.notes SET body = upper(body)", tenant.tenant().schema());
        assert_eq!(owner.execute(&sql, &[]).await.unwrap(), 1);
    }
    let report = house
        .migrate(&notes_and(&[
            "ALTER TABLE notes ADD COLUMN size int; UPDATE notes SET size = length(body)",
            "ALTER TABLE notes ALTER COLUMN size SET NOT NULL; DELETE FROM notes WHERE size = 4",
        ]))
        .await
        .unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(house.bodies(&acme).await.is_empty());
    assert_eq!(house.bodies(&globex).await, ["GLOBEX"]);
}

#[tokio::test]
async fn analytics_reads_every_tenant_and_writes_none() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let later = "CREATE VIEW loud AS SELECT upper(body) AS body FROM notes;
                 CREATE TABLE plain (id int); INSERT INTO plain VALUES (1)";
    house.migrate(&notes_and(&[later])).await.unwrap();
    let analytics = connect(&house.database.analytics_url()).await;
    for (tenant, body) in [(&acme, "ACME"), (&globex, "GLOBEX")] {
        let schema = tenant.tenant().schema();
        let row =
            analytics.query_one(&format!("SELECT body FROM {schema}.loud"), &[]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), body);
        analytics.query_one(&format!("SELECT id FROM {schema}.plain"), &[]).await.unwrap();
        analytics.batch_execute("BEGIN").await.unwrap();
        for sql in [
            format!("INSERT INTO {schema}.notes (body) VALUES ('x')"),
            format!("UPDATE {schema}.notes SET body = 'x'"),
            format!("DELETE FROM {schema}.notes"),
            format!("TRUNCATE {schema}.notes"),
            format!("SELECT nextval('{schema}.notes_id_seq')"),
            format!("CREATE TABLE {schema}.mine (id int)"),
            "CREATE TEMP TABLE mine (id int)".to_owned(),
            "SELECT * FROM freehold.identity".to_owned(),
            "SELECT * FROM freehold.credential".to_owned(),
            "SET ROLE freehold_app".to_owned(),
            "SET ROLE freehold_member".to_owned(),
        ] {
            assert_eq!(outcome(&analytics, &sql).await, REFUSED, "{sql}");
        }
        analytics.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// The role of a context is the membership's, whatever the caller assumes.
#[tokio::test]
async fn a_person_acts_in_the_role_of_their_membership() {
    let house = house().await;
    let (tenant, owner) = create_tenant(&house.freehold, "acme").await.unwrap();
    let members = house.freehold.members().list(&owner, None, None).await.unwrap();
    let context = house.freehold.tenant_context(tenant.id, members[0].id).await.unwrap();
    assert_eq!(context.role(), Role::Owner);
    let stranger = IdentityId::from(uuid::Uuid::from_u128(1));
    let refused = house.freehold.tenant_context(tenant.id, stranger).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn nobody_acts_in_a_suspended_tenant() {
    let house = house().await;
    let (tenant, owner) = create_tenant(&house.freehold, "acme").await.unwrap();
    house.freehold.tenants().suspend(&operator(), tenant.id).await.unwrap();
    wait_until("suspended", Duration::from_secs(60), async || {
        let member = house.freehold.tenant_context(tenant.id, owner.actor().id).await;
        let system = house.freehold.tenant_context_as(tenant.id, owner.actor()).await;
        let refused = |context: Result<_, Error>| {
            context.is_err_and(|error| error.kind() == ErrorKind::TenantSuspended)
        };
        refused(member) && refused(system)
    })
    .await;
}
