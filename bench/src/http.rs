//! What the service costs around one page of a table: the data API with sign-in and tenancy, against a
//! handler that only runs the statement.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use freehold::SignInLimits;
use freehold::control::sessions::{SignIn, SignInOptions};
use freehold::tokens::{AccessTokens, Keyring, Subject};
use freehold_server::config::{ConnectionSettings, HttpSettings, SignUpMode};
use freehold_server::http::{AppState, PeopleSettings, router};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Statement};

use crate::Result;
use crate::client::HttpConnection;
use crate::fixtures::{Fleet, Member, bare_schema, connect};
use crate::report::Row;
use crate::rounds::{Case, Load, Operation, take_turns};

const TENANTS: usize = 100;
/// Connections of the clients to the service, and of each service to the database.
pub(crate) const CONNECTIONS: usize = 16;
const PAGE: &str = "/v1/data/orders?order=created_at.desc&limit=20";
const ROWS: usize = 20;

/// Requests the page from one service.
pub(crate) struct Ask {
    /// One connection per worker.
    connections: Vec<tokio::sync::Mutex<HttpConnection>>,
    /// One request per tenant.
    requests: Arc<Vec<String>>,
}

pub(crate) async fn run(admin_url: &str, seconds: u64, only: &str) -> Result<Vec<Row>> {
    let fleet = Fleet::with_orders(admin_url, TENANTS).await?;
    let tokens =
        AccessTokens::new(Keyring::new(&"benchmark ".repeat(4), &[""; 0])?, "bench", "bench");
    fleet.open_sessions().await?;
    let requests = Arc::new(
        fleet
            .tenants
            .iter()
            .map(|member| request(&tokens, member))
            .collect::<Result<Vec<String>>>()?,
    );
    let bare = serve(bare(&fleet).await?).await?;
    let whole = serve(whole(&fleet, tokens, SignInLimits::default()).await?).await?;
    let case = async |name: &str, address, ratio_to: Option<&str>| {
        Ok::<_, crate::Failure>(Case {
            name: name.to_owned(),
            ratio_to: ratio_to.map(str::to_owned),
            operation: Arc::new(Ask::open(address, &requests).await?),
            load: Load { workers: CONNECTIONS, tenants: TENANTS },
        })
    };
    let mut cases = vec![
        case("http/bare", bare, None).await?,
        case("http/orders", whole, Some("http/bare")).await?,
    ];
    cases.retain(|case| case.name.contains(only));
    eprintln!("warming up");
    for case in &cases {
        case.operation.check().await?;
    }
    // Until every connection to the database has served every tenant.
    take_turns(&cases, "requests/s", (seconds / 3).max(1)).await?;
    eprintln!("measuring");
    take_turns(&cases, "requests/s", seconds).await
}

pub(crate) fn request(tokens: &AccessTokens, member: &Member) -> Result<String> {
    request_to(PAGE, tokens, member)
}

pub(crate) fn request_to(path: &str, tokens: &AccessTokens, member: &Member) -> Result<String> {
    let context = &member.context;
    let identity = context.actor().id.as_uuid();
    let subject = Subject {
        identity,
        session: identity,
        tenant: Some(context.tenant().as_uuid()),
        role: context.role().as_str().to_owned(),
    };
    let token = tokens.issue(&subject, Duration::from_secs(3600), SystemTime::now())?;
    Ok(format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n"))
}

impl Ask {
    pub(crate) async fn open(address: SocketAddr, requests: &Arc<Vec<String>>) -> Result<Ask> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(tokio::sync::Mutex::new(HttpConnection::open(address).await?));
        }
        Ok(Ask { connections, requests: Arc::clone(requests) })
    }

    /// Checks that every tenant gets a full page of its own.
    pub(crate) async fn check(&self) -> Result<()> {
        let mut connection = self.connections[0].lock().await;
        for request in &*self.requests {
            let rows: Vec<serde_json::Value> =
                serde_json::from_slice(connection.send(request).await?)?;
            if rows.len() != ROWS {
                return Err(format!("expected {ROWS} rows, and {} came", rows.len()).into());
            }
        }
        Ok(())
    }
}

impl Operation for Ask {
    async fn run(&self, worker: usize, tenant: usize) -> Result<()> {
        // No other task holds it.
        let mut connection = self.connections[worker].lock().await;
        connection.send(&self.requests[tenant]).await?;
        Ok(())
    }
}

/// As in `freehold serve`.
pub(crate) async fn serve(router: Router) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(address)
}

pub(crate) async fn whole(
    fleet: &Fleet,
    tokens: AccessTokens,
    limits: SignInLimits,
) -> Result<Router> {
    let sign_in = SignInOptions {
        tokens,
        access_lifetime: Duration::from_secs(3600),
        session_lifetime: Duration::from_secs(3600),
        limits,
        public_url: "http://127.0.0.1".to_owned(),
    };
    let sign_in = Arc::new(SignIn::new(fleet.freehold.clone(), sign_in));
    // The defaults of `freehold serve`.
    let settings = HttpSettings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        request_timeout_ms: 20_000,
        max_body_bytes: 2 * 1024 * 1024,
        max_concurrent_requests: 2048,
        max_page_rows: 1000,
        max_batch_operations: 50,
        trust_forwarded_for: false,
        cors_origins: Vec::new(),
        outage_secs: 1,
        startup_secs: 10,
        drain_secs: 0,
        shutdown_secs: 10,
        metrics_token: None,
        connections: ConnectionSettings::default(),
    };
    let people = PeopleSettings { signup: SignUpMode::Off, mail: false };
    Ok(router(AppState::new(fleet.freehold.clone(), sign_in, &settings, people).await?))
}

struct BarePool {
    idle: Mutex<Vec<(Client, Statement)>>,
    places: Semaphore,
}

/// One table for all tenants, no sign-in, one prepared statement that produces the same JSON.
async fn bare(fleet: &Fleet) -> Result<Router> {
    let sql = format!(
        "WITH page AS (SELECT t.* FROM {}.orders AS t ORDER BY t.created_at DESC LIMIT {ROWS}) \
         SELECT coalesce(json_agg(page.*), '[]')::text FROM page",
        bare_schema(0)
    );
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = connect(&fleet.database.app_url()).await?;
        let statement = client.prepare(&sql).await?;
        idle.push((client, statement));
    }
    let pool = BarePool { idle: Mutex::new(idle), places: Semaphore::new(CONNECTIONS) };
    let routes = Router::new().route("/v1/data/orders", get(bare_page));
    Ok(routes.with_state(Arc::new(pool)))
}

async fn bare_page(State(pool): State<Arc<BarePool>>) -> Response {
    match pool.page().await {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl BarePool {
    async fn page(&self) -> Result<String> {
        let _place = self.places.acquire().await?;
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (client, statement) = idle().pop().ok_or("fewer connections than places")?;
        let row = client.query_one(&statement, &[]).await;
        idle().push((client, statement));
        Ok(row?.get(0))
    }
}
