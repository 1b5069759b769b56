//! Properties that hold for any text as a token, a slug or an e-mail. Pure: no database.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use freehold::tokens::{AccessTokens, Keyring, OpaqueKind, OpaqueToken, Subject};
use freehold::uuid::Uuid;
use freehold::{Email, Slug};
use proptest::prelude::*;
use proptest::sample::Index;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn tokens(secret: &str) -> AccessTokens {
    AccessTokens::new(Keyring::new(secret, &[] as &[&str]).unwrap(), "issuer", "audience")
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn issue(with: &AccessTokens, id: u128) -> String {
    let subject = Subject {
        identity: Uuid::from_u128(id),
        session: Uuid::from_u128(2),
        tenant: Some(Uuid::from_u128(3)),
        role: "member".to_owned(),
    };
    with.issue(&subject, Duration::from_secs(600), now()).unwrap()
}

/// `text` with one change at a position.
fn changed(text: &str, at: Index, how: u8, by: char) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let (at, other) = (at.index(chars.len()), chars.len() / 2);
    match how % 6 {
        0 => chars[at] = by,
        1 => drop(chars.remove(at)),
        2 => chars.insert(at, by),
        3 => chars.truncate(at),
        4 => chars.swap(at, other),
        _ => chars.extend([by]),
    }
    chars.into_iter().collect()
}

/// Characters that a token is made of, more often than others.
fn character() -> impl Strategy<Value = char> {
    prop_oneof![4 => prop::char::ranges(vec!['a'..='z', 'A'..='Z', '0'..='9', '-'..='.'].into()), 1 => any::<char>()]
}

proptest! {
    #[test]
    fn a_token_with_anything_changed_is_refused(at in any::<Index>(), how in any::<u8>(), by in character()) {
        let tokens = tokens(SECRET);
        let token = issue(&tokens, 1);
        let other = changed(&token, at, how, by);
        prop_assert_eq!(tokens.verify(&other, now()).is_ok(), other == token, "{}", other);
    }

    /// The parts of two valid tokens do not make a third one.
    #[test]
    fn parts_of_two_tokens_are_no_token(parts in prop::array::uniform3(any::<bool>())) {
        let tokens = tokens(SECRET);
        let (one, two) = (issue(&tokens, 1), issue(&tokens, 2));
        let of = |text: &str, at: usize| text.split('.').nth(at).unwrap().to_owned();
        let pick = |at: usize| of(if parts[at] { &one } else { &two }, at);
        let mixed = [pick(0), pick(1), pick(2)].join(".");
        prop_assert_eq!(tokens.verify(&mixed, now()).is_ok(), mixed == one || mixed == two);
    }

    #[test]
    fn no_other_secret_signs_for_ours(secret in "[ -~]{32,80}") {
        prop_assume!(secret != SECRET);
        prop_assert!(tokens(SECRET).verify(&issue(&tokens(&secret), 1), now()).is_err());
    }

    #[test]
    fn no_text_at_all_is_a_token(text in prop_oneof![any::<String>(), r"[A-Za-z0-9_-]{0,80}(\.[A-Za-z0-9_-]{0,80}){0,4}"]) {
        prop_assert!(tokens(SECRET).verify(&text, now()).is_err());
    }

    #[test]
    fn an_opaque_token_has_one_spelling(at in any::<Index>(), how in any::<u8>(), by in character()) {
        let token = OpaqueToken::generate(OpaqueKind::Refresh);
        let other = changed(token.secret(), at, how, by);
        if other != token.secret() && let Ok(read) = OpaqueToken::parse(OpaqueKind::Refresh, &other) {
            prop_assert_ne!(read.hash(), token.hash());
        }
        prop_assert!(OpaqueToken::parse(OpaqueKind::Invitation, token.secret()).is_err());
    }

    #[test]
    fn a_slug_is_a_plain_word_that_is_nobodys_else(text in prop_oneof![any::<String>(), "[a-z0-9-]{0,70}", "[a-zA-Z_.'\"é-]{3,9}"]) {
        let Ok(slug) = text.parse::<Slug>() else { return Ok(()) };
        prop_assert_eq!(slug.as_str(), &text, "not folded: one tenant has one spelling");
        prop_assert!((3..=63).contains(&text.len()));
        prop_assert!(text.starts_with(|c: char| c.is_ascii_lowercase()));
        prop_assert!(!text.ends_with('-') && !text.contains("--"));
        prop_assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
    }

    #[test]
    fn an_email_has_one_spelling_whoever_types_it(text in prop_oneof![any::<String>(), "[a-zA-Z.+ ]{1,8}@[a-zA-Z.]{1,8}"]) {
        let Ok(email) = text.parse::<Email>() else { return Ok(()) };
        let spelled = email.as_str();
        prop_assert!(spelled.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
        prop_assert_eq!(spelled.matches('@').count(), 1);
        for again in [spelled.to_owned(), text.to_ascii_uppercase(), format!(" {text}\n")] {
            prop_assert_eq!(&again.parse::<Email>().unwrap(), &email);
        }
    }
}
