//! Requests and the exact SQL for them.

use super::*;

#[test]
fn a_read_is_one_statement_of_one_row() {
    let (sql, params) = get("orders", "status=eq.paid&order=created_at.desc&limit=20").sql();
    assert_eq!(
        sql,
        "WITH page AS (SELECT t.* FROM \"tenant_ab\".\"orders\" AS t \
         WHERE t.\"status\" = $1 ORDER BY t.\"created_at\" DESC LIMIT 20) \
         SELECT coalesce(json_agg(page.*), '[]')::text AS body, count(*) AS rows, \
         NULL::bigint AS total FROM page"
    );
    assert_eq!(params, ["paid"]);
}

/// The part of a read's statement between FROM and the end of its page.
fn condition_of(query: &str) -> (String, Vec<String>) {
    let (sql, params) = get("orders", query).sql();
    let start = sql.find(" AS t").unwrap() + " AS t".len();
    let end = sql.find(" LIMIT").unwrap();
    (sql[start..end].trim_start().to_owned(), params)
}

#[test]
fn filters_become_conditions_and_their_values_parameters() {
    for (query, condition, params) in [
        ("total=eq.5", r#"WHERE t."total" = $1"#, vec!["5"]),
        ("total=neq.5", r#"WHERE t."total" <> $1"#, vec!["5"]),
        ("total=gt.1&total=lte.9", r#"WHERE t."total" > $1 AND t."total" <= $2"#, vec!["1", "9"]),
        ("id=not.eq.x", r#"WHERE NOT (t."id" = $1)"#, vec!["x"]),
        ("id=isdistinct.x", r#"WHERE t."id" IS DISTINCT FROM $1"#, vec!["x"]),
        ("customer_id=is.null", r#"WHERE t."customer_id" IS NULL"#, vec![]),
        ("customer_id=not.is.null", r#"WHERE NOT (t."customer_id" IS NULL)"#, vec![]),
        ("customer_id=is.not_null", r#"WHERE t."customer_id" IS NOT NULL"#, vec![]),
        (
            "details->>note=like.*a%25b*",
            r#"WHERE (t."details" ->> $1::text) LIKE $2"#,
            vec!["note", "%a%b%"],
        ),
        (
            "details->a->0->>b=ilike.x",
            r#"WHERE (t."details" -> $1::text -> $2::int ->> $3::text) ILIKE $4"#,
            vec!["a", "0", "b", "x"],
        ),
        ("details->n=gt.20", r#"WHERE (t."details" -> $1::text) > $2"#, vec!["n", "20"]),
        ("tags=cs.{a,b}", r#"WHERE t."tags" @> $1"#, vec!["{a,b}"]),
        ("details=cd.{\"a\":1}", r#"WHERE t."details" <@ $1"#, vec!["{\"a\":1}"]),
        ("tags=not.ov.{a}", r#"WHERE NOT (t."tags" && $1)"#, vec!["{a}"]),
        (
            "status=in.(paid,shipped)",
            r#"WHERE t."status" = ANY ($1)"#,
            vec![r#"{"paid","shipped"}"#],
        ),
        ("status=not.in.(paid)", r#"WHERE NOT (t."status" = ANY ($1))"#, vec![r#"{"paid"}"#]),
        ("id=in.()", r#"WHERE t."id" = ANY ($1)"#, vec!["{}"]),
        ("total=gt(any).{1,2}", r#"WHERE t."total" > ANY ($1)"#, vec!["{1,2}"]),
        (
            "details->>a=like(all).{*x*,y*}",
            r#"WHERE (t."details" ->> $1::text) LIKE ALL ($2)"#,
            vec!["a", "{%x%,y%}"],
        ),
        ("\"limit\"=eq.3", r#"WHERE t."limit" = $1"#, vec!["3"]),
        ("id=eq.a+b%2Bc%26d", r#"WHERE t."id" = $1"#, vec!["a b+c&d"]),
        // Quotes are part of an unlisted value, as in PostgREST.
        ("id=eq.\"x\"", r#"WHERE t."id" = $1"#, vec!["\"x\""]),
        ("", "", vec![]),
        ("&&", "", vec![]),
    ] {
        assert_eq!(
            condition_of(query),
            (condition.to_owned(), params.into_iter().map(String::from).collect()),
            "{query}"
        );
    }
}

#[test]
fn groups_nest_and_negate() {
    for (query, condition, params) in [
        (
            "or=(total.lt.18,total.gt.21)",
            r#"WHERE (t."total" < $1 OR t."total" > $2)"#,
            vec!["18", "21"],
        ),
        (
            "total=gte.90&or=(limit.eq.14,not.and(limit.gte.11,limit.not.lte.17))",
            r#"WHERE t."total" >= $1 AND (t."limit" = $2 OR NOT ((t."limit" >= $3 AND NOT (t."limit" <= $4))))"#,
            vec!["90", "14", "11", "17"],
        ),
        (
            "not.or=( status.eq.paid , id.in.(1,\"2,3\") )",
            r#"WHERE NOT ((t."status" = $1 OR t."id" = ANY ($2)))"#,
            vec!["paid ", r#"{"1","2,3"}"#],
        ),
        (
            r#"or=(details->>note.eq."a,b)\"c\\",tags.cs.{x,y},details.cs.{"k":{"z":"}"}},limit.is.null)"#,
            r#"WHERE ((t."details" ->> $1::text) = $2 OR t."tags" @> $3 OR t."details" @> $4 OR t."limit" IS NULL)"#,
            vec!["note", r#"a,b)"c\"#, "{x,y}", r#"{"k":{"z":"}"}}"#],
        ),
        (
            "and=(details->>\"a.b\".like.x*)",
            r#"WHERE ((t."details" ->> $1::text) LIKE $2)"#,
            vec!["a.b", "x%"],
        ),
    ] {
        assert_eq!(
            condition_of(query),
            (condition.to_owned(), params.into_iter().map(String::from).collect()),
            "{query}"
        );
    }
}

#[test]
fn list_values_are_escaped_into_one_array() {
    let (_, params) = condition_of(r#"id=in.("a\"b","c\\d",NULL,,{},"""x",e f)"#);
    assert_eq!(params, [r#"{"a\"b","c\\d","NULL","","{}","\"\"\"x\"","e f"}"#]);
}

#[test]
fn select_order_and_paging_shape_the_page() {
    let page_of = |case: Case| {
        let (sql, params) = case.sql();
        let end = sql.find(") SELECT coalesce").unwrap();
        (
            sql["WITH page AS (SELECT ".len()..end]
                .replace(r#" FROM "tenant_ab"."orders" AS t"#, " …"),
            params,
        )
    };
    for (query, page, params) in [
        ("select=*", "t.* … LIMIT 1000", vec![]),
        ("select=", "t.* … LIMIT 1000", vec![]),
        ("select=*,id", "t.* … LIMIT 1000", vec![]),
        ("select=id,id, total", r#"t."id" AS "id", t."total" AS "total" … LIMIT 1000"#, vec![]),
        (
            "select=sum:total::text,d:details->a->>b",
            r#"t."total"::text AS "sum", (t."details" -> $1::text ->> $2::text) AS "d" … LIMIT 1000"#,
            vec!["a", "b"],
        ),
        (
            "select=details->lines->0",
            r#"(t."details" -> $1::text -> $2::int) AS "lines" … LIMIT 1000"#,
            vec!["lines", "0"],
        ),
        ("select=\"limit\"", r#"t."limit" AS "limit" … LIMIT 1000"#, vec![]),
        ("select=*,total::int", "", vec![]),
        (
            "order=total,id.desc,limit.asc.nullsfirst,customer_id.nullslast",
            r#"t.* … ORDER BY t."total", t."id" DESC, t."limit" NULLS FIRST, t."customer_id" NULLS LAST LIMIT 1000"#,
            vec![],
        ),
        (
            "order=details->>rank.desc.nullslast",
            r#"t.* … ORDER BY (t."details" ->> $1::text) DESC NULLS LAST LIMIT 1000"#,
            vec!["rank"],
        ),
        ("limit=5&offset=10", "t.* … LIMIT 5 OFFSET $1::bigint", vec!["10"]),
        ("limit=0&offset=0", "t.* … LIMIT 0", vec![]),
    ] {
        if page.is_empty() {
            assert!(get("orders", query).error().message.contains("two keys total"));
            continue;
        }
        let params: Vec<String> = params.into_iter().map(String::from).collect();
        assert_eq!(page_of(get("orders", query)), (page.to_owned(), params), "{query}");
    }
    let range = |query, range| page_of(get("orders", query).header("range", range));
    assert_eq!(range("", "10-19"), ("t.* … LIMIT 10 OFFSET $1::bigint".into(), vec!["10".into()]));
    assert_eq!(range("", "0-999999"), ("t.* … LIMIT 1000".into(), vec![]));
    assert_eq!(range("", "0-18446744073709551615").0, "t.* … LIMIT 1000");
    assert_eq!(range("limit=3", "10-19"), ("t.* … LIMIT 3".into(), vec![]));
}

#[test]
fn an_order_by_a_hidden_alias_still_means_the_column() {
    let (sql, _) = get("orders", "select=total:limit&order=total").sql();
    assert!(sql.contains(r#"t."limit" AS "total""#) && sql.contains(r#"ORDER BY t."total""#));
}

#[test]
fn a_count_is_taken_with_the_same_parameters() {
    let (sql, params) =
        get("orders", "status=eq.paid&limit=2&offset=4").prefer("count=exact").sql();
    assert_eq!(
        sql,
        "WITH page AS (SELECT t.* FROM \"tenant_ab\".\"orders\" AS t \
         WHERE t.\"status\" = $1 LIMIT 2 OFFSET $2::bigint) \
         SELECT coalesce(json_agg(page.*), '[]')::text AS body, count(*) AS rows, \
         (SELECT count(*) FROM \"tenant_ab\".\"orders\" AS t WHERE t.\"status\" = $1) AS total \
         FROM page"
    );
    assert_eq!(params, ["paid", "4"]);
}

#[test]
fn a_head_builds_no_body_and_a_single_row_reads_two() {
    let (sql, _) = get("orders", "").method(Method::HEAD).sql();
    assert!(sql.contains("SELECT ''::text AS body, count(*) AS rows"));
    let single = "application/vnd.pgrst.object+json;nulls=stripped";
    let (sql, _) = get("orders", "").header("accept", single).sql();
    assert!(sql.contains(
        "LIMIT 2) SELECT coalesce(json_strip_nulls(json_agg(page.*) -> 0), 'null')::text"
    ));
}

#[test]
fn an_insert_reads_its_rows_from_the_body_as_it_came() {
    let body = r#"{"total": 1.10, "status": "paid"}"#;
    let (sql, params) = post("orders", "", body).sql();
    assert_eq!(
        sql,
        "WITH written AS (INSERT INTO \"tenant_ab\".\"orders\" AS t (\"status\", \"total\") \
         SELECT r.\"status\", r.\"total\" FROM json_to_recordset($1::json) \
         AS r(\"status\" \"tenant_ab\".order_status, \"total\" numeric(10,2)) RETURNING 1) \
         SELECT ''::text AS body, count(*) AS rows, NULL::bigint AS total FROM written"
    );
    assert_eq!(params, [format!("[{body}]")]);

    let (sql, _) = post("orders", "select=id&order=id", body).prefer("return=representation").sql();
    assert!(sql.ends_with(
        "RETURNING t.*), page AS (SELECT t.\"id\" AS \"id\" FROM written AS t ORDER BY t.\"id\" \
         LIMIT 1000) SELECT coalesce(json_agg(page.*), '[]')::text AS body, \
         (SELECT count(*) FROM written) AS rows, NULL::bigint AS total FROM page"
    ));
}

#[test]
fn the_number_of_rows_does_not_change_the_statement() {
    let one = post("customers", "", r#"[{"email":"a"}]"#).sql().0;
    let two = post("customers", "", r#"[{"email":"a"},{"email":"b"}]"#).sql().0;
    assert_eq!(one, two);
    let three = get("orders", "id=in.(1)").sql().0;
    assert_eq!(three, get("orders", "id=in.(1,2,3)").sql().0);
}

#[test]
fn columns_says_which_keys_count() {
    let body = r#"[{"email":"a","x":1},{"email":"b","name":"B"}]"#;
    let (sql, _) = post("customers", "columns=\"name\",\"email\"", body).sql();
    assert!(sql.contains(r#"("email", "name") SELECT"#), "{sql}");

    let (sql, params) =
        post("customers", "columns=email,name", body).prefer("missing=default").sql();
    assert!(sql.starts_with("WITH written_1 AS (INSERT"), "{sql}");
    assert!(sql.contains("written AS (SELECT * FROM written_1 UNION ALL SELECT * FROM written_2)"));
    assert_eq!(params, [r#"[{"email":"a","x":1}]"#, r#"[{"email":"b","name":"B"}]"#]);
}

#[test]
fn an_upsert_merges_all_but_its_key() {
    let conflict_of = |query, body, prefer| {
        let (sql, _) = post("customers", query, body).prefer(prefer).sql();
        let (start, end) = (sql.find("ON CONFLICT").unwrap(), sql.find(" RETURNING").unwrap());
        sql[start..end].to_owned()
    };
    let merge = "resolution=merge-duplicates";
    let body = r#"{"id":"1","email":"a","vip":true}"#;
    assert_eq!(
        conflict_of("", body, merge),
        r#"ON CONFLICT ("id") DO UPDATE SET "email" = EXCLUDED."email", "vip" = EXCLUDED."vip""#
    );
    assert_eq!(
        conflict_of("on_conflict=email", r#"{"email":"a"}"#, merge),
        r#"ON CONFLICT ("email") DO UPDATE SET "email" = EXCLUDED."email""#
    );
    assert_eq!(
        conflict_of("", body, "resolution=ignore-duplicates"),
        r#"ON CONFLICT ("id") DO NOTHING"#
    );
    let error = post("customers", "on_conflict=name", body).prefer(merge).error();
    assert!(error.message.contains("primary or unique key"));
}

#[test]
fn an_update_sets_the_columns_that_the_body_gives() {
    let (sql, params) = patch("orders", "id=eq.7", r#"{"total":5,"details":{"a":1}}"#).sql();
    assert_eq!(
        sql,
        "WITH written AS (UPDATE \"tenant_ab\".\"orders\" AS t \
         SET \"total\" = r.\"total\", \"details\" = r.\"details\" \
         FROM json_to_record($1::json) AS r(\"total\" numeric(10,2), \"details\" jsonb) \
         WHERE t.\"id\" = $2 RETURNING 1) \
         SELECT ''::text AS body, count(*) AS rows, NULL::bigint AS total FROM written"
    );
    assert_eq!(params, [r#"{"total":5,"details":{"a":1}}"#, "7"]);
}

#[test]
fn a_delete_returns_what_it_deleted_when_asked() {
    let (sql, _) = delete("orders", "id=eq.7&select=id").prefer("return=representation").sql();
    assert_eq!(
        sql,
        "WITH written AS (DELETE FROM \"tenant_ab\".\"orders\" AS t WHERE t.\"id\" = $1 \
         RETURNING t.*), page AS (SELECT t.\"id\" AS \"id\" FROM written AS t LIMIT 1000) \
         SELECT coalesce(json_agg(page.*), '[]')::text AS body, \
         (SELECT count(*) FROM written) AS rows, NULL::bigint AS total FROM page"
    );
}

#[test]
fn a_write_without_a_filter_needs_leave() {
    for case in [delete("orders", "select=id"), patch("orders", "", r#"{"total":1}"#)] {
        let error = case.error();
        assert_eq!((error.status.as_u16(), error.code), (400, "filter_required"));
        assert!(error.hint.as_deref().unwrap().contains("allow-unfiltered"));
        case.prefer("allow-unfiltered").plan().unwrap();
    }
}

#[test]
fn an_empty_write_does_nothing() {
    for case in [post("orders", "", "[]"), patch("orders", "id=eq.1", "{}")] {
        assert_eq!(case.sql(), (sql::NOTHING.to_owned(), vec![]));
    }
    let (sql, _) = post("orders", "", "{}").sql();
    assert!(sql.contains("AS t DEFAULT VALUES RETURNING 1"));
}

#[test]
fn only_what_may_be_refused_waits_for_the_answer() {
    let waits = |case: Case| {
        let plan = case.plan().unwrap();
        (plan.write, plan.commit_after_answer)
    };
    let single = "application/vnd.pgrst.object+json";
    let body = r#"{"email":"a"}"#;
    assert_eq!(waits(get("orders", "").header("accept", single)), (false, false));
    assert_eq!(waits(post("customers", "", body).prefer("return=representation")), (true, true));
    assert_eq!(waits(post("customers", "", body)), (true, false));
    assert_eq!(waits(post("customers", "", body).header("accept", single)), (true, true));
    assert_eq!(waits(patch("customers", "id=eq.1", body)), (true, false));
    assert_eq!(waits(patch("customers", "id=eq.1", body).prefer("max-affected=1")), (true, true));
    assert_eq!(waits(delete("customers", "id=eq.1").prefer("return=representation")), (true, true));
}

#[test]
fn every_column_means_those_that_the_role_may_read() {
    let page = |query: &str| get("products", query).by(Role::Viewer).sql().0;
    let readable = r#"t."id", t."sku", t."page", t."released""#;
    for query in ["", "select=*", "select=*,sku"] {
        assert!(
            page(query).starts_with(&format!("WITH page AS (SELECT {readable} FROM")),
            "{query}"
        );
        assert!(get("products", query).by(Role::Member).sql().0.contains("SELECT t.* FROM"));
    }
    assert!(
        page("select=*,code:sku").contains(&format!(r#"SELECT {readable}, t."sku" AS "code""#))
    );
    let insert = post("products", "", r#"{"sku":"A"}"#).by(Role::Viewer);
    let (sql, _) = insert.prefer("return=representation").sql();
    assert!(sql.contains(&format!("RETURNING {readable})")), "{sql}");
    assert!(sql.contains(&format!("SELECT {readable} FROM written AS t")), "{sql}");
    let (sql, _) = patch("products", "id=eq.1", r#"{"sku":"A"}"#).by(Role::Viewer).sql();
    assert!(sql.contains("RETURNING 1)"), "{sql}");
}

#[test]
fn a_column_that_the_role_may_not_read_or_write_is_refused_by_its_name() {
    for query in [
        "select=price",
        "select=sku,cents:price::text",
        "price=gt.1",
        "or=(sku.eq.A,not.and(price.gt.1,sku.eq.B))",
        "order=price",
    ] {
        for case in [get("products", query), get("products", query).method(Method::HEAD)] {
            let error = case.by(Role::Viewer).error();
            assert_eq!((error.status.as_u16(), error.code), (403, "forbidden"), "{query}");
            assert_eq!(error.message, "your role may not read price of products", "{query}");
            assert_eq!(error.column.as_deref(), Some("price"));
        }
        assert!(get("products", query).by(Role::Member).plan().is_ok(), "{query}");
    }
    for case in [
        post("products", "", r#"{"sku":"A","price":1}"#),
        post("products", "", r#"[{"sku":"A"},{"price":1}]"#).prefer("missing=default"),
        patch("products", "sku=eq.A", r#"{"price":1}"#),
    ] {
        let error = case.by(Role::Member).error();
        assert_eq!(error.message, "your role may not write price of products");
        assert_eq!(error.status.as_u16(), 403);
    }
    for case in [
        post("products", "columns=sku", r#"{"sku":"A","price":1}"#),
        patch("products", "price=eq.1", r#"{"sku":"A"}"#),
        delete("products", "price=eq.1"),
    ] {
        assert!(case.by(Role::Member).plan().is_ok(), "what is not written is no matter");
    }
}
