//! Messages are sent to a real mail server (aiosmtpd), to a hook in the test, and into files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use freehold::{MailKind, Message};
use freehold_server::config::{MailMode, MailSettings};
use freehold_server::mail::{SendError, Transport};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use uuid::Uuid;

use crate::process::{Folder, Running, free_port};
use crate::support::{eventually, project, text};
use crate::tls::Authority;

/// The timeout for a message that must arrive, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for a message that must not arrive.
const LIMIT: Duration = Duration::from_millis(300);
const PASSWORD: &str = "right-hush";
const LINK: &str = "https://app.example/reset#fhr_hush";

fn message(to: &str) -> Message {
    Message {
        id: Uuid::now_v7(),
        kind: MailKind::Reset,
        to: to.to_owned(),
        subject: "Choose a new password".to_owned(),
        text: format!("Open:\n\n{LINK}\n"),
        link: Some(LINK.to_owned()),
        token: Some("fhr_hush".to_owned()),
        expires_at: Some("2026-03-04T05:06:07Z".parse().unwrap()),
    }
}

fn settings(mail: MailMode) -> MailSettings {
    let public_url = Some("https://app.example".to_owned());
    MailSettings { mail, public_url, ..MailSettings::default() }
}

fn transport(settings: &MailSettings) -> Transport {
    Transport::new(settings).unwrap().expect("letters are on")
}

async fn send(transport: &Transport, message: &Message) -> Result<(), SendError> {
    let outcome = transport.send_within(message, PATIENCE).await;
    if let Err(error) = &outcome {
        // No error may contain a message's text or a password.
        assert!(!error.to_string().contains("hush"), "{error}");
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
    outcome
}

// ── A mail server ─────────────────────────────────────────────────────────────────────────────

/// aiosmtpd in a separate process, with a certificate for `localhost`.
struct MailServer {
    running: Running,
    port: u16,
    /// Files of certificates: the authority of the server's, and another one.
    authority: String,
    stranger: String,
    _folder: Folder,
}

/// An interpreter with aiosmtpd; Debian's need not be the first one.
fn python() -> &'static str {
    let knows = |program: &&str| {
        let output = Command::new(program).args(["-c", "import aiosmtpd"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(knows);
    found.expect("aiosmtpd is there; ./dev test installs it")
}

impl MailServer {
    fn start(arguments: &[&str]) -> MailServer {
        let folder = Folder::new();
        let path = |name: &str| folder.path().join(name);
        let authority = Authority::new();
        let (certificate, key) = authority.sign("localhost");
        std::fs::write(path("server.crt"), certificate).unwrap();
        std::fs::write(path("server.key"), key).unwrap();
        let authority = authority.write(&path("ca.pem"));
        let stranger = Authority::new().write(&path("stranger.pem"));
        let mut command = Command::new(python());
        command.arg(project().join("crates/freehold-server/tests/smtp/server.py")).args(arguments);
        command.arg("--certificate").arg(path("server.crt"));
        command.arg("--key").arg(path("server.key"));
        let mut running = Running::spawn(command);
        let line = running.wait_for("listening", Duration::from_secs(60));
        let port = serde_json::from_str::<Value>(&line).unwrap()["port"].as_u64().unwrap();
        let port = u16::try_from(port).unwrap();
        MailServer { running, port, authority, stranger, _folder: folder }
    }

    /// One that requires a user and a password, over TLS.
    fn strict(tls: &str) -> MailServer {
        MailServer::start(&[tls, "--user", "post@acme.example", "--password", PASSWORD])
    }

    /// The settings for it; `{port}` is replaced by its port.
    fn settings(&self, url: &str) -> MailSettings {
        MailSettings {
            mail_from: Some("Acme <post@acme.example>".to_owned()),
            mail_smtp_url: Some(url.replace("{port}", &self.port.to_string())),
            mail_smtp_ca: Some(self.authority.clone()),
            ..settings(MailMode::Smtp)
        }
    }

    /// To [`strict`](Self::strict).
    fn transport(&self) -> Transport {
        transport(&self.settings("smtp://post%40acme.example:right-hush@localhost:{port}"))
    }

    /// The events of one kind that it received.
    fn told(&self, event: &str) -> Vec<Value> {
        let said = self.running.said();
        let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|known| known["event"] == event).collect()
    }

    /// The one message that it received.
    async fn letter(&self) -> Value {
        let there = async || !self.told("letter").is_empty();
        eventually("the server tells of a letter", PATIENCE, there).await;
        let letters = self.told("letter");
        assert_eq!(letters.len(), 1, "{letters:?}");
        letters[0].clone()
    }

    /// Ends it, and reads all its output.
    fn end(&mut self) {
        self.running.kill();
        self.running.wait(PATIENCE);
    }
}

/// Every value of a header.
fn header(letter: &Value, name: &str) -> Vec<String> {
    let headers = letter["headers"].as_array().unwrap();
    headers.iter().filter(|pair| pair[0] == name).map(|pair| text(&pair[1])).collect()
}

#[tokio::test]
async fn a_letter_is_delivered_by_tls_to_a_server_that_knows_the_sender() {
    for (tls, url) in [
        ("--starttls", "smtp://post%40acme.example:right-hush@localhost:{port}?tls=required"),
        ("--implicit", "smtps://post%40acme.example:right-hush@localhost:{port}"),
    ] {
        let server = MailServer::strict(tls);
        let message = message("ann@globex.example");
        send(&transport(&server.settings(url)), &message).await.unwrap();
        let letter = server.letter().await;
        assert!(letter["cipher"].is_array(), "{tls}: in plain text: {letter}");
        assert_eq!(letter["user"], "post@acme.example", "{tls}");
        assert_eq!(letter["to"], serde_json::json!(["ann@globex.example"]));
        assert_eq!(letter["text"], message.text);
        assert_eq!(header(&letter, "From"), ["Acme <post@acme.example>"]);
        assert_eq!(header(&letter, "To"), ["ann@globex.example"]);
        assert_eq!(header(&letter, "Subject"), ["Choose a new password"]);
        assert_eq!(header(&letter, "Auto-Submitted"), ["auto-generated"]);
        assert_eq!(header(&letter, "Message-ID"), [format!("<{}@acme.example>", message.id)]);
        assert_eq!(header(&letter, "Date").len(), 1);
        let sender = &server.told("sender")[0];
        assert_eq!(sender["address"], "post@acme.example");
    }
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    for (tls, scheme) in [("--starttls", "smtp"), ("--implicit", "smtps")] {
        let mut server = MailServer::strict(tls);
        let stranger = Some(server.stranger.clone());
        // A certificate of another authority; of one that the system does not know; for another host.
        for (host, authority) in [
            ("localhost", stranger),
            ("localhost", None),
            ("127.0.0.1", Some(server.authority.clone())),
        ] {
            let url = format!("{scheme}://post%40acme.example:right-hush@{host}:{{port}}");
            let settings = MailSettings { mail_smtp_ca: authority, ..server.settings(&url) };
            let error = send(&transport(&settings), &message("ann@globex.example")).await;
            let error = error.unwrap_err();
            assert!(!error.permanent, "{error}");
            assert!(error.to_string().contains("certificate"), "{host}: {error}");
        }
        server.end();
        for event in ["sign-in", "sender", "recipient", "letter"] {
            assert!(server.told(event).is_empty(), "{tls}: {}", server.running.said());
        }
    }
}

#[tokio::test]
async fn a_server_that_offers_no_tls_gets_nothing_unless_it_is_here_and_that_is_wanted() {
    let server = MailServer::start(&[]);
    let with = |url: &str| transport(&server.settings(url));
    for url in ["smtp://u:right-hush@localhost:{port}", "smtp://127.0.0.1:{port}?tls=required"] {
        let error = send(&with(url), &message("ann@globex.example")).await.unwrap_err();
        assert!(!error.permanent, "{error}");
        assert!(error.to_string().contains("offers no STARTTLS"), "{error}");
    }
    let by_tls = with("smtps://u:right-hush@localhost:{port}");
    let error = send(&by_tls, &message("ann@globex.example")).await.unwrap_err();
    assert!(!error.permanent, "{error}");
    send(&with("smtp://127.0.0.1:{port}?tls=none"), &message("ann@globex.example")).await.unwrap();
    let letter = server.letter().await;
    // It was given that one, and of the others not even the sender.
    assert_eq!(server.told("sender").len(), 1, "{}", server.running.said());
    assert!(letter["cipher"].is_null() && letter["user"].is_null(), "{letter}");
}

#[tokio::test]
async fn answers_that_somebody_adds_in_plain_text_to_those_by_tls_deliver_no_letter() {
    let hello = "250 AUTH PLAIN";
    for added in [
        &[hello][..],
        &[hello, "235 ok"],
        &[hello, "235 ok", "250 ok", "250 ok", "354 ok", "250 ok"],
    ] {
        let mut arguments =
            vec!["--starttls", "--user", "post@acme.example", "--password", PASSWORD];
        arguments.extend(added.iter().flat_map(|answer| ["--inject", answer]));
        let mut server = MailServer::start(&arguments);
        let error = send(&server.transport(), &message("ann@globex.example")).await.unwrap_err();
        assert!(!error.permanent, "{error}");
        assert!(error.to_string().contains("not asked for"), "{added:?}: {error}");
        server.end();
        assert!(server.told("letter").is_empty(), "{added:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it_and_ends_no_letter() {
    let mut server = MailServer::strict("--starttls");
    let url = "smtp://post%40acme.example:wrong-hush@localhost:{port}";
    let refused = transport(&server.settings(url));
    let error = send(&refused, &message("ann@globex.example")).await.unwrap_err();
    assert!(!error.permanent, "the operator corrects it, and letters go on: {error}");
    let told = error.to_string();
    assert!(told.contains("MAIL_SMTP_URL") && told.contains("535 5.7.8"), "{told}");
    server.end();
    assert!(server.told("sender").is_empty() && !server.told("sign-in").is_empty());
}

#[tokio::test]
async fn a_refused_letter_is_given_up_and_a_refusal_of_anything_else_is_not() {
    let server = MailServer::strict("--starttls");
    let sender = server.transport();
    for (to, permanent, told) in [
        ("gone@globex.example", true, "550 5.1.1 nobody of this name"),
        ("later@globex.example", false, "451 4.7.1 come back later"),
        // The refusal concerns the sender, not the recipient.
        ("unknown@globex.example", false, "530 5.7.0"),
        // These servers repeat the request in their answer.
        ("echo@globex.example", true, "550 5.1.1"),
        ("spam@globex.example", true, "554 5.7.1"),
        ("full@globex.example", false, "452 4.3.1"),
    ] {
        let error = send(&sender, &message(to)).await.unwrap_err();
        assert_eq!(error.permanent, permanent, "{to}: {error}");
        assert!(error.to_string().contains(told), "{to}: {error}");
    }
    let url = "smtp://post%40acme.example:right-hush@localhost:{port}";
    let from = Some("banned@acme.example".to_owned());
    let banned = MailSettings { mail_from: from, ..server.settings(url) };
    let error = send(&transport(&banned), &message("ann@globex.example")).await.unwrap_err();
    assert!(!error.permanent, "the operator chooses another: {error}");
    assert!(error.to_string().contains("MAIL_FROM: 550 5.7.1 this sender is banned"), "{error}");
    // The next message is not affected.
    send(&sender, &message("ann@globex.example")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_away_or_silent_is_tried_again() {
    let settings = |port: u16| MailSettings {
        mail_from: Some("post@acme.example".to_owned()),
        mail_smtp_url: Some(format!("smtp://127.0.0.1:{port}?tls=none")),
        ..settings(MailMode::Smtp)
    };
    let away = transport(&settings(free_port()));
    let error = send(&away, &message("ann@globex.example")).await.unwrap_err();
    assert!(!error.permanent && error.to_string().contains("cannot be spoken to"), "{error}");
    // It accepts connections and does not answer.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = transport(&settings(silent.local_addr().unwrap().port()));
    let error = transport.send_within(&message("ann@globex.example"), LIMIT).await.unwrap_err();
    assert!(!error.permanent && error.to_string().contains("not sent within"), "{error}");
}

#[tokio::test]
async fn nobody_writes_a_header_by_a_subject_or_an_address() {
    let server = MailServer::strict("--starttls");
    let sender = server.transport();
    for to in [
        "ann@globex.example\r\nBcc: all@evil.example",
        "ann@globex.example>\r\nRCPT TO:<all@evil.example",
        "ann@globex.example, all@evil.example",
        "<ann@globex.example> SIZE=1",
    ] {
        assert!(send(&sender, &message(to)).await.unwrap_err().permanent, "{to:?}");
    }
    let subject = "Hello\r\nBcc: all@evil.example\r\n\r\nAnother text\u{2028}é\u{85}\0x".to_owned();
    let text = "First\n.\nRCPT TO:<all@evil.example>\n..\nlast\n".to_owned();
    let message = Message { subject, text, ..message("ann@globex.example") };
    send(&sender, &message).await.unwrap();
    let letter = server.letter().await;
    assert_eq!(letter["to"], serde_json::json!(["ann@globex.example"]));
    assert_eq!(letter["text"], message.text, "dots are dots");
    assert!(header(&letter, "Bcc").is_empty(), "{letter}");
    let subject = header(&letter, "Subject");
    assert!(subject.len() == 1 && subject[0].contains("Bcc: all@evil.example"), "{subject:?}");
    assert_eq!((server.told("sender").len(), server.told("recipient").len()), (1, 1));
}

#[tokio::test]
async fn what_is_not_ascii_arrives_as_it_was_written() {
    let server = MailServer::strict("--starttls");
    let url = "smtp://post%40acme.example:right-hush@localhost:{port}";
    let from = Some("\"Müller & Söhne, Köln\" <post@acme.example>".to_owned());
    let sender = transport(&MailSettings { mail_from: from, ..server.settings(url) });
    let subject = "You are invited to “Müller & Söhne 東京 🦀” at a service of a very long name, \
                   which does not fit into one line of a header"
        .to_owned();
    let text = format!("“Grüße” 東京\n\n{}\n\n{LINK}\n", "länger als eine Zeile ".repeat(100));
    let message = Message { subject, text, ..message("ann@globex.example") };
    send(&sender, &message).await.unwrap();
    let letter = server.letter().await;
    assert_eq!(header(&letter, "Subject"), [message.subject.as_str()]);
    assert_eq!(letter["text"], message.text);
    assert!(header(&letter, "From")[0].contains("Müller & Söhne, Köln"), "{letter}");
    assert_eq!(letter["ascii"], true, "any server takes it");
}

// ── A hook ────────────────────────────────────────────────────────────────────────────────────

const HOOK_SECRET: &str = "hush, and of thirty-two bytes at least";

/// The requests to a hook: path, headers and body of each.
type Asked = Arc<Mutex<Vec<(Uri, HeaderMap, Bytes)>>>;

/// A service that records each request and answers all of them in the same way.
struct Receiver {
    url: String,
    asked: Asked,
    _task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    async fn start(answer: fn() -> Response) -> Receiver {
        let asked = Asked::default();
        let handler =
            async move |State(asked): State<Asked>, uri: Uri, headers: HeaderMap, body: Bytes| {
                asked.lock().unwrap().push((uri, headers, body));
                answer()
            };
        let router = Router::new().fallback(handler).with_state(Arc::clone(&asked));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mail", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Receiver { url, asked, _task: task }
    }

    fn transport(&self) -> Transport {
        hook(&self.url)
    }

    fn asked(&self) -> Vec<(Uri, HeaderMap, Bytes)> {
        self.asked.lock().unwrap().clone()
    }
}

fn hook(url: &str) -> Transport {
    transport(&MailSettings {
        mail_hook_url: Some(url.to_owned()),
        mail_hook_secret: Some(HOOK_SECRET.to_owned()),
        ..settings(MailMode::Hook)
    })
}

/// Runs the example of docs/mail.md.
fn verified_as_documented(secret: &str, headers: &HeaderMap, body: &[u8], now: i64) -> bool {
    let page = std::fs::read_to_string(project().join("docs/mail.md")).unwrap();
    let example = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = Folder::new();
    std::fs::write(folder.path().join("example.py"), example).unwrap();
    std::fs::write(folder.path().join("body"), body).unwrap();
    let call = "import sys, example\n\
                secret, timestamp, signature, now = sys.argv[1:]\n\
                body = open('body', 'rb').read()\n\
                print(example.is_genuine(secret, timestamp, signature, body, now=int(now)))";
    let value = |name: &str| headers[name].to_str().unwrap().to_owned();
    let output = Command::new(python())
        .args(["-c", call, secret, &value("freehold-timestamp"), &value("freehold-signature")])
        .arg(now.to_string())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    match said.trim() {
        "True" => true,
        "False" => false,
        _ => panic!("{said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_gets_the_letter_and_knows_that_it_is_ours() {
    let receiver = Receiver::start(|| StatusCode::ACCEPTED.into_response()).await;
    let message = message("ann@globex.example");
    send(&receiver.transport(), &message).await.unwrap();
    let asked = receiver.asked();
    let [(uri, headers, body)] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(uri.path(), "/mail");
    assert_eq!(headers["content-type"], "application/json");
    let body_is: Value = serde_json::from_slice(body).unwrap();
    let expected = serde_json::json!({
        "id": message.id,
        "kind": "reset",
        "to": "ann@globex.example",
        "subject": "Choose a new password",
        "text": message.text,
        "link": LINK,
        "token": "fhr_hush",
        "expires_at": "2026-03-04T05:06:07Z",
    });
    assert_eq!(body_is, expected);
    let now = jiff::Timestamp::now().as_second();
    let sent: i64 = headers["freehold-timestamp"].to_str().unwrap().parse().unwrap();
    assert!((now - 120..=now).contains(&sent), "{sent} and {now}");
    assert!(verified_as_documented(HOOK_SECRET, headers, body, sent + 10));
    assert!(!verified_as_documented("another of thirty-two bytes at least", headers, body, sent));
    assert!(!verified_as_documented(HOOK_SECRET, headers, &body.slice(1..), sent));
    assert!(!verified_as_documented(HOOK_SECRET, headers, body, sent + 3600), "it is repeated");
    let mut later = headers.clone();
    later.insert("freehold-timestamp", (sent + 1).to_string().parse().unwrap());
    assert!(!verified_as_documented(HOOK_SECRET, &later, body, sent + 1));
}

#[tokio::test]
async fn a_hook_that_refuses_ends_a_letter_and_one_that_fails_does_not() {
    let gone = Receiver::start(|| (StatusCode::GONE, "hush").into_response()).await;
    let error = send(&gone.transport(), &message("ann@globex.example")).await.unwrap_err();
    assert!(error.permanent && error.to_string().contains("410"), "{error}");
    let failing = Receiver::start(|| (StatusCode::INTERNAL_SERVER_ERROR, "hush").into_response());
    let error = send(&failing.await.transport(), &message("ann@globex.example")).await.unwrap_err();
    assert!(!error.permanent && error.to_string().contains("500"), "{error}");
    let away = hook(&format!("http://127.0.0.1:{}/mail", free_port()));
    let error = send(&away, &message("ann@globex.example")).await.unwrap_err();
    assert!(!error.permanent && error.to_string().contains("cannot be reached"), "{error}");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_hook = hook(&format!("http://{}/mail", silent.local_addr().unwrap()));
    let error = silent_hook.send_within(&message("ann@globex.example"), LIMIT).await.unwrap_err();
    assert!(!error.permanent && error.to_string().contains("not sent within"), "{error}");
}

#[tokio::test]
async fn a_hook_that_redirects_or_never_ends_its_answer_gets_one_request_and_no_more() {
    let elsewhere = || (StatusCode::TEMPORARY_REDIRECT, [("location", "/other")]).into_response();
    let receiver = Receiver::start(elsewhere).await;
    let error = send(&receiver.transport(), &message("ann@globex.example")).await.unwrap_err();
    assert!(
        !error.permanent && error.to_string().contains("redirects are not followed"),
        "{error}"
    );
    assert_eq!(receiver.asked().len(), 1);
    let endless = Receiver::start(|| {
        let pieces = futures_util::stream::repeat(Bytes::from_static(&[b'x'; 1024]));
        let pieces = futures_util::StreamExt::map(pieces, Ok::<_, std::io::Error>);
        Body::from_stream(pieces).into_response()
    });
    let endless = endless.await;
    send(&endless.transport(), &message("ann@globex.example")).await.unwrap();
    assert_eq!(endless.asked().len(), 1);
}

// ── A log ─────────────────────────────────────────────────────────────────────────────────────

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_letter_for_the_log_is_a_file_that_nobody_else_reads() {
    let place = Folder::new();
    let folder = place.path().join("letters/here");
    let mail_folder = Some(folder.display().to_string());
    let sender = transport(&MailSettings { mail_folder, ..settings(MailMode::Log) });
    assert_eq!((mode(&folder), files(&folder).len()), (0o700, 0));
    // A file left behind by a killed server does no harm.
    let message = message("ann@globex.example");
    std::fs::write(folder.join(format!(".{}.tmp", message.id)), "half").unwrap();
    send(&sender, &message).await.unwrap();
    let [name] = files(&folder).try_into().unwrap();
    assert!(name.ends_with("-reset-ann@globex.example.txt"), "{name}");
    let path = folder.join(&name);
    assert_eq!(mode(&path), 0o600);
    let expected =
        format!("To: ann@globex.example\nSubject: Choose a new password\n\nOpen:\n\n{LINK}\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
}

#[tokio::test]
async fn no_address_leads_a_file_elsewhere_or_writes_a_line_of_it() {
    let place = Folder::new();
    let folder = place.path().join("a/b/c");
    let mail_folder = Some(folder.display().to_string());
    let sender = transport(&MailSettings { mail_folder, ..settings(MailMode::Log) });
    for to in ["../../x@y.z", "/x@y.z", "x@y.z\nSubject: another", &"x".repeat(1000)] {
        let message = Message { subject: "Hello\nX: y".to_owned(), ..message(to) };
        send(&sender, &message).await.unwrap();
    }
    let names = files(&folder);
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(
        (files(&place.path().join("a")), files(&place.path().join("a/b"))),
        (vec!["b".to_owned()], vec!["c".to_owned()])
    );
    for name in names {
        let text = std::fs::read_to_string(folder.join(&name)).unwrap();
        let head: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
        assert_eq!(head.len(), 2, "{text}");
    }
}

#[test]
fn a_folder_that_cannot_be_one_is_told_at_the_start() {
    let place = Folder::new();
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mail_folder = Some(file.display().to_string());
    let settings = MailSettings { mail_folder, ..settings(MailMode::Log) };
    let error = Transport::new(&settings).err().unwrap();
    assert!(error.starts_with("MAIL_FOLDER must be a folder"), "{error}");
}

/// What is written to a log while this exists.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_has_the_link_with_a_warning_and_of_other_modes_nothing() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_max_level(tracing::Level::TRACE)
        .json()
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let logged = || String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    let server = MailServer::strict("--starttls");
    send(&server.transport(), &message("ann@globex.example")).await.unwrap();
    send(&server.transport(), &message("gone@globex.example")).await.unwrap_err();
    let receiver = Receiver::start(|| StatusCode::OK.into_response()).await;
    send(&receiver.transport(), &message("ann@globex.example")).await.unwrap();
    assert!(!logged().contains("hush"), "{}", logged());
    send(&transport(&settings(MailMode::Log)), &message("ann@globex.example")).await.unwrap();
    let logged = logged();
    let lines: Vec<Value> =
        logged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |text: &str| {
        let found = lines
            .iter()
            .find(|line| line["fields"]["message"].as_str().is_some_and(|m| m.contains(text)));
        found.unwrap_or_else(|| panic!("{text}: {logged}")).clone()
    };
    assert_eq!(of("MAIL=log is for development")["level"], "WARN");
    let letter = &of("a letter")["fields"];
    assert_eq!(letter["kind"], "reset");
    assert_eq!(letter["to"], "ann@globex.example");
    assert_eq!(letter["link"], LINK);
}
