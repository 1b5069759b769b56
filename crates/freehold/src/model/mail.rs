//! What is written to people: which letters there are, and their words. Pure: where they wait is
//! `catalog/outbox.rs`, who sends them is not the library's business.
//!
//! Letters are plain text. Names of tenants and people were written by others, and a letter may go to
//! somebody who has never heard of them, so they are cut short and what a mail program would make a
//! link of is taken out of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};

/// Of a name that others wrote, so much is shown.
const NAME_CHARS_MAX: usize = 60;

/// Why somebody is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailKind {
    /// A sign-up waits for the proof that the address is the person's.
    SignUp,
    /// An offer of membership.
    Invitation,
    /// A new password was asked for.
    Reset,
    /// An address is to be replaced: to the present one, which has to agree.
    AddressLeave,
    /// An address is to be replaced: to the new one, which has to be proven.
    AddressProof,
    /// An address was to become somebody's who has another account already: nothing will happen.
    AddressTaken,
    /// An address was replaced; to both.
    AddressChanged,
    /// A password was changed or set anew.
    PasswordChanged,
}

impl MailKind {
    /// Every kind.
    pub const ALL: [MailKind; 8] = [
        MailKind::SignUp,
        MailKind::Invitation,
        MailKind::Reset,
        MailKind::AddressLeave,
        MailKind::AddressProof,
        MailKind::AddressTaken,
        MailKind::AddressChanged,
        MailKind::PasswordChanged,
    ];

    /// In lower case, as the catalog and JSON hold it.
    pub fn as_str(self) -> &'static str {
        match self {
            MailKind::SignUp => "sign_up",
            MailKind::Invitation => "invitation",
            MailKind::Reset => "reset",
            MailKind::AddressLeave => "address_leave",
            MailKind::AddressProof => "address_proof",
            MailKind::AddressTaken => "address_taken",
            MailKind::AddressChanged => "address_changed",
            MailKind::PasswordChanged => "password_changed",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<MailKind, Error> {
        MailKind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("the outbox holds an unknown kind: {text}"))
        })
    }
}

/// A letter that is ready to be sent. It may hold a token that is good once, and opens what it is for
/// to anybody who has it: it goes to its address and nowhere else.
#[derive(Clone, Serialize)]
pub struct Message {
    /// The same at every attempt, so that a sender can tell a repetition.
    pub id: Uuid,
    /// Why it is written.
    pub kind: MailKind,
    /// The address, in lower case.
    pub to: String,
    /// One line of plain text.
    pub subject: String,
    /// Plain text, in lines of any length that end in `\n`.
    pub text: String,
    /// What the person is to open, if there is something to do. It ends in `#` and the token.
    pub link: Option<String>,
    /// The token alone, for a sender with pages of its own.
    pub token: Option<String>,
    /// Until when the token is good.
    pub expires_at: Option<Timestamp>,
}

/// Not shown where it would be logged by the way.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// What a letter tells, besides its kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The tenant that it is about.
    pub(crate) tenant: Option<String>,
    /// The address of who caused it.
    pub(crate) by: Option<String>,
    /// The role that is offered.
    pub(crate) role: Option<String>,
    /// The address that is to be left, and the new one.
    pub(crate) addresses: Option<(String, String)>,
    /// Whether the address is known as somebody's already.
    pub(crate) known: bool,
}

/// Subject and text.
pub(crate) fn write(
    kind: MailKind,
    facts: &Facts,
    service: &str,
    link: Option<&str>,
    expires_at: Option<Timestamp>,
) -> (String, String) {
    let tenant = harmless(facts.tenant.as_deref().unwrap_or_default());
    let by = facts.by.as_deref().unwrap_or("an operator");
    let role = facts.role.as_deref().unwrap_or("member");
    let (old, new) =
        facts.addresses.as_ref().map_or(("", ""), |(old, new)| (old.as_str(), new.as_str()));
    let ignore = "If you did not ask for this, do nothing: without the link nothing happens.";
    let (subject, lines) = match kind {
        MailKind::SignUp => (
            format!("Confirm your address for {service}"),
            vec![
                format!("Somebody asked to create “{tenant}” at {service} with this address."),
                "If it was you, confirm it here:".to_owned(),
                if facts.known {
                    "You have an account here already: confirm with its password.".to_owned()
                } else {
                    String::new()
                },
                ignore.to_owned(),
            ],
        ),
        MailKind::Invitation => (
            format!("You are invited to “{tenant}” at {service}"),
            vec![
                format!("{by} invites you to “{tenant}” at {service}, as {role}."),
                "To accept, open:".to_owned(),
                if facts.known {
                    "You have an account here already: accept with its password.".to_owned()
                } else {
                    String::new()
                },
                "If you do not want this, do nothing.".to_owned(),
            ],
        ),
        MailKind::Reset => (
            format!("Choose a new password for {service}"),
            vec![
                format!("A new password was asked for at {service}, for this address."),
                "To choose one, open:".to_owned(),
                "All sessions end when you do.".to_owned(),
                ignore.to_owned(),
            ],
        ),
        MailKind::AddressLeave => (
            format!("Your address at {service} is to be changed"),
            vec![
                format!("Your address at {service} is to become {new}."),
                "If you want that, confirm it here, and in the letter to the new address:"
                    .to_owned(),
                "If you did not ask for this, somebody knows your password: change it.".to_owned(),
            ],
        ),
        MailKind::AddressProof => (
            format!("Confirm your new address for {service}"),
            vec![
                format!("This address is to replace {old} at {service}."),
                "If you want that, confirm it here, and in the letter to the present address:"
                    .to_owned(),
                ignore.to_owned(),
            ],
        ),
        MailKind::AddressTaken => (
            format!("This address has an account at {service}"),
            vec![
                format!(
                    "Somebody wants this address in the place of another at {service}, but it has \
                     an account of its own. Nothing will be changed."
                ),
                "If it was you, use that account, or have it removed first.".to_owned(),
            ],
        ),
        MailKind::AddressChanged => (
            format!("Your address at {service} was changed"),
            vec![
                format!("The address of your account at {service} was {old} and is {new} now."),
                "All sessions have ended. If this was not you, write to the operator of the service."
                    .to_owned(),
            ],
        ),
        MailKind::PasswordChanged => (
            format!("Your password at {service} was changed"),
            vec![
                format!("The password of your account at {service} was changed."),
                "All other sessions have ended. If this was not you, ask for a new password at \
                 once, and write to the operator of the service."
                    .to_owned(),
            ],
        ),
    };
    let mut text = String::new();
    for (at, line) in lines.iter().filter(|line| !line.is_empty()).enumerate() {
        text.push_str(line);
        text.push_str("\n\n");
        if let (1, Some(link)) = (at, link) {
            text.push_str(link);
            text.push_str("\n\n");
        }
    }
    if let Some(end) = expires_at {
        text.push_str(&format!("The link is good once, until {}.\n", end.strftime("%F %H:%M UTC")));
    }
    (subject, text)
}

/// A name that others wrote, as a letter may show it: short, of one line, and with nothing in it that
/// a mail program would make a link of or that changes how the text around it is read.
fn harmless(name: &str) -> String {
    let mut shown = String::new();
    let mut characters = name.chars().peekable();
    let mut count = 0;
    while let Some(character) = characters.next() {
        if count == NAME_CHARS_MAX {
            shown.push('…');
            break;
        }
        count += 1;
        let kept = match character {
            // The end of an abbreviation, not the middle of a host's name.
            '.' => characters.peek().is_none_or(|next| next.is_whitespace()),
            '&' | '\'' | '’' | '(' | ')' | '+' | ',' | '-' | '!' | ' ' => true,
            other => other.is_alphanumeric(),
        };
        shown.push(if kept { character } else { ' ' });
    }
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_short_and_makes_no_link() {
        for (name, shown) in [
            ("Acme Trading Inc.", "Acme Trading Inc."),
            ("Müller & Söhne (Köln)", "Müller & Söhne (Köln)"),
            ("win at https://evil.example/x?y=1", "win at https evil example x y 1"),
            ("evil.example", "evil example"),
            ("a@evil.example", "a evil example"),
            ("a”\u{202e}b\u{200b}c\u{2028}d", "a b c d"),
            ("  many   spaces ", "many spaces"),
        ] {
            assert_eq!(harmless(name), shown, "{name}");
        }
        assert_eq!(harmless(&"x".repeat(200)), format!("{}…", "x".repeat(60)));
        // Letters that only look like a dot, an at or a slash are none of the kept ones.
        for lookalike in ['\u{3002}', '\u{ff0e}', '\u{ff20}', '\u{2044}', '\u{ff61}', '\u{2024}'] {
            assert_eq!(harmless(&format!("evil{lookalike}example")), "evil example");
        }
    }

    #[test]
    fn each_letter_has_its_link_once_and_nothing_of_others_in_its_subject_that_leads_away() {
        let facts = Facts {
            tenant: Some("x\r\nBcc: all@evil.example".to_owned()),
            by: Some("ann@acme.example".to_owned()),
            ..Facts::default()
        };
        for kind in MailKind::ALL {
            let link = "https://app.example/confirm#fhi_x";
            let (subject, text) = write(kind, &facts, "app.example", Some(link), None);
            assert!(!subject.contains(['\r', '\n']), "{subject}");
            assert!(!subject.contains("evil.example") && !text.contains("evil.example"), "{text}");
            assert_eq!(text.matches(link).count(), 1, "{text}");
            assert!(!text.contains("\n\n\n"), "{text}");
            assert_eq!(MailKind::parse(kind.as_str()).unwrap(), kind);
        }
    }
}
