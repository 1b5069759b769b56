//! Folders of migrations of other tools: which files are run, in which order, and what is refused.

use freehold::{Baseline, ErrorKind, Layout, MigrateOptions};

use crate::support::{House, house_with};
use crate::texts::Folder;

type Files<'f> = &'f [(&'f str, &'f [u8])];

/// Version, label and name of each migration, in their order.
fn read(files: Files<'_>) -> (Option<Layout>, Vec<(i64, String, String)>) {
    let baseline = Folder::of(files).read();
    let of = |m: &freehold::Migration| (m.version, m.label.clone(), m.name.clone());
    (baseline.layout(), baseline.migrations().iter().map(of).collect())
}

fn is_read(files: Files<'_>, layout: Layout, expected: &[(i64, &str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(v, l, n)| (*v, (*l).to_owned(), (*n).to_owned())).collect();
    assert_eq!(read(files), (Some(layout), expected));
}

const SQL: &[u8] = b"SELECT 1;\n";

#[test]
fn each_layout_is_found_out_and_gives_its_tools_versions() {
    is_read(
        &[("0001_a.sql", SQL), ("0002_b.sql", SQL), ("0002_b.down.sql", SQL), (".hidden.sql", SQL)],
        Layout::Freehold,
        &[(1, "0001_a", "a"), (2, "0002_b", "b")],
    );
    is_read(
        &[
            ("20240102030405_second/migration.sql", SQL),
            ("20230102030405_first/migration.sql", SQL),
            ("migration_lock.toml", b"# by Prisma\nprovider = \"postgresql\"\n"),
        ],
        Layout::Prisma,
        &[
            (20_230_102_030_405, "20230102030405_first", "first"),
            (20_240_102_030_405, "20240102030405_second", "second"),
        ],
    );
    // A schema from before Prisma, and a folder named by hand.
    is_read(
        &[
            ("0_init/migration.sql", SQL),
            ("20240102030405_a/migration.sql", SQL),
            ("by_hand/migration.sql", SQL),
        ],
        Layout::Prisma,
        &[
            (1, "0_init", "init"),
            (20_240_102_030_405, "20240102030405_a", "a"),
            (20_240_102_030_406, "by_hand", "by_hand"),
        ],
    );
    is_read(
        &[
            ("0001_a.sql", SQL),
            ("0000_z.sql", SQL),
            (
                "meta/_journal.json",
                br#"{"version":"7","dialect":"postgresql","entries":[
                    {"idx":0,"version":"7","when":1,"tag":"0000_z","breakpoints":true},
                    {"idx":1,"version":"7","when":2,"tag":"0001_a","breakpoints":true}]}"#,
            ),
            ("meta/0000_snapshot.json", b"{}"),
        ],
        Layout::Drizzle,
        &[(1, "0000_z", "z"), (2, "0001_a", "a")],
    );
    is_read(
        &[("20250102030405_a/migration.sql", SQL), ("20250102030405_a/snapshot.json", b"{}")],
        Layout::Drizzle,
        &[(20_250_102_030_405, "20250102030405_a", "a")],
    );
    is_read(
        &[
            ("00000000000000_diesel_initial_setup/up.sql", SQL),
            ("00000000000000_diesel_initial_setup/down.sql", SQL),
            ("2019-05-15-235959_notes/up.sql", SQL),
            ("2019-05-15-235959_notes/down.sql", SQL),
            ("2020-01-02-030405-0000_tags/up.sql", SQL),
            ("2021-01-02-030405_more/up.sql", SQL),
            (".keep", b""),
        ],
        Layout::Diesel,
        &[
            (1, "00000000000000_diesel_initial_setup", "diesel_initial_setup"),
            (20_190_515_235_959, "2019-05-15-235959_notes", "notes"),
            (202_001_020_304_050_000, "2020-01-02-030405-0000_tags", "tags"),
            (202_001_020_304_050_001, "2021-01-02-030405_more", "more"),
        ],
    );
    is_read(
        &[("20230102030405_a.sql", SQL), ("20240102030405_b.sql", SQL)],
        Layout::Sqlx,
        &[
            (20_230_102_030_405, "20230102030405_a", "a"),
            (20_240_102_030_405, "20240102030405_b", "b"),
        ],
    );
    is_read(
        &[("000001_a.up.sql", SQL), ("000001_a.down.sql", SQL), ("000010_b.up.sql", SQL)],
        Layout::GolangMigrate,
        &[(1, "000001_a", "a"), (10, "000010_b", "b")],
    );
    let goose = b"-- +goose Up\n-- +goose StatementBegin\nSELECT 1;\n-- +goose StatementEnd\n\n-- +goose Down\nSELECT 2;\n";
    is_read(
        &[("00001_a.sql", goose), ("20240102030405_b.sql", goose), ("00001_a_test.go", b"")],
        Layout::Goose,
        &[(1, "00001_a", "a"), (20_240_102_030_405, "20240102030405_b", "b")],
    );
    is_read(
        &[("20240102030405_b.sql", b"-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;\n")],
        Layout::Dbmate,
        &[(20_240_102_030_405, "20240102030405_b", "b")],
    );
    let sql_migrate = b"\n-- +migrate Up\nSELECT 1;\n-- +migrate Down\nSELECT 2;\n";
    is_read(
        &[
            ("10-b.sql", sql_migrate),
            ("9-a.sql", sql_migrate),
            ("extra.sql", sql_migrate),
            ("9-b.sql", sql_migrate),
        ],
        Layout::SqlMigrate,
        &[(9, "9-a", "a"), (10, "9-b", "b"), (11, "10-b", "b"), (12, "extra", "extra")],
    );
    is_read(
        &[
            ("V1__a.sql", SQL),
            ("V1_1__b.sql", SQL),
            ("V1.10__d.sql", SQL),
            ("V1_2__c.sql", SQL),
            ("V3__e.sql", SQL),
            ("V20240102030405__f.sql", SQL),
            ("U1_1__b.sql", SQL),
        ],
        Layout::Flyway,
        &[
            (1, "V1__a", "a"),
            (2, "V1_1__b", "b"),
            (3, "V1_2__c", "c"),
            (4, "V1.10__d", "d"),
            (5, "V3__e", "e"),
            (20_240_102_030_405, "V20240102030405__f", "f"),
        ],
    );
    is_read(
        &[("one/V2__b.sql", SQL), ("two/deep/V1__a.sql", SQL)],
        Layout::Flyway,
        &[(1, "V1__a", "a"), (2, "V2__b", "b")],
    );
    is_read(
        &[("V1__a.sql", SQL), ("U2__b.sql", SQL), ("V10__c.sql", SQL), ("mod.rs", b"")],
        Layout::Refinery,
        &[(1, "V1__a", "a"), (2, "U2__b", "b"), (10, "V10__c", "c")],
    );
    is_read(
        &[("20230102030405_a.sql", SQL), ("atlas.sum", b"h1:x=\n")],
        Layout::Atlas,
        &[(20_230_102_030_405, "20230102030405_a", "a")],
    );
}

#[test]
fn supabases_folder_is_known_by_its_place_and_its_seed_is_no_migration() {
    let project = Folder::of(&[
        ("supabase/migrations/20230102030405_a.sql", SQL),
        ("supabase/seed.sql", b"SELECT 2;\n"),
        ("supabase/config.toml", b""),
    ]);
    let baseline = Baseline::read(project.0.join("supabase/migrations")).unwrap();
    assert_eq!(baseline.layout(), Some(Layout::Supabase));
    assert_eq!(baseline.migrations().len(), 1);
    // The folder above is refused, and the error suggests the right one.
    let error = Baseline::read(project.0.join("supabase")).unwrap_err().to_string();
    assert!(
        error.contains("seed.sql must be named") && error.contains("supabase/migrations?"),
        "{error}"
    );
}

#[test]
fn a_layout_that_is_given_is_the_one_that_counts() {
    let folder = Folder::of(&[("V1__a.sql", SQL), ("U1__b.sql", SQL)]);
    assert_eq!(folder.read().layout(), Some(Layout::Flyway));
    assert_eq!(folder.read().migrations().len(), 1);
    let error = Baseline::read_as(&folder.0, Layout::Refinery).unwrap_err().to_string();
    assert!(error.contains("U1__b.sql and V1__a.sql") && error.contains("same number"), "{error}");
    let error = Baseline::read_as(&folder.0, Layout::Goose).unwrap_err().to_string();
    assert!(error.contains("must be named by a number"), "{error}");
    let error = Baseline::read_as(&folder.0, Layout::Prisma).unwrap_err().to_string();
    assert!(error.contains("init/migration.sql: there is U1__b.sql, V1__a.sql"), "{error}");
    for layout in Layout::ALL {
        assert_eq!(layout.to_string().parse::<Layout>().unwrap(), layout);
    }
    let error = "rails".parse::<Layout>().unwrap_err().to_string();
    assert!(error.contains("no layout rails") && error.contains("sql-migrate"), "{error}");
}

#[test]
fn what_would_be_forgotten_or_run_otherwise_is_refused_with_its_name() {
    for (files, words) in [
        (
            &[("20240101000000_a/migration.sql", SQL), ("20240102000000_b/x.txt", b"")][..],
            "20240102000000_b holds no migration.sql",
        ),
        (
            &[("20240101000000_a/migration.sql", SQL), ("0001_b.sql", SQL)],
            "0001_b.sql stands beside the folders that Prisma reads",
        ),
        (
            &[("migration_lock.toml", b"provider = \"mysql\""), ("1_a/migration.sql", SQL)],
            "migrations for mysql",
        ),
        (&[("migration_lock.toml", b"provider = \"postgresql\"")], "there is migration_lock.toml"),
        (
            &[("2024-01-01-000000_a/up.sql", SQL), ("2024-01-02-000000_b/down.sql", SQL)],
            "2024-01-02-000000_b holds no up.sql",
        ),
        (&[("2024-01-01-000000_a/up.sql", SQL), ("20240101000000_b/up.sql", SQL)], "same number"),
        (&[("meta/_journal.json", b"{")], "is not as Drizzle writes it"),
        (
            &[("meta/_journal.json", br#"{"entries":[{"tag":"0000_a"}]}"#)],
            "names 0000_a.sql, which is not in the folder",
        ),
        (&[("meta/_journal.json", br#"{"entries":[]}"#)], "holds no migrations"),
        (&[("one/V1__a.sql", SQL), ("R__views.sql", SQL)], "R__views.sql is run by Flyway"),
        (
            &[("V1__a.sql", SQL), ("R__views.sql", SQL)],
            "R__views.sql is run by Flyway whenever its text has changed",
        ),
        (
            &[("V1__a.sql", SQL), ("B2__all.sql", SQL)],
            "B2__all.sql stands for the versions before it",
        ),
        (&[("V1__a.sql", SQL), ("V1.0__b.sql", SQL)], "V1.0__b.sql and V1__a.sql"),
        (
            &[("V1_1__a.sql", SQL), ("afterMigrate.sql", SQL)],
            "afterMigrate.sql is run by Flyway beside",
        ),
        (&[("V1_1__a.sql", SQL), ("x.sql", SQL)], "x.sql must be named by V, a number"),
        (&[("V1__a.sql", SQL), ("V2__b.java", b"")], "V2__b.java is a program"),
        (&[("V1__a.sql", b"--\nSELECT '${who}'")], "V1__a line 2: Flyway would replace ${who}"),
        (
            &[("00001_a.sql", b"-- +goose Up\nSELECT 1"), ("00002_b.go", b"")],
            "00002_b.go is a program",
        ),
        (
            &[("00001_a.sql", b"-- +goose Up\n-- +goose ENVSUB ON\nSELECT 1")],
            "00001_a line 2: goose would put values",
        ),
        (
            &[("20240102030405_a.sql", b"-- atlas:checkpoint\nSELECT 1")],
            "20240102030405_a line 1: a checkpoint of Atlas",
        ),
        (
            &[("0001_a.sql", b"SELECT 1;\n-- freehold: no-transaction\n")],
            "0001_a line 2: each file is one transaction",
        ),
        (&[("99999999999999999999_a.sql", SQL)], "its number is above 9223372036854775807"),
        (&[("20240102030405_a.exs", b"")], "there is 20240102030405_a.exs"),
        (
            &[("prisma/migrations/1_a/migration.sql", SQL), ("prisma/schema.prisma", b"")],
            "there is prisma/",
        ),
    ] {
        let refused = Folder::of(files).refused();
        assert!(refused.contains(words), "{refused}");
    }
    let above = Folder::of(&[("migrations/0001_a.sql", SQL), ("package.json", b"{}")]).refused();
    assert!(above.contains("/migrations?"), "{above}");
    // The suggestion is never a folder of down migrations.
    let sqitch = Folder::of(&[("deploy/a.sql", SQL), ("revert/a.sql", SQL)]).refused();
    assert!(sqitch.ends_with("there is deploy/, revert/"), "{sqitch}");
}

const PRISMA: &[u8] = b"-- CreateSchema
CREATE SCHEMA IF NOT EXISTS \"public\";

-- CreateEnum
CREATE TYPE \"public\".\"Mood\" AS ENUM ('GOOD', 'BAD');

-- CreateTable
CREATE TABLE \"public\".\"Note\" (\"id\" SERIAL NOT NULL, \"mood\" \"public\".\"Mood\" NOT NULL DEFAULT 'GOOD', CONSTRAINT \"Note_pkey\" PRIMARY KEY (\"id\"));
";
/// Prisma's way to remove an enum value, with a transaction of its own in the middle.
const PRISMA_LESS: &[u8] = b"-- AlterEnum
BEGIN;
CREATE TYPE \"public\".\"Mood_new\" AS ENUM ('GOOD');
ALTER TABLE \"public\".\"Note\" ALTER COLUMN \"mood\" DROP DEFAULT;
ALTER TABLE \"public\".\"Note\" ALTER COLUMN \"mood\" TYPE \"public\".\"Mood_new\" USING (\"mood\"::text::\"public\".\"Mood_new\");
ALTER TYPE \"public\".\"Mood\" RENAME TO \"Mood_old\";
ALTER TYPE \"public\".\"Mood_new\" RENAME TO \"Mood\";
DROP TYPE \"public\".\"Mood_old\";
ALTER TABLE \"public\".\"Note\" ALTER COLUMN \"mood\" SET DEFAULT 'GOOD';
COMMIT;

ALTER TABLE \"public\".\"Note\" ADD COLUMN \"body\" TEXT;
";

async fn adopted(house: &House, files: Files<'_>) -> freehold::MigrateReport {
    let report = house.migrate(&Folder::of(files).read()).await.unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    report
}

async fn refusal(house: &House, files: Files<'_>) -> String {
    let error = house.migrate(&Folder::of(files).read()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Migration);
    error.to_string()
}

#[tokio::test]
async fn prismas_folder_is_a_fleets_baseline_and_public_means_each_tenants_own() {
    let first = ("20240101000000_init/migration.sql", PRISMA);
    let house = house_with(&Folder::of(&[first]).read()).await;
    let acme = house.tenant("acme").await;
    let second = ("20240102000000_less/migration.sql", PRISMA_LESS);
    let report = adopted(&house, &[first, second]).await;
    assert_eq!((report.layout, report.version), (Some(Layout::Prisma), 20_240_102_000_000));
    assert_eq!(report.adopted, ["20240102000000_less"]);
    assert!(report.notices[0].contains("taken away from 10 names"), "{:?}", report.notices);
    let initech = house.tenant("initech").await;
    for tenant in [&acme, &initech] {
        let insert = "INSERT INTO \"Note\" (body) VALUES ('x') RETURNING mood::text";
        let rows = house.freehold.query(tenant, insert, &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, String>(0), "GOOD");
    }
    assert!(adopted(&house, &[first, second]).await.notices.is_empty(), "told once");
    // A refusal names the folder, as it is called.
    let third = ("20240103000000_bad/migration.sql", &b"SELECT 1;\n\nDROP TABLE gone;"[..]);
    let message = refusal(&house, &[first, second, third]).await;
    assert!(message.starts_with("20240103000000_bad line 3: "), "{message}");
}

#[tokio::test]
async fn what_is_numbered_by_its_place_is_compared_by_its_name() {
    let (a, b, c) = (
        ("V1__a.sql", &b"CREATE TABLE a (id int);"[..]),
        ("V1_2__b.sql", &b"CREATE TABLE b (id int);"[..]),
        ("V1_10__c.sql", &b"CREATE TABLE c (id int);"[..]),
    );
    let house = house_with(&Folder::of(&[a]).read()).await;
    let acme = house.tenant("acme").await;
    assert_eq!(adopted(&house, &[a, b]).await.version, 2);
    let between = ("V1_1__late.sql", &b"CREATE TABLE late (id int);"[..]);
    let message = refusal(&house, &[a, b, c, between]).await;
    assert!(
        message.starts_with("V1_1__late comes before V1_2__b, which the fleet has"),
        "{message}"
    );
    // A copy of the file that follows would be mistaken for it.
    let copy = ("V1_1__copy.sql", b.1);
    let message = refusal(&house, &[a, b, copy]).await;
    assert!(message.starts_with("V1_1__copy comes before V1_2__b"), "{message}");
    let message = refusal(&house, &[b, c]).await;
    assert!(message.contains("the folder lacks V1__a"), "{message}");
    let message = refusal(&house, &[a, ("V1_2__b.sql", b"SELECT 2")]).await;
    assert!(message.starts_with("V1_2__b was changed after"), "{message}");
    let report = adopted(&house, &[a, b, c]).await;
    assert_eq!((report.version, report.migrated), (3, 1));
    house.freehold.query(&acme, "SELECT * FROM a, b, c", &[]).await.unwrap();
}

#[tokio::test]
async fn a_number_between_is_refused_with_both_names() {
    let (one, three) = (("0001_a.sql", SQL), ("0003_c.sql", SQL));
    let house = house_with(&Folder::of(&[one, three]).read()).await;
    for rest in [
        &[one, ("0002_b.sql", SQL), three][..],
        &[one, ("0002_b.sql", SQL), three, ("0004_d.sql", SQL)],
    ] {
        let message = refusal(&house, rest).await;
        assert!(
            message.starts_with("0002_b comes before 0003_c, which the fleet has"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn the_way_back_of_a_tool_is_not_run_and_no_transaction_is_told() {
    let files: Files<'_> = &[(
        "00001_notes.sql",
        b"-- +goose NO TRANSACTION\n-- +goose Up\n-- +goose StatementBegin\nCREATE FUNCTION one() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n  RETURN 1;\nEND;\n$$;\n-- +goose StatementEnd\nCREATE TABLE notes (id int DEFAULT one());\n\n-- +goose Down\nDROP TABLE notes;\nDROP FUNCTION one();\n",
    )];
    let folder = Folder::of(files).read();
    let house = house_with(&Baseline::default()).await;
    let dry =
        house.freehold.migrations().dry_run(&folder, MigrateOptions::default()).await.unwrap();
    assert_eq!(dry.layout, Some(Layout::Goose));
    assert!(dry.would_succeed(), "{dry:?}");
    let report = adopted(&house, files).await;
    assert_eq!(report.notices.len(), 1, "{:?}", report.notices);
    assert!(report.notices[0].starts_with("00001_notes: no transaction is asked for"));
    let acme = house.tenant("acme").await;
    house.freehold.query(&acme, "INSERT INTO notes DEFAULT VALUES", &[]).await.unwrap();
}

#[test]
fn whoever_asks_for_no_transaction_is_told_of() {
    for files in [
        &[("20240102030405_a.sql", &b"-- no-transaction\nSELECT 1"[..])][..],
        &[("20240102030405_a.sql", b"-- migrate:up transaction:false\nSELECT 1")],
        &[("1-a.sql", b"-- +migrate Up notransaction\nSELECT 1")],
        &[("20240102030405_a.sql", b"-- atlas:txmode none\nSELECT 1"), ("atlas.sum", b"")],
        &[("V1_2__a.sql", SQL), ("V1_2__a.sql.conf", b"executeInTransaction = false\n")],
        &[
            ("2024-01-01-000000_a/up.sql", SQL),
            ("2024-01-01-000000_a/metadata.toml", b"run_in_transaction = false"),
        ],
    ] {
        let baseline = format!("{:?}", Folder::of(files).read());
        assert!(!baseline.contains("transacted: []"), "{baseline}");
    }
    assert!(format!("{:?}", Folder::of(&[("0001_a.sql", SQL)]).read()).contains("transacted: []"));
}

#[tokio::test]
async fn files_that_a_tool_passes_over_are_named() {
    let files: Files<'_> = &[
        ("0000_a.sql", SQL),
        ("0001_left.sql", b"DROP TABLE gone"),
        ("meta/_journal.json", br#"{"entries":[{"idx":0,"tag":"0000_a"}]}"#),
    ];
    let house = house_with(&Baseline::default()).await;
    let report = adopted(&house, files).await;
    assert_eq!(report.notices, ["0001_left.sql is not in Drizzle's journal and was passed over"]);
}

#[tokio::test]
async fn a_transaction_around_statements_is_the_files_own() {
    let house = house_with(&Baseline::default()).await;
    let files: Files<'_> = &[
        ("000001_a.up.sql", b"BEGIN;\nCREATE TABLE a (id int);\nCOMMIT;\n"),
        ("000002_b.up.sql", b"CREATE TABLE b (id int);\nbegin transaction;\nCREATE TABLE c (id int);\nEND;\nSTART TRANSACTION;\nCREATE TABLE d (id int);\ncommit work;\n"),
    ];
    adopted(&house, files).await;
    let acme = house.tenant("acme").await;
    house.freehold.query(&acme, "SELECT * FROM a, b, c, d", &[]).await.unwrap();
    for (bad, line) in [
        (&b"BEGIN;\nSELECT 1;\nCOMMIT;\nCOMMIT;"[..], 4),
        (b"BEGIN;\nSELECT 1;\nROLLBACK;", 1),
        (b"BEGIN;\nBEGIN;\nCOMMIT;", 2),
        (b"BEGIN ISOLATION LEVEL SERIALIZABLE;\nCOMMIT;", 1),
        (b"BEGIN;\nSELECT 1;\nCOMMIT AND CHAIN;\nCOMMIT;", 3),
    ] {
        let message = refusal(&house, &[files[0], files[1], ("000003_c.up.sql", bad)]).await;
        assert!(message.starts_with(&format!("000003_c line {line}: ")), "{message}");
    }
}

/// What tools' users write for one schema and one database.
const GOOSE_ONE: &[u8] = b"-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE public.posts (id bigint PRIMARY KEY, title text NOT NULL, slug text);
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS posts_title ON public.posts (title);
-- +goose StatementBegin
CREATE FUNCTION public.plain(t text) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = '' AS $$ SELECT lower(t) $$;
CREATE FUNCTION public.slug(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT replace(public.plain(t), ' ', '-') $$;
CREATE FUNCTION public.stamp() RETURNS trigger LANGUAGE plpgsql SET search_path TO '' AS $$
BEGIN
  EXECUTE 'SELECT count(*) FROM public.posts';
  NEW.slug := public.slug(NEW.title);
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER stamp BEFORE INSERT ON public.posts FOR EACH ROW EXECUTE FUNCTION public.stamp();
CREATE INDEX CONCURRENTLY posts_slug ON public.posts (public.slug(title));
-- +goose Down
DROP TABLE public.posts;
";
const GOOSE_TWO: &[u8] = b"-- +goose Up
DROP INDEX CONCURRENTLY public.posts_title;
";

#[tokio::test]
async fn a_tools_folder_for_one_schema_and_database_is_taken_as_it_stands() {
    let one = ("00001_posts.sql", GOOSE_ONE);
    let folder = Folder::of(&[one]).read();
    let house = house_with(&folder).await;
    let acme = house.tenant("acme").await;
    let report = adopted(&house, &[one, ("00002_less.sql", GOOSE_TWO)]).await;
    assert!(
        report.notices.iter().any(|n| n.contains("CONCURRENTLY was left out of 1 statement,")),
        "{report:?}"
    );
    for tenant in [&acme, &house.tenant("globex").await] {
        let insert = "INSERT INTO posts (id, title) VALUES (1, 'A B') RETURNING slug";
        let rows = house.freehold.query(tenant, insert, &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, String>(0), "a-b");
    }
}
