//! Tokens, sessions, passwords, invitations.

use super::Mutant;
use super::Tests::{Library, LibraryUnit, Server};

const TOKENS: &str = "crates/freehold/src/sign_in/tokens.rs";
const SESSIONS: &str = "crates/freehold/src/control/sessions.rs";
const SESSION_ROWS: &str = "crates/freehold/src/catalog/sessions.rs";
const INVITATIONS: &str = "crates/freehold/src/catalog/invitations.rs";
const CREDENTIALS: &str = "crates/freehold/src/control/credentials.rs";
const JOINING: &str = "crates/freehold/src/control/joining.rs";
const GUESSING: &str = "crates/freehold/src/control/guessing.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "signature-skipped",
        breaks: "a token's signature is not looked at",
        file: TOKENS,
        from: "        if !key.signed(message, &signature) {",
        to: "        if !key.signed(message, &signature) && message.is_empty() {",
        tests: Library(&["properties::a_token_with_anything_changed_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "audience-unchecked",
        breaks: "a token for another service is taken",
        file: TOKENS,
        from: "        if claims.aud != self.audience {",
        to: "        if claims.aud.is_empty() {",
        tests: LibraryUnit(&["sign_in::tokens::tests::a_claim_that_is_wrong_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "issuer-unchecked",
        breaks: "a token of another issuer is taken",
        file: TOKENS,
        from: "        if claims.iss != self.issuer {",
        to: "        if claims.iss.is_empty() {",
        tests: LibraryUnit(&["sign_in::tokens::tests::a_claim_that_is_wrong_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "tokens-never-expire",
        breaks: "an access token is good for ever",
        file: TOKENS,
        from: "        if now >= claims.exp.saturating_add(LEEWAY_S) {",
        to: "        if now == 0 {",
        tests: LibraryUnit(&["sign_in::tokens::tests::a_token_lives_from_nbf_to_exp_and_five_seconds_around"]),
        survives_because: None,
    },
    Mutant {
        name: "algorithm-by-the-token",
        breaks: "a token says by which algorithm it is to be believed",
        file: TOKENS,
        from: "        if header.alg.as_deref() != Some(ALGORITHM) {",
        to: "        if header.alg.is_none() {",
        tests: LibraryUnit(&["sign_in::tokens::tests::a_header_that_is_not_ours_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "headers-of-all-kinds",
        breaks: "jku, jwk and crit in a token's header are ignored rather than refused",
        file: TOKENS,
        from: "#[serde(deny_unknown_fields)]
struct Header {",
        to: "struct Header {",
        tests: LibraryUnit(&["sign_in::tokens::tests::a_header_that_is_not_ours_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "roles-of-all-kinds",
        breaks: "a tenant's token may say operator",
        file: TOKENS,
        from: "        Some(_) => TENANT_ROLES.contains(&role),",
        to: "        Some(_) => !role.is_empty(),",
        tests: LibraryUnit(&["sign_in::tokens::tests::a_claim_that_is_wrong_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "refresh-tokens-twice",
        breaks: "a refresh token that was copied is good for both",
        file: SESSION_ROWS,
        from: "    if row.get(4) {",
        to: "    if row.get::<_, bool>(4) && session.id.is_nil() {",
        tests: Server(&["http::sessions::a_refresh_token_is_good_once_and_a_late_second_use_ends_the_session"]),
        survives_because: None,
    },
    Mutant {
        name: "signed-out-sessions-refresh",
        breaks: "the refresh token of an ended session is good",
        file: SESSION_ROWS,
        from: "WHERE r.token_hash = $1 AND s.revoked_at IS NULL AND s.expires_at > now()",
        to: "WHERE r.token_hash = $1 AND s.expires_at > now()",
        tests: Server(&[
            "http::sessions::who_signs_out_is_out_and_may_say_so_twice",
            "http::sessions::a_refresh_token_is_good_once_and_a_late_second_use_ends_the_session",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "sessions-never-end",
        breaks: "a session can be refreshed after its end",
        file: SESSION_ROWS,
        from: "WHERE r.token_hash = $1 AND s.revoked_at IS NULL AND s.expires_at > now()",
        to: "WHERE r.token_hash = $1 AND s.revoked_at IS NULL",
        tests: Server(&["http::sessions::a_session_ends_at_its_end_however_often_it_was_refreshed"]),
        survives_because: None,
    },
    Mutant {
        name: "sessions-not-looked-at",
        breaks: "an access token outlives the session that was ended",
        file: "crates/freehold/src/resolve/resolver.rs",
        from: "            if !found.is_some_and(|found| found.session_lives) {",
        to: "            if found.is_none() {",
        tests: Server(&["http::sessions::sessions_are_listed_and_ended_by_their_owner_and_nobody_else"]),
        survives_because: None,
    },
    Mutant {
        name: "switch-to-any-tenant",
        breaks: "a person moves to a tenant that they do not belong to",
        file: SESSIONS,
        from: "            Ok(slug) => {
                memberships::list_tenants(&mut tx, identity, Some(slug.as_str()), 1).await?
            }",
        to: "            Ok(slug) => {
                let found = crate::catalog::tenants::find_by_slug(&mut tx, &slug).await?;
                found.into_iter().map(|tenant| (tenant, Role::Viewer)).collect()
            }",
        tests: Server(&["http::sessions::a_session_moves_between_ones_own_tenants_only"]),
        survives_because: None,
    },
    Mutant {
        name: "sign-in-to-a-suspended-tenant",
        breaks: "people sign in to a tenant that is suspended",
        file: CREDENTIALS,
        from: "    if let Some((tenant, _)) = &place {
        tenant.status.require_active()?;
    }
    Ok(place)",
        to: "    Ok(place)",
        tests: Server(&["http::sessions::who_belongs_to_a_suspended_tenant_neither_signs_in_nor_refreshes_nor_moves_there"]),
        survives_because: None,
    },
    Mutant {
        name: "refresh-in-a-suspended-tenant",
        breaks: "a suspended tenant's people renew their tokens",
        file: SESSIONS,
        from: "        if let Some((tenant, _)) = &place {
            tenant.status.require_active()?;
        }
        let keyring",
        to: "        let keyring",
        tests: Server(&["http::sessions::who_belongs_to_a_suspended_tenant_neither_signs_in_nor_refreshes_nor_moves_there"]),
        survives_because: None,
    },
    Mutant {
        name: "former-operators-refresh",
        breaks: "who was an operator renews an operator's token",
        file: SESSIONS,
        from: "                if !identity.is_some_and(|i| i.is_operator) {",
        to: "                if identity.is_none() {",
        tests: Server(&["http::sessions::who_is_no_operator_any_more_refreshes_no_operators_session"]),
        survives_because: None,
    },
    Mutant {
        name: "unknown-tenant-told-apart",
        breaks: "sign-in tells a right password from a wrong one where the tenant is not one's own",
        file: CREDENTIALS,
        from: "        true => Some(tenants.into_iter().next().ok_or_else(wrong_credentials)?),",
        to: "        true => {
            let none = || Error::new(ErrorKind::NotFound, \"no such tenant\");
            Some(tenants.into_iter().next().ok_or_else(none)?)
        }",
        tests: Server(&["http::sessions::every_wrong_guess_is_answered_in_the_same_bytes"]),
        survives_because: None,
    },
    Mutant {
        name: "guesses-unlimited",
        breaks: "passwords may be guessed without end",
        file: GUESSING,
        from: "        self.refused.insert(key, now + Duration::from_secs_f64(wait).min(REFUSED_FOR_MAX));
        Err(refuse(wait))",
        to: "        let _ = (key, wait);
        Ok(Taken(budgets))",
        tests: Server(&["http::sessions::guesses_at_one_address_are_limited_whoever_makes_them"]),
        survives_because: None,
    },
    Mutant {
        name: "any-password",
        breaks: "every password is the right one",
        file: "crates/freehold/src/sign_in/passwords.rs",
        from: "    computed == Some(hash) && known",
        to: "    computed.is_some() && hash.len() > 0 && known",
        tests: Server(&["http::sessions::every_wrong_guess_is_answered_in_the_same_bytes"]),
        survives_because: None,
    },
    Mutant {
        name: "invitations-never-run-out",
        breaks: "an invitation can be accepted after its end",
        file: INVITATIONS,
        from: "        \"SELECT {COLUMNS} FROM freehold.invitation v WHERE v.token_hash = $1 AND v.expires_at > now()\"",
        to: "        \"SELECT {COLUMNS} FROM freehold.invitation v WHERE v.token_hash = $1\"",
        tests: Server(&["http::invitations::an_invitation_that_was_taken_back_or_ran_out_is_unknown"]),
        survives_because: Some("it is asked once more when the invitation is taken"),
    },
    Mutant {
        name: "invitations-of-any-tenant",
        breaks: "a tenant takes back another's invitation",
        file: INVITATIONS,
        from: "        \"SELECT {COLUMNS} FROM freehold.invitation v WHERE v.tenant_id = $1 AND v.id = $2 FOR UPDATE\"",
        to: "        \"SELECT {COLUMNS} FROM freehold.invitation v WHERE $1::uuid IS NOT NULL AND v.id = $2 FOR UPDATE\"",
        tests: Server(&["http::router::another_tenants_objects_look_like_none_on_every_route"]),
        survives_because: Some("the catalog's own row-level security shows a tenant its own rows alone"),
    },
    Mutant {
        name: "known-people-need-no-password",
        breaks: "who holds an invitation becomes the person it was sent to",
        file: JOINING,
        from: "                credential.ok_or_else(wrong_credentials)?;
                self.give_back",
        to: "                let _ = credential;
                self.give_back",
        tests: Server(&["http::invitations::somebody_known_proves_themselves_and_belongs_to_both"]),
        survives_because: None,
    },
    Mutant {
        name: "the-past-survives-its-proof",
        breaks: "whoever typed an address before its owner came keeps password, sessions and memberships",
        file: "crates/freehold/src/sign_in/proof.rs",
        from: "    drop_past(tx, &identity, proof).await?;
",
        to: "",
        tests: Server(&["http::people::whoever_only_typed_an_address_is_not_the_operator_that_it_becomes"]),
        survives_because: None,
    },
    Mutant {
        name: "sessions-survive-a-password",
        breaks: "a change of password ends no session",
        file: "crates/freehold/src/sign_in/proof.rs",
        from: "    end_everything(tx, identity, except).await?;
    identities::set_password",
        to: "    let _ = except;
    identities::set_password",
        tests: Server(&["http::people::a_password_is_changed_by_who_knows_it_and_all_other_sessions_end"]),
        survives_because: None,
    },
    Mutant {
        name: "a-strangers-password-confirmed",
        breaks: "who opens the link of a sign-up confirms the password that somebody else chose",
        file: JOINING,
        from: "                    if !hasher.verify(password, Some(hash.clone())).await? {",
        to: "                    if password.is_empty() {",
        tests: Server(&["http::signup::nobody_confirms_a_password_that_a_stranger_chose"]),
        survives_because: None,
    },
    Mutant {
        name: "invitations-outlive-their-inviter",
        breaks: "an invitation is good though its inviter may not make it any more",
        file: JOINING,
        from: "    if may { Ok(()) } else { Err(unknown_invitation()) }",
        to: "    if may || offer.tenant == offer.tenant { Ok(()) } else { Err(unknown_invitation()) }",
        tests: Server(&["http::invitations::an_invitation_ends_with_its_inviters_right_to_make_it"]),
        survives_because: None,
    },
    Mutant {
        name: "admins-take-owners-invitations",
        breaks: "an admin replaces and revokes an owner's invitation",
        file: "crates/freehold/src/control/invitations.rs",
        from: "        if above(offer.invitation.role) || maker.is_some_and(above) {",
        to: "        let _ = maker;
        if above(offer.invitation.role) {",
        tests: Server(&["http::invitations::an_admin_neither_replaces_nor_resends_nor_revokes_an_owners_invitation"]),
        survives_because: None,
    },
    Mutant {
        name: "switch-prolongs",
        breaks: "a stolen access token is renewed by itself",
        file: SESSIONS,
        from: "        self.tokens(&session, Some(&place), None, Some(claims.exp))",
        to: "        self.tokens(&session, Some(&place), None, None)",
        tests: Server(&["http::sessions::what_a_switch_returns_ends_when_the_presented_token_does_and_nothing_outlives_its_session"]),
        survives_because: None,
    },
    Mutant {
        name: "devices-of-anybody",
        breaks: "one person's device is another's",
        file: CREDENTIALS,
        from: "                (known.identity.id, known.identity.epoch) == (device.identity, device.epoch)",
        to: "                known.identity.epoch == device.epoch",
        tests: Server(&["http::sessions::guesses_from_elsewhere_do_not_keep_the_owners_device_out"]),
        survives_because: None,
    },
    Mutant {
        name: "wrong-tenants-are-no-guesses",
        breaks: "the count of guesses tells a right password from a wrong one",
        file: CREDENTIALS,
        from: "                if refused.kind() != ErrorKind::Unauthenticated {",
        to: "                if !refused.message().is_empty() {",
        tests: Server(&["http::sessions::a_right_password_for_a_wrong_tenant_counts_like_a_wrong_one"]),
        survives_because: None,
    },
    Mutant {
        name: "digests-without-a-key",
        breaks: "a password can be guessed from what is kept of a repeated request",
        file: SESSIONS,
        from: "        self.options.tokens.keyring().derive(\"repeated requests\").sign(body_hash)",
        to: "        *body_hash",
        tests: Server(&["http::signup::what_is_kept_of_a_request_that_may_be_repeated_tells_nothing_and_is_forgotten_after_a_day"]),
        survives_because: None,
    },
    Mutant {
        name: "letters-without-end",
        breaks: "one address can be written to without end",
        file: "crates/freehold/src/catalog/outbox.rs",
        from: "        () if of_address >= PER_ADDRESS_MAX => Err(Full::Address),
",
        to: "",
        tests: Server(&["http::signup::letters_to_one_address_are_bounded_and_it_shows_to_nobody"]),
        survives_because: None,
    },
    Mutant {
        name: "disabled-people-come-in",
        breaks: "who was disabled signs in",
        file: CREDENTIALS,
        from: "matches && !known.identity.is_disabled",
        to: "matches",
        tests: Server(&["http::people::somebody_who_is_disabled_is_refused_everything_on_every_server_within_a_second"]),
        survives_because: None,
    },
];
