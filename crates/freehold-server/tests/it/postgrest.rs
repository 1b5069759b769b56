//! An existing client of PostgREST's dialect, `@supabase/postgrest-js`, against the service.

use std::net::SocketAddr;

use freehold::OperatorContext;
use freehold::testing::{self, PASSWORD};
use tokio::process::Command;

use crate::support::{Service, Setup, project};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_client_works_unchanged() {
    let clients = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    assert!(
        clients.join("node_modules/@supabase/postgrest-js").exists(),
        "the client libraries are not installed: run `npm ci` in {}, or ./dev test, which does",
        clients.display()
    );
    let mut setup = Setup::default();
    setup.http.max_page_rows = 1000;
    let service = Service::start(setup).await;
    let (acme, _) = testing::create_tenant(&service.freehold, "acme").await.unwrap();
    let seed = std::fs::read_to_string(project().join("demo/seed.sql")).unwrap();
    let context = OperatorContext::system("a test's rows");
    service.freehold.tenants().run_script(&context, acme.id, &seed).await.unwrap();

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = service.router().into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(async { axum::serve(listener, router).await });
    let output = Command::new("node")
        .arg("postgrest.mjs")
        .current_dir(&clients)
        .env("BASE_URL", format!("http://{address}"))
        .env("EMAIL", "owner@acme.example")
        .env("PASSWORD", PASSWORD)
        .output()
        .await
        .expect("node runs; ./dev test installs it");
    serving.abort();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    assert!(said.contains("checks passed"), "{said}{complaint}");
}
