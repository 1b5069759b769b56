//! The frame of the OpenAPI document. `router` adds the paths.

use http::StatusCode;
use utoipa::openapi::Ref;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::error::Problem;

#[derive(OpenApi)]
#[openapi(
    info(title = "Freehold", version = "1",
         description = "A multi-tenant backend: sign-in, tenants, and a REST API over your own tables. \
                        Errors are application/problem+json with a stable `code`."),
    components(responses(Problem)),
    modifiers(&BearerToken),
    security(("bearer" = [])),
    tags(
        (name = "sign-in", description = "Sessions and their tokens"),
        (name = "members", description = "Who belongs to the tenant"),
        (name = "data", description = "The tenant's own tables, in PostgREST's URL dialect"),
        (name = "analytics", description = "Figures across tenants; for members, their own"),
        (name = "tenants", description = "The fleet; for operators"),
        (name = "violations", description = "What was refused, to whichever tenant; for operators"),
        (name = "insight", description = "What tenants do to the database; for operators"),
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

/// Adds the responses that every operation of a kind may have, so that none is forgotten: a refused token or
/// body, and a busy service.
pub(super) fn complete(document: &mut utoipa::openapi::OpenApi) {
    for item in document.paths.paths.values_mut() {
        let methods = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
            &mut item.head,
        ];
        for operation in methods.into_iter().flatten() {
            // `security(())` marks operations without sign-in.
            let guarded = operation.security.is_none();
            let takes_body = operation.request_body.is_some();
            let takes_input = takes_body || operation.parameters.is_some();
            for (status, applies) in [
                (StatusCode::BAD_REQUEST, takes_input),
                (StatusCode::UNAUTHORIZED, guarded),
                (StatusCode::FORBIDDEN, guarded),
                (StatusCode::REQUEST_TIMEOUT, takes_body),
                (StatusCode::PAYLOAD_TOO_LARGE, takes_body),
                (StatusCode::INTERNAL_SERVER_ERROR, true),
                (StatusCode::SERVICE_UNAVAILABLE, true),
                (StatusCode::GATEWAY_TIMEOUT, true),
            ] {
                if applies {
                    let known = &mut operation.responses.responses;
                    let problem = || Ref::from_response_name("Problem").into();
                    known.entry(status.as_str().to_owned()).or_insert_with(problem);
                }
            }
        }
    }
}
