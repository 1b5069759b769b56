//! TLS to a PostgreSQL, by both ways to connect, with psql's meaning of `sslmode`; and to a PostgreSQL
//! without TLS.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use freehold::testing::{self, TestDatabase};
use freehold::{ErrorKind, Freehold, Options};
use freehold_embedded::postgres::{self, EmbeddedPostgres};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::process::Folder;
use crate::support::{self, admin_url, eventually, shop};

/// At most, for a session to begin or to end.
const WAIT: Duration = Duration::from_secs(20);

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Another name than a host's: OpenSSL takes a certificate that names itself for its own issuer.
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn write(&self, path: &Path) -> String {
        std::fs::write(path, self.0.pem()).unwrap();
        path.display().to_string()
    }

    /// A certificate and its key, for a host.
    pub(crate) fn sign(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A PostgreSQL with a certificate for `localhost`, and the authority that signed it.
pub(crate) struct Encrypted {
    pub(crate) server: EmbeddedPostgres,
    /// Files of certificates.
    pub(crate) authority: String,
    stranger: String,
    _folder: Folder,
}

impl Encrypted {
    /// With further settings.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Encrypted {
        let folder = Folder::new();
        let dir = folder.path().join("pg");
        let bin = std::env::var_os("FREEHOLD_PG_BIN").map(PathBuf::from);
        let options = postgres::Options { dir: &dir, bin: bin.as_deref(), settings: &[] };
        let server = EmbeddedPostgres::start(options, |_| {}).await.unwrap();
        let data = server.data_dir().to_owned();
        server.stop().await.unwrap();
        let (authority, stranger) = (Authority::new(), Authority::new());
        let (certificate, key) = authority.sign("localhost");
        let owner = std::fs::metadata(&data).unwrap();
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = data.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let settings: Vec<_> =
            settings.iter().copied().chain([("ssl", "on"), ("fsync", "off")]).collect();
        let options = postgres::Options { settings: &settings, ..options };
        let server = EmbeddedPostgres::start(options, |_| {}).await.unwrap();
        let authority = authority.write(&folder.path().join("ca.pem"));
        let stranger = stranger.write(&folder.path().join("stranger.pem"));
        Encrypted { server, authority, stranger, _folder: folder }
    }
}

/// Connects as a server does; whether the connections that it makes are encrypted.
async fn connect(database: &TestDatabase, host: &str, tls: &str) -> freehold::Result<bool> {
    let superuser = support::connect(&database.superuser_url()).await;
    let encrypted = async || {
        let sessions = "SELECT count(*), COALESCE(bool_and(s.ssl), false) FROM pg_stat_ssl s
            JOIN pg_stat_activity a USING (pid)
            WHERE a.usename IN ('freehold_app', 'freehold_catalog') AND a.datname = current_database()";
        let row = superuser.query_one(sessions, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, bool>(1))
    };
    let left = "the sessions of whoever connected before have ended";
    eventually(left, WAIT, async || encrypted().await.0 == 0).await;
    let with = |url: String| format!("{}?{tls}", url.replace("@127.0.0.1:", &format!("@{host}:")));
    let options = Options::new(with(database.app_url())).owner_url(with(database.owner_url()));
    let freehold = Freehold::connect(&options).await?;
    freehold.ping().await?;
    eventually("one is the pool's and one listens", WAIT, async || encrypted().await.0 >= 2).await;
    let (_, answer) = encrypted().await;
    freehold.close();
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_postgresql_is_checked_as_sslmode_says() {
    let place = Encrypted::start(&[]).await;
    let database =
        TestDatabase::create(&place.server.superuser_url("postgres"), &shop()).await.unwrap();
    let (ca, stranger) = (&place.authority, &place.stranger);
    for (host, tls, works) in [
        // The right authority and the right host.
        ("localhost", format!("sslmode=verify-full&sslrootcert={ca}"), true),
        // The right authority, another host.
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}"), false),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}"), true),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={ca}"), true),
        // Another authority.
        ("localhost", format!("sslmode=verify-full&sslrootcert={stranger}"), false),
        ("localhost", format!("sslmode=verify-ca&sslrootcert={stranger}"), false),
        ("localhost", format!("sslmode=require&sslrootcert={stranger}"), false),
        // The system's authorities, which do not include the test's.
        ("localhost", "sslmode=verify-full".to_owned(), false),
        ("localhost", "sslmode=verify-ca".to_owned(), false),
        // Encrypted, and unchecked.
        ("127.0.0.1", "sslmode=require".to_owned(), true),
        ("127.0.0.1", "sslmode=prefer".to_owned(), true),
    ] {
        match connect(&database, host, &tls).await {
            Ok(encrypted) => assert!(works && encrypted, "{host} {tls}: {encrypted}"),
            Err(error) => {
                assert!(!works, "{host} {tls}: {error}");
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{host} {tls}: {error}");
                assert!(!error.to_string().contains(testing::PASSWORD), "{error}");
            }
        }
    }
    let plain = connect(&database, "127.0.0.1", "sslmode=disable").await.unwrap();
    assert!(!plain, "disable means that nothing is encrypted");
    // A file that is not there must not be taken for no wish.
    let missing =
        connect(&database, "localhost", "sslmode=verify-full&sslrootcert=/no/ca.pem").await;
    let missing = missing.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Setup);
    assert!(missing.message().contains("/no/ca.pem"), "{missing}");
    drop(database);
    place.server.stop().await.unwrap();
}

/// The server of the other tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_without_tls_is_refused_unless_sslmode_allows_it() {
    let database = TestDatabase::create(&admin_url(), &shop()).await.unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = connect(&database, "127.0.0.1", &format!("sslmode={mode}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{mode}: {error}");
    }
    for mode in ["prefer", "disable"] {
        let encrypted = connect(&database, "127.0.0.1", &format!("sslmode={mode}")).await.unwrap();
        assert!(!encrypted, "{mode}");
    }
}
