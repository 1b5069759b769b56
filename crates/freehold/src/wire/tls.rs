//! TLS to PostgreSQL, with libpq's meaning of `sslmode`.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::Host;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, ErrorKind, Result};
use crate::wire::connect_failure::{Cause, ConnectFailure, Destination};

/// A connection string, and how the server's certificate is checked.
#[derive(Clone)]
pub(crate) struct Target {
    /// The setting that holds the connection string.
    setting: Arc<str>,
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: MakeRustlsConnect,
}

impl Target {
    /// The same target with the same password, as another user.
    pub(crate) fn as_user(&self, user: &str) -> Target {
        let mut target = self.clone();
        target.config.user(user);
        target
    }

    /// The user name.
    pub(crate) fn user(&self) -> &str {
        self.config.get_user().unwrap_or("freehold_app")
    }

    /// The hosts with the first one's port, for messages.
    pub(crate) fn hosts(&self) -> String {
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let names: Vec<_> = self
            .config
            .get_hosts()
            .iter()
            .map(|host| match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => path.display().to_string(),
            })
            .collect();
        if names.is_empty() { "no host".to_owned() } else { names.join(", ") }
    }

    /// The log gets the address and the remedy; the caller learns that the database is unavailable.
    pub(crate) fn cannot_connect(&self, cause: impl Into<Cause>) -> Error {
        let (user, hosts) = (self.config.get_user().unwrap_or("?"), self.hosts());
        let destination = Destination { setting: &self.setting, hosts: &hosts, user };
        let failure = ConnectFailure::new(&destination, cause.into());
        Error::new(ErrorKind::Unavailable, "the database is not available").because(failure)
    }
}

/// How far the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Not at all: `prefer` and `require`, as in psql. A machine in the middle may read and write.
    Nothing,
    /// A trusted authority must have signed it, for any host.
    Authority,
    /// And it must be for this host.
    Host,
}

/// The TLS parameters of a connection string, and the string without those that the driver does not know.
#[derive(Debug, PartialEq, Eq)]
struct TlsParameters {
    check: Check,
    /// A file with trusted authorities; `None` means those of the system.
    roots: Option<String>,
    plain: String,
}

/// Parses a connection string. `sslmode=verify-full` checks that the certificate is the host's and is signed
/// by an authority in `sslrootcert` or trusted by the system; `verify-ca` does not check the host; `require`
/// and `prefer` encrypt without a check, except that `require` with a `sslrootcert` means `verify-ca`. All as
/// in psql.
pub(crate) fn target(url: &str, name: &str) -> Result<Target> {
    let parameters = TlsParameters::read(url);
    let config = parameters.plain.parse().map_err(|source: tokio_postgres::Error| {
        Error::new(
            ErrorKind::Setup,
            format!("{name} is not a PostgreSQL connection string such as postgres://user:password@host:5432/database"),
        )
        .because(source)
    })?;
    let tls = client_config(parameters.check, parameters.roots.as_deref(), name)?;
    Ok(Target { setting: name.into(), config, tls: MakeRustlsConnect::new(tls) })
}

impl TlsParameters {
    fn read(url: &str) -> TlsParameters {
        let (is_url, base, options) = match url.split_once('?') {
            Some((base, query)) if base.contains("://") => (true, base, query),
            _ if url.contains("://") => (true, url, ""),
            _ => (false, "", url),
        };
        let separator = if is_url { '&' } else { ' ' };
        let (mut mode, mut roots, mut others) = ("", None, Vec::new());
        for option in options.split(separator).filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("sslmode", value)) => mode = value,
                Some(("sslrootcert", value)) => {
                    roots = Some(if is_url { decode(value) } else { value.to_owned() });
                }
                _ => others.push(option.to_owned()),
            }
        }
        let roots = roots.filter(|roots| roots != "system");
        let check = match mode {
            "verify-full" => Check::Host,
            "verify-ca" => Check::Authority,
            "require" if roots.is_some() => Check::Authority,
            _ => Check::Nothing,
        };
        if !mode.is_empty() {
            let known = if check == Check::Nothing { mode } else { "require" };
            others.push(format!("sslmode={known}"));
        }
        let options = others.join(&separator.to_string());
        let plain = match (is_url, options.is_empty()) {
            (true, false) => format!("{base}?{options}"),
            (true, true) => base.to_owned(),
            (false, _) => options,
        };
        TlsParameters { check, roots, plain }
    }
}

/// Splits a URL into the URL without `sslrootcert`, and the authorities in that file as PEM: for a driver
/// that supports TLS but not this option.
#[cfg(feature = "redis")]
pub(crate) fn split_authorities(url: &str, name: &str) -> Result<(String, Option<Vec<u8>>)> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let options = query.split('&');
    let (roots, others): (Vec<_>, Vec<_>) =
        options.partition(|option| option.starts_with("sslrootcert="));
    let url = [base, &others.join("&")].join(if others.is_empty() { "" } else { "?" });
    let Some((_, file)) = roots.last().and_then(|option| option.split_once('=')) else {
        return Ok((url, None));
    };
    let file = decode(file);
    if file == "system" {
        return Ok((url, None));
    }
    trusted(Some(&file), name)?;
    let pem = std::fs::read(&file).map_err(|source| {
        Error::new(ErrorKind::Setup, format!("{name}: {file}")).because(source)
    })?;
    Ok((url, Some(pem)))
}

/// Decodes percent-encoding; an invalid sequence stays as it is.
fn decode(text: &str) -> String {
    let (bytes, mut decoded) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| *byte == b'%') {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn client_config(check: Check, roots: Option<&str>, name: &str) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(no_tls)?;
    let verifier: Arc<dyn ServerCertVerifier> = match check {
        Check::Nothing => Arc::new(Unverified(provider)),
        Check::Host => {
            let roots = trusted(roots, name)?;
            return Ok(builder.with_root_certificates(roots).with_no_client_auth());
        }
        Check::Authority => {
            let roots = Arc::new(trusted(roots, name)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            Arc::new(AnyHost(verifier.map_err(no_tls)?))
        }
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn no_tls(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "TLS cannot be set up").because(source)
}

/// The authorities in a file, all of which must be valid, or those of the system.
fn trusted(file: Option<&str>, name: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        for certificate in rustls_native_certs::load_native_certs().certs {
            // A malformed root in the system's store is ignored.
            let _ = roots.add(certificate);
        }
        return Ok(roots);
    };
    let refuse = || {
        Error::new(
            ErrorKind::Setup,
            format!(
                "{name}: {file}, which sslrootcert names, holds no certificates that can be read (PEM)"
            ),
        )
    };
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|source| refuse().because(source))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|source| refuse().because(source))?;
        roots.add(certificate).map_err(|source| refuse().because(source))?;
    }
    if roots.is_empty() { Err(refuse()) } else { Ok(roots) }
}

/// Requires a trusted authority and ignores the host name: `sslmode=verify-ca`.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        // The host is checked last, after the authority was found to be trusted.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(rustls::Error::InvalidCertificate(
                NotValidForName | NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Accepts any certificate, as libpq does below `sslmode=verify-ca`.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorities_of_a_url_are_taken_out_of_it() {
        let file = std::env::temp_dir().join(format!("freehold-tls-{}.pem", uuid::Uuid::new_v4()));
        std::fs::write(&file, "no certificate").unwrap();
        let refused = |query: &str| {
            let url = format!("rediss://h:1{query}");
            split_authorities(&url, "REDIS_URL").unwrap_err().message().to_owned()
        };
        for (text, url) in [
            ("rediss://h:1/0", "rediss://h:1/0"),
            ("rediss://h:1?protocol=resp3", "rediss://h:1?protocol=resp3"),
            ("rediss://h:1?sslrootcert=system&protocol=resp3", "rediss://h:1?protocol=resp3"),
            ("rediss://h:1?sslrootcert=system", "rediss://h:1"),
        ] {
            assert_eq!(split_authorities(text, "REDIS_URL").unwrap(), (url.to_owned(), None));
        }
        assert!(refused("?sslrootcert=/no/ca.pem").contains("/no/ca.pem"));
        assert!(refused(&format!("?a=b&sslrootcert={}", file.display())).contains("PEM"));
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn what_a_connection_string_says_of_tls_is_taken_out_of_it() {
        let url = "postgres://u:p@h:5432/d";
        for (text, check, roots, plain) in [
            (url, Check::Nothing, None, url),
            (
                &format!("{url}?sslmode=prefer"),
                Check::Nothing,
                None,
                &*format!("{url}?sslmode=prefer"),
            ),
            (
                &format!("{url}?sslmode=disable&options=-c%20x=y"),
                Check::Nothing,
                None,
                &*format!("{url}?options=-c%20x=y&sslmode=disable"),
            ),
            (
                &format!("{url}?sslmode=verify-full"),
                Check::Host,
                None,
                &*format!("{url}?sslmode=require"),
            ),
            (
                &format!("{url}?sslmode=verify-full&sslrootcert=system"),
                Check::Host,
                None,
                &*format!("{url}?sslmode=require"),
            ),
            (
                &format!("{url}?sslrootcert=/a%20b/ca.pem&sslmode=verify-ca"),
                Check::Authority,
                Some("/a b/ca.pem"),
                &*format!("{url}?sslmode=require"),
            ),
            // As psql does, for connection strings older than verify-ca.
            (
                &format!("{url}?sslmode=require&sslrootcert=ca.pem"),
                Check::Authority,
                Some("ca.pem"),
                &*format!("{url}?sslmode=require"),
            ),
            (
                &format!("{url}?sslmode=require"),
                Check::Nothing,
                None,
                &*format!("{url}?sslmode=require"),
            ),
            (
                "host=h sslmode=verify-full user=u sslrootcert=/ca.pem",
                Check::Host,
                Some("/ca.pem"),
                "host=h user=u sslmode=require",
            ),
            // A password that looks like the option is not one.
            (
                "postgres://u:sslmode=verify-full@h/d",
                Check::Nothing,
                None,
                "postgres://u:sslmode=verify-full@h/d",
            ),
        ] {
            let expected =
                TlsParameters { check, roots: roots.map(str::to_owned), plain: plain.to_owned() };
            assert_eq!(TlsParameters::read(text), expected, "{text}");
            assert!(plain.parse::<tokio_postgres::Config>().is_ok(), "{plain}");
        }
    }
}
