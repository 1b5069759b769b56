//! Reads the settings, migrates, serves. The only place that knows the environment.

use std::env;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use freehold::control::sessions::{SignIn, SignInOptions};
use freehold::{Freehold, MigrateOptions, OperatorContext, Options};

#[expect(clippy::disallowed_methods, reason = "a service of its own reads its own settings, here")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let setting = |name| env::var(name).map_err(|_| format!("set {name}; README.md says how"));

    let mut options = Options::new(setting("DATABASE_URL")?);
    options.owner_url = env::var("DATABASE_OWNER_URL").ok();
    let sign_in = SignInOptions::new(&setting("JWT_SECRET")?)?;
    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8081".to_owned());

    let freehold = Freehold::connect(&options).await?;
    if options.owner_url.is_some() {
        let migrate = MigrateOptions::default();
        let report = freehold
            .migrations()
            .up(&OperatorContext::system("notes"), &notes::baseline()?, migrate, &|_, _| {})
            .await?;
        for failure in &report.failed {
            tracing::error!(tenant = failure.tenant, error = failure.error, "not migrated");
        }
    }
    let counting = tokio::spawn(count_hourly(freehold.clone()));

    let router = notes::router(Arc::new(SignIn::new(freehold.clone(), sign_in)));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    tracing::info!(address = %listener.local_addr()?, "serving");
    axum::serve(listener, service)
        .with_graceful_shutdown(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    counting.abort();
    freehold.close();
    Ok(())
}

async fn count_hourly(freehold: Freehold) {
    let mut hours = tokio::time::interval(Duration::from_secs(3600));
    loop {
        hours.tick().await;
        match notes::count_everywhere(&freehold).await {
            Ok(tenants) => tracing::info!(tenants, "counted the notes"),
            Err(error) => tracing::error!(%error, "the notes were not counted"),
        }
    }
}
