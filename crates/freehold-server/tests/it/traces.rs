//! Traces, as a collector receives them from a server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use freehold::testing::{self, TestDatabase};
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Kind;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::process::{Server, free_port, freehold, http_with, token};
use crate::support::{SECRET, admin_url, eventually, shop};

const LATE: Duration = Duration::from_secs(60);
const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    bodies: Vec<Bytes>,
    authorizations: Vec<String>,
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap());
    let mut received = collector.0.lock().unwrap();
    received.bodies.push(body);
    received.authorizations.push(authorization.unwrap_or_default().to_owned());
    StatusCode::OK
}

impl Collector {
    /// A collector, and where it is.
    async fn start() -> (Collector, String) {
        let collector = Collector::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (collector, endpoint)
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().unwrap();
        let requests = received.bodies.iter().cloned();
        let requests = requests.map(|body| ExportTraceServiceRequest::decode(body).unwrap());
        requests
            .flat_map(|request| request.resource_spans)
            .flat_map(|resource| resource.scope_spans)
            .flat_map(|scope| scope.spans)
            .collect()
    }
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        Kind::IntValue(number) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_and_its_transaction_are_spans_of_the_callers_trace_without_any_value() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let fleet = database.freehold().await.unwrap();
    let (acme, context) = testing::create_tenant(&fleet, "acme").await.unwrap();
    let (collector, endpoint) = Collector::start().await;
    let settings =
        [("OTLP_ENDPOINT", endpoint.as_str()), ("OTLP_HEADERS", "authorization=Bearer collectors")];
    let mut server = Server::start_with(&database, &settings);
    let token = token(context.actor().id.as_uuid(), Some(acme.id.as_uuid()), "owner");
    let bearer = format!("Bearer {token}");
    let ask = |method: &str, path: &str, trace: &str, body: &Value| {
        let headers =
            [("authorization", bearer.as_str()), ("traceparent", trace), ("x-request-id", "r7")];
        http_with(server.port, method, path, &headers, body).unwrap().0
    };
    assert_eq!(ask("GET", "/v1/data/customers?city=eq.SECRETcity", CALLER, &Value::Null), 200);
    // Refused by PostgreSQL; in a trace that the caller has decided not to keep; in one of our own.
    let twice = serde_json::json!([{"sku": "SECRET-1", "name": "SECRETname", "price_cents": 1},
        {"sku": "SECRET-1", "name": "SECRETname", "price_cents": 1}]);
    assert_eq!(ask("POST", "/v1/data/products", CALLER, &twice), 409);
    let unkept = CALLER.replace("0af7", "ffff").replace("-01", "-00");
    assert_eq!(ask("GET", "/v1/data/orders", &unkept, &Value::Null), 200);
    assert_eq!(ask("GET", "/v1/data/orders", "malformed", &Value::Null), 200);
    http_with(server.port, "GET", "/livez", &[], &Value::Null).unwrap();

    let of_caller = |spans: &[Span]| -> Vec<Span> {
        let is = |span: &&Span| hex(&span.trace_id) == "0af7651916cd43dd8448eb211c80319c";
        spans.iter().filter(is).cloned().collect()
    };
    let mut spans = Vec::new();
    eventually("the collector has them all", LATE, async || {
        spans = collector.spans();
        let roots = spans.iter().filter(|span| span.parent_span_id.is_empty()).count();
        of_caller(&spans).len() >= 4 && roots >= 1
    })
    .await;
    let own = of_caller(&spans);
    let named = |name: &str| own.iter().find(|span| span.name == name).unwrap();
    let read = named("GET /v1/data/{table}");
    assert_eq!((hex(&read.parent_span_id).as_str(), read.kind), ("b7ad6b7169203331", 2));
    assert!(read.end_time_unix_nano > read.start_time_unix_nano);
    let id = acme.id.to_string();
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/v1/data/{table}"),
        ("http.response.status_code", "200"),
        ("freehold.tenant", id.as_str()),
        ("freehold.request_id", "r7"),
    ] {
        assert_eq!(attribute(read, name).as_deref(), Some(value), "{read:#?}");
    }
    let inside = |of: &Span| {
        let is = |span: &&Span| span.parent_span_id == of.span_id && span.name == "transaction";
        own.iter().find(|span| is(span) && attribute(span, "freehold.tenant").is_some()).unwrap()
    };
    let transaction = inside(read);
    assert_eq!(transaction.kind, 3, "{transaction:#?}");
    assert_eq!(attribute(transaction, "db.system.name").as_deref(), Some("postgresql"));
    assert_eq!(attribute(transaction, "freehold.tenant"), Some(id));
    assert!(transaction.start_time_unix_nano >= read.start_time_unix_nano);
    let write = named("POST /v1/data/{table}");
    assert_eq!(attribute(write, "http.response.status_code").as_deref(), Some("409"));
    let failed = inside(write);
    assert_eq!(failed.status.as_ref().unwrap().code, 2, "{failed:#?}");
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("statement_failed"));

    assert!(spans.iter().all(|span| !hex(&span.trace_id).starts_with("ffff")), "{spans:#?}");
    for span in spans.iter().filter(|span| span.parent_span_id.is_empty()) {
        assert_eq!(span.kind, 2, "only a request begins a trace: {span:#?}");
        assert_ne!(attribute(span, "http.route").as_deref(), Some("/livez"));
    }
    server.running.stop();
    let received = collector.0.lock().unwrap();
    assert!(received.authorizations.iter().all(|value| value == "Bearer collectors"));
    for body in &received.bodies {
        let text = String::from_utf8_lossy(body);
        for value in ["SECRET", "SELECT", token.as_str()] {
            assert!(!text.contains(value), "{value} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_traced_last_is_sent_when_a_server_stops_and_a_share_of_none_is_none() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    for (percent, expected) in [("100", 1), ("0", 0)] {
        let (collector, endpoint) = Collector::start().await;
        let settings = [("OTLP_ENDPOINT", endpoint.as_str()), ("TRACE_PERCENT", percent)];
        let mut server = Server::start_with(&database, &settings);
        http_with(server.port, "GET", "/openapi.json", &[], &Value::Null).unwrap();
        server.running.stop();
        let spans = collector.spans();
        let seen = spans.iter().filter(|span| span.name == "GET /openapi.json").count();
        assert_eq!(seen, expected, "{percent}: {spans:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_no_request() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let mut server = Server::start_with(&database, &[("OTLP_ENDPOINT", endpoint.as_str())]);
    for _ in 0..20 {
        let (status, _) =
            http_with(server.port, "GET", "/openapi.json", &[], &Value::Null).unwrap();
        assert_eq!(status, 200);
    }
    server.running.stop();
}

#[test]
fn where_traces_cannot_go_is_said_at_the_start_and_no_secret_with_it() {
    let base = [("DATABASE_URL", "postgres://x@127.0.0.1:1/x"), ("JWT_SECRET", SECRET)];
    for (name, value, said) in [
        ("OTLP_ENDPOINT", "collector:4318", "OTLP_ENDPOINT must be like"),
        ("OTLP_ENDPOINT", "ftp://collector", "OTLP_ENDPOINT must be like"),
        ("OTLP_HEADERS", "hidden", "OTLP_HEADERS must be like"),
        ("OTLP_HEADERS", "a b=hidden", "OTLP_HEADERS must be like"),
    ] {
        let env: Vec<_> = base.into_iter().chain([(name, value)]).collect();
        let ran = freehold(&["serve"], &env).ended(1);
        assert!(ran.stderr().contains(said), "{}", ran.stderr());
        assert!(!ran.stderr().contains("hidden"), "{}", ran.stderr());
    }
}
