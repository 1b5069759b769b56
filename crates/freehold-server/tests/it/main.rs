//! The server against a real PostgreSQL: the service in this process, and the built program in a separate
//! one. One binary; each file is a list of claims.

#![allow(clippy::disallowed_methods, reason = "the test server's address comes from ./dev")]

mod bad_days;
mod balanced;
mod cache;
mod chaos;
mod cli;
mod cluster;
mod commands;
mod connections;
mod dev;
mod doctor;
mod documents;
mod http;
mod import;
mod killed;
mod mail;
mod pages;
mod pooler;
mod postgrest;
mod process;
mod record;
mod redis_server;
mod replicas;
mod rolling;
mod shipped;
mod squatters;
mod start;
mod stopping;
mod support;
mod tls;
mod traces;
mod watching;
mod worker;
