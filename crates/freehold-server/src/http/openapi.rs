//! The OpenAPI document: made from the routes, served at `/openapi.json`, checked in.

use http::header::{CONTENT_TYPE, HeaderName};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(title = "Freehold", version = "1",
         description = "A multi-tenant backend: sign-in, tenants, and a REST API over your own tables. \
                        Errors are application/problem+json with a stable `code`."),
    modifiers(&BearerToken),
    security(("bearer" = [])),
    tags(
        (name = "sign-in", description = "Sessions and their tokens"),
        (name = "members", description = "Who belongs to the tenant"),
        (name = "data", description = "The tenant's own tables, in PostgREST's URL dialect"),
        (name = "analytics", description = "Figures across tenants; for members, their own"),
        (name = "tenants", description = "The fleet; for operators"),
        (name = "violations", description = "What was refused, to whichever tenant; for operators"),
        (name = "operations", description = "Probes, metrics, this document"),
    )
)]
pub(super) struct Document;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// The document as it is checked in.
pub fn openapi_json() -> String {
    super::router::document().to_pretty_json().expect("the document serialises")
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", security(()), responses((status = 200)))]
pub(super) async fn get() -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, "application/json")], openapi_json())
}
