//! The library against a real PostgreSQL. One binary; each file is a list of claims.

#![allow(clippy::disallowed_methods, reason = "the test server's address comes from ./dev")]

mod abandonment;
mod analytics;
mod answers;
mod baselines;
mod beside;
mod changes;
mod doctor;
mod documents;
mod fairness;
mod fast_path;
mod indexes;
mod insight;
mod isolation;
mod layers;
mod layouts;
mod migrations;
mod mutants;
mod outages;
mod outside;
mod pipelines;
mod privileges;
mod properties;
mod raised;
mod roles;
mod run_time;
mod sealing;
mod sequences;
mod sessions;
mod sizes;
mod slow_queries;
mod snapshots;
mod statements;
mod support;
mod texts;
mod transactions;
mod violations;
mod waves;
