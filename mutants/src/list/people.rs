//! Management of people: proof of addresses, operators, changes of address, the record.

use super::Mutant;
use super::Tests::{LibraryUnit, Server};

const PEOPLE: &str = "crates/freehold/src/control/people.rs";
const ADDRESSES: &str = "crates/freehold/src/control/addresses.rs";
const SESSIONS: &str = "crates/freehold/src/control/sessions.rs";
const JOINING: &str = "crates/freehold/src/control/joining.rs";
const TENANTS: &str = "crates/freehold/src/control/tenants.rs";
const PROVISIONER: &str = "crates/freehold/src/fleet/provisioner.rs";
const PROOF: &str = "crates/freehold/src/sign_in/proof.rs";
const INVITATIONS: &str = "crates/freehold/src/sign_in/invitations.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "typed-addresses-are-known",
        breaks: "an address that somebody typed counts as a known person's when an operator names it",
        file: PEOPLE,
        from: "let proven = found.is_some_and(|identity| identity.is_proven);",
        to: "let proven = found.is_some();",
        tests: Server(&[
            "http::people::whoever_only_typed_an_address_is_not_the_operator_that_it_becomes",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "last-operator-goes",
        breaks: "nobody is left who could run the platform",
        file: PEOPLE,
        from: "    if identities::lock_operators(tx).await? == [id] {",
        to: "    if identities::lock_operators(tx).await?.is_empty() && id == IdentityId::SYSTEM {",
        tests: Server(&["http::people::operators_are_listed_and_revoked_and_the_last_one_stays"]),
        survives_because: None,
    },
    Mutant {
        name: "only-owners-are-removed",
        breaks: "a tenant's only owner is removed, and nobody can manage its members",
        file: PEOPLE,
        from: "        if !alone.is_empty() {",
        to: "        if alone.len() > 1000 {",
        tests: Server(&[
            "http::people::a_person_is_removed_whole_but_not_from_a_tenant_that_nobody_else_owns",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "reset-leaves-sessions",
        breaks: "an operator's reset of a person leaves a thief's sessions open",
        file: PEOPLE,
        from: "                proof::end_everything(&mut tx, &identity, None).await?;
                identities::delete_password",
        to: "                identities::delete_password",
        tests: Server(&[
            "http::people::support_resets_a_person_without_making_them_anything_and_ends_what_was_open",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "one-mailbox-suffices",
        breaks: "whoever reads one of two mailboxes takes the account over",
        file: ADDRESSES,
        from: "        if waits_for.is_none() {
            replace_address",
        to: "        if waits_for != Some(Mailbox::New) {
            replace_address",
        tests: Server(&["http::people::an_address_is_replaced_when_both_mailboxes_have_agreed"]),
        survives_because: None,
    },
    Mutant {
        name: "former-passwords-open-sessions",
        breaks: "a sign-in by the former password outlives the change that was made meanwhile",
        file: "crates/freehold/src/control/credentials.rs",
        from: "        if !present.is_some_and(|now| now.epoch == identity.epoch && !now.is_disabled) {",
        to: "        if !present.is_some_and(|now| !now.is_disabled) {",
        tests: Server(&[
            "http::people::a_session_that_begins_while_the_password_is_replaced_does_not_outlive_the_former",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "successors-by-chance",
        breaks: "two tabs that refresh at once go on with two tokens, and the session ends",
        file: SESSIONS,
        from: "        let refresh = token.successor(&keyring.derive(\"refresh tokens\"));",
        to: "        let _ = (keyring, token);
        let refresh = OpaqueToken::generate(OpaqueKind::Refresh);",
        tests: Server(&[
            "http::sessions::who_refreshes_at_once_or_again_within_seconds_goes_on_with_one_successor",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "invitations-for-whoever-is-signed-in",
        breaks: "somebody who is signed in accepts another person's invitation",
        file: JOINING,
        from: "(Some(known), Some(claims), _) if IdentityId::from(claims.sub) == known.id => None,",
        to: "(Some(_), Some(_), _) => None,",
        tests: Server(&[
            "http::invitations::somebody_known_accepts_signed_in_and_nobody_accepts_for_another",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "former-operators-invite-owners",
        breaks: "an invitation by somebody who is no operator any more makes an owner",
        file: JOINING,
        from: "            operator.is_some_and(|operator| operator.is_operator && !operator.is_disabled)",
        to: "            operator.is_none_or(|operator| !operator.is_disabled)",
        tests: Server(&[
            "http::people::an_owner_who_is_invited_by_an_operator_joins_only_while_that_is_one",
        ]),
        survives_because: Some("a revocation deletes the operator's invitations"),
    },
    Mutant {
        name: "everybody-reads-the-record",
        breaks: "every member reads who did what in the tenant, and from where",
        file: "crates/freehold/src/control/audit.rs",
        from: "        require(context.role(), Action::ListAudit)?;
",
        to: "        require(context.role(), Action::ListMembers)?;
",
        tests: Server(&[
            "http::audit::only_operators_and_owners_read_the_record_and_owners_their_own",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "reasons-dropped",
        breaks: "the record has the route in place of the reason that was given",
        file: "crates/freehold-server/src/http/auth.rs",
        from: "        Some(why) => Ok(context.because(why)?),",
        to: "        Some(why) => context.clone().because(why).map(|_| context).map_err(Problem::from),",
        tests: Server(&["http::audit::an_operators_reason_is_recorded_with_each_change"]),
        survives_because: None,
    },
    Mutant {
        name: "strangers-addresses-kept",
        breaks: "addresses that strangers typed are kept for 400 days",
        file: "crates/freehold/migrations/0080_people.sql",
        from: "
    OR (occurred_at < now() - interval '30 days' AND action IN ('signup.request', 'password.request'))",
        to: "",
        tests: Server(&[
            "http::audit::requests_by_strangers_are_forgotten_after_a_month_and_the_rest_after_four_hundred_days",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "hashing-takes-every-core",
        breaks: "sign-ins take all cores from tenants' requests",
        file: "crates/freehold/src/sign_in/passwords.rs",
        from: "    (cores / 2).clamp(1, 8)",
        to: "    cores.clamp(1, 8)",
        tests: LibraryUnit(&["sign_in::passwords::tests::hashing_takes_half_the_cores_at_most"]),
        survives_because: None,
    },
    Mutant {
        name: "letters-of-a-tenant-without-end",
        breaks: "one tenant floods any number of mailboxes",
        file: "crates/freehold/src/catalog/outbox.rs",
        from: "        () if of_tenant >= PER_TENANT_MAX => Err(Full::Tenant),
",
        to: "",
        tests: Server(&[
            "http::people::letters_of_one_tenant_and_to_one_address_by_all_tenants_are_bounded",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "owners-removed-at-once",
        breaks: "two operators who remove a tenant's two owners at once leave it without one",
        file: "crates/freehold/src/catalog/memberships.rs",
        from: "         ORDER BY tenant_id, identity_id FOR UPDATE\",
",
        to: "         ORDER BY tenant_id, identity_id\",
",
        tests: Server(&["http::people::of_two_owners_who_are_removed_at_once_one_stays"]),
        survives_because: None,
    },
    Mutant {
        name: "operators-of-people-made-meanwhile",
        breaks: "of two requests for one new operator, the later replaces the password of the earlier",
        file: PEOPLE,
        from: "    if proof::hold(tx, email, name).await?.is_proven {",
        to: "    let found = identities::lock_by_email(tx, email.as_str()).await?;
    if found.is_some_and(|found| found.is_proven) {",
        tests: Server(&[
            "http::people::a_person_who_is_made_meanwhile_keeps_the_password_and_is_not_made_anything",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "owners-of-people-made-meanwhile",
        breaks: "of two requests for one new owner, the later replaces the password of the earlier",
        file: PROVISIONER,
        from: "            let held = proof::hold(tx, &new.email, &new.name).await?;
            // A token from a message allows setting a password for a proven person who has none.
            let vouched = by.by.is_some();
            if held.is_proven && (vouched || proof::is_known(tx, &held.email).await?) {",
        to: "            let held = identities::lock_by_email(tx, new.email.as_str()).await?;
            if held.is_some_and(|held| held.is_proven) {",
        tests: Server(&[
            "http::people::a_person_who_is_made_meanwhile_keeps_the_password_and_is_not_made_anything",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "memberships-outlive-the-proof",
        breaks: "a person who proves an address belongs to the tenants of a stranger who used it first",
        file: PROOF,
        from: "    end_memberships(tx, identity, |action| without_proof(action, by)).await?;
",
        to: "",
        tests: Server(&[
            "squatters::an_operator_made_by_command_shares_nothing_with_who_had_the_address_before",
            "squatters::an_owner_named_by_command_shares_nothing_with_who_had_the_address_before",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "memberships-end-unrecorded",
        breaks: "a tenant's owners do not learn that a member has been removed with the person",
        file: PEOPLE,
        from: "        proof::end_memberships(&mut tx, &identity, &ended).await?;
",
        to: "",
        tests: Server(&[
            "http::audit::the_record_finds_a_person_who_was_removed_by_id_and_by_address",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "invitations-outlive-a-suspension",
        breaks: "an invitation that was made before or during a suspension admits a member after it",
        file: TENANTS,
        from: "            invitations::end_of_members(&mut tx, id, ended).await?;
",
        to: "            if status == tenant.status {
                invitations::end_of_members(&mut tx, id, ended).await?;
            }
",
        tests: Server(&[
            "http::invitations::a_suspension_ends_the_invitations_of_members_and_an_operators_waits",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "invitations-outlive-the-right",
        breaks: "an invitation above the present role of its inviter waits until they are raised again",
        file: INVITATIONS,
        from: "    let lost = |offered: &Role| !role.is_some_and(|role| may_offer(role, *offered));",
        to: "    let lost = |_: &Role| role.is_none();",
        tests: Server(&["http::invitations::invitations_that_end_with_a_right_are_deleted_and_recorded"]),
        survives_because: None,
    },
    Mutant {
        name: "invitations-withdrawn-unrecorded",
        breaks: "an operator withdraws an owner's invitation, and no record says so",
        file: "crates/freehold/src/control/invitations.rs",
        from: "        audit::record(&mut tx, event.detail(json!({\"email\": email, \"role\": role}))).await?;
        tx.commit().await
",
        to: "        let _ = event.detail(json!({\"email\": email, \"role\": role}));
        tx.commit().await
",
        tests: Server(&[
            "http::invitations::operators_list_and_withdraw_every_invitation_of_a_tenant",
        ]),
        survives_because: None,
    },
];
