//! Messages to people: their kinds and their texts. Pure: they wait in `catalog/outbox.rs`, and sending them
//! is not the library's task.
//!
//! Messages are plain text. The names of tenants and people are user input, and the recipient may be a
//! stranger, so names are shortened, and whatever a mail program would turn into a link is removed from them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, ErrorKind};

/// The most characters of a name that are shown.
const NAME_CHARS_MAX: usize = 60;

/// The reason for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailKind {
    /// A sign-up that waits for proof of the address.
    SignUp,
    /// An invitation to a tenant.
    Invitation,
    /// A password reset that was requested.
    Reset,
    /// A change of address: to the current address, which has to agree.
    AddressLeave,
    /// A change of address: to the new address, which has to be proven.
    AddressProof,
    /// An address was requested for an account but belongs to another one: nothing happens.
    AddressTaken,
    /// An address was changed; to both addresses.
    AddressChanged,
    /// A password was changed or reset.
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

    /// The name in lower case, as in the catalog and JSON.
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

/// A message that is ready to be sent. It may contain a single-use token that works for any holder, so it
/// must go to its address and nowhere else.
#[derive(Clone, Serialize)]
pub struct Message {
    /// The same at every attempt, so that a sender can detect a repetition.
    pub id: Uuid,
    /// The reason for the message.
    pub kind: MailKind,
    /// The address, in lower case.
    pub to: String,
    /// One line of plain text.
    pub subject: String,
    /// Plain text, in lines of any length that end in `\n`.
    pub text: String,
    /// The link to open, if an action is needed. It ends in `#` and the token.
    pub link: Option<String>,
    /// The token alone, for a sender with pages of its own.
    pub token: Option<String>,
    /// When the token expires.
    pub expires_at: Option<Timestamp>,
}

/// Not printed, so that it is not logged by accident.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// The facts that a message states, besides its kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The tenant concerned.
    pub(crate) tenant: Option<String>,
    /// The address of the person who caused it.
    pub(crate) by: Option<String>,
    /// The role that is offered.
    pub(crate) role: Option<String>,
    /// The current address and the new one.
    pub(crate) addresses: Option<(String, String)>,
    /// Whether the address belongs to a known person.
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
    let by = facts.by.as_deref().map_or("an operator".to_owned(), plain_address);
    let role = facts.role.as_deref().unwrap_or("member");
    let (old, new) = facts
        .addresses
        .as_ref()
        .map_or_else(Default::default, |(old, new)| (plain_address(old), plain_address(new)));
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

/// An address that is user input, in the form in which a message may show it. Before its `@` almost any text may
/// stand, `www.evil.example/log-in` too: one with more than letters, digits and the marks that names are joined
/// by is not shown, and neither is one that is long.
fn plain_address(address: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-_.@".contains(c);
    let local = address.split('@').next().unwrap_or_default();
    let shows = address.chars().all(is_plain)
        && address.chars().count() <= NAME_CHARS_MAX
        && !local.starts_with("www.");
    if shows { address.to_owned() } else { "an address with unusual characters".to_owned() }
}

/// A name that is user input, in the form in which a message may show it: short, on one line, and without
/// anything that a mail program would turn into a link or that changes how the surrounding text is displayed.
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
            // The end of an abbreviation rather than the middle of a host name.
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
        // Characters that only look like a dot, an at sign or a slash are removed.
        for lookalike in ['\u{3002}', '\u{ff0e}', '\u{ff20}', '\u{2044}', '\u{ff61}', '\u{2024}'] {
            assert_eq!(harmless(&format!("evil{lookalike}example")), "evil example");
        }
    }

    #[test]
    fn an_address_is_shown_only_if_it_leads_nowhere() {
        for address in ["ann@acme.example", "ann.b+x-y_1@mail.acme.example"] {
            assert_eq!(plain_address(address), address);
        }
        let long = format!("{}@acme.example", "x".repeat(60));
        for address in [
            "www.evil.example/log-in@evil.example",
            "www.evil.example@evil.example",
            "http://evil.example?a=b#c@evil.example",
            "a%20b@evil.example",
            long.as_str(),
        ] {
            let shown = plain_address(address);
            assert!(!shown.contains("evil") && !shown.contains("xxx"), "{shown}");
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
