//! `freehold.outbox`: messages that wait to be sent, and the outcome of those of the last day. They contain
//! no token, which is made when the message is written.
//!
//! A server that takes a message locks it for a minute (`SKIP LOCKED`). The message is worded when it is sent
//! rather than when it is caused: so no token waits in a table, a withdrawn invitation is not sent, and
//! whether an address is known is looked up out of the requester's sight. The price is a new token at each
//! attempt.

use uuid::Uuid;

use crate::error::Result;
use crate::model::ids::TenantId;
use crate::model::mail::MailKind;
use crate::tx::CatalogTx;

/// The most messages of one kind per address and hour, of kinds that others than its owner can cause.
const PER_ADDRESS_MAX: i64 = 5;
/// The most messages that one tenant causes per day.
const PER_TENANT_MAX: i64 = 200;
/// After this many attempts, within about two hours, a message is given up.
const ATTEMPTS_MAX: i32 = 8;
/// How long a message is locked for the server that took it; sending takes less time.
const LEASE_SECS: f64 = 60.0;

/// A message to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) kind: MailKind,
    pub(crate) email: String,
    pub(crate) tenant: Option<TenantId>,
    /// The sign-up, invitation or change of address that it is about.
    pub(crate) about: Option<Uuid>,
    /// The previous address and the new one, after a change.
    pub(crate) addresses: Vec<String>,
}

impl Letter {
    pub(crate) fn new(kind: MailKind, email: &str) -> Letter {
        let email = email.to_owned();
        Letter { kind, email, tenant: None, about: None, addresses: Vec::new() }
    }

    pub(crate) fn about(mut self, id: Uuid) -> Letter {
        self.about = Some(id);
        self
    }

    pub(crate) fn of_tenant(mut self, tenant: TenantId) -> Letter {
        self.tenant = Some(tenant);
        self
    }
}

/// A message that this process has to send now.
pub(crate) struct Due {
    pub(crate) id: Uuid,
    pub(crate) letter: Letter,
}

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Address,
    Tenant,
}

/// Whether one more message is within the limits of its address and its tenant. Two concurrent requests may
/// both pass.
pub(crate) async fn has_room(tx: &mut CatalogTx, letter: &Letter) -> Result<Result<(), Full>> {
    let row = tx
        .query_opt(
            "SELECT of_address, of_tenant FROM freehold.count_letters($1, $2, $3)",
            &[&letter.email, &letter.kind.as_str(), &letter.tenant.map(|tenant| tenant.as_uuid())],
        )
        .await?;
    let (of_address, of_tenant): (i64, i64) = row.map_or((0, 0), |row| (row.get(0), row.get(1)));
    Ok(match () {
        () if of_tenant >= PER_TENANT_MAX => Err(Full::Tenant),
        () if of_address >= PER_ADDRESS_MAX => Err(Full::Address),
        () => Ok(()),
    })
}

pub(crate) async fn insert(tx: &mut CatalogTx, letter: &Letter) -> Result<()> {
    tx.execute(
        "INSERT INTO freehold.outbox (id, kind, email, tenant_id, about, addresses) VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            &Uuid::now_v7(),
            &letter.kind.as_str(),
            &letter.email,
            &letter.tenant.map(|tenant| tenant.as_uuid()),
            &letter.about,
            &letter.addresses,
        ],
    )
    .await?;
    Ok(())
}

/// Takes at most `limit` due messages, and locks them for a minute.
pub(crate) async fn take_due(tx: &mut CatalogTx, limit: i64) -> Result<Vec<Due>> {
    let rows = tx
        .query(
            "UPDATE freehold.outbox o SET attempts = attempts + 1, next_at = now() + make_interval(secs => $2)
             FROM (SELECT id FROM freehold.outbox WHERE state = 'waiting' AND next_at <= now()
                   ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED) AS due
             WHERE o.id = due.id
             RETURNING o.id, o.kind, o.email, o.tenant_id, o.about, o.addresses",
            &[&limit, &LEASE_SECS],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let letter = Letter {
                kind: MailKind::parse(row.get(1))?,
                email: row.get(2),
                tenant: row.get::<_, Option<Uuid>>(3).map(TenantId::from),
                about: row.get(4),
                addresses: row.get::<_, Option<Vec<String>>>(5).unwrap_or_default(),
            };
            Ok(Due { id: row.get(0), letter })
        })
        .collect()
}

/// The message is obsolete: no person has the address, or its subject no longer exists.
pub(crate) async fn drop(tx: &mut CatalogTx, id: Uuid) -> Result<()> {
    tx.execute("UPDATE freehold.outbox SET state = 'dropped' WHERE id = $1", &[&id]).await?;
    Ok(())
}

pub(crate) async fn set_sent(tx: &mut CatalogTx, id: Uuid) -> Result<()> {
    tx.execute("UPDATE freehold.outbox SET state = 'sent', error = NULL WHERE id = $1", &[&id])
        .await?;
    Ok(())
}

/// Schedules another attempt after one, two, four … minutes. If that is useless, or there were too many
/// attempts, the message is given up, and true is returned.
pub(crate) async fn set_failed(
    tx: &mut CatalogTx,
    id: Uuid,
    error: &str,
    permanent: bool,
) -> Result<bool> {
    let error: String = error.chars().take(1000).collect();
    let row = tx
        .query_opt(
            "UPDATE freehold.outbox SET error = $2,
           state = CASE WHEN $3 OR attempts >= $4 THEN 'failed' ELSE state END,
           next_at = now() + interval '1 minute' * power(2, attempts - 1)
         WHERE id = $1 RETURNING state = 'failed'",
            &[&id, &error, &permanent, &ATTEMPTS_MAX],
        )
        .await?;
    Ok(row.is_some_and(|row| row.get(0)))
}

/// The number of messages that wait, and of those given up during the last day.
pub(crate) async fn count(tx: &mut CatalogTx) -> Result<(i64, i64)> {
    let row = tx
        .query_opt(
            "SELECT count(*) FILTER (WHERE state = 'waiting'), count(*) FILTER (WHERE state = 'failed') FROM freehold.outbox",
            &[],
        )
        .await?;
    Ok(row.map_or((0, 0), |row| (row.get(0), row.get(1))))
}

/// Deletes messages that are a day old, including those that still wait.
pub(crate) async fn prune(tx: &mut CatalogTx) -> Result<()> {
    tx.execute("DELETE FROM freehold.outbox WHERE created_at < now() - interval '1 day'", &[])
        .await?;
    Ok(())
}
