//! Advice on tenants' indexes, counted over many tenants. Pure.
//!
//! Advice that holds for one tenant is for that tenant. Advice that holds for most tenants that use a table
//! is for the baseline: one migration covers all of them, and no tenant differs from another.

use std::collections::BTreeMap;

use serde::Serialize;

use super::IndexColumn;
use super::advice::{AdviceKind, AdviceOptions, AdviceScope, IndexAdvice, IndexReport, is_judged};
use super::survey::Survey;

/// The most tenants named beside a piece of advice.
const EXAMPLES_MAX: usize = 3;

/// A piece of advice, and the number of tenants for which it holds.
#[derive(Clone, Debug, Serialize)]
pub struct FleetIndexAdvice {
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
    /// Tenants for which it holds.
    pub tenants: usize,
    /// Tenants that use the table enough to be judged.
    pub of: usize,
    /// The sum over all tenants.
    pub bytes: i64,
    /// The slugs of some of these tenants.
    pub examples: Vec<String>,
}

/// Advice on the indexes of many tenants.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FleetIndexReport {
    /// Tenants that were examined.
    pub tenants: usize,
    /// How many of them PostgreSQL has counted long enough.
    pub counted: usize,
    /// The advice.
    pub advice: Vec<FleetIndexAdvice>,
}

type Key = (AdviceKind, String, Option<String>, String);

#[derive(Default)]
pub(crate) struct Fleet {
    report: FleetIndexReport,
    found: BTreeMap<Key, FleetIndexAdvice>,
    /// By table, the tenants that use it enough.
    judged: BTreeMap<String, usize>,
}

impl Fleet {
    pub(crate) fn add(
        &mut self,
        slug: &str,
        survey: &Survey,
        report: IndexReport,
        options: &AdviceOptions,
    ) {
        self.report.tenants += 1;
        self.report.counted += usize::from(report.counted_days >= options.days_min);
        for table in survey.tables.iter().filter(|table| is_judged(survey, table, options)) {
            *self.judged.entry(table.name.clone()).or_default() += 1;
        }
        for advice in report.advice {
            let IndexAdvice { kind, place, table, index, columns, bytes, .. } = advice;
            let named: Vec<String> = columns.iter().map(ToString::to_string).collect();
            let key = (kind, table.clone(), index.clone(), named.join(", "));
            let found = self.found.entry(key).or_insert_with(|| FleetIndexAdvice {
                kind,
                place,
                table,
                index,
                columns,
                tenants: 0,
                of: 0,
                bytes: 0,
                examples: Vec::new(),
            });
            found.tenants += 1;
            found.bytes += bytes;
            if found.examples.len() < EXAMPLES_MAX {
                found.examples.push(slug.to_owned());
            }
        }
    }

    pub(crate) fn report(self) -> FleetIndexReport {
        let mut report = self.report;
        for mut advice in self.found.into_values() {
            let judged = self.judged.get(&advice.table).copied().unwrap_or_default();
            advice.of = judged.max(advice.tenants);
            let widespread = match advice.kind {
                // A tenant that reads the index would miss it.
                AdviceKind::Unused => advice.tenants == advice.of,
                AdviceKind::Invalid => false,
                _ => advice.tenants * 2 > advice.of,
            };
            if widespread && advice.tenants > 1 {
                advice.place = AdviceScope::Baseline;
            }
            report.advice.push(advice);
        }
        report
    }
}
