//! Indexes of single tenants, for operators: advises, creates, drops, restores and lists them.

use serde_json::json;

use crate::catalog::audit::{self, AuditEvent};
use crate::catalog::{baseline, indexes, tenants};
use crate::control::tenants::no_such_tenant;
use crate::error::{Error, ErrorKind, Result};
use crate::freehold::Freehold;
use crate::indexes::advice::{advise, supports_foreign_key};
use crate::indexes::build::Builder;
use crate::indexes::fleet::Fleet;
use crate::indexes::survey::{Index, Survey, Table, survey};
use crate::indexes::{SampledShape, name_for, plan};
use crate::model::audit::AuditAction;
use crate::model::context::{OperatorContext, TenantContext};
use crate::model::ids::TenantId;
use crate::model::tenant::Tenant;
use crate::tx::OwnerTx;

pub use crate::indexes::advice::{
    AdviceKind, AdviceOptions, AdviceScope, IndexAdvice, IndexReport,
};
pub use crate::indexes::fleet::{FleetIndexAdvice, FleetIndexReport};
pub use crate::indexes::{IndexColumn, IndexState, QueryShape, TenantIndex};

const LIST_MAX: i64 = 10_000;
/// How many tenants one transaction surveys.
const BATCH: i64 = 200;
/// PostgreSQL's limit.
const COLUMNS_MAX: usize = 32;

/// Handle for advising on, creating, dropping and listing indexes of single tenants: [`Freehold::indexes`].
#[derive(Clone, Copy)]
pub struct Indexes<'a>(&'a Freehold);

impl Freehold {
    /// Advises on, creates, drops and lists indexes of single tenants.
    pub fn indexes(&self) -> Indexes<'_> {
        Indexes(self)
    }
}

impl Indexes<'_> {
    /// Samples the shape of a query on a tenant's table, for
    /// [`advise`](crate::control::indexes::Indexes::advise). May be called for every request: only a fraction
    /// of the requests is counted, each with the weight of all, and only then is `shape` called.
    pub fn count_query(self, context: &TenantContext, shape: impl FnOnce() -> Option<QueryShape>) {
        self.0.shapes().count(context.tenant(), shape);
    }

    /// Which indexes a tenant lacks and which it does not need, judged by PostgreSQL's statistics and by the
    /// sampled queries on its tables. Changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Setup`] without an owner connection.
    pub async fn advise(
        self,
        context: &OperatorContext,
        tenant: TenantId,
        options: &AdviceOptions,
    ) -> Result<IndexReport> {
        let mut tx = OwnerTx::new(self.0.owner_pool()?, context).await?;
        tenants::find(tx.catalog(), tenant).await?.ok_or_else(no_such_tenant)?;
        let (found, asked) = look_at(&mut tx, &[tenant]).await?;
        let found = found.into_iter().next().ok_or_else(no_such_tenant)?;
        let mut report = advise(&found, &asked.iter().collect::<Vec<_>>(), options);
        if report.hypopg {
            tx.enter_schema(tenant).await?;
            tx.ddl(async |connection| plan::estimate(connection, &found, &mut report).await)
                .await?;
        } else {
            let without = "HypoPG is not installed in this database: what a new index would gain is not estimated";
            report.notes.push(without.to_owned());
        }
        tx.commit().await?;
        Ok(report)
    }

    /// The same for every tenant, counted: an index that most tenants lack belongs in the baseline. Without
    /// the planner's estimates.
    ///
    /// # Errors
    /// [`ErrorKind::Setup`] without an owner connection.
    pub async fn advise_fleet(
        self,
        context: &OperatorContext,
        options: &AdviceOptions,
    ) -> Result<FleetIndexReport> {
        let mut fleet = Fleet::default();
        let mut after: Option<String> = None;
        loop {
            let mut tx = OwnerTx::new(self.0.owner_pool()?, context).await?;
            let batch = tenants::list(tx.catalog(), after.as_deref(), BATCH).await?;
            let Some(last) = batch.last() else { return Ok(fleet.report()) };
            after = Some(last.slug.to_string());
            let ids: Vec<TenantId> = batch.iter().map(|tenant| tenant.id).collect();
            let (found, asked) = look_at(&mut tx, &ids).await?;
            tx.commit().await?;
            for (tenant, survey) in batch.iter().zip(&found) {
                let asked: Vec<_> = asked.iter().filter(|a| a.tenant == tenant.id).collect();
                let report = advise(survey, &asked, options);
                fleet.add(tenant.slug.as_str(), survey, report, options);
            }
        }
    }

    /// Creates an index for one tenant without blocking its requests, and records it, so that the doctor and
    /// the migrator know it. Call it again after an interruption.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a table or column that does not exist; [`ErrorKind::Conflict`] if an
    /// index of that name exists that is not recorded or has other columns; [`ErrorKind::Retryable`] if an
    /// earlier transaction does not end; [`ErrorKind::Setup`] without an owner connection to PostgreSQL
    /// itself.
    pub async fn apply(
        self,
        context: &OperatorContext,
        tenant: TenantId,
        table: &str,
        columns: &[IndexColumn],
    ) -> Result<TenantIndex> {
        let name = name_for(table, columns);
        let (builder, Situation { tenant, survey, recorded }) =
            self.0.begin_change(context, tenant, &name).await?;
        let target = find_table(&survey, table)?;
        check_columns(target, columns)?;
        let record = recorded.iter().find(|index| index.name == name);
        if record.is_some_and(|index| index.state == IndexState::Dropped) {
            let message = format!(
                "the baseline has an index {name}, which this tenant was relieved of: restore it"
            );
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let taken = match survey.index(&name) {
            Some(_) if record.is_none() => Some("that is not recorded as this tenant's own"),
            Some((of, present)) if of.name != table || !present.is_of(columns) => {
                Some("of other columns, whose names read as the same")
            }
            _ => None,
        };
        if let Some(which) = taken {
            let message = format!("there is an index {name} {which}: drop it first");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let mut index = TenantIndex {
            tenant: tenant.id,
            slug: tenant.slug.to_string(),
            name,
            table: table.to_owned(),
            definition: String::new(),
            state: IndexState::Creating,
            error: None,
            changed_at: None,
        };
        self.0.record_index(context, &index).await?;
        if let Err(error) = builder.create(table, columns).await {
            return Err(self.0.record_failure(context, index, error).await);
        }
        index.definition = builder.definition().await?.unwrap_or_default();
        index.state = IndexState::Created;
        self.0.record_index(context, &index).await?;
        Ok(index)
    }

    /// Drops an index of one tenant without blocking its requests: one that only this tenant has, or one of
    /// the baseline, whose absence is then recorded.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] for an index that a constraint or a foreign key
    /// needs; as for [`apply`](crate::control::indexes::Indexes::apply).
    pub async fn drop(self, context: &OperatorContext, tenant: TenantId, name: &str) -> Result<()> {
        let (builder, Situation { tenant, survey, recorded }) =
            self.0.begin_change(context, tenant, name).await?;
        let recorded = recorded.into_iter().find(|index| index.name == name);
        let (mut record, in_template) = match (survey.index(name), recorded) {
            (Some((table, index)), recorded) => {
                check_drop(table, index)?;
                // If an earlier drop was interrupted, the record has the definition.
                let record = recorded.unwrap_or_else(|| TenantIndex {
                    tenant: tenant.id,
                    slug: tenant.slug.to_string(),
                    name: name.to_owned(),
                    table: table.name.clone(),
                    definition: String::new(),
                    state: IndexState::Dropping,
                    error: None,
                    changed_at: None,
                });
                (record, index.in_template)
            }
            // An earlier creation or drop was interrupted.
            (None, Some(record)) => {
                let of_baseline =
                    matches!(record.state, IndexState::Dropping | IndexState::Dropped);
                (record, of_baseline)
            }
            (None, None) => return Err(no_such_index(name)),
        };
        if record.definition.is_empty() {
            record.definition = builder.definition().await?.unwrap_or_default();
        }
        record.state = IndexState::Dropping;
        record.error = None;
        self.0.record_index(context, &record).await?;
        if let Err(error) = builder.drop_it().await {
            return Err(self.0.record_failure(context, record, error).await);
        }
        if !in_template {
            return self.0.forget_index(context, tenant.id, name).await;
        }
        record.state = IndexState::Dropped;
        self.0.record_index(context, &record).await
    }

    /// Creates an index of the baseline again that was dropped for this tenant.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if none is recorded; as for [`apply`](crate::control::indexes::Indexes::apply).
    pub async fn restore(
        self,
        context: &OperatorContext,
        tenant: TenantId,
        name: &str,
    ) -> Result<()> {
        let (builder, Situation { tenant, recorded, .. }) =
            self.0.begin_change(context, tenant, name).await?;
        let dropped = |i: &TenantIndex| {
            i.name == name && matches!(i.state, IndexState::Dropped | IndexState::Dropping)
        };
        let record = recorded.into_iter().find(dropped).ok_or_else(|| no_such_index(name))?;
        if let Err(error) = builder.restore(&record.definition).await {
            return Err(self.0.record_failure(context, record, error).await);
        }
        let mut tx = OwnerTx::new(self.0.owner_pool()?, context).await?;
        let event = AuditEvent::of(AuditAction::IndexRestore, context).tenant(tenant.id);
        audit::record(tx.catalog(), event.detail(json!({"index": name}))).await?;
        indexes::forget(tx.catalog(), tenant.id, name).await?;
        tx.commit().await
    }

    /// The recorded indexes of one tenant, or of all: at most 10,000.
    pub async fn list(
        self,
        context: &OperatorContext,
        tenant: Option<TenantId>,
    ) -> Result<Vec<TenantIndex>> {
        let mut tx = self.0.catalog(context).await?;
        let list =
            indexes::list(&mut tx, tenant.as_ref().map(std::slice::from_ref), LIST_MAX).await?;
        tx.commit().await?;
        Ok(list)
    }
}

impl Freehold {
    async fn situation(&self, context: &OperatorContext, tenant: TenantId) -> Result<Situation> {
        let mut tx = OwnerTx::new(self.owner_pool()?, context).await?;
        let tenant = tenants::find(tx.catalog(), tenant).await?.ok_or_else(no_such_tenant)?;
        let recorded = indexes::list(tx.catalog(), Some(&[tenant.id]), LIST_MAX).await?;
        let found = survey(tx.catalog(), &[tenant.id], &[], &recorded).await?;
        tx.commit().await?;
        let survey = found.into_iter().next().ok_or_else(no_such_tenant)?;
        Ok(Situation { tenant, survey, recorded })
    }

    /// Takes the lock on this index first, then reads the present state.
    async fn begin_change(
        &self,
        context: &OperatorContext,
        tenant: TenantId,
        name: &str,
    ) -> Result<(Builder, Situation)> {
        let builder = self.builder(tenant, name).await?;
        Ok((builder, self.situation(context, tenant).await?))
    }

    async fn builder(&self, tenant: TenantId, name: &str) -> Result<Builder> {
        let pool = self.owner_pool()?;
        if !pool.pooler().is_direct(&pool.target()).await? {
            return Err(Error::new(
                ErrorKind::Setup,
                "DATABASE_OWNER_URL leads to a pooler: to change indexes while tenants work, let it lead to PostgreSQL itself",
            ));
        }
        Builder::begin(&pool.target(), tenant.schema(), name).await
    }

    async fn record_index(&self, context: &OperatorContext, index: &TenantIndex) -> Result<()> {
        let mut tx = OwnerTx::new(self.owner_pool()?, context).await?;
        indexes::record(tx.catalog(), context, index).await?;
        // Recorded at the beginning; the list of indexes has the outcome.
        let action = match index.state {
            IndexState::Creating => Some(AuditAction::IndexCreate),
            IndexState::Dropping => Some(AuditAction::IndexDrop),
            _ => None,
        };
        if let Some(action) = action {
            let event = AuditEvent::of(action, context).tenant(index.tenant);
            audit::record(tx.catalog(), event.detail(json!({"index": index.name}))).await?;
        }
        tx.commit().await
    }

    async fn forget_index(
        &self,
        context: &OperatorContext,
        tenant: TenantId,
        name: &str,
    ) -> Result<()> {
        let mut tx = OwnerTx::new(self.owner_pool()?, context).await?;
        indexes::forget(tx.catalog(), tenant, name).await?;
        tx.commit().await
    }

    /// Stores the error in the index's record, and returns it.
    async fn record_failure(
        &self,
        context: &OperatorContext,
        mut index: TenantIndex,
        error: Error,
    ) -> Error {
        index.error = Some(error.to_string().chars().take(1000).collect());
        if let Err(unrecorded) = self.record_index(context, &index).await {
            tracing::warn!(%unrecorded, "the failure to change an index is not recorded");
        }
        error
    }
}

/// A tenant, its tables, and the records of its indexes.
struct Situation {
    tenant: Tenant,
    survey: Survey,
    recorded: Vec<TenantIndex>,
}

async fn look_at(
    tx: &mut OwnerTx,
    tenants: &[TenantId],
) -> Result<(Vec<Survey>, Vec<SampledShape>)> {
    let migrations = baseline::list(tx.catalog()).await?;
    let recorded = indexes::list(tx.catalog(), Some(tenants), LIST_MAX).await?;
    let found = survey(tx.catalog(), tenants, &migrations, &recorded).await?;
    let asked = indexes::list_shapes(tx.catalog(), tenants).await?;
    Ok((found, asked))
}

fn find_table<'s>(survey: &'s Survey, name: &str) -> Result<&'s Table> {
    survey.table(name).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("the tenant has no table {name}"))
            .field("table")
    })
}

fn check_columns(table: &Table, columns: &[IndexColumn]) -> Result<()> {
    let refuse =
        |message: String| Err(Error::new(ErrorKind::InvalidInput, message).field("columns"));
    if columns.is_empty() || columns.len() > COLUMNS_MAX {
        return refuse(format!("an index has 1 to {COLUMNS_MAX} columns"));
    }
    for (at, column) in columns.iter().enumerate() {
        if table.column(&column.name).is_none() {
            return refuse(format!("{} has no column {}", table.name, column.name));
        }
        if columns[..at].iter().any(|other| other.name == column.name) {
            return refuse(format!("{} is named twice", column.name));
        }
    }
    Ok(())
}

/// Refuses to drop an index that enforces a constraint or supports a foreign key.
fn check_drop(table: &Table, index: &Index) -> Result<()> {
    let why = if index.fixed || index.unique {
        "it keeps rows unique, or belongs to a constraint or a partition"
    } else if index.valid && index.in_template && supports_foreign_key(table, index) {
        "a foreign key has no other index"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Conflict, format!("{} stays: {why}", index.name)))
}

fn no_such_index(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the tenant has no index {name}"))
}
