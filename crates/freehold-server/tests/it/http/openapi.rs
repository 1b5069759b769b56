//! The document that is checked in is the one that is served.

use crate::support::{Service, Setup, project};

#[test]
fn the_document_that_is_checked_in_is_that_of_the_routes() {
    let checked_in = std::fs::read_to_string(project().join("openapi.json")).unwrap_or_default();
    // No assert_eq: it would print both documents.
    assert!(
        checked_in.trim_end() == freehold_server::http::openapi_json().trim_end(),
        "the API has changed and openapi.json has not. Look at what changed, then run\n  \
         cargo run -p freehold-server -- openapi > openapi.json"
    );
}

#[tokio::test]
async fn the_document_is_served_to_anybody() {
    let service = Service::start(Setup::default()).await;
    let answer = service.get("/openapi.json").send().await.expect(200);
    assert!(answer.header("content-type").starts_with("application/json"));
    assert_eq!(answer.text(), freehold_server::http::openapi_json());
}
