//! How messages are sent, and where their links lead. A mode is checked with all settings that it uses;
//! settings that it does not use are ignored.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lettre::message::Mailbox;
use percent_encoding::percent_decode_str;

/// The length of the signature's hash.
const HOOK_SECRET_BYTES_MIN: usize = 32;

const SMTP_LIKE: &str = "MAIL_SMTP_URL must be like smtp://user:password@host:587 or smtps://user:password@host:465, \
     with what is neither letter nor digit in user and password written as %40 is for @";
const TLS_LIKE: &str = "MAIL_SMTP_URL: after `?` comes tls=required, which is so without it too, or tls=none for a server \
     on a loopback address, and nothing else";
const PLAIN_TEXT: &str = "MAIL_SMTP_URL: tls=none is for a server on a loopback address; to any other letters go by TLS: leave \
     it out, or say smtps://";
const OPPORTUNISTIC: &str = "MAIL_SMTP_URL: with tls=opportunistic, whoever stands in between decides whether letters go in plain \
     text: say tls=required or smtps://";
const HOOK_LIKE: &str = "MAIL_HOOK_URL must be like https://hooks.example.com/mail, without user and password; http:// is for \
     loopback addresses";
const PUBLIC_LIKE: &str = "PUBLIC_URL must be like https://app.example.com, with no path behind; http:// is for loopback addresses";

/// Letters to people: who sends them, and where their links lead.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Mail")]
pub struct MailSettings {
    /// How letters are sent: off, smtp, hook (a POST to a service of yours), or log, for development alone:
    /// it sends none, and whoever reads the log can use the links in it
    #[arg(long, env = "MAIL", value_name = "MAIL", default_value = "off")]
    pub mail: MailMode,

    /// Where people reach this service, for the links in letters: https://app.example.com; needed unless
    /// MAIL is off
    #[arg(long, env = "PUBLIC_URL", value_name = "PUBLIC_URL")]
    pub public_url: Option<String>,

    /// Whom letters are from, with MAIL=smtp: Acme <no-reply@acme.example>
    #[arg(long, env = "MAIL_FROM", value_name = "MAIL_FROM")]
    pub mail_from: Option<String>,

    /// The server that takes letters, with MAIL=smtp: smtps://user:password@host:465 or
    /// smtp://user:password@host:587, both by TLS; ?tls=none for one on a loopback address
    // Checked in `smtp`, because clap would print a malformed value.
    #[arg(long, env = "MAIL_SMTP_URL", value_name = "MAIL_SMTP_URL", hide_env_values = true)]
    pub mail_smtp_url: Option<String>,

    /// A file of certificates, as PEM, to trust for that server besides the system's
    #[arg(long, env = "MAIL_SMTP_CA", value_name = "MAIL_SMTP_CA")]
    pub mail_smtp_ca: Option<String>,

    /// Where letters are posted as JSON, with MAIL=hook: https://…, or http://… on a loopback address
    #[arg(long, env = "MAIL_HOOK_URL", value_name = "MAIL_HOOK_URL")]
    pub mail_hook_url: Option<String>,

    /// The secret that those requests are signed with: at least 32 bytes
    // Checked in `hook`, because clap would print a malformed value.
    #[arg(long, env = "MAIL_HOOK_SECRET", value_name = "MAIL_HOOK_SECRET", hide_env_values = true)]
    pub mail_hook_secret: Option<String>,

    /// A folder where each letter is written as a file too, with MAIL=log
    #[arg(long, env = "MAIL_FOLDER", value_name = "MAIL_FOLDER")]
    pub mail_folder: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MailMode {
    /// None are sent
    // Set to nothing is not set.
    #[default]
    #[value(alias = "")]
    Off,
    /// To a mail server
    Smtp,
    /// To a service of yours, as signed JSON
    Hook,
    /// Nowhere: they are written to the log
    Log,
}

impl MailMode {
    fn as_str(self) -> &'static str {
        match self {
            MailMode::Off => "off",
            MailMode::Smtp => "smtp",
            MailMode::Hook => "hook",
            MailMode::Log => "log",
        }
    }
}

/// The address of a mail server, and how to connect.
pub(crate) struct SmtpServer {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: SmtpTls,
    /// User and password.
    pub(crate) credentials: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SmtpTls {
    /// From the first byte on.
    Implicit,
    /// By STARTTLS, before anything else.
    StartTls,
    /// None: only to this machine.
    None,
}

impl MailSettings {
    /// Scheme and host of the links in messages, without a slash at the end.
    pub fn public_url(&self) -> Result<Option<String>, String> {
        let Some(text) = set(&self.public_url) else {
            return match self.mail {
                MailMode::Off => Ok(None),
                mode => Err(self.lacking("PUBLIC_URL", mode, "links in letters begin with it")),
            };
        };
        let text = text.strip_suffix('/').unwrap_or(text);
        let wrong = || PUBLIC_LIKE.to_owned();
        let url: http::Uri = text.parse().map_err(|_| wrong())?;
        // `http::Uri` drops a fragment and adds a slash.
        let whole = format!("{}://{}", url.scheme_str().unwrap_or_default(), authority(&url));
        if is_safe(&url) && text.eq_ignore_ascii_case(&whole) {
            Ok(Some(whole))
        } else {
            Err(wrong())
        }
    }

    /// The sender of messages.
    pub(crate) fn from(&self) -> Result<Mailbox, String> {
        let Some(text) = set(&self.mail_from) else {
            return Err(self.lacking("MAIL_FROM", self.mail, "like Acme <no-reply@acme.example>"));
        };
        let from: Option<Mailbox> = text.parse().ok();
        from.filter(|from| from.email.to_string().is_ascii() && !text.contains(char::is_control))
            .ok_or_else(|| {
                "MAIL_FROM must be like Acme <no-reply@acme.example>, a name with a comma in quotes, the address in ASCII"
                    .to_owned()
            })
    }

    /// The mail server, and a file of trusted certificates.
    pub(crate) fn smtp(&self) -> Result<(SmtpServer, Option<PathBuf>), String> {
        let Some(url) = set(&self.mail_smtp_url) else {
            let like = "like smtps://user:password@host:465";
            return Err(self.lacking("MAIL_SMTP_URL", self.mail, like));
        };
        Ok((parse_smtp(url)?, set(&self.mail_smtp_ca).map(PathBuf::from)))
    }

    /// The URL to which messages are posted, and the secret that signs them.
    pub(crate) fn hook(&self) -> Result<(http::Uri, String), String> {
        let Some(url) = set(&self.mail_hook_url) else {
            let like = "like https://hooks.example.com/mail";
            return Err(self.lacking("MAIL_HOOK_URL", self.mail, like));
        };
        let url: http::Uri = url.parse().map_err(|_| HOOK_LIKE.to_owned())?;
        if !is_safe(&url) {
            return Err(HOOK_LIKE.to_owned());
        }
        match set(&self.mail_hook_secret) {
            None => Err(self.lacking("MAIL_HOOK_SECRET", self.mail, "requests are signed with it")),
            Some(secret) if secret.len() < HOOK_SECRET_BYTES_MIN => {
                Err(format!("MAIL_HOOK_SECRET must have {HOOK_SECRET_BYTES_MIN} bytes at least"))
            }
            Some(secret) => Ok((url, secret.to_owned())),
        }
    }

    /// The folder in which messages are written as files, if set.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        set(&self.mail_folder).map(PathBuf::from)
    }

    fn lacking(&self, name: &str, mode: MailMode, what: &str) -> String {
        format!("MAIL={} needs {name}: {what}", mode.as_str())
    }
}

/// An empty value counts as not set: compose files and shells pass empty values.
fn set(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

fn authority(url: &http::Uri) -> &str {
    url.authority().map(http::uri::Authority::as_str).unwrap_or_default()
}

/// `https`, or `http` to this machine; without user information, since the URL is shown.
fn is_safe(url: &http::Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let encrypted = match url.scheme_str() {
        Some("https") => true,
        Some("http") => is_loopback(host),
        _ => false,
    };
    encrypted
        && !host.is_empty()
        && !authority(url).contains('@')
        && has_fitting_port(authority(url))
}

/// A port, if there is one, is valid.
fn has_fitting_port(authority: &str) -> bool {
    match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse::<u16>().is_ok_and(|port| port > 0),
        _ => true,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn parse_smtp(url: &str) -> Result<SmtpServer, String> {
    let wrong = || SMTP_LIKE.to_owned();
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let implicit = match scheme {
        "smtps" => true,
        "smtp" => false,
        _ => return Err(wrong()),
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let place = place.strip_suffix('/').unwrap_or(place);
    let (user, place) = match place.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, place),
    };
    let place: http::uri::Authority = place.parse().map_err(|_| wrong())?;
    let host = place.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || url.contains('#') || !has_fitting_port(place.as_str()) {
        return Err(wrong());
    }
    let tls = match (query, implicit) {
        ("" | "tls=required", true) => SmtpTls::Implicit,
        ("" | "tls=required", false) => SmtpTls::StartTls,
        ("tls=none", false) if is_loopback(&host) => SmtpTls::None,
        ("tls=none", false) => return Err(PLAIN_TEXT.to_owned()),
        ("tls=opportunistic", _) => return Err(OPPORTUNISTIC.to_owned()),
        _ => return Err(TLS_LIKE.to_owned()),
    };
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
        (!text.is_empty() && !text.contains(char::is_control)).then_some(text)
    };
    let credentials = match user {
        None => None,
        Some(user) => {
            let (user, password) = user.split_once(':').ok_or_else(wrong)?;
            Some(decoded(user).zip(decoded(password)).ok_or_else(wrong)?)
        }
    };
    let port = place.port_u16().unwrap_or(if implicit { 465 } else { 587 });
    Ok(SmtpServer { host, port, tls, credentials })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        mail: MailSettings,
    }

    fn with(mail: MailMode) -> MailSettings {
        MailSettings { mail, ..MailSettings::default() }
    }

    fn public(text: &str) -> Result<Option<String>, String> {
        MailSettings { public_url: Some(text.to_owned()), ..with(MailMode::Off) }.public_url()
    }

    fn hook(url: &str) -> Result<(http::Uri, String), String> {
        let secret = Some("of thirty-two bytes, or of more of them".to_owned());
        let mail_hook_url = Some(url.to_owned());
        MailSettings { mail_hook_url, mail_hook_secret: secret, ..with(MailMode::Hook) }.hook()
    }

    #[test]
    fn a_mode_is_one_of_four_and_off_if_it_is_not_set() {
        for (given, mode) in [
            (&[][..], MailMode::Off),
            (&["--mail="], MailMode::Off),
            (&["--mail", "off"], MailMode::Off),
            (&["--mail", "smtp"], MailMode::Smtp),
            (&["--mail", "hook"], MailMode::Hook),
            (&["--mail", "log"], MailMode::Log),
        ] {
            let given = ["freehold"].iter().chain(given);
            assert_eq!(Program::try_parse_from(given).unwrap().mail.mail, mode);
        }
        assert!(Program::try_parse_from(["freehold", "--mail", "sendmail"]).is_err());
        for mode in MailMode::value_variants() {
            assert_eq!(mode.to_possible_value().unwrap().get_name(), mode.as_str());
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let hidden = |name: &str| {
            let command = Program::command();
            command.get_arguments().find(|a| a.get_id() == name).unwrap().is_hide_env_values_set()
        };
        assert!(hidden("mail_smtp_url") && hidden("mail_hook_secret"));
        assert!(!hidden("mail_from"));
    }

    #[test]
    fn links_begin_with_https_or_on_this_machine_with_http() {
        for (given, url) in [
            ("https://app.example.com", "https://app.example.com"),
            ("https://app.example.com/", "https://app.example.com"),
            (" https://app.example.com:8443 ", "https://app.example.com:8443"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(public(given).unwrap().as_deref(), Some(url), "{given}");
        }
        for given in [
            "app.example.com",
            "http://app.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.1",
            "ftp://app.example.com",
            "https://",
            "https://app.example.com/app",
            "https://app.example.com//",
            "https://app.example.com?x=1",
            "https://app.example.com#x",
            "https://app.example.com/#x",
            "https://user:hush@app.example.com",
            "https://app.example.com:",
            "https://app.example.com:0",
            "https://app.example.com:99999",
            "https://app example.com",
            "https://app.example.com\r\nx",
        ] {
            let error = public(given).unwrap_err();
            assert!(error.contains("https://app.example.com, with no path"), "{given}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
        assert_eq!(public("").unwrap(), None);
        for mode in [MailMode::Smtp, MailMode::Hook, MailMode::Log] {
            let error = with(mode).public_url().unwrap_err();
            assert_eq!(
                error,
                format!("MAIL={} needs PUBLIC_URL: links in letters begin with it", mode.as_str())
            );
        }
    }

    #[test]
    fn a_mail_server_is_spoken_to_by_tls() {
        for (given, host, port, tls, credentials) in [
            ("smtps://mx.example", "mx.example", 465, SmtpTls::Implicit, None),
            ("smtps://mx.example:4650/", "mx.example", 4650, SmtpTls::Implicit, None),
            ("smtps://mx.example?tls=required", "mx.example", 465, SmtpTls::Implicit, None),
            ("smtp://mx.example", "mx.example", 587, SmtpTls::StartTls, None),
            ("smtp://10.1.2.3:25/?tls=required", "10.1.2.3", 25, SmtpTls::StartTls, None),
            ("smtp://[::1]:25?tls=none", "::1", 25, SmtpTls::None, None),
            ("smtp://127.0.0.1:1025?tls=none", "127.0.0.1", 1025, SmtpTls::None, None),
            ("smtp://localhost:1025?tls=none", "localhost", 1025, SmtpTls::None, None),
            ("smtp://localhost", "localhost", 587, SmtpTls::StartTls, None),
            (
                "smtp://a%40b.example:p%3A%2F%40@mx.example",
                "mx.example",
                587,
                SmtpTls::StartTls,
                Some(("a@b.example", "p:/@")),
            ),
            // A value that is not encoded is accepted where it is unambiguous.
            (
                "smtp://a@b.example:p:q@mx.example",
                "mx.example",
                587,
                SmtpTls::StartTls,
                Some(("a@b.example", "p:q")),
            ),
        ] {
            let server = parse_smtp(given).unwrap_or_else(|error| panic!("{given}: {error}"));
            assert_eq!(
                (server.host.as_str(), server.port, server.tls),
                (host, port, tls),
                "{given}"
            );
            let shown = server.credentials.as_ref().map(|(a, b)| (a.as_str(), b.as_str()));
            assert_eq!(shown, credentials, "{given}");
        }
    }

    #[test]
    fn a_mail_server_in_plain_text_or_of_another_shape_is_refused_without_its_password() {
        for (given, told) in [
            ("mx.example", SMTP_LIKE),
            ("http://u:hush@mx.example", SMTP_LIKE),
            ("smtp://", SMTP_LIKE),
            ("smtp://u:hush@", SMTP_LIKE),
            ("smtp://u:hush@mx.example:", SMTP_LIKE),
            ("smtp://u:hush@mx.example:99999", SMTP_LIKE),
            ("smtp://u:hush@mx.example/inbox", SMTP_LIKE),
            ("smtp://u:hush#x@mx.example", SMTP_LIKE),
            ("smtp://u@mx.example", SMTP_LIKE),
            ("smtp://:hush@mx.example", SMTP_LIKE),
            ("smtp://u:@mx.example", SMTP_LIKE),
            ("smtp://u:hush%0d%0aRSET@mx.example", SMTP_LIKE),
            ("smtp://u:hush%ff@mx.example", SMTP_LIKE),
            ("smtp://u:hush@mx.example?tls=none", PLAIN_TEXT),
            ("smtp://u:hush@10.0.0.1?tls=none", PLAIN_TEXT),
            ("smtp://u:hush@localhost.example?tls=none", PLAIN_TEXT),
            ("smtp://u:hush@mx.example?tls=opportunistic", OPPORTUNISTIC),
            ("smtp://u:hush@localhost?tls=opportunistic", OPPORTUNISTIC),
            ("smtps://u:hush@mx.example?tls=opportunistic", OPPORTUNISTIC),
            ("smtps://u:hush@localhost?tls=none", TLS_LIKE),
            ("smtp://u:hush@mx.example?tls=hush", TLS_LIKE),
            ("smtp://u:hush@mx.example?tls=required&tls=none", TLS_LIKE),
            ("smtp://u:hush@localhost?verify=false", TLS_LIKE),
        ] {
            let settings =
                MailSettings { mail_smtp_url: Some(given.to_owned()), ..with(MailMode::Smtp) };
            let error = settings.smtp().err().unwrap_or_else(|| panic!("{given} is accepted"));
            assert_eq!(error, told, "{given}");
        }
        let error = with(MailMode::Smtp).smtp().err().unwrap();
        assert!(error.starts_with("MAIL=smtp needs MAIL_SMTP_URL"), "{error}");
    }

    #[test]
    fn letters_are_from_an_address() {
        let from = |text: &str| {
            MailSettings { mail_from: Some(text.to_owned()), ..with(MailMode::Smtp) }.from()
        };
        for (given, name, address) in [
            ("no-reply@acme.example", None, "no-reply@acme.example"),
            ("Acme <no-reply@acme.example>", Some("Acme"), "no-reply@acme.example"),
            ("Müller & Söhne <post@acme.example>", Some("Müller & Söhne"), "post@acme.example"),
            ("\"Acme, Inc.\" <post@acme.example>", Some("Acme, Inc."), "post@acme.example"),
        ] {
            let from = from(given).unwrap_or_else(|error| panic!("{given}: {error}"));
            assert_eq!((from.name.as_deref(), from.email.to_string().as_str()), (name, address));
        }
        for given in [
            "Acme",
            "Acme <acme>",
            "Acme <a@b.example",
            "a@b.example\r\nBcc: c@d.example",
            "<pöst@acme.example>",
        ] {
            let error = from(given).unwrap_err();
            assert!(error.contains("like Acme <no-reply@acme.example>"), "{given}: {error}");
        }
        for empty in ["", "  "] {
            assert!(from(empty).unwrap_err().starts_with("MAIL=smtp needs MAIL_FROM"));
        }
    }

    #[test]
    fn a_hook_is_spoken_to_by_tls_and_signed_for() {
        for given in [
            "https://hooks.example.com/mail?of=acme",
            "http://127.0.0.1:9000/mail",
            "http://localhost",
        ] {
            assert!(hook(given).is_ok(), "{given}");
        }
        for given in [
            "hooks.example.com",
            "http://hooks.example.com",
            "http://127.0.0.1.example.com",
            "https://user:hush@hooks.example.com",
            "ftp://hooks.example.com",
            "/mail",
        ] {
            assert_eq!(hook(given).unwrap_err(), HOOK_LIKE, "{given}");
        }
        assert!(hook("").unwrap_err().starts_with("MAIL=hook needs MAIL_HOOK_URL"));
        let secret = |secret: &str| {
            let url = Some("https://hooks.example.com".to_owned());
            let mail_hook_secret = Some(secret.to_owned());
            MailSettings { mail_hook_url: url, mail_hook_secret, ..with(MailMode::Hook) }.hook()
        };
        assert!(secret("").unwrap_err().starts_with("MAIL=hook needs MAIL_HOOK_SECRET"));
        assert_eq!(secret("hush").unwrap_err(), "MAIL_HOOK_SECRET must have 32 bytes at least");
        assert!(secret(&"x".repeat(31)).is_err() && secret(&"x".repeat(32)).is_ok());
    }
}
