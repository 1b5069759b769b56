//! One way to a schema: the template, an existing tenant and a new one reach the same state, or the migration
//! is refused.

use freehold::{Baseline, ErrorKind, Migration, TenantContext};

use crate::doctor::{examine_all, lines};
use crate::support::{House, connect, house, house_with, notes_and};

fn files(statements: &[&str]) -> Baseline {
    let migrations = (1..).zip(statements);
    let migrations =
        migrations.map(|(version, sql)| Migration::new(version, "file", (*sql).to_owned()));
    Baseline::from_migrations(migrations.collect()).unwrap()
}

/// Every kind of object that a baseline may hold.
const MUSEUM: &str = r#"
CREATE TYPE mood AS ENUM ('low', 'high');
CREATE DOMAIN amount AS int DEFAULT 3 CONSTRAINT positive CHECK (VALUE > 0);
CREATE TYPE address AS (street text, number amount);
CREATE TYPE hours AS RANGE (subtype = time);
CREATE COLLATION german (provider = icu, locale = 'de');
CREATE TEXT SEARCH DICTIONARY plain (TEMPLATE = pg_catalog.simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.simple);
ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH plain;
CREATE FUNCTION slug(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(t) $$;
CREATE SEQUENCE numbers START 100 INCREMENT 10;
CREATE TABLE "Person" (
  id bigint GENERATED ALWAYS AS IDENTITY (START WITH 7) PRIMARY KEY, mood mood NOT NULL DEFAULT 'low', home address,
  gone int, name text COLLATE german UNIQUE DEFERRABLE, slug text GENERATED ALWAYS AS (slug(name)) STORED,
  open hours, tags mood[] NOT NULL DEFAULT '{}', "Odd Name" amount, number int DEFAULT nextval('numbers'), EXCLUDE USING gist (open WITH &&));
ALTER TABLE "Person" DROP COLUMN gone;
ALTER TABLE "Person" ALTER COLUMN name SET STATISTICS 500, ALTER COLUMN name SET STORAGE EXTERNAL;
CREATE INDEX ON "Person" (slug(name)) WHERE id > 5;
CREATE STATISTICS person_facts ON mood, name FROM "Person";
CREATE TABLE post (
  id serial PRIMARY KEY, author bigint REFERENCES "Person" ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  body text CHECK (body <> ''), words tsvector GENERATED ALWAYS AS (to_tsvector('words', body)) STORED) WITH (fillfactor = 70);
ALTER TABLE post ADD CONSTRAINT short CHECK (length(body) < 100) NOT VALID;
ALTER TABLE "Person" ADD COLUMN favourite int REFERENCES post;
CREATE VIEW counted AS SELECT p.id, p.name, count(*) AS posts FROM "Person" p JOIN post ON author = p.id GROUP BY p.id;
CREATE MATERIALIZED VIEW totals AS SELECT sum(posts) AS posts FROM counted;
CREATE UNIQUE INDEX ON totals (posts);
CREATE TABLE event (at date NOT NULL, id int, post int REFERENCES post, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
CREATE TABLE event_2026 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE event_rest PARTITION OF event DEFAULT;
CREATE INDEX ON event (id);
CREATE TABLE animal (id int, name text DEFAULT 'x' CHECK (name <> ''));
CREATE TABLE dog (breed text) INHERITS (animal);
ALTER TABLE dog ALTER COLUMN name SET DEFAULT 'Rex', ALTER COLUMN id SET NOT NULL;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$ BEGIN RETURN NEW; END $$;
REVOKE ALL ON FUNCTION touch() FROM PUBLIC;
CREATE TRIGGER touch BEFORE INSERT ON post FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION touch();
CREATE TRIGGER sleepy BEFORE UPDATE ON post FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE post DISABLE TRIGGER sleepy;
CREATE TRIGGER touch BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION body_of(p post) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT p.body; END;
CREATE PROCEDURE tidy(INOUT n int DEFAULT 1) LANGUAGE sql AS $$ SELECT n $$;
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0', COMBINEFUNC = int4pl, PARALLEL = SAFE);
CREATE FUNCTION same(address, address) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1.street = $2.street $$;
CREATE OPERATOR ~~~ (FUNCTION = same, LEFTARG = address, RIGHTARG = address, COMMUTATOR = ~~~);
CREATE FUNCTION as_text(address) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT $1.street $$;
CREATE RULE quiet AS ON DELETE TO animal DO INSTEAD NOTHING;
CREATE POLICY drafts ON post AS RESTRICTIVE FOR SELECT TO freehold_viewer USING (body <> 'draft');
GRANT SELECT (id, name) ON animal TO freehold_viewer;
GRANT SELECT, INSERT ON dog TO freehold_member;
ALTER TABLE dog REPLICA IDENTITY FULL;
COMMENT ON TABLE post IS 'it''s written'; COMMENT ON COLUMN post.body IS 'text'; COMMENT ON FUNCTION slug(text) IS 'short';
INSERT INTO "Person" (name, home) VALUES ('Ann', ('A', 1)), ('O''Neil \ "x"', NULL);
INSERT INTO post (author, body) SELECT id, 'hello' FROM "Person";
INSERT INTO event VALUES ('2026-05-05', 1, 1), ('2030-01-01', 2, 2);
INSERT INTO dog VALUES (1, 'Rex', 'mutt');
REFRESH MATERIALIZED VIEW totals;
"#;

async fn count(house: &House, tenant: &TenantContext, sql: &str) -> i64 {
    house.freehold.query(tenant, sql, &[]).await.unwrap()[0].get(0)
}

#[tokio::test]
async fn a_new_tenant_is_what_the_template_is_whatever_kinds_of_objects_it_holds() {
    let house = house().await;
    house.tenant("old").await;
    let report = house.migrate(&notes_and(&[MUSEUM])).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (1, 0), "{:?}", report.failed);
    let new = house.tenant("new").await;
    let doctor = examine_all(&house.database).await;
    let drift: Vec<_> =
        lines(&doctor).into_iter().filter(|line| line.starts_with("FH71")).collect();
    assert_eq!(drift, [""; 0], "compared by other means, old and new are the same");

    assert_eq!(count(&house, &new, "SELECT count(*) FROM post").await, 2);
    assert_eq!(count(&house, &new, "SELECT count(*) FROM event_2026").await, 1);
    assert_eq!(count(&house, &new, "SELECT count(*) FROM ONLY animal").await, 0);
    let next = r#"INSERT INTO "Person" (name) VALUES ('Bob') RETURNING id"#;
    assert_eq!(count(&house, &new, next).await, 9, "a sequence goes on where the template's is");
    let number = r#"SELECT number::int8 FROM "Person" WHERE name = 'Bob'"#;
    assert_eq!(count(&house, &new, number).await, 120);
    let name =
        r#"SELECT count(*) FROM "Person" WHERE name = 'O''Neil \ "x"' AND slug = 'o''neil \ "x"'"#;
    assert_eq!(count(&house, &new, name).await, 1);

    let heir = "WITH bred AS (INSERT INTO dog (id, breed) VALUES (2, 'x') RETURNING name) SELECT count(*) FROM bred WHERE name = 'Rex'";
    assert_eq!(count(&house, &new, heir).await, 1);

    // A difference would also be found by the comparison after the next migration.
    let report = house.migrate(&notes_and(&[MUSEUM, "DROP VIEW counted CASCADE"])).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (2, 0), "{:?}", report.failed);
}

#[tokio::test]
async fn what_works_file_by_file_in_the_template_makes_new_tenants_too() {
    for baseline in [
        [
            "CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t (m mood NOT NULL DEFAULT 'a')",
            "ALTER TYPE mood ADD VALUE 'b'",
            "ALTER TABLE t ALTER m SET DEFAULT 'b'",
        ],
        [
            "CREATE TABLE plan (id int PRIMARY KEY); INSERT INTO plan VALUES (1);
             CREATE TABLE account (id int PRIMARY KEY, plan int NOT NULL REFERENCES plan DEFERRABLE INITIALLY DEFERRED)",
            "INSERT INTO account VALUES (1, 1)",
            "ALTER TABLE account ADD COLUMN note text",
        ],
        [
            "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)",
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no row may change'; END $$;
             CREATE TRIGGER f BEFORE INSERT OR UPDATE ON a FOR EACH ROW EXECUTE FUNCTION f()",
            "ALTER TABLE a ADD CONSTRAINT later CHECK (id < 10)",
        ],
    ] {
        let house = house_with(&files(&baseline[..1])).await;
        house.tenant("old").await;
        let report = house.migrate(&files(&baseline)).await.unwrap();
        assert_eq!((report.migrated, report.failed.len()), (1, 0), "{:?}", report.failed);
        house.tenant("new").await;
        let doctor = examine_all(&house.database).await;
        assert_eq!(lines(&doctor), [""; 0], "{}", baseline[1]);
    }
}

#[tokio::test]
async fn a_migration_that_tenants_would_lack_something_of_is_not_adopted() {
    let first = "CREATE TABLE users (id int PRIMARY KEY)";
    for (second, lacking) in [
        (
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM information_schema.columns WHERE table_name = 'users' AND column_name = 'plan') THEN
               ALTER TABLE users ADD COLUMN plan text NOT NULL DEFAULT 'free'; END IF; END $$",
            "table users lacks: plan text DEFAULT 'free'::text NOT NULL",
        ),
        (
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'positive') THEN
               ALTER TABLE users ADD CONSTRAINT positive CHECK (id > 0); END IF; END $$",
            "table users lacks: CONSTRAINT positive CHECK",
        ),
        (
            "DO $$ BEGIN IF current_schema() = 'freehold_template' THEN CREATE INDEX only_here ON users (id); END IF; END $$",
            "index only_here is missing",
        ),
        (
            "ALTER TABLE users ADD COLUMN former int; DO $$ BEGIN IF EXISTS (SELECT FROM pg_namespace WHERE nspname = current_schema() AND nspname LIKE 'tenant%') THEN
               ALTER TABLE users DROP CONSTRAINT users_pkey; END IF; END $$",
            "table users lacks: CONSTRAINT users_pkey PRIMARY KEY (id)",
        ),
    ] {
        let house = house_with(&files(&[first])).await;
        let old = house.tenant("old").await;
        let refused = house.migrate(&files(&[first, second])).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Migration);
        let text = refused.to_string();
        assert!(text.starts_with("0002_file: ") && text.contains(lacking), "{text}");
        assert!(text.contains("current_schema()"), "{text}");
        let status = house.freehold.migrations().status().await.unwrap();
        assert_eq!((status.version, status.tenants), (1, vec![(1, 1)]), "nothing was adopted");
        assert!(house.freehold.query(&old, "SELECT plan FROM users", &[]).await.is_err());
        house.tenant("new").await;
        assert_eq!(lines(&examine_all(&house.database).await), [""; 0]);
    }
}

#[tokio::test]
async fn a_tenant_that_is_not_what_the_template_is_fails_with_the_difference() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.script(&acme, "ALTER TABLE notes ALTER COLUMN body DROP NOT NULL").await;
    let baseline =
        notes_and(&["CREATE TABLE extra (id int); ALTER TABLE notes ADD pinned boolean"]);
    let report = house.migrate(&baseline).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (1, 1));
    let failure = &report.failed[0];
    assert_eq!((failure.tenant.as_str(), failure.version), ("acme", 2));
    assert!(failure.error.contains("table notes lacks: body text NOT NULL"), "{}", failure.error);
    assert!(house.freehold.query(&acme, "SELECT FROM extra", &[]).await.is_err(), "nothing of it");
    house.freehold.query(&globex, "SELECT FROM extra", &[]).await.unwrap();

    house.script(&acme, "ALTER TABLE notes ALTER COLUMN body SET NOT NULL").await;
    assert_eq!(house.migrate(&baseline).await.unwrap().migrated, 1);
}

#[tokio::test]
async fn a_failure_that_cannot_be_recorded_holds_nobody_up() {
    let house = house().await;
    let (acme, globex) = house.acme_and_globex().await;
    house.script(&acme, "CREATE TABLE extra (id int)").await;
    let refuse = "CREATE FUNCTION freehold.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full'; END $$";
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON freehold.migration_failure FOR EACH ROW EXECUTE FUNCTION freehold.refuse()";
    house.superuser().await.batch_execute(&format!("{refuse}; {trigger}")).await.unwrap();
    let report = house.migrate(&notes_and(&["CREATE TABLE extra (id int)"])).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (1, 1));
    assert_eq!(report.failed[0].tenant, "acme");
    house.freehold.query(&globex, "SELECT FROM extra", &[]).await.unwrap();
}

#[tokio::test]
async fn a_table_that_only_one_tenant_uncovers_or_loses_is_missed_there() {
    for harm in ["ALTER TABLE notes NO FORCE ROW LEVEL SECURITY", "DROP TABLE notes CASCADE"] {
        let house = house().await;
        let (acme, globex) = house.acme_and_globex().await;
        house.freehold.query(&acme, "INSERT INTO notes (body) VALUES ('x')", &[]).await.unwrap();
        let only_there = format!(
            "CREATE TABLE extra (id int);
             DO $$ BEGIN IF EXISTS (SELECT FROM notes WHERE body = 'x') THEN {harm}; END IF; END $$"
        );
        let report = house.migrate(&notes_and(&[&only_there])).await.unwrap();
        assert_eq!((report.migrated, report.failed.len()), (1, 1), "{harm}: {:?}", report.failed);
        let error = &report.failed[0].error;
        assert!(error.contains("table notes is missing, or not protected any more"), "{error}");
        house.freehold.query(&globex, "SELECT FROM extra", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn the_rehearsals_tenant_is_gone_after_a_run_whatever_a_killed_one_has_left() {
    let house = house().await;
    let owner = connect(&house.database.owner_url()).await;
    let schema = "tenant_8ba29bac980a80dbb052f194fe00ffc5";
    owner
        .batch_execute(&format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.notes ()"))
        .await
        .unwrap();
    let is_there = async || {
        let sql = "SELECT to_regnamespace($1) IS NOT NULL";
        owner.query_one(sql, &[&schema]).await.unwrap().get::<_, bool>(0)
    };
    let two = ["ALTER TABLE notes ADD a int", "ALTER TABLE notes ADD b int"];
    assert_eq!(house.migrate(&notes_and(&two)).await.unwrap().adopted.len(), 2);
    assert!(!is_there().await);
    let four = [
        "ALTER TABLE notes ADD a int",
        "ALTER TABLE notes ADD b int",
        "ALTER TABLE notes ADD c int",
        "nonsense",
    ];
    house.migrate(&notes_and(&four)).await.unwrap_err();
    assert!(!is_there().await, "of the third, which was adopted");
    let tenant = house.tenant("new").await;
    house.freehold.query(&tenant, "SELECT a, b, c FROM notes", &[]).await.unwrap();
}

#[tokio::test]
async fn what_a_tenant_made_at_run_time_is_in_no_migrations_way() {
    let house = house().await;
    let (acme, _) = house.acme_and_globex().await;
    house
        .script(&acme, "CREATE INDEX mine ON notes (body); CREATE TABLE own (id int); ALTER TABLE notes ADD COLUMN own int")
        .await;
    let report = house.migrate(&notes_and(&["ALTER TABLE notes ADD COLUMN pinned boolean"])).await;
    let report = report.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (2, 0), "{:?}", report.failed);
}

#[tokio::test]
async fn what_a_migration_drops_must_be_gone_from_every_tenant() {
    let first = "CREATE TABLE a (id int, n int, CONSTRAINT c CHECK (n > 0)); CREATE INDEX i ON a (n); CREATE VIEW v AS SELECT 1 AS one";
    for (second, remains) in [
        ("ALTER TABLE a DROP COLUMN n", "table a still has: n integer"),
        ("ALTER TABLE a DROP CONSTRAINT c", "table a still has: CONSTRAINT c CHECK"),
        ("DROP INDEX i", "index i is still there"),
        ("DROP VIEW v", "view v is still there"),
    ] {
        let house = house_with(&files(&[first])).await;
        house.tenant("old").await;
        let only_here = format!(
            "DO $$ BEGIN IF current_schema() = 'freehold_template' THEN {second}; END IF; END $$"
        );
        let refused = house.migrate(&files(&[first, &only_here])).await.unwrap_err().to_string();
        assert!(refused.contains(remains), "{refused}");
    }
}

#[tokio::test]
async fn seed_rows_are_the_templates_but_what_comes_out_differently_is_made_anew() {
    let seed = "CREATE TABLE plan (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text, made timestamptz DEFAULT now(), price int);
                INSERT INTO plan (name, price) VALUES ('free', 0), ('pro', 20);
                INSERT INTO plan VALUES ('00000000-0000-0000-0000-000000000001', 'fixed', '2020-01-01 00:00Z', 7)";
    let raise = "UPDATE plan SET price = price + 1; CREATE TABLE other (id int)";
    let house = house_with(&files(&[seed])).await;
    let early = house.tenant("early").await;
    house.migrate(&files(&[seed, raise])).await.unwrap();
    let (late, later) = (house.tenant("late").await, house.tenant("later").await);
    let mut ids = std::collections::HashSet::new();
    for tenant in [&early, &late, &later] {
        let sql =
            "SELECT id::text, name, price, made = '2020-01-01 00:00Z' FROM plan ORDER BY price";
        let rows = house.freehold.query(tenant, sql, &[]).await.unwrap();
        let plans: Vec<(&str, i32)> = rows.iter().map(|row| (row.get(1), row.get(2))).collect();
        assert_eq!(plans, [("free", 1), ("fixed", 8), ("pro", 21)]);
        assert_eq!(rows[1].get::<_, &str>(0), "00000000-0000-0000-0000-000000000001");
        assert!(rows[1].get::<_, bool>(3));
        ids.extend([0, 2].map(|at| rows[at].get::<_, &str>(0).to_owned()));
    }
    assert_eq!(ids.len(), 6, "no tenant has another's id, nor the template's");
    let template = house.superuser().await;
    let rows = template.query("SELECT id::text FROM freehold_template.plan", &[]).await.unwrap();
    assert!(rows.iter().all(|row| !ids.contains(row.get::<_, &str>(0))));
    let made = "SELECT count(*) FROM plan WHERE made > now() - interval '1 hour'";
    assert_eq!(count(&house, &later, made).await, 2);
}

#[tokio::test]
async fn a_file_may_name_the_numbers_that_sequences_give_its_rows() {
    let tables = "CREATE TABLE owner (id serial PRIMARY KEY, name text);
        CREATE TABLE repo (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner int REFERENCES owner)";
    let seed = "INSERT INTO owner (name) VALUES ('a'), ('b'); INSERT INTO repo (owner) VALUES (1), (2), (2)";
    let more = "INSERT INTO owner (name) VALUES ('c'); INSERT INTO repo (owner) VALUES (3)";
    let house = house_with(&files(&[tables])).await;
    let old = house.tenant("old").await;
    // A file that fails at its end has advanced the sequences too.
    let broken = format!("{seed}; SELECT 1 / (SELECT count(*) - 3 FROM repo)");
    house.migrate(&files(&[tables, &broken])).await.unwrap_err();
    let report = house.migrate(&files(&[tables, seed, more])).await.unwrap();
    assert_eq!((report.adopted.len(), report.failed.len()), (2, 0), "{:?}", report.failed);
    for tenant in [&old, &house.tenant("new").await] {
        let sql = "SELECT count(*) FROM repo JOIN owner ON owner.id = repo.owner WHERE owner.id <= 3 AND repo.id <= 4";
        assert_eq!(count(&house, tenant, sql).await, 4);
    }
}

/// As applications' migrations write them: into columns that only the application fills otherwise.
#[tokio::test]
async fn the_time_and_random_ids_are_made_anew_without_a_default() {
    let tables = "CREATE TABLE org (id text PRIMARY KEY, made timestamp(3) NOT NULL, seen timestamptz);
        CREATE TABLE member (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org text REFERENCES org, at timestamptz);
        CREATE TABLE likes (member uuid REFERENCES member);";
    let seed = "INSERT INTO org VALUES (gen_random_uuid()::text, now() AT TIME ZONE 'UTC', now());
        INSERT INTO member (org, at) SELECT id, seen FROM org; INSERT INTO likes SELECT id FROM member";
    let more = "UPDATE org SET made = CURRENT_TIMESTAMP; ALTER TABLE org ALTER made TYPE timestamptz; UPDATE member SET at = NULL WHERE false";
    let last = "ALTER TABLE org ADD COLUMN plan text DEFAULT 'free'; UPDATE org SET plan = 'old'";
    let house = house_with(&files(&[tables, seed])).await;
    let old = house.tenant("old").await;
    let report = house.migrate(&files(&[tables, seed, more, last])).await.unwrap();
    assert_eq!((report.adopted.len(), report.failed.len()), (2, 0), "{:?}", report.failed);
    let started = "SELECT extract(epoch FROM now())::float8";
    let started: f64 = house.superuser().await.query_one(started, &[]).await.unwrap().get(0);
    let (new, other) = (house.tenant("new").await, house.tenant("other").await);
    let mut ids = std::collections::HashSet::new();
    for tenant in [&old, &new, &other] {
        let sql = "SELECT org.id, member.id::text, extract(epoch FROM made)::float8, extract(epoch FROM seen)::float8
            FROM org JOIN member ON member.org = org.id JOIN likes ON likes.member = member.id";
        let rows = house.freehold.query(tenant, sql, &[]).await.unwrap();
        assert_eq!(rows.len(), 1);
        ids.extend([0, 1].map(|at| rows[0].get::<_, String>(at)));
        let is_new = [2, 3].map(|at| rows[0].get::<_, f64>(at) >= started - 0.01);
        assert_eq!(is_new, [tenant.tenant() != old.tenant(); 2]);
    }
    assert_eq!(ids.len(), 6, "no tenant has another's ids");
}

/// A tenant that is created gets all of them, though CREATE TABLE would make one of two.
#[tokio::test]
async fn constraints_about_the_same_columns_are_all_there() {
    let table = "CREATE TABLE loader (id int PRIMARY KEY, name text, body text UNIQUE);
        ALTER TABLE loader ADD CONSTRAINT b UNIQUE (name), ADD CONSTRAINT a UNIQUE (name), ADD CONSTRAINT id_too UNIQUE (id);
        CREATE TABLE mod (loader text REFERENCES loader (name))";
    let house = house_with(&files(&[table])).await;
    let (old, add) =
        (house.tenant("old").await, "ALTER TABLE loader ADD CONSTRAINT \"A\" UNIQUE (body)");
    house.migrate(&files(&[table, add])).await.unwrap();
    let new = house.tenant("new").await;
    let sql = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'loader'::regclass AND contype IN ('p', 'u')";
    for tenant in [&old, &new] {
        assert_eq!(count(&house, tenant, sql).await, 6);
    }
}

/// A tenant's table has its free space at other places than the template's after the first file.
#[tokio::test]
async fn rows_of_two_runs_are_compared_in_any_order() {
    let seed = "CREATE TABLE model (id text PRIMARY KEY, made timestamptz NOT NULL DEFAULT now());
        INSERT INTO model SELECT 'm' || n FROM generate_series(1, 40) n; DELETE FROM model WHERE id < 'm2'";
    let more = "CREATE TABLE price (id uuid DEFAULT gen_random_uuid(), model text REFERENCES model);
        INSERT INTO price (model) SELECT id FROM model ORDER BY random(); INSERT INTO model VALUES ('m10')";
    let house = house_with(&files(&[seed])).await;
    let vacuum = house.superuser().await;
    vacuum.batch_execute("VACUUM freehold_template.model").await.unwrap();
    house.migrate(&files(&[seed, more])).await.unwrap();
    let new = house.tenant("new").await;
    assert_eq!(
        count(&house, &new, "SELECT count(*) FROM price JOIN model ON model.id = model").await,
        29
    );
}

#[tokio::test]
async fn a_seed_row_that_no_default_can_make_anew_is_refused() {
    let house = house().await;
    for (sql, column) in [
        (
            "CREATE TABLE secret (name text, value text); INSERT INTO secret VALUES ('key', md5(random()::text))",
            "column value of table secret",
        ),
        (
            "CREATE TABLE secret (value text DEFAULT 'none (at all)'::varchar(20)); INSERT INTO secret VALUES (md5(random()::text))",
            "column value of table secret",
        ),
        (
            "CREATE TABLE document (body jsonb); INSERT INTO document VALUES (jsonb_build_object('id', gen_random_uuid()))",
            "column body of table document",
        ),
        (
            "CREATE TABLE stamp (at timestamptz); INSERT INTO stamp VALUES (now() + interval '1 year')",
            "column at of table stamp",
        ),
        (
            "CREATE TABLE luck (n int); INSERT INTO luck SELECT 1 FROM generate_series(1, 1 + (random() * 1000000)::int)",
            "table luck gets other rows",
        ),
    ] {
        let refused = house.migrate(&notes_and(&[sql])).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Migration);
        let text = refused.to_string();
        assert!(text.starts_with("0002_later: ") && text.contains(column), "{text}");
    }
    assert_eq!(house.freehold.migrations().status().await.unwrap().version, 1);
}

#[tokio::test]
async fn what_no_statement_can_make_for_each_tenant_is_refused_by_its_name() {
    let house = house().await;
    for (sql, named) in [
        (
            "CREATE TABLE t (a int DEFAULT 1); CREATE FUNCTION f(t) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; ALTER TABLE t ADD CHECK (f(t.*) = 1)",
            "in a circle",
        ),
        (
            "CREATE TYPE pair AS (a int); CREATE TABLE typed OF pair",
            "table freehold_template.typed",
        ),
    ] {
        let refused = house.migrate(&notes_and(&[sql])).await.unwrap_err();
        assert!(refused.to_string().contains(named), "{refused}");
    }
}

#[tokio::test]
async fn after_an_upgrade_of_postgresql_the_template_is_described_anew() {
    let house = house().await;
    house.tenant("acme").await;
    let superuser = house.superuser().await;
    let age = "UPDATE freehold.baseline SET snapshot = jsonb_set(jsonb_set(snapshot::jsonb, '{server}', '9'), '{objects}', '[]')::text";
    superuser.batch_execute(age).await.unwrap();
    let report = house.migrate(&notes_and(&["CREATE TABLE extra (id int)"])).await.unwrap();
    assert_eq!((report.migrated, report.failed.len()), (1, 0), "{:?}", report.failed);
}
