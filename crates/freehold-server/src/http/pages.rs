//! What people see in a browser: the page behind the link in a letter. It is served as it is; its
//! script asks the API, like any other client.

use axum::Router;
use axum::routing::get;
use http::HeaderName;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use super::state::AppState;

/// The page's own files, and calls to where it came from. `data:` is the icon that it does without.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

type File = ([(HeaderName, &'static str); 2], &'static str);

fn file(content_type: &'static str, text: &'static str) -> File {
    ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY)], text)
}

/// A GET says what there is and does nothing: programs that look through letters follow their
/// links. The token is in the fragment, so it does not even come here.
pub(super) fn pages() -> Router<AppState> {
    let html = || async { file("text/html; charset=utf-8", include_str!("pages/confirm.html")) };
    let script =
        || async { file("text/javascript; charset=utf-8", include_str!("pages/confirm.js")) };
    let style = || async { file("text/css; charset=utf-8", include_str!("pages/confirm.css")) };
    Router::new()
        .route("/confirm", get(html))
        .route("/confirm.js", get(script))
        .route("/confirm.css", get(style))
}
