//! Membership, roles, and the status of tenants: resolver, members, onboarding.

use super::Mutant;
use super::Tests::{Library, LibraryUnit, Server};

const RESOLVER: &str = "crates/freehold/src/resolve/resolver.rs";
const MEMBERS: &str = "crates/freehold/src/control/members.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "membership-ignored",
        breaks: "a person who is no member gets a context",
        file: RESOLVER,
        from: "        let role = role.ok_or_else(no_such_tenant)?;",
        to: "        let role = role.unwrap_or(Role::Member);",
        tests: Library(&["roles::a_person_acts_in_the_role_of_their_membership"]),
        survives_because: None,
    },
    Mutant {
        name: "suspended-is-served",
        breaks: "the guard of a tenant's status is missing",
        file: RESOLVER,
        from: "        tenant.status.require_active()?;
        let actor = Actor",
        to: "        let actor = Actor",
        tests: Server(&[
            "http::auth::a_suspended_tenant_is_refused_on_every_server_within_a_second_and_resumed_is_served",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "suspended-is-served-by-the-library",
        breaks: "an actor of the embedding service's works in a suspended tenant",
        file: RESOLVER,
        from: "        tenant.status.require_active()?;
        Ok(TenantContext::new(tenant.id, actor)",
        to: "        Ok(TenantContext::new(tenant.id, actor)",
        tests: Library(&["roles::nobody_acts_in_a_suspended_tenant"]),
        survives_because: None,
    },
    Mutant {
        name: "word-of-tenants-unheard",
        breaks: "a server keeps serving a tenant that was suspended elsewhere",
        file: RESOLVER,
        from: "            (Some(\"tenant\"), [tenant]) => {
                self.tenants.invalidate(&TenantId::from(*tenant));",
        to: "            (Some(\"tenant\"), [tenant]) => {",
        tests: Server(&[
            "http::auth::a_suspended_tenant_is_refused_on_every_server_within_a_second_and_resumed_is_served",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "word-of-members-unheard",
        breaks: "a server keeps serving a member who was removed elsewhere",
        file: RESOLVER,
        from: "                self.roles.invalidate(&(TenantId::from(*tenant), IdentityId::from(*identity)));",
        to: "                let _ = (tenant, identity);",
        tests: Server(&[
            "http::auth::a_member_who_was_removed_is_refused_on_every_server_within_a_second",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "no-word-of-tenants",
        breaks: "the database tells no server that a tenant changed",
        file: "crates/freehold/migrations/0001_catalog.sql",
        from: "CREATE TRIGGER notify AFTER UPDATE OF status, slug, name, weight OR DELETE ON freehold.tenant",
        to: "CREATE TRIGGER notify AFTER UPDATE OF version OR DELETE ON freehold.tenant",
        tests: Server(&[
            "http::auth::a_suspended_tenant_is_refused_on_every_server_within_a_second_and_resumed_is_served",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "the-deaf-believe",
        breaks: "a server without its listener believes what it knew, for ever",
        file: "crates/freehold/src/cache/freshness.rs",
        from: "        self.hears() || loaded_at.elapsed() < DEAF_MAX",
        to: "        let _ = loaded_at;
        true",
        tests: Server(&[
            "http::auth::a_server_that_cannot_listen_hears_of_a_suspension_all_the_same",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "everything-is-read-at-every-look",
        breaks: "behind a pooler baseline and keys are read every two seconds, though nothing has changed",
        file: RESOLVER,
        from: "        let before = marks.replace(now);",
        to: "        marks.replace(now);
        let before: Option<Marks> = None;",
        tests: Library(&[
            "changes::where_nothing_can_be_heard_nothing_is_read_again_unless_it_has_changed",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "who-cannot-ask-learns-no-key",
        breaks: "behind a pooler a server is shut out for ever by a key that retires at once",
        file: RESOLVER,
        from: "            if error.kind() == ErrorKind::Setup {",
        to: "            if error.kind() == ErrorKind::RateLimited {",
        tests: Library(&["changes::where_nothing_can_be_heard_a_new_key_is_taken_up_all_the_same"]),
        survives_because: None,
    },
    Mutant {
        name: "roles-above-ones-own",
        breaks: "an admin makes owners, and unmakes them",
        file: "crates/freehold/src/model/actor.rs",
        from: "(Some(own), Some(asked)) if own >= asked)",
        to: "(Some(own), Some(_)) if own >= 2)",
        tests: LibraryUnit(&["model::actor::tests::nobody_grants_above_their_own_role"]),
        survives_because: None,
    },
    Mutant {
        name: "anybody-changes-roles",
        breaks: "a viewer changes the roles of others",
        file: MEMBERS,
        from: "        self.0.require_write(context, Action::ManageMembers)?;
        let mut tx = self.0.catalog_of(context).await?;
        let owners",
        to: "        let mut tx = self.0.catalog_of(context).await?;
        let owners",
        tests: Server(&["http::members::each_role_may_do_on_each_endpoint_what_was_reviewed"]),
        survives_because: None,
    },
    Mutant {
        name: "anybody-removes-members",
        breaks: "a viewer removes others",
        file: MEMBERS,
        from: "        if !leaves {
            self.0.require_write(context, Action::ManageMembers)?;
        }",
        to: "",
        tests: Server(&["http::members::each_role_may_do_on_each_endpoint_what_was_reviewed"]),
        survives_because: None,
    },
    Mutant {
        name: "anybody-sees-invitations",
        breaks: "an endpoint forgets its check",
        file: "crates/freehold/src/control/invitations.rs",
        from: "        require(context.role(), Action::ManageMembers)?;
        let mut tx = self.0.catalog_of(context).await?;
        let list",
        to: "        let mut tx = self.0.catalog_of(context).await?;
        let list",
        tests: Server(&[
            "http::invitations::only_those_who_manage_members_invite_and_see_who_is_invited",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "last-owner-leaves",
        breaks: "a tenant is left to nobody",
        file: MEMBERS,
        from: "        if current == Role::Owner && owners == 1 {",
        to: "        if current == Role::Owner && owners == 0 {",
        tests: Server(&["http::members::the_last_owner_stays_and_keeps_the_role"]),
        survives_because: None,
    },
    Mutant {
        name: "others-members-are-forbidden",
        breaks: "another tenant's member is told apart from one that does not exist",
        file: MEMBERS,
        from: "    Error::new(ErrorKind::NotFound, \"there is no such member\")",
        to: "    Error::new(ErrorKind::Forbidden, \"this member is another tenant's\")",
        tests: Server(&[
            "http::members::what_is_no_members_id_names_nobody",
            "http::router::another_tenants_objects_look_like_none_on_every_route",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "idempotency-ignores-the-body",
        breaks: "a key answers another request with the first one's tenant",
        file: "crates/freehold/src/catalog/idempotency.rs",
        from: "    if row.get::<_, Vec<u8>>(0) != key.request_hash {",
        to: "    if row.get::<_, Vec<u8>>(0).is_empty() {",
        tests: Server(&["http::tenants::a_request_that_is_sent_again_gets_the_first_answer"]),
        survives_because: None,
    },
    Mutant {
        name: "idempotency-keys-of-all",
        breaks: "an operator's key is answered with what another's made",
        file: "crates/freehold-server/src/http/tenants.rs",
        from: "    let scope = format!(\"operator {}\", context.actor());",
        to: "    let scope = \"operator\".to_owned();",
        tests: Server(&["http::tenants::a_key_is_its_callers_own"]),
        survives_because: None,
    },
];
