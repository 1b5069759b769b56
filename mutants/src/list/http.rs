//! The HTTP service: permissions, caching, limits.

use super::Mutant;
use super::Tests::{Server, ServerUnit};

const AUTH: &str = "crates/freehold-server/src/http/auth.rs";
const ARRIVAL: &str = "crates/freehold-server/src/http/arrival.rs";
const MIDDLEWARE: &str = "crates/freehold-server/src/http/middleware.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "tenants-are-operators",
        breaks: "a tenant's token opens the operators' endpoints",
        file: AUTH,
        from: "            caller @ Caller::Tenant(..) => Err(wrong_scope(
                state,
                &caller,
                \"this takes an operator's token, and a tenant's was sent\",
            )),",
        to: "            Caller::Tenant(context, _) => {
                Ok(OperatorCaller(OperatorContext::of(context.actor().id, \"\")))
            }",
        tests: Server(&["http::auth::tenants_and_operators_have_no_say_in_each_others_affairs"]),
        survives_because: None,
    },
    Mutant {
        name: "named-tenant-unchecked",
        breaks: "a request that names another tenant than its token is served",
        file: AUTH,
        from: "        check_named_tenant(&parts.headers, &caller, state)?;",
        to: "        let _ = check_named_tenant(&parts.headers, &caller, state);",
        tests: Server(&["http::auth::a_token_of_one_tenant_opens_no_other_that_the_request_names"]),
        survives_because: None,
    },
    Mutant {
        name: "forwarded-always-trusted",
        breaks: "a client chooses the address that its guesses are counted by",
        file: AUTH,
        from: "    state.limits().trust_forwarded_for.then(forwarded).flatten().unwrap_or(peer)",
        to: "    Some(state).and_then(|_| forwarded()).unwrap_or(peer)",
        tests: Server(&[
            "http::sessions::guesses_of_one_client_are_limited_whatever_header_it_sends",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "data-without-a-right",
        breaks: "the data API does not ask whether a role may write",
        file: "crates/freehold-server/src/http/data.rs",
        from: "        state.freehold().require_write(&context, Action::WriteData)?;
",
        to: "        let _ = Action::WriteData;
",
        tests: Server(&["http::data::a_viewer_reads_and_writes_nothing"]),
        survives_because: None,
    },
    Mutant {
        name: "answers-are-cached",
        breaks: "a proxy may keep one tenant's answer for another",
        file: MIDDLEWARE,
        from: "HeaderValue::from_static(\"private, no-store\")",
        to: "HeaderValue::from_static(\"public, max-age=60\")",
        tests: Server(&["http::router::what_one_tenant_cached_is_not_served_to_the_other"]),
        survives_because: None,
    },
    Mutant {
        name: "bodies-without-bound",
        breaks: "a body may have any size",
        file: "crates/freehold-server/src/http/router.rs",
        from: "        .layer(DefaultBodyLimit::max(body_bytes_max))",
        to: "        .layer(DefaultBodyLimit::max(body_bytes_max.max(1 << 30)))",
        tests: Server(&["http::json::a_body_over_the_limit_is_refused_on_every_endpoint"]),
        survives_because: None,
    },
    Mutant {
        name: "requests-without-bound",
        breaks: "a request may take any time",
        file: MIDDLEWARE,
        from: "    match tokio::time::timeout(state.limits().time_max, work).await {",
        to: "    match tokio::time::timeout(state.limits().time_max * 1000, work).await {",
        tests: Server(&[
            "http::middleware::a_request_that_takes_too_long_is_stopped_and_so_is_its_query",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "places-without-bound",
        breaks: "one caller's requests take every place",
        file: ARRIVAL,
        from: "let place = self.clients.share_of(network(client), 1);",
        to: "let place = self.clients.share_of(network(client), 1);\n        return Ok(place);",
        tests: Server(&[
            "http::middleware::requests_of_one_tenant_or_client_leave_room_for_those_of_others",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "unknown-fields-taken",
        breaks: "a body's fields that nobody knows are passed over",
        file: "crates/freehold-server/src/http/tenants.rs",
        from: "#[serde(deny_unknown_fields)]
pub(super) struct CreateTenantRequest {",
        to: "pub(super) struct CreateTenantRequest {",
        tests: Server(&[
            "http::json::a_field_that_may_not_be_set_is_refused_as_unknown_on_every_endpoint",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "ready-whatever-the-role",
        breaks: "a server is ready whose role row-level security does not bind",
        file: "crates/freehold-server/src/http/readiness.rs",
        from: "if !is_passing(&error) => Err(error),",
        to: "if !is_passing(&error) => Ok(()),",
        tests: Server(&[
            "http::health::a_server_whose_role_came_to_own_a_tenants_table_is_not_ready",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "probes-hear-of-roles",
        breaks: "whoever asks /readyz reads the names of roles and tables",
        file: "crates/freehold-server/src/http/readiness.rs",
        from: "        ErrorKind::Setup => {",
        to: "        ErrorKind::RateLimited => {",
        tests: Server(&[
            "http::health::a_server_whose_role_came_to_own_a_tenants_table_is_not_ready",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "lists-stop-in-silence",
        breaks: "a command shows the first page of a list as if it were all",
        file: "crates/freehold-server/src/cli/listing.rs",
        from: "        if !was_full {",
        to: "        if !was_full || items.len() > 100 {",
        tests: ServerUnit(&["cli::listing::tests::a_list_is_whole_or_says_where_the_rest_begins"]),
        survives_because: None,
    },
    Mutant {
        name: "full-disks-are-done",
        breaks: "a command whose output was lost on a full disk ends as if it were written",
        file: "crates/freehold-server/src/cli/output.rs",
        from: "        if error.kind() != ErrorKind::BrokenPipe && !LOST.swap(true, Ordering::Relaxed) {",
        to: "        if error.kind() != ErrorKind::BrokenPipe && LOST.swap(false, Ordering::Relaxed) {",
        tests: Server(&[
            "commands::a_reader_that_ends_first_is_no_failure_and_a_full_disk_is_one_and_neither_is_a_panic",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "ready-whatever-is-unprotected",
        breaks: "a server is ready beside a table without row-level security",
        file: "crates/freehold-server/src/http/readiness.rs",
        from: "Some(examined) if examined.findings.fleet.is_empty() => Verdict::Ready,",
        to: "Some(examined) if examined.findings.fleet.len() < 1000 => Verdict::Ready,",
        tests: Server(&["http::health::a_server_beside_a_fleet_without_protection_is_not_ready"]),
        survives_because: None,
    },
    Mutant {
        name: "sign-up-though-closed",
        breaks: "anybody makes tenants where the operator forbade it",
        file: "crates/freehold-server/src/http/signup.rs",
        from: "    if state.signup() != SignUpMode::Off {",
        to: "    if state.signup() != SignUpMode::Open {",
        tests: Server(&[
            "http::signup::a_service_that_takes_no_sign_ups_says_so_and_makes_nothing",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "read-only-databases-are-ready",
        breaks: "a server says that it is ready while its database takes no writes",
        file: "crates/freehold-server/src/http/readiness.rs",
        from: "error.kind() != ErrorKind::Setup && !error.is_read_only()",
        to: "error.kind() != ErrorKind::Setup",
        tests: Server(&[
            "http::health::a_server_whose_database_takes_no_writes_is_not_ready_until_it_does_again",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "readiness-looks-seldom",
        breaks: "a read-only spell is known after two seconds",
        file: "crates/freehold-server/src/http/readiness.rs",
        from: "const EVERY: Duration = Duration::from_millis(750);",
        to: "const EVERY: Duration = Duration::from_millis(1000);",
        tests: ServerUnit(&[
            "http::readiness::tests::a_read_only_spell_and_its_end_are_looked_for_every_two_seconds",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "a-blink-is-an-outage",
        breaks: "servers go out when the database was away now and then, however briefly",
        file: "crates/freehold-server/src/http/readiness.rs",
        from: "        self.0 = self.0.filter(|_| holds).or_else(|| holds.then(Instant::now));",
        to: "        self.0 = self.0.or_else(|| holds.then(Instant::now));",
        tests: ServerUnit(&[
            "http::readiness::tests::an_outage_counts_once_it_has_lasted_and_a_blink_not",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "metrics-tell-where-replicas-are",
        breaks: "whoever asks /metrics reads the hosts and ports of database servers",
        file: "crates/freehold-server/src/http/metrics.rs",
        from: "    if tenants {\n        write_replicas",
        to: "    write_replicas(&mut text, state.freehold());\n    if tenants {\n        write_replicas",
        tests: Server(&["replicas::http::a_server_whose_replica_is_gone_is_ready_and_says_so"]),
        survives_because: None,
    },
];
