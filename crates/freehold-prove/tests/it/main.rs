//! A sound system passes, and every system that was broken on purpose is detected.

#![allow(clippy::disallowed_methods, reason = "the test server's address comes from ./dev")]

mod engine;
mod sessions;
