//! A PostgreSQL of one's own, and a PgBouncer before it: for development, tests and proofs.

pub mod pgbouncer;
pub mod postgres;
