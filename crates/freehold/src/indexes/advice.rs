//! Advice on a tenant's indexes. Pure: from the survey and the sampled query shapes.
//!
//! There is no advice on what was observed too little. An index that serves a constraint, or is the only one
//! for a foreign key, is never to be dropped.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::survey::{Column, Index, Survey, Table};
use super::{IndexColumn, QueryShape, SampledShape, name_for};
use crate::model::ids::TenantId;

const DAY_SECS: f64 = 86_400.0;

/// How much must have been observed before advice is given.
#[derive(Clone, Copy, Debug)]
pub struct AdviceOptions {
    /// The days over which PostgreSQL must have counted.
    pub days_min: f64,
    /// Reads of a table, and requests of one shape.
    pub reads_min: i64,
    /// Rows of a table: a smaller one is scanned in no time, and its indexes cost nothing.
    pub rows_min: i64,
}

impl Default for AdviceOptions {
    fn default() -> AdviceOptions {
        AdviceOptions { days_min: 7.0, reads_min: 1_000, rows_min: 10_000 }
    }
}

/// The kind of advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdviceKind {
    /// Requests, or a foreign key, have no index to use.
    Missing,
    /// The table is scanned often or slowly, and no request is known that an index would help.
    ScannedOften,
    /// Requests whose only conditions cannot use an index because of row-level security.
    KeptByRls,
    /// Another index serves all the same queries.
    Duplicate,
    /// It was never read.
    Unused,
    /// An attempt to create or drop it was interrupted; it costs and has no use.
    Invalid,
}

impl AdviceKind {
    /// The name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            AdviceKind::Missing => "missing",
            AdviceKind::ScannedOften => "scanned_often",
            AdviceKind::KeptByRls => "kept_by_rls",
            AdviceKind::Duplicate => "duplicate",
            AdviceKind::Unused => "unused",
            AdviceKind::Invalid => "invalid",
        }
    }
}

/// Where to apply the advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AdviceScope {
    /// For this tenant alone.
    Tenant,
    /// By a migration: it holds for every tenant.
    Baseline,
}

impl AdviceScope {
    /// The name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            AdviceScope::Tenant => "tenant",
            AdviceScope::Baseline => "baseline",
        }
    }
}

/// One piece of advice.
#[derive(Clone, Debug, Serialize)]
pub struct IndexAdvice {
    /// The kind.
    pub kind: AdviceKind,
    /// Where to apply it.
    pub place: AdviceScope,
    /// The table.
    pub table: String,
    /// The existing index, or the name of a new one.
    pub index: Option<String>,
    /// Its columns.
    pub columns: Vec<IndexColumn>,
    /// The evidence, in a sentence.
    pub because: String,
    /// Bytes that are freed, or an estimate of those that a new index takes.
    pub bytes: i64,
    /// The planner's cost of the query without the new index: HypoPG's estimate.
    pub cost_before: Option<f64>,
    /// The cost with it.
    pub cost_after: Option<f64>,
    /// The query shape for the planner.
    #[serde(skip)]
    pub(crate) shape: Option<QueryShape>,
}

/// All advice on one tenant's indexes.
#[derive(Clone, Debug, Serialize)]
pub struct IndexReport {
    /// The tenant.
    pub tenant: TenantId,
    /// Since when PostgreSQL has counted: the tenant's creation or the last reset, whichever is later.
    pub counted_since: Timestamp,
    /// The same in days.
    pub counted_days: f64,
    /// The number of known query shapes, and since when.
    pub shapes: usize,
    /// See `shapes`.
    pub shapes_since: Option<Timestamp>,
    /// Whether HypoPG was available to estimate the gain of an index.
    pub hypopg: bool,
    /// The advice.
    pub advice: Vec<IndexAdvice>,
    /// Limits of the evidence.
    pub notes: Vec<String>,
}

/// Computes the advice. `plan` adds the planner's estimates.
pub(crate) fn advise(
    survey: &Survey,
    asked: &[&SampledShape],
    options: &AdviceOptions,
) -> IndexReport {
    let counted_days = days(survey, survey.counted_since);
    let mut report = IndexReport {
        tenant: survey.tenant,
        counted_since: survey.counted_since,
        counted_days,
        shapes: asked.len(),
        shapes_since: asked.iter().map(|asked| asked.first_at).min(),
        hypopg: survey.hypopg_schema.is_some(),
        advice: Vec::new(),
        notes: Vec::new(),
    };
    if counted_days < options.days_min {
        report.notes.push(format!(
            "PostgreSQL has counted for {counted_days:.1} days, and {} are wanted: nothing is said of indexes that nothing has read, nor of tables that are read whole",
            options.days_min
        ));
    }
    if asked.is_empty() {
        report.notes.push("no requests to the data API are known of the last 30 days: what is missing can be told of foreign keys alone".to_owned());
    }
    if survey.has_replicas {
        report.notes.push("there are replicas, and what they read is not counted here: before you drop an index that nothing has read, look at pg_stat_user_indexes there".to_owned());
    }
    for table in &survey.tables {
        let mut advice = Vec::new();
        for asked in asked.iter().filter(|asked| asked.shape.table == table.name) {
            of_shape(table, asked, options, &mut advice);
        }
        of_foreign_keys(survey, table, options, &mut advice);
        if advice.is_empty() {
            advice.extend(of_scans(survey, table, options));
        }
        of_indexes(survey, table, options, &mut advice);
        report.advice.append(&mut advice);
    }
    report.advice.sort_by(|a, b| (a.kind, &a.table, &a.index).cmp(&(b.kind, &b.table, &b.index)));
    report
}

/// Whether a table has been used enough for advice.
pub(crate) fn is_judged(survey: &Survey, table: &Table, options: &AdviceOptions) -> bool {
    let since = table.migrated_at.unwrap_or(survey.counted_since).max(survey.counted_since);
    days(survey, since) >= options.days_min
        && table.rows >= options.rows_min
        && table.reads() >= options.reads_min
}

fn days(survey: &Survey, since: Timestamp) -> f64 {
    survey.now.duration_since(since).as_secs_f64() / DAY_SECS
}

fn new(kind: AdviceKind, place: AdviceScope, table: &Table, because: String) -> IndexAdvice {
    IndexAdvice {
        kind,
        place,
        table: table.name.clone(),
        index: None,
        columns: Vec::new(),
        because,
        bytes: 0,
        cost_before: None,
        cost_after: None,
        shape: None,
    }
}

/// The index that a query of this shape could use: columns compared by `=` first, then those of the sort
/// order, or without one, a column compared in another way.
fn of_shape(
    table: &Table,
    asked: &SampledShape,
    options: &AdviceOptions,
    advice: &mut Vec<IndexAdvice>,
) {
    let SampledShape { shape, requests, .. } = asked;
    let named = shape.conditions.iter().map(|(name, _)| name);
    let mut named = named.chain(shape.order.iter().map(|by| &by.name));
    if table.rows < options.rows_min
        || *requests < options.reads_min
        || named.any(|name| table.column(name).is_none())
    {
        return;
    }
    let (mut equal, mut range, mut kept) = (BTreeSet::new(), None, None);
    for (name, operator) in &shape.conditions {
        let Some(column) = table.column(name) else { continue };
        match reach(column, operator) {
            Reach::Equal => drop(equal.insert(name.clone())),
            Reach::Range => range = range.or(Some(name)),
            Reach::Kept => kept = kept.or(Some((column, operator))),
            Reach::None => {}
        }
    }
    if let (Some((column, operator)), true, None) = (kept, equal.is_empty(), range) {
        of_kept(table, column, operator, *requests, advice);
    }
    let mut columns: Vec<IndexColumn> = equal.iter().map(IndexColumn::new).collect();
    columns.extend(shape.order.iter().filter(|by| !equal.contains(&by.name)).cloned());
    if let (Some(range), true) = (range, columns.len() == equal.len()) {
        columns.push(IndexColumn::new(range));
    }
    if columns.is_empty() || is_served(table, &equal, &columns) {
        return;
    }
    let because = format!(
        "{requests} requests since {} asked {}, and no index leads there",
        day(asked.first_at),
        describe(shape)
    );
    propose(table, AdviceScope::Tenant, columns, because, shape.clone(), advice);
}

fn day(at: Timestamp) -> String {
    at.strftime("%F").to_string()
}

enum Reach {
    Equal,
    /// Any other operator that an index supports.
    Range,
    /// It could use an index if there were no row-level security.
    Kept,
    None,
}

fn reach(column: &Column, operator: &str) -> Reach {
    let of = |reaches: Option<bool>, reach| match reaches {
        Some(true) => reach,
        Some(false) => Reach::Kept,
        None => Reach::None,
    };
    match operator {
        "=" => of(column.equal_reaches, Reach::Equal),
        // A list does not preserve the order of the following column.
        "= ANY" => of(column.equal_reaches, Reach::Range),
        "<" | "<=" | ">" | ">=" => of(column.range_reaches, Reach::Range),
        "LIKE" | "ILIKE" | "@>" | "<@" | "&&" => Reach::Kept,
        "IS NULL" => Reach::Equal,
        _ => Reach::None,
    }
}

fn of_kept(
    table: &Table,
    column: &Column,
    operator: &str,
    requests: i64,
    advice: &mut Vec<IndexAdvice>,
) {
    let Column { name, type_name, .. } = column;
    let instead = match operator {
        "LIKE" => "; a prefix can be asked as starts_with(), which is leakproof",
        "=" | "= ANY" => "; text with a CHECK in its place compares leakproof",
        _ => "",
    };
    let because = format!(
        "{requests} requests asked {name} {operator} …, which is not leakproof for {type_name}: under row-level security it only filters \
         rows that were read already, and no index on {name} can serve it{instead}"
    );
    let columns = vec![IndexColumn::new(name)];
    if advice.iter().any(|a| a.kind == AdviceKind::KeptByRls && a.columns == columns) {
        return;
    }
    let kept = new(AdviceKind::KeptByRls, AdviceScope::Baseline, table, because);
    advice.push(IndexAdvice { columns, ..kept });
}

/// Whether an index finds the same rows: by the columns compared by `=`, followed by the order.
fn is_served(table: &Table, equal: &BTreeSet<String>, columns: &[IndexColumn]) -> bool {
    let lead: Vec<String> = equal.iter().cloned().collect();
    let rest = &columns[lead.len()..];
    table.indexes.iter().filter(|index| index.is_led_by(&lead)).any(|index| {
        // A unique key of which all columns are given finds one row.
        let whole = index.unique && index.columns.len() == lead.len() && !lead.is_empty();
        let mut next = index.columns[lead.len()..].iter();
        whole || rest.iter().all(|by| next.next() == Some(&by.name))
    })
}

fn describe(shape: &QueryShape) -> String {
    let conditions: Vec<String> =
        shape.conditions.iter().map(|(name, operator)| format!("{name} {operator} …")).collect();
    let order: Vec<String> = shape.order.iter().map(ToString::to_string).collect();
    match (conditions.is_empty(), order.is_empty()) {
        (false, false) => {
            format!("{} in the order of {}", conditions.join(" and "), order.join(", "))
        }
        (false, true) => conditions.join(" and "),
        (true, _) => format!("for the order of {}", order.join(", ")),
    }
}

fn of_foreign_keys(
    survey: &Survey,
    table: &Table,
    options: &AdviceOptions,
    advice: &mut Vec<IndexAdvice>,
) {
    if table.rows < options.rows_min {
        return;
    }
    for key in &table.foreign_keys {
        let deletes = survey.table(&key.refers_to).map_or(0, |parent| parent.deletes);
        if deletes == 0 || table.indexes.iter().any(|index| index.is_led_by(&key.columns)) {
            continue;
        }
        let because = format!(
            "the foreign key {} has no index: each of {deletes} rows deleted from {} since {} read all of {}",
            key.name,
            key.refers_to,
            day(survey.counted_since),
            table.name
        );
        let equal = |name: &String| (name.clone(), "=".to_owned());
        let shape = QueryShape {
            table: table.name.clone(),
            conditions: key.columns.iter().map(equal).collect(),
            order: Vec::new(),
        };
        let columns = key.columns.iter().map(IndexColumn::new).collect();
        propose(table, AdviceScope::Baseline, columns, because, shape, advice);
    }
}

/// Advises a new index, unless another piece of advice covers it.
fn propose(
    table: &Table,
    place: AdviceScope,
    columns: Vec<IndexColumn>,
    because: String,
    shape: QueryShape,
    advice: &mut Vec<IndexAdvice>,
) {
    let missing = |a: &&IndexAdvice| a.kind == AdviceKind::Missing;
    if advice.iter().filter(missing).any(|other| other.columns.starts_with(&columns)) {
        return;
    }
    advice.retain(|a| a.kind != AdviceKind::Missing || !columns.starts_with(&a.columns));
    advice.push(IndexAdvice {
        index: Some(name_for(&table.name, &columns)),
        bytes: estimate(table, &columns),
        columns,
        shape: Some(shape),
        ..new(AdviceKind::Missing, place, table, because)
    });
}

/// A btree has one entry per row: the columns and about 16 bytes, on pages filled to 90 %.
fn estimate(table: &Table, columns: &[IndexColumn]) -> i64 {
    let widths = columns.iter().filter_map(|by| table.column(&by.name)).map(|c| i64::from(c.bytes));
    let entry = 16 + widths.map(|bytes| (bytes + 7) / 8 * 8).sum::<i64>();
    (table.rows * entry * 10 / 9).max(8192)
}

fn of_scans(survey: &Survey, table: &Table, options: &AdviceOptions) -> Option<IndexAdvice> {
    let per_scan = table.seq_rows.checked_div(table.seq_scans).unwrap_or_default();
    let often = is_judged(survey, table, options)
        && table.seq_scans >= options.reads_min
        && per_scan >= options.rows_min
        && table.seq_scans > table.index_scans / 10;
    let slow = table.slow;
    let which = match slow.statements {
        0 => "which queries do it is not known".to_owned(),
        kinds => format!(
            "of the slow queries, {kinds} do it, which took {:.1} s in {} runs: `freehold insight slow` shows them with their plans",
            slow.seconds, slow.count
        ),
    };
    let because = format!(
        "read whole {} times, {per_scan} rows each, against {} reads by an index; {which}",
        table.seq_scans, table.index_scans
    );
    let scans = new(AdviceKind::ScannedOften, AdviceScope::Tenant, table, because);
    // Before the newest index was created, it was slow for another reason.
    let made =
        table.indexes.iter().filter_map(|index| index.made_at).chain(table.migrated_at).max();
    let slowly = slow.last_at > made && table.rows >= options.rows_min;
    (often || slowly).then_some(IndexAdvice { bytes: table.bytes, ..scans })
}

fn of_indexes(
    survey: &Survey,
    table: &Table,
    options: &AdviceOptions,
    advice: &mut Vec<IndexAdvice>,
) {
    for index in &table.indexes {
        let mut drop = |kind, place, because| {
            advice.push(IndexAdvice {
                index: Some(index.name.clone()),
                columns: index.columns.iter().map(IndexColumn::new).collect(),
                bytes: index.bytes,
                ..new(kind, place, table, because)
            });
        };
        if !index.valid {
            let because = "it is not valid: an attempt to make or drop it was interrupted";
            drop(AdviceKind::Invalid, AdviceScope::Tenant, because.to_owned());
            continue;
        }
        if index.unique || index.fixed || supports_foreign_key(table, index) {
            continue;
        }
        if let Some(other) = table.indexes.iter().find(|other| covers(other, index)) {
            let of_baseline = index.in_template && other.in_template;
            let place = if of_baseline { AdviceScope::Baseline } else { AdviceScope::Tenant };
            drop(AdviceKind::Duplicate, place, format!("{} does all that it does", other.name));
        } else if index.scans == 0
            && is_judged(survey, table, options)
            && index.made_at.is_none_or(|made| days(survey, made) >= options.days_min)
        {
            let because = format!(
                "none of the {} reads of {} used it, while {} rows were written",
                table.reads(),
                table.name,
                table.writes
            );
            drop(AdviceKind::Unused, AdviceScope::Tenant, because);
        }
    }
}

/// Whether a foreign key of the table would lose its only index with this one.
pub(crate) fn supports_foreign_key(table: &Table, index: &Index) -> bool {
    table.foreign_keys.iter().any(|key| {
        let others = table.indexes.iter().filter(|other| other.name != index.name);
        index.is_led_by(&key.columns) && !others.into_iter().any(|o| o.is_led_by(&key.columns))
    })
}

/// Whether `other` serves all queries of `index`: it has the same keys, or these and more. Of two equal ones,
/// the one that other objects depend on stays, otherwise the baseline's.
fn covers(other: &Index, index: &Index) -> bool {
    let of_a_kind = other.name != index.name
        && other.valid
        && other.method == index.method
        && other.condition == index.condition
        && other.keys.starts_with(&index.keys)
        && index.included.iter().all(|c| other.included.contains(c) || other.columns.contains(c));
    let rank =
        |of: &Index| (of.fixed, of.unique, of.in_template, std::cmp::Reverse(of.name.clone()));
    let same = other.keys.len() == index.keys.len() && other.included.len() == index.included.len();
    of_a_kind && if same { rank(other) > rank(index) } else { index.method == "btree" }
}

#[cfg(test)]
mod tests;
