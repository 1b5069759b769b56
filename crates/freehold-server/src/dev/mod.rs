//! The private PostgreSQL of `freehold dev` and of the tests, and a PgBouncer before it.

pub mod pgbouncer;
pub mod postgres;
