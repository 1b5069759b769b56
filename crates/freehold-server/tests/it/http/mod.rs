//! The HTTP service, called in this process. The files mirror `src/http/`.

mod analytics;
mod audit;
mod auth;
mod batch;
mod data;
mod health;
mod insight;
mod invitations;
mod json;
mod members;
mod middleware;
mod openapi;
mod operations;
mod people;
mod properties;
mod raised;
mod router;
mod sessions;
mod signup;
mod tenants;
mod violations;
