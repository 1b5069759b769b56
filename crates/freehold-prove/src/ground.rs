//! The set-up of a proof: tenants with canaries and people, services on real sockets, handles of the library
//! with tiny pools, and an observer to whom no policy applies.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use freehold::control::sessions::{SignIn, SignInOptions};
use freehold::control::tenants::NewTenant;
use freehold::{
    Baseline, Freehold, IdentityId, Migration, OperatorContext, Options, PoolLimits, Rate, Role,
    SignInLimits, TenantId,
};
use freehold_server::config::{ConnectionSettings, HttpSettings, SignUpMode};
use freehold_server::http::connections::{self, ConnectionLimits};
use freehold_server::http::{AppState, PeopleSettings, router};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::canary::{Mark, Watch};
use crate::dice::Dice;
use crate::gate::Gate;
use crate::mint::Mint;
use crate::poison::Clean;
use crate::{Failure, Settings};

/// Canaries of each tenant.
pub(crate) const CANARIES: u64 = 60;
/// The worker whose one row in `ledger` exists from the start, so that the view is never empty.
pub(crate) const NOBODY: i32 = 0;
/// The pool sizes of the services and of the library's handles. Some are so small that every transaction uses
/// a connection that another tenant has just used.
const SERVICE_POOLS: [usize; 2] = [6, 2];
const LIBRARY_POOLS: [usize; 3] = [1, 2, 6];

/// The longest time until a server has examined a baseline's code.
const EXAMINED_MAX: Duration = Duration::from_secs(30);

pub(crate) const OPERATOR: OperatorContext = OperatorContext::system("freehold-prove");

/// What the code of a proof's baseline can leave on a session, and so what servers clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BaselineCode {
    /// Anything: it runs its input as SQL.
    ExecutesText,
    /// Settings only.
    ChangesSettings,
}

/// A prepared database with the baseline of [`baseline`], and its URLs.
#[derive(Clone)]
pub struct System {
    /// What its baseline's code can do.
    pub code: BaselineCode,
    /// `init` had a superuser, so what only a superuser can close is closed.
    pub is_hardened: bool,
    /// As a superuser, who reads every table at the end and ends sessions during the run.
    pub superuser_url: String,
    /// `freehold_app`, directly.
    pub app_url: String,
    /// `freehold_owner`, directly.
    pub owner_url: String,
    /// As `freehold_app` through a pooler, which all operations then use.
    pub pooler_url: Option<String>,
}

/// The baseline of a proof's tenants.
pub fn baseline(code: BaselineCode) -> Baseline {
    baseline_with(code, 0)
}

/// The baseline with this many of the migrations that are applied during a proof. Each adds a text column,
/// which gets the row's mark.
pub(crate) fn baseline_with(code: BaselineCode, later: i32) -> Baseline {
    let code = match code {
        BaselineCode::ExecutesText => include_str!("executes_text.sql"),
        BaselineCode::ChangesSettings => include_str!("changes_settings.sql"),
    };
    let mut migrations = vec![
        Migration::new(1, "canaries", include_str!("baseline.sql")),
        Migration::new(2, "beside", include_str!("beside.sql")),
        Migration::new(3, "code", code),
    ];
    for n in 1..=later {
        let sql = format!(
            "ALTER TABLE canaries ADD COLUMN added_{n} text;
             UPDATE canaries SET added_{n} = body;"
        );
        migrations.push(Migration::new((3 + n).into(), "added", sql));
    }
    Baseline::from_migrations(migrations).expect("the numbers differ")
}

/// What was tested.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Conditions {
    /// `direct`, or `pooler`.
    pub connection: String,
    /// How contexts are verified: `best`, `portable` or `plain`.
    pub seal: String,
    /// What the baseline's code can leave on a session.
    pub baseline: BaselineCode,
    /// What only a superuser can close is closed.
    pub is_hardened: bool,
}

/// A tenant of the proof.
pub struct Resident {
    /// Its index among the tenants.
    pub number: usize,
    /// Its id.
    pub id: TenantId,
    /// The mark of its rows.
    pub mark: Mark,
    pub(crate) people: People,
    /// Closed while the tenant is suspended.
    pub(crate) gate: Gate,
    /// Closed while `people.changing` is a viewer.
    pub(crate) changing: Gate,
}

/// Members of a tenant.
pub(crate) struct People {
    viewer: Uuid,
    member: Uuid,
    admin: Uuid,
    owner: Uuid,
    /// Alternates between member and viewer.
    pub(crate) changing: Uuid,
}

impl People {
    pub(crate) fn of(&self, role: Role) -> Uuid {
        match role {
            Role::Viewer => self.viewer,
            Role::Member => self.member,
            Role::Admin => self.admin,
            Role::Owner | Role::Operator => self.owner,
        }
    }

    fn all(&self) -> [(Uuid, Role); 5] {
        [
            (self.viewer, Role::Viewer),
            (self.member, Role::Member),
            (self.admin, Role::Admin),
            (self.owner, Role::Owner),
            (self.changing, Role::Member),
        ]
    }
}

/// A service that listens.
struct Service {
    address: SocketAddr,
    freehold: Freehold,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Everything that a run needs. Between [`prepare`](Ground::prepare) and a run, a test may plant a fault that
/// the run must find.
pub struct Ground {
    /// The tenants.
    pub residents: Vec<Resident>,
    /// The addresses of the services; a test may put a proxy in between.
    pub services: Vec<SocketAddr>,
    pub(crate) handles: Vec<Freehold>,
    /// A direct connection, with the owner role: suspends and migrates.
    pub(crate) steward: Freehold,
    pub(crate) observer: Client,
    pub(crate) watch: Watch,
    pub(crate) mint: Mint,
    /// The state of sessions before the run.
    pub(crate) clean: Clean,
    pub(crate) conditions: Conditions,
    pub(crate) postgres: String,
    running: Vec<Service>,
}

impl Ground {
    /// Creates tenants, people and rows, and starts the services.
    ///
    /// # Errors
    /// Any error of the database, as text.
    pub async fn prepare(system: &System, settings: &Settings) -> Result<Ground, Failure> {
        let observer = freehold::connect_bare(&system.superuser_url).await?;
        let postgres = check_superuser(&observer).await?;
        let conditions = Conditions::of(system, &observer).await?;
        let steward =
            Freehold::connect(&Options::new(&system.app_url).owner_url(&system.owner_url)).await?;
        let mut dice = Dice::new(settings.seed, 0);
        let mut residents = Vec::new();
        for number in 0..settings.tenants {
            let mark = Mark::new(&mut dice, number);
            residents.push(move_in(&steward, &observer, number, mark).await?);
        }
        let watch = Watch::new(residents.iter().map(|of| (&of.mark, of.id.as_uuid())));

        let secret = format!("freehold-prove {:016x}{:016x}", dice.draw(), dice.draw());
        let mint = Mint::new(&secret)?;
        let url = system.pooler_url.as_ref().unwrap_or(&system.app_url);
        let mut running = Vec::new();
        for connections in SERVICE_POOLS {
            running.push(serve(connect(system, url, connections).await?, &mint).await?);
        }
        let mut handles = Vec::new();
        for connections in LIBRARY_POOLS {
            handles.push(connect(system, url, connections).await?);
        }
        if system.code == BaselineCode::ChangesSettings && system.pooler_url.is_none() {
            let all = running.iter().map(|service| &service.freehold).chain(&handles);
            until_only_settings_are_cleaned(all).await?;
        }
        let services: Vec<_> = running.iter().map(|service| service.address).collect();
        let clean = Clean::look(&services, &handles, &residents[0], &mint, &observer).await?;
        Ok(Ground {
            residents,
            services,
            handles,
            steward,
            observer,
            watch,
            mint,
            clean,
            conditions,
            postgres,
            running,
        })
    }

    /// Closes what was opened.
    pub(crate) fn close(&mut self) {
        for service in self.running.drain(..) {
            service.freehold.close();
        }
        for handle in self.handles.drain(..) {
            handle.close();
        }
        self.steward.close();
    }
}

impl Conditions {
    async fn of(system: &System, observer: &Client) -> Result<Conditions, Failure> {
        let row = observer.query_one("SELECT freehold_guard.seal_mode()", &[]).await?;
        Ok(Conditions {
            connection: if system.pooler_url.is_some() { "pooler" } else { "direct" }.to_owned(),
            seal: row.get(0),
            baseline: system.code,
            is_hardened: system.is_hardened,
        })
    }
}

async fn check_superuser(observer: &Client) -> Result<String, Failure> {
    let row = observer
        .query_one(
            "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
                    current_setting('server_version')",
            &[],
        )
        .await?;
    if !row.get::<_, bool>(0) {
        return Err("a proof needs a superuser: it ends sessions of others meanwhile, and reads \
                    every tenant's tables at the end"
            .into());
    }
    Ok(row.get(1))
}

async fn connect(system: &System, url: &str, connections_max: usize) -> Result<Freehold, Failure> {
    let mut options = Options::new(url).owner_url(&system.owner_url);
    options.app_pool = PoolLimits { connections_max, wait_max: Duration::from_secs(20) };
    Ok(Freehold::connect(&options).await?)
}

/// The baseline's code is examined in the background.
async fn until_only_settings_are_cleaned(
    handles: impl Iterator<Item = &Freehold>,
) -> Result<(), Failure> {
    let started = Instant::now();
    for handle in handles {
        while !handle.cleans_only_settings() {
            if started.elapsed() > EXAMINED_MAX {
                return Err(
                    "the server does not notice that the baseline changes only settings".into()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

/// As in `freehold serve`.
async fn serve(freehold: Freehold, mint: &Mint) -> Result<Service, Failure> {
    let unlimited = || {
        let count = NonZeroU32::new(1_000_000).expect("it is not zero");
        Rate { burst: count, per_minute: count }
    };
    let sign_in = SignInOptions {
        tokens: mint.tokens(),
        access_lifetime: Duration::from_secs(600),
        session_lifetime: Duration::from_secs(3600),
        limits: SignInLimits { per_email: unlimited(), per_client: unlimited() },
        public_url: "http://127.0.0.1".to_owned(),
    };
    let settings = HttpSettings {
        listen: ([127, 0, 0, 1], 0).into(),
        request_timeout_ms: 60_000,
        max_body_bytes: 256 * 1024,
        max_concurrent_requests: 2048,
        max_page_rows: 1000,
        max_batch_operations: 50,
        trust_forwarded_for: false,
        cors_origins: Vec::new(),
        outage_secs: 1,
        startup_secs: 10,
        drain_secs: 0,
        shutdown_secs: 1,
        metrics_token: None,
        connections: ConnectionSettings::default(),
    };
    let sign_in = Arc::new(SignIn::new(freehold.clone(), sign_in));
    let people = PeopleSettings { signup: SignUpMode::Off, mail: false };
    let state = AppState::new(freehold.clone(), sign_in, &settings, people).await?;
    let listener = tokio::net::TcpListener::bind(settings.listen).await?;
    let address = listener.local_addr()?;
    let limits = ConnectionLimits::of(&settings, freehold.pool_status().connections_max as u64)?;
    let service = router(state);
    let task = tokio::spawn(async move {
        // It ends with the proof.
        connections::serve(listener, service, limits, std::future::pending()).await;
    });
    Ok(Service { address, freehold, task })
}

async fn move_in(
    steward: &Freehold,
    observer: &Client,
    number: usize,
    mark: Mark,
) -> Result<Resident, Failure> {
    let slug = format!("prove-{number:03}");
    let name = format!("A tenant of freehold-prove, {}", mark.text);
    let new = NewTenant { slug: slug.clone(), name, ..NewTenant::default() };
    let id = steward.tenants().create(&OPERATOR, new).await?.tenant.id;
    let person = Uuid::new_v4;
    let people = People {
        viewer: person(),
        member: person(),
        admin: person(),
        owner: person(),
        changing: person(),
    };
    // No person signs in by password, so no password is hashed.
    for (person, role) in people.all() {
        observer
            .execute(
                "INSERT INTO freehold.identity (id, email) VALUES ($1, $2)",
                &[&person, &format!("{}@{slug}.example", person.simple())],
            )
            .await?;
        // With its own id, which the mint's tokens contain; longer than any proof takes.
        observer
            .execute(
                "INSERT INTO freehold.session (id, identity_id, tenant_id, expires_at)
                 VALUES ($1, $1, $2, now() + interval '1 day')",
                &[&person, &id.as_uuid()],
            )
            .await?;
        observer
            .execute(
                "INSERT INTO freehold.membership (tenant_id, identity_id, role) VALUES ($1, $2, $3)",
                &[&id.as_uuid(), &person, &role.as_str()],
            )
            .await?;
    }
    steward.tenants().run_script(&OPERATOR, id, &rows_sql(&mark)).await?;
    Ok(Resident { number, id, mark, people, gate: Gate::open(), changing: Gate::open() })
}

fn rows_sql(mark: &Mark) -> String {
    let Mark { text, tag, .. } = mark;
    let mut sql = "INSERT INTO canaries (id, no, tag, body, note) VALUES".to_owned();
    for no in 1..=CANARIES {
        let comma = if no == 1 { "" } else { "," };
        let id = mark.row_id(no);
        let _ = write!(sql, "{comma}\n('{id}', {no}, {tag}, '{text} {no}', 'a note of {text}')");
    }
    let (id, canary) = (ledger_id(mark, NOBODY, 0), mark.row_id(1));
    let _ = write!(
        sql,
        ";\nINSERT INTO ledger (id, worker, no, revision, tag, canary_id, body)
         VALUES ('{id}', {NOBODY}, 0, 0, {tag}, '{canary}', '{text}')"
    );
    sql
}

/// The id of a row in `ledger`.
pub(crate) fn ledger_id(mark: &Mark, worker: i32, no: i32) -> Uuid {
    mark.row_id(
        1_000_000 + u64::from(worker.unsigned_abs()) * 10_000 + u64::from(no.unsigned_abs()),
    )
}

/// A person of a tenant, for the library.
pub(crate) fn identity(person: Uuid) -> IdentityId {
    IdentityId::from(person)
}
