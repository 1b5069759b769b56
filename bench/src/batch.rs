//! Ten small reads of a tenant's data, one after another against all together: over HTTP by `/v1/batch`, and
//! in the library by a pipeline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use freehold::tokens::{AccessTokens, Keyring, Subject};
use freehold::{Params, SignInLimits, TenantContext};

use crate::Result;
use crate::client::HttpConnection;
use crate::fixtures::{Fleet, Member};
use crate::http::{serve, whole};
use crate::report::Row;
use crate::rounds::{Case, Load, Operation, take_turns};

const TENANTS: usize = 20;
const CONNECTIONS: usize = 8;
const TOGETHER: usize = 10;
const PAGE: &str = "/v1/data/orders?select=id,total_cents&order=created_at.desc&limit=2";
const SQL: &str = "SELECT id, total_cents FROM orders ORDER BY created_at DESC LIMIT 2 OFFSET $1";

/// A number of requests by one tenant, each sent after the previous answer.
struct Ask {
    /// One connection per worker.
    connections: Vec<tokio::sync::Mutex<HttpConnection>>,
    /// The requests of each tenant.
    requests: Vec<Vec<String>>,
}

impl Operation for Ask {
    async fn run(&self, worker: usize, tenant: usize) -> Result<()> {
        let mut connection = self.connections[worker].lock().await;
        for request in &self.requests[tenant] {
            connection.send(request).await?;
        }
        Ok(())
    }
}

/// The same by the library.
struct Query {
    freehold: freehold::Freehold,
    tenants: Vec<TenantContext>,
    pipelined: bool,
}

impl Operation for Query {
    async fn run(&self, _: usize, tenant: usize) -> Result<()> {
        let context = &self.tenants[tenant];
        let offsets: Vec<i64> = (0..TOGETHER as i64).collect();
        let params: Vec<[&(dyn tokio_postgres::types::ToSql + Sync); 1]> =
            offsets.iter().map(|offset| [offset as _]).collect();
        if self.pipelined {
            let statements: Vec<(&str, Params<'_>)> =
                params.iter().map(|params| (SQL, params.as_slice())).collect();
            self.freehold.pipeline(context, &statements).await?;
            return Ok(());
        }
        for params in &params {
            self.freehold.query(context, SQL, params).await?;
        }
        Ok(())
    }
}

/// Cases of either kind; each performs ten reads at a time.
enum Asked {
    Http(Ask),
    Library(Query),
}

impl Operation for Asked {
    async fn run(&self, worker: usize, tenant: usize) -> Result<()> {
        match self {
            Asked::Http(ask) => ask.run(worker, tenant).await,
            Asked::Library(query) => query.run(worker, tenant).await,
        }
    }
}

pub(crate) async fn run(admin_url: &str, seconds: u64, only: &str) -> Result<Vec<Row>> {
    let fleet = Fleet::with_orders(admin_url, TENANTS).await?;
    let tokens =
        AccessTokens::new(Keyring::new(&"benchmark ".repeat(4), &[""; 0])?, "bench", "bench");
    fleet.open_sessions().await?;
    let mut singles = Vec::new();
    let mut batches = Vec::new();
    for member in &fleet.tenants {
        let token = token(&tokens, member)?;
        let path = |offset| format!("{PAGE}&offset={offset}");
        let get = |offset| head("GET", &path(offset), &token, "");
        singles.push((0..TOGETHER).map(get).collect::<Vec<_>>());
        let operation = |offset| serde_json::json!({"method": "GET", "path": path(offset)});
        let body = serde_json::Value::from((0..TOGETHER).map(operation).collect::<Vec<_>>());
        batches.push(vec![head("POST", "/v1/batch", &token, &body.to_string())]);
    }
    let address = serve(whole(&fleet, tokens, SignInLimits::default()).await?).await?;
    let query = |pipelined| {
        let tenants = fleet.tenants.iter().map(|member| member.context).collect();
        Asked::Library(Query { freehold: fleet.freehold.clone(), tenants, pipelined })
    };
    let case = |name: &str, ratio_to: Option<&str>, operation| Case {
        name: name.to_owned(),
        ratio_to: ratio_to.map(str::to_owned),
        operation: Arc::new(operation),
        load: Load { workers: CONNECTIONS, tenants: TENANTS },
    };
    let mut cases = vec![
        case("http/ten_requests", None, Asked::Http(ask(address, singles).await?)),
        case("http/batch", Some("http/ten_requests"), Asked::Http(ask(address, batches).await?)),
        case("library/ten_queries", None, query(false)),
        case("library/pipeline", Some("library/ten_queries"), query(true)),
    ];
    cases.retain(|case| case.name.contains(only));
    eprintln!("warming up");
    take_turns(&cases, "tens/s", (seconds / 3).max(1)).await?;
    eprintln!("measuring");
    take_turns(&cases, "tens/s", seconds).await
}

async fn ask(address: SocketAddr, requests: Vec<Vec<String>>) -> Result<Ask> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(tokio::sync::Mutex::new(HttpConnection::open(address).await?));
    }
    Ok(Ask { connections, requests })
}

fn token(tokens: &AccessTokens, member: &Member) -> Result<String> {
    let context = &member.context;
    let identity = context.actor().id.as_uuid();
    let subject = Subject {
        identity,
        session: identity,
        tenant: Some(context.tenant().as_uuid()),
        role: context.role().as_str().to_owned(),
    };
    Ok(tokens.issue(&subject, Duration::from_secs(3600), SystemTime::now())?)
}

fn head(method: &str, path: &str, token: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}
