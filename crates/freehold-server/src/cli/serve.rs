//! `freehold serve`: the API, until it is told to stop.
//!
//! On SIGTERM, `AppState::drain` makes `/readyz` answer 503 and each answer say `Connection: close`; the
//! worker is dropped, and with it the connection that holds the lead. After `DRAIN_SECS` no further
//! connections are accepted and requests under way may finish; then violations are written down and the pools
//! close.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use freehold::control::sessions::SignIn;
use freehold::{DbError, ErrorKind, Freehold, Options, Trouble};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::Failure;
use crate::config::{HttpSettings, ServeSettings, SignUpMode};
use crate::http::connections::{self, ConnectionLimits};
use crate::http::{self, AppState, PeopleSettings};
use crate::mail::{Postman, Transport};
use crate::telemetry;
use crate::worker::Worker;

/// The pause between attempts to reach the database at the start.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn run(settings: ServeSettings) -> Result<(), Failure> {
    let traces = telemetry::init(&settings.log, &settings.traces)?;
    let transport = Transport::new(&settings.mail)?;
    let public_url = settings.mail.public_url()?.unwrap_or_default();
    let sign_in = settings.sign_in.options(public_url)?;
    settings.http.check()?;
    let database_connections = settings.database.connections_max(&settings.worker.analytics);
    let limits = ConnectionLimits::of(&settings.http, database_connections)?;
    let mut options = settings.database.options()?;
    options.insight = settings.insight.options();
    options.cache = settings.cache.options();
    let patience = Duration::from_secs(settings.http.startup_secs);
    let freehold = connect(&options, patience).await?;
    let sign_in = Arc::new(SignIn::new(freehold.clone(), sign_in));
    let people = PeopleSettings { signup: settings.sign_in.signup, mail: transport.is_some() };
    if !people.mail {
        tracing::warn!(
            "MAIL is off: invitations, new passwords by mail and sign-ups with a proven address are \
             refused; docs/mail.md says how letters are sent"
        );
    }
    if people.signup == SignUpMode::Open {
        tracing::warn!("SIGNUP is open: addresses are believed as they are typed");
    }
    let state =
        AppState::new(freehold.clone(), Arc::clone(&sign_in), &settings.http, people).await?;
    let listener = bind(settings.http.listen).await?;
    let worker = Worker::start(freehold, &settings.worker);
    let _postman = transport.map(|transport| Postman::start(&sign_in, transport));
    tracing::info!(address = %listener.local_addr()?, "serving");
    let outcome = serve(listener, state, worker, &settings.http, limits).await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    outcome
}

/// Connects, and waits for a database that is not reachable yet. Other errors are reported at once.
async fn connect(options: &Options, patience: Duration) -> Result<Freehold, freehold::Error> {
    let (began, trouble) = (Instant::now(), Trouble::default());
    loop {
        let connected = Freehold::connect(options).await;
        match &connected {
            Err(error) if may_pass(error) && began.elapsed() < patience => {
                trouble.note(&connected, "waiting for the database");
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            _ => return connected,
        }
    }
}

/// The database cannot be reached, rather than refusing the user or the database name.
fn may_pass(error: &freehold::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let refusal = match cause.downcast_ref::<DbError>() {
            Some(error) => Some(error.code()),
            None => cause.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.code()),
        };
        if refusal.is_some_and(|code| ["28", "3D"].contains(&&code.code()[..2])) {
            return false;
        }
        source = cause.source();
    }
    error.kind() == ErrorKind::Unavailable
}

pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        format!(
            "cannot listen on {address}: {error}; choose another with --listen (or --port for dev)"
        )
        .into()
    })
}

/// Serves until SIGINT or SIGTERM. Then, in this order: it reports that it is not ready, hands over the lead,
/// and continues to serve until balancers have noticed; accepts no further connections, and lets requests
/// under way finish; writes down what is outstanding. Another signal cuts a step short.
pub(crate) async fn serve(
    listener: TcpListener,
    state: AppState,
    worker: Worker,
    settings: &HttpSettings,
    limits: ConnectionLimits,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let router = http::router(state.clone());
    let mut server = pin!(connections::serve(listener, router, limits, async move {
        let _ = closed.await;
    }));

    let stop = tokio::select! {
        () = &mut server => return Ok(()),
        stop = signals.next() => stop,
    };
    state.drain();
    drop(worker);
    let drain = Duration::from_secs(if stop == Stop::Drain { settings.drain_secs } else { 0 });
    tracing::info!(secs = drain.as_secs(), "stopping: not ready any more, serving on for a while");
    tokio::select! {
        () = &mut server => return Ok(()),
        () = tokio::time::sleep(drain) => {}
        _ = signals.next() => {}
    }
    let grace = Duration::from_secs(settings.shutdown_secs);
    tracing::info!(
        secs = grace.as_secs(),
        "no connections any more; requests under way may finish"
    );
    let _ = close.send(());
    tokio::select! {
        () = &mut server => {}
        () = tokio::time::sleep(grace) => tracing::warn!("some requests did not finish in time"),
        _ = signals.next() => tracing::warn!("told to stop again; some requests may not have finished"),
    }
    let freehold = state.freehold();
    if let Err(error) = freehold.violations().flush().await {
        tracing::warn!(%error, "the last violations could not be written down");
    }
    if let Err(error) = freehold.usage().flush().await {
        tracing::warn!(%error, "the last figures of tenants' usage could not be written down");
    }
    if let Err(error) = freehold.slow_queries().flush().await {
        tracing::warn!(%error, "the last slow queries could not be written down");
    }
    if let Err(error) = freehold.flush_cache().await {
        tracing::warn!(%error, "other servers may keep what was written last for as long as they may");
    }
    freehold.close();
    tracing::info!("stopped");
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// By a person at a terminal, who waits for it.
    Now,
    /// By a service manager.
    Drain,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Failure> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Now,
            _ = self.terminate.recv() => Stop::Drain,
        }
    }
}
