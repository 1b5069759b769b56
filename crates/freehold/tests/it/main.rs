//! The library against a real PostgreSQL. One binary; each file reads as a list of claims.

mod abandonment;
mod isolation;
mod layers;
mod migrations;
mod privileges;
mod roles;
mod support;
mod transactions;
