//! Refusals by a baseline's own code: RAISE in a function, procedure or trigger. The message is meant for the
//! API's caller, and the SQLSTATE may set the HTTP status.

use serde::Deserialize;

use super::DbError;

/// The most characters of each text that are returned.
const CHARS_MAX: usize = 2_000;

/// A refusal by the baseline's own code, with its texts, as [`Error::raised`](super::Error::raised) returns
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Raised {
    /// The HTTP status: 400 to 599. `ERRCODE = 'PT402'` sets 402; other codes give 400, or 409 if they are
    /// PostgreSQL's for a conflict with another row.
    pub status: u16,
    /// The SQLSTATE that was raised; `P0001` by default.
    pub code: String,
    /// The message of RAISE.
    pub message: String,
    /// Its `DETAIL`.
    pub detail: Option<String>,
    /// Its `HINT`.
    pub hint: Option<String>,
    /// Whether the SQLSTATE is not one that PostgreSQL itself uses.
    pub is_own_code: bool,
}

/// The classes of SQLSTATE that PostgreSQL defines, except `P0`, which is PL/pgSQL's.
const CLASSES: &[&str] = &[
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22",
    "23", "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40",
    "42", "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "XX",
];

/// Codes and classes with one meaning, whichever code raises them: a missing privilege, and failures that may
/// pass when tried again.
const NOT_OF_THE_BASELINE: &[&str] = &["42501", "55P03", "08", "25", "40", "53", "57", "58", "XX"];

/// The refusal behind an error, if there is one.
pub(super) fn of(db: &DbError) -> Option<Raised> {
    let code = db.code().code();
    let class = code.get(..2)?;
    // Errors of Freehold's own functions, whose messages are for the log.
    if db.message().starts_with("freehold: ") || NOT_OF_THE_BASELINE.contains(&code) {
        return None;
    }
    let is_own_code = !CLASSES.contains(&class);
    // Recognised by the routine of RAISE in PostgreSQL's source.
    let is_raise = db.routine() == Some("exec_stmt_raise");
    if !is_own_code && (!is_raise || NOT_OF_THE_BASELINE.contains(&class)) {
        return None;
    }
    if code == "PGRST"
        && let Some(raised) = spelled_in_json(db)
    {
        return Some(raised);
    }
    let status = match (class, code.get(2..).and_then(|status| status.parse().ok())) {
        ("PT", Some(status @ 400..=599)) => status,
        ("23", _) if ["23503", "23505", "23P01"].contains(&code) => 409,
        _ => 400,
    };
    Some(Raised {
        status,
        code: code.to_owned(),
        message: shortened(db.message()),
        detail: db.detail().map(shortened),
        hint: db.hint().map(shortened),
        is_own_code,
    })
}

/// PostgREST's second form: the message is JSON with the texts, the detail is JSON with the status. Its
/// headers are ignored.
fn spelled_in_json(db: &DbError) -> Option<Raised> {
    #[derive(Deserialize)]
    struct Texts {
        code: String,
        message: String,
        details: Option<String>,
        hint: Option<String>,
    }
    #[derive(Deserialize)]
    struct Answer {
        status: u16,
    }
    let texts: Texts = serde_json::from_str(db.message()).ok()?;
    let answer: Answer = serde_json::from_str(db.detail()?).ok()?;
    Some(Raised {
        status: Some(answer.status).filter(|status| (400..600).contains(status))?,
        code: shortened(&texts.code),
        message: shortened(&texts.message),
        detail: texts.details.as_deref().map(shortened),
        hint: texts.hint.as_deref().map(shortened),
        is_own_code: true,
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(CHARS_MAX).collect()
}

/// Whether a row policy refused a new row, recognised by the routine in PostgreSQL's source. The policy is
/// one of the baseline's: Freehold's own, `tenant_isolation`, never returns false, but raises.
pub(crate) fn is_refused_by_policy(db: &DbError) -> bool {
    db.code().code() == "42501" && db.routine() == Some("ExecWithCheckOptions")
}

/// Names the table and policy, if PostgreSQL's messages are in English.
pub(super) fn refused_by_policy(db: &DbError) -> String {
    const WORDS: &str = "new row violates row-level security policy";
    let names = db.message().strip_prefix(WORDS).and_then(|rest| {
        let (policy, table) = rest.split_once("for table \"")?;
        let policy = policy.trim().trim_end_matches("(USING expression)").trim().trim_matches('"');
        Some((policy, table.strip_suffix('"')?))
    });
    match names {
        Some(("", table)) => format!("no row policy of {table} lets this row in"),
        Some((policy, table)) => format!("the row policy {policy} of {table} refuses this row"),
        None => "a row policy of the table refuses this row".to_owned(),
    }
}
