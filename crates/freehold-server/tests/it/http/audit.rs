//! The record: who did what to whom, from where and why; who reads it; that nothing changes it.

use freehold::testing::PASSWORD;
use freehold::{MailKind, Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Person, Service, Setup, text};

/// What the record has, the newest first.
pub(super) async fn audit(service: &Service, by: &Person, query: &str) -> Vec<Value> {
    let answer = service.get(&format!("/v1/audit?limit=200{query}")).by(by).send().await;
    answer.expect(200).json()["items"].as_array().unwrap().clone()
}

pub(super) fn actions(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| text(&line["action"])).collect()
}

#[tokio::test]
async fn what_is_done_is_written_down_with_who_whom_where_and_why() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let viewer = service.person(&acme, "viewer", Role::Viewer).await;
    let path = format!("/v1/members/{}", viewer.id);
    let call = service.patch(&path, json!({"role": "member"})).by(&acme.owner).from([192, 0, 2, 7]);
    call.header("x-request-id", "request-7").send().await.expect(204);
    service.delete(&path).by(&acme.owner).send().await.expect(204);
    let suspend = format!("/v1/tenants/{}/suspend", globex.tenant.id);
    service.call("POST", &suspend).by(&operator).send().await.expect(200);
    service.log_in(&acme.owner.email).await;

    let own = audit(&service, &acme.owner, "").await;
    let expected = [
        "session.start",
        "member.remove",
        "member.role",
        "tenant.script",
        "owner.add",
        "tenant.create",
    ];
    assert_eq!(actions(&own), expected);
    let changed = &own[2];
    assert_eq!(changed["actor"], json!(acme.owner.id));
    assert_eq!(
        (&changed["target"], &changed["target_email"]),
        (&json!(viewer.id), &json!(viewer.email))
    );
    assert_eq!(changed["detail"], json!({"from": "viewer", "to": "member"}));
    assert_eq!(
        (&changed["origin"], &changed["request_id"]),
        (&json!("192.0.2.7"), &json!("request-7"))
    );
    let all = audit(&service, &operator, "").await;
    assert!(all.len() > own.len());
    let suspended = all.iter().find(|line| line["action"] == "tenant.suspend").unwrap();
    assert_eq!(suspended["why"], "POST /v1/tenants/{id}/suspend");
    assert_eq!(
        (&suspended["actor"], &suspended["tenant"]),
        (&json!(operator.id), &json!(globex.tenant.id))
    );
    // By tenant, by person, and in pages.
    let of_globex = audit(&service, &operator, &format!("&tenant={}", globex.tenant.id)).await;
    assert!(of_globex.iter().all(|line| line["tenant"] == json!(globex.tenant.id)));
    let of_viewer = audit(&service, &operator, &format!("&person={}", viewer.id)).await;
    assert_eq!(actions(&of_viewer), ["member.remove", "member.role"]);
    let after = format!("&after={}", text(&all[0]["id"]));
    assert_eq!(audit(&service, &operator, &after).await, all[1..]);
}

#[tokio::test]
async fn only_operators_and_owners_read_the_record_and_owners_their_own() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    for role in [Role::Viewer, Role::Member, Role::Admin] {
        let person = service.person(&acme, role.as_str(), role).await;
        service.get("/v1/audit").by(&person).send().await.refused(403, "forbidden");
    }
    let theirs = audit(&service, &acme.owner, &format!("&tenant={}", globex.tenant.id)).await;
    assert_eq!(theirs, [json!(null); 0]);
    let theirs = audit(&service, &acme.owner, &format!("&person={}", globex.owner.id)).await;
    assert_eq!(theirs, [json!(null); 0]);
}

#[tokio::test]
async fn the_record_finds_a_person_who_was_removed_by_id_and_by_address() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let ann = service.person(&acme, "ann", Role::Viewer).await;
    service.log_in(&ann.email).await;
    let path = format!("/v1/people/{}", ann.id);
    service.delete(&path).by(&operator).send().await.expect(204);
    let expected = ["person.remove", "member.remove", "session.start"];
    for query in [format!("&person={}", ann.id), format!("&email={}", ann.email)] {
        let lines = audit(&service, &operator, &query).await;
        assert_eq!(actions(&lines), expected, "{query}");
    }
    // What the address's person did is found too, and an owner finds the own tenant's part.
    let acted = audit(&service, &operator, &format!("&email={}", operator.email)).await;
    assert!(acted.is_empty(), "nothing was done to the operator: {acted:?}");
    let own = audit(&service, &acme.owner, &format!("&email={}", ann.email)).await;
    assert_eq!(actions(&own), ["member.remove", "session.start"]);
    assert_eq!(own[0]["detail"], json!({"role": "viewer"}));
    let others = audit(&service, &globex.owner, &format!("&email={}", ann.email)).await;
    assert_eq!(others, [json!(null); 0]);
    service.get("/v1/audit?email=nobody").by(&operator).send().await.refused(400, "invalid_input");
}

/// What injected SQL could do: nothing is changed or removed, nor written in another actor's name.
#[tokio::test]
async fn the_record_is_added_to_and_nothing_else_by_the_servers_login() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let context =
        service.freehold.tenant_context(acme.tenant.id, acme.owner.id.into()).await.unwrap();
    let forged = json!({"id": uuid::Uuid::now_v7(), "action": "forged", "actor_id": globex.owner.id,
                        "tenant_id": globex.tenant.id});
    let forge = format!("SELECT freehold.record_audit('{forged}')");
    let writes = [
        "UPDATE freehold.audit SET action = 'x'",
        "DELETE FROM freehold.audit",
        "INSERT INTO freehold.audit (id, action) VALUES (gen_random_uuid(), 'x')",
    ];
    for sql in writes.into_iter().chain([&*forge]) {
        let mut tx = service.freehold.begin(&context).await.unwrap();
        // As SQL in a tenant may become the app role again.
        tx.query("SELECT set_config('role', 'none', true)", &[]).await.unwrap();
        let refused = tx.execute(sql, &[]).await.unwrap_err();
        assert_eq!(refused.kind(), freehold::ErrorKind::Forbidden, "{sql}");
    }
    // The server's own login may add, as the actor and the tenant of its context.
    let database = service.database();
    let actor = freehold::Actor { id: acme.owner.id.into(), role: freehold::Role::Owner };
    let sealed = database.sealed_context(acme.tenant.id, actor).await.unwrap();
    let catalog = crate::support::connect(&database.catalog_url()).await;
    let enter = format!("SELECT freehold.enter_catalog('{sealed}')");
    for sql in writes.into_iter().chain(["TRUNCATE freehold.audit"]) {
        assert!(catalog.batch_execute(&format!("BEGIN; {enter}; {sql}")).await.is_err(), "{sql}");
        catalog.batch_execute("ROLLBACK").await.unwrap();
    }
    catalog.batch_execute(&format!("BEGIN; {enter}; {forge}; COMMIT")).await.unwrap();
    let operator = service.operator().await;
    let lines = audit(&service, &operator, "").await;
    let line = lines.iter().find(|line| line["action"] == "forged").unwrap();
    assert_eq!((&line["actor"], &line["tenant"]), (&json!(acme.owner.id), &json!(acme.tenant.id)));
}

/// The newest entry of an action.
async fn newest(service: &Service, operator: &Person, action: &str) -> Value {
    let lines = audit(service, operator, "").await;
    let line = lines.iter().find(|line| line["action"] == action);
    line.unwrap_or_else(|| panic!("no {action}: {:?}", actions(&lines))).clone()
}

/// Every request of an operator that changes something, and the action that it is recorded as.
async fn changes(service: &Service) -> Vec<(&'static str, String, Option<Value>, &'static str)> {
    let (acme, globex) = service.two_tenants().await;
    let person = service.person(&acme, "ann", Role::Viewer).await.id;
    let removed = service.person(&acme, "ben", Role::Viewer).await.id;
    let (acme, globex) = (acme.tenant.id, globex.tenant.id);
    let other = json!({"email": "other@freehold.example", "password": PASSWORD});
    let tenant = json!({"slug": "initech", "name": "Initech"});
    let owner = json!({"email": "new@globex.example", "password": PASSWORD});
    let on = |id: &Uuid, what: &str| format!("/v1/people/{id}/{what}");
    vec![
        ("POST", on(&person, "disable"), None, "person.disable"),
        ("POST", on(&person, "enable"), None, "person.enable"),
        ("POST", on(&person, "reset"), None, "person.reset"),
        ("DELETE", on(&person, "sessions"), None, "session.end"),
        ("DELETE", format!("/v1/people/{removed}"), None, "person.remove"),
        ("POST", "/v1/operators".to_owned(), Some(other), "operator.create"),
        ("POST", "/v1/tenants".to_owned(), Some(tenant), "tenant.create"),
        ("POST", format!("/v1/tenants/{globex}/owners"), Some(owner), "owner.add"),
        ("PUT", format!("/v1/tenants/{acme}/weight"), Some(json!({"weight": 2})), "tenant.weigh"),
        ("POST", format!("/v1/tenants/{acme}/suspend"), None, "tenant.suspend"),
        ("POST", format!("/v1/tenants/{acme}/resume"), None, "tenant.resume"),
    ]
}

async fn request(
    service: &Service,
    by: &Person,
    (method, path, body): (&str, &str, &Option<Value>),
) -> crate::support::Answer {
    let call = service.call(method, path).by(by);
    match body {
        Some(body) => call.json(body).send().await,
        None => call.send().await,
    }
}

#[tokio::test]
async fn an_operators_reason_is_recorded_with_each_change() {
    let service = Service::start(Setup::default()).await;
    let operator = service.operator().await;
    for (method, path, body, action) in changes(&service).await {
        let refused = async |query: &str| {
            let path = format!("{path}?{query}");
            request(&service, &operator, (method, &path, &body))
                .await
                .refused(400, "invalid_input");
        };
        refused("why=%20").await;
        refused("why=a%0Ab").await;
        refused(&format!("why={}", "a".repeat(501))).await;
        refused("reason=other").await;
        let path = format!("{path}?why=ticket%2042:%20{action}");
        let answer = request(&service, &operator, (method, &path, &body)).await;
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
        let line = newest(&service, &operator, action).await;
        assert_eq!(line["why"], format!("ticket 42: {action}"));
        assert_eq!(line["actor"], json!(operator.id));
    }
    let other = newest(&service, &operator, "operator.create").await["target"].clone();
    let path = format!("/v1/operators/{}?why=left", text(&other));
    service.delete(&path).by(&operator).send().await.expect(204);
    assert_eq!(newest(&service, &operator, "operator.revoke").await["why"], "left");
}

#[tokio::test]
async fn what_happens_to_sessions_and_passwords_is_recorded() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;

    // A password that an invitation sets, for a member and for an owner.
    let invited = json!({"email": "new@acme.example", "role": "member"});
    service.post("/v1/invitations", invited).by(&acme.owner).send().await.expect(201);
    let token = service.letter_token(MailKind::Invitation, "new@acme.example").await;
    let accept = json!({"token": token, "password": PASSWORD});
    service.post("/v1/invitations/accept", accept).from([192, 0, 2, 8]).send().await.expect(200);
    let set = newest(&service, &operator, "password.set").await;
    assert_eq!(
        (&set["target_email"], &set["origin"], &set["tenant"]),
        (&json!("new@acme.example"), &json!("192.0.2.8"), &json!(acme.tenant.id))
    );
    assert_eq!(set["actor"], set["target"]);

    // A session that moves.
    let token = service.sign_in(&acme.owner.email).await;
    let owners = format!("/v1/tenants/{}/owners", globex.tenant.id);
    let existing = json!({"email": acme.owner.email, "existing": true});
    service.post(&owners, existing).by(&operator).send().await.expect(204);
    let switch = json!({"tenant": "globex"});
    service.post("/v1/auth/switch", switch).bearer(&token).send().await.expect(200);
    let moved = newest(&service, &operator, "session.switch").await;
    assert_eq!(
        (&moved["actor"], &moved["tenant"]),
        (&json!(acme.owner.id), &json!(globex.tenant.id)),
        "{moved}"
    );
    // The owners of the one tenant do not read of the other.
    for (owner, other) in [(&globex.owner, &acme), (&acme.owner, &globex)] {
        let own = json!(audit(&service, owner, "").await).to_string();
        assert!(!own.contains(&other.tenant.id.to_string()), "{own}");
    }

    // Requests, of known and unknown addresses alike: by nobody, since anybody may make them.
    for email in [acme.owner.email.as_str(), "unknown@else.example"] {
        let reset = service.post("/v1/auth/reset", json!({"email": email}));
        reset.from([192, 0, 2, 9]).send().await.expect(202);
        let asked = newest(&service, &operator, "password.request").await;
        assert_eq!(
            (&asked["target_email"], &asked["origin"]),
            (&json!(email), &json!("192.0.2.9"))
        );
        assert_eq!((&asked["actor"], &asked["target"]), (&Value::Null, &Value::Null));
        let sign_up = json!({"slug": "initech", "name": "Initech", "email": email});
        service.post("/v1/signup", sign_up).send().await.expect(202);
        let asked = newest(&service, &operator, "signup.request").await;
        assert_eq!(
            (&asked["target_email"], &asked["detail"]),
            (&json!(email), &json!({"slug": "initech"}))
        );
    }
}

/// Addresses that strangers typed are nobody's yet, so they are not kept for longer than it takes to look
/// into them.
#[tokio::test]
async fn requests_by_strangers_are_forgotten_after_a_month_and_the_rest_after_four_hundred_days() {
    let service = Service::start(Setup::default()).await;
    service.two_tenants().await;
    let operator = service.operator().await;
    let reset = json!({"email": "unknown@else.example"});
    service.post("/v1/auth/reset", reset).send().await.expect(202);
    let sign_up = json!({"slug": "initech", "name": "Initech", "email": "unknown@else.example"});
    service.post("/v1/signup", sign_up).send().await.expect(202);
    let has = async |action: &str| {
        service.freehold.people().prune().await.unwrap();
        actions(&audit(&service, &operator, "").await).contains(&action.to_owned())
    };
    let age = async |days: i32| {
        let sql = "UPDATE freehold.audit SET occurred_at = now() - make_interval(days => $1)";
        service.sql().await.execute(sql, &[&days]).await.unwrap();
    };
    age(29).await;
    assert!(has("password.request").await && has("signup.request").await);
    age(31).await;
    assert!(!has("password.request").await && !has("signup.request").await);
    age(399).await;
    assert!(has("tenant.create").await);
    age(401).await;
    assert!(!has("tenant.create").await);
}
