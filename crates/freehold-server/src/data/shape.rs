//! The shape of a request, for advice on indexes: columns, operators and order, without values.

use http::Method;

use super::filter::{Condition, Filter, Joiner, Test};
use super::model::Model;
use super::query::Query;
use super::request::{DataRequest, Limits};

/// Columns with their operators in SQL, and the order.
pub(crate) struct Shape {
    pub(crate) table: String,
    /// Column and operator.
    pub(crate) conditions: Vec<(String, String)>,
    /// Column, and whether it is descending.
    pub(crate) order: Vec<(String, bool)>,
}

/// The shape of a request that was planned; `None` if it finds no rows by conditions.
pub(crate) fn shape(model: &Model, request: &DataRequest, limits: &Limits) -> Option<Shape> {
    if *request.method == Method::POST {
        return None;
    }
    let table = model.get_table(request.table).ok()?;
    let query = Query::parse(table, request.query, limits).ok()?;
    let mut conditions = Vec::new();
    for filter in &query.filters {
        add(filter, &mut conditions);
    }
    // A plain index does not serve an order by a part of a column, or with NULLs in another position than
    // usual.
    let plain = query.order.iter().all(|term| {
        term.field.path.is_empty() && term.nulls_first.is_none_or(|first| first == term.descending)
    });
    let order = query.order.iter().filter(|_| plain);
    let order = order.map(|term| (term.field.column.name.clone(), term.descending)).collect();
    Some(Shape { table: table.name.clone(), conditions, order })
}

/// The conditions that must all hold.
fn add(filter: &Filter, conditions: &mut Vec<(String, String)>) {
    match filter {
        Filter::Group { negated: false, joiner: Joiner::And, parts } => {
            parts.iter().for_each(|part| add(part, conditions));
        }
        Filter::Group { .. } => {}
        Filter::Condition(Condition { field, negated, test }) => {
            if let (true, false, Some(operator)) = (field.path.is_empty(), *negated, operator(test))
            {
                conditions.push((field.column.name.clone(), operator));
            }
        }
    }
}

fn operator(test: &Test) -> Option<String> {
    match test {
        Test::Compare { operator, .. } => Some((*operator).to_owned()),
        Test::CompareArray { operator: "=", quantifier: "ANY", .. } => Some("= ANY".to_owned()),
        Test::CompareArray { .. } => None,
        Test::Is("NULL") => Some("IS NULL".to_owned()),
        Test::Is(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::shop;
    use super::*;

    fn told(method: Method, table: &str, query: &str) -> Option<String> {
        let headers = http::HeaderMap::new();
        let request = DataRequest { method: &method, table, query, headers: &headers, body: b"" };
        let shape = shape(&shop(), &request, &Limits::default())?;
        let conditions =
            shape.conditions.iter().map(|(name, operator)| format!("{name} {operator}"));
        let order = shape.order.iter().map(|(name, descending)| {
            format!("by {name}{}", if *descending { " desc" } else { "" })
        });
        Some(conditions.chain(order).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn a_shape_has_the_conditions_that_must_all_hold_and_no_value() {
        for (query, expected) in [
            ("status=eq.paid&total=gt.17", "status =, total >"),
            ("id=in.(1,2,3)", "id = ANY"),
            ("customer_id=is.null", "customer_id IS NULL"),
            ("details->>secret=eq.1", ""),
            ("and=(status.eq.paid,total.lt.5)", "status =, total <"),
            // A negated condition, an alternative, or a condition on a part of a column finds no rows by an
            // index.
            ("status=not.eq.paid", ""),
            ("or=(status.eq.paid,total.lt.5)", ""),
            ("not.and=(status.eq.paid,total.lt.5)", ""),
            ("order=total.desc,id", "by total desc, by id"),
            ("order=total.desc.nullslast", ""),
            ("order=total.nullslast", "by total"),
        ] {
            assert_eq!(told(Method::GET, "orders", query).as_deref(), Some(expected), "{query}");
        }
        assert_eq!(
            told(Method::GET, "customers", "email=like.secret*").as_deref(),
            Some("email LIKE")
        );
        assert_eq!(told(Method::DELETE, "orders", "id=eq.1").as_deref(), Some("id ="));
        assert_eq!(told(Method::POST, "orders", ""), None);
        assert_eq!(told(Method::GET, "nothing", "id=eq.1"), None);
    }
}
