//! `freehold serve`: the API, until it is told to stop.

use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use freehold::Freehold;
use freehold::control::sessions::SignIn;
use tokio::net::TcpListener;

use super::Failure;
use crate::config::{HttpSettings, ServeSettings};
use crate::http::{self, AppState};
use crate::telemetry;
use crate::worker::Worker;

pub(super) async fn run(settings: ServeSettings) -> Result<(), Failure> {
    telemetry::init_logs(&settings.log)?;
    let sign_in = settings.sign_in.options()?;
    let freehold = Freehold::connect(&settings.database.options()?).await?;
    let sign_in = SignIn::new(freehold.clone(), sign_in);
    let state =
        AppState::new(freehold.clone(), sign_in, &settings.http, settings.sign_in.signup).await?;
    let listener = bind(settings.http.listen).await?;
    let _worker = Worker::start(freehold, &settings.worker);
    tracing::info!(address = %listener.local_addr()?, "serving");
    serve(listener, state, &settings.http).await
}

pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        format!(
            "cannot listen on {address}: {error}; choose another with --listen (or --port for dev)"
        )
        .into()
    })
}

/// Serves until SIGINT or SIGTERM; then lets requests under way finish, for so long.
pub(crate) async fn serve(
    listener: TcpListener,
    state: AppState,
    settings: &HttpSettings,
) -> Result<(), Failure> {
    let listener = listener.tap_io(|stream| {
        // An answer is one write; waiting for more would only delay it.
        let _ = stream.set_nodelay(true);
    });
    let freehold = state.freehold().clone();
    let service = http::router(state).into_make_service_with_connect_info::<SocketAddr>();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        shutdown_signal().await;
        let _ = stop.send(());
    });
    let grace = Duration::from_secs(settings.shutdown_secs);
    tokio::select! {
        outcome = async { server.await } => outcome?,
        () = async {
            let _ = stopped.await;
            tracing::info!(grace_secs = grace.as_secs(), "stopping; requests under way may finish");
            tokio::time::sleep(grace).await;
        } => tracing::warn!("some requests did not finish in time"),
    }
    if let Err(error) = freehold.flush_violations().await {
        tracing::warn!(%error, "the last violations could not be written down");
    }
    freehold.close();
    Ok(())
}

async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be awaited");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
