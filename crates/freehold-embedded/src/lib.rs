//! A private PostgreSQL, and a PgBouncer in front of it, for development, tests and proofs.

pub mod pgbouncer;
pub mod postgres;
