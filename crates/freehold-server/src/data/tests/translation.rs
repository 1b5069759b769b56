//! PostgreSQL's errors, and the errors that the caller gets.

use super::*;

pub(super) fn translate(case: &Case, error: &DatabaseError) -> DataError {
    from_database(&case.plan().unwrap(), &fixture::shop(), error)
}

#[test]
fn a_bad_value_names_its_column() {
    let error = |message, context| DatabaseError {
        sqlstate: "22P02",
        message,
        context,
        ..DatabaseError::default()
    };
    let read = get("orders", "details->>k=eq.1&total=eq.5&status=eq.secret");
    let context = Some("unnamed portal parameter $4 = '…'");
    let refusal = translate(
        &read,
        &error("invalid input value for enum tenant_ab.order_status: \"secret\"", context),
    );
    assert_eq!(refusal.column.as_deref(), Some("status"));
    assert_eq!(refusal.hint.as_deref(), Some("it is one of pending, paid, shipped, cancelled"));

    let body = r#"[{"sku":"abc","price":1,"page":2,"released":"abc"}]"#;
    let insert = post("products", "", body);
    let named = |message| translate(&insert, &error(message, None)).column;
    assert_eq!(named("invalid input syntax for type date: \"abc\"").as_deref(), Some("released"));

    let long = post("customers", "", &format!(r#"{{"email":"a","name":"{}"}}"#, "x".repeat(41)));
    let refusal = translate(&long, &error("value too long for type character varying(40)", None));
    assert_eq!(refusal.column.as_deref(), Some("name"));

    let big = post("products", "", r#"{"sku":"1","page":3,"price":123456789}"#);
    assert_eq!(
        translate(&big, &error("numeric field overflow", None)).column.as_deref(),
        Some("price")
    );
}

#[test]
fn violations_name_columns_that_the_model_knows() {
    let insert = post("orders", "", r#"{"customer_id":"1"}"#);
    let remove = delete("customers", "id=eq.1");
    let violation = |sqlstate, table, constraint| DatabaseError {
        sqlstate,
        table: Some(table),
        constraint: Some(constraint),
        message: "secret of tenant_ab",
        ..DatabaseError::default()
    };
    for (case, error, code, column, message) in [
        (
            post("customers", "", r#"{"email":"a"}"#),
            violation("23505", "customers", "customers_email_key"),
            "unique_violation",
            Some("email"),
            "there is a row with this email already",
        ),
        (
            insert,
            violation("23503", "orders", "orders_customer_id_fkey"),
            "foreign_key_violation",
            Some("customer_id"),
            "there is no row in customers with this customer_id",
        ),
        (
            remove,
            violation("23503", "orders", "orders_customer_id_fkey"),
            "foreign_key_violation",
            None,
            "rows of orders still refer to this row",
        ),
        (
            post("products", "", r#"{"price":-1}"#),
            violation("23514", "products", "price_is_positive"),
            "check_violation",
            Some("price"),
            "price does not meet the rule price_is_positive",
        ),
    ] {
        let refusal = translate(&case, &error);
        assert_eq!(
            (refusal.code, refusal.column.as_deref(), refusal.message.as_str()),
            (code, column, message)
        );
    }
}

#[test]
fn one_sqlstate_means_different_things_by_who_refuses() {
    let upsert = post("orders", "", r#"{"total":1}"#);
    for (sqlstate, routine, status, code) in [
        ("21000", Some("ExecOnConflictUpdate"), 400, "duplicate_rows"),
        ("21000", Some("ExecScanSubPlan"), 400, "cardinality_violation"),
        ("55000", Some("rewriteTargetView"), 400, "read_only_table"),
        ("55000", Some("error_view_not_updatable"), 400, "read_only_table"),
        ("55000", Some("currval_oid"), 500, "internal"),
        ("55000", None, 500, "internal"),
    ] {
        let error = DatabaseError { sqlstate, routine, ..DatabaseError::default() };
        let refusal = translate(&upsert, &error);
        assert_eq!((refusal.status.as_u16(), refusal.code), (status, code), "{routine:?}");
    }
}

#[test]
fn what_postgresql_cannot_put_together_is_too_large_an_answer() {
    for (sqlstate, routine, code) in [
        ("54000", "enlargeStringInfo", "answer_too_large"),
        ("XX000", "MemoryContextAlloc", "answer_too_large"),
        ("XX000", "repalloc", "answer_too_large"),
        ("54000", "makeArrayResult", "limit_exceeded"),
        ("XX000", "errfinish", "internal"),
    ] {
        let error = DatabaseError { sqlstate, routine: Some(routine), ..DatabaseError::default() };
        let refusal = translate(&get("orders", ""), &error);
        assert_eq!(refusal.code, code, "{sqlstate} {routine}");
    }
}

#[test]
fn nothing_that_postgresql_says_is_passed_on() {
    let case = post("orders", "", r#"{"total":1}"#);
    let states = "22P02 22003 23505 23503 23502 23514 23P01 42501 42P01 42703 42883 42601 40001 \
                  40P01 57014 54001 53300 55P03 21000 428C9 P0001 XX000 25006 08006 é x";
    for sqlstate in states.split_whitespace().chain([""]) {
        let error = DatabaseError {
            sqlstate,
            message: "secret \"secret\" in tenant_ab",
            context: Some("SQL statement secret $1"),
            table: Some("secret"),
            column: Some("secret"),
            constraint: Some("secret"),
            data_type: Some("secret"),
            routine: Some("secret"),
        };
        let refusal = translate(&case, &error);
        let text = format!("{refusal:?}");
        assert!(!text.contains("secret") && !text.contains("tenant_"), "{text}");
    }
}

#[test]
fn no_refusal_repeats_the_words_of_the_database() {
    let insert = post("products", "", r#"{"sku":"a"}"#);
    for sqlstate in [
        "22P02", "23502", "23503", "23505", "23514", "23P01", "25P02", "40001", "42501", "42601",
        "42P01", "54001", "55000", "57014", "P0001", "XX000",
    ] {
        let error = DatabaseError {
            sqlstate,
            message: "zzsecret of tenant_ab",
            context: Some("zzsecret"),
            table: Some("zzsecret"),
            column: Some("zzsecret"),
            constraint: Some("zzsecret"),
            data_type: Some("zzsecret"),
            routine: Some("zzsecret"),
        };
        let refusal = format!("{:?}", translate(&insert, &error));
        assert!(!refusal.contains("zzsecret") && !refusal.contains("tenant_ab"), "{refusal}");
    }
}
