use serde_json::{Value, json};
use sha2::Sha512;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OLD: &str = "an older secret, in use until now";
const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn tokens_with(secret: &str, retired: &[&str]) -> AccessTokens {
    AccessTokens::new(Keyring::new(secret, retired).unwrap(), "https://issuer", "freehold")
}

fn tokens() -> AccessTokens {
    tokens_with(SECRET, &[OLD])
}

fn member() -> Subject {
    Subject {
        identity: Uuid::from_u128(1),
        session: Uuid::from_u128(2),
        tenant: Some(Uuid::from_u128(3)),
        role: "member".to_owned(),
    }
}

fn issued() -> String {
    tokens().issue(&member(), ACCESS_LIFETIME, at(NOW)).unwrap()
}

fn kid(secret: &str) -> String {
    Key::new(secret.as_bytes()).unwrap().kid
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "at+jwt", "kid": kid(SECRET)})
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer", "aud": "freehold", "role": "member",
        "sub": Uuid::from_u128(1), "sid": Uuid::from_u128(2), "tid": Uuid::from_u128(3),
        "iat": NOW, "nbf": NOW, "exp": NOW + 600, "jti": Uuid::from_u128(4),
    })
}

/// `base` with one member set, or removed where the value is null.
fn with(mut base: Value, name: &str, value: Value) -> Value {
    let object = base.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.to_owned(), value);
    }
    base
}

/// A token with any content, correctly signed with `secret`: what an attacker who controls everything but the
/// key could send, or what a bug could produce.
fn forge(secret: &str, header: impl fmt::Display, claims: impl fmt::Display) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    let signature = mac.chain_update(message.as_bytes()).finalize().into_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[track_caller]
fn refused(case: &str, token: &str, because: TokenError) {
    assert_eq!(tokens().verify(token, at(NOW)), Err(because), "{case}: {token}");
}

#[test]
fn an_issued_token_comes_back_as_it_was() {
    let claims = tokens().verify(&issued(), at(NOW + 60)).unwrap();
    assert_eq!(claims.sub, Uuid::from_u128(1));
    assert_eq!(claims.sid, Uuid::from_u128(2));
    assert_eq!(claims.tid, Some(Uuid::from_u128(3)));
    assert_eq!(claims.role, "member");
    assert_eq!((claims.iat, claims.nbf, claims.exp), (NOW, NOW, NOW + 600));

    let operator = Subject { tenant: None, role: "operator".to_owned(), ..member() };
    let token = tokens().issue(&operator, ACCESS_LIFETIME, at(NOW)).unwrap();
    assert_eq!(tokens().verify(&token, at(NOW)).unwrap().tid, None);
}

/// The accepted token of which each case in the tables below changes one thing.
#[test]
fn the_forged_tokens_differ_from_a_good_one_in_one_thing_only() {
    let token = forge(SECRET, header(), claims());
    assert!(tokens().verify(&token, at(NOW)).is_ok());
    let token = forge(OLD, with(header(), "kid", json!(kid(OLD))), claims());
    assert!(tokens().verify(&token, at(NOW)).is_ok());
    let token = forge(SECRET, header(), with(claims(), "from_a_newer_server", json!([1])));
    assert!(tokens().verify(&token, at(NOW)).is_ok());
}

/// RFC 7515, appendix A.1.
#[test]
fn the_signature_is_the_standards() {
    let secret = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
                   eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let key = Key::new(&secret).unwrap();
    assert_eq!(key.sign(message), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

#[test]
fn a_header_that_is_not_ours_is_refused() {
    use TokenError::{ForeignHeader, Malformed, UnknownKey, WrongAlgorithm, WrongType};
    let url = json!("https://attacker.example/keys");
    let cases = [
        ("alg", json!("none"), WrongAlgorithm),
        ("alg", json!("None"), WrongAlgorithm),
        ("alg", json!("NONE"), WrongAlgorithm),
        ("alg", json!("nOnE"), WrongAlgorithm),
        ("alg", json!(""), WrongAlgorithm),
        ("alg", json!("hs256"), WrongAlgorithm),
        ("alg", json!("HS256 "), WrongAlgorithm),
        ("alg", json!("HS384"), WrongAlgorithm),
        ("alg", json!("HS512"), WrongAlgorithm),
        ("alg", json!("RS256"), WrongAlgorithm),
        ("alg", json!("PS256"), WrongAlgorithm),
        ("alg", json!("ES256"), WrongAlgorithm),
        ("alg", json!("EdDSA"), WrongAlgorithm),
        ("alg", Value::Null, WrongAlgorithm),
        ("alg", json!(["HS256"]), ForeignHeader),
        ("alg", json!(0), ForeignHeader),
        ("typ", json!("JWT"), WrongType),
        ("typ", json!("jwt"), WrongType),
        ("typ", json!("AT+JWT"), WrongType),
        ("typ", json!("application/at+jwt"), WrongType),
        ("typ", json!("rt+jwt"), WrongType),
        ("typ", Value::Null, WrongType),
        ("kid", json!("0000000000000000"), UnknownKey),
        ("kid", json!(format!("../{}", kid(SECRET))), UnknownKey),
        ("kid", json!("../../../../dev/null"), UnknownKey),
        ("kid", json!("/proc/sys/kernel/randomize_va_space"), UnknownKey),
        ("kid", json!("' UNION SELECT 'secret' --"), UnknownKey),
        ("kid", json!(kid(SECRET).to_uppercase() + " "), UnknownKey),
        ("kid", json!(kid(SECRET)[..8]), UnknownKey),
        ("kid", json!(""), UnknownKey),
        ("kid", Value::Null, UnknownKey),
        ("kid", json!([kid(SECRET)]), ForeignHeader),
        ("jku", url.clone(), ForeignHeader),
        ("x5u", url, ForeignHeader),
        ("jwk", json!({"kty": "oct", "k": "AAAA"}), ForeignHeader),
        ("x5c", json!(["MIIB"]), ForeignHeader),
        ("x5t", json!("AAAA"), ForeignHeader),
        ("crit", json!(["exp"]), ForeignHeader),
        ("b64", json!(false), ForeignHeader),
        ("zip", json!("DEF"), ForeignHeader),
        ("cty", json!("JWT"), ForeignHeader),
        ("ALG", json!("HS256"), ForeignHeader),
    ];
    for (name, value, because) in cases {
        let case = format!("{name} = {value}");
        refused(&case, &forge(SECRET, with(header(), name, value), claims()), because);
    }

    let kid = kid(SECRET);
    let twice = format!(r#"{{"alg":"none","alg":"HS256","typ":"at+jwt","kid":"{kid}"}}"#);
    refused("alg twice", &forge(SECRET, twice, claims()), ForeignHeader);
    let escaped = format!(r#"{{"\u0061lg":"none","alg":"HS256","typ":"at+jwt","kid":"{kid}"}}"#);
    refused("alg twice, one escaped", &forge(SECRET, escaped, claims()), ForeignHeader);
    let array = json!(["HS256", "at+jwt", kid]);
    refused("an array", &forge(SECRET, array, claims()), Malformed);
}

/// The classic confusion uses the verifier's public key as an HMAC secret. Here no key is public, so it
/// remains to check that another secret and another hash are refused.
#[test]
fn a_signature_by_other_means_is_refused() {
    use TokenError::{BadSignature, Malformed, UnknownKey, WrongAlgorithm};
    let public_key = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END";
    for alg in ["RS256", "ES256"] {
        let token = forge(public_key, with(header(), "alg", json!(alg)), claims());
        refused(alg, &token, WrongAlgorithm);
    }
    refused("another secret", &forge(public_key, header(), claims()), BadSignature);
    refused("a retired key's secret", &forge(OLD, header(), claims()), BadSignature);
    refused("the key's id as secret", &forge(&kid(SECRET), header(), claims()), BadSignature);
    refused("the empty secret", &forge("", header(), claims()), BadSignature);
    let own_kid = with(header(), "kid", json!(kid(public_key)));
    refused("the attacker's key id", &forge(public_key, own_kid, claims()), UnknownKey);

    let good = issued();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mac = Hmac::<Sha512>::new_from_slice(SECRET.as_bytes()).unwrap();
    let sha512 = mac.chain_update(message.as_bytes()).finalize().into_bytes();
    let sha512 = URL_SAFE_NO_PAD.encode(sha512);
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let half = URL_SAFE_NO_PAD.encode(&bytes[..16]);
    let doubled = URL_SAFE_NO_PAD.encode([&bytes[..], &bytes[..]].concat());
    for (case, signature, because) in [
        ("SHA-512", sha512.as_str(), BadSignature),
        ("none", "", BadSignature),
        ("cut to half", half.as_str(), BadSignature),
        ("doubled", doubled.as_str(), BadSignature),
        ("padded", &format!("{signature}="), Malformed),
        ("with a space", &format!("{signature} "), Malformed),
        ("with a line end", &format!("{signature}\n"), Malformed),
        ("with a NUL", &format!("{signature}\0"), Malformed),
        ("with a part more", &format!("{signature}.{signature}"), BadSignature),
    ] {
        refused(case, &format!("{message}.{signature}"), because);
    }
}

#[test]
fn text_that_is_no_token_is_refused() {
    let good = issued();
    let parts: Vec<&str> = good.split('.').collect();
    for case in [
        "",
        ".",
        "..",
        "...",
        "Bearer",
        "\u{0}",
        "ëëë.ëëë.ëëë",
        parts[0],
        &parts[..2].join("."),
        &format!(" {good}"),
        &format!("{good} "),
        &format!("\t{good}\r\n"),
        &format!("Bearer {good}"),
        &format!("{}.. {}", parts[0], parts[2]),
        &format!("{}.{} .{}", parts[0], parts[1], parts[2]),
        &format!(".{}.{}", parts[1], parts[2]),
        &format!("{good}{good}"),
        &format!("{good}.eyJ9"),
        // Five parts are a JWE; JSON is the other serialisation of JWS.
        &format!("{}.a.b.c.d", parts[0]),
        &json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string(),
    ] {
        let answer = tokens().verify(case, at(NOW));
        let expected = [Err(TokenError::Malformed), Err(TokenError::BadSignature)];
        assert!(expected.contains(&answer), "{case}: {answer:?}");
    }

    let huge = with(claims(), "note", json!("x".repeat(4096)));
    refused("huge, though signed", &forge(SECRET, header(), huge), TokenError::TooLong);
    refused("huge nonsense", &"[".repeat(1 << 20), TokenError::TooLong);
}

#[test]
fn a_claim_that_is_missing_is_named() {
    for name in ["iss", "aud", "sub", "sid", "role", "iat", "nbf", "exp", "jti"] {
        let token = forge(SECRET, header(), with(claims(), name, Value::Null));
        refused(name, &token, TokenError::MissingClaim(name));
        let mut null = claims();
        null[name] = Value::Null;
        refused(name, &forge(SECRET, header(), null), TokenError::MissingClaim(name));
    }
    refused("none", &forge(SECRET, header(), "{}"), TokenError::MissingClaim("iss"));
}

#[test]
fn a_claim_that_is_wrong_is_refused() {
    use TokenError::*;
    let nil = json!(Uuid::nil());
    for (name, value, because) in [
        ("iss", json!("https://issuer/"), WrongIssuer),
        ("iss", json!("https://ISSUER"), WrongIssuer),
        ("iss", json!(""), WrongIssuer),
        ("iss", json!(["https://issuer"]), Malformed),
        ("aud", json!("another"), WrongAudience),
        ("aud", json!("freehold "), WrongAudience),
        ("aud", json!(["freehold"]), Malformed),
        ("aud", json!(["another", "freehold"]), Malformed),
        ("sub", json!("alice"), Malformed),
        ("sub", json!(1), Malformed),
        ("sub", nil.clone(), Malformed),
        ("sid", json!("../../sessions"), Malformed),
        ("sid", nil.clone(), Malformed),
        ("tid", json!("acme"), Malformed),
        ("tid", nil, Malformed),
        ("tid", Value::Null, WrongRole),
        ("role", json!("operator"), WrongRole),
        ("role", json!("Owner"), WrongRole),
        ("role", json!("superuser"), WrongRole),
        ("role", json!(["owner"]), Malformed),
        ("jti", json!("one"), Malformed),
        ("iat", json!(NOW.to_string()), Malformed),
        ("iat", json!(NOW as f64), Malformed),
        ("iat", json!(-1), Malformed),
        ("exp", json!((NOW + 600).to_string()), Malformed),
        ("exp", json!((NOW + 600) as f64), Malformed),
        ("exp", json!(1e300), Malformed),
        ("exp", json!(true), Malformed),
        ("nbf", json!({}), Malformed),
        ("exp", json!(NOW), Malformed),
        ("exp", json!(NOW - 1), Malformed),
        ("exp", json!(u64::MAX), LivesTooLong),
        ("exp", json!(NOW + 3601), LivesTooLong),
        ("iat", json!(0), LivesTooLong),
        ("iat", json!(NOW + 6), NotYetValid),
        ("nbf", json!(NOW + 6), NotYetValid),
        ("nbf", json!(u64::MAX), NotYetValid),
    ] {
        let case = format!("{name} = {value}");
        refused(&case, &forge(SECRET, header(), with(claims(), name, value)), because);
    }
    let mut null = claims();
    null["tid"] = Value::Null;
    refused("tid null", &forge(SECRET, header(), &null), Malformed);
    null["role"] = json!("operator");
    refused("tid null for an operator", &forge(SECRET, header(), null), Malformed);
}

#[test]
fn repeated_claims_and_trailing_data_are_refused() {
    let json = claims().to_string();
    for twice in [
        json.replacen('{', r#"{"role":"owner","#, 1),
        json.replacen('{', r#"{"\u0072ole":"owner","#, 1),
        json.replacen('{', &format!(r#"{{"tid":"{}","#, Uuid::from_u128(9)), 1),
        format!(r#"{},"exp":{}}}"#, &json[..json.len() - 1], NOW + 601),
        format!("{json}{json}"),
        format!("{json}]"),
        format!("{json}\0"),
        format!("[{json}]"),
        format!("\u{feff}{json}"),
        "null".to_owned(),
        String::new(),
        "{".repeat(1000),
    ] {
        refused("repeated or trailing", &forge(SECRET, header(), twice), TokenError::Malformed);
    }
}

#[test]
fn a_token_lives_from_nbf_to_exp_and_five_seconds_around() {
    let (token, tokens) = (issued(), tokens());
    let verify = |now| tokens.verify(&token, at(now)).map(|_| ());
    assert_eq!(verify(NOW - 6), Err(TokenError::NotYetValid));
    assert_eq!(verify(NOW - 5), Ok(()));
    assert_eq!(verify(NOW + 604), Ok(()));
    assert_eq!(verify(NOW + 605), Err(TokenError::Expired));
    assert_eq!(verify(NOW * 2), Err(TokenError::Expired));
    assert_eq!(verify(0), Err(TokenError::NotYetValid));
    let before_1970 = UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(tokens.verify(&token, before_1970), Err(TokenError::NotYetValid));
}

#[test]
fn any_change_of_a_byte_is_refused() {
    let (good, tokens, now) = (issued(), tokens(), at(NOW));
    for at in 0..good.len() {
        for bit in 0..7 {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let changed = String::from_utf8(bytes).unwrap();
            assert!(tokens.verify(&changed, now).is_err(), "bit {bit} of byte {at}");
        }
        assert!(tokens.verify(&good[..at], now).is_err(), "cut at {at}");
        assert!(tokens.verify(&good[at + 1..], now).is_err(), "begun after {at}");
        for more in ['A', '=', '.', ' ', '\n'] {
            let mut longer = good.clone();
            longer.insert(at, more);
            assert!(tokens.verify(&longer, now).is_err(), "{more:?} put in at {at}");
        }
    }
}

#[test]
fn parts_of_two_good_tokens_make_no_third() {
    let operator = Subject { tenant: None, role: "operator".to_owned(), ..member() };
    let ours = tokens().issue(&operator, ACCESS_LIFETIME, at(NOW)).unwrap();
    let theirs = issued();
    let (_, signature) = theirs.rsplit_once('.').unwrap();
    let (message, _) = ours.rsplit_once('.').unwrap();
    let mixed = format!("{message}.{signature}");
    refused("one's claims, another's signature", &mixed, TokenError::BadSignature);
}

#[test]
fn a_retired_key_still_verifies_and_a_dropped_one_does_not() {
    let token = tokens_with(OLD, &[]).issue(&member(), ACCESS_LIFETIME, at(NOW)).unwrap();
    assert!(tokens_with(SECRET, &[OLD]).verify(&token, at(NOW)).is_ok());
    let dropped = tokens_with(SECRET, &[]).verify(&token, at(NOW));
    assert_eq!(dropped, Err(TokenError::UnknownKey));
    // The new key signs from the start.
    let renewed = tokens_with(SECRET, &[OLD]).issue(&member(), ACCESS_LIFETIME, at(NOW)).unwrap();
    assert!(tokens_with(SECRET, &[]).verify(&renewed, at(NOW)).is_ok());
}

#[test]
fn a_keyring_refuses_weak_repeated_and_many_secrets() {
    let ring = |current: &str, retired: &[&str]| Keyring::new(current, retired).map(|_| ());
    assert_eq!(ring("", &[]), Err(KeyError::TooShort));
    assert_eq!(ring(&SECRET[1..], &[]), Err(KeyError::TooShort));
    assert_eq!(ring(SECRET, &["short"]), Err(KeyError::TooShort));
    assert_eq!(ring(SECRET, &[SECRET]), Err(KeyError::Repeated));
    assert_eq!(ring(SECRET, &[OLD, OLD]), Err(KeyError::Repeated));
    assert_eq!(ring(SECRET, &[OLD; 5]), Err(KeyError::TooMany));
}

/// Must never change: servers of two versions must agree on it.
#[test]
fn a_key_has_the_same_name_everywhere() {
    assert_eq!(kid(SECRET), "b17a3bdac4d0d5db");
}

#[test]
fn debug_output_shows_no_secret() {
    let text = format!("{:?}", tokens());
    assert!(text.contains(&kid(SECRET)), "{text}");
    assert!(!text.contains(SECRET) && !text.contains(OLD), "{text}");
    let token = OpaqueToken::generate(OpaqueKind::Refresh);
    assert_eq!(format!("{token:?}"), "OpaqueToken(fhr_…)");
}

#[test]
fn a_token_that_verify_would_refuse_is_not_issued() {
    let issue = |subject, lifetime| tokens().issue(&subject, lifetime, at(NOW)).map(|_| ());
    let second = Duration::from_secs(1);
    assert_eq!(issue(member(), ACCESS_LIFETIME_MAX), Ok(()));
    assert_eq!(issue(member(), ACCESS_LIFETIME_MAX + second), Err(IssueError::Lifetime));
    assert_eq!(issue(member(), second / 2), Err(IssueError::Lifetime));
    for (role, tenant) in
        [("operator", Some(Uuid::from_u128(3))), ("owner", None), ("root", None), ("", None)]
    {
        let subject = Subject { tenant, role: role.to_owned(), ..member() };
        assert_eq!(issue(subject, second), Err(IssueError::Role), "{role}");
    }
    let nowhere = Subject { tenant: Some(Uuid::nil()), ..member() };
    assert_eq!(issue(nowhere, second), Err(IssueError::NilId));
    let system = Subject { identity: Uuid::nil(), ..member() };
    assert_eq!(issue(system, second), Err(IssueError::NilId));
}
