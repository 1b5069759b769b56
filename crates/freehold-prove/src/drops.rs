//! Abandoned requests: the client disconnects at any byte, or the future is dropped at any await or after a
//! time. In any case a batch must be written completely or not at all, and the next borrower of the
//! connection, another tenant, must find nothing of it.

use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use freehold::{Error, Freehold, TenantContext};

use crate::wire;
use crate::worker::{Ask, Batch, Worker};

/// Rows of a batch.
pub(crate) const PARTS: i64 = 3;

const INSERT: &str =
    "INSERT INTO dropped (worker, batch, part, tag, body) VALUES ($1, $2, $3, $4, $5)";

/// How long to wait for a future before it is dropped.
#[derive(Clone, Copy)]
enum Patience {
    Polls(usize),
    Time(Duration),
}

/// A batch that is being sent, with all that its future needs: it is dropped with it.
struct Parcel {
    worker: i32,
    batch: i32,
    tag: i64,
    body: String,
    /// How it ends if it is not dropped.
    ending: usize,
    /// Contains a new text, which has to be prepared.
    unseen: bool,
}

impl Worker {
    /// The number of a new batch.
    fn begin_batch(&mut self, ask: &Ask) -> i32 {
        self.batches.push(Batch { tenant: ask.tenant, acknowledged: false });
        i32::try_from(self.batches.len() - 1).expect("a run has fewer batches than that")
    }

    fn acknowledge(&mut self, batch: i32) {
        self.batches[batch as usize].acknowledged = true;
    }

    pub(crate) async fn http_dropped(&mut self, ask: &Ask) {
        let batch = self.dice.percent(60).then(|| self.begin_batch(ask));
        let headers = self.authorization(ask);
        let request = match batch {
            Some(batch) => {
                wire::request("POST", "/v1/data/dropped", &headers, &self.parts(ask, batch))
            }
            None => wire::request("GET", "/v1/data/canaries?order=body.desc", &headers, ""),
        };
        // A third of the clients disconnect before the request is complete, the others while it is processed.
        let bytes = match self.dice.below(3) {
            0 => self.dice.below(request.len()),
            _ => request.len(),
        };
        let patience = Duration::from_micros(self.dice.below(2000) as u64);
        let service = self.dice.below(self.wires.len());
        match self.wires[service].abandon(&request, bytes, patience).await {
            Ok(None) => self.cancelled(ask),
            Ok(Some(answer)) => {
                self.look_through(ask, &answer.bytes);
                if !answer.is_success() {
                    return self.refused(ask, &answer);
                }
                self.served(ask);
                if let Some(batch) = batch {
                    self.acknowledge(batch);
                }
            }
            Err(error) => self.fault(ask, &format!("no answer came: {error}")),
        }
    }

    fn parts(&self, ask: &Ask, batch: i32) -> String {
        let mark = &self.resident(ask).mark;
        let (worker, tag, text) = (self.number, mark.tag, &mark.text);
        let mut body = "[".to_owned();
        for part in 0..PARTS {
            let comma = if part == 0 { "" } else { "," };
            let _ = write!(
                body,
                r#"{comma}{{"worker":{worker},"batch":{batch},"part":{part},"tag":{tag},"body":"{text} {batch}"}}"#
            );
        }
        body.push(']');
        body
    }

    pub(crate) async fn library_dropped(&mut self, ask: &Ask) {
        let polls = self.dice.between(1, 8);
        self.drop_somewhere(ask, Patience::Polls(polls)).await;
    }

    pub(crate) async fn library_timed_out(&mut self, ask: &Ask) {
        // The runtime's clock has a resolution of milliseconds; a shorter time drops at the first await.
        let time = Duration::from_micros(self.dice.below(4000) as u64);
        self.drop_somewhere(ask, Patience::Time(time)).await;
    }

    async fn drop_somewhere(&mut self, ask: &Ask, patience: Patience) {
        let handle = self.handle();
        let Some(context) = self.context(ask, &handle).await else { return };
        if self.dice.percent(4) {
            // Long enough that the query has to be cancelled.
            return match wait_for(patience, doze(handle, context)).await {
                None => self.cancelled(ask),
                Some(Ok(())) => self.served(ask),
                Some(Err(error)) => self.failed(ask, &error),
            };
        }
        let batch = self.begin_batch(ask);
        let mark = &self.resident(ask).mark;
        let (tag, body) = (mark.tag, format!("{} {batch}", mark.text));
        let (worker, ending) = (self.number, self.dice.below(3));
        let unseen = self.dice.percent(10);
        let parcel = Parcel { worker, batch, tag, body, ending, unseen };
        match wait_for(patience, deliver(handle, context, parcel)).await {
            None => self.cancelled(ask),
            Some(Ok(())) => {
                self.served(ask);
                if ending < 2 {
                    self.acknowledge(batch);
                }
            }
            Some(Err(error)) => self.failed(ask, &error),
        }
    }
}

async fn deliver(handle: Freehold, context: TenantContext, parcel: Parcel) -> Result<(), Error> {
    let Parcel { worker, batch, tag, body, ending, unseen } = parcel;
    let comment = if unseen { format!(" -- {worker}.{batch}") } else { String::new() };
    let insert = format!("{INSERT}{comment}");
    let mut tx = handle.begin(&context).await?;
    for part in 0..PARTS as i32 - 1 {
        tx.execute(&insert, &[&worker, &batch, &part, &tag, &body]).await?;
    }
    let last = PARTS as i32 - 1;
    match ending {
        0 => {
            tx.execute(&insert, &[&worker, &batch, &last, &tag, &body]).await?;
            tx.commit().await
        }
        1 => tx.query_and_commit(&insert, &[&worker, &batch, &last, &tag, &body]).await.map(drop),
        _ => tx.rollback().await,
    }
}

async fn doze(handle: Freehold, context: TenantContext) -> Result<(), Error> {
    handle.query(&context, "SELECT pg_sleep(0.06)", &[]).await.map(drop)
}

async fn wait_for<T>(patience: Patience, future: impl Future<Output = T>) -> Option<T> {
    match patience {
        Patience::Polls(polls) => drop_after_polls(polls, future).await,
        Patience::Time(time) => tokio::time::timeout(time, future).await.ok(),
    }
}

/// Polls a future a number of times and then drops it, finished or not.
async fn drop_after_polls<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|context| {
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if polled >= polls => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
