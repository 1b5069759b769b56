//! Refusals by a baseline's own triggers, functions and policies, as the caller reads them.

use serde_json::{Value, json};

use crate::support::{Answer, Place, Service, Setup, shop_and};

const QUOTA: &str = r#"
CREATE TABLE quota (id int PRIMARY KEY, code text, words text);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.code = 'strict' THEN
    SELECT code INTO STRICT NEW.words FROM quota WHERE id = -1;
  ELSIF NEW.code = 'assert' THEN
    ASSERT false, 'it must hold';
  ELSIF NEW.code = 'plain' THEN
    RAISE EXCEPTION 'quota reached';
  ELSIF NEW.code = 'unready' THEN
    PERFORM currval('own');
  ELSIF NEW.code = 'astray' THEN
    SELECT words INTO NEW.words FROM public.quota;
  ELSE
    RAISE EXCEPTION '%', coalesce(NEW.words, 'quota reached')
      USING ERRCODE = NEW.code, DETAIL = 'plan free', HINT = 'upgrade';
  END IF;
  RETURN NEW;
END $$;
CREATE SEQUENCE own;
CREATE TRIGGER refuse BEFORE INSERT ON quota FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE VIEW doubled AS SELECT (SELECT n FROM generate_series(1, 2) n) AS n;
CREATE TABLE spelled (id int PRIMARY KEY);
CREATE FUNCTION spell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE SQLSTATE 'PGRST' USING
    MESSAGE = '{"code":"quota","message":"no more","details":"free","hint":"pay"}',
    DETAIL = json_build_object('status', NEW.id, 'headers', '{"Set-Cookie":"a=b"}'::json);
END $$;
CREATE TRIGGER spell BEFORE INSERT ON spelled FOR EACH ROW EXECUTE FUNCTION spell();
CREATE VIEW counted AS SELECT count(*) AS n FROM quota;
CREATE TABLE docs (id int PRIMARY KEY, title text, deleted_at timestamptz);
CREATE POLICY live ON docs AS RESTRICTIVE FOR SELECT USING (deleted_at IS NULL);
CREATE TABLE closed (id int);
CREATE POLICY nobody ON closed FOR SELECT USING (true);
GRANT SELECT, INSERT ON closed TO freehold_member;"#;

async fn shop() -> (Service, Place) {
    let service = Service::start(Setup { baseline: shop_and(QUOTA), ..Setup::default() }).await;
    let acme = service.tenant("acme").await;
    (service, acme)
}

async fn insert(service: &Service, acme: &Place, table: &str, row: Value) -> Answer {
    service.call("POST", &format!("/v1/data/{table}")).by(&acme.owner).json(&row).send().await
}

#[tokio::test]
async fn what_code_of_the_baseline_raises_reaches_the_caller_in_its_words() {
    let (service, acme) = shop().await;
    for (code, status) in [
        ("PT400", 400),
        ("PT402", 402),
        ("PT418", 418),
        ("PT599", 599),
        // No status of an error.
        ("PT200", 400),
        ("PT600", 400),
        ("PTABC", 400),
        ("P0001", 400),
        ("P0002", 400),
        ("UE001", 400),
        ("45000", 400),
        ("PGRST", 400),
        // PostgreSQL has its own refusals by these, and they were raised.
        ("55000", 400),
        ("22023", 400),
        ("2F002", 400),
    ] {
        let answer = insert(&service, &acme, "quota", json!({"id": 1, "code": code})).await;
        let problem = answer.expect(status).json();
        let told = (&problem["message"], &problem["detail"], &problem["details"], &problem["hint"]);
        let words = (&json!("quota reached"), &json!("plan free"), &json!("upgrade"));
        assert_eq!(told, (words.0, words.0, words.1, words.2), "{code}: {problem}");
        if code != "22023" {
            assert_eq!(problem["code"], code, "{problem}");
        }
    }
    for (code, sqlstate, words) in [
        ("plain", "P0001", "quota reached"),
        ("strict", "P0002", "query returned no rows"),
        ("assert", "P0004", "it must hold"),
    ] {
        let answer = insert(&service, &acme, "quota", json!({"id": 1, "code": code})).await;
        let problem = answer.expect(400).json();
        assert_eq!((&problem["code"], &problem["message"]), (&json!(sqlstate), &json!(words)));
    }
    // An error with one of PostgreSQL's codes for constraints is answered like that violation.
    let answer = insert(&service, &acme, "quota", json!({"id": 1, "code": "23505"})).await;
    let problem = answer.expect(409).json();
    assert_eq!(problem["code"], "unique_violation");
    assert_eq!(
        (&problem["message"], &problem["hint"]),
        (&json!("quota reached"), &json!("upgrade"))
    );
    // Transient errors and missing privileges keep their status, and their messages are not sent.
    for (code, status, known) in [("40001", 409, "write_conflict"), ("42501", 403, "forbidden")] {
        let answer = insert(&service, &acme, "quota", json!({"id": 1, "code": code})).await;
        let problem = answer.expect(status).json();
        assert_eq!(problem["code"], known);
        assert!(!problem.to_string().contains("plan free"), "{problem}");
    }
}

#[tokio::test]
async fn an_answer_that_is_spelled_in_json_is_read() {
    let (service, acme) = shop().await;
    let answer = insert(&service, &acme, "spelled", json!({"id": 402})).await.expect(402);
    assert!(!answer.headers.contains_key("set-cookie"));
    let problem = answer.json();
    let told = ["code", "message", "details", "hint"].map(|key| problem[key].clone());
    assert_eq!(told, ["quota", "no more", "free", "pay"].map(|text| json!(text)), "{problem}");
    // A text whose status is not an error status is treated like any other text.
    let problem = insert(&service, &acme, "spelled", json!({"id": 200})).await.expect(400).json();
    assert_eq!(problem["code"], "PGRST");
}

#[tokio::test]
async fn a_sqlstate_is_not_taken_for_what_else_it_may_mean() {
    let (service, acme) = shop().await;
    // No view: a sequence of this session was never asked.
    let unready = insert(&service, &acme, "quota", json!({"id": 1, "code": "unready"})).await;
    assert!(!unready.text().contains("view"), "{}", unready.text());
    // A function that names a missing object does not mean that a migration is pending.
    let body = json!({"id": 1, "code": "astray"});
    let astray = service.post("/v1/data/quota", body).by(&acme.owner).send_unchecked().await;
    assert_eq!(astray.header("retry-after"), "");
    assert_eq!(astray.expect(500).json()["code"], "internal");
    // Nor had any body two rows of one key.
    let doubled = service.get("/v1/data/doubled").by(&acme.owner).send().await;
    assert_eq!(doubled.expect(400).json()["code"], "cardinality_violation");
    let view = insert(&service, &acme, "counted", json!({"n": 1})).await;
    assert_eq!(view.expect(400).json()["code"], "read_only_table");
}

#[tokio::test]
async fn a_row_policy_of_the_baseline_is_named_and_is_no_violation() {
    let (service, acme) = shop().await;
    insert(&service, &acme, "docs", json!({"id": 1, "title": "a"})).await.expect(201);
    let hide = json!({"deleted_at": "2026-11-30T00:00:00Z"});
    let refused =
        service.call("PATCH", "/v1/data/docs?id=eq.1").by(&acme.owner).json(&hide).send().await;
    let problem = refused.expect(403).json();
    assert_eq!(problem["code"], "row_policy");
    assert_eq!(problem["detail"], "the row policy live of docs refuses this row");
    let problem = insert(&service, &acme, "closed", json!({"id": 1})).await.expect(403).json();
    assert_eq!(problem["code"], "row_policy");
    assert_eq!(problem["detail"], "no row policy of closed lets this row in");

    let operator = service.operator().await;
    let violations = service.get("/v1/violations").by(&operator).send().await.expect(200).json();
    assert_eq!(violations.to_string().matches("sqlstate").count(), 0, "{violations}");
}
