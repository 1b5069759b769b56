//! One request for each operation of the OpenAPI document. The tests for every endpoint are made from this
//! table, so an operation that is missing here makes them fail.

use freehold::testing::PASSWORD;
use freehold::{MailKind, Role};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Call, Person, Place, Service, text};

/// Method and path of every operation, as the document has them.
pub(super) fn all() -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(&freehold_server::http::openapi_json()).unwrap();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            operations.push((method.to_uppercase(), path.clone()));
        }
    }
    operations.sort_by(|a, b| (&a.1, &a.0).cmp(&(&b.1, &b.0)));
    assert!(operations.len() > 20, "the document has lost its operations");
    operations
}

/// The caller that may make the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Anybody,
    Member,
    Operator,
}

/// A request that succeeds, if `objects` are the caller's own.
pub(super) struct Sample {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) by: By,
}

impl Sample {
    pub(super) fn call(&self, service: &Service) -> Call {
        let call = service.call(&self.method, &self.path);
        match &self.body {
            Some(body) => call.json(body),
            None => call,
        }
    }
}

/// The objects that requests name: of one tenant, or nonexistent.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    pub(super) tenant: Uuid,
    pub(super) slug: String,
    pub(super) member: Uuid,
    /// Sorts where the objects of another tenant do.
    pub(super) email: String,
    pub(super) invitation: Uuid,
    pub(super) invitation_token: String,
    pub(super) refresh_token: String,
    pub(super) customer: Uuid,
    pub(super) order: Uuid,
    pub(super) product: Uuid,
    pub(super) note: Uuid,
}

impl Objects {
    /// Creates them in a tenant: a member, an invitation, a session; and its rows.
    pub(super) async fn of(service: &Service, place: &Place) -> Objects {
        let name = format!("m{}", Uuid::new_v4().simple());
        let member = service.person(place, &name, Role::Viewer).await;
        let invited = json!({"email": format!("i{name}@else.example"), "role": "viewer"});
        let email = text(&invited["email"]);
        let invited =
            service.post("/v1/invitations", invited).by(&place.owner).send().await.expect(201);
        let invitation_token = service.letter_token(MailKind::Invitation, &email).await;
        // Otherwise these requests would use up the tenant's daily limit of messages.
        service.sql().await.batch_execute("DELETE FROM freehold.outbox").await.unwrap();
        let session = service.log_in(&member.email).await;
        Objects {
            tenant: place.tenant.id.as_uuid(),
            slug: place.tenant.slug.to_string(),
            member: member.id,
            email: member.email,
            invitation: invited.json()["id"].as_str().unwrap().parse().unwrap(),
            invitation_token,
            refresh_token: session["refresh_token"].as_str().unwrap().to_owned(),
            customer: place.id("cy"),
            order: place.id("second"),
            product: place.id("drill"),
            note: place.id("note"),
        }
    }

    /// Of the same form, but nonexistent.
    pub(super) fn of_nobody() -> Objects {
        let id = Uuid::new_v4;
        Objects {
            tenant: id(),
            slug: "globey".to_owned(),
            member: id(),
            email: format!("m{}@globey.example", id().simple()),
            invitation: id(),
            invitation_token: format!("fhi_{}", "A".repeat(43)),
            refresh_token: format!("fhr_{}", "A".repeat(43)),
            customer: id(),
            order: id(),
            product: id(),
            note: id(),
        }
    }

    /// Every value that identifies an object in a path.
    pub(super) fn ids(&self) -> [Uuid; 7] {
        let Objects { tenant, member, invitation, customer, order, product, note, .. } = self;
        [*tenant, *member, *invitation, *customer, *order, *product, *note]
    }
}

/// The request of an operation; `None` if it is missing.
pub(super) fn sample(method: &str, path: &str, of: &Objects, caller: &Person) -> Option<Sample> {
    let row = |table: &str, id: Uuid| format!("/v1/data/{table}?id=eq.{id}");
    let (path, body, by) = match (method, path) {
        ("POST", "/v1/auth/login") => {
            let body = json!({"email": caller.email, "password": PASSWORD, "tenant": of.slug});
            (path.to_owned(), Some(body), By::Anybody)
        }
        ("POST", "/v1/auth/refresh" | "/v1/auth/logout") => {
            (path.to_owned(), Some(json!({"refresh_token": of.refresh_token})), By::Anybody)
        }
        ("POST", "/v1/auth/switch") => {
            (path.to_owned(), Some(json!({"tenant": of.slug})), By::Member)
        }
        ("GET", "/v1/me") => (path.to_owned(), None, By::Member),
        ("POST", "/v1/signup/confirm") => {
            let body = json!({"token": format!("fhs_{}", "A".repeat(43)), "password": PASSWORD});
            (path.to_owned(), Some(body), By::Anybody)
        }
        ("POST", "/v1/auth/reset") => {
            (path.to_owned(), Some(json!({"email": of.email})), By::Anybody)
        }
        ("POST", "/v1/auth/reset/confirm") => {
            let body = json!({"token": format!("fhp_{}", "A".repeat(43)), "password": PASSWORD});
            (path.to_owned(), Some(body), By::Anybody)
        }
        ("POST", "/v1/auth/address/confirm") => {
            let body = json!({"token": format!("fha_{}", "A".repeat(43))});
            (path.to_owned(), Some(body), By::Anybody)
        }
        ("POST", "/v1/links/inspect") => {
            (path.to_owned(), Some(json!({"token": of.invitation_token})), By::Anybody)
        }
        ("POST", "/v1/me/password") => {
            let body = json!({"current_password": "not the password", "new_password": PASSWORD});
            (path.to_owned(), Some(body), By::Member)
        }
        ("POST", "/v1/me/email") => {
            let body = json!({"email": of.email, "password": "not the password"});
            (path.to_owned(), Some(body), By::Member)
        }
        ("GET" | "DELETE", "/v1/me/sessions") => (path.to_owned(), None, By::Member),
        ("DELETE", "/v1/me/sessions/{id}") => {
            (format!("/v1/me/sessions/{}", of.member), None, By::Member)
        }
        ("POST", "/v1/invitations/{id}/resend") => {
            (format!("/v1/invitations/{}/resend", of.invitation), None, By::Member)
        }
        ("GET", "/v1/audit") => (format!("{path}?tenant={}", of.tenant), None, By::Member),
        ("POST", "/v1/tenants/{id}/owners") => {
            let owner = json!({"email": of.email, "existing": true});
            (path.replace("{id}", &of.tenant.to_string()), Some(owner), By::Operator)
        }
        ("GET", "/v1/tenants/{id}/invitations") => {
            (path.replace("{id}", &of.tenant.to_string()), None, By::Operator)
        }
        ("DELETE", "/v1/tenants/{id}/invitations/{invitation}") => {
            let path = path.replace("{id}", &of.tenant.to_string());
            (path.replace("{invitation}", &of.invitation.to_string()), None, By::Operator)
        }
        ("GET", "/v1/people" | "/v1/operators") => (path.to_owned(), None, By::Operator),
        ("POST", "/v1/operators") => {
            let email = format!("o{}@new.example", Uuid::new_v4().simple());
            let body = json!({"email": email, "password": PASSWORD});
            (path.to_owned(), Some(body), By::Operator)
        }
        ("DELETE", "/v1/operators/{id}") => {
            (format!("/v1/operators/{}", of.member), None, By::Operator)
        }
        ("GET" | "DELETE", "/v1/people/{id}") | ("DELETE", "/v1/people/{id}/sessions") => {
            (path.replace("{id}", &of.member.to_string()), None, By::Operator)
        }
        (
            "POST",
            "/v1/people/{id}/disable" | "/v1/people/{id}/enable" | "/v1/people/{id}/reset",
        ) => (path.replace("{id}", &of.member.to_string()), None, By::Operator),
        ("POST", "/v1/people/{id}/vouch") => {
            let body = json!({"why": "met in person"});
            (path.replace("{id}", &of.member.to_string()), Some(body), By::Operator)
        }
        ("POST", "/v1/signup") => {
            let slug = format!("s{}", Uuid::new_v4().simple());
            let email = format!("{slug}@new.example");
            let body = json!({"slug": slug, "name": "New", "email": email, "password": PASSWORD});
            (path.to_owned(), Some(body), By::Anybody)
        }
        ("POST", "/v1/invitations/accept") => {
            let body = json!({"token": of.invitation_token, "password": PASSWORD, "name": "New"});
            (path.to_owned(), Some(body), By::Anybody)
        }
        ("GET", "/v1/members") => (format!("{path}?after={}", of.email), None, By::Member),
        ("PATCH", "/v1/members/{id}") => {
            (format!("/v1/members/{}", of.member), Some(json!({"role": "member"})), By::Member)
        }
        ("DELETE", "/v1/members/{id}") => (format!("/v1/members/{}", of.member), None, By::Member),
        ("GET", "/v1/invitations") => (path.to_owned(), None, By::Member),
        ("POST", "/v1/invitations") => {
            let email = format!("n{}", of.email);
            (path.to_owned(), Some(json!({"email": email, "role": "viewer"})), By::Member)
        }
        ("DELETE", "/v1/invitations/{id}") => {
            (format!("/v1/invitations/{}", of.invitation), None, By::Member)
        }
        ("GET", "/v1/data/{table}") => (row("orders", of.order), None, By::Member),
        ("POST", "/v1/data/{table}") => {
            let body = json!({"customer_id": of.customer});
            ("/v1/data/orders".to_owned(), Some(body), By::Member)
        }
        ("PATCH", "/v1/data/{table}") => {
            (row("products", of.product), Some(json!({"stock": 77})), By::Member)
        }
        ("DELETE", "/v1/data/{table}") => (row("orders", of.order), None, By::Member),
        ("POST", "/v1/batch") => {
            let body = json!([
                {"method": "GET", "path": row("orders", of.order)},
                {"method": "PATCH", "path": row("products", of.product), "body": {"stock": 77}},
                {"method": "POST", "path": "/orders", "body": {"customer_id": of.customer}},
                {"method": "DELETE", "path": row("orders", of.order)},
            ]);
            (path.to_owned(), Some(body), By::Member)
        }
        ("GET", "/v1/analytics") => (path.to_owned(), None, By::Member),
        ("GET", "/v1/analytics/{name}") => {
            (format!("/v1/analytics/orders_per_day?tenant={}", of.tenant), None, By::Member)
        }
        ("GET", "/v1/tenants") => (format!("{path}?after={}", of.slug), None, By::Operator),
        ("POST", "/v1/tenants") => {
            let slug = format!("t{}", Uuid::new_v4().simple());
            let email = format!("{slug}@new.example");
            let owner = json!({"email": email, "name": "New", "password": PASSWORD});
            let body = json!({"slug": slug, "name": "New", "owner": owner});
            (path.to_owned(), Some(body), By::Operator)
        }
        ("GET", "/v1/tenants/{id}") => (format!("/v1/tenants/{}", of.tenant), None, By::Operator),
        ("POST", "/v1/tenants/{id}/suspend" | "/v1/tenants/{id}/resume") => {
            (path.replace("{id}", &of.tenant.to_string()), None, By::Operator)
        }
        ("PUT", "/v1/tenants/{id}/weight") => {
            let body = json!({"weight": 2});
            (path.replace("{id}", &of.tenant.to_string()), Some(body), By::Operator)
        }
        ("GET", "/v1/violations") => (format!("{path}?tenant={}", of.tenant), None, By::Operator),
        ("GET", "/v1/health/tenants") => (format!("{path}?after={}", of.slug), None, By::Operator),
        ("GET", "/v1/insight/tenants" | "/v1/insight/busiest" | "/v1/insight/sizes") => {
            (format!("{path}?limit=3"), None, By::Operator)
        }
        ("GET", "/v1/insight/slow") => (format!("{path}?tenant={}", of.tenant), None, By::Member),
        ("GET", "/v1/insight/tenants/{id}") => {
            (format!("/v1/insight/tenants/{}", of.tenant), None, By::Operator)
        }
        ("GET", "/v1/insight/tenants/{id}/sizes") => {
            (format!("/v1/insight/tenants/{}/sizes", of.tenant), None, By::Operator)
        }
        ("GET", "/livez" | "/readyz" | "/metrics" | "/openapi.json") => {
            (path.to_owned(), None, By::Anybody)
        }
        _ => return None,
    };
    Some(Sample { method: method.to_owned(), path, body, by })
}
