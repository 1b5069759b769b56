//! Messages to a mail server. The stages are our own rather than lettre's, since the meaning of an answer
//! depends on the stage: a refused recipient is final for a message, a refused password is not.
//!
//! Each message has a connection of its own. Messages are few, and the server may have closed an idle
//! connection, which only shows when a message fails.

use std::error::Error as _;
use std::time::Duration;

use freehold::Message;
use futures_util::FutureExt as _;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, Certificate, TlsParameters, TlsParametersBuilder,
};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::{Category, Response};
use lettre::{Address, Message as Letter};

use super::{SendError, one_line};
use crate::config::{MailSettings, SmtpServer, SmtpTls};

/// How long a server may take to answer QUIT, after it has accepted the message.
const QUIT_MAX: Duration = Duration::from_secs(1);
/// The most characters of a server's answer that are reported.
const WORDS_CHARS_MAX: usize = 200;

const OUT_OF_TURN: &str =
    "the mail server gives answers that were not asked for, or somebody in between does";

/// A mail server that accepts messages.
pub struct Smtp {
    from: Mailbox,
    hello: ClientId,
    server: SmtpServer,
    tls: TlsParameters,
}

/// The stage of a delivery.
#[derive(Clone, Copy)]
enum Stage {
    Connect,
    StartTls,
    SignIn,
    Sender,
    Recipient,
    Content,
}

impl Smtp {
    pub(super) fn new(settings: &MailSettings) -> Result<Smtp, String> {
        let from = settings.from()?;
        let (server, authorities) = settings.smtp()?;
        let mut tls = TlsParametersBuilder::new(server.host.clone());
        if let Some(path) = authorities {
            let told = |what: String| format!("MAIL_SMTP_CA: {}: {what}", path.display());
            let text = std::fs::read(&path).map_err(|error| told(error.to_string()))?;
            // The parser accepts a file without certificates as an empty list.
            if !String::from_utf8_lossy(&text).contains("-----BEGIN CERTIFICATE-----") {
                return Err(told("must hold certificates, as PEM".to_owned()));
            }
            let certificate = Certificate::from_pem(&text)
                .map_err(|_| told("must hold certificates, as PEM".to_owned()))?;
            tls = tls.add_root_certificate(certificate);
        }
        let tls = tls.build().map_err(|error| format!("MAIL_SMTP_CA: {error}"))?;
        let hello = ClientId::Domain(from.email.domain().to_owned());
        Ok(Smtp { from, hello, server, tls })
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), SendError> {
        let (to, letter) = self.write(message)?;
        let mut connection = self.connect().await?;
        let failed = |stage| move |error| self.failed(stage, &error);
        let sender = Mail::new(Some(self.from.email.clone()), Vec::new());
        let answer = connection.command(sender).await.map_err(failed(Stage::Sender))?;
        expect(250, answer)?;
        let recipient = Rcpt::new(to, Vec::new());
        let answer = connection.command(recipient).await.map_err(failed(Stage::Recipient))?;
        // 251 means that the server forwards.
        if !answer.has_code(251) {
            expect(250, answer)?;
        }
        let answer = connection.command(Data).await.map_err(failed(Stage::Content))?;
        expect(354, answer)?;
        // The end of its last line is part of the sequence with which lettre ends a message.
        let letter = letter.strip_suffix(b"\r\n").unwrap_or(&letter);
        let answer = connection.message(letter).await.map_err(failed(Stage::Content))?;
        expect(250, answer)?;
        // The message has been accepted, and nothing after that may change the result, not even the timeout.
        tokio::spawn(async move {
            let _ = tokio::time::timeout(QUIT_MAX, connection.quit()).await;
        });
        Ok(())
    }

    /// A connection that is encrypted and signed in, as far as the settings require.
    async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let place = (self.server.host.as_str(), self.server.port);
        let implicit = (self.server.tls == SmtpTls::Implicit).then(|| self.tls.clone());
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(place, None, &self.hello, implicit, None)
                .await
                .map_err(|error| self.failed(Stage::Connect, &error))?;
        if self.server.tls == SmtpTls::StartTls {
            if !connection.can_starttls() {
                let what = "the mail server offers no STARTTLS, and nothing is sent in plain text";
                return Err(SendError::passing(what));
            }
            connection
                .starttls(self.tls.clone(), &self.hello)
                .await
                .map_err(|error| self.failed(Stage::StartTls, &error))?;
            // Plain text that arrived after the answer to STARTTLS is still in lettre's buffer, and would be
            // read as answers over TLS. An injected answer is detected by the codes.
            if connection.read_response().now_or_never().is_some() {
                return Err(SendError::passing(OUT_OF_TURN));
            }
        }
        if let Some((user, password)) = &self.server.credentials {
            let credentials = Credentials::new(user.clone(), password.clone());
            let answer = connection.auth(DEFAULT_MECHANISMS, &credentials).await;
            expect(235, answer.map_err(|error| self.failed(Stage::SignIn, &error))?)?;
        }
        Ok(connection)
    }

    fn write(&self, message: &Message) -> Result<(Address, Vec<u8>), SendError> {
        let to: Option<Address> = message.to.parse().ok();
        let plain = message.to.bytes().all(|byte| byte.is_ascii_graphic());
        let Some(to) = to.filter(|_| plain) else {
            return Err(SendError::permanent("the address is none that a letter can be sent to"));
        };
        let letter = self
            .builder(message)
            .to(Mailbox::new(None, to.clone()))
            .body(message.text.clone())
            .map_err(|error| SendError::permanent(format!("no letter can be made: {error}")))?;
        Ok((to, letter.formatted()))
    }

    fn builder(&self, message: &Message) -> MessageBuilder {
        let id = format!("<{}@{}>", message.id, self.from.email.domain());
        // No automatic replies, such as absence notes, are wanted (RFC 3834).
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        Letter::builder()
            .from(self.from.clone())
            .subject(one_line(&message.subject))
            // The same at every attempt, by which mailboxes recognise a repetition.
            .message_id(Some(id))
            .date_now()
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN)
    }

    fn failed(&self, stage: Stage, error: &Error) -> SendError {
        let what = match stage {
            Stage::Connect => "the mail server cannot be spoken to",
            Stage::StartTls => "the mail server cannot be spoken to by TLS",
            Stage::SignIn => "the mail server does not take user and password of MAIL_SMTP_URL",
            Stage::Sender => "the mail server does not take letters from MAIL_FROM",
            Stage::Recipient => "the mail server does not take letters to this address",
            Stage::Content => "the mail server does not take this letter",
        };
        let Some(code) = error.status() else {
            // Our own error or one of the network, which contains nothing that the server said.
            let cause = if error.is_response() {
                "it does not speak SMTP".to_owned()
            } else {
                error.to_string()
            };
            return SendError::passing(format!("{what}: {}", one_line(&cause)));
        };
        let words = error.source().map(ToString::to_string).unwrap_or_default();
        let told = match stage {
            // The server has been sent secrets, which its answer might repeat.
            Stage::SignIn | Stage::Content => enhanced_code(&words).to_owned(),
            _ => self.words(&words),
        };
        let what = format!("{what}: {code} {told}").trim_end().to_owned();
        // x5x is about the mailbox or the message, others are about the session (RFC 5321, 4.2.1).
        let about_the_letter = error.is_permanent() && code.category == Category::MailSystem;
        match stage {
            Stage::Recipient | Stage::Content if about_the_letter => SendError::permanent(what),
            _ => SendError::passing(what),
        }
    }

    /// A server's answer in a form that may be shown.
    fn words(&self, words: &str) -> String {
        let password = self.server.credentials.as_ref().map(|(_, password)| password.as_str());
        if password.is_some_and(|password| words.contains(password)) {
            return enhanced_code(words).to_owned();
        }
        one_line(words).trim().chars().take(WORDS_CHARS_MAX).collect()
    }
}

/// A positive answer must have the code of its command (RFC 5321, 4.3.2); otherwise it belongs to another
/// command.
fn expect(code: u16, answer: Response) -> Result<(), SendError> {
    if answer.has_code(code) { Ok(()) } else { Err(SendError::passing(OUT_OF_TURN)) }
}

/// `5.7.1` and the like, with which servers begin their answers (RFC 3463).
fn enhanced_code(words: &str) -> &str {
    let first = words.split_whitespace().next().unwrap_or_default();
    let parts = || first.split('.');
    let number =
        |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if parts().count() == 3 && parts().all(number) { first } else { "" }
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;
    use crate::config::MailMode;

    fn smtp(url: &str) -> Smtp {
        let settings = MailSettings {
            mail: MailMode::Smtp,
            mail_from: Some("Acme <post@acme.example>".to_owned()),
            mail_smtp_url: Some(url.to_owned()),
            ..MailSettings::default()
        };
        Smtp::new(&settings).unwrap()
    }

    #[test]
    fn a_letter_names_itself_alike_at_each_attempt_and_says_that_it_is_automatic() {
        let smtp = smtp("smtp://localhost?tls=none");
        let (to, letter) = smtp.write(&message("ann@globex.example", "Hello")).unwrap();
        let letter = String::from_utf8(letter).unwrap();
        assert_eq!(to.to_string(), "ann@globex.example");
        for line in [
            "From: Acme <post@acme.example>",
            "To: ann@globex.example",
            "Subject: Hello",
            "Message-ID: <00000000-0000-0000-0000-000000000000@acme.example>",
            "Auto-Submitted: auto-generated",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(letter.lines().any(|known| known == line), "{line}:\n{letter}");
        }
        assert!(letter.contains("\r\nDate: ") && letter.is_ascii(), "{letter}");
        assert!(letter.ends_with("\r\n\r\nOpen:\r\n\r\nhttps://app.example/reset#fhr_hush\r\n"));
    }

    #[test]
    fn an_address_that_is_none_is_the_end_of_a_letter() {
        let smtp = smtp("smtp://localhost?tls=none");
        for to in [
            "",
            "ann",
            "a@b@c d",
            "ann@globex.example\r\nBcc: x@y.example",
            "ä@globex.example",
            "ann@globex.example>",
        ] {
            let error = smtp.write(&message(to, "Hello")).err().unwrap_or_else(|| panic!("{to}"));
            assert!(error.permanent, "{to}");
        }
    }

    #[test]
    fn a_servers_words_are_told_in_one_short_line_without_the_password() {
        let smtp = smtp("smtp://u:hush-hush@localhost?tls=none");
        assert_eq!(smtp.words("5.1.1 nobody\r\nhere\u{1b}[2J"), "5.1.1 nobody  here [2J");
        assert_eq!(smtp.words("5.7.1 you said hush-hush"), "5.7.1");
        assert_eq!(smtp.words(&"ä".repeat(1000)).chars().count(), 200);
        for (words, code) in [
            ("5.7.26 blocked", "5.7.26"),
            ("no", ""),
            ("", ""),
            ("5.7", ""),
            ("1.2.3.4 x", ""),
            ("5.a.b", ""),
        ] {
            assert_eq!(enhanced_code(words), code);
        }
    }

    #[test]
    fn a_file_of_authorities_holds_some() {
        let missing = MailSettings {
            mail: MailMode::Smtp,
            mail_from: Some("post@acme.example".to_owned()),
            mail_smtp_url: Some("smtps://u:hush@mx.example".to_owned()),
            mail_smtp_ca: Some("/no/ca.pem".to_owned()),
            ..MailSettings::default()
        };
        let error = Smtp::new(&missing).err().unwrap();
        assert!(error.starts_with("MAIL_SMTP_CA: /no/ca.pem: "), "{error}");
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").to_owned();
        let other = MailSettings { mail_smtp_ca: Some(manifest), ..missing };
        let error = Smtp::new(&other).err().unwrap();
        assert!(error.ends_with("must hold certificates, as PEM"), "{error}");
    }
}
