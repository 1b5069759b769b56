//! The members of a tenant, and the permissions of each role.

use std::fmt::Write as _;

use freehold::Role;
use futures_util::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use super::operations::{self, Objects, sample};
use crate::support::{Person, Service, Setup, text};

/// All permissions, reviewed as a whole. A status below 300 means permitted, 403 refused because of role or
/// scope; other statuses show what a permitted request would get.
#[tokio::test]
async fn each_role_may_do_on_each_endpoint_what_was_reviewed() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    let operator = service.operator().await;
    let mut callers = Vec::new();
    for role in [Role::Viewer, Role::Member, Role::Admin, Role::Owner] {
        callers.push((
            role.as_str(),
            Some(service.person(&acme, &format!("a-{}", role.as_str()), role).await),
        ));
    }
    callers.push(("operator", Some(operator)));
    callers.push(("nobody", None));
    let mut table = format!("{:<34}", "");
    for (name, _) in &callers {
        let _ = write!(table, "{name:>10}");
    }
    for (method, path) in operations::all() {
        let _ = write!(table, "\n{:<34}", format!("{method} {path}"));
        for (_, caller) in &callers {
            // An operator may as well suspend another tenant than the one that is asked.
            let place = if path.starts_with("/v1/tenants/") { &globex } else { &acme };
            let mut objects = Objects::of(&service, place).await;
            objects.order = fresh_order(&service, &acme.owner, objects.customer).await;
            objects.customer = acme.id("cy");
            objects.product = acme.id("drill");
            let who = caller.as_ref().unwrap_or(&acme.owner);
            let mut request = sample(&method, &path, &objects, who).unwrap();
            if (method.as_str(), path.as_str()) == ("POST", "/v1/auth/login") {
                request.body.as_mut().unwrap().as_object_mut().unwrap().remove("tenant");
            }
            let mut call = request.call(&service);
            if let Some(person) = caller {
                // A token of a session that lives.
                let token = service.sign_in(&person.email).await;
                call = call.bearer(&token);
            }
            let _ = write!(table, "{:>10}", call.send().await.status);
            if path.ends_with("/suspend") {
                let context = freehold::OperatorContext::system("a test");
                service.freehold.tenants().resume(&context, globex.tenant.id).await.unwrap();
            }
        }
    }
    insta::assert_snapshot!("roles_and_endpoints", table);
}

/// An order of acme's that may be deleted.
async fn fresh_order(service: &Service, owner: &Person, _: Uuid) -> Uuid {
    let customers = service.get("/v1/data/customers?select=id&limit=1").by(owner).send().await;
    let body = json!({"customer_id": customers.json()[0]["id"]});
    let call = service.post("/v1/data/orders", body).by(owner);
    let made = call.header("prefer", "return=representation").send().await.expect(201).json();
    text(&made[0]["id"]).parse().unwrap()
}

async fn members(service: &Service, by: &Person, query: &str) -> Vec<(String, String)> {
    let path = format!("/v1/members{query}");
    let page = service.get(&path).by(by).send().await.expect(200).json();
    let item = |item: &Value| (text(&item["email"]), text(&item["role"]));
    page["items"].as_array().unwrap().iter().map(item).collect()
}

#[tokio::test]
async fn members_are_listed_in_pages_and_only_ones_own() {
    let service = Service::start(Setup::default()).await;
    let (acme, globex) = service.two_tenants().await;
    service.person(&acme, "ann", Role::Viewer).await;
    service.person(&acme, "zoe", Role::Admin).await;
    service.person(&globex, "hank", Role::Member).await;
    let role = |email: &str, role: &str| (format!("{email}@acme.example"), role.to_owned());
    let all = [role("ann", "viewer"), role("owner", "owner"), role("zoe", "admin")];
    assert_eq!(members(&service, &acme.owner, "").await, all);
    assert_eq!(members(&service, &acme.owner, "?limit=1").await, all[..1]);
    let after = "?limit=1&after=ann@acme.example";
    assert_eq!(members(&service, &acme.owner, after).await, all[1..2]);
    let page = service.get("/v1/members").by(&acme.owner).send().await.json();
    let keys: Vec<_> = page["items"][0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["email", "id", "joined_at", "name", "role"]);
}

#[tokio::test]
async fn the_last_owner_stays_and_keeps_the_role() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let admin = service.person(&acme, "admin", Role::Admin).await;
    let own = format!("/v1/members/{}", acme.owner.id);
    let other = format!("/v1/members/{}", admin.id);
    for role in ["admin", "member", "viewer"] {
        let call = service.patch(&own, json!({"role": role})).by(&acme.owner);
        call.send().await.refused(409, "conflict");
    }
    service.delete(&own).by(&acme.owner).send().await.refused(409, "conflict");
    // Changing to the present role is allowed.
    service.patch(&own, json!({"role": "owner"})).by(&acme.owner).send().await.expect(204);
    service.patch(&other, json!({"role": "owner"})).by(&acme.owner).send().await.expect(204);
    service.delete(&own).by(&acme.owner).send().await.expect(204);
    let left = members(&service, &admin, "").await;
    assert_eq!(left, [("admin@acme.example".to_owned(), "owner".to_owned())]);
}

#[tokio::test]
async fn of_two_owners_who_leave_at_once_one_stays() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    for round in 0..5 {
        let second = service.person(&acme, &format!("second{round}"), Role::Owner).await;
        let third = service.person(&acme, &format!("third{round}"), Role::Owner).await;
        // The first owner makes room, so that two are left.
        let sql = service.sql().await;
        let others = [second.id, third.id];
        sql.execute(
            "DELETE FROM freehold.membership WHERE identity_id <> ALL($1)",
            &[&&others[..]],
        )
        .await
        .unwrap();
        let leave = |person: &Person| {
            service.delete(&format!("/v1/members/{}", person.id)).by(person).send()
        };
        let answers = join_all([leave(&second), leave(&third)]).await;
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 409], "round {round}");
    }
}

#[tokio::test]
async fn nobody_gives_or_takes_a_role_above_their_own() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let admin = service.person(&acme, "admin", Role::Admin).await;
    let member = service.person(&acme, "member", Role::Member).await;
    let change = |whom: Uuid, role: &str, by: &Person| {
        service.patch(&format!("/v1/members/{whom}"), json!({"role": role})).by(by).send()
    };
    let remove =
        |whom: Uuid, by: &Person| service.delete(&format!("/v1/members/{whom}")).by(by).send();
    change(admin.id, "owner", &admin).await.refused(403, "forbidden");
    change(member.id, "owner", &admin).await.refused(403, "forbidden");
    change(acme.owner.id, "member", &admin).await.refused(403, "forbidden");
    remove(acme.owner.id, &admin).await.refused(403, "forbidden");
    change(member.id, "viewer", &member).await.refused(403, "forbidden");
    remove(admin.id, &member).await.refused(403, "forbidden");
    for role in ["operator", "superuser", "", "Owner", "owner "] {
        let answer = change(member.id, role, &acme.owner).await.refused(400, "invalid_input");
        assert_eq!(answer.json()["field"], "role", "{role:?}");
    }
    let invite = json!({"email": "new@acme.example", "role": "owner"});
    service.post("/v1/invitations", invite).by(&admin).send().await.refused(403, "forbidden");
    let roles = members(&service, &acme.owner, "").await;
    let roles: Vec<_> = roles.iter().map(|(_, role)| role.as_str()).collect();
    assert_eq!(roles, ["admin", "member", "owner"]);
    // Every member may leave; an admin may grant and revoke roles up to their own.
    change(member.id, "admin", &admin).await.expect(204);
    change(member.id, "viewer", &admin).await.expect(204);
    remove(member.id, &member).await.expect(204);
    remove(admin.id, &admin).await.expect(204);
}

#[tokio::test]
async fn what_is_no_members_id_names_nobody() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let body = json!({"role": "viewer"});
    let unknown = service.patch(&format!("/v1/members/{}", Uuid::new_v4()), body.clone());
    let unknown = unknown.by(&acme.owner).send().await.refused(404, "not_found").bytes();
    for id in ["x", "%00", "0", "00000000-0000-0000-0000-000000000000", "owner@acme.example"] {
        let path = format!("/v1/members/{id}");
        for call in [service.patch(&path, body.clone()), service.delete(&path)] {
            let answer = call.by(&acme.owner).send().await.refused(404, "not_found");
            assert_eq!(answer.bytes(), unknown, "{id}");
        }
    }
}

/// PostgreSQL accepts no NUL in a text, and its error would be a failure of the service.
#[tokio::test]
async fn a_page_that_begins_after_a_nul_is_refused() {
    let service = Service::start(Setup::default()).await;
    let acme = service.tenant("acme").await;
    let operator = service.operator().await;
    for (list, by) in [("/v1/members", &acme.owner), ("/v1/tenants", &operator)] {
        let refused = service.get(&format!("{list}?after=a%00b")).by(by).send().await;
        assert_eq!(refused.refused(400, "invalid_input").json()["field"], "after");
    }
}
