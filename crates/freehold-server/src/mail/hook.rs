//! Messages as JSON to a service of the operator's, which words and sends them as it likes. Each request is
//! signed together with its time, so that no other sender can have messages sent.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use freehold::Message;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use sha2::Sha256;

use super::SendError;
use crate::config::MailSettings;

/// A service that accepts messages.
pub struct Hook {
    url: Uri,
    key: Hmac<Sha256>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Hook {
    pub(super) fn new(settings: &MailSettings) -> Result<Hook, String> {
        let (url, secret) = settings.hook()?;
        let told = |error: &dyn std::fmt::Display| {
            format!("MAIL_HOOK_URL: nobody to trust is known: {error}")
        };
        let provider = rustls::crypto::ring::default_provider();
        let connector = HttpsConnectorBuilder::new();
        let connector = if url.scheme_str() == Some("https") {
            connector
                .with_provider_and_native_roots(provider)
                .map_err(|error| told(&error))?
                .https_only()
                .enable_http1()
                .build()
        } else {
            // A connection within this machine needs no trusted authorities.
            let nobody = ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(|error| told(&error))?
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            connector.with_tls_config(nobody).https_or_http().enable_http1().build()
        };
        // The server may close an idle connection, and a message would fail on it.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let key = Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
        Ok(Hook { url, key, client })
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let body = serde_json::to_vec(message)
            .map_err(|error| SendError::permanent(format!("no JSON can be made: {error}")))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("freehold/", env!("CARGO_PKG_VERSION")))
            .header("freehold-timestamp", now)
            .header("freehold-signature", self.sign(now, &body))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| SendError::permanent(format!("no request can be made: {error}")))?;
        // Only the head of the answer is read, which hyper limits; redirects are not followed.
        match self.client.request(request).await {
            Ok(answer) => outcome(answer.status()),
            Err(error) => {
                let mut what = format!("the hook cannot be reached: {error}");
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    what.push_str(&format!(": {cause}"));
                    source = cause.source();
                }
                Err(SendError::passing(what))
            }
        }
    }

    /// A signature over the time and every byte of the body.
    fn sign(&self, now: u64, body: &[u8]) -> String {
        let mut mac = self.key.clone();
        mac.update(format!("{now}.").as_bytes());
        mac.update(body);
        let digest = mac.finalize().into_bytes();
        digest.iter().fold("v1=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }
}

/// The meaning of an answer. 408 and 429 ask for another attempt.
fn outcome(status: StatusCode) -> Result<(), SendError> {
    let told = format!("the hook answered {}", status.as_u16());
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(SendError::passing(told))
        }
        _ if status.is_client_error() => Err(SendError::permanent(told)),
        _ if status.is_redirection() => {
            Err(SendError::passing(told + ", and redirects are not followed"))
        }
        _ => Err(SendError::passing(told)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MailMode;

    #[test]
    fn a_signature_is_what_others_compute() {
        let settings = MailSettings {
            mail: MailMode::Hook,
            mail_hook_url: Some("http://127.0.0.1:1/mail".to_owned()),
            mail_hook_secret: Some("0123456789abcdef0123456789abcdef".to_owned()),
            ..MailSettings::default()
        };
        let hook = Hook::new(&settings).unwrap();
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let known = "v1=f05f2539e3ae1c49aec5f8cfdad75ef6b06480b133973ffbb7ec9e18827af177";
        assert_eq!(hook.sign(1_700_000_000, br#"{"a":1}"#), known);
        assert_ne!(hook.sign(1_700_000_001, br#"{"a":1}"#), known);
        assert_ne!(hook.sign(1_700_000_000, br#"{"a":2}"#), known);
    }

    #[test]
    fn a_refusal_is_permanent_and_a_failure_is_not() {
        for status in [200, 201, 202, 204] {
            assert!(outcome(StatusCode::from_u16(status).unwrap()).is_ok(), "{status}");
        }
        for (status, permanent) in [
            (301, false),
            (307, false),
            (400, true),
            (404, true),
            (408, false),
            (410, true),
            (429, false),
            (500, false),
            (503, false),
            (599, false),
        ] {
            let error = outcome(StatusCode::from_u16(status).unwrap()).unwrap_err();
            assert_eq!(error.permanent, permanent, "{status}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
        }
    }
}
