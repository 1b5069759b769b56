//! The catalog's SQL, one file per noun. Rows in, rows out: permissions are checked in `control`.

pub(crate) mod address_changes;
pub(crate) mod analytics;
pub(crate) mod audit;
pub(crate) mod baseline;
pub(crate) mod changes;
pub(crate) mod code;
pub(crate) mod guesses;
pub(crate) mod health;
pub(crate) mod idempotency;
pub(crate) mod identities;
pub(crate) mod indexes;
pub(crate) mod invitations;
pub(crate) mod memberships;
pub(crate) mod outbox;
pub(crate) mod password_resets;
pub(crate) mod seal_keys;
pub(crate) mod sessions;
pub(crate) mod sign_ups;
pub(crate) mod sizes;
pub(crate) mod slow_queries;
pub(crate) mod tenants;
pub(crate) mod usage;
pub(crate) mod violations;
