//! The implementation of the `freehold` command: its HTTP service and its command line. Everything that
//! touches tenants' data is in the library crate `freehold`.

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))] // they panic where nobody reads: cli/output.rs does not

pub mod cli;
pub mod config;
mod data;
pub mod database_url;
pub mod http;
pub mod mail;
pub mod telemetry;
mod worker;
