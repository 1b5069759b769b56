//! Analytics across tenants: each tenant's figures are collected into a rollup, a table shared by all, and a
//! materialized view over the rollup is published.
//!
//! A view over every tenant's schema would hold a lock for each of their tables and could not be planned for
//! a large fleet; a rollup is one table for any number of tenants. A tenant is read in a transaction of its
//! own, as a role that can write no tenant's data.
//!
//! - `definition`: a file of SQL and its header. Pure.
//! - `rollup`: what a definition comes to against the template, and the SQL that reads and writes.
//! - `schema`: the tables of a rollup, and how its totals are computed.
//! - `activity`: which tenants changed since they were collected.
//! - `source`: where tenants are read: on a replica that is fit for it, or on the primary.
//! - `throttle`: how a run keeps out of the way of requests.
//! - `collector`: reads tenants and writes rollups.
//! - `run`: a whole run: who is read, in which order it is published, and who may do so.
//!
//! Analytics sets its sessions, unlike transactions of tenants. Its connections are its own and use no
//! pooler, since a lock that ends with a connection needs a connection of its own.

pub(crate) mod activity;
pub(crate) mod collector;
mod coverage;
pub(crate) mod definition;
pub(crate) mod rollup;
pub(crate) mod run;
mod schema;
pub(crate) mod source;
mod throttle;

use std::sync::Arc;

use crate::analytics::throttle::Throttle;
use crate::error::Result;
use crate::pool::Pool;
use crate::replicas::Replicas;
use crate::wire::tls::{self, Target};

/// Where analytics connects to: connections of its own, so that requests never wait for it.
#[derive(Clone)]
pub(crate) struct Connections {
    /// The primary: rollups are written here.
    pub(crate) primary: Arc<Target>,
    /// The replica that tenants are read on, if one is named for it.
    pub(crate) reader: Option<Arc<Target>>,
    /// One of these otherwise.
    pub(crate) replicas: Replicas,
    pub(crate) throttle: Throttle,
}

impl Connections {
    pub(crate) fn new(
        url: &str,
        read_url: Option<&str>,
        replicas: Replicas,
        requests: Pool,
    ) -> Result<Connections> {
        let reader = match read_url {
            Some(url) => Some(Arc::new(target(url, "DATABASE_ANALYTICS_READ_URL")?)),
            None => None,
        };
        let primary = Arc::new(target(url, "DATABASE_ANALYTICS_URL")?);
        Ok(Connections { primary, reader, replicas, throttle: Throttle::to(requests) })
    }
}

fn target(url: &str, name: &str) -> Result<Target> {
    let mut target = tls::target(url, name)?;
    target.config.connect_timeout(std::time::Duration::from_secs(5));
    if target.config.get_application_name().is_none() {
        target.config.application_name("freehold analytics");
    }
    Ok(target)
}
