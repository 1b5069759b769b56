//! Connecting: sockets, TLS and authentication.

use std::io;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::{Backend, CONNECT_MAX, Connection, Result, Socket, WireError};
use crate::error::DbError;
use crate::wire::settings::Setting;
use crate::wire::tls::Target;

/// Connects to the first host of the target that accepts the sign-in and is of the requested kind. The
/// session begins with these settings.
pub(crate) async fn connect(target: &Target, settings: &[Setting]) -> Result<Connection> {
    let mut last = WireError::SignIn("the connection string names no host".to_owned());
    for (host, port) in addresses(target) {
        let signed_in = async {
            let socket = open(target, host, port).await?;
            let mut connection = sign_in(target, settings, socket).await?;
            require_kind(target, &mut connection).await?;
            Ok(connection)
        };
        match tokio::time::timeout(CONNECT_MAX, signed_in).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = error,
            Err(_) => last = WireError::Lost(io::ErrorKind::TimedOut.into()),
        }
    }
    Err(last)
}

/// Asks the server, over a separate connection, to cancel the query of a backend.
pub(super) async fn cancel(target: &Target, backend: Backend) -> Result<()> {
    let mut last = Ok(());
    for (host, port) in addresses(target) {
        last = async {
            let mut socket = open(target, host, port).await?;
            let mut message = BytesMut::new();
            frontend::cancel_request(backend.pid, backend.secret, &mut message);
            socket.write_all(&message).await.map_err(WireError::Lost)?;
            socket.flush().await.map_err(WireError::Lost)?;
            // The server closes the connection once it has sent the signal.
            let _ = socket.read(&mut [0]).await;
            Ok(())
        }
        .await;
        if last.is_ok() {
            break;
        }
    }
    last
}

fn addresses(target: &Target) -> impl Iterator<Item = (&Host, u16)> {
    let ports = target.config.get_ports();
    target.config.get_hosts().iter().enumerate().map(|(at, host)| {
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        (host, port)
    })
}

async fn open(target: &Target, host: &Host, port: u16) -> Result<Box<dyn Socket>> {
    match host {
        Host::Unix(folder) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            Ok(Box::new(UnixStream::connect(path).await.map_err(WireError::Lost)?))
        }
        Host::Tcp(name) => {
            let socket =
                TcpStream::connect((name.as_str(), port)).await.map_err(WireError::Lost)?;
            socket.set_nodelay(true).map_err(WireError::Lost)?;
            encrypt(target, name, socket).await
        }
    }
}

async fn encrypt(target: &Target, host: &str, mut socket: TcpStream) -> Result<Box<dyn Socket>> {
    let mode = target.config.get_ssl_mode();
    if mode == SslMode::Disable {
        return Ok(Box::new(socket));
    }
    let mut message = BytesMut::new();
    frontend::ssl_request(&mut message);
    socket.write_all(&message).await.map_err(WireError::Lost)?;
    let mut answer = [0];
    socket.read_exact(&mut answer).await.map_err(WireError::Lost)?;
    if answer != *b"S" {
        if mode == SslMode::Require {
            return Err(WireError::SignIn(
                "the server offers no TLS, which sslmode demands".into(),
            ));
        }
        return Ok(Box::new(socket));
    }
    let mut tls = target.tls.clone();
    let connector = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, host)
        .map_err(|error| WireError::Lost(io::Error::other(error)))?;
    Ok(Box::new(connector.connect(socket).await.map_err(WireError::Lost)?))
}

async fn sign_in(
    target: &Target,
    settings: &[Setting],
    socket: Box<dyn Socket>,
) -> Result<Connection> {
    let config = &target.config;
    let mut connection = Connection::over(socket);
    let user = target.user();
    let mut parameters = vec![("user", user), ("client_encoding", "UTF8")];
    let optional = [
        ("database", config.get_dbname()),
        ("application_name", config.get_application_name()),
        ("options", config.get_options()),
    ];
    parameters.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    parameters.extend(settings);
    frontend::startup_message(parameters, &mut connection.outbox).map_err(WireError::Unsendable)?;
    authenticate(&mut connection, user, config.get_password()).await?;
    // The server sends keys and settings until it is ready.
    connection.unanswered = 1;
    loop {
        match connection.next_message().await? {
            Message::BackendKeyData(body) => {
                connection.backend = Backend { pid: body.process_id(), secret: body.secret_key() };
            }
            Message::ReadyForQuery(_) => break,
            Message::ErrorResponse(body) => return Err(refused(&body)),
            _ => return Err(connection.confused()),
        }
    }
    let heard = std::mem::take(&mut connection.settings.changed);
    connection.settings.at_start = heard;
    Ok(connection)
}

async fn authenticate(
    connection: &mut Connection,
    user: &str,
    password: Option<&[u8]>,
) -> Result<()> {
    let password =
        || password.ok_or_else(|| WireError::SignIn("the server asks for a password".to_owned()));
    loop {
        match connection.next_message().await? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                frontend::password_message(password()?, &mut connection.outbox)
                    .map_err(WireError::Unsendable)?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(user.as_bytes(), password()?, body.salt());
                frontend::password_message(hash.as_bytes(), &mut connection.outbox)
                    .map_err(WireError::Unsendable)?;
            }
            Message::AuthenticationSasl(body) => {
                let known = body
                    .mechanisms()
                    .any(|name| Ok(name == SCRAM_SHA_256))
                    .map_err(WireError::Unreadable)?;
                if !known {
                    return Err(WireError::SignIn(
                        "the server wants a way to sign in that is not SCRAM-SHA-256".to_owned(),
                    ));
                }
                scram(connection, password()?).await?;
            }
            Message::ErrorResponse(body) => return Err(refused(&body)),
            _ => {
                return Err(WireError::SignIn(
                    "the server wants a way to sign in that is not known here; use a password"
                        .to_owned(),
                ));
            }
        }
    }
}

async fn scram(connection: &mut Connection, password: &[u8]) -> Result<()> {
    let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut connection.outbox)
        .map_err(WireError::Unsendable)?;
    loop {
        match connection.next_message().await? {
            Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data()).map_err(WireError::Unreadable)?;
                frontend::sasl_response(scram.message(), &mut connection.outbox)
                    .map_err(WireError::Unsendable)?;
            }
            Message::AuthenticationSaslFinal(body) => {
                return scram.finish(body.data()).map_err(WireError::Unreadable);
            }
            Message::ErrorResponse(body) => return Err(refused(&body)),
            _ => return Err(connection.confused()),
        }
    }
}

fn refused(body: &postgres_protocol::message::backend::ErrorResponseBody) -> WireError {
    match DbError::parse(body) {
        Ok(error) => WireError::Database(Box::new(error)),
        Err(error) => WireError::Unreadable(error),
    }
}

/// `target_session_attrs`: after a failover, the primary is the one that takes writes.
async fn require_kind(target: &Target, connection: &mut Connection) -> Result<()> {
    let wanted = match target.config.get_target_session_attrs() {
        TargetSessionAttrs::ReadWrite => "off",
        TargetSessionAttrs::ReadOnly => "on",
        _ => return Ok(()),
    };
    let statement = connection
        .batch()
        .run_and_prepare(String::new(), "SELECT current_setting('transaction_read_only')")
        .await?;
    let mut batch = connection.batch();
    batch.query(&statement, &[])?;
    let answer = batch.run().await?.pop().unwrap_or_default();
    if answer.rows.first().is_some_and(|row| row.get::<_, &str>(0) == wanted) {
        return Ok(());
    }
    Err(WireError::SignIn(
        "the server is not of the kind that target_session_attrs asks for".into(),
    ))
}
