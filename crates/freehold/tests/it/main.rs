//! The library against a real PostgreSQL. One binary; each file reads as a list of claims.

mod abandonment;
mod existing_app;
mod guards;
mod init;
mod isolation;
mod layers;
mod migrations;
mod people;
mod privileges;
mod protection;
mod roles;
mod support;
mod tenants;
mod transactions;
