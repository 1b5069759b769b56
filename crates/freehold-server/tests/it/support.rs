//! Shared set-up: a service over a database of its own, tenants with a few rows each, and requests whose
//! answers are checked for general rules.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use freehold::control::mail::Delivery;
use freehold::control::sessions::{SignIn, SignInOptions};
use freehold::testing::{self, PASSWORD, TestDatabase};
use freehold::tokens::{AccessTokens, Keyring, Subject};
use freehold::{
    Baseline, CacheOptions, Freehold, InsightOptions, MailKind, Message, Migration,
    OperatorContext, PoolLimits, Rate, ReplicaLimits, Role, SignInLimits, Tenant,
};
use freehold_server::config::{ConnectionSettings, HttpSettings, SignUpMode};
use freehold_server::http::{AppState, PeopleSettings, router};
pub(crate) use freehold_test_support::{SOON, admin_url, connect, eventually};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_postgres::Client;
use tower::ServiceExt as _;
use uuid::Uuid;

pub(crate) const PUBLIC_URL: &str = "https://app.example.com";
pub(crate) const SECRET: &str = "the secret that the tests sign tokens with";
/// Part of every text that the tenants' rows hold; no error may ever repeat it.
pub(crate) const CANARY: &str = "-canary";

/// Where the server of a URL is, and the name of its database.
pub(crate) fn server_and_database(url: &str) -> (&str, &str) {
    url.rsplit_once('@').unwrap().1.split_once('/').unwrap()
}

/// The project's own folder.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub(crate) fn shop() -> Baseline {
    Baseline::read(project().join("demo/migrations")).unwrap()
}

/// The shop with one more migration.
pub(crate) fn shop_and(statements: &str) -> Baseline {
    let mut migrations = shop().migrations().to_vec();
    migrations.push(Migration::new(9000, "of_this_test", statements.to_owned()));
    Baseline::from_migrations(migrations).unwrap()
}

/// The shop with a view whose every row takes this long to read.
pub(crate) fn slow_shop(seconds: f64) -> Baseline {
    shop_and(&format!(
        "CREATE VIEW naps WITH (security_invoker = true) AS
         SELECT 1 AS id, pg_sleep({seconds})::text AS slept"
    ))
}

/// How a service is set up; the default is that of most tests.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) baseline: Baseline,
    pub(crate) http: HttpSettings,
    pub(crate) signup: SignUpMode,
    pub(crate) mail: bool,
    /// Sign-in attempts a minute.
    pub(crate) per_email: u32,
    pub(crate) per_client: u32,
    pub(crate) secret: &'static str,
    pub(crate) secrets_retired: &'static [&'static str],
    pub(crate) connections: usize,
    pub(crate) replica_urls: Vec<String>,
    pub(crate) replica_limits: ReplicaLimits,
    pub(crate) cache: CacheOptions,
    pub(crate) insight: InsightOptions,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            baseline: shop(),
            http: HttpSettings {
                listen: ([127, 0, 0, 1], 0).into(),
                request_timeout_ms: 20_000,
                max_body_bytes: 256 * 1024,
                max_concurrent_requests: 2048,
                max_page_rows: 100,
                max_batch_operations: 50,
                trust_forwarded_for: false,
                cors_origins: Vec::new(),
                outage_secs: 1,
                startup_secs: 10,
                drain_secs: 0,
                shutdown_secs: 1,
                metrics_token: None,
                connections: ConnectionSettings::default(),
            },
            signup: SignUpMode::Verified,
            mail: true,
            per_email: 100_000,
            per_client: 100_000,
            secret: SECRET,
            secrets_retired: &[],
            connections: 8,
            replica_urls: Vec::new(),
            replica_limits: ReplicaLimits::default(),
            cache: CacheOptions::default(),
            insight: InsightOptions::default(),
        }
    }
}

/// The service, in this process.
pub(crate) struct Service {
    pub(crate) freehold: Freehold,
    pub(crate) sign_in: Arc<SignIn>,
    pub(crate) tokens: AccessTokens,
    router: Router,
    // Dropped last: it takes the connections with it.
    database: Arc<TestDatabase>,
}

impl Service {
    pub(crate) async fn start(setup: Setup) -> Service {
        let database = TestDatabase::create(&admin_url(), &setup.baseline).await.unwrap();
        Service::over(Arc::new(database), setup).await
    }

    /// Another server over the same database.
    pub(crate) async fn beside(&self, setup: Setup) -> Service {
        Service::over(Arc::clone(&self.database), setup).await
    }

    pub(crate) async fn over(database: Arc<TestDatabase>, setup: Setup) -> Service {
        let mut options = database.options();
        let wait_max = Duration::from_secs(20);
        options.app_pool = PoolLimits { connections_max: setup.connections, wait_max };
        options.owner_pool = PoolLimits { connections_max: 4, wait_max };
        options.replica_urls.clone_from(&setup.replica_urls);
        options.replica_limits = setup.replica_limits;
        options.cache = setup.cache.clone();
        options.insight = setup.insight;
        let freehold = Freehold::connect(&options).await.unwrap();
        let keyring = Keyring::new(setup.secret, setup.secrets_retired).unwrap();
        let tokens = AccessTokens::new(keyring, "freehold", "freehold");
        let rate = |count| {
            let count = NonZeroU32::new(count).unwrap();
            Rate { burst: count, per_minute: count }
        };
        let sign_in = SignInOptions {
            tokens: tokens.clone(),
            access_lifetime: Duration::from_secs(600),
            session_lifetime: Duration::from_secs(3600),
            limits: SignInLimits {
                per_email: rate(setup.per_email),
                per_client: rate(setup.per_client),
            },
            public_url: PUBLIC_URL.to_owned(),
        };
        let sign_in = Arc::new(SignIn::new(freehold.clone(), sign_in));
        let people = PeopleSettings { signup: setup.signup, mail: setup.mail };
        let state = AppState::new(freehold.clone(), Arc::clone(&sign_in), &setup.http, people);
        let router = router(state.await.unwrap());
        Service { freehold, sign_in, tokens, router, database }
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    pub(crate) fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// A connection to which no policy applies, to see the actual rows.
    pub(crate) async fn sql(&self) -> Client {
        connect(&self.database.superuser_url()).await
    }

    pub(crate) fn call(&self, method: &str, path: &str) -> Call {
        let request = Request::builder().method(Method::try_from(method).unwrap()).uri(path);
        let client = IpAddr::from([127, 0, 0, 1]);
        Call { router: self.router(), request, body: Vec::new(), client }
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.call("GET", path)
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Call {
        self.call("POST", path).json(&body)
    }

    pub(crate) fn patch(&self, path: &str, body: Value) -> Call {
        self.call("PATCH", path).json(&body)
    }

    pub(crate) fn delete(&self, path: &str) -> Call {
        self.call("DELETE", path)
    }

    /// A tenant with an owner, `owner@<slug>.example`, and a few rows.
    pub(crate) async fn tenant(&self, slug: &str) -> Place {
        let (tenant, _) = testing::create_tenant(&self.freehold, slug).await.unwrap();
        let row = self
            .sql()
            .await
            .query_one(
                "SELECT identity_id FROM freehold.membership WHERE tenant_id = $1",
                &[&tenant.id.as_uuid()],
            )
            .await
            .unwrap();
        let id: Uuid = row.get(0);
        let owner = Person {
            id,
            email: format!("owner@{slug}.example"),
            token: self.token(id, Some(tenant.id.as_uuid()), Role::Owner),
        };
        let place = Place { tenant, owner };
        let context = OperatorContext::system("a test's rows");
        let rows = place.rows_sql();
        self.freehold.tenants().run_script(&context, place.tenant.id, &rows).await.unwrap();
        place
    }

    /// Acme and globex.
    pub(crate) async fn two_tenants(&self) -> (Place, Place) {
        (self.tenant("acme").await, self.tenant("globex").await)
    }

    /// A new person with a role in a tenant, whose password is [`PASSWORD`].
    pub(crate) async fn person(&self, place: &Place, name: &str, role: Role) -> Person {
        let id = Uuid::new_v4();
        let email = format!("{name}@{}.example", place.tenant.slug);
        let sql = self.sql().await;
        insert_identity(&sql, id, &email, false).await;
        let tenant = place.tenant.id.as_uuid();
        add_member(&sql, tenant, id, role).await;
        Person { id, email, token: self.token(id, Some(tenant), role) }
    }

    /// An operator, whose password is [`PASSWORD`] if there is a tenant.
    pub(crate) async fn operator(&self) -> Person {
        let id = Uuid::new_v4();
        let email = "operator@freehold.example".to_owned();
        insert_identity(&self.sql().await, id, &email, true).await;
        Person { id, email, token: self.token(id, None, Role::Operator) }
    }

    /// An access token as the service would issue it, of the session that has the person's own id.
    pub(crate) fn token(&self, identity: Uuid, tenant: Option<Uuid>, role: Role) -> String {
        let role = role.as_str().to_owned();
        let subject = Subject { identity, session: identity, tenant, role };
        self.tokens.issue(&subject, Duration::from_secs(600), SystemTime::now()).unwrap()
    }

    /// Signs in, and must succeed.
    pub(crate) async fn log_in(&self, email: &str) -> Value {
        let body = serde_json::json!({"email": email, "password": PASSWORD});
        self.post("/v1/auth/login", body).send().await.expect(200).json()
    }

    /// The access token of a person who signs in.
    pub(crate) async fn sign_in(&self, email: &str) -> String {
        text(&self.log_in(email).await["access_token"])
    }

    /// Sends all messages that are due, and returns them.
    pub(crate) async fn letters(&self) -> Vec<Message> {
        let mut letters = Vec::new();
        loop {
            let deliver = self.sign_in.deliver_letter(async |letter| {
                letters.push(letter.clone());
                Ok(())
            });
            if deliver.await.unwrap() == Delivery::Nothing {
                return letters;
            }
        }
    }

    /// The token of the last due message of a kind to an address.
    pub(crate) async fn letter_token(&self, kind: MailKind, email: &str) -> String {
        let letters = self.letters().await;
        let letter = letters.into_iter().rev().find(|l| (l.kind, l.to.as_str()) == (kind, email));
        letter.unwrap_or_else(|| panic!("no {kind:?} for {email}")).token.unwrap()
    }

    /// Everything of a tenant, rows and catalog, as one text for comparison.
    pub(crate) async fn fingerprint(&self, place: &Place) -> String {
        let (schema, id) = (place.tenant.id.schema(), place.tenant.id);
        let mut parts = vec![
            format!("SELECT t::text FROM freehold.tenant t WHERE id = '{id}'"),
            format!("SELECT m::text FROM freehold.membership m WHERE tenant_id = '{id}'"),
            format!("SELECT i::text FROM freehold.invitation i WHERE tenant_id = '{id}'"),
        ];
        for table in ["customers", "products", "orders", "order_items", "order_notes"] {
            parts.push(format!("SELECT r::text FROM {schema}.{table} r"));
        }
        let all = parts.join(" UNION ALL ");
        let sql =
            format!("SELECT string_agg(line, E'\\n' ORDER BY line) FROM ({all}) AS lines (line)");
        self.sql().await.query_one(&sql, &[]).await.unwrap().get(0)
    }

    /// How many tenants, people, memberships, invitations and sessions the catalog holds.
    pub(crate) async fn catalog_counts(&self) -> Vec<i64> {
        let sql = self.sql().await;
        let mut counts = Vec::new();
        for table in ["tenant", "identity", "membership", "invitation", "idempotency"] {
            let count = format!("SELECT count(*) FROM freehold.{table}");
            counts.push(sql.query_one(&count, &[]).await.unwrap().get(0));
        }
        counts
    }

    /// How many queries over the slow view run at this moment.
    pub(crate) async fn naps_under_way(&self) -> i64 {
        let row = self
            .sql()
            .await
            .query_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND state = 'active' AND wait_event = 'PgSleep'",
                &[],
            )
            .await
            .unwrap();
        row.get(0)
    }
}

/// With the password hash of the first person, so that none has to be computed.
pub(crate) async fn insert_identity(sql: &Client, id: Uuid, email: &str, is_operator: bool) {
    sql.execute(
        "INSERT INTO freehold.identity (id, email, is_operator, proven_at, proven_by, proven_why)
         VALUES ($1, $2, $3, now(), $1, 'a test')",
        &[&id, &email, &is_operator],
    )
    .await
    .unwrap();
    sql.execute(
        "INSERT INTO freehold.session (id, identity_id, expires_at)
         VALUES ($1, $1, now() + interval '1 day')",
        &[&id],
    )
    .await
    .unwrap();
    sql.execute(
        "INSERT INTO freehold.credential (identity_id, password_hash)
         SELECT $1, password_hash FROM freehold.credential LIMIT 1",
        &[&id],
    )
    .await
    .unwrap();
}

pub(crate) async fn add_member(sql: &Client, tenant: Uuid, identity: Uuid, role: Role) {
    sql.execute(
        "INSERT INTO freehold.membership (tenant_id, identity_id, role) VALUES ($1, $2, $3)",
        &[&tenant, &identity, &role.as_str()],
    )
    .await
    .unwrap();
}

/// A person who is signed in.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: Uuid,
    pub(crate) email: String,
    pub(crate) token: String,
}

/// A tenant with its owner and its rows.
pub(crate) struct Place {
    pub(crate) tenant: Tenant,
    pub(crate) owner: Person,
}

impl Place {
    /// The id of one of its rows.
    pub(crate) fn id(&self, row: &str) -> Uuid {
        let digest = Sha256::digest(format!("{} {row}", self.tenant.slug));
        uuid::Builder::from_random_bytes(digest[..16].try_into().unwrap()).into_uuid()
    }

    /// Three customers, products and orders, and a note. The products have the same SKUs in every tenant;
    /// every other text identifies its tenant.
    fn rows_sql(&self) -> String {
        let text = format!("{}{CANARY}", self.tenant.slug);
        let id = |row: &str| format!("'{}'", self.id(row));
        format!(
            "INSERT INTO customers (id, email, full_name, phone, city, country_code, created_at) VALUES
               ({ada}, 'ada@{text}.example', 'Ada {text}', '123', 'Berlin', 'DE', '2026-01-01'),
               ({bo}, 'bo@{text}.example', 'Bo {text}', NULL, 'Boston', 'US', '2026-01-02'),
               ({cy}, 'cy@{text}.example', 'Cy {text}', NULL, 'Berlin', 'DE', '2026-01-03');
             INSERT INTO products (id, sku, name, price_cents, stock, created_at) VALUES
               ({hammer}, 'HAMMER', 'Hammer, small, {text}', 1890, 5, '2026-01-01'),
               ({drill}, 'DRILL', 'Drill {text}', 8900, 0, '2026-01-02'),
               ({tape}, 'TAPE', 'Tape {text}', 990, 12, '2026-01-03');
             INSERT INTO orders (id, customer_id, status, shipped_at, created_at) VALUES
               ({first}, {ada}, 'delivered', '2026-02-03', '2026-02-01'),
               ({second}, {bo}, 'paid', NULL, '2026-03-01'),
               ({third}, {ada}, 'pending', NULL, '2026-04-01');
             INSERT INTO order_items (id, order_id, product_id, quantity, unit_price_cents) VALUES
               ({item}, {first}, {hammer}, 2, 1890),
               (gen_random_uuid(), {second}, {drill}, 1, 8900),
               (gen_random_uuid(), {third}, {tape}, 3, 990);
             INSERT INTO order_notes (id, order_id, author_id, body) VALUES
               ({note}, {first}, '{owner}', 'Note {text}');",
            ada = id("ada"),
            bo = id("bo"),
            cy = id("cy"),
            hammer = id("hammer"),
            drill = id("drill"),
            tape = id("tape"),
            first = id("first"),
            second = id("second"),
            third = id("third"),
            item = id("item"),
            note = id("note"),
            owner = self.owner.id,
        )
    }
}

/// A request on its way.
pub(crate) struct Call {
    router: Router,
    request: http::request::Builder,
    body: Vec<u8>,
    client: IpAddr,
}

impl Call {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Call {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn header_value(mut self, name: &str, value: HeaderValue) -> Call {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Call {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// As a person who is signed in.
    pub(crate) fn by(self, person: &Person) -> Call {
        self.bearer(&person.token)
    }

    pub(crate) fn json(self, body: &Value) -> Call {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Call {
        self.body = body.into();
        self
    }

    /// From another address.
    pub(crate) fn from(mut self, client: [u8; 4]) -> Call {
        self.client = client.into();
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let method = self.request.method_ref().unwrap().clone();
        let answer = self.send_unchecked().await;
        answer.check_what_holds_for_all(&method);
        answer
    }

    /// Without the checks for all answers: for a caller who gets their own text back.
    pub(crate) async fn send_unchecked(self) -> Answer {
        let mut request = self.request.body(Body::from(self.body)).unwrap();
        let peer = SocketAddr::new(self.client, 40_000);
        request.extensions_mut().insert(ConnectInfo(peer));
        let (method, path) = (request.method().clone(), request.uri().to_string());
        let response = self.router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        let asked = format!("{method} {}", path.chars().take(200).collect::<String>());
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, asked }
    }
}

/// The answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    asked: String,
}

impl Answer {
    fn check_what_holds_for_all(&self, method: &Method) {
        let asked = &self.asked;
        assert_eq!(self.header(CACHE_CONTROL.as_str()), "private, no-store", "{asked}");
        assert_eq!(self.header(X_CONTENT_TYPE_OPTIONS.as_str()), "nosniff", "{asked}");
        assert!(!self.header("x-request-id").is_empty(), "{asked}: no x-request-id");
        if self.status < 400 {
            return;
        }
        assert_eq!(self.header(CONTENT_TYPE.as_str()), "application/problem+json", "{self:?}");
        if *method == Method::HEAD {
            return;
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{asked}");
        for member in ["title", "detail", "code", "message"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        let text = self.text();
        assert!(!text.contains(CANARY), "an error repeats what a row holds: {asked}: {text}");
        let schema = text.match_indices("tenant_").any(|(at, name)| {
            text[at + name.len()..].chars().take(8).filter(char::is_ascii_hexdigit).count() == 8
        });
        assert!(!schema, "an error names a tenant's schema: {asked}: {text}");
        for sql in ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM", "json_to_record", "$1"] {
            assert!(!text.contains(sql), "an error tells of SQL: {asked}: {text}");
        }
        assert_ne!(self.status, 500, "{asked}: {text}");
    }

    /// Fails unless the status is this one.
    pub(crate) fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text());
        self
    }

    /// Fails unless it is a refusal with this status and code.
    pub(crate) fn refused(self, status: u16, code: &str) -> Answer {
        let answer = self.expect(status);
        assert_eq!(answer.json()["code"], code, "{}: {}", answer.asked, answer.text());
        answer
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.asked, self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Everything by which a caller could distinguish it from another answer.
    pub(crate) fn bytes(&self) -> String {
        let headers = self
            .headers
            .iter()
            .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
        let mut lines: Vec<_> = headers.map(|(name, value)| format!("{name}: {value:?}")).collect();
        lines.sort();
        format!("{}\n{}\n\n{}", self.status, lines.join("\n"), self.text())
    }
}

/// The text of a JSON string.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}
