//! Sends letters: by SMTP, to a hook, or into the log. Which letters wait, and when one is tried again,
//! is not decided here. No error tells what a letter says: it may hold a token.

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

/// What a letter may take in all. A mail server that answers at all does so within a few seconds, and
/// who does not should not hold up the letters behind.
const SEND_MAX: Duration = Duration::from_secs(20);

/// Who takes letters.
pub enum Transport {
    Smtp(Box<Smtp>),
    Hook(Box<Hook>),
    Log(Log),
}

impl Transport {
    /// None if letters are off.
    pub fn new(settings: &MailSettings) -> Result<Option<Transport>, String> {
        settings.public_url()?;
        Ok(Some(match settings.mail {
            MailMode::Off => return Ok(None),
            MailMode::Smtp => Transport::Smtp(Box::new(Smtp::new(settings)?)),
            MailMode::Hook => Transport::Hook(Box::new(Hook::new(settings)?)),
            MailMode::Log => Transport::Log(Log::new(settings)?),
        }))
    }

    /// Sends a letter. After an error it may have been sent all the same, if the answer was lost.
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

/// A letter was not sent. What is said may be shown to operators and be kept: it holds neither the
/// letter's text nor a secret.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SendError {
    /// Whether this letter will never be taken, so that it need not be tried again.
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

/// As it may stand in a header or a line of a file.
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
        // A malformed one is told of although nothing uses it yet.
        let off = MailSettings { public_url: Some("x".to_owned()), ..settings(MailMode::Off) };
        assert!(Transport::new(&off).is_err());
    }
}
