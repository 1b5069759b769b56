//! Decides what a request means: the statement for it, and what its answer is checked for.

use http::StatusCode;

use super::body::{KeyRules, read_only_column, row_to_update, rows_to_insert};
use super::error::DataError;
use super::headers::{MediaType, Preferences, Returning, check_content_type, row_range};
use super::model::{Column, Model, Right, Role, Table};
use super::query::{Query, SelectItem};
use super::request::{Action, DataRequest, Limits};
use super::scan::Field;
use super::sql::{BodyShape, NOTHING, OnConflict, Page, Param, Statement};

/// One SQL statement that performs the whole request.
///
/// It always returns one row of three columns: `body text`, `rows int8`, `total int8` (null if no count was
/// requested).
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) sql: String,
    pub(crate) params: Vec<Param>,
    /// False if a read-only transaction, or a replica, can run it.
    pub(crate) write: bool,
    /// A read that a replica may answer.
    pub(crate) replica: bool,
    /// [`answer`](super::answer) may refuse what the statement did, so COMMIT must wait for it. If false,
    /// COMMIT can be pipelined.
    pub(crate) commit_after_answer: bool,
    /// The most rows that the answer may have.
    pub(crate) rows_max: u64,
    pub(super) table: String,
    pub(super) reply: Reply,
}

impl Plan {
    /// Whether [`answer`](super::answer) may refuse the statement's result, even for a read.
    pub(crate) fn may_be_refused(&self) -> bool {
        let past_the_end = self.reply.count && self.reply.offset > 0;
        self.commit_after_answer || self.reply.media_type.single || past_the_end
    }

    /// Whether it returns rows, which may be large.
    pub(crate) fn returns_rows(&self) -> bool {
        self.reply.has_body
    }

    /// The table of the request.
    pub(crate) fn table(&self) -> &str {
        &self.table
    }
}

/// What is needed of the request to make the answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) action: Action,
    pub(super) media_type: MediaType,
    pub(super) has_body: bool,
    pub(super) offset: u64,
    pub(super) count: bool,
    /// If more rows were written than this: roll back.
    pub(super) written_max: Option<u64>,
    /// If a write returns more rows than this: roll back.
    pub(super) returned_max: Option<u64>,
    /// The statement's body is the primary key of the new row.
    pub(super) location: bool,
    /// The preferences that were honoured, for `Preference-Applied`.
    pub(super) applied: Vec<String>,
}

/// Plans a request by an actor with this role, for the tenant whose tables are in `schema`.
///
/// The same shape of request for the same tenant produces exactly the same SQL.
pub(crate) fn plan(
    model: &Model,
    schema: &str,
    role: Role,
    request: &DataRequest,
    limits: &Limits,
) -> Result<Plan, DataError> {
    let action = Action::of(request.method)?;
    if request.query.len() > limits.query_bytes_max {
        let message = format!("the query string may have {} bytes at most", limits.query_bytes_max);
        return Err(DataError::new(StatusCode::URI_TOO_LONG, "limit_exceeded", message));
    }
    let table = model.get_table(request.table)?;
    let planner = Planner {
        schema,
        role,
        request,
        limits,
        table,
        action,
        media_type: MediaType::negotiate(request.headers)?,
        preferences: Preferences::parse(request.headers)?,
        query: Query::parse(table, request.query, limits)?,
    };
    planner.refuse_withheld(Right::Select, &planner.query.columns_read())?;
    match action {
        Action::Read { .. } => planner.read(),
        Action::Insert => planner.insert(),
        Action::Update => planner.update(),
        Action::Delete => planner.delete(),
    }
}

/// A parsed request.
struct Planner<'a> {
    schema: &'a str,
    role: Role,
    request: &'a DataRequest<'a>,
    limits: &'a Limits,
    table: &'a Table,
    action: Action,
    media_type: MediaType,
    preferences: Preferences,
    query: Query<'a>,
}

impl<'a> Planner<'a> {
    fn read(self) -> Result<Plan, DataError> {
        let (limit, offset) = self.page_bounds()?;
        // Two rows are enough to detect that there is more than one.
        let limit = match self.media_type.single {
            true => limit.min(2),
            false => limit,
        };
        let page = Page {
            select: &self.query.select,
            order: &self.query.order,
            limit,
            offset,
            body: self.body_shape(),
        };
        let mut statement = self.statement();
        let sql = statement.read(&page, &self.query.filters, self.preferences.count);
        Ok(Plan {
            params: statement.params,
            rows_max: if page.body == BodyShape::Empty { 0 } else { limit },
            reply: Reply { offset, ..self.reply() },
            ..self.plan(sql)
        })
    }

    fn insert(self) -> Result<Plan, DataError> {
        self.refuse_paging()?;
        check_content_type(self.request.headers)?;
        if !self.query.filters.is_empty() {
            return Err(DataError::malformed_query("a POST takes no filters: it inserts rows"));
        }
        let columns = self.writable_columns()?;
        let rules = KeyRules { columns, missing_default: self.preferences.missing_default };
        let groups = rows_to_insert(self.table, self.request.body, rules, self.limits)?;
        for group in &groups {
            self.refuse_withheld(Right::Insert, &group.columns)?;
        }
        let target = self.conflict_target()?;
        let on_conflict = self
            .preferences
            .resolution
            .map(|resolution| OnConflict { resolution, target: &target });
        let key = self.key_to_return();
        let mut page = self.page_of_write();
        page.limit = self.limits.insert_rows_max as u64;
        if let Some(key) = &key {
            page.select = key;
            page.body = BodyShape::Json(MediaType::default());
        }
        let mut statement = self.statement();
        let sql = match groups.is_empty() {
            true => NOTHING.to_owned(),
            false => statement.insert(&page, &groups, on_conflict.as_ref()),
        };
        let returns = self.body_shape() != BodyShape::Empty;
        Ok(Plan {
            params: statement.params,
            rows_max: groups.iter().map(|group| group.rows).filter(|_| returns).sum(),
            reply: Reply { location: key.is_some(), ..self.reply() },
            ..self.plan(sql)
        })
    }

    fn update(self) -> Result<Plan, DataError> {
        self.refuse_paging()?;
        self.refuse_unfiltered()?;
        check_content_type(self.request.headers)?;
        let columns = self.writable_columns()?;
        let (columns, json) = row_to_update(self.table, self.request.body, columns)?;
        self.refuse_withheld(Right::Update, &columns)?;
        let mut statement = self.statement();
        let page = self.page_of_write();
        let sql = match columns.is_empty() {
            true => NOTHING.to_owned(),
            false => statement.update(&page, &columns, &json, &self.query.filters),
        };
        Ok(Plan { params: statement.params, ..self.plan(sql) })
    }

    fn delete(self) -> Result<Plan, DataError> {
        self.refuse_paging()?;
        self.refuse_unfiltered()?;
        let mut statement = self.statement();
        let sql = statement.delete(&self.page_of_write(), &self.query.filters);
        Ok(Plan { params: statement.params, ..self.plan(sql) })
    }

    fn statement(&self) -> Statement<'a> {
        Statement::new(self.schema, self.table, self.role)
    }

    /// The plan without its parameters.
    fn plan(&self, sql: String) -> Plan {
        let reply = self.reply();
        let write = !matches!(self.action, Action::Read { .. });
        // The size of what it returns may exceed the limit of an answer.
        let may_refuse = self.media_type.single || reply.written_max.is_some() || reply.has_body;
        Plan {
            sql,
            params: Vec::new(),
            write,
            replica: self.preferences.replica && !write,
            commit_after_answer: write && may_refuse,
            rows_max: reply.returned_max.unwrap_or_default(),
            table: self.table.name.clone(),
            reply,
        }
    }

    fn reply(&self) -> Reply {
        let has_body = self.body_shape() != BodyShape::Empty;
        let by_filter = matches!(self.action, Action::Update | Action::Delete);
        Reply {
            action: self.action,
            media_type: self.media_type,
            has_body,
            offset: 0,
            count: self.preferences.count,
            written_max: self.preferences.affected_max.filter(|_| by_filter),
            returned_max: (by_filter && has_body).then_some(self.limits.page_rows_max),
            location: false,
            applied: self.preferences.applied(self.action),
        }
    }

    fn body_shape(&self) -> BodyShape {
        let returns = self.preferences.returning == Some(Returning::Representation);
        match self.action {
            Action::Read { head: true } => BodyShape::Empty,
            Action::Read { head: false } => BodyShape::Json(self.media_type),
            _ if returns => BodyShape::Json(self.media_type),
            _ => BodyShape::Empty,
        }
    }

    /// LIMIT and OFFSET of a read. The query string takes precedence over `Range`. A `Range` that is too long
    /// is shortened, as HTTP permits; a `limit` that is too long is refused, so that the caller does not take
    /// a part for the whole.
    fn page_bounds(&self) -> Result<(u64, u64), DataError> {
        let page_max = self.limits.page_rows_max;
        let (limit, offset) = (self.query.limit, self.query.offset);
        if let Some(limit) = limit
            && limit > page_max
        {
            return Err(DataError::limit_exceeded(format!(
                "a page has {page_max} rows at most: use limit and offset to walk through more"
            )));
        }
        if limit.is_some() || offset.is_some() {
            return Ok((limit.unwrap_or(page_max), offset.unwrap_or(0)));
        }
        Ok(match row_range(self.request.headers)? {
            Some((first, Some(last))) => ((last - first).saturating_add(1).min(page_max), first),
            Some((first, None)) => (page_max, first),
            None => (page_max, 0),
        })
    }

    fn page_of_write(&self) -> Page<'_, 'a> {
        Page {
            select: &self.query.select,
            order: &self.query.order,
            limit: self.limits.page_rows_max,
            offset: 0,
            body: self.body_shape(),
        }
    }

    /// PostgREST once let `limit` bound the number of rows that a write touches, and removed it. Ignoring it
    /// would write more than such a caller expects.
    fn refuse_paging(&self) -> Result<(), DataError> {
        if self.query.limit.is_some() || self.query.offset.is_some() {
            return Err(DataError::not_supported("limit and offset are for reading only")
                .with_hint("to bound a write, send Prefer: max-affected=N"));
        }
        Ok(())
    }

    /// Refuses columns that the role may not use in this way although it may use others. PostgreSQL would
    /// refuse the statement too, but would not name the column.
    fn refuse_withheld(&self, right: Right, columns: &[&Column]) -> Result<(), DataError> {
        let what = if right == Right::Select { "read" } else { "write" };
        match columns.iter().find(|column| column.is_withheld(right, self.role)) {
            Some(column) => Err(self.table.withheld_column(column, what)),
            None => Ok(()),
        }
    }

    fn refuse_unfiltered(&self) -> Result<(), DataError> {
        if self.query.filters.is_empty() && !self.preferences.allow_unfiltered {
            return Err(DataError::new(
                StatusCode::BAD_REQUEST,
                "filter_required",
                format!(
                    "{} without a filter would change every row of {}",
                    self.request.method, self.table.name
                ),
            )
            .with_hint("add a filter, or send Prefer: allow-unfiltered if that is what you want"));
        }
        Ok(())
    }

    /// `columns=`, refused if it contains a column that cannot be written.
    fn writable_columns(&self) -> Result<Option<&[&'a Column]>, DataError> {
        let columns = self.query.columns.as_deref();
        let read_only = |column: &&&Column| column.read_only;
        match columns.unwrap_or_default().iter().find(read_only) {
            Some(column) => Err(read_only_column(column)),
            None => Ok(columns),
        }
    }

    /// The columns of ON CONFLICT: a key of the table, by default the primary key.
    fn conflict_target(&self) -> Result<Vec<&'a Column>, DataError> {
        if self.preferences.resolution.is_none() {
            return Ok(Vec::new());
        }
        if let Some(target) = &self.query.on_conflict {
            let is_key = self.table.keys.iter().any(|key| {
                key.columns.len() == target.len()
                    && target.iter().all(|column| key.columns.contains(&column.name))
            });
            return match is_key {
                true => Ok(target.clone()),
                false => Err(DataError::malformed_query(format!(
                    "on_conflict must name the columns of a primary or unique key of {}",
                    self.table.name
                ))),
            };
        }
        let Some(key) = self.table.primary_key() else {
            return Err(DataError::malformed_query(format!(
                "{} has no primary key: name a unique key in on_conflict",
                self.table.name
            )));
        };
        key.columns.iter().map(|name| self.table.get_column(name)).collect()
    }

    /// For `return=headers-only`: the primary key as text, for `Location`. `None` if the role may not read
    /// it.
    fn key_to_return(&self) -> Option<Vec<SelectItem<'a>>> {
        if self.preferences.returning != Some(Returning::HeadersOnly) {
            return None;
        }
        let item = |name: &String| {
            let column = self.table.find_column(name)?;
            if column.is_withheld(Right::Select, self.role) {
                return None;
            }
            Some(SelectItem::Field {
                field: Field { column, path: Vec::new(), as_text: false },
                cast: Some("text"),
                name: name.clone(),
            })
        };
        self.table.primary_key()?.columns.iter().map(item).collect()
    }
}
