//! The private PostgreSQL of `freehold dev` and of the tests.

pub mod postgres;
