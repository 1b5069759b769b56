//! The planner's estimates for a query without and with a hypothetical index, by HypoPG.
//!
//! The query has no values, so the planner uses what is typical of the column. It is planned under the
//! tenant's policies, like a request: so an operator that is not leakproof uses no index here either.

use super::QueryShape;
use super::advice::{AdviceKind, IndexReport};
use super::survey::{Survey, Table};
use crate::error::Result;
use crate::schema::policy::quote_ident;
use crate::wire::Connection;

/// The LIMIT of the query, that of a page of the data API.
const PAGE: u32 = 100;
/// The smallest gain, as a fraction of the cost before: an index that gains less is not worth its cost at
/// every write.
const GAIN_MIN: f64 = 0.2;

/// Adds the planner's costs to the advice, and removes advice that would gain nothing. The connection is in
/// the tenant's schema.
pub(crate) async fn estimate(
    connection: &mut Connection,
    survey: &Survey,
    report: &mut IndexReport,
) -> Result<()> {
    let Some(hypopg) = &survey.hypopg_schema else { return Ok(()) };
    let forget = format!("SELECT {}.hypopg_reset()", quote_ident(hypopg));
    let imagine = format!("SELECT {}.hypopg_create_index($1)", quote_ident(hypopg));
    for advice in report.advice.iter_mut().filter(|advice| advice.kind == AdviceKind::Missing) {
        let (Some(shape), Some(table)) = (&advice.shape, survey.table(&advice.table)) else {
            continue;
        };
        let query = query(&survey.tenant.schema(), table, shape);
        let columns: Vec<String> = advice.columns.iter().map(super::IndexColumn::sql).collect();
        let index = format!(
            "CREATE INDEX ON {}.{} ({})",
            survey.tenant.schema(),
            quote_ident(&table.name),
            columns.join(", ")
        );
        connection.batch_execute(&forget).await?;
        advice.cost_before = cost(connection, &query).await?;
        connection.query_once(&imagine, &[&index]).await?;
        advice.cost_after = cost(connection, &query).await?;
        connection.batch_execute(&forget).await?;
    }
    let mut notes = Vec::new();
    report.advice.retain(|advice| {
        let (Some(before), Some(after)) = (advice.cost_before, advice.cost_after) else {
            return true;
        };
        let gains = after < before * (1.0 - GAIN_MIN);
        if !gains {
            let columns: Vec<String> = advice.columns.iter().map(ToString::to_string).collect();
            notes.push(format!(
                "an index on {} ({}) was considered; by the planner's estimate it would gain nothing: cost {before:.0} without and {after:.0} with it",
                advice.table,
                columns.join(", ")
            ));
        }
        gains
    });
    report.notes.append(&mut notes);
    Ok(())
}

/// The query of a shape, with an unknown value in place of each parameter.
fn query(schema: &str, table: &Table, shape: &QueryShape) -> String {
    let mut conditions = Vec::new();
    for (name, operator) in &shape.conditions {
        let Some(column) = table.column(name) else { continue };
        let (name, type_name) = (quote_ident(name), &column.type_name);
        conditions.push(match operator.as_str() {
            // Without the cast it would be ANY over the rows of a subquery.
            "= ANY" => format!("{name} = ANY ((SELECT NULL::{type_name}[])::{type_name}[])"),
            "IS NULL" => format!("{name} IS NULL"),
            "=" | "<>" | "<" | "<=" | ">" | ">=" | "LIKE" | "ILIKE" => {
                format!("{name} {operator} (SELECT NULL::{type_name})")
            }
            _ => continue,
        });
    }
    let mut sql = format!("SELECT * FROM {schema}.{}", quote_ident(&table.name));
    if !conditions.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(&conditions.join(" AND "));
    }
    if !shape.order.is_empty() {
        let order: Vec<String> = shape.order.iter().map(super::IndexColumn::sql).collect();
        sql.push_str(" ORDER BY ");
        sql.push_str(&order.join(", "));
    }
    format!("{sql} LIMIT {PAGE}")
}

async fn cost(connection: &mut Connection, query: &str) -> Result<Option<f64>> {
    let rows = connection.query_once(&format!("EXPLAIN (FORMAT JSON) {query}"), &[]).await?;
    let plan: Option<serde_json::Value> = rows.first().map(|row| row.get(0));
    Ok(plan.and_then(|plan| plan[0]["Plan"]["Total Cost"].as_f64()))
}
