//! Slow queries: recorded with their plans and without values, and visible only to their tenant and
//! operators.

use std::time::Duration;

use freehold::control::slow_queries::SlowStatement;
use freehold::testing::{TestDatabase, create_tenant};
use freehold::{
    Actor, ErrorKind, Freehold, InsightOptions, Origin, PoolLimits, Role, SealMode, TenantContext,
    with_origin,
};

use crate::support::{
    House, admin_url, connect, drop_after_polls, notes_and, notes_baseline, operator, options,
    outcome, pooler, wait_until,
};

const SOON: Duration = Duration::from_secs(60);

/// A fleet in which a statement of this duration is slow.
async fn house_slow_after(database: TestDatabase, after: Duration, connections: usize) -> House {
    let mut options = options(&database);
    options.insight = InsightOptions { slow_after: Some(after), ..InsightOptions::default() };
    let wait_max = Duration::from_secs(10);
    options.app_pool = PoolLimits { connections_max: connections, wait_max };
    let freehold = Freehold::connect(&options).await.unwrap();
    House { freehold, database }
}

/// A fleet in which every statement is slow.
async fn house_where_all_is_slow() -> House {
    let database = TestDatabase::create(&admin_url(), &notes_baseline()).await.unwrap();
    house_slow_after(database, Duration::ZERO, 4).await
}

async fn list(house: &House, of: &TenantContext) -> Vec<SlowStatement> {
    let tenant = Some(of.tenant());
    house.freehold.slow_queries().list(&operator(), tenant, None, None).await.unwrap()
}

/// The tenant's slow statement that begins so, once it has a plan.
async fn planned(house: &House, of: &TenantContext, beginning: &str) -> SlowStatement {
    let mut found = None;
    wait_until(&format!("{beginning}… has its plan"), SOON, async || {
        let list = list(house, of).await;
        found = list.into_iter().find(|s| s.statement.starts_with(beginning) && s.plan.is_some());
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Waits until as many plans were asked for as there are slow statements.
async fn all_asked(house: &House, plans: u64) {
    wait_until("plans were asked for", SOON, async || {
        let counts = house.freehold.slow_queries().counts();
        counts.plans + counts.plans_failed >= plans
    })
    .await;
}

/// All that the catalog holds of slow queries, as text.
async fn stored(house: &House) -> String {
    let superuser = house.superuser().await;
    let rows = superuser.query("SELECT s::text FROM freehold.slow_query s", &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

#[tokio::test]
async fn a_slow_statement_is_kept_with_its_plan_and_none_of_its_values() {
    for mode in [SealMode::Plain, SealMode::Portable, SealMode::Best] {
        let database = TestDatabase::create(&admin_url(), &notes_baseline()).await.unwrap();
        database.change_seal(mode).await.unwrap();
        let house = house_slow_after(database, Duration::ZERO, 4).await;
        assert_eq!(house.freehold.seal_mode(), mode);
        let acme = house.tenant("acme").await;
        let insert = "INSERT INTO notes (body) VALUES ($1), ('SECRET in the text')";
        house.freehold.query(&acme, insert, &[&"SECRET parameter"]).await.unwrap();
        let select = "SELECT n.body FROM notes n /* SECRET comment */
            WHERE n.body = $$SECRET in the text$$ AND n.body <> $1 AND n.id < 424242";
        let work = house.freehold.query(&acme, select, &[&"SECRET parameter"]);
        let origin = Origin { request_id: Some("request-7".into()), from: None };
        assert_eq!(with_origin(origin, work).await.unwrap().len(), 1);

        let slow = planned(&house, &acme, "SELECT n.body").await;
        let text = "SELECT n.body FROM notes n WHERE n.body = ? AND n.body <> $1 AND n.id < ?";
        assert_eq!((slow.statement.as_str(), slow.slug.as_str()), (text, "acme"));
        assert_eq!((slow.count, slow.failed, slow.slowest_rows), (1, 0, 1));
        assert!(slow.slowest_us > 0 && slow.total_us == slow.slowest_us, "{slow:?}");
        assert_eq!(slow.slowest_request_id.as_deref(), Some("request-7"));
        assert_eq!(slow.table, "(sql)");
        let plan = slow.plan_lines().join("\n");
        for part in [" on notes", "(body <> $1)", "(body = ?::text)", "(id < ?)", "InitPlan"] {
            assert!(plan.contains(part), "{mode:?}: no {part} in\n{plan}");
        }
        planned(&house, &acme, "INSERT INTO notes").await;
        let stored = stored(&house).await;
        for value in ["SECRET", "424242"] {
            assert!(!stored.contains(value), "{mode:?}: {value} in {stored}");
        }
    }
}

#[tokio::test]
async fn a_plan_that_could_not_be_written_is_written_later() {
    let house = house_where_all_is_slow().await;
    let acme = house.tenant("acme").await;
    let superuser = house.superuser().await;
    let renamed = async |from: &str, to: &str| {
        let sql = format!("ALTER FUNCTION freehold.{from} RENAME TO {to}");
        superuser.batch_execute(&sql).await.unwrap();
    };
    renamed("record_slow_plan", "record_no_plan").await;
    // The second statement is written in the round after the first one's plan failed to be written.
    for statement in ["SELECT 'first'", "SELECT 2 AS second"] {
        house.freehold.query(&acme, statement, &[]).await.unwrap();
        let beginning = if statement.contains("first") { "SELECT ?" } else { "SELECT ? AS" };
        wait_until(statement, SOON, async || {
            list(&house, &acme).await.iter().any(|slow| slow.statement.starts_with(beginning))
        })
        .await;
    }
    renamed("record_no_plan", "record_slow_plan").await;
    planned(&house, &acme, "SELECT ?").await;
}

#[tokio::test]
async fn to_ask_for_a_plan_runs_nothing() {
    let later = "CREATE SEQUENCE tickets;
        CREATE TABLE marks (id int);
        CREATE FUNCTION mark() RETURNS int LANGUAGE sql AS 'INSERT INTO marks VALUES (1) RETURNING id';
        CREATE FUNCTION marked() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM mark(); RETURN NEW; END';
        CREATE TRIGGER marked AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION marked();";
    let database = TestDatabase::create(&admin_url(), &notes_and(&[later])).await.unwrap();
    let house = house_slow_after(database, Duration::ZERO, 4).await;
    let acme = house.tenant("acme").await;
    let statements = [
        "INSERT INTO notes (body) VALUES ('once')",
        "UPDATE notes SET body = body || '!' RETURNING id",
        "SELECT mark() + freehold.next_value('tickets')",
        "WITH gone AS (DELETE FROM marks WHERE id = 2 RETURNING *) SELECT count(*) FROM gone",
    ];
    for sql in statements {
        house.freehold.query(&acme, sql, &[]).await.unwrap();
    }
    all_asked(&house, statements.len() as u64).await;
    assert_eq!(house.freehold.slow_queries().counts().plans, statements.len() as u64);
    assert_eq!(house.bodies(&acme).await, ["once!"]);
    let schema = acme.tenant().schema();
    let sql =
        format!("SELECT count(*), (SELECT last_value FROM {schema}.tickets) FROM {schema}.marks");
    let row = house.superuser().await.query_one(&sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 1));
}

#[tokio::test]
async fn to_ask_for_a_plan_leaves_nothing_on_the_session() {
    let database = TestDatabase::create(&admin_url(), &notes_baseline()).await.unwrap();
    let house = house_slow_after(database, Duration::ZERO, 1).await;
    let acme = house.tenant("acme").await;
    house.script(&acme, "CREATE PROCEDURE idle() LANGUAGE sql AS ''").await;
    house.freehold.query(&acme, "SELECT count(*) FROM notes", &[]).await.unwrap();
    // A statement that fails in planning, and one without any plan.
    house.freehold.query(&acme, "SELECT 1/0 FROM notes", &[]).await.unwrap_err();
    house.freehold.query(&acme, "CALL idle()", &[]).await.unwrap();
    all_asked(&house, 3).await;
    assert_eq!(house.freehold.slow_queries().counts().plans_failed, 2);
    let admin = house.superuser().await;
    admin
        .batch_execute("GRANT EXECUTE ON FUNCTION pg_prepared_statement() TO PUBLIC")
        .await
        .unwrap();
    let sql = "SELECT count(*) FILTER (WHERE name LIKE 'explain%') AS left, count(*) AS all,
        current_setting('plan_cache_mode') AS mode, current_setting('statement_timeout') AS timeout
        FROM pg_prepared_statements";
    let row = &house.freehold.query(&acme, sql, &[]).await.unwrap()[0];
    assert_eq!((row.get::<_, i64>("left"), row.get::<_, &str>("mode")), (0, "auto"));
    assert_ne!(row.get::<_, &str>("timeout"), "1s");
    assert!(row.get::<_, i64>("all") > 0 || pooler().is_some(), "nothing could be seen");
}

#[tokio::test]
async fn one_tenants_slow_queries_are_never_shown_to_another() {
    let house = house_where_all_is_slow().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.freehold.query(&acme, "SELECT 'acme' AS acmes_own", &[]).await.unwrap();
    planned(&house, &acme, "SELECT ? AS acmes_own").await;

    let owner = |of: &TenantContext| {
        let actor = Actor { role: Role::Owner, ..of.actor() };
        house.freehold.tenant_context_as(of.tenant(), actor)
    };
    let (acmes, globexs) = (owner(&acme).await.unwrap(), owner(&globex).await.unwrap());
    let own = house.freehold.slow_queries().list_own(&acmes, None, None).await.unwrap();
    assert!(own.iter().any(|s| s.statement.contains("acmes_own")), "{own:?}");
    let theirs = house.freehold.slow_queries().list_own(&globexs, None, None).await.unwrap();
    assert!(!theirs.is_empty() && theirs.iter().all(|s| s.tenant == globex.tenant()), "{theirs:?}");
    for role in [Role::Viewer, Role::Member, Role::Admin] {
        let actor = Actor { role, ..acme.actor() };
        let context = house.freehold.tenant_context_as(acme.tenant(), actor).await.unwrap();
        let refused =
            house.freehold.slow_queries().list_own(&context, None, None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden, "{role:?}");
    }

    // Nor by SQL: a tenant's transaction sees none, and the catalog shows only those of the context's tenant.
    let attacker = house.attacker().await;
    house.enter(&attacker, globex.tenant(), "owner").await;
    let select = "SELECT * FROM freehold.slow_query";
    assert_eq!(outcome(&attacker, select).await, "42501");
    attacker.batch_execute("RESET ROLE").await.unwrap();
    assert_eq!(outcome(&attacker, select).await, "42501");
    let attacker = house.in_catalog(globex.tenant(), "owner").await;
    let seen = attacker.query("SELECT DISTINCT tenant_id FROM freehold.slow_query", &[]).await;
    let seen: Vec<uuid::Uuid> = seen.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, [globex.tenant().as_uuid()]);
    for sql in ["UPDATE freehold.slow_query SET count = 1", "DELETE FROM freehold.slow_query"] {
        assert_eq!(outcome(&attacker, sql).await, "42501", "{sql}");
    }
    attacker.batch_execute("ROLLBACK; BEGIN").await.unwrap();
    assert_eq!(outcome(&attacker, select).await, "42501", "without a context");
}

#[tokio::test]
async fn a_statement_that_is_given_up_is_slow_too_and_only_what_took_so_long() {
    let database = TestDatabase::create(&admin_url(), &notes_baseline()).await.unwrap();
    let house = house_slow_after(database, Duration::from_millis(700), 4).await;
    let acme = house.tenant("acme").await;
    house.freehold.query(&acme, "SELECT count(*) FROM notes", &[]).await.unwrap();
    let nap = house.freehold.query(&acme, "SELECT pg_sleep(30), 'SECRET'", &[]);
    tokio::time::timeout(Duration::from_secs(2), nap).await.unwrap_err();
    let slow = planned(&house, &acme, "SELECT pg_sleep(?)").await;
    assert_eq!((slow.count, slow.failed, slow.slowest_rows), (1, 1, 0));
    assert!(slow.slowest_us >= 1_000_000, "{slow:?}");
    let list = list(&house, &acme).await;
    assert!(list.iter().all(|s| !s.statement.contains("count")), "{list:?}");
}

#[tokio::test]
async fn a_pipeline_is_one_slow_query() {
    let house = house_where_all_is_slow().await;
    let acme = house.tenant("acme").await;
    let pieces: [(&str, freehold::Params<'_>); 2] =
        [("INSERT INTO notes (body) VALUES ('SECRET')", &[]), ("SELECT * FROM notes", &[])];
    house.freehold.pipeline(&acme, &pieces).await.unwrap();
    house.freehold.slow_queries().flush().await.unwrap();
    let list = list(&house, &acme).await;
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0].statement, "INSERT INTO notes (body) VALUES (?); SELECT * FROM notes");
    assert_eq!((list[0].slowest_rows, list[0].plan.is_none()), (2, true));
}

#[tokio::test]
async fn servers_add_to_the_same_statements_and_old_ones_and_too_many_are_forgotten() {
    let house = house_where_all_is_slow().await;
    let other = house_slow_after_beside(&house).await;
    let acme = house.tenant("acme").await;
    for freehold in [&house.freehold, &other] {
        freehold.query(&acme, "SELECT count(*) FROM notes WHERE id = 3", &[]).await.unwrap();
        freehold.slow_queries().flush().await.unwrap();
    }
    let both = list(&house, &acme).await;
    assert_eq!((both.len(), both[0].count), (1, 2), "{both:?}");
    assert!(both[0].slowest_us <= both[0].total_us && both[0].first_at <= both[0].last_at);

    let owner = connect(&house.database.owner_url()).await;
    let entry = |tenant: String| {
        format!(
            "SELECT freehold.record_slow_queries(jsonb_agg(jsonb_build_object('tenant_id', '{tenant}',
               'shape', md5(n::text), 'table_name', 't', 'statement', 's', 'count', 1, 'failed', 0, 'total_us', 1,
               'first_at', now() - n * interval '1 hour', 'last_at', now() - n * interval '1 hour', 'slowest_us', 1,
               'slowest_rows', 1, 'slowest_at', now()))) FROM generate_series(150, 250) n"
        )
    };
    owner.batch_execute(&entry(acme.tenant().to_string())).await.unwrap();
    let gone = "00000000-0000-4000-8000-000000000009".to_owned();
    owner.batch_execute(&entry(gone)).await.unwrap();
    let count = async || {
        let row = owner.query_one(
            "SELECT count(*), count(*) FILTER (WHERE count = 2) FROM freehold.slow_query",
            &[],
        );
        let row = row.await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    assert_eq!(count().await, (50, 1), "the 50 that were slow last");
    owner.batch_execute("SELECT freehold.prune_slow_queries()").await.unwrap();
    assert_eq!(count().await, (1 + 168 - 150, 1), "of seven days");
}

async fn house_slow_after_beside(house: &House) -> Freehold {
    let mut options = options(&house.database);
    options.insight =
        InsightOptions { slow_after: Some(Duration::ZERO), ..InsightOptions::default() };
    Freehold::connect(&options).await.unwrap()
}

#[tokio::test]
async fn a_suspended_tenants_statements_are_not_planned() {
    let house = house_where_all_is_slow().await;
    let acme = house.tenant("acme").await;
    house.freehold.tenants().suspend(&operator(), acme.tenant()).await.unwrap();
    // Its context is from before.
    house.freehold.query(&acme, "SELECT count(*) FROM notes", &[]).await.unwrap();
    all_asked(&house, 1).await;
    let counts = house.freehold.slow_queries().counts();
    assert_eq!((counts.plans, counts.plans_failed), (0, 1));
}

#[tokio::test]
async fn without_a_limit_nothing_is_slow() {
    let database = TestDatabase::create(&admin_url(), &notes_baseline()).await.unwrap();
    let mut options = options(&database);
    options.insight = InsightOptions { slow_after: None, ..InsightOptions::default() };
    let freehold = Freehold::connect(&options).await.unwrap();
    let (_, acme) = create_tenant(&freehold, "acme").await.unwrap();
    freehold.query(&acme, "SELECT count(*) FROM notes", &[]).await.unwrap();
    let _ = drop_after_polls(1, freehold.query(&acme, "SELECT pg_sleep(1)", &[])).await;
    freehold.slow_queries().flush().await.unwrap();
    assert_eq!(freehold.slow_queries().counts().seen, 0);
}
