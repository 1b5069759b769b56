//! Authentication of requests. A handler's argument is its authorization: one that takes a [`TenantCaller`]
//! is reached only with a context in an active tenant, and one that takes an [`OperatorCaller`] never by a
//! tenant's token.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Query};
use freehold::control::sessions::Caller;
use freehold::control::violations::{Violation, ViolationKind};
use freehold::tokens::AccessClaims;
use freehold::{OperatorContext, Share, TenantContext, TenantId};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::error::Problem;
use super::state::AppState;

/// A tenant that the request names in addition to its token. It must be the token's.
const TENANT_HEADER: HeaderName = HeaderName::from_static("x-tenant-id");

/// Any caller who is signed in.
pub(super) struct AnyCaller(pub(super) Caller);

/// A caller who may be signed in. An invalid token is refused nevertheless.
pub(super) struct MaybeCaller(pub(super) Option<AnyCaller>);

/// A caller in an active tenant.
pub(super) struct TenantCaller(pub(super) TenantContext);

/// A caller who is an operator. The context's reason is the route.
pub(super) struct OperatorCaller(pub(super) OperatorContext);

/// A caller who is an operator and changes something. The context's reason is the one that was given with
/// [`WhyQuery`], or the route.
pub(super) struct OperatorChange(pub(super) OperatorContext);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyQuery {
    /// Why; the record keeps it.
    #[param(
        min_length = 1,
        max_length = 500,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$",
        nullable = false,
        required = false
    )]
    why: Option<String>,
}

/// The context with the reason that was given, if one was.
pub(super) fn with_reason(
    context: OperatorContext,
    why: Option<&str>,
) -> Result<OperatorContext, Problem> {
    match why {
        Some(why) => Ok(context.because(why)?),
        None => Ok(context),
    }
}

/// The tenant for the log, and its share of the requests that are served: the outer middleware puts this into
/// the request and drops it with the answer.
#[derive(Clone, Default)]
pub(super) struct TenantOfRequest(Arc<OnceLock<(TenantId, Share)>>);

impl TenantOfRequest {
    pub(super) fn get(&self) -> Option<&TenantId> {
        self.0.get().map(|(tenant, _)| tenant)
    }

    fn set(&self, tenant: TenantId, state: &AppState) -> Result<(), Problem> {
        if self.0.get().is_none() {
            let _ = self.0.set((tenant, state.places().of_tenant(tenant)?));
        }
        Ok(())
    }
}

impl AnyCaller {
    pub(super) fn claims(&self) -> &AccessClaims {
        match &self.0 {
            Caller::Tenant(_, claims) | Caller::Operator(_, claims) => claims,
        }
    }
}

impl FromRequestParts<AppState> for AnyCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let caller = state.sign_in().authenticate(freehold::axum::bearer(&parts.headers)?).await?;
        if let Caller::Tenant(context, _) = &caller
            && let Some(slot) = parts.extensions.get::<TenantOfRequest>()
        {
            slot.set(context.tenant(), state)?;
        }
        check_named_tenant(&parts.headers, &caller, state)?;
        Ok(AnyCaller(match caller {
            Caller::Operator(context, claims) => {
                Caller::Operator(context.because(&route(parts))?, claims)
            }
            tenant @ Caller::Tenant(..) => tenant,
        }))
    }
}

impl FromRequestParts<AppState> for MaybeCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        match parts.headers.contains_key(http::header::AUTHORIZATION) {
            true => AnyCaller::from_request_parts(parts, state).await.map(|c| MaybeCaller(Some(c))),
            false => Ok(MaybeCaller(None)),
        }
    }
}

impl FromRequestParts<AppState> for TenantCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        match AnyCaller::from_request_parts(parts, state).await?.0 {
            Caller::Tenant(context, _) => Ok(TenantCaller(context)),
            caller @ Caller::Operator(..) => Err(wrong_scope(
                state,
                &caller,
                "this takes a tenant's token, and an operator's was sent",
            )),
        }
    }
}

impl FromRequestParts<AppState> for OperatorCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        match AnyCaller::from_request_parts(parts, state).await?.0 {
            Caller::Operator(context, _) => Ok(OperatorCaller(context)),
            caller @ Caller::Tenant(..) => Err(wrong_scope(
                state,
                &caller,
                "this takes an operator's token, and a tenant's was sent",
            )),
        }
    }
}

impl FromRequestParts<AppState> for OperatorChange {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let OperatorCaller(context) = OperatorCaller::from_request_parts(parts, state).await?;
        let query = Query::<WhyQuery>::try_from_uri(&parts.uri).map_err(|refused| {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_input", refused.body_text())
        })?;
        Ok(OperatorChange(with_reason(context, query.why.as_deref())?))
    }
}

/// Method and path of the request's route, as in `POST /v1/tenants/{id}/suspend`.
fn route(parts: &Parts) -> String {
    let path = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    format!("{} {path}", parts.method)
}

fn check_named_tenant(
    headers: &HeaderMap,
    caller: &Caller,
    state: &AppState,
) -> Result<(), Problem> {
    let names: Vec<_> = headers.get_all(TENANT_HEADER).iter().collect();
    let own = match caller {
        Caller::Tenant(context, _) => Some(context.tenant()),
        Caller::Operator(..) => None,
    };
    match (names.as_slice(), own) {
        ([], _) => return Ok(()),
        ([name], Some(own)) if name.as_bytes() == own.to_string().as_bytes() => return Ok(()),
        _ => {}
    }
    let named = names.iter().filter_map(|name| name.to_str().ok()?.parse().ok());
    let claimed = named.map(|id: Uuid| TenantId::from(id)).find(|named| Some(*named) != own);
    let violation = violation(ViolationKind::TokenTenantMismatch, caller).towards(claimed);
    state.freehold().violations().record(violation);
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "tenant_mismatch",
        "the header X-Tenant-Id and the token do not name the same tenant",
    ))
}

fn wrong_scope(state: &AppState, caller: &Caller, detail: &str) -> Problem {
    let violation = violation(ViolationKind::WrongScope, caller).because(detail);
    state.freehold().violations().record(violation);
    Problem::new(StatusCode::FORBIDDEN, "wrong_scope", detail)
}

fn violation(kind: ViolationKind, caller: &Caller) -> Violation {
    match caller {
        Caller::Tenant(context, _) => Violation::new(kind).by(context),
        Caller::Operator(context, _) => Violation::new(kind).by_operator(context),
    }
}

/// The address by which sign-in attempts are counted.
pub(super) struct ClientIp(pub(super) IpAddr);

impl FromRequestParts<AppState> for ClientIp {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &AppState,
    ) -> Result<Self, Self::Rejection> {
        Ok(ClientIp(client_ip(&parts.headers, &parts.extensions, state)))
    }
}

/// The client's address, from the connection, or from the header of a trusted proxy.
pub(super) fn client_ip(headers: &HeaderMap, extensions: &Extensions, state: &AppState) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip());
    let forwarded = || {
        let last = headers.get_all("x-forwarded-for").iter().next_back()?;
        last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
    };
    state.limits().trust_forwarded_for.then(forwarded).flatten().unwrap_or(peer)
}
