//! One connection to PostgreSQL, at the level of protocol messages.
//!
//! A driver that ends every statement with a Sync of its own needs an answer, a write and a wake-up for each
//! of BEGIN, context, statement and COMMIT. Here the messages of a transaction form one [`Batch`] with one
//! Sync, and without a BEGIN they are one implicit transaction: all of them, or none. For poolers, statements
//! can be sent without names, still in one round trip.
//!
//! No task runs behind a connection: its owner moves its bytes. A future that is dropped in the middle leaves
//! whole messages in the outbox and a count of outstanding answers, so that the next user, or the pool, knows
//! what to skip. `tx` decides what may be sent when; this module knows neither tenants nor transactions.
//!
//! tokio-postgres ends each message with a Sync. One batch with one Sync is 1.4 times as fast
//! (docs/benchmarks.md). tokio-postgres remains in use for set-up and LISTEN, where convenience counts.

mod batch;
pub(crate) mod client;
mod connect;
pub(crate) mod connect_failure;
mod error;
pub(crate) mod lease;
pub(crate) mod params;
mod row;
pub(crate) mod settings;
mod statement;
pub(crate) mod tls;
mod types;

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use fallible_iterator::FallibleIterator as _;
use futures_util::task::noop_waker_ref;
use postgres_protocol::Oid;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use postgres_types::Type;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use crate::error::DbError;
use crate::model::budget::{Excess, Share};
use crate::wire::params::Params;
use crate::wire::tls::Target;

pub(crate) use self::batch::{Batch, Failure};
use self::batch::{Step, StepAnswer};
pub(crate) use self::connect::connect;
pub(crate) use self::error::WireError;
pub use self::row::{Column, Row, RowIndex};
pub(crate) use self::statement::Statement;

type Result<T, E = WireError> = std::result::Result<T, E>;

/// A socket, with or without TLS.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Whether the session is in a transaction, according to the latest answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionStatus {
    Idle,
    Open,
    /// A statement failed: only a rollback is possible.
    Failed,
}

pub(crate) struct Connection {
    socket: Box<dyn Socket>,
    /// Whole messages that were not sent yet.
    outbox: BytesMut,
    inbox: BytesMut,
    /// Batches that were sent and whose end has not been read yet.
    unanswered: usize,
    /// The socket may still buffer the latest write, as TLS does.
    unflushed: bool,
    /// Remaining bytes of a row that is being skipped.
    skipping: usize,
    /// A large row was read into the inbox and shares its memory.
    swollen: bool,
    status: TransactionStatus,
    /// A transfer failed: what the server has received is unknown.
    broken: bool,
    backend: Backend,
    /// The settings that the server reports, at the session's start and now.
    settings: Settings,
    /// Types that are not PostgreSQL's own.
    types: HashMap<Oid, Type>,
}

/// Identifies the server's process, to cancel its query.
#[derive(Clone, Copy)]
struct Backend {
    pid: i32,
    secret: i32,
}

#[derive(Default)]
struct Settings {
    at_start: HashMap<String, String>,
    /// Settings that differ from the session's start.
    changed: HashMap<String, String>,
}

/// The answer to one statement of a batch.
#[derive(Debug, Default)]
pub struct Answer {
    /// The rows that it returned.
    pub rows: Vec<Row>,
    /// How many rows it changed or returned.
    pub affected: u64,
}

/// Asks the server to cancel a connection's query.
#[derive(Clone)]
pub(crate) struct Canceller {
    target: Arc<Target>,
    backend: Backend,
}

impl Canceller {
    /// Returns once the server has sent the signal to the backend.
    pub(crate) async fn cancel(&self) -> Result<()> {
        connect::cancel(&self.target, self.backend).await
    }
}

impl Connection {
    /// A connection over a socket on which nothing was sent yet.
    fn over(socket: Box<dyn Socket>) -> Connection {
        Connection {
            socket,
            outbox: BytesMut::with_capacity(4096),
            inbox: BytesMut::with_capacity(16 * 1024),
            unanswered: 0,
            unflushed: false,
            skipping: 0,
            swollen: false,
            status: TransactionStatus::Idle,
            broken: false,
            backend: Backend { pid: 0, secret: 0 },
            settings: Settings::default(),
            types: HashMap::new(),
        }
    }

    pub(crate) fn status(&self) -> TransactionStatus {
        self.status
    }

    /// The process id of the backend; behind a pooler, one that the pooler invented.
    pub(crate) fn backend_pid(&self) -> i32 {
        self.backend.pid
    }

    pub(crate) fn canceller(&self, target: &Arc<Target>) -> Canceller {
        Canceller { target: Arc::clone(target), backend: self.backend }
    }

    /// Whether answers are outstanding, or messages were not sent yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.unanswered > 0 || !self.outbox.is_empty()
    }

    /// False for a connection that must not be used again: it failed, the server closed it, or the session's
    /// settings differ from its start. Costs no round trip.
    pub(crate) fn is_reusable(&mut self) -> bool {
        if self.broken {
            return false;
        }
        let mut context = Context::from_waker(noop_waker_ref());
        if let Poll::Ready(Err(_)) = self.poll_transfer(&mut context) {
            self.broken = true;
            return false;
        }
        // The server may send messages unasked, but none that ends the session.
        while let Ok(Some(message)) = Message::parse(&mut self.inbox) {
            if !self.is_aside(&message) {
                self.broken = true;
                return false;
            }
        }
        self.settings.changed.is_empty()
    }

    pub(crate) fn batch(&mut self) -> Batch<'_> {
        Batch::new(self)
    }

    /// A batch that first closes these statements. They stay with the caller until the batch is sent.
    pub(crate) fn batch_that_closes<'c>(
        &'c mut self,
        statements: &'c mut Vec<Statement>,
    ) -> Result<Batch<'c>> {
        let mut batch = Batch::new(self);
        batch.close(statements)?;
        Ok(batch)
    }

    /// Runs statements without parameters as one simple query, and ignores their rows.
    pub(crate) async fn batch_execute(&mut self, sql: &str) -> Result<()> {
        frontend::query(sql, &mut self.outbox).map_err(WireError::Unsendable)?;
        self.unanswered += 1;
        self.read_answers(&[]).await.map(drop)
    }

    /// Runs a statement in two round trips, without keeping it: for set-up work.
    pub(crate) async fn query_once(&mut self, sql: &str, params: Params<'_>) -> Result<Vec<Row>> {
        let statement = self.batch().run_and_prepare(String::new(), sql).await?;
        let mut batch = self.batch();
        batch.query(&statement, params)?;
        Ok(batch.run().await?.pop().unwrap_or_default().rows)
    }

    /// Marks the connection as never to be used again.
    pub(crate) fn condemn(&mut self) {
        self.broken = true;
    }

    /// Reads and discards the answers to batches whose callers are gone.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        while self.unanswered > 0 {
            self.skip_batch().await?;
        }
        Ok(())
    }

    async fn skip_batch(&mut self) -> Result<()> {
        while !matches!(
            self.receive(Keep::Nothing).await?,
            Received::Message(Message::ReadyForQuery(_))
        ) {}
        Ok(())
    }

    /// The answers to the latest batch in the outbox.
    async fn read_answers(&mut self, steps: &[Step]) -> Result<Vec<StepAnswer>> {
        self.read_section(steps, 0, None).await.map_err(|failure| failure.error)
    }

    /// The answers to messages up to a Sync; `later` steps of the same batch follow.
    async fn read_section(
        &mut self,
        steps: &[Step],
        later: usize,
        share: Option<&Share>,
    ) -> Result<Vec<StepAnswer>, Failure> {
        let mut answers: Vec<StepAnswer> = Vec::with_capacity(steps.len());
        let mut taken = 0;
        let bound = share.map(|share| Bound { share, taken: &mut taken });
        let read = self.read_into(&mut answers, steps, later, bound).await;
        match read {
            Ok(()) => Ok(answers),
            Err(error) => {
                if let Some(share) = share {
                    share.give_back(taken);
                }
                Err(Failure { step: answers.len(), error })
            }
        }
    }

    async fn read_into(
        &mut self,
        answers: &mut Vec<StepAnswer>,
        steps: &[Step],
        later: usize,
        mut bound: Option<Bound<'_>>,
    ) -> Result<()> {
        while self.unanswered > 1 + later {
            self.skip_batch().await?;
        }
        let mut current = StepAnswer::default();
        let mut failure: Option<Box<DbError>> = None;
        loop {
            let keep = match &mut bound {
                _ if !matches!(steps.get(answers.len()), Some(Step::Rows)) => Keep::Nothing,
                Some(bound) => Keep::Bounded(bound),
                None => Keep::All,
            };
            let message = match self.receive(keep).await {
                Ok(Received::Message(message)) => message,
                // The next reader skips the rest of the answer.
                Ok(Received::Excess(excess)) => return Err(WireError::Excess(excess)),
                // A server that ends a session sends the reason before it closes the connection.
                Err(lost) => return Err(failure.map_or(lost, WireError::Database)),
            };
            match message {
                Message::DataRow(body) => current.rows.push(body),
                Message::CommandComplete(body) => {
                    current.affected = affected(body.tag().map_err(WireError::Unreadable)?);
                    answers.push(std::mem::take(&mut current));
                }
                Message::EmptyQueryResponse => answers.push(std::mem::take(&mut current)),
                Message::ParameterDescription(body) => {
                    current.parameters =
                        body.parameters().collect().map_err(WireError::Unreadable)?;
                }
                Message::RowDescription(body) => {
                    let mut fields = Vec::new();
                    let mut described = body.fields();
                    while let Some(field) = described.next().map_err(WireError::Unreadable)? {
                        fields.push((field.name().to_owned(), field.type_oid()));
                    }
                    current.fields = Some(fields);
                    if matches!(steps.get(answers.len()), Some(Step::Prepare)) {
                        answers.push(std::mem::take(&mut current));
                    }
                }
                Message::NoData => {
                    current.fields = Some(Vec::new());
                    if matches!(steps.get(answers.len()), Some(Step::Prepare)) {
                        answers.push(std::mem::take(&mut current));
                    }
                }
                Message::ErrorResponse(body) => {
                    // The first error is the cause. A second one before the end of the batch is not possible.
                    let error = DbError::parse(&body).map_err(WireError::Unreadable)?;
                    failure.get_or_insert_with(|| Box::new(error));
                }
                Message::ReadyForQuery(_) => {
                    return match failure {
                        None => Ok(()),
                        Some(error) => Err(WireError::Database(error)),
                    };
                }
                Message::ParseComplete
                | Message::BindComplete
                | Message::CloseComplete
                | Message::PortalSuspended => {}
                _ => return Err(self.confused()),
            }
        }
    }

    fn confused(&mut self) -> WireError {
        self.broken = true;
        WireError::Unreadable(io::Error::new(
            io::ErrorKind::InvalidData,
            "the server sent what was not asked for",
        ))
    }

    /// The next message that is an answer; outstanding messages are sent meanwhile. A row that is not to be
    /// kept is never read into memory as a whole.
    async fn receive(&mut self, mut keep: Keep<'_, '_>) -> Result<Received> {
        let mut is_judged = false;
        loop {
            if self.skipping > 0 {
                let now = self.skipping.min(self.inbox.len());
                self.inbox.advance(now);
                self.skipping -= now;
                if self.skipping > 0 {
                    self.transfer().await?;
                }
                continue;
            }
            if !is_judged && let Some(row) = RowAhead::find(&self.inbox) {
                match &mut keep {
                    Keep::All => {}
                    Keep::Nothing => {
                        self.skipping = row.bytes;
                        continue;
                    }
                    Keep::Bounded(bound) => {
                        if let Err(excess) = bound.take(row.weight()) {
                            self.skipping = row.bytes;
                            return Ok(Received::Excess(excess));
                        }
                    }
                }
                is_judged = true;
                // Exactly as much as the row needs, not the next power of two.
                self.inbox.reserve(row.bytes.saturating_sub(self.inbox.len()));
                self.swollen |= row.bytes > BUFFER_BYTES_KEPT;
            }
            let message = match Message::parse(&mut self.inbox) {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.transfer().await?;
                    continue;
                }
                Err(error) => {
                    self.broken = true;
                    return Err(WireError::Unreadable(error));
                }
            };
            if self.is_aside(&message) {
                continue;
            }
            if let Message::ReadyForQuery(body) = &message {
                self.unanswered = self.unanswered.saturating_sub(1);
                self.status = match body.status() {
                    b'I' => TransactionStatus::Idle,
                    b'T' => TransactionStatus::Open,
                    _ => TransactionStatus::Failed,
                };
                if self.swollen && self.inbox.is_empty() {
                    self.inbox = BytesMut::new();
                    self.swollen = false;
                }
            }
            return Ok(Received::Message(message));
        }
    }

    /// [`receive`](Self::receive) for any message.
    async fn next_message(&mut self) -> Result<Message> {
        match self.receive(Keep::All).await? {
            Received::Message(message) => Ok(message),
            Received::Excess(excess) => Err(WireError::Excess(excess)),
        }
    }

    async fn transfer(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_transfer(cx)).await.map_err(|error| {
            self.broken = true;
            WireError::Lost(error)
        })
    }

    /// Messages that the server may send at any time. Settings that it reports are recorded.
    fn is_aside(&mut self, message: &Message) -> bool {
        match message {
            Message::NoticeResponse(_) | Message::NotificationResponse(_) => true,
            Message::ParameterStatus(body) => {
                if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                    self.settings.hear(name, value);
                }
                true
            }
            _ => false,
        }
    }

    /// Writes as much as possible; ready when something was read.
    fn poll_transfer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wrote = !self.outbox.is_empty();
        self.unflushed |= wrote;
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.outbox)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => self.outbox.advance(count),
                Poll::Pending => break,
            }
        }
        if wrote && self.outbox.is_empty() && self.outbox.capacity() > BUFFER_BYTES_KEPT {
            self.outbox = BytesMut::new();
        }
        if self.unflushed && Pin::new(&mut self.socket).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        let read = pin!(self.socket.read_buf(&mut self.inbox));
        match std::task::ready!(read.poll(cx))? {
            0 => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection",
            ))),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// What to do with the rows that are read.
enum Keep<'b, 's> {
    All,
    Bounded(&'b mut Bound<'s>),
    Nothing,
}

/// The memory that rows may take.
struct Bound<'s> {
    share: &'s Share,
    /// How much of it these rows have taken.
    taken: &'s mut u64,
}

impl Bound<'_> {
    fn take(&mut self, bytes: u64) -> Result<(), Excess> {
        self.share.try_take(bytes)?;
        *self.taken += bytes;
        Ok(())
    }
}

enum Received {
    Message(Message),
    /// A row that exceeds the bound.
    Excess(Excess),
}

/// A row whose header has arrived.
struct RowAhead {
    /// The length of the whole message.
    bytes: usize,
    columns: usize,
}

impl RowAhead {
    fn find(inbox: &[u8]) -> Option<RowAhead> {
        let [b'D', a, b, c, d, e, f, ..] = *inbox else { return None };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        Some(RowAhead { bytes: length + 1, columns: u16::from_be_bytes([e, f]).into() })
    }

    /// The memory that a [`Row`] takes. For small rows, most of it is overhead.
    fn weight(&self) -> u64 {
        let places = self.columns * size_of::<Option<std::ops::Range<usize>>>();
        (self.bytes + size_of::<Row>() + places) as u64
    }
}

/// How much memory an empty buffer keeps for its next use.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

impl Settings {
    fn hear(&mut self, name: &str, value: &str) {
        // Set by the server itself when it is promoted, and harmless to a session.
        if name == "in_hot_standby" {
            return;
        }
        if self.at_start.get(name).is_some_and(|first| first == value) {
            self.changed.remove(name);
        } else {
            self.changed.insert(name.to_owned(), value.to_owned());
        }
    }
}

impl Drop for Connection {
    /// Sends Terminate, if that needs no waiting.
    fn drop(&mut self) {
        if !self.broken {
            frontend::terminate(&mut self.outbox);
            let mut context = Context::from_waker(noop_waker_ref());
            let _ = self.poll_transfer(&mut context);
        }
    }
}

/// The number of rows in a command tag: `INSERT 0 3`, `SELECT 20`.
fn affected(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Timeout for connecting and signing in.
const CONNECT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
