//! Requests that are refused before they reach the database, and the reasons.

use super::*;

#[test]
fn a_refusal_has_a_code_and_names_the_column() {
    for (case, status, code, column) in [
        (get("order", ""), 404, "unknown_table", None),
        (get("orders", "totl=eq.1"), 400, "unknown_column", Some("totl")),
        (get("orders", "select=id,x"), 400, "unknown_column", Some("x")),
        (get("orders", "select=id,"), 400, "malformed_query", None),
        (get("orders", "order=x.desc"), 400, "unknown_column", Some("x")),
        (get("orders", "order=total.down"), 400, "malformed_query", None),
        (get("orders", "items.qty=eq.1"), 400, "unknown_column", Some("items.qty")),
        (get("orders", "total=5"), 400, "malformed_query", Some("total")),
        (get("orders", "total"), 400, "malformed_query", Some("total")),
        (get("orders", "total=fts.x"), 400, "not_supported", Some("total")),
        (get("orders", "details->>a=match.x"), 400, "not_supported", Some("details")),
        (get("orders", "total=like.1*"), 400, "malformed_query", Some("total")),
        (get("orders", "raw=eq.{}"), 400, "malformed_query", Some("raw")),
        (get("orders", "total=is.true"), 400, "malformed_query", Some("total")),
        (get("orders", "total=is.5"), 400, "malformed_query", Some("total")),
        (get("orders", "tags=in.(a)"), 400, "malformed_query", Some("tags")),
        (get("orders", "total=cs.{1}"), 400, "malformed_query", Some("total")),
        (get("orders", "total=in.(1,2"), 400, "malformed_query", None),
        (get("orders", "total=in.(1,2)3"), 400, "malformed_query", Some("total")),
        (get("orders", "total->a=eq.1"), 400, "malformed_query", Some("total")),
        (get("orders", "details->=eq.1"), 400, "malformed_query", None),
        (get("orders", "or=()"), 400, "malformed_query", None),
        (get("orders", "or=(total.eq.1"), 400, "malformed_query", None),
        (get("orders", "or=(total.eq.1))"), 400, "malformed_query", None),
        (get("orders", "or=total.eq.1"), 400, "malformed_query", None),
        (get("orders", "select=id,customers(name)"), 400, "not_supported", None),
        (get("orders", "select=c:customers!inner(*)"), 400, "not_supported", None),
        (get("orders", "select=...customers(*)"), 400, "not_supported", None),
        (get("orders", "select=count()"), 400, "not_supported", None),
        (get("orders", "select=id::regclass"), 400, "not_supported", None),
        (get("orders", "select=a\"b:id"), 400, "malformed_query", None),
        (get("orders", "select=id&select=total"), 400, "malformed_query", None),
        (get("orders", "limit=-1"), 400, "malformed_query", None),
        (get("orders", "limit=ten"), 400, "malformed_query", None),
        (get("orders", "limit=1001"), 400, "limit_exceeded", None),
        (get("orders", "offset=9223372036854775808"), 400, "malformed_query", None),
        (get("orders", "id=eq.%00"), 400, "malformed_query", None),
        (get("orders", "id=eq.%ff"), 400, "malformed_query", None),
        (get("orders", "").header("accept", "text/csv"), 406, "not_acceptable", None),
        (get("orders", "").method(Method::PUT), 405, "method_not_allowed", None),
        (get("orders", "").method(Method::OPTIONS), 405, "method_not_allowed", None),
        (
            post("orders", "", "{}").header("content-type", "text/csv"),
            415,
            "unsupported_media_type",
            None,
        ),
        (post("orders", "id=eq.1", "{}"), 400, "malformed_query", None),
        (post("products", "", r#"{"id":1}"#), 400, "read_only_column", Some("id")),
        (post("products", "columns=id", r#"{"sku":"a"}"#), 400, "read_only_column", Some("id")),
        (
            post("order_totals", "", r#"{"total":1}"#).prefer("resolution=merge-duplicates"),
            400,
            "malformed_query",
            None,
        ),
        (patch("orders", "id=eq.1", "[{}]"), 400, "malformed_body", None),
        (patch("orders", "id=eq.1&limit=1", "{}"), 400, "not_supported", None),
        (delete("orders", "limit=1"), 400, "not_supported", None),
    ] {
        let error = case.error();
        assert_eq!(
            (error.status.as_u16(), error.code, error.column.as_deref()),
            (status, code, column),
            "{} {}: {error}",
            case.method,
            case.query
        );
    }
}

#[test]
fn whatever_is_too_much_is_refused() {
    let many = |item: &str, count: usize| vec![item; count].join(",");
    let nested = format!("or={}total.eq.1{}", "(or".repeat(4_000), ")".repeat(4_001));
    let deep = format!("or=({}total.eq.1{}", "or(".repeat(8), ")".repeat(9));
    for (case, status) in [
        (get("orders", &format!("or=({})", many("total.eq.1", 65))), 400),
        (get("orders", &vec!["total=eq.1"; 65].join("&")), 400),
        (get("orders", &format!("total=in.({})", many("1", 501))), 400),
        (get("orders", &format!("total=eq(any).{{{}}}", many("1", 501))), 400),
        (get("orders", &format!("select={}", many("id::text", 201))), 400),
        (get("orders", &format!("order={}", many("id", 201))), 400),
        (get("orders", &format!("details{}=eq.1", "->a".repeat(9))), 400),
        (get("orders", &nested), 400),
        (get("orders", &deep), 400),
        (get("orders", &"x".repeat(16 * 1024 + 1)), 414),
        (post("customers", "", &format!("[{}]", many(r#"{"email":"a"}"#, 1_001))), 400),
    ] {
        let error = case.error();
        assert_eq!(error.status.as_u16(), status, "{error}");
    }
}

/// Places in which SQL text could hide: the statement may contain nothing of the request except names of the
/// model, checked aliases and the LIMIT.
#[test]
fn hostile_text_stays_in_the_parameters() {
    let hostile = "'\"; DROP TABLE orders; --$1\\";
    let encoded: String = hostile.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for query in [
        format!("total=eq.{encoded}"),
        format!("id=in.({encoded})"),
        format!("details->>{encoded}=eq.1"),
        format!("order=details->>{encoded}"),
        format!("or=(total.eq.{encoded},id.eq.1)"),
    ] {
        if let Ok(plan) = get("orders", &query).plan() {
            assert!(!plan.sql.contains("DROP"), "{}", plan.sql);
        }
    }
    for query in
        [format!("{encoded}=eq.1"), format!("select={encoded}:id"), format!("select=id::{encoded}")]
    {
        get("orders", &query).error();
    }
}
