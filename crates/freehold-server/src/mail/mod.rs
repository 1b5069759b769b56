//! Sends messages: by SMTP, to a hook, or to the log. The library decides which messages wait and when one is
//! tried again. No error contains the text of a message, which may contain a token.

mod hook;
mod log;
mod postman;
mod smtp;

use std::time::Duration;

use freehold::Message;

use self::hook::Hook;
use self::log::Log;
pub(crate) use self::postman::Postman;
use self::smtp::Smtp;
use crate::config::{MailMode, MailSettings};

/// Timeout for one message. A mail server that answers at all does so within a few seconds, and one that does
/// not should not delay the messages behind.
const SEND_MAX: Duration = Duration::from_secs(20);

/// The recipient of messages.
pub enum Transport {
    Smtp(Box<Smtp>),
    Hook(Box<Hook>),
    Log(Log),
}

impl Transport {
    /// `None` if mail is off.
    pub fn new(settings: &MailSettings) -> Result<Option<Transport>, String> {
        settings.public_url()?;
        Ok(Some(match settings.mail {
            MailMode::Off => return Ok(None),
            MailMode::Smtp => Transport::Smtp(Box::new(Smtp::new(settings)?)),
            MailMode::Hook => Transport::Hook(Box::new(Hook::new(settings)?)),
            MailMode::Log => Transport::Log(Log::new(settings)?),
        }))
    }

    /// Sends a message. After an error it may have been sent nevertheless, if the answer was lost.
    pub async fn send(&self, message: &Message) -> Result<(), SendError> {
        self.send_within(message, SEND_MAX).await
    }

    /// [`send`](Self::send), with a time limit.
    pub async fn send_within(&self, message: &Message, limit: Duration) -> Result<(), SendError> {
        let sent = async {
            match self {
                Transport::Smtp(smtp) => smtp.send(message).await,
                Transport::Hook(hook) => hook.send(message).await,
                Transport::Log(log) => log.send(message).await,
            }
        };
        match tokio::time::timeout(limit, sent).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SendError::passing(format!("not sent within {limit:?}"))),
        }
    }
}

/// A message was not sent. The text may be shown to operators and stored: it contains neither the message nor
/// a secret.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SendError {
    /// Whether this message will never be accepted, so that it need not be tried again.
    pub permanent: bool,
    what: String,
}

impl SendError {
    fn permanent(what: impl Into<String>) -> SendError {
        SendError { permanent: true, what: what.into() }
    }

    fn passing(what: impl Into<String>) -> SendError {
        SendError { permanent: false, what: what.into() }
    }
}

/// A text in the form for a header or a line of a file.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use freehold::MailKind;
    use uuid::Uuid;

    use super::*;

    pub(super) fn message(to: &str, subject: &str) -> Message {
        Message {
            id: Uuid::nil(),
            kind: MailKind::Reset,
            to: to.to_owned(),
            subject: subject.to_owned(),
            text: "Open:\n\nhttps://app.example/reset#fhr_hush\n".to_owned(),
            link: Some("https://app.example/reset#fhr_hush".to_owned()),
            token: Some("fhr_hush".to_owned()),
            expires_at: None,
        }
    }

    #[test]
    fn a_transport_needs_what_its_mode_uses_and_nothing_else() {
        let settings = |mail| MailSettings { mail, ..MailSettings::default() };
        assert!(Transport::new(&settings(MailMode::Off)).unwrap().is_none());
        for mode in [MailMode::Smtp, MailMode::Hook, MailMode::Log] {
            let error = Transport::new(&settings(mode)).err().unwrap();
            assert!(error.contains("PUBLIC_URL"), "{error}");
        }
        let url = Some("https://app.example.com".to_owned());
        for (mode, told) in [(MailMode::Smtp, "MAIL_FROM"), (MailMode::Hook, "MAIL_HOOK_URL")] {
            let settings = MailSettings { public_url: url.clone(), ..settings(mode) };
            assert!(Transport::new(&settings).err().unwrap().contains(told));
        }
        let log = MailSettings { public_url: url, ..settings(MailMode::Log) };
        assert!(matches!(Transport::new(&log), Ok(Some(Transport::Log(_)))));
        // A malformed value is reported although the mode does not use it yet.
        let off = MailSettings { public_url: Some("x".to_owned()), ..settings(MailMode::Off) };
        assert!(Transport::new(&off).is_err());
    }
}
