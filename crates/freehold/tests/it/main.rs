//! The library against a real PostgreSQL. One binary; each file reads as a list of claims.

mod layers;
mod support;
mod transactions;
