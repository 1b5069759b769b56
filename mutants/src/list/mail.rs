//! Messages: their recipients and their content.

use super::Mutant;
use super::Tests::{Server, ServerUnit};

const SMTP: &str = "crates/freehold-server/src/mail/smtp.rs";
const HOOK: &str = "crates/freehold-server/src/mail/hook.rs";
const LOG: &str = "crates/freehold-server/src/mail/log.rs";
const SETTINGS: &str = "crates/freehold-server/src/config/mail.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "starttls-if-offered",
        breaks: "whoever takes STARTTLS out of a mail server's offers gets letters in plain text",
        file: SMTP,
        from: "if self.server.tls == SmtpTls::StartTls {",
        to: "if self.server.tls == SmtpTls::StartTls && connection.can_starttls() {",
        tests: Server(&[
            "mail::a_server_that_offers_no_tls_gets_nothing_unless_it_is_here_and_that_is_wanted",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "mail-server-unverified",
        breaks: "letters go to whoever answers in the mail server's place",
        file: SMTP,
        from: "let tls = tls.build()",
        to: "let tls = tls.dangerous_accept_invalid_certs(true).build()",
        tests: Server(&["mail::a_server_that_is_not_trusted_gets_nothing"]),
        survives_because: None,
    },
    Mutant {
        name: "answers-before-tls",
        breaks: "answers that were put in before TLS are taken for the mail server's",
        file: SMTP,
        from: "if connection.read_response().now_or_never().is_some() {",
        to: "if false {",
        tests: Server(&[
            "mail::answers_that_somebody_adds_in_plain_text_to_those_by_tls_deliver_no_letter",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "letter-in-errors",
        breaks: "what a mail server says of a letter is kept, be it the letter itself",
        file: SMTP,
        from: "Stage::SignIn | Stage::Content => enhanced_code",
        to: "Stage::SignIn => enhanced_code",
        tests: Server(&[
            "mail::a_refused_letter_is_given_up_and_a_refusal_of_anything_else_is_not",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "refused-password-ends-letters",
        breaks: "letters are given up while a password is wrong",
        file: SMTP,
        from: "Stage::Recipient | Stage::Content if about_the_letter =>",
        to: "_ if error.is_permanent() =>",
        tests: Server(&["mail::a_wrong_password_is_told_without_it_and_ends_no_letter"]),
        survives_because: None,
    },
    Mutant {
        name: "hook-without-time",
        breaks: "a request to a hook can be repeated at any time",
        file: HOOK,
        from: "mac.update(format!(\"{now}.\").as_bytes());",
        to: "",
        tests: ServerUnit(&["model::mail::hook::tests::a_signature_is_what_others_compute"]),
        survives_because: None,
    },
    Mutant {
        name: "letters-for-everybody",
        breaks: "every user of a machine reads the letters of MAIL_FOLDER",
        file: LOG,
        from: ".mode(0o600)",
        to: ".mode(0o644)",
        tests: Server(&["mail::a_letter_for_the_log_is_a_file_that_nobody_else_reads"]),
        survives_because: None,
    },
    Mutant {
        name: "plain-text-to-anybody",
        breaks: "letters and a password go in plain text through a network",
        file: SETTINGS,
        from: "(\"tls=none\", false) if is_loopback(&host) =>",
        to: "(\"tls=none\", false) =>",
        tests: ServerUnit(&[
            "config::mail::tests::a_mail_server_in_plain_text_or_of_another_shape_is_refused_without_its_password",
        ]),
        survives_because: None,
    },
];
