//! Turns the one row of a plan's statement into the parts of an HTTP response, or refuses what the statement
//! did.

use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::DataError;
use super::plan::{Plan, Reply};
use super::request::{Action, PATH};

/// The characters that RFC 3986 permits anywhere in a URL.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The columns of the statement's row: `body`, `rows`, `total`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct AnswerRow {
    pub(crate) body: String,
    pub(crate) rows: i64,
    pub(crate) total: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Empty if the response has no body.
    pub(crate) body: String,
}

/// The response to a plan whose statement succeeded. An error here means that
/// its transaction must be rolled back.
pub(crate) fn answer(plan: &Plan, row: AnswerRow) -> Result<Answer, DataError> {
    let reply = &plan.reply;
    check(reply, &row)?;
    let mut headers = HeaderMap::new();
    insert(&mut headers, CONTENT_RANGE, &content_range(reply, &row));
    if !reply.applied.is_empty() {
        insert(&mut headers, PREFERENCE_APPLIED, &reply.applied.join(", "));
    }
    if reply.location
        && let Some(location) = location(&plan.table, &row.body)
    {
        insert(&mut headers, LOCATION, &location);
    }
    let labelled = reply.has_body || reply.action == Action::Read { head: true };
    if labelled {
        insert(&mut headers, CONTENT_TYPE, reply.media_type.content_type());
    }
    Ok(Answer {
        status: status(reply, &row),
        headers,
        body: match reply.has_body {
            true => row.body,
            false => String::new(),
        },
    })
}

fn check(reply: &Reply, row: &AnswerRow) -> Result<(), DataError> {
    let rows = row.rows.unsigned_abs();
    if let Some(max) = reply.written_max
        && rows > max
    {
        return Err(DataError::new(
            StatusCode::BAD_REQUEST,
            "max_affected_exceeded",
            format!("this would change {rows} rows, and max-affected={max}; nothing was changed"),
        ));
    }
    if reply.media_type.single && rows != 1 {
        let found = match (rows, reply.action) {
            (0, _) => "there is none".to_owned(),
            (_, Action::Read { .. }) => "there are more".to_owned(),
            _ => format!("there are {rows}; nothing was changed"),
        };
        return Err(DataError::new(
            StatusCode::NOT_ACCEPTABLE,
            "not_single",
            format!("exactly one row was asked for, and {found}"),
        ));
    }
    if let Some(max) = reply.returned_max
        && rows > max
    {
        return Err(DataError::limit_exceeded(format!(
            "this would return {rows} rows, and {max} is the most; nothing was changed"
        ))
        .with_hint("send Prefer: return=minimal, or narrow the filter"));
    }
    match row.total {
        Some(total) if i128::from(reply.offset) > i128::from(total) => {
            Err(DataError::range_not_satisfiable(reply.offset, total))
        }
        _ => Ok(()),
    }
}

fn status(reply: &Reply, row: &AnswerRow) -> StatusCode {
    match reply.action {
        Action::Read { .. } if row.total.is_some_and(|total| row.rows < total) => {
            StatusCode::PARTIAL_CONTENT
        }
        Action::Read { .. } => StatusCode::OK,
        Action::Insert => StatusCode::CREATED,
        Action::Update | Action::Delete if reply.has_body => StatusCode::OK,
        Action::Update | Action::Delete => StatusCode::NO_CONTENT,
    }
}

/// `first-last/total`, with `*` for a range without rows and for a total that was not requested. Inserts and
/// deletes have a total only, since their rows have no positions.
fn content_range(reply: &Reply, row: &AnswerRow) -> String {
    let total = match reply.action {
        Action::Read { .. } => row.total,
        _ => Some(row.rows).filter(|_| reply.count),
    };
    let total = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    match reply.action {
        Action::Read { .. } | Action::Update if row.rows > 0 => {
            let first = reply.offset;
            let last = first + row.rows.unsigned_abs() - 1;
            format!("{first}-{last}/{total}")
        }
        _ => format!("*/{total}"),
    }
}

/// The URL of the one row whose primary key `body`, an array, contains.
fn location(table: &str, body: &str) -> Option<String> {
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(body).ok()?;
    let [key] = &rows[..] else {
        return None;
    };
    let encode = |text| utf8_percent_encode(text, RESERVED);
    let mut filters = Vec::with_capacity(key.len());
    for (column, value) in key {
        filters.push(format!("{}=eq.{}", encode(column), encode(value.as_str()?)));
    }
    Some(format!("{PATH}/{}?{}", encode(table), filters.join("&")))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
