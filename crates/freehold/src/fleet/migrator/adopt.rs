//! Adoption: a migration is applied to the template and recorded, after it has been shown to work for
//! tenants.
//!
//! Every adoption has three schemas: the template, which gets the migration; a throwaway tenant of the
//! version before, which gets it too (`migrator/rehearsal.rs`); and a throwaway tenant created from the
//! template's new state. All three must be equal. So a migration that works for the template only, such as a
//! query to `information_schema` that finds another schema's table, is refused before any tenant has it.
//!
//! The baseline's SQL is stored in the catalog (`freehold.baseline`), so a server needs no folder of
//! migrations and every server provisions the same schema. Provisioning takes a share lock on it and adoption
//! an exclusive one, so the migrator finds a tenant that was being created meanwhile.
//!
//! An extension that a migration creates goes to `public`: a database has each extension once.

use std::sync::Arc;

use super::rehearsal::Former;
use super::{apply, located_in, rehearsal};
use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::baseline;
use crate::error::{Error, ErrorKind, Result};
use crate::model::audit::AuditAction;
use crate::model::context::OperatorContext;
use crate::model::ids::TenantId;
use crate::pool::Pool;
use crate::schema::migration::{Baseline, Migration};
use crate::schema::outside;
use crate::schema::policy;
use crate::snapshot::change::Change;
use crate::snapshot::rows::{self, Rows};
use crate::snapshot::{self, Snapshot};
use crate::tx::{CatalogTx, OwnerTx};
use crate::wire;

/// The migrations that were new to the template, and their notices.
#[derive(Default)]
pub(crate) struct Adopted {
    pub(crate) labels: Vec<String>,
    pub(crate) notices: Vec<String>,
}

/// Applies the migrations that the template lacks, each in a transaction of its own.
pub(crate) async fn adopt(
    owner: &Pool,
    context: &OperatorContext,
    folder: &Baseline,
) -> Result<Adopted> {
    renew_snapshot(owner).await?;
    let pending = pending(owner, folder).await?;
    let adopted = adopt_all(owner, context, &pending).await;
    if !pending.is_empty() {
        let context = OperatorContext::system("end the rehearsal of migrations");
        let mut tx = OwnerTx::new(owner, &context).await?;
        baseline::lock(tx.catalog()).await?;
        rehearsal::discard(&mut tx).await?;
        tx.commit().await?;
    }
    adopted
}

async fn adopt_all(
    owner: &Pool,
    context: &OperatorContext,
    pending: &[Migration],
) -> Result<Adopted> {
    let mut adopted = Adopted::default();
    for (at, migration) in pending.iter().enumerate() {
        let label = migration.label.clone();
        let is_last = at + 1 == pending.len();
        let mut notices = adopt_one(owner, context, migration, OtherRun::NotYet, is_last).await?;
        if notices.is_none() {
            let other = rows_of_other_run(owner, migration).await?;
            notices = adopt_one(owner, context, migration, OtherRun::Gave(&other), is_last).await?;
        }
        let notices = notices.ok_or_else(overtaken)?;
        adopted.notices.extend(notices.iter().map(|notice| format!("{label}: {notice}")));
        adopted.labels.push(label);
    }
    Ok(adopted)
}

/// Creates the snapshot again after PostgreSQL's major version has changed, since the stored statements may
/// be printed differently now. Tenants are not compared with snapshots of earlier versions.
async fn renew_snapshot(owner: &Pool) -> Result<()> {
    let mut tx = OwnerTx::new(owner, &OperatorContext::system("look at the template")).await?;
    let server = snapshot::server_major(&mut tx).await?;
    let newest = baseline::newest_snapshot(tx.catalog()).await?;
    if newest.as_ref().is_none_or(|(_, snapshot)| snapshot.server == server) {
        return tx.commit().await;
    }
    baseline::lock(tx.catalog()).await?;
    if let Some((version, former)) = baseline::newest_snapshot(tx.catalog()).await? {
        let template = Snapshot::of_template(&mut tx).await?;
        let template = Snapshot { rows: former.rows, ..template };
        baseline::set_snapshot(tx.catalog(), version, &template).await?;
    }
    tx.commit().await
}

/// The notices of the migration; `None` if it was not adopted, as by [`rehearsed`].
async fn adopt_one(
    owner: &Pool,
    context: &OperatorContext,
    migration: &Migration,
    other_run: OtherRun<'_>,
    is_last: bool,
) -> Result<Option<Vec<String>>> {
    let mut tx = OwnerTx::new(owner, context).await?;
    let former = lock_former(&mut tx, migration).await?;
    let detail = serde_json::json!({"migration": migration.label});
    let event = AuditEvent::of(AuditAction::MigrationAdopt, context).detail(detail);
    audit::record(tx.catalog(), event).await?;
    let Some((template, notices)) = rehearsed(&mut tx, &former, migration, other_run).await? else {
        return Ok(None);
    };
    if is_last {
        rehearsal::discard(&mut tx).await?;
    }
    baseline::insert(tx.catalog(), migration, &template).await?;
    tx.commit().await?;
    Ok(Some(notices))
}

/// What is known of the rows that another run of a migration produces.
pub(crate) enum OtherRun<'r> {
    NotYet,
    Gave(&'r Rows),
    /// Nothing, and nothing is to be recorded.
    Never,
}

/// Applies a migration to the template, and checks it on a tenant of the version before and on a new one.
/// Returns the template's new state and the notices; `None` if it changes rows and needs another run first.
pub(crate) async fn rehearsed(
    tx: &mut OwnerTx,
    former: &Former,
    migration: &Migration,
    other_run: OtherRun<'_>,
) -> Result<Option<(Arc<Snapshot>, Vec<String>)>> {
    tx.enter_schema(TenantId::TEMPLATE).await?;
    let rows_before = Rows::of(tx, TenantId::TEMPLATE).await?;
    rows::detach_sequences(tx, TenantId::TEMPLATE).await?;
    tx.enter_schema(TenantId::TEMPLATE).await?;
    let notices = tx
        .ddl(async |client| {
            let before = outside::survey(client, TenantId::TEMPLATE).await?;
            apply_to_template(client, migration).await?;
            outside::refuse(client, &before, migration).await?;
            policy::notices(client, TenantId::TEMPLATE, &migration.statements).await
        })
        .await?;
    let rows = Rows::of(tx, TenantId::TEMPLATE).await.map_err(located_in(migration))?;
    let rows = match other_run {
        _ if rows == rows_before => former.template.rows.clone(),
        OtherRun::Gave(other) => {
            rows.compared_with(other, &former.template.rows).map_err(located_in(migration))?
        }
        OtherRun::Never => rows,
        OtherRun::NotYet => return Ok(None),
    };
    let template = Snapshot::of_template(tx).await.map_err(located_in(migration))?;
    let template = Arc::new(Snapshot { rows, ..template });
    rehearsal::require_same(tx, former, migration, &template).await?;
    rehearse_new(tx, migration, &template).await?;
    Ok(Some((template, notices)))
}

/// Locks the baseline against changes, and returns the template's state.
async fn lock_former(tx: &mut OwnerTx, migration: &Migration) -> Result<Former> {
    baseline::lock(tx.catalog()).await?;
    match baseline::newest_snapshot(tx.catalog()).await? {
        Some((version, _)) if version >= migration.version => Err(overtaken()),
        newest => Ok(Former::of(newest)),
    }
}

fn overtaken() -> Error {
    Error::new(
        ErrorKind::Retryable,
        "another migrator changed the baseline meanwhile; run it again",
    )
}

/// The rows of a tenant after the migration: values that differ from the template's differ each time. In a
/// transaction of its own, since `now()` is the time at which it began.
async fn rows_of_other_run(owner: &Pool, migration: &Migration) -> Result<Rows> {
    let context = OperatorContext::system("rehearse a migration");
    let mut tx = OwnerTx::new(owner, &context).await?;
    let former = lock_former(&mut tx, migration).await?;
    rehearsal::rows_after(&mut tx, &former, migration).await
}

/// Creates a tenant as they are created from now on.
async fn rehearse_new(
    tx: &mut OwnerTx,
    migration: &Migration,
    template: &Arc<Snapshot>,
) -> Result<()> {
    let tenant = TenantId::generate();
    tx.batch_execute("SAVEPOINT rehearsal").await?;
    let made = async {
        snapshot::create_schema(tx, tenant, template).await?;
        tx.ddl(async |client| policy::verify(client, tenant).await).await?;
        let all = Change::whole(Arc::default(), template.clone());
        all.require_in(tx, tenant, &Default::default()).await
    };
    made.await.map_err(|error| {
        let text = format!("a new tenant cannot be made as the template is: {}", error.message());
        located_in(migration)(Error::new(ErrorKind::Migration, text).because(error))
    })?;
    tx.batch_execute("ROLLBACK TO SAVEPOINT rehearsal").await
}

/// The folder's migrations that the baseline lacks; an error if the two contradict each other.
pub(crate) async fn pending(owner: &Pool, folder: &Baseline) -> Result<Vec<Migration>> {
    let mut tx = CatalogTx::new(owner, &OperatorContext::system("compare migrations")).await?;
    let known = baseline::list(&mut tx).await?;
    tx.commit().await?;
    new_of(&known, folder.migrations()).map_err(|why| Error::new(ErrorKind::Migration, why))
}

/// The new migrations of a folder. A file inserted in between shifts files that are numbered by position, so
/// each is looked up by its name first.
fn new_of(known: &[Migration], folder: &[Migration]) -> Result<Vec<Migration>, String> {
    let is_known = |m: &Migration| known.iter().any(|old| old.label == m.label);
    for old in known {
        let same = folder.iter().find(|m| m.label == old.label);
        let same =
            same.or_else(|| folder.iter().find(|m| m.version == old.version && !is_known(m)));
        let Some(same) = same else {
            return Err(format!("the folder lacks {}, which the fleet has", old.label));
        };
        if same.version != old.version {
            let between = folder.iter().find(|m| !is_known(m) && m.version <= same.version);
            return Err(match between {
                Some(new) => comes_before(new, old),
                None => format!(
                    "{} is number {} in the folder and {} in the fleet: read the folder in the layout that it had, by --layout",
                    same.label, same.version, old.version
                ),
            });
        }
        if same.checksum != old.checksum {
            return Err(format!(
                "{} was changed after it had been applied; restore it and put the change into a new migration",
                same.label
            ));
        }
    }
    let Some(newest) = known.last() else { return Ok(folder.to_vec()) };
    let new = folder.iter().filter(|m| known.iter().all(|old| old.version != m.version));
    let new: Vec<Migration> = new.cloned().collect();
    match new.first() {
        Some(first) if first.version < newest.version => Err(comes_before(first, newest)),
        _ => Ok(new),
    }
}

fn comes_before(new: &Migration, old: &Migration) -> String {
    format!(
        "{} comes before {}, which the fleet has; name it so that it comes after all that the fleet has",
        new.label, old.label
    )
}

/// Applies a migration to the template. An extension that it creates goes to `public` instead of the
/// template's schema: a database has each extension once, and every tenant's search path ends there. Only
/// PostgreSQL knows which extensions a migration creates, so that is tried out; only a superuser could move
/// an extension afterwards.
async fn apply_to_template(client: &mut wire::Connection, migration: &Migration) -> Result<()> {
    client.batch_execute("SAVEPOINT before_migration").await?;
    apply(client, TenantId::TEMPLATE, migration, &[]).await?;
    let made = client
        .query_once(
            // Extensions that others depend on were created first.
            "SELECT extname::text, extversion FROM pg_extension WHERE extnamespace = $1::text::regnamespace ORDER BY oid",
            &[&TenantId::TEMPLATE.schema()],
        )
        .await?;
    if made.is_empty() {
        return Ok(());
    }
    client.batch_execute("ROLLBACK TO SAVEPOINT before_migration").await?;
    for row in made {
        let (name, version) = (policy::quote_ident(row.get(0)), policy::quote_ident(row.get(1)));
        let create = format!("CREATE EXTENSION {name} SCHEMA public VERSION {version}");
        client.batch_execute(&create).await?;
    }
    apply(client, TenantId::TEMPLATE, migration, &[]).await.map(drop)
}
