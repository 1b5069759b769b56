//! Delivers messages as long as it lives: when one is added to the outbox, and each second for those that are
//! tried again.

use std::sync::Arc;
use std::time::Duration;

use freehold::control::mail::{Delivery, Undelivered};
use freehold::control::sessions::SignIn;
use freehold::{BackgroundTask, OperatorContext, Trouble};
use tokio::time::MissedTickBehavior;

use super::Transport;

/// How many messages this server sends at a time, so that one slow mailbox delays no other.
const HANDS: usize = 4;
/// The polling interval where LISTEN is not possible, and for messages that are tried again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pause after the database could not be queried.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs until it is dropped.
pub(crate) struct Postman(#[expect(dead_code, reason = "dropped with it")] Vec<BackgroundTask>);

impl Postman {
    pub(crate) fn start(sign_in: &Arc<SignIn>, transport: Transport) -> Postman {
        let transport = Arc::new(transport);
        let tasks = sign_in.freehold().tasks();
        let counted = Arc::clone(sign_in);
        let mut running = vec![tasks.spawn("mail_metrics", move || tell(Arc::clone(&counted)))];
        for _ in 0..HANDS {
            let (sign_in, transport) = (Arc::clone(sign_in), Arc::clone(&transport));
            let deliver = move || deliver(Arc::clone(&sign_in), Arc::clone(&transport));
            running.push(tasks.spawn("mail_delivery", deliver));
        }
        Postman(running)
    }
}

async fn deliver(sign_in: Arc<SignIn>, transport: Arc<Transport>) {
    let mut changes = sign_in.freehold().mail_changes();
    let trouble = Trouble::default();
    loop {
        // Marked as seen before looking, so that messages that are added meanwhile are looked for again.
        changes.borrow_and_update();
        let delivery = sign_in
            .deliver_letter(async |message| {
                transport.send(message).await.map_err(|error| Undelivered {
                    permanent: error.permanent,
                    error: error.to_string(),
                })
            })
            .await;
        trouble.note(&delivery, "letters cannot be taken up; they wait");
        let outcome = match delivery {
            Ok(Delivery::Nothing) => {
                let _ = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
                continue;
            }
            Ok(Delivery::Sent) => "sent",
            Ok(Delivery::Dropped) => "dropped",
            Ok(Delivery::Delayed) => "delayed",
            Ok(Delivery::Failed) => "failed",
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        metrics::counter!("freehold_letters_total", "outcome" => outcome).increment(1);
    }
}

/// Reports to Prometheus how many messages wait, and how many of the last day were given up.
async fn tell(sign_in: Arc<SignIn>) {
    let context = OperatorContext::system("metrics of letters");
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Ok((waiting, failed)) = sign_in.freehold().outbox().count(&context).await {
            metrics::gauge!("freehold_letters_waiting").set(waiting as f64);
            metrics::gauge!("freehold_letters_failed").set(failed as f64);
        }
    }
}
