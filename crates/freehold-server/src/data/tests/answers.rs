//! Answers made from the statement's one row.

use super::*;

fn respond(case: &Case, body: &str, rows: i64, total: Option<i64>) -> Result<Answer, DataError> {
    let row = AnswerRow { body: body.to_owned(), rows, total };
    answer(&case.plan().unwrap(), row)
}

#[test]
fn answers_tell_which_rows_they_hold() {
    let representation = "return=representation, count=exact";
    let update = || patch("orders", "id=eq.1", r#"{"total":1}"#);
    let insert = || post("customers", "", r#"{"email":"a"}"#);
    for (case, rows, total, status, range) in [
        (get("orders", ""), 25, None, 200, "0-24/*"),
        (get("orders", ""), 0, None, 200, "*/*"),
        (get("orders", "").prefer("count=exact"), 25, Some(25), 200, "0-24/25"),
        (get("orders", "limit=25").prefer("count=exact"), 25, Some(3573), 206, "0-24/3573"),
        (get("orders", "offset=10").prefer("count=exact"), 5, Some(15), 206, "10-14/15"),
        (get("orders", "").prefer("count=exact"), 0, Some(0), 200, "*/0"),
        (get("orders", "offset=5").prefer("count=exact"), 0, Some(5), 206, "*/5"),
        (insert(), 1, None, 201, "*/*"),
        (insert().prefer(representation), 1, None, 201, "*/1"),
        (update(), 3, None, 204, "0-2/*"),
        (update().prefer(representation), 3, None, 200, "0-2/3"),
        (update(), 0, None, 204, "*/*"),
        (delete("orders", "id=eq.1").prefer(representation), 2, None, 200, "*/2"),
        (delete("orders", "id=eq.1"), 2, None, 204, "*/*"),
    ] {
        let answer = respond(&case, "[]", rows, total).unwrap();
        let found = answer.headers["content-range"].to_str().unwrap();
        assert_eq!(
            (answer.status.as_u16(), found),
            (status, range),
            "{} {}",
            case.method,
            case.query
        );
    }
}

#[test]
fn what_the_statement_did_can_still_be_refused() {
    let single = |case: Case| case.header("accept", "application/vnd.pgrst.object+json");
    let update = || patch("orders", "total=eq.1", r#"{"total":1}"#);
    for (case, rows, total, status, code) in [
        (single(get("orders", "")), 0, None, 406, "not_single"),
        (single(get("orders", "")), 2, None, 406, "not_single"),
        (single(update()), 2, None, 406, "not_single"),
        (update().prefer("max-affected=2"), 3, None, 400, "max_affected_exceeded"),
        (update().prefer("return=representation"), 1001, None, 400, "limit_exceeded"),
        (get("orders", "offset=6").prefer("count=exact"), 0, Some(5), 416, "range_not_satisfiable"),
    ] {
        let error = respond(&case, "[]", rows, total).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (status, code));
    }
    let error = respond(&get("orders", "offset=6").prefer("count=exact"), "[]", 0, Some(5));
    let header = error.unwrap_err().header.unwrap();
    assert_eq!(header.1, "*/5");
}

#[test]
fn an_answer_says_which_preferences_it_honoured() {
    let case = patch("orders", "total=eq.1", r#"{"total":1}"#)
        .prefer("return=minimal, count=estimated, max-affected=5, missing=default, tx=rollback");
    let answer = respond(&case, "", 3, None).unwrap();
    assert_eq!(answer.headers["preference-applied"], "return=minimal, count=exact, max-affected=5");
    assert!(!answer.headers.contains_key("content-type"));
    assert_eq!(answer.body, "");
}

#[test]
fn a_new_row_has_a_location() {
    let case =
        post("order_items", "", r#"{"order_id":"a","product_id":1}"#).prefer("return=headers-only");
    let (sql, _) = case.sql();
    assert!(sql.contains(r#"SELECT t."order_id"::text AS "order_id", t."product_id"::text AS "product_id" FROM written"#));
    let answer = respond(&case, r#"[{"order_id":"a-b","product_id":"a b&c"}]"#, 1, None).unwrap();
    assert_eq!(
        answer.headers["location"],
        "/v1/data/order_items?order_id=eq.a-b&product_id=eq.a%20b%26c"
    );
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (201, ""));
}
