//! The tenant's own tables over HTTP. The unit tests of `data` check the SQL of requests; here PostgreSQL
//! answers them, in a tenant's context.

use freehold::Role;
use serde_json::{Value, json};

use crate::support::{Answer, Person, Place, Service, Setup, shop_and};

/// Acme with its few rows, beside globex with the same few.
struct Shop {
    service: Service,
    acme: Place,
    globex: Place,
}

impl Shop {
    async fn open() -> Shop {
        let service = Service::start(Setup::default()).await;
        let (acme, globex) = service.two_tenants().await;
        Shop { service, acme, globex }
    }

    /// `request` is a method and a path below `/v1/data/`; `headers` are `name: value` lines.
    async fn ask_as(&self, by: &Person, request: &str, headers: &str, body: Value) -> Answer {
        let (method, path) = request.split_once(' ').unwrap();
        let mut call = self.service.call(method, &format!("/v1/data/{path}")).by(by);
        for line in headers.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            call = call.header(name, value);
        }
        if !body.is_null() {
            call = call.json(&body);
        }
        call.send().await
    }

    async fn ask(&self, request: &str, headers: &str, body: Value) -> Answer {
        self.ask_as(&self.acme.owner, request, headers, body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", Value::Null).await
    }

    /// The SKUs that a query finds, in order.
    async fn skus(&self, query: &str) -> String {
        let path = format!("products?select=sku&{query}");
        let rows = self.get(&path).await.expect(200).json();
        let skus: Vec<_> =
            rows.as_array().unwrap().iter().map(|row| row["sku"].as_str().unwrap()).collect();
        skus.join(" ")
    }
}

#[tokio::test]
async fn columns_are_chosen_renamed_and_cast() {
    let shop = Shop::open().await;
    for (query, row) in [
        ("select=sku,price_cents", json!({"sku": "TAPE", "price_cents": 990})),
        ("select=price_cents,sku", json!({"price_cents": 990, "sku": "TAPE"})),
        ("select=code:sku,cents:price_cents", json!({"code": "TAPE", "cents": 990})),
        ("select=price_cents::text", json!({"price_cents": "990"})),
        ("select=in_stock,stock", json!({"in_stock": true, "stock": 12})),
        ("select=created_at", json!({"created_at": "2026-01-03T00:00:00+00:00"})),
        ("select=%22sku%22", json!({"sku": "TAPE"})),
    ] {
        let path = format!("products?{query}&sku=eq.TAPE");
        let answer = shop.get(&path).await.expect(200);
        assert_eq!(answer.json(), json!([row]), "{query}");
        assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    }
    let all = shop.get("products?sku=eq.TAPE").await.json();
    let mut keys: Vec<_> = all[0].as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["created_at", "id", "in_stock", "name", "price_cents", "sku", "stock"]);
    let order = format!(
        "order_summary?select=status,total_cents,line_count&id=eq.{}",
        shop.acme.id("first")
    );
    let row = json!([{"status": "delivered", "total_cents": 3780, "line_count": 1}]);
    assert_eq!(shop.get(&order).await.expect(200).json(), row);
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let shop = Shop::open().await;
    for (query, found) in [
        ("sku=eq.TAPE", "TAPE"),
        ("sku=neq.TAPE", "DRILL HAMMER"),
        ("price_cents=gt.1890", "DRILL"),
        ("price_cents=gte.1890", "DRILL HAMMER"),
        ("price_cents=lt.1890", "TAPE"),
        ("price_cents=lte.1890", "HAMMER TAPE"),
        ("price_cents=gt.900&price_cents=lt.2000", "HAMMER TAPE"),
        ("name=like.*small*", "HAMMER"),
        ("name=like.*SMALL*", ""),
        ("name=ilike.*SMALL*", "HAMMER"),
        ("sku=in.(TAPE,DRILL,NONE)", "DRILL TAPE"),
        ("sku=in.()", ""),
        ("sku=in.(%22TAPE%22,%22x,y%22)", "TAPE"),
        ("sku=not.in.(TAPE,DRILL)", "HAMMER"),
        ("in_stock=is.true", "HAMMER TAPE"),
        ("in_stock=is.false", "DRILL"),
        ("in_stock=not.is.true", "DRILL"),
        ("or=(sku.eq.TAPE,stock.eq.0)", "DRILL TAPE"),
        ("or=(and(stock.gt.0,stock.lt.10),sku.eq.TAPE)", "HAMMER TAPE"),
        ("not.or=(sku.eq.TAPE,stock.eq.0)", "HAMMER"),
        ("and=(stock.gt.0,or(sku.eq.TAPE,sku.eq.DRILL))", "TAPE"),
        ("stock=eq.0&sku=eq.TAPE", ""),
        ("created_at=gte.2026-01-02&created_at=lt.2026-01-03", "DRILL"),
        ("sku=eq.' OR 1=1 --".replace(' ', "%20").leak(), ""),
        ("sku=eq.TAPE%27%3B%20DROP%20TABLE%20products%3B--", ""),
    ] {
        let query = format!("{query}&order=sku");
        assert_eq!(shop.skus(&query).await, found, "{query}");
    }
    let shipped = shop.get("orders?select=id&shipped_at=is.null").await.expect(200).json();
    assert_eq!(shipped.as_array().unwrap().len(), 2);
    let status = shop.get("orders?select=status&status=in.(paid,pending)&order=created_at").await;
    assert_eq!(status.json(), json!([{"status": "paid"}, {"status": "pending"}]));
}

#[tokio::test]
async fn rows_come_in_the_order_and_the_page_that_was_asked_for() {
    let shop = Shop::open().await;
    for (query, found) in [
        ("order=sku", "DRILL HAMMER TAPE"),
        ("order=sku.desc", "TAPE HAMMER DRILL"),
        ("order=price_cents", "TAPE HAMMER DRILL"),
        ("order=in_stock.desc,price_cents.desc", "HAMMER TAPE DRILL"),
        ("order=sku&limit=2", "DRILL HAMMER"),
        ("order=sku&limit=2&offset=1", "HAMMER TAPE"),
        ("order=sku&offset=3", ""),
        ("order=sku&limit=0", ""),
    ] {
        assert_eq!(shop.skus(query).await, found, "{query}");
    }
    for (order, first) in [("shipped_at.nullsfirst", true), ("shipped_at.desc.nullslast", false)] {
        let rows = shop.get(&format!("orders?select=shipped_at&order={order}")).await.json();
        assert_eq!(rows[0]["shipped_at"].is_null(), first, "{order}");
    }
}

#[tokio::test]
async fn ranges_and_counts_are_told_in_headers() {
    let shop = Shop::open().await;
    let products = "GET products?select=sku&order=sku";
    for (request, headers, status, range, rows) in [
        (products, "", 200, "0-2/*", 3),
        (products, "prefer: count=exact", 200, "0-2/3", 3),
        (products, "range: 0-1", 200, "0-1/*", 2),
        (products, "range: 0-1\nprefer: count=exact", 206, "0-1/3", 2),
        (products, "range: 1-\nprefer: count=exact", 206, "1-2/3", 2),
        (products, "range: 0-1\nrange-unit: items\nprefer: count=exact", 206, "0-1/3", 2),
        (products, "range: bytes=0-1\nprefer: count=exact", 200, "0-2/3", 3),
        ("GET products?select=sku&limit=1&offset=1", "prefer: count=exact", 206, "1-1/3", 1),
        ("GET products?sku=eq.NONE", "prefer: count=exact", 200, "*/0", 0),
        ("GET products?select=sku&limit=0", "prefer: count=exact", 206, "*/3", 0),
    ] {
        let answer = shop.ask(request, headers, Value::Null).await.expect(status);
        assert_eq!(answer.header("content-range"), range, "{request} {headers}");
        assert_eq!(answer.json().as_array().unwrap().len(), rows, "{request} {headers}");
        let applied = if headers.contains("count") { "count=exact" } else { "" };
        assert_eq!(answer.header("preference-applied"), applied, "{request} {headers}");
    }
    let past = shop.ask(products, "range: 9-12\nprefer: count=exact", Value::Null).await;
    let past = past.refused(416, "range_not_satisfiable");
    assert_eq!(past.header("content-range"), "*/3");
    let head = shop.ask("HEAD products", "prefer: count=exact", Value::Null).await.expect(200);
    assert_eq!(head.header("content-range"), "0-2/3");
    assert!(head.body.is_empty());
    shop.ask("HEAD nothing", "", Value::Null).await.expect(404);
}

#[tokio::test]
async fn one_object_is_one_row_or_an_error() {
    let shop = Shop::open().await;
    let single = "accept: application/vnd.pgrst.object+json";
    let answer = shop.ask("GET products?select=sku&sku=eq.TAPE", single, Value::Null).await;
    let answer = answer.expect(200);
    assert_eq!(answer.json(), json!({"sku": "TAPE"}));
    let media_type = "application/vnd.pgrst.object+json; charset=utf-8";
    assert_eq!(answer.header("content-type"), media_type);
    for query in ["sku=eq.NONE", "sku=neq.TAPE"] {
        let request = format!("GET products?{query}");
        shop.ask(&request, single, Value::Null).await.refused(406, "not_single");
    }
    // A write that touches another number of rows is undone.
    let headers = format!("{single}\nprefer: return=representation");
    let write = shop.ask("PATCH products?sku=neq.TAPE", &headers, json!({"stock": 99})).await;
    write.refused(406, "not_single");
    assert_eq!(shop.skus("stock=eq.99").await, "");
    let write =
        shop.ask("PATCH products?sku=eq.TAPE&select=stock", &headers, json!({"stock": 99})).await;
    assert_eq!(write.expect(200).json(), json!({"stock": 99}));
    shop.ask("GET products", "accept: text/csv", Value::Null).await.refused(406, "not_acceptable");
}

#[tokio::test]
async fn rows_are_inserted_one_or_many_and_returned_if_asked_for() {
    let shop = Shop::open().await;
    let row = |sku: &str| json!({"sku": sku, "name": sku, "price_cents": 5});
    let answer = shop.ask("POST products", "", row("A")).await.expect(201);
    assert!(answer.body.is_empty());
    let answer = shop.ask("POST products", "prefer: return=minimal", row("B")).await.expect(201);
    assert_eq!(answer.header("preference-applied"), "return=minimal");
    let returned = "prefer: return=representation";
    let answer = shop.ask("POST products?select=sku,stock,in_stock", returned, row("C")).await;
    assert_eq!(answer.expect(201).json(), json!([{"sku": "C", "stock": 0, "in_stock": false}]));
    let many = json!([row("D"), row("E")]);
    let answer = shop.ask("POST products?select=sku", returned, many).await.expect(201);
    assert_eq!(answer.json(), json!([{"sku": "D"}, {"sku": "E"}]));
    let answer =
        shop.ask("POST products", "prefer: return=headers-only", row("F")).await.expect(201);
    let place = answer.header("location").to_owned();
    let made = shop.service.get(&place).by(&shop.acme.owner).send().await.expect(200).json();
    assert_eq!(made[0]["sku"], "F", "{place}");
    let unlike = json!([{"sku": "G", "name": "G", "price_cents": 1, "stock": 7}, row("H")]);
    shop.ask("POST products", "", unlike.clone()).await.refused(400, "malformed_body");
    shop.ask("POST products", "prefer: missing=default", unlike).await.expect(201);
    assert_eq!(shop.skus("sku=in.(A,B,C,D,E,F,G,H)&order=sku").await, "A B C D E F G H");
    shop.ask("POST products", "", json!([])).await.expect(201);
    // If one row is invalid, none is inserted.
    let many = json!([row("OK"), row("not a sku")]);
    shop.ask("POST products", "", many).await.refused(400, "check_violation");
    assert_eq!(shop.skus("sku=eq.OK").await, "");
    let named = json!({"sku": "COLS", "name": "c", "price_cents": 1, "stock": 3});
    shop.ask("POST products?columns=sku,name,price_cents", "", named).await.expect(201);
    assert_eq!(shop.skus("sku=eq.COLS&stock=eq.0").await, "COLS");
}

#[tokio::test]
async fn an_upsert_updates_or_passes_over_what_is_there() {
    let shop = Shop::open().await;
    let rows = json!([{"sku": "TAPE", "name": "New tape", "price_cents": 1}, {"sku": "NEW", "name": "New", "price_cents": 2}]);
    let merge = "prefer: resolution=merge-duplicates, return=representation";
    let path = "POST products?on_conflict=sku&select=sku,name,stock";
    let answer = shop.ask(path, merge, rows.clone()).await.expect(201);
    let expected = json!([{"sku": "TAPE", "name": "New tape", "stock": 12}, {"sku": "NEW", "name": "New", "stock": 0}]);
    assert_eq!(answer.json(), expected);
    let applied = answer.header("preference-applied");
    assert!(applied.contains("resolution=merge-duplicates"), "{applied}");
    let ignore = "prefer: resolution=ignore-duplicates, return=representation";
    let rows = json!([{"sku": "TAPE", "name": "Newer", "price_cents": 1}]);
    let answer = shop.ask("POST products?on_conflict=sku", ignore, rows).await.expect(201);
    assert_eq!(answer.json(), json!([]));
    assert_eq!(shop.skus("name=eq.New%20tape").await, "TAPE");
    let answer = shop
        .ask(
            "POST products?on_conflict=name",
            merge,
            json!({"sku": "X", "name": "X", "price_cents": 1}),
        )
        .await;
    answer.refused(400, "malformed_query");
    let twice = json!([{"sku": "TW", "name": "1", "price_cents": 1}, {"sku": "TW", "name": "2", "price_cents": 1}]);
    shop.ask("POST products?on_conflict=sku", merge, twice).await.refused(400, "duplicate_rows");
    // Globex's tape is another tape.
    let rows = shop
        .ask_as(&shop.globex.owner, "GET products?select=price_cents&sku=eq.TAPE", "", Value::Null)
        .await;
    assert_eq!(rows.json(), json!([{"price_cents": 990}]));
}

#[tokio::test]
async fn updates_and_deletes_touch_what_their_filter_chooses_and_need_one() {
    let shop = Shop::open().await;
    let answer = shop.ask("PATCH products?sku=eq.TAPE", "", json!({"stock": 1})).await.expect(204);
    assert!(answer.body.is_empty());
    let returned = "prefer: return=representation, count=exact";
    let answer = shop
        .ask("PATCH products?stock=gt.0&select=sku,stock&order=sku", returned, json!({"stock": 2}))
        .await;
    assert_eq!(
        answer.expect(200).json(),
        json!([{"sku": "HAMMER", "stock": 2}, {"sku": "TAPE", "stock": 2}])
    );
    shop.ask("PATCH products?sku=eq.NONE", "", json!({"stock": 1})).await.expect(204);
    shop.ask("PATCH products?sku=eq.TAPE", "", json!({})).await.expect(204);
    for request in [
        "PATCH products",
        "DELETE products",
        "PATCH products?select=sku",
        "DELETE products?order=sku",
    ] {
        let body = if request.starts_with("PATCH") { json!({"stock": 0}) } else { Value::Null };
        shop.ask(request, "", body).await.refused(400, "filter_required");
    }
    for request in ["PATCH products?sku=eq.TAPE&limit=1", "DELETE products?sku=eq.TAPE&limit=1"] {
        shop.ask(request, "", json!({"stock": 0})).await.refused(400, "not_supported");
    }
    let bounded = "prefer: max-affected=1";
    let answer = shop.ask("PATCH products?stock=eq.2", bounded, json!({"stock": 3})).await;
    answer.refused(400, "max_affected_exceeded");
    assert_eq!(shop.skus("stock=eq.2&order=sku").await, "HAMMER TAPE", "nothing was changed");

    let allowed = "prefer: allow-unfiltered";
    let answer = shop.ask("PATCH products", allowed, json!({"stock": 4})).await.expect(204);
    assert_eq!(answer.header("preference-applied"), "allow-unfiltered");
    assert_eq!(shop.skus("stock=eq.4&order=sku").await, "DRILL HAMMER TAPE");
    let note = format!("DELETE order_notes?id=eq.{}", shop.acme.id("note"));
    shop.ask(&note, "", Value::Null).await.expect(204);
    let request = "DELETE orders?status=eq.pending&select=status";
    let answer = shop.ask(request, returned, Value::Null).await.expect(200);
    assert_eq!(answer.json(), json!([{"status": "pending"}]));
    assert_eq!(answer.header("content-range"), "*/1");
    shop.ask("DELETE orders", allowed, Value::Null).await.expect(204);
    assert_eq!(shop.get("order_items").await.json(), json!([]), "the items went with their orders");
    // Globex has all of it still.
    for (path, rows) in
        [("products?stock=eq.12", 1), ("orders", 3), ("order_items", 3), ("order_notes", 1)]
    {
        let there = shop.ask_as(&shop.globex.owner, &format!("GET {path}"), "", Value::Null).await;
        assert_eq!(there.json().as_array().unwrap().len(), rows, "{path}");
    }
}

#[tokio::test]
async fn a_refusal_names_the_column_at_fault() {
    let shop = Shop::open().await;
    let product = |key: &str, value: Value| {
        let mut product = json!({"sku": "NEW", "name": "New", "price_cents": 1});
        product[key] = value;
        product
    };
    let order = json!({"customer_id": shop.acme.id("nobody")});
    let long = "x".repeat(201);
    let customer = shop.acme.id("ada");
    let busy = format!("DELETE customers?id=eq.{customer}");
    for (request, body, status, code, field) in [
        ("POST products", product("sku", json!("TAPE")), 409, "unique_violation", "sku"),
        ("POST products", product("sku", json!("no sku")), 400, "check_violation", "sku"),
        ("POST products", product("name", json!(long)), 400, "check_violation", "name"),
        ("POST products", product("name", Value::Null), 400, "not_null_violation", "name"),
        ("POST products", product("price_cents", json!(-1)), 400, "check_violation", "price_cents"),
        ("POST products", product("price_cents", json!("many")), 400, "bad_value", "price_cents"),
        ("POST products", product("price_cents", json!(1e30)), 400, "bad_value", "price_cents"),
        (
            "POST products",
            product("created_at", json!("yesterday-ish")),
            400,
            "bad_value",
            "created_at",
        ),
        ("POST products", product("id", json!("x")), 400, "bad_value", "id"),
        ("POST products", product("in_stock", json!(true)), 400, "read_only_column", "in_stock"),
        ("POST products", product("colour", json!("red")), 400, "unknown_column", "colour"),
        ("POST products", json!({"sku": "NEW"}), 400, "not_null_violation", "name"),
        ("POST products", product("name", json!("a\u{0}b")), 400, "malformed_body", ""),
        ("POST orders", order, 409, "foreign_key_violation", "customer_id"),
        ("PATCH products?sku=eq.TAPE", json!({"stock": -1}), 400, "check_violation", "stock"),
        ("PATCH products?sku=eq.TAPE", json!({"sku": "DRILL"}), 409, "unique_violation", "sku"),
        ("PATCH orders?status=eq.paid", json!({"status": "lost"}), 400, "bad_value", "status"),
        ("GET products?colour=eq.red", Value::Null, 400, "unknown_column", "colour"),
        ("GET products?select=colour", Value::Null, 400, "unknown_column", "colour"),
        ("GET products?order=colour", Value::Null, 400, "unknown_column", "colour"),
        ("GET products?id=eq.x", Value::Null, 400, "bad_value", "id"),
        ("GET products?price_cents=gt.many", Value::Null, 400, "bad_value", "price_cents"),
        ("GET orders?status=eq.lost", Value::Null, 400, "bad_value", "status"),
        ("GET products?sku=TAPE", Value::Null, 400, "malformed_query", "sku"),
        ("GET products?price_cents=like.1*", Value::Null, 400, "malformed_query", "price_cents"),
        ("GET products?sku=match.x", Value::Null, 400, "not_supported", "sku"),
        ("GET products?or=(sku.eq.TAPE", Value::Null, 400, "malformed_query", ""),
        ("GET products?select=orders(id)", Value::Null, 400, "not_supported", ""),
        ("GET products?select=sku;--", Value::Null, 400, "unknown_column", "sku;--"),
        ("GET products?sku=eq.%ff", Value::Null, 400, "malformed_query", ""),
        ("GET products?sku=eq.%00", Value::Null, 400, "malformed_query", ""),
        ("GET product", Value::Null, 404, "unknown_table", ""),
        ("POST order_summary", json!({"status": "paid"}), 400, "read_only_table", ""),
        (busy.as_str(), Value::Null, 409, "foreign_key_violation", ""),
    ] {
        let answer = shop.ask(request, "", body.clone()).await;
        let asked = format!("{request} {body}");
        assert_eq!(answer.status, status, "{asked}: {}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{asked}: {problem}");
        assert_eq!(problem["field"].as_str().unwrap_or_default(), field, "{asked}: {problem}");
    }
    let near = shop.get("product").await.json();
    assert_eq!(near["hint"], "did you mean products?");
    let send = "content-type: text/plain";
    let call = shop.service.call("POST", "/v1/data/products").by(&shop.acme.owner);
    let (name, value) = send.split_once(": ").unwrap();
    let answer = call.header(name, value).body("{}").send().await;
    answer.refused(415, "unsupported_media_type");
    let answer =
        shop.ask("GET products", "prefer: handling=strict, tx=rollback", Value::Null).await;
    answer.refused(400, "unknown_preference");
}

#[tokio::test]
async fn values_come_back_as_they_went_in() {
    let shop = Shop::open().await;
    let returned = "prefer: return=representation";
    for name in [
        r#""It's" 50% \ off; {a,b} (c.d) — Zoë 🏡"#,
        "'); DROP TABLE products; --",
        "$1 $2 ${x} %s %n",
        "line\nbreak\ttab",
        "\u{202e}rtl \u{200b}zero",
        "null",
        "{}",
        "[1,2]",
    ] {
        let body = json!({"sku": "ECHO", "name": name, "price_cents": 1});
        let answer = shop.ask("POST products?select=name", returned, body).await.expect(201);
        assert_eq!(answer.json(), json!([{"name": name}]));
        let answer =
            shop.ask("DELETE products?sku=eq.ECHO&select=name", returned, Value::Null).await;
        assert_eq!(answer.expect(200).json(), json!([{"name": name}]));
    }
    let huge = json!({"sku": "ECHO", "name": "x", "price_cents": 2_147_483_647_i64});
    let answer = shop.ask("POST products?select=price_cents", returned, huge).await.expect(201);
    assert_eq!(answer.text(), r#"[{"price_cents":2147483647}]"#);
}

// ── Roles ─────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn columns_that_are_granted_one_by_one_are_all_that_a_role_has() {
    let payroll = "CREATE TABLE payroll (id int PRIMARY KEY, name text NOT NULL, salary int NOT NULL DEFAULT 7, note text);
        INSERT INTO payroll VALUES (1, 'one', 90000);
        GRANT SELECT (id, name) ON payroll TO freehold_viewer;
        GRANT SELECT (note), INSERT (id, name, note), UPDATE (name) ON payroll TO freehold_member;
        GRANT SELECT, INSERT, UPDATE, DELETE ON payroll TO freehold_admin;
        CREATE VIEW salaries AS SELECT * FROM payroll;
        GRANT SELECT (name) ON salaries TO freehold_viewer; GRANT SELECT ON salaries TO freehold_admin";
    let service = Service::start(Setup { baseline: shop_and(payroll), ..Setup::default() }).await;
    let (acme, globex) = service.two_tenants().await;
    let shop = Shop { service, acme, globex };
    let viewer = shop.service.person(&shop.acme, "viewer", Role::Viewer).await;
    let member = shop.service.person(&shop.acme, "member", Role::Member).await;
    let owner = &shop.acme.owner;
    let representation = "prefer: return=representation";
    let two = json!([{"id": 1, "name": "one"}]);
    for query in ["payroll", "payroll?select=*", "payroll?select=*&order=name&id=eq.1"] {
        let request = format!("GET {query}");
        let rows = shop.ask_as(&viewer, &request, "", Value::Null).await.expect(200);
        assert_eq!(rows.json(), two, "{query}");
        let rows = shop.ask_as(&member, &request, "", Value::Null).await.expect(200);
        assert_eq!(rows.json(), json!([{"id": 1, "name": "one", "note": null}]), "{query}");
        let rows = shop.ask_as(owner, &request, "", Value::Null).await.expect(200);
        assert_eq!(rows.json()[0]["salary"], 90000, "{query}");
    }
    let counted = shop.ask_as(&viewer, "HEAD payroll", "prefer: count=exact", Value::Null).await;
    assert_eq!(counted.expect(200).header("content-range"), "0-0/1");
    for query in ["select=salary", "salary=gt.5", "order=salary", "or=(id.eq.1,salary.gt.5)"] {
        let request = format!("GET payroll?{query}");
        let refused = shop.ask_as(&viewer, &request, "", Value::Null).await;
        let refused = refused.refused(403, "forbidden").json();
        assert_eq!(refused["detail"], "your role may not read salary of payroll", "{query}");
        shop.ask_as(owner, &request, "", Value::Null).await.expect(200);
    }
    let new = json!({"id": 2, "name": "two"});
    let made = shop.ask_as(&member, "POST payroll", representation, new).await.expect(201);
    assert_eq!(made.json(), json!([{"id": 2, "name": "two", "note": null}]));
    let changed = json!({"name": "zwei"});
    let request = "PATCH payroll?id=eq.2";
    let changed = shop.ask_as(&member, request, representation, changed).await.expect(200);
    assert_eq!(changed.json(), json!([{"id": 2, "name": "zwei", "note": null}]));
    for (request, body, detail) in [
        (
            "POST payroll",
            json!({"id": 3, "name": "x", "salary": 1}),
            "your role may not write salary of payroll",
        ),
        ("PATCH payroll?id=eq.2", json!({"note": "x"}), "your role may not write note of payroll"),
        (
            "PATCH payroll?salary=eq.7",
            json!({"name": "x"}),
            "your role may not read salary of payroll",
        ),
        ("DELETE payroll?id=eq.2", Value::Null, "your role may not write to payroll"),
    ] {
        let refused = shop.ask_as(&member, request, "", body).await;
        assert_eq!(refused.refused(403, "forbidden").json()["detail"], detail, "{request}");
    }
    // A view reads its tables with its reader's rights.
    shop.ask_as(&viewer, "GET salaries", "", Value::Null).await.refused(403, "forbidden");
    assert_eq!(
        shop.ask_as(owner, "GET salaries?id=eq.2", "", Value::Null).await.json()[0]["salary"],
        7
    );
    let batch = json!([{"method": "GET", "path": "/payroll?id=eq.1"}, {"method": "GET", "path": "/payroll?select=salary"}]);
    let answers = shop
        .service
        .call("POST", "/v1/batch?mode=independent")
        .by(&viewer)
        .json(&batch)
        .send()
        .await;
    let answers = answers.expect(207).json();
    assert_eq!((&answers[0]["body"], &answers[1]["status"]), (&two, &json!(403)));
}

#[tokio::test]
async fn a_viewer_reads_and_writes_nothing() {
    let shop = Shop::open().await;
    let viewer = shop.service.person(&shop.acme, "viewer", Role::Viewer).await;
    let before = shop.service.fingerprint(&shop.acme).await;
    for table in ["customers", "products", "orders", "order_items", "order_notes", "order_summary"]
    {
        let rows = shop.ask_as(&viewer, &format!("GET {table}"), "", Value::Null).await;
        assert!(!rows.expect(200).json().as_array().unwrap().is_empty(), "{table}");
    }
    let product = json!({"sku": "NEW", "name": "New", "price_cents": 1});
    for (request, body) in [
        ("POST products", product.clone()),
        ("POST products?on_conflict=sku", product),
        ("PATCH products?sku=eq.TAPE", json!({"stock": 0})),
        ("DELETE products?sku=eq.TAPE", Value::Null),
        ("POST order_notes", json!({"order_id": shop.acme.id("first"), "body": "x"})),
        // Even if the request would change nothing, or is invalid in other respects.
        ("DELETE products?sku=eq.NONE", Value::Null),
        ("PATCH nothing?colour=x", json!([])),
    ] {
        shop.ask_as(&viewer, request, "", body).await.refused(403, "forbidden");
    }
    assert_eq!(shop.service.fingerprint(&shop.acme).await, before);
}

#[tokio::test]
async fn a_note_is_everybodys_to_read_and_its_authors_to_change() {
    let shop = Shop::open().await;
    let ann = shop.service.person(&shop.acme, "ann", Role::Member).await;
    let bob = shop.service.person(&shop.acme, "bob", Role::Admin).await;
    let order = shop.acme.id("second");
    let write = "prefer: return=representation";
    let body = json!({"order_id": order, "body": "call back"});
    let note = shop.ask_as(&ann, "POST order_notes", write, body).await.expect(201).json();
    assert_eq!(note[0]["author_id"], json!(ann.id), "the author is who acts");
    let note = format!("order_notes?id=eq.{}", note[0]["id"].as_str().unwrap());

    // A member cannot write in another member's name.
    let forged = json!({"order_id": order, "body": "x", "author_id": ann.id});
    shop.ask_as(&bob, "POST order_notes", "", forged).await.refused(403, "row_policy");
    for other in [&bob, &shop.acme.owner] {
        let answer = shop.ask_as(other, &format!("GET {note}&select=body"), "", Value::Null).await;
        assert_eq!(answer.json(), json!([{"body": "call back"}]));
        let changed =
            shop.ask_as(other, &format!("PATCH {note}"), write, json!({"body": "x"})).await;
        assert_eq!(changed.expect(200).json(), json!([]), "another's note is not theirs to change");
        let gone = shop.ask_as(other, &format!("DELETE {note}"), write, Value::Null).await;
        assert_eq!(gone.expect(200).json(), json!([]));
    }
    let changed = json!({"body": "called back"});
    shop.ask_as(&ann, &format!("PATCH {note}"), "", changed).await.expect(204);
    // The grant is for the text of a note alone.
    for body in [
        json!({"author_id": bob.id}),
        json!({"order_id": order}),
        json!({"created_at": "2020-01-01"}),
    ] {
        shop.ask_as(&ann, &format!("PATCH {note}"), "", body).await.refused(403, "forbidden");
    }
    shop.ask_as(&ann, &format!("DELETE {note}"), "", Value::Null).await.expect(204);
    assert_eq!(shop.get(&note).await.json(), json!([]));
}

// ── Other baselines ───────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn an_existing_applications_schema_is_served_as_it_is() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/existing_app");
    let baseline = freehold::Baseline::read(&folder).unwrap();
    let service = Service::start(Setup { baseline, ..Setup::default() }).await;
    let mut owners = Vec::new();
    for slug in ["acme", "globex"] {
        freehold::testing::create_tenant(&service.freehold, slug).await.unwrap();
        owners.push(service.sign_in(&format!("owner@{slug}.example")).await);
    }
    // The application's own table of users is separate from the people who sign in.
    for (n, token) in owners.iter().enumerate() {
        let body = json!({"email": "ann@one.example", "given_name": "Ann", "family_name": format!("No {n}"),
                          "skills": ["sql", "rust"], "preferences": {"theme": {"dark": true}}});
        let call = service.post("/v1/data/users?select=id,display_name", body).bearer(token);
        let made = call.header("prefer", "return=representation").send().await.expect(201).json();
        assert_eq!(made, json!([{"id": 1, "display_name": format!("Ann No {n}")}]));
    }
    let path =
        "/v1/data/users?select=family_name,dark:preferences-%3Etheme-%3Edark&skills=cs.%7Bsql%7D";
    let rows = service.get(path).bearer(&owners[1]).send().await.expect(200).json();
    assert_eq!(rows, json!([{"family_name": "No 1", "dark": true}]));
}
