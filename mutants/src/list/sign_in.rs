//! Tokens, sessions, passwords, invitations.

use super::Mutant;
use super::Tests::{Library, LibraryUnit, Server};

const TOKENS: &str = "crates/freehold/src/tokens.rs";
const SESSIONS: &str = "crates/freehold/src/control/sessions.rs";
const SESSION_ROWS: &str = "crates/freehold/src/catalog/sessions.rs";
const INVITATIONS: &str = "crates/freehold/src/catalog/invitations.rs";

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
        tests: LibraryUnit(&["tokens::tests::a_claim_that_is_wrong_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "issuer-unchecked",
        breaks: "a token of another issuer is taken",
        file: TOKENS,
        from: "        if claims.iss != self.issuer {",
        to: "        if claims.iss.is_empty() {",
        tests: LibraryUnit(&["tokens::tests::a_claim_that_is_wrong_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "tokens-never-expire",
        breaks: "an access token is good for ever",
        file: TOKENS,
        from: "        if now >= claims.exp.saturating_add(LEEWAY_S) {",
        to: "        if now == 0 {",
        tests: LibraryUnit(&["tokens::tests::a_token_lives_from_nbf_to_exp_and_five_seconds_around"]),
        survives_because: None,
    },
    Mutant {
        name: "algorithm-by-the-token",
        breaks: "a token says by which algorithm it is to be believed",
        file: TOKENS,
        from: "        if header.alg.as_deref() != Some(ALGORITHM) {",
        to: "        if header.alg.is_none() {",
        tests: LibraryUnit(&["tokens::tests::a_header_that_is_not_ours_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "headers-of-all-kinds",
        breaks: "jku, jwk and crit in a token's header are ignored rather than refused",
        file: TOKENS,
        from: "#[serde(deny_unknown_fields)]
struct Header {",
        to: "struct Header {",
        tests: LibraryUnit(&["tokens::tests::a_header_that_is_not_ours_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "roles-of-all-kinds",
        breaks: "a tenant's token may say operator",
        file: TOKENS,
        from: "        Some(_) => TENANT_ROLES.contains(&role),",
        to: "        Some(_) => !role.is_empty(),",
        tests: LibraryUnit(&["tokens::tests::a_claim_that_is_wrong_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "refresh-tokens-twice",
        breaks: "a refresh token that was copied is good for both",
        file: SESSION_ROWS,
        from: "    if row.get(3) {",
        to: "    if row.get::<_, bool>(3) && session.id.is_nil() {",
        tests: Server(&["http::sessions::a_refresh_token_is_good_once_and_a_second_use_ends_the_session"]),
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
            "http::sessions::a_refresh_token_is_good_once_and_a_second_use_ends_the_session",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "sessions-never-end",
        breaks: "a session can be refreshed after its end",
        file: SESSION_ROWS,
        from: "AND s.revoked_at IS NULL AND s.expires_at > now()",
        to: "AND s.revoked_at IS NULL",
        tests: Server(&["http::sessions::a_session_ends_at_its_end_however_often_it_was_refreshed"]),
        survives_because: None,
    },
    Mutant {
        name: "switch-after-sign-out",
        breaks: "who signed out moves on to another tenant",
        file: SESSIONS,
        from: "        if !sessions::is_live(&mut tx, claims.sid, identity).await? {",
        to: "        if claims.sid.is_nil() {",
        tests: Server(&["http::sessions::a_session_moves_between_ones_own_tenants_only"]),
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
        file: SESSIONS,
        from: "            None => Some(only_one(tenants)?),
        };
        if let Some((tenant, _)) = &place {
            tenant.status.require_active()?;
        }",
        to: "            None => Some(only_one(tenants)?),
        };",
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
        let refresh = new_refresh_token(&mut tx, session.id).await?;",
        to: "        let refresh = new_refresh_token(&mut tx, session.id).await?;",
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
        file: SESSIONS,
        from: "Some(_) => Some(tenants.into_iter().next().ok_or_else(wrong_credentials)?),",
        to: "Some(_) => {
                let none = || Error::new(ErrorKind::NotFound, \"no such tenant\");
                Some(tenants.into_iter().next().ok_or_else(none)?)
            }",
        tests: Server(&["http::sessions::every_wrong_guess_is_answered_in_the_same_bytes"]),
        survives_because: None,
    },
    Mutant {
        name: "guesses-unlimited",
        breaks: "passwords may be guessed without end",
        file: SESSIONS,
        from: "        self.limiter.check(email, client).map_err(|wait| Error::rate_limited(wait.seconds()))
",
        to: "        let _ = (&self.limiter, email, client);
        Ok(())
",
        tests: Server(&["http::sessions::guesses_at_one_address_are_limited_whoever_makes_them"]),
        survives_because: None,
    },
    Mutant {
        name: "any-password",
        breaks: "every password is the right one",
        file: "crates/freehold/src/passwords.rs",
        from: "    computed == Some(hash) && known",
        to: "    computed.is_some() && hash.len() > 0 && known",
        tests: Server(&["http::sessions::every_wrong_guess_is_answered_in_the_same_bytes"]),
        survives_because: None,
    },
    Mutant {
        name: "invitations-never-run-out",
        breaks: "an invitation can be accepted after its end",
        file: INVITATIONS,
        from: "            \"DELETE FROM invitation WHERE token_hash = $1 AND expires_at > now()",
        to: "            \"DELETE FROM invitation WHERE token_hash = $1",
        tests: Server(&["http::invitations::an_invitation_that_was_taken_back_or_ran_out_is_unknown"]),
        survives_because: None,
    },
    Mutant {
        name: "invitations-of-any-tenant",
        breaks: "a tenant takes back another's invitation",
        file: INVITATIONS,
        from: "            \"SELECT role FROM invitation WHERE tenant_id = $1 AND id = $2 FOR UPDATE\",",
        to: "            \"SELECT role FROM invitation WHERE $1::uuid IS NOT NULL AND id = $2 FOR UPDATE\",",
        tests: Server(&["http::router::another_tenants_objects_look_like_none_on_every_route"]),
        survives_because: Some("the catalog's own row-level security shows a tenant its own rows alone"),
    },
    Mutant {
        name: "known-people-need-no-password",
        breaks: "who holds an invitation becomes the person it was sent to",
        file: "crates/freehold/src/control/joining.rs",
        from: "            Owner::Known(credential.ok_or_else(wrong_credentials)?.identity)",
        to: "            let known = identities::find_credential(&mut self.catalog(\"\").await?, &email).await?;
            Owner::Known(credential.or(known).ok_or_else(wrong_credentials)?.identity)",
        tests: Server(&["http::invitations::somebody_known_proves_themselves_and_belongs_to_both"]),
        survives_because: None,
    },
];
