//! Every route of the service, on one page.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use http::header::{CONTENT_TYPE, HeaderName};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::Document;
use super::state::AppState;
use super::{
    addresses, analytics, audit, batch, cors, credentials, data, error, health, insight,
    invitations, links, me, members, metrics, middleware, openapi, operators, pages, people,
    sessions, signup, slow_queries, tenants, violations,
};

/// The whole service.
pub fn router(state: AppState) -> Router {
    let body_bytes_max = state.bodies().bytes_max;
    let (api, _) = api().split_for_parts();
    let guarded = api
        // From the outside in: every answer gets an id, headers and a log line; then the request is limited,
        // and a panic is answered like any other failure. Few layers, since each costs every request a
        // microsecond.
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(from_fn_with_state(state.clone(), middleware::guard))
        // Probes and metrics must be answered when everything else is busy.
        .merge(probes().split_for_parts().0)
        // Pages for people, which are not in the document. Their files are in memory; the calls of their
        // scripts are limited.
        .merge(pages::pages())
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::method_not_allowed);
    let open = match state.limits().cors_origins.is_empty() {
        true => guarded,
        false => guarded.layer(from_fn_with_state(state.clone(), cors::allow)),
    };
    open.layer(from_fn_with_state(state.clone(), middleware::observe)).with_state(state)
}

fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        // People
        .routes(routes!(sessions::log_in))
        .routes(routes!(sessions::refresh))
        .routes(routes!(sessions::log_out))
        .routes(routes!(sessions::switch_tenant))
        .routes(routes!(me::get))
        .routes(routes!(sessions::list, sessions::end_others))
        .routes(routes!(sessions::end))
        .routes(routes!(credentials::change))
        .routes(routes!(credentials::request_reset))
        .routes(routes!(credentials::confirm_reset))
        .routes(routes!(addresses::request))
        .routes(routes!(addresses::confirm))
        .routes(routes!(signup::sign_up))
        .routes(routes!(signup::confirm))
        .routes(routes!(invitations::accept))
        .routes(routes!(links::inspect))
        // A tenant and its members
        .routes(routes!(members::list))
        .routes(routes!(members::change_role, members::remove))
        .routes(routes!(invitations::list, invitations::invite))
        .routes(routes!(invitations::revoke))
        .routes(routes!(invitations::resend))
        // A tenant's data
        .routes(routes!(data::read, data::insert, data::update, data::delete))
        .routes(routes!(batch::run))
        // Figures: a tenant's own, or of the fleet
        .routes(routes!(analytics::list))
        .routes(routes!(analytics::get))
        .routes(routes!(slow_queries::list))
        .routes(routes!(audit::list))
        // The platform
        .routes(routes!(tenants::list, tenants::create))
        .routes(routes!(tenants::get))
        .routes(routes!(tenants::suspend))
        .routes(routes!(tenants::weigh))
        .routes(routes!(tenants::resume))
        .routes(routes!(tenants::add_owner))
        .routes(routes!(invitations::list_of))
        .routes(routes!(invitations::withdraw))
        .routes(routes!(people::list))
        .routes(routes!(people::get, people::remove))
        .routes(routes!(people::disable))
        .routes(routes!(people::enable))
        .routes(routes!(people::reset))
        .routes(routes!(people::vouch))
        .routes(routes!(people::end_sessions))
        .routes(routes!(operators::list, operators::create))
        .routes(routes!(operators::revoke))
        .routes(routes!(violations::list))
        .routes(routes!(health::sample_tenants))
        .routes(routes!(insight::list))
        .routes(routes!(insight::get))
        .routes(routes!(insight::busiest))
        .routes(routes!(insight::sizes))
        .routes(routes!(insight::size_history))
}

fn probes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::get))
        .routes(routes!(get_openapi))
}

/// The document of the routes above, so that no route is served without being in it.
fn document() -> utoipa::openapi::OpenApi {
    let mut document = api().into_openapi();
    openapi::complete(&mut document);
    document.merge(probes().into_openapi());
    document
}

/// The document in the form that is checked in.
pub fn openapi_json() -> String {
    document().to_pretty_json().expect("the document serialises")
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", security(()), responses((status = 200)))]
async fn get_openapi() -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, "application/json")], openapi_json())
}
