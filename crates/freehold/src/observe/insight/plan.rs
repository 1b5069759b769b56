//! What may be kept of a plan: keys that are known here, and expressions without their values. Pure.

use serde_json::{Map, Value, json};

use crate::sql::excerpt::excerpt;

/// Of a larger plan, the first nodes are kept.
const BYTES_MAX: usize = 24_000;
const EXPRESSION_CHARS_MAX: usize = 300;
/// The depth to which nodes are examined.
const DEPTH_MAX: usize = 32;

/// Keys whose values are PostgreSQL's own terms, names of tables and the like, and estimates.
const PLAIN: [&str; 33] = [
    "Node Type",
    "Parent Relationship",
    "Subplan Name",
    "Relation Name",
    "Alias",
    "Index Name",
    "Scan Direction",
    "Join Type",
    "Strategy",
    "Partial Mode",
    "Operation",
    "CTE Name",
    "Command",
    "Function Name",
    "Table Function Name",
    "Tuplestore Name",
    "Startup Cost",
    "Total Cost",
    "Plan Rows",
    "Plan Width",
    "Parallel Aware",
    "Async Capable",
    "Single Copy",
    "Inner Unique",
    "Workers Planned",
    "Planned Partitions",
    "Subplans Removed",
    "Cache Mode",
    "Custom Plan Provider",
    "Conflict Resolution",
    "Conflict Arbiter Indexes",
    "Setup Cost",
    "Disabled",
];

/// Keys whose values are expressions, of the statement or of policies.
const EXPRESSIONS: [&str; 19] = [
    "Filter",
    "Index Cond",
    "Recheck Cond",
    "TID Cond",
    "Hash Cond",
    "Merge Cond",
    "Join Filter",
    "One-Time Filter",
    "Order By",
    "Sort Key",
    "Presorted Key",
    "Group Key",
    "Grouping Sets",
    "Hash Key",
    "Cache Key",
    "Conflict Filter",
    "Run Condition",
    "Function Call",
    "Sampling Parameters",
];

/// EXPLAIN's JSON without the values in the statement's text; `None` if it contains no plan.
pub(crate) fn without_values(explained: &Value) -> Option<Value> {
    let plan = explained.get(0)?.get("Plan")?.as_object()?;
    let mut room = BYTES_MAX;
    Some(json!([{ "Plan": node(plan, &mut room, 0) }]))
}

fn node(plan: &Map<String, Value>, room: &mut usize, depth: usize) -> Value {
    let mut kept = Map::new();
    for (key, value) in plan {
        let value = match key.as_str() {
            key if PLAIN.contains(&key) => plain(value),
            key if EXPRESSIONS.contains(&key) => expression(value),
            _ => continue,
        };
        *room = room.saturating_sub(key.len() + value.to_string().len());
        kept.insert(key.clone(), value);
    }
    let below = plan.get("Plans").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut plans = Vec::new();
    for plan in below.iter().filter_map(Value::as_object) {
        if *room > 0 && depth < DEPTH_MAX {
            plans.push(node(plan, room, depth + 1));
        }
    }
    if plans.len() < below.len() {
        kept.insert("Plans Omitted".to_owned(), (below.len() - plans.len()).into());
    }
    if !plans.is_empty() {
        kept.insert("Plans".to_owned(), plans.into());
    }
    Value::Object(kept)
}

fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => text.chars().take(EXPRESSION_CHARS_MAX).collect::<String>().into(),
        Value::Number(_) | Value::Bool(_) => value.clone(),
        Value::Array(list) => list.iter().filter(|item| item.is_string()).map(plain).collect(),
        _ => Value::Null,
    }
}

fn expression(value: &Value) -> Value {
    match value {
        Value::String(text) => excerpt(text, EXPRESSION_CHARS_MAX).0.into(),
        Value::Array(list) => list.iter().map(expression).collect(),
        _ => Value::Null,
    }
}

/// A plan in readable form: one line for each node and each of its conditions.
pub(crate) fn lines(plan: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(plan) = plan.get(0).and_then(|first| first.get("Plan")) {
        draw(plan, 0, &mut lines);
    }
    lines
}

fn draw(plan: &Value, depth: usize, lines: &mut Vec<String>) {
    let text = |key: &str| plan.get(key).and_then(Value::as_str);
    let number = |key: &str| plan.get(key).and_then(Value::as_f64).unwrap_or_default();
    let indent = "  ".repeat(3 * depth);
    let arrow = if depth == 0 { "" } else { "->  " };
    let mut title = text("Node Type").unwrap_or("?").to_owned();
    for (key, before) in [
        ("Join Type", ""),
        ("Operation", ""),
        ("Index Name", "using "),
        ("Relation Name", "on "),
        ("CTE Name", "on "),
    ] {
        if let Some(value) = text(key) {
            title.push_str(&format!(" {before}{value}"));
        }
    }
    if let Some(name) = text("Subplan Name") {
        lines.push(format!("{indent}{name}"));
    }
    let (cost, rows) = (number("Total Cost"), number("Plan Rows"));
    lines.push(format!("{indent}{arrow}{title}  (cost={cost:.2} rows={rows})"));
    for key in EXPRESSIONS {
        let value = match plan.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(list)) => list
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), ToOwned::to_owned))
                .collect::<Vec<_>>()
                .join(", "),
            _ => continue,
        };
        lines.push(format!("{indent}      {key}: {value}"));
    }
    for below in plan.get("Plans").and_then(Value::as_array).into_iter().flatten() {
        draw(below, depth + 1, lines);
    }
    if let Some(omitted) = plan.get("Plans Omitted") {
        lines.push(format!("{indent}      … and {omitted} more below"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_and_no_unknown_key_of_a_plan_is_kept() {
        let explained = json!([{"Plan": {
            "Node Type": "Sort", "Startup Cost": 1.5, "Plan Rows": 7, "Sort Key": ["(body || 'SECRET'::text)"],
            "Output": ["'SECRET'"], "Future Key": "SECRET",
            "Plans": [{
                "Node Type": "Seq Scan", "Relation Name": "notes", "Parallel Aware": false,
                "Filter": "((body = 'SECRET'::text) AND (id > 42) AND (id < $1))",
                "Subplan Name": "InitPlan 1 (returns $0)",
            }],
        }, "Settings": {"x": "SECRET"}, "Query Identifier": 5}]);
        let kept = without_values(&explained).unwrap();
        let expected = json!([{"Plan": {
            "Node Type": "Sort", "Startup Cost": 1.5, "Plan Rows": 7, "Sort Key": ["(body || ?::text)"],
            "Plans": [{
                "Node Type": "Seq Scan", "Relation Name": "notes", "Parallel Aware": false,
                "Filter": "((body = ?::text) AND (id > ?) AND (id < $1))",
                "Subplan Name": "InitPlan 1 (returns $0)",
            }],
        }}]);
        assert_eq!(kept, expected);
        assert_eq!(lines(&kept)[2], "      InitPlan 1 (returns $0)");
        assert!(without_values(&json!([])).is_none() && without_values(&json!("x")).is_none());
    }

    #[test]
    fn a_plan_is_no_larger_than_the_catalog_takes() {
        let leaf =
            json!({"Node Type": "Seq Scan", "Filter": format!("(a{} = 1)", "é".repeat(9_000))});
        let wide = json!([{"Plan": {"Node Type": "Append", "Plans": vec![leaf; 5_000]}}]);
        let kept = without_values(&wide).unwrap();
        assert!(kept.to_string().len() < BYTES_MAX + 2_000, "{}", kept.to_string().len());
        assert!(kept[0]["Plan"]["Plans Omitted"].as_u64().unwrap() > 4_000);
        let mut deep = json!({"Node Type": "Result"});
        for _ in 0..100 {
            deep = json!({"Node Type": "Result", "Plans": [deep]});
        }
        let kept = without_values(&json!([{"Plan": deep}])).unwrap();
        assert_eq!(lines(&kept).len(), DEPTH_MAX + 2);
    }
}
