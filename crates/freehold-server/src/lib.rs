//! The product behind the `freehold` command: its HTTP service, its command line and the private
//! PostgreSQL of `freehold dev`. What touches tenant data is in the library crate `freehold`.

pub mod cli;
pub mod config;
mod data;
pub mod dev;
pub mod http;
pub mod mail;
pub mod prove;
mod telemetry;
mod worker;
