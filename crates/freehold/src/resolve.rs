//! Access to tenants: who is a member of which tenant, as a server caches it, and how it learns of changes.

pub(crate) mod residue;
pub(crate) mod resolver;
