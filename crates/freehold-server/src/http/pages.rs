//! Pages for people: the page behind the link in a message. It is served as it is; its script calls the API
//! like any other client.

use axum::Router;
use axum::routing::get;
use http::HeaderName;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use super::state::AppState;

/// The page's own files, and calls to its own origin. `data:` is for the empty icon.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

type File = ([(HeaderName, &'static str); 2], &'static str);

fn file(content_type: &'static str, text: &'static str) -> File {
    ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY)], text)
}

/// A GET has no effect, since programs that scan mail follow links. The token is in the fragment, which is
/// not sent.
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
