//! The HTTP service. A handler parses its request, calls one function of `control` or `data`, and answers; it
//! contains no SQL and opens no transaction.

mod addresses;
mod analytics;
mod arrival;
mod audit;
mod auth;
mod batch;
mod cache;
pub mod connections;
mod cors;
mod credentials;
mod data;
mod error;
mod health;
mod insight;
mod invitations;
mod json;
mod links;
mod me;
mod members;
mod metrics;
mod middleware;
mod openapi;
mod operators;
mod pages;
mod paths;
mod people;
mod readiness;
mod router;
mod sessions;
mod signup;
mod slow_queries;
mod slugs;
mod state;
mod tenants;
mod violations;

pub use router::{openapi_json, router};
pub use state::{AppState, PeopleSettings};
