//! In the place of `redis_server` where the feature `redis` is off: a server without Redis.

use std::time::Duration;

use super::stats::Counters;
use crate::error::{Error, ErrorKind, Result};

/// There is none.
#[derive(Clone)]
pub(super) enum Redis {}

impl Redis {
    pub(super) fn new(_: &str, _: Duration, _: Counters) -> Result<Redis> {
        Err(Error::new(
            ErrorKind::Setup,
            "this program is built without the feature `redis`: leave its URL out",
        ))
    }

    pub(super) fn is_up(&self) -> bool {
        match *self {}
    }

    pub(super) async fn get(&self, _: &str, _: usize) -> Option<Vec<u8>> {
        match *self {}
    }

    pub(super) fn store(&self, _: String, _: Vec<u8>, _: Duration) {
        match *self {}
    }

    pub(super) async fn sweep(&self, _: &str) {
        match *self {}
    }

    pub(super) async fn keep_connected(self) {
        match self {}
    }
}
