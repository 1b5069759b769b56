//! Writes the one SQL statement of a request. Its text contains names from the model, the page's LIMIT, and
//! the aliases of `select`, which are quoted and consist of plain characters. All else is a parameter, so
//! requests of one shape share one prepared statement.

use super::body::RowGroup;
use super::filter::{Condition, Filter, Joiner, Test};
use super::headers::{MediaType, Resolution};
use super::model::{Column, Right, Role, Table, quote_name};
use super::query::{OrderTerm, SelectItem};
use super::scan::{Field, PathKey};

/// The statement that does nothing, for an empty array or object.
pub(super) const NOTHING: &str =
    "SELECT '[]'::text AS body, 0::bigint AS rows, NULL::bigint AS total";

/// How the answer's body is made from the CTE `page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyShape {
    /// No body: HEAD, and writes that return nothing.
    Empty,
    Json(MediaType),
}

/// A parameter, sent as text without a type: PostgreSQL infers the type from the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Param {
    pub(crate) value: String,
    /// The column with which it is compared, for error messages.
    pub(crate) column: Option<String>,
    /// It contains rows as JSON rather than a single value.
    pub(super) is_body: bool,
}

/// Collects the parameters of a statement while its text is written.
pub(super) struct Statement<'a> {
    schema: &'a str,
    table: &'a Table,
    /// The columns that `*` means for the caller's role.
    every_column: String,
    pub(super) params: Vec<Param>,
}

/// Which part of the rows is in the answer.
pub(super) struct Page<'q, 'm> {
    pub(super) select: &'q [SelectItem<'m>],
    pub(super) order: &'q [OrderTerm<'m>],
    pub(super) limit: u64,
    pub(super) offset: u64,
    pub(super) body: BodyShape,
}

/// What to do if an inserted row conflicts with an existing one.
pub(super) struct OnConflict<'q, 'm> {
    pub(super) resolution: Resolution,
    pub(super) target: &'q [&'m Column],
}

impl<'a> Statement<'a> {
    pub(super) fn new(schema: &'a str, table: &'a Table, role: Role) -> Self {
        let mut readable: Vec<&Column> = table.columns.iter().collect();
        readable.retain(|column| !column.is_withheld(Right::Select, role));
        let every_column = match readable.len() == table.columns.len() {
            true => "t.*".to_owned(),
            false => names(&readable, "t."),
        };
        Statement { schema, table, every_column, params: Vec::new() }
    }

    /// A page of the table, and with `count` the total number of matching rows.
    pub(super) fn read(&mut self, page: &Page, filters: &[Filter], count: bool) -> String {
        let relation = self.relation();
        let condition = self.where_clause(filters);
        let rows = self.page(page, &format!("{relation} AS t{condition}"));
        let body = body(page.body);
        let total = match count {
            true => format!("(SELECT count(*) FROM {relation} AS t{condition})"),
            false => "NULL::bigint".to_owned(),
        };
        format!(
            "WITH page AS ({rows}) \
             SELECT {body} AS body, count(*) AS rows, {total} AS total FROM page"
        )
    }

    /// One INSERT per group, since rows with other columns need a statement of their own.
    pub(super) fn insert(
        &mut self,
        page: &Page,
        groups: &[RowGroup],
        on_conflict: Option<&OnConflict>,
    ) -> String {
        let relation = self.relation();
        let returning = self.returning(page.body);
        let mut inserts = Vec::new();
        for group in groups {
            let conflict = on_conflict.map_or_else(String::new, |on_conflict| {
                on_conflict_clause(on_conflict, &group.columns)
            });
            let columns = names(&group.columns, "");
            let values = match group.columns.is_empty() {
                true => " DEFAULT VALUES".to_owned(),
                false => {
                    let json = self.bind_body(&group.json);
                    let record = self.record(&group.columns);
                    let values = names(&group.columns, "r.");
                    format!(
                        " ({columns}) SELECT {values} FROM json_to_recordset({json}::json) \
                         AS r({record})"
                    )
                }
            };
            inserts.push(format!(
                "INSERT INTO {relation} AS t{values}{conflict} RETURNING {returning}"
            ));
        }
        let [insert] = &inserts[..] else {
            let name = |(at, insert)| format!("written_{} AS ({insert})", at + 1);
            let ctes: Vec<String> = inserts.iter().enumerate().map(name).collect();
            let name = |at| format!("SELECT * FROM written_{}", at + 1);
            let all: Vec<String> = (0..inserts.len()).map(name).collect();
            let all = all.join(" UNION ALL ");
            let ctes = ctes.join(", ");
            return self.answer_of_write(page, &format!("{ctes}, written AS ({all})"));
        };
        self.answer_of_write(page, &format!("written AS ({insert})"))
    }

    pub(super) fn update(
        &mut self,
        page: &Page,
        columns: &[&Column],
        json: &str,
        filters: &[Filter],
    ) -> String {
        let relation = self.relation();
        let json = self.bind_body(json);
        let record = self.record(columns);
        let condition = self.where_clause(filters);
        let returning = self.returning(page.body);
        let assignment = |column: &&Column| {
            let name = quote_name(&column.name);
            format!("{name} = r.{name}")
        };
        let assignments: Vec<String> = columns.iter().map(assignment).collect();
        let assignments = assignments.join(", ");
        self.answer_of_write(
            page,
            &format!(
                "written AS (UPDATE {relation} AS t SET {assignments} \
                 FROM json_to_record({json}::json) AS r({record}){condition} \
                 RETURNING {returning})"
            ),
        )
    }

    pub(super) fn delete(&mut self, page: &Page, filters: &[Filter]) -> String {
        let relation = self.relation();
        let condition = self.where_clause(filters);
        let returning = self.returning(page.body);
        self.answer_of_write(
            page,
            &format!("written AS (DELETE FROM {relation} AS t{condition} RETURNING {returning})"),
        )
    }

    fn answer_of_write(&mut self, page: &Page, ctes: &str) -> String {
        let body = body(page.body);
        if page.body == BodyShape::Empty {
            return format!(
                "WITH {ctes} \
                 SELECT {body} AS body, count(*) AS rows, NULL::bigint AS total FROM written"
            );
        }
        let rows = self.page(page, "written AS t");
        format!(
            "WITH {ctes}, page AS ({rows}) \
             SELECT {body} AS body, (SELECT count(*) FROM written) AS rows, \
             NULL::bigint AS total FROM page"
        )
    }

    fn page(&mut self, page: &Page, source: &str) -> String {
        let select = self.select_list(page.select);
        let order = self.order_clause(page.order);
        let limit = page.limit;
        let offset = match page.offset {
            0 => String::new(),
            rows => format!(" OFFSET {}::bigint", self.bind(rows.to_string(), None)),
        };
        format!("SELECT {select} FROM {source}{order} LIMIT {limit}{offset}")
    }

    fn select_list(&mut self, items: &[SelectItem]) -> String {
        if items.is_empty() {
            return self.every_column.clone();
        }
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            list.push(match item {
                SelectItem::All => self.every_column.clone(),
                SelectItem::Field { field, cast, name } => {
                    let cast = cast.map_or_else(String::new, |name| format!("::{name}"));
                    let field = self.field(field);
                    format!("{field}{cast} AS {}", quote_name(name))
                }
            });
        }
        list.join(", ")
    }

    fn order_clause(&mut self, order: &[OrderTerm]) -> String {
        let mut terms = Vec::with_capacity(order.len());
        for term in order {
            let field = self.field(&term.field);
            let direction = match term.descending {
                true => " DESC",
                false => "",
            };
            let nulls = match term.nulls_first {
                Some(true) => " NULLS FIRST",
                Some(false) => " NULLS LAST",
                None => "",
            };
            terms.push(format!("{field}{direction}{nulls}"));
        }
        match terms.is_empty() {
            true => String::new(),
            false => format!(" ORDER BY {}", terms.join(", ")),
        }
    }

    fn where_clause(&mut self, filters: &[Filter]) -> String {
        match filters.is_empty() {
            true => String::new(),
            false => format!(" WHERE {}", self.join(filters, Joiner::And)),
        }
    }

    fn join(&mut self, filters: &[Filter], joiner: Joiner) -> String {
        let filters: Vec<String> = filters.iter().map(|filter| self.filter(filter)).collect();
        filters.join(match joiner {
            Joiner::And => " AND ",
            Joiner::Or => " OR ",
        })
    }

    /// The recursion is bounded by the depth of groups that the parser allows.
    fn filter(&mut self, filter: &Filter) -> String {
        let (negated, condition) = match filter {
            Filter::Condition(condition) => (condition.negated, self.condition(condition)),
            Filter::Group { negated, joiner, parts } => {
                (*negated, format!("({})", self.join(parts, *joiner)))
            }
        };
        match negated {
            true => format!("NOT ({condition})"),
            false => condition,
        }
    }

    fn condition(&mut self, condition: &Condition) -> String {
        let column = condition.field.column;
        let field = self.field(&condition.field);
        match &condition.test {
            Test::Is(state) => format!("{field} IS {state}"),
            Test::Compare { operator, value } => {
                let value = self.bind(value.clone(), Some(column));
                format!("{field} {operator} {value}")
            }
            Test::CompareArray { operator, quantifier, value } => {
                let value = self.bind(value.clone(), Some(column));
                format!("{field} {operator} {quantifier} ({value})")
            }
        }
    }

    fn field(&mut self, field: &Field) -> String {
        let mut sql = format!("t.{}", quote_name(&field.column.name));
        for (at, key) in field.path.iter().enumerate() {
            let arrow = match field.as_text && at + 1 == field.path.len() {
                true => "->>",
                false => "->",
            };
            let key = match key {
                PathKey::Name(name) => format!("{}::text", self.bind(name.clone(), None)),
                PathKey::Index(index) => format!("{}::int", self.bind(index.to_string(), None)),
            };
            sql = format!("{sql} {arrow} {key}");
        }
        match field.path.is_empty() {
            true => sql,
            false => format!("({sql})"),
        }
    }

    /// The columns of a JSON object, with their types. Only these are read from it: `json_populate_record`
    /// would read every column of the table, and fail if the domain of a missing column does not permit NULL.
    fn record(&self, columns: &[&Column]) -> String {
        let typed = |column: &&Column| {
            let name = quote_name(&column.name);
            format!("{name} {}", column.type_sql(self.schema))
        };
        let typed: Vec<String> = columns.iter().map(typed).collect();
        typed.join(", ")
    }

    /// A write that returns nothing needs no SELECT privilege.
    fn returning(&self, body: BodyShape) -> String {
        match body {
            BodyShape::Empty => "1".to_owned(),
            BodyShape::Json(_) => self.every_column.clone(),
        }
    }

    fn relation(&self) -> String {
        let (schema, table) = (quote_name(self.schema), quote_name(&self.table.name));
        format!("{schema}.{table}")
    }

    fn bind(&mut self, value: String, column: Option<&Column>) -> String {
        self.params.push(Param {
            value,
            column: column.map(|column| column.name.clone()),
            is_body: false,
        });
        format!("${}", self.params.len())
    }

    fn bind_body(&mut self, json: &str) -> String {
        self.params.push(Param { value: json.to_owned(), column: None, is_body: true });
        format!("${}", self.params.len())
    }
}

/// `page.*` instead of `page`, since a table may have a column of that name.
fn body(shape: BodyShape) -> &'static str {
    let BodyShape::Json(media_type) = shape else {
        return "''::text";
    };
    match (media_type.single, media_type.nulls_stripped) {
        (false, false) => "coalesce(json_agg(page.*), '[]')::text",
        (false, true) => "coalesce(json_strip_nulls(json_agg(page.*)), '[]')::text",
        (true, false) => "coalesce(json_agg(page.*) -> 0, 'null')::text",
        (true, true) => "coalesce(json_strip_nulls(json_agg(page.*) -> 0), 'null')::text",
    }
}

fn names(columns: &[&Column], qualifier: &str) -> String {
    let name = |column: &&Column| format!("{qualifier}{}", quote_name(&column.name));
    let names: Vec<String> = columns.iter().map(name).collect();
    names.join(", ")
}

fn on_conflict_clause(on_conflict: &OnConflict, columns: &[&Column]) -> String {
    let target = names(on_conflict.target, "");
    if on_conflict.resolution == Resolution::IgnoreDuplicates {
        return format!(" ON CONFLICT ({target}) DO NOTHING");
    }
    let in_target = |column: &Column| on_conflict.target.iter().any(|c| c.name == column.name);
    let mut merged: Vec<&Column> = columns.to_vec();
    merged.retain(|column| !in_target(column));
    // A row that contains only its key still counts as written, and is returned.
    if merged.is_empty() {
        merged = on_conflict.target.to_vec();
    }
    let assignment = |column: &&Column| {
        let name = quote_name(&column.name);
        format!("{name} = EXCLUDED.{name}")
    };
    let assignments: Vec<String> = merged.iter().map(assignment).collect();
    format!(" ON CONFLICT ({target}) DO UPDATE SET {}", assignments.join(", "))
}
