//! From an invitation to a membership.

use freehold::testing::PASSWORD;
use freehold::{MailKind, OperatorContext, Role};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::audit::{actions, audit};
use crate::support::{Answer, Person, Service, Setup, text};

/// The invitation, with the token of its message.
async fn invite(service: &Service, by: &Person, email: &str, role: &str) -> Value {
    let body = json!({"email": email, "role": role});
    let mut made = service.post("/v1/invitations", body).by(by).send().await.expect(201).json();
    assert_eq!(made.get("token"), None, "the token is for the address's owner alone");
    let token = service.letter_token(MailKind::Invitation, &text(&made["email"])).await;
    made["token"] = json!(token);
    made
}

async fn accept(service: &Service, token: &Value, password: &str) -> Answer {
    let body = json!({"token": token, "password": password, "name": "Ann"});
    service.post("/v1/invitations/accept", body).send().await
}

async fn waiting(service: &Service, by: &Person) -> Vec<String> {
    let page = service.get("/v1/invitations").by(by).send().await.expect(200).json();
    page["items"].as_array().unwrap().iter().map(|item| text(&item["email"])).collect()
}

#[tokio::test]
async fn somebody_new_accepts_and_is_a_member_with_the_role_that_was_offered() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let made = invite(&service, &acme.owner, "Ann@Else.example", "member").await;
    assert_eq!((&made["email"], &made["role"]), (&json!("ann@else.example"), &json!("member")));
    assert!(text(&made["token"]).starts_with("fhi_"));
    let listed = service.get("/v1/invitations").by(&acme.owner).send().await.json();
    assert_eq!(listed["items"][0]["id"], made["id"]);
    assert_eq!(listed["items"][0].get("token"), None, "the token is in its letter alone");

    // A password that breaks the rules does not use the invitation up.
    accept(&service, &made["token"], "short").await.refused(400, "invalid_input");
    let tenant = accept(&service, &made["token"], "ann's own password").await.expect(200).json();
    assert_eq!(tenant, json!({"id": acme.tenant.id, "slug": "acme", "name": "acme"}));
    assert_eq!(waiting(&service, &acme.owner).await, [""; 0]);
    accept(&service, &made["token"], "ann's own password").await.refused(404, "not_found");

    let body = json!({"email": "ann@else.example", "password": "ann's own password"});
    let tokens = service.post("/v1/auth/login", body).send().await.expect(200).json();
    assert_eq!(tokens["role"], "member");
    let token = text(&tokens["access_token"]);
    let me = service.get("/v1/me").bearer(&token).send().await.json();
    assert_eq!(me["name"], "Ann");
    let product = json!({"sku": "A", "name": "A", "price_cents": 1});
    service.post("/v1/data/products", product).bearer(&token).send().await.expect(201);
}

#[tokio::test]
async fn somebody_known_proves_themselves_and_belongs_to_both() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let made = invite(&service, &acme.owner, &globex.owner.email, "viewer").await;
    accept(&service, &made["token"], "not the password").await.refused(401, "unauthenticated");
    assert_eq!(waiting(&service, &acme.owner).await, std::slice::from_ref(&globex.owner.email));
    accept(&service, &made["token"], PASSWORD).await.expect(200);
    let body = json!({"email": globex.owner.email, "password": PASSWORD, "tenant": "acme"});
    let tokens = service.post("/v1/auth/login", body).send().await.expect(200).json();
    assert_eq!(tokens["role"], "viewer");
    let me = service.get("/v1/me").by(&globex.owner).send().await.json();
    let roles: Vec<_> = me["tenants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (text(&t["slug"]), text(&t["role"])))
        .collect();
    assert_eq!(
        roles,
        [("acme".into(), "viewer".into()), ("globex".to_owned(), "owner".to_owned())]
    );
}

/// Support resets a person whose mail somebody else has read. The invitation in it must not give the thief
/// a password; sent again, it works.
#[tokio::test]
async fn an_invitation_that_was_sent_before_a_reset_gives_nobody_a_password() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let made = invite(&service, &acme.owner, &globex.owner.email, "viewer").await;
    let reset = format!("/v1/people/{}/reset", globex.owner.id);
    service.call("POST", &reset).by(&operator).send().await.expect(200);
    let new = "a password of the thief's";
    accept(&service, &made["token"], new).await.refused(404, "not_found");
    assert_eq!(waiting(&service, &acme.owner).await, std::slice::from_ref(&globex.owner.email));

    let resend = format!("/v1/invitations/{}/resend", text(&made["id"]));
    service.call("POST", &resend).by(&acme.owner).send().await.expect(202);
    let token = json!(service.letter_token(MailKind::Invitation, &globex.owner.email).await);
    accept(&service, &token, new).await.expect(200);
    // The link of the reset has no use any more, and the person is told of the password.
    let kinds: Vec<MailKind> = service.letters().await.iter().map(|letter| letter.kind).collect();
    assert!(kinds.contains(&MailKind::PasswordChanged), "{kinds:?}");
    let body = json!({"email": globex.owner.email, "password": new, "tenant": "acme"});
    service.post("/v1/auth/login", body).send().await.expect(200);
}

#[tokio::test]
async fn an_invitation_is_good_once_however_many_accept_it_together() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let made = invite(&service, &acme.owner, "ann@else.example", "viewer").await;
    let answers = join_all((0..4).map(|_| accept(&service, &made["token"], PASSWORD))).await;
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| [401, 404, 409].contains(&answer.status)).count();
    assert_eq!(
        (accepted, refused),
        (1, 3),
        "{:?}",
        answers.iter().map(|a| a.status).collect::<Vec<_>>()
    );
    let members = service.get("/v1/members").by(&acme.owner).send().await.json();
    assert_eq!(members["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_later_invitation_takes_the_place_of_the_former() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let first = invite(&service, &acme.owner, "ann@else.example", "admin").await;
    let second = invite(&service, &acme.owner, "ANN@else.example", "viewer").await;
    assert_eq!(waiting(&service, &acme.owner).await, ["ann@else.example"]);
    accept(&service, &first["token"], PASSWORD).await.refused(404, "not_found");
    accept(&service, &second["token"], PASSWORD).await.expect(200);
    let members = service.get("/v1/members").by(&acme.owner).send().await.json();
    assert_eq!(members["items"][0]["role"], "viewer");
    // A member is not invited again.
    let body = json!({"email": "ann@else.example", "role": "admin"});
    let answer = service.post("/v1/invitations", body).by(&acme.owner).send().await;
    assert_eq!(answer.refused(409, "conflict").json()["field"], "email");
}

#[tokio::test]
async fn an_invitation_that_was_taken_back_or_ran_out_is_unknown() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let unknown = json!(format!("fhi_{}", "A".repeat(43)));
    let unknown = accept(&service, &unknown, PASSWORD).await.refused(404, "not_found").bytes();

    let taken_back = invite(&service, &acme.owner, "ann@else.example", "viewer").await;
    let path = format!("/v1/invitations/{}", text(&taken_back["id"]));
    service.delete(&path).by(&globex.owner).send().await.refused(404, "not_found");
    service.delete(&path).by(&acme.owner).send().await.expect(204);
    service.delete(&path).by(&acme.owner).send().await.refused(404, "not_found");
    let late = invite(&service, &acme.owner, "bob@else.example", "viewer").await;
    let expire = "UPDATE freehold.invitation SET expires_at = now() - interval '1 second'";
    service.sql().await.execute(expire, &[]).await.unwrap();
    assert_eq!(waiting(&service, &acme.owner).await, [""; 0]);
    for token in [taken_back["token"].clone(), late["token"].clone(), json!(""), json!("fhr_AAAA")]
    {
        let answer = accept(&service, &token, PASSWORD).await.refused(404, "not_found");
        assert_eq!(answer.bytes(), unknown, "{token}");
    }
    let people = service.catalog_counts().await[1];
    assert_eq!(people, 2, "nobody was made");
}

#[tokio::test]
async fn a_suspension_ends_the_invitations_of_members_and_an_operators_waits() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let made = invite(&service, &acme.owner, "ann@else.example", "viewer").await;
    let owner = json!({"email": "owner@else.example"});
    let owners = format!("/v1/tenants/{}/owners", acme.tenant.id);
    service.post(&owners, owner).by(&operator).send().await.expect(204);
    let by_operator = json!(service.letter_token(MailKind::Invitation, "owner@else.example").await);

    let context = OperatorContext::system("a test");
    service.freehold.tenants().suspend(&context, acme.tenant.id).await.unwrap();
    accept(&service, &by_operator, PASSWORD).await.refused(403, "tenant_suspended");
    assert_eq!(kept(&service).await, ["owner@else.example"]);
    service.freehold.tenants().resume(&context, acme.tenant.id).await.unwrap();
    accept(&service, &made["token"], PASSWORD).await.refused(404, "not_found");

    // One that a server made which did not know of the suspension yet ends with the suspension.
    invite(&service, &acme.owner, "ann@else.example", "viewer").await;
    let unseen = "UPDATE freehold.tenant SET status = 'suspended' WHERE id = $1";
    service.sql().await.execute(unseen, &[&acme.tenant.id.as_uuid()]).await.unwrap();
    service.freehold.tenants().resume(&context, acme.tenant.id).await.unwrap();
    assert_eq!(kept(&service).await, ["owner@else.example"]);
    accept(&service, &by_operator, PASSWORD).await.expect(200);
}

/// The invitations that are in the catalog, whether or not anybody is shown them.
async fn kept(service: &Service) -> Vec<String> {
    let sql = "SELECT email FROM freehold.invitation ORDER BY email";
    let rows = service.sql().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Rather than hidden, they are deleted, and the record says with whose right they ended.
#[tokio::test]
async fn invitations_that_end_with_a_right_are_deleted_and_recorded() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let disable = |person: &Person| format!("/v1/people/{}/disable", person.id);
    let member = |person: &Person| format!("/v1/members/{}", person.id);
    let ways = ["lowered", "removed", "disabled", "deleted"];
    for (at, way) in ways.into_iter().enumerate() {
        let owner = service.person(&acme, way, Role::Owner).await;
        let (above, below) = (format!("above{at}@x.example"), format!("below{at}@x.example"));
        invite(&service, &owner, &above, "owner").await;
        invite(&service, &owner, &below, "viewer").await;
        let call = match way {
            "lowered" => service.patch(&member(&owner), json!({"role": "admin"})).by(&acme.owner),
            "removed" => service.delete(&member(&owner)).by(&acme.owner),
            "disabled" => service.call("POST", &disable(&owner)).by(&operator),
            _ => service.delete(&format!("/v1/people/{}", owner.id)).by(&operator),
        };
        assert!(call.send().await.status < 300, "{way}");
        // An admin may still invite a viewer.
        let left = if way == "lowered" { vec![below] } else { Vec::new() };
        assert_eq!(kept(&service).await, left, "{way}");
        let lines = audit(&service, &operator, &format!("&email={above}")).await;
        assert_eq!(actions(&lines), ["member.invite_end", "member.invite"], "{way}");
        assert_eq!(lines[0]["tenant"], json!(acme.tenant.id));
        assert_eq!(
            lines[0]["detail"],
            json!({"email": above, "role": "owner", "invited_by": owner.id})
        );
        service.sql().await.batch_execute("DELETE FROM freehold.invitation").await.unwrap();
    }
}

#[tokio::test]
async fn operators_list_and_withdraw_every_invitation_of_a_tenant() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let ann = invite(&service, &acme.owner, "ann@else.example", "owner").await;
    invite(&service, &globex.owner, "ben@else.example", "viewer").await;
    let owners = format!("/v1/tenants/{}/owners", acme.tenant.id);
    let owner = json!({"email": "zoe@else.example"});
    service.post(&owners, owner).by(&operator).send().await.expect(204);

    let path = format!("/v1/tenants/{}/invitations", acme.tenant.id);
    let listed = async |query: &str| -> Vec<Value> {
        let answer = service.get(&format!("{path}{query}")).by(&operator).send().await.expect(200);
        answer.json()["items"].as_array().unwrap().clone()
    };
    let of = |lines: Vec<Value>| -> Vec<(String, bool, Value)> {
        let line = |line: &Value| {
            let by_operator = line["by_operator"].as_bool().unwrap();
            (text(&line["email"]), by_operator, line["invited_by"].clone())
        };
        lines.iter().map(line).collect()
    };
    let anns = ("ann@else.example".to_owned(), false, json!(acme.owner.id));
    let zoes = ("zoe@else.example".to_owned(), true, json!(operator.id));
    assert_eq!(of(listed("").await), [anns.clone(), zoes.clone()]);
    assert_eq!(of(listed("?limit=1").await), [anns]);
    assert_eq!(of(listed("?after=ann@else.example").await), std::slice::from_ref(&zoes));

    // By the tenant that it is of, and nobody else.
    let id = text(&ann["id"]);
    let elsewhere = format!("/v1/tenants/{}/invitations/{id}", globex.tenant.id);
    service.delete(&elsewhere).by(&operator).send().await.refused(404, "not_found");
    let withdraw = format!("{path}/{id}");
    service.delete(&withdraw).by(&acme.owner).send().await.refused(403, "wrong_scope");
    let why = format!("{withdraw}?why=sent%20to%20a%20stranger");
    service.delete(&why).by(&operator).send().await.expect(204);
    service.delete(&withdraw).by(&operator).send().await.refused(404, "not_found");
    assert_eq!(of(listed("").await), [zoes]);
    accept(&service, &ann["token"], PASSWORD).await.refused(404, "not_found");
    let line = &audit(&service, &operator, "&email=ann@else.example").await[0];
    assert_eq!(line["action"], "member.uninvite");
    assert_eq!(
        (&line["actor"], &line["why"], &line["tenant"]),
        (&json!(operator.id), &json!("sent to a stranger"), &json!(acme.tenant.id))
    );
    let nowhere = format!("/v1/tenants/{}/invitations", uuid::Uuid::new_v4());
    service.get(&nowhere).by(&operator).send().await.refused(404, "not_found");
}

#[tokio::test]
async fn only_those_who_manage_members_invite_and_see_who_is_invited() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let made = invite(&service, &acme.owner, "ann@else.example", "owner").await;
    let path = format!("/v1/invitations/{}", text(&made["id"]));
    let body = json!({"email": "bob@else.example", "role": "viewer"});
    for role in [Role::Viewer, Role::Member] {
        let person = service.person(&acme, role.as_str(), role).await;
        service.get("/v1/invitations").by(&person).send().await.refused(403, "forbidden");
        let call = service.post("/v1/invitations", body.clone()).by(&person);
        call.send().await.refused(403, "forbidden");
        service.delete(&path).by(&person).send().await.refused(403, "forbidden");
    }
    let admin = service.person(&acme, "admin", Role::Admin).await;
    assert_eq!(waiting(&service, &admin).await, ["ann@else.example"]);
    // An admin cannot revoke an invitation that an admin could not have made.
    service.delete(&path).by(&admin).send().await.refused(403, "forbidden");
    invite(&service, &admin, "bob@else.example", "admin").await;
}

#[tokio::test]
async fn an_invitation_ends_with_its_inviters_right_to_make_it() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    let lower = |role: &'static str| {
        let service = &service;
        let owner = acme.owner.clone();
        async move |person: Person| {
            let path = format!("/v1/members/{}", person.id);
            let call = service.patch(&path, json!({"role": role})).by(&owner);
            call.send().await.expect(204);
        }
    };
    // Removed.
    let admin = service.person(&acme, "a1", Role::Admin).await;
    let made = invite(&service, &admin, "one@else.example", "viewer").await;
    let path = format!("/v1/members/{}", admin.id);
    service.delete(&path).by(&acme.owner).send().await.expect(204);
    assert_eq!(waiting(&service, &acme.owner).await, [""; 0]);
    accept(&service, &made["token"], PASSWORD).await.refused(404, "not_found");
    // The inviter's role is lowered below the right to invite.
    let admin = service.person(&acme, "a2", Role::Admin).await;
    let made = invite(&service, &admin, "two@else.example", "viewer").await;
    lower("member")(admin).await;
    accept(&service, &made["token"], PASSWORD).await.refused(404, "not_found");
    // Lowered, so that this may not be offered any more, and that still may.
    let owner = service.person(&acme, "a3", Role::Owner).await;
    let above = invite(&service, &owner, "three@else.example", "owner").await;
    let below = invite(&service, &owner, "four@else.example", "admin").await;
    lower("admin")(owner).await;
    assert_eq!(waiting(&service, &acme.owner).await, ["four@else.example"]);
    accept(&service, &above["token"], PASSWORD).await.refused(404, "not_found");
    accept(&service, &below["token"], PASSWORD).await.expect(200);
    // Disabled.
    let admin = service.person(&acme, "a4", Role::Admin).await;
    let made = invite(&service, &admin, "five@else.example", "viewer").await;
    let path = format!("/v1/people/{}/disable", admin.id);
    service.call("POST", &path).by(&operator).send().await.expect(200);
    accept(&service, &made["token"], PASSWORD).await.refused(404, "not_found");
    // The catalog's state at the moment of acceptance decides.
    let admin = service.person(&acme, "a5", Role::Admin).await;
    let made = invite(&service, &admin, "six@else.example", "viewer").await;
    let sql = service.sql().await;
    let gone = "DELETE FROM freehold.membership WHERE identity_id = $1";
    sql.execute(gone, &[&admin.id]).await.unwrap();
    accept(&service, &made["token"], PASSWORD).await.refused(404, "not_found");
    let nobody = "SELECT count(*) FROM freehold.identity WHERE email LIKE '%@else.example'";
    assert_eq!(sql.query_one(nobody, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn an_admin_neither_replaces_nor_resends_nor_revokes_an_owners_invitation() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let admin = service.person(&acme, "admin", Role::Admin).await;
    let made = invite(&service, &acme.owner, "ann@else.example", "viewer").await;
    let path = format!("/v1/invitations/{}", text(&made["id"]));
    let body = json!({"email": "ann@else.example", "role": "member"});
    let replace = service.post("/v1/invitations", body).by(&admin).send().await;
    replace.refused(403, "forbidden");
    let resend = service.call("POST", &format!("{path}/resend")).by(&admin).send().await;
    resend.refused(403, "forbidden");
    service.delete(&path).by(&admin).send().await.refused(403, "forbidden");
    // An owner may do all of this with an admin's invitation. The message that is sent again has another
    // token.
    let admins = invite(&service, &admin, "bob@else.example", "viewer").await;
    let path = format!("/v1/invitations/{}/resend", text(&admins["id"]));
    service.call("POST", &path).by(&acme.owner).send().await.expect(202);
    let again = service.letter_token(MailKind::Invitation, "bob@else.example").await;
    accept(&service, &admins["token"], PASSWORD).await.refused(404, "not_found");
    accept(&service, &json!(again), PASSWORD).await.expect(200);
    accept(&service, &made["token"], PASSWORD).await.expect(200);
}

#[tokio::test]
async fn somebody_known_accepts_signed_in_and_nobody_accepts_for_another() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let made = invite(&service, &acme.owner, &globex.owner.email, "viewer").await;
    let send = |by: Option<&Person>, body: Value| {
        let call = service.post("/v1/invitations/accept", body);
        match by {
            Some(by) => call.by(by).send(),
            None => call.send(),
        }
    };
    let body = json!({"token": made["token"]});
    send(None, body.clone()).await.refused(401, "unauthenticated");
    let other = service.person(&acme, "other", Role::Viewer).await;
    send(Some(&other), body.clone()).await.refused(403, "forbidden");
    // A password given by a known person is checked, never set.
    let guess = json!({"token": made["token"], "password": "a stranger's choice"});
    send(None, guess).await.refused(401, "unauthenticated");
    service.log_in(&globex.owner.email).await;
    send(Some(&globex.owner), body.clone()).await.expect(200);
    send(Some(&globex.owner), body).await.refused(404, "not_found");
    // An invalid access token is refused, not treated as absent.
    let made = invite(&service, &acme.owner, "new@else.example", "viewer").await;
    let body = json!({"token": made["token"], "password": PASSWORD});
    let call = service.post("/v1/invitations/accept", body).bearer("nonsense").send().await;
    call.refused(401, "invalid_token");
}

/// With open sign-up, a stranger may have used the address first; the reader of the message is its owner.
#[tokio::test]
async fn who_accepts_an_invitation_shares_nothing_with_whoever_typed_the_address_before() {
    let setup = Setup { signup: freehold_server::config::SignUpMode::Open, ..Setup::default() };
    let service = Service::start(setup).await;
    let acme = service.tenant("acme").await;
    let body =
        json!({"slug": "trap", "name": "Trap", "email": "ann@else.example", "password": PASSWORD});
    service.post("/v1/signup", body).send().await.expect(201);
    let stranger = service.log_in("ann@else.example").await;
    let made = invite(&service, &acme.owner, "ann@else.example", "admin").await;
    let look = service.post("/v1/links/inspect", json!({"token": made["token"]})).send().await;
    assert_eq!(look.expect(200).json()["password"], "choose", "nobody proven has the address");
    accept(&service, &made["token"], "ann's own password").await.expect(200);
    let refresh = json!({"refresh_token": stranger["refresh_token"]});
    service.post("/v1/auth/refresh", refresh).send().await.refused(401, "unauthenticated");
    let old = json!({"email": "ann@else.example", "password": PASSWORD});
    service.post("/v1/auth/login", old).send().await.refused(401, "unauthenticated");
    let new = json!({"email": "ann@else.example", "password": "ann's own password"});
    let tokens = service.post("/v1/auth/login", new).send().await.expect(200).json();
    assert_eq!((&tokens["role"], &tokens["tenant"]["slug"]), (&json!("admin"), &json!("acme")));
}
