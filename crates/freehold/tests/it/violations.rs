//! Violations are recorded: outside of the transaction that was rolled back, for operators only, and in
//! bounded number.

use std::time::Duration;

use freehold::control::violations::{
    RecordedViolation, Violation, ViolationCounts, ViolationFilter, ViolationKind,
};
use freehold::{Action, Actor, ErrorKind, Freehold, IdentityId, Role, TenantContext};

use crate::support::{House, admin_url, connect, house, notes_and, operator, outcome, wait_until};

const SOON: Duration = Duration::from_secs(60);

fn because(reason: &str) -> Violation {
    Violation::new(ViolationKind::WrongScope).because(reason)
}

async fn all(freehold: &Freehold) -> Vec<RecordedViolation> {
    let every = ViolationFilter::default();
    freehold.violations().list(&operator(), &every, None, Some(200)).await.unwrap()
}

fn seen(counts: &ViolationCounts, kind: ViolationKind) -> u64 {
    counts.by_kind.iter().find(|(of, _)| *of == kind).unwrap().1
}

async fn stored(house: &House) -> i64 {
    let count = "SELECT count(*) FROM freehold.violation";
    house.superuser().await.query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_violation_outlives_the_transaction_it_was_found_in() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let sql =
        format!("SELECT body FROM {}.notes WHERE body = 'a secret'", globex.tenant().schema());
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.execute("INSERT INTO notes (body) VALUES ('lost')", &[]).await.unwrap();
    let error = tx.query(&sql, &[]).await.unwrap_err();
    let violation = Violation::behind(&error, &sql, Some(acme.tenant())).unwrap().by(&acme);
    house.freehold.violations().record(violation);
    tx.rollback().await.unwrap();

    house.freehold.violations().flush().await.unwrap();
    let rows = all(&house.freehold).await;
    let row = rows.iter().find(|row| row.violation.kind == ViolationKind::ContextRefused).unwrap();
    assert_eq!(row.violation.tenant, Some(acme.tenant()));
    assert_eq!(row.violation.actor, Some(acme.actor().id));
    assert_eq!(row.violation.sqlstate.as_deref(), Some("42501"));
    let statement = row.violation.statement.clone().unwrap();
    assert_eq!(statement, sql.replace("'a secret'", "?"), "a value is kept");
    assert_eq!(house.bodies(&acme).await, ["acme"]);
}

#[tokio::test]
async fn what_the_database_refuses_is_recorded_by_itself() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let theirs = format!("SELECT body FROM {}.notes", globex.tenant().schema());
    house.freehold.query(&acme, &theirs, &[]).await.unwrap_err();
    let mut tx = house.freehold.begin(&acme).await.unwrap();
    tx.execute("SELECT 1", &[]).await.unwrap();
    tx.query(&theirs, &[]).await.unwrap_err();
    drop(tx);
    house.freehold.violations().flush().await.unwrap();
    let rows = all(&house.freehold).await;
    assert_eq!(rows.iter().map(|row| row.count).sum::<i64>(), 2, "{rows:?}");
    for row in rows {
        assert_eq!(row.violation.kind, ViolationKind::ContextRefused);
        assert_eq!(row.violation.tenant, Some(acme.tenant()));
        assert_eq!(row.violation.target, Some(globex.tenant()));
    }
}

#[tokio::test]
async fn what_is_no_violation_makes_none() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let viewer = Actor { id: IdentityId::from(uuid::Uuid::new_v4()), role: Role::Viewer };
    let viewer = house.freehold.tenant_context_as(acme.tenant(), viewer).await.unwrap();
    for (context, sql, expected) in [
        (&acme, "SELECT 1 / 0", None),
        (&acme, "SELECT * FROM nothing", None),
        // Refused, but not a write.
        (&viewer, "SELECT lo_get(1)", None),
        (&viewer, "UPDATE notes SET body = 'x'", Some(ViolationKind::WriteRefused)),
    ] {
        let error = house.freehold.query(context, sql, &[]).await.unwrap_err();
        let behind = Violation::behind(&error, sql, Some(acme.tenant()));
        assert_eq!(behind.map(|v| v.kind), expected, "{sql}");
    }
}

#[tokio::test]
async fn a_baselines_row_policy_is_no_violation_unless_another_tenants_schema_is_named() {
    let house = house().await;
    let own = "CREATE TABLE docs (id int, deleted_at date);
               CREATE POLICY a_live ON docs AS RESTRICTIVE FOR SELECT USING (deleted_at IS NULL);
               CREATE POLICY a_small ON docs AS RESTRICTIVE FOR INSERT WITH CHECK (id < 10);
               CREATE FUNCTION reach(sql text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE sql; END $$";
    house.migrate(&notes_and(&[own])).await.unwrap();
    let (acme, globex) = house.acme_and_globex().await;
    house.freehold.query(&acme, "INSERT INTO docs VALUES (1)", &[]).await.unwrap();
    let refused = async |sql: &str| {
        let error = house.freehold.query(&acme, sql, &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RowPolicy, "{sql}: {error}");
        error.message().to_owned()
    };
    let message = refused("UPDATE docs SET deleted_at = '2026-11-30' WHERE id = 1").await;
    assert_eq!(message, "the row policy a_live of docs refuses this row");
    refused("INSERT INTO docs VALUES (10)").await;
    refused(&format!("INSERT INTO {}.docs VALUES (10)", acme.tenant().schema())).await;
    house.freehold.violations().flush().await.unwrap();
    assert_eq!(stored(&house).await, 0);

    // PostgreSQL asks the baseline's policy first, by its name; it is a violation all the same.
    let theirs = globex.tenant().schema();
    let shouted = theirs.to_uppercase();
    refused(&format!("INSERT INTO {shouted}.docs VALUES (10)")).await;
    let hidden = format!("INSERT INTO {theirs}.docs VALUES (11)");
    let error = house.freehold.query(&acme, "SELECT reach($1)", &[&hidden]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RowPolicy);
    // A row that the application's policy allows is refused by Freehold's.
    let good = format!("INSERT INTO {theirs}.docs VALUES (1)");
    let error = house.freehold.query(&acme, &good, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Violation);
    house.freehold.violations().flush().await.unwrap();
    let rows = all(&house.freehold).await;
    assert_eq!(rows.iter().map(|row| row.count).sum::<i64>(), 3, "{rows:?}");
    for row in rows {
        assert_eq!(row.violation.kind, ViolationKind::ContextRefused);
        assert_eq!(row.violation.target, Some(globex.tenant()));
    }
}

#[tokio::test]
async fn who_manages_members_without_leave_is_recorded_and_who_only_looks_is_not() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let as_role = async |role| {
        let actor = Actor { id: IdentityId::from(uuid::Uuid::new_v4()), role };
        house.freehold.tenant_context_as(acme.tenant(), actor).await.unwrap()
    };
    let freehold = &house.freehold;
    let refused = || seen(&freehold.violations().counts(), ViolationKind::WriteRefused);
    let viewer: TenantContext = as_role(Role::Viewer).await;
    freehold.require_write(&viewer, Action::WriteData).unwrap_err();
    assert_eq!(refused(), 1);
    freehold.invitations().list(&viewer, None).await.unwrap_err();
    assert_eq!(refused(), 1, "to look is not to write");
    freehold.invitations().create(&viewer, "x@x.example", Role::Viewer).await.unwrap_err();
    assert_eq!(refused(), 2);
    let admin = as_role(Role::Admin).await;
    freehold.require_write(&admin, Action::WriteData).unwrap();
    freehold.invitations().create(&admin, "x@x.example", Role::Viewer).await.unwrap();
    assert_eq!(refused(), 2);
    freehold.invitations().create(&admin, "x@x.example", Role::Owner).await.unwrap_err();
    freehold.members().remove(&admin, acme.actor().id).await.unwrap_err();
    assert_eq!(refused(), 4, "a role above one's own");
    freehold.violations().flush().await.unwrap();
    let rows = all(freehold).await;
    assert_eq!(rows.iter().map(|row| row.count).sum::<i64>(), 4);
    assert!(rows.iter().all(|row| row.violation.tenant == Some(acme.tenant())));
}

#[tokio::test]
async fn they_are_listed_from_the_newest_by_tenant_by_kind_and_in_pages() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    let forged = Violation::new(ViolationKind::ForgedToken);
    for violation in [
        because("0"),
        because("1").by(&acme),
        because("2").by(&globex),
        because("3").by(&globex).towards(Some(acme.tenant())),
        forged.because("4"),
    ] {
        house.freehold.violations().record(violation);
    }
    house.freehold.violations().flush().await.unwrap();
    let list = async |tenant: Option<&TenantContext>, kind| {
        let filter = ViolationFilter { tenant: tenant.map(TenantContext::tenant), kind };
        let rows =
            house.freehold.violations().list(&operator(), &filter, None, None).await.unwrap();
        let reasons = rows.into_iter().map(|row| row.violation.reason.unwrap());
        reasons.collect::<Vec<_>>().join("")
    };
    assert_eq!(list(None, None).await, "43210");
    assert_eq!(list(Some(&acme), None).await, "31", "its own, and those directed at it");
    assert_eq!(list(Some(&globex), None).await, "32");
    assert_eq!(list(None, Some(ViolationKind::ForgedToken)).await, "4");
    assert_eq!(list(Some(&acme), Some(ViolationKind::ForgedToken)).await, "");

    let mut paged = String::new();
    let mut after = None;
    loop {
        let every = ViolationFilter::default();
        let page =
            house.freehold.violations().list(&operator(), &every, after, Some(2)).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        paged.extend(page.into_iter().map(|row| row.violation.reason.unwrap()));
    }
    assert_eq!(paged, "43210");
}

#[tokio::test]
async fn they_appear_by_themselves_and_repetitions_raise_the_count() {
    let house = house().await;
    for _ in 0..20 {
        house.freehold.violations().record(because("again"));
    }
    wait_until("all are written", SOON, async || {
        all(&house.freehold).await.iter().map(|row| row.count).sum::<i64>() == 20
    })
    .await;
    let rows = all(&house.freehold).await;
    assert!(rows.len() <= 2, "a row each: {}", rows.len());
    // A written count is increased by the violations merged into it since.
    house.freehold.violations().record(because("more"));
    house.freehold.violations().flush().await.unwrap();
    for _ in 0..4 {
        house.freehold.violations().record(because("more"));
    }
    wait_until("the count is raised", SOON, async || {
        let rows = all(&house.freehold).await;
        let more = rows.iter().filter(|row| row.violation.reason.as_deref() == Some("more"));
        more.map(|row| row.count).sum::<i64>() == 5
    })
    .await;
}

#[tokio::test]
async fn without_the_database_nothing_waits_and_nothing_is_lost_uncounted() {
    let house = house().await;
    let url = house.database.superuser_url();
    let database = url.rsplit_once('/').unwrap().1.split('?').next().unwrap().to_owned();
    let admin = connect(&admin_url()).await;
    let allow = async |allowed: bool| {
        let sql = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS {allowed}");
        admin.batch_execute(&sql).await.unwrap();
    };
    allow(false).await;
    let end = format!(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
    );
    admin.batch_execute(&end).await.unwrap();
    let began = std::time::Instant::now();
    for n in 0..1500 {
        house.freehold.violations().record(because(&n.to_string()));
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(house.freehold.violations().flush().await.is_err());
    let counts = house.freehold.violations().counts();
    assert_eq!((seen(&counts, ViolationKind::WrongScope), counts.dropped), (1500, 500));
    allow(true).await;
    wait_until("those that waited are written", Duration::from_secs(30), async || {
        stored(&house).await == 1000
    })
    .await;
    assert_eq!(house.freehold.violations().counts().dropped, 500);
}

#[tokio::test]
async fn so_many_are_kept_of_each_kind_and_for_so_long() {
    let house = house().await;
    let sql = house.superuser().await;
    // As if a flood of one kind had come, after one of another and beside some that are old.
    sql.batch_execute(
        "INSERT INTO freehold.violation (id, occurred_at, kind, count)
         SELECT ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, now(),
                CASE n WHEN 1 THEN 'context_refused' ELSE 'forged_token' END, 1
         FROM generate_series(1, 10100) n;
         INSERT INTO freehold.violation (id, occurred_at, kind, count)
         SELECT gen_random_uuid(), now() - interval '91 days', 'wrong_scope', 1 FROM generate_series(1, 5);
         INSERT INTO freehold.violation (id, occurred_at, kind, count)
         VALUES (gen_random_uuid(), now() - interval '89 days', 'wrong_scope', 1)",
    )
    .await
    .unwrap();
    let owner = connect(&house.database.owner_url()).await;
    owner.batch_execute("SELECT freehold.prune_violations()").await.unwrap();
    let rows = sql
        .query(
            "SELECT kind, count(*), min(id::text) FROM freehold.violation GROUP BY kind ORDER BY kind",
            &[],
        )
        .await
        .unwrap();
    let kept: Vec<_> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [("context_refused", 1_i64), ("forged_token", 10_000), ("wrong_scope", 1)];
    assert_eq!(kept, expected);
    assert!(rows[1].get::<_, &str>(2).ends_with("000101"), "the oldest went");
}

#[tokio::test]
async fn the_writer_prunes_after_so_many_rows() {
    let house = house().await;
    let sql = house.superuser().await;
    sql.batch_execute(
        "INSERT INTO freehold.violation (id, occurred_at, kind, count)
         VALUES (gen_random_uuid(), now() - interval '91 days', 'wrong_scope', 1)",
    )
    .await
    .unwrap();
    for n in 0..1000 {
        house.freehold.violations().record(because(&n.to_string()));
    }
    wait_until("the old one is gone", Duration::from_secs(30), async || {
        let old = "SELECT count(*) FROM freehold.violation WHERE occurred_at < now() - interval '90 days'";
        sql.query_one(old, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    assert_eq!(house.freehold.violations().counts().dropped, 0);
}

/// SQL as the app role sees no other tenant's violations in a tenant's context, and cannot delete any in any
/// context.
#[tokio::test]
async fn the_app_role_neither_changes_nor_removes_what_is_written() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    house.freehold.violations().record(because("kept").by(&acme));
    house.freehold.violations().flush().await.unwrap();
    let attacker = house.attacker().await;
    let forge =
        "SELECT freehold.record_violations('[{\"id\": \"00000000-0000-7000-8000-000000000000\",
        \"occurred_at\": \"2026-01-01\", \"kind\": \"wrong_scope\", \"count\": 1}]')";
    let direct = [
        "DELETE FROM freehold.violation",
        "UPDATE freehold.violation SET count = 0",
        "TRUNCATE freehold.violation",
        "INSERT INTO freehold.violation (id, occurred_at, kind, count) VALUES (gen_random_uuid(), now(), 'wrong_scope', 1)",
    ];
    for role in ["viewer", "owner"] {
        house.enter(&attacker, acme.tenant(), role).await;
        for sql in direct.into_iter().chain([
            "SELECT * FROM freehold.violation",
            forge,
            "SELECT freehold.prune_violations()",
        ]) {
            assert_eq!(outcome(&attacker, sql).await, "42501", "as {role}: {sql}");
        }
        attacker.batch_execute("RESET ROLE").await.unwrap();
        for sql in direct.into_iter().chain([forge]) {
            assert_eq!(outcome(&attacker, sql).await, "42501", "as {role}, reset: {sql}");
        }
        attacker.batch_execute("ROLLBACK").await.unwrap();
        let catalog = house.in_catalog(acme.tenant(), role).await;
        let see = catalog.query("SELECT * FROM freehold.violation", &[]).await.unwrap();
        assert!(see.is_empty(), "a tenant's context sees violations");
        for sql in direct.into_iter().chain([forge]) {
            assert_eq!(outcome(&catalog, sql).await, "42501", "as {role} in the catalog: {sql}");
        }
    }
    let attacker = connect(&house.database.catalog_url()).await;
    for sql in ["SELECT * FROM freehold.violation", forge] {
        attacker.batch_execute("BEGIN").await.unwrap();
        assert_eq!(outcome(&attacker, sql).await, "42501", "without a context: {sql}");
        attacker.batch_execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(all(&house.freehold).await.len(), 1);
}

#[tokio::test]
async fn a_tenant_context_lists_none() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    house.freehold.violations().record(because("kept").by(&acme));
    house.freehold.violations().flush().await.unwrap();
    let sql = "SELECT * FROM freehold.violation";
    let error = house.freehold.query(&acme, sql, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
}
