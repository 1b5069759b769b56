//! How the texts of a folder are read: files, lines and statements, and what is refused.

use std::fs;
use std::path::PathBuf;

use freehold::{Baseline, ErrorKind, MigrateOptions, Migration, Verdict};

use crate::support::{House, house, notes_and};

/// A folder of files, gone with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

impl Folder {
    pub(crate) fn of(files: &[(&str, &[u8])]) -> Folder {
        let folder = std::env::temp_dir().join(format!("freehold-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Folder(folder)
    }

    pub(crate) fn refused(&self) -> String {
        let error = Baseline::read(&self.0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setup);
        error.to_string()
    }

    pub(crate) fn read(&self) -> Baseline {
        Baseline::read(&self.0).unwrap()
    }
}

async fn refusal(house: &House, sql: &str) -> String {
    let error = house.migrate(&notes_and(&[sql])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Migration, "{sql}: {error}");
    error.to_string()
}

#[test]
fn line_ends_and_a_byte_order_mark_change_nothing() {
    let plain = Folder::of(&[("0001_a.sql", b"SELECT 'a\nb';\n")]).read();
    let windows = Folder::of(&[("0001_a.sql", b"\xef\xbb\xbfSELECT 'a\r\nb';\r\n")]).read();
    assert_eq!(plain.migrations(), windows.migrations());
    let other = Folder::of(&[("0001_a.sql", b"SELECT 'a b';\n")]).read();
    assert_ne!(plain.migrations()[0].checksum, other.migrations()[0].checksum);
    let compiled_in = Migration::new(1, "a", "\u{feff}SELECT 'a\r\nb';\r\n");
    assert_eq!(plain.migrations(), [compiled_in]);
}

/// A down migration is part of the file for any tool, and is never run.
#[test]
fn the_way_back_is_never_gone() {
    for mark in [
        "-- +goose Down",
        "--+migrate Down",
        "  -- migrate:down",
        "-- //@UNDO",
        "-- +goose down --",
    ] {
        let text = format!("-- +goose Up\nSELECT 'a';\n\n{mark}\nDROP TABLE notes;\n");
        let folder = Folder::of(&[("0001_a.sql", text.as_bytes())]).read();
        let migration = &folder.migrations()[0];
        assert_eq!(migration.statements, "-- +goose Up\nSELECT 'a';\n\n", "{mark}");
        let other = text.replace("DROP TABLE", "DROP VIEW");
        let other = Folder::of(&[("0001_a.sql", other.as_bytes())]).read();
        assert_ne!(other.migrations()[0].checksum, migration.checksum, "it is part of the file");
    }
    let text = "SELECT '-- goose down'; -- going down\nSELECT 2;\n";
    assert_eq!(Migration::new(1, "a", text).statements, text);
    let pairs = Folder::of(&[
        ("000001_a.up.sql", b"SELECT 1".as_slice()),
        ("000001_a.down.sql", b"SELECT 2"),
        ("000002_b.up.sql", b"SELECT 3"),
    ]);
    let names: Vec<_> =
        pairs.read().migrations().iter().map(|m| (m.name.clone(), m.statements.clone())).collect();
    assert_eq!(names, [("a", "SELECT 1"), ("b", "SELECT 3")].map(|(n, s)| (n.into(), s.into())));
}

#[test]
fn a_folder_without_migrations_says_what_was_seen() {
    assert!(Folder::of(&[]).refused().ends_with("it is empty"));
    let refused = Folder::of(&[("notes.txt", b""), ("20240101_init/schema.xml", b"")]).refused();
    assert!(refused.contains("20240101_init/, notes.txt"), "{refused}");
    // A shouted ending is one too.
    assert_eq!(Folder::of(&[("0001_A.SQL", b"")]).read().migrations().len(), 1);
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    for (files, named) in [
        (
            &[("0002_one.sql", &b""[..]), ("0002_two.sql", b"")][..],
            &["0002_one.sql and 0002_two.sql", "same number"][..],
        ),
        (&[("2_one.sql", b""), ("02_two.sql", b"")], &["02_two.sql and 2_one.sql"]),
        (&[("0003_x.sql", b""), ("4_bad.sql", b"")], &["4_bad.sql", "rename it to 0004_bad.sql"]),
        (&[("0003_x.sql", b""), ("00004_y.sql", b"")], &["00004_y.sql", "rename it to 0004_y.sql"]),
        (&[("+1_x.sql", b"")], &["+1_x.sql must be named by a number"]),
        (&[("shop.sql", b"")], &["shop.sql must be named by a number"]),
        (&[("0001_x.sql", b"SELECT 1;\n'\xe9'")], &["0001_x.sql line 2", "save the file as UTF-8"]),
        (&[("0001_x.sql", b"\xff\xfeS\0")], &["0001_x.sql is UTF-16"]),
    ] {
        let refused = Folder::of(files).refused();
        assert!(named.iter().all(|part| refused.contains(part)), "{refused}");
    }
    // Numbers may exceed their padded width, or have no padding.
    Folder::of(&[("0999_a.sql", b""), ("1000_b.sql", b""), ("10000_c.sql", b"")]).read();
    Folder::of(&[("9_a.sql", b""), ("10_b.sql", b"")]).read();
}

#[tokio::test]
async fn every_refusal_names_the_line_and_says_its_words_once() {
    let house = house().await;
    for (sql, line, words) in [
        ("SELECT 1;\n\nALTER TABLE nowhere ADD x int;", 3, "\"nowhere\" does not exist"),
        ("DROP VIEW\n  nowhere", 1, "\"nowhere\" does not exist"),
        ("SELECT $$;\n;$$; /* ;\n */ DROP TYPE gone;", 3, "\"gone\" does not exist"),
        ("SELECT 1;\nCREATE TABLE t (\n  a int,\n  b nothing);", 4, "\"nothing\" does not exist"),
        ("SELECT 1;\r\nSELECT\r\n  nothing;", 3, "\"nothing\" does not exist"),
        ("SELECT 1;\nDO $$ BEGIN\n  RAISE EXCEPTION 'not so'; END $$;", 2, "not so"),
        ("SELECT 1;\nSELECT (1;\nSELECT 2;", 2, "syntax error"),
        ("CREATE TABLE t (a int);\nGRANT SELECT ON t TO nobody_at_all", 2, "does not exist"),
        (
            "SELECT 1;\nALTER TABLE notes\n  NO FORCE ROW LEVEL SECURITY;\nSELECT 2",
            2,
            "cannot be protected: notes",
        ),
        ("SELECT 1;\nBEGIN;\nSELECT 2;", 2, "BEGIN begins, ends or divides a transaction"),
        ("SELECT 1;\n commit work", 2, "take it out"),
        ("START TRANSACTION", 1, "take it out"),
        ("SAVEPOINT a", 1, "take it out"),
        ("PREPARE TRANSACTION 'a'", 1, "take it out"),
        ("DO $$ BEGIN COMMIT; END $$", 1, "take COMMIT and ROLLBACK out"),
        (
            "CREATE TABLE t (a int);\nCOPY t (a) FROM stdin;\n1\n\\.\n",
            2,
            "pg_dump --column-inserts",
        ),
        ("COPY (SELECT 1 FROM notes) TO STDOUT", 1, "pg_dump --column-inserts"),
        ("SELECT 1;\n\n\\restrict abc\nSELECT 2;", 3, "\\restrict is a command of psql"),
        ("\\i other.sql\nSELECT 1;", 1, "\\i is a command of psql"),
        ("SELECT 1;\n\nCREATE INDEX CONCURRENTLY i ON notes (id)", 3, "leave CONCURRENTLY out"),
        ("DROP INDEX CONCURRENTLY nowhere", 1, "leave CONCURRENTLY out"),
        ("SELECT 1;\nVACUUM notes", 2, "autovacuum"),
        ("REINDEX SCHEMA public", 1, "run it by itself"),
        ("SET standard_conforming_strings = off; SELECT '\\'", 1, "write strings with backslashes"),
        ("SELECT 1;\n\0", 2, "NUL"),
        (
            "CREATE TYPE e AS ENUM ('a');\nALTER TYPE e ADD VALUE 'b';\nSELECT nothing()",
            3,
            "nothing()",
        ),
        (
            "ALTER TABLE tags ALTER CONSTRAINT tags_note_id_fkey DEFERRABLE INITIALLY DEFERRED;\nINSERT INTO tags VALUES (7, 'x')",
            0,
            "at its end: insert or update on table",
        ),
    ] {
        let message = refusal(&house, sql).await;
        let place = format!("0002_later line {line}: ");
        assert!(line == 0 || message.starts_with(&place), "{sql}: {message}");
        assert!(message.starts_with("0002_later"), "{sql}: {message}");
        assert_eq!(message.matches(words).count(), 1, "{sql}: {message}");
    }
}

#[tokio::test]
async fn what_psql_takes_is_taken() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    house
        .migrate(&notes_and(&[
            "SET standard_conforming_strings = on; SET LOCAL statement_timeout = 0;
             CREATE TABLE \"a;b\" (\"c\"\";\" text DEFAULT 'x;', d text DEFAULT E'\\';'); ;
             CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC
               SELECT 1; SELECT CASE WHEN count(*) > 0 THEN 1 ELSE 2 END FROM notes; END;
             CREATE RULE r AS ON DELETE TO \"a;b\" DO ALSO (SELECT 1; SELECT 2);
             DO $do$ BEGIN EXECUTE $$CREATE TABLE made (id int); INSERT INTO made VALUES (1)$$; END $do$;
             INSERT INTO made SELECT count(*) FROM made; -- the end;",
        ]))
        .await
        .unwrap();
    let rows = house.freehold.query(&acme, "SELECT count(*), f() FROM made", &[]).await.unwrap();
    assert_eq!((rows[0].get::<_, i64>(0), rows[0].get::<_, i64>(1)), (2, 2));
}

#[tokio::test]
async fn many_statements_are_one_file() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let mut sql: String =
        (0..300).map(|n| format!("INSERT INTO notes VALUES ({n}, 'x');\n")).collect();
    let message = refusal(&house, &format!("{sql}SELEC 1")).await;
    assert!(message.starts_with("0002_later line 301: "), "{message}");
    sql.push_str("SELECT 1");
    house.migrate(&notes_and(&[&sql])).await.unwrap();
    let count = house.freehold.query(&acme, "SELECT count(*) FROM notes", &[]).await.unwrap();
    assert_eq!(count[0].get::<_, i64>(0), 300);
}

const ROLES: &[u8] = b"DO $$ BEGIN
 CREATE TYPE \"public\".\"role\" AS ENUM('admin', 'member');
EXCEPTION
 WHEN duplicate_object THEN null;
END $$;
--> statement-breakpoint
CREATE TABLE IF NOT EXISTS \"person\" (\"id\" bigserial PRIMARY KEY NOT NULL, \"role\" \"role\" DEFAULT 'member' NOT NULL)
--> statement-breakpoint
ALTER TABLE \"person\" ADD COLUMN \"boss\" bigint REFERENCES \"public\".\"person\"(\"id\");";
const GUEST: &[u8] = b"ALTER TYPE \"public\".\"role\" ADD VALUE 'guest';";

#[tokio::test]
async fn drizzles_public_means_each_tenants_own() {
    let house = house().await;
    let (acme, globex) = (house.tenant("acme").await, house.tenant("globex").await);
    let notes = notes_and(&[]).migrations()[0].statements.clone();
    let files = [("0001_notes.sql", notes.as_bytes()), ("0002_roles.sql", ROLES)];
    let report = house.migrate(&Folder::of(&files).read()).await.unwrap();
    assert_eq!((report.migrated, report.notices.len()), (2, 1));
    assert!(report.notices[0].contains("0002_roles: public. was taken away from 2 names"));

    let files = [files[0], files[1], ("0003_guest.sql", GUEST)];
    let folder = Folder::of(&files).read();
    let dry =
        house.freehold.migrations().dry_run(&folder, MigrateOptions::default()).await.unwrap();
    assert_eq!(dry.files, [("0003_guest".to_owned(), Verdict::Taken)]);
    let report = house.migrate(&folder).await.unwrap();
    assert_eq!((report.migrated, report.notices.len()), (2, 1));
    assert!(house.migrate(&folder).await.unwrap().notices.is_empty(), "told once");
    let initech = house.tenant("initech").await;
    for tenant in [&acme, &globex, &initech] {
        let insert = "INSERT INTO person (role) VALUES ('guest')";
        house.freehold.query(tenant, insert, &[]).await.unwrap();
    }
    let superuser = house.superuser().await;
    let outside = "SELECT count(*) FROM pg_type WHERE typname = 'role' AND typnamespace = 'public'::regnamespace";
    assert_eq!(superuser.query_one(outside, &[]).await.unwrap().get::<_, i64>(0), 0);
    // The checksum is that of the original text.
    let of_file = Migration::new(3, "guest", String::from_utf8(GUEST.to_vec()).unwrap());
    assert_eq!(folder.migrations()[2].checksum, of_file.checksum);
    assert_ne!(folder.migrations()[2].statements, of_file.statements);
}

#[test]
fn drizzles_journal_tells_of_it_too_and_nothing_else_is_rewritten() {
    let entries = &br#"{"entries": [{"idx": 0, "tag": "0001_guest"}]}"#[..];
    let journal = ("meta/_journal.json", entries);
    let folder = Folder::of(&[("0001_guest.sql", GUEST), journal]).read();
    assert!(!folder.migrations()[0].statements.contains("public"));
    let folder = Folder::of(&[("0001_guest.sql", GUEST)]).read();
    assert!(folder.migrations()[0].statements.contains("public"));
}

const KNOWN: &str = "INSERT INTO notes (body) VALUES ('begin with')";

/// All that there is of tenants and template, as far as a migration could change it.
async fn everything(house: &House) -> String {
    let sql = "SELECT string_agg(row, E'\\n' ORDER BY row) FROM (
        SELECT concat('class ', oid, ' ', relname, ' ', xmin) AS row FROM pg_class WHERE relname NOT LIKE 'pg_toast%'
        UNION ALL SELECT concat('type ', oid, ' ', typname, ' ', xmin) FROM pg_type
        UNION ALL SELECT concat('sequence ', schemaname, '.', sequencename, ' ', last_value) FROM pg_sequences
        UNION ALL SELECT concat('baseline ', version) FROM freehold.baseline
        UNION ALL SELECT concat('tenant ', slug, ' ', version) FROM freehold.tenant
        UNION ALL SELECT concat('audit ', count(*)) FROM freehold.audit) t";
    house.superuser().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_leaves_no_trace() {
    let house = house().await;
    house.tenant("acme").await;
    house.tenant("globex").await;
    house.migrate(&notes_and(&["INSERT INTO notes (body) VALUES ('begin with')"])).await.unwrap();
    let dry = |later: Vec<&'static str>| {
        let folder = notes_and(&later);
        let house = &house;
        async move {
            house.freehold.migrations().dry_run(&folder, MigrateOptions::default()).await.unwrap()
        }
    };
    let before = everything(&house).await;

    let nothing = dry(vec![KNOWN]).await;
    assert_eq!((nothing.files.len(), nothing.behind.len(), nothing.version), (0, 0, 2));

    let good = dry(vec![
        KNOWN,
        "CREATE TABLE a (id serial, x text); INSERT INTO notes (body) VALUES ('more')",
        "INSERT INTO a (x) VALUES ('y')",
    ])
    .await;
    assert_eq!(good.files.len(), 2);
    assert!(good.files.iter().all(|(_, verdict)| *verdict == Verdict::Taken), "{good:?}");
    assert_eq!((good.behind.as_slice(), good.version), (&[(2, 2)][..], 4));

    let bad = dry(vec![KNOWN, "SELECT 1;\nDROP TABLE gone", "SELECT 1"]).await;
    assert!(!bad.would_succeed());
    let Verdict::Refused(why) = &bad.files[0].1 else { panic!("{bad:?}") };
    assert!(why.starts_with("0003_later line 2: table \"gone\" does not exist"), "{why}");
    assert!(matches!(bad.files[1].1, Verdict::Unknown(_)), "{bad:?}");

    let split = dry(vec![
        KNOWN,
        "CREATE TYPE e AS ENUM ('a'); ALTER TABLE notes ADD e e",
        "ALTER TYPE e ADD VALUE 'b'",
        "UPDATE notes SET e = 'b'",
    ])
    .await;
    assert!(split.would_succeed(), "{split:?}");
    assert_eq!(everything(&house).await, before);
    // And a refusal of the folder is one of the dry run.
    let lacking =
        house.freehold.migrations().dry_run(&notes_and(&[]), MigrateOptions::default()).await;
    assert!(lacking.unwrap_err().to_string().contains("the folder lacks"));
}
