//! Clients that use too much: connections, time, memory.

use super::Mutant;
use super::Tests::{Library, LibraryUnit, Server};

const CONNECTIONS: &str = "crates/freehold-server/src/http/connections.rs";
const REGISTRY: &str = "crates/freehold-server/src/http/connections/registry.rs";
const FILES: &str = "crates/freehold-server/src/http/connections/files.rs";
const ARRIVAL: &str = "crates/freehold-server/src/http/arrival.rs";
const BUDGET: &str = "crates/freehold/src/model/budget.rs";
const STATE: &str = "crates/freehold-server/src/http/state.rs";
const WIRE: &str = "crates/freehold/src/wire.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "a-flush-is-forgotten",
        breaks: "a statement stays with the socket, and its answer is waited for for ever",
        file: WIRE,
        from: "        if self.unflushed && Pin::new(&mut self.socket).poll_flush(cx)?.is_ready() {\n",
        to: "        if wrote && Pin::new(&mut self.socket).poll_flush(cx)?.is_ready() {\n",
        tests: LibraryUnit(&[
            "wire::tests::no_answer_is_waited_for_while_its_question_is_still_with_the_socket",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "holders-take-all",
        breaks: "the answers to one tenant leave no room for those to others",
        file: BUDGET,
        from: "        let left = whole.max - held;\n",
        to: "        let left = whole.max;\n",
        tests: LibraryUnit(&[
            "model::budget::tests::a_holder_takes_no_more_than_it_leaves_and_is_forgotten_with_its_last_share",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "answers-have-no-holder",
        breaks: "the answers to one tenant leave no room for those to others",
        file: STATE,
        from: "self.0.answers.share_of(tenant.as_uuid().as_u128(), self.0.answer_bytes_max)",
        to: "self.0.answers.share(self.0.answer_bytes_max + u64::from(tenant.as_uuid().is_nil()))",
        tests: Server(&[
            "connections::answers::answers_to_one_tenant_leave_room_for_those_to_another",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "tenants-take-all-places",
        breaks: "the requests of one tenant leave no place for those of others",
        file: ARRIVAL,
        from: "self.tenants.share_of(tenant.as_uuid().as_u128(), 1)",
        to: "self.tenants.share_of(u128::from(tenant.as_uuid().is_nil()), u64::MAX)",
        tests: Server(&[
            "http::middleware::requests_of_one_tenant_or_client_leave_room_for_those_of_others",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "half-heads-keep-their-place",
        breaks: "connections that say nothing keep everybody else out",
        file: REGISTRY,
        from: "            Phase::Head => Some((1, since)),",
        to: "            Phase::Head => None,",
        tests: Server(&["connections::half_sent_heads_take_nobodys_place"]),
        survives_because: None,
    },
    Mutant {
        name: "heads-take-for-ever",
        breaks: "a head may arrive byte by byte, for hours",
        file: REGISTRY,
        from: "            Phase::Head if over(since, limits.head_max) => Some(\"head\"),",
        to: "            Phase::Head if over(since, limits.head_max * 1000) => Some(\"head\"),",
        tests: Server(&["connections::a_head_that_does_not_arrive_in_its_time_is_given_up"]),
        survives_because: None,
    },
    Mutant {
        name: "idle-connections-stay",
        breaks: "a connection of which nobody makes use is kept for ever",
        file: REGISTRY,
        from: "            Phase::Idle if stalled == 0 && over(since, limits.idle_max) => Some(\"idle\"),",
        to: "            Phase::Idle if stalled == 1 && over(since, limits.idle_max) => Some(\"idle\"),",
        tests: Server(&["connections::an_idle_connection_is_closed_after_its_time"]),
        survives_because: None,
    },
    Mutant {
        name: "answers-wait-for-ever",
        breaks: "a client that reads nothing holds its answer in memory",
        file: REGISTRY,
        from: "        if stalled > 0 && over(stalled, limits.stall_max) {",
        to: "        if stalled > 0 && over(stalled, limits.stall_max * 1000) {",
        tests: Server(&["connections::a_client_that_does_not_take_its_answer_is_given_up"]),
        survives_because: None,
    },
    Mutant {
        name: "no-limit-of-connections",
        breaks: "clients take all open files, those of the database's connections too",
        file: REGISTRY,
        from: "                open.regular() < self.limits.connections_max || open.evict(|other| !other.spare)",
        to: "                open.regular() < usize::MAX || open.evict(|other| !other.spare)",
        tests: Server(&[
            "connections::where_all_connections_are_served_the_next_is_told_so_and_probes_answer",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "one-client-has-all",
        breaks: "one client may have every connection",
        file: REGISTRY,
        from: "            self.limits.per_client_max.is_some_and(|max| open.of_client(client) >= max);",
        to: "            self.limits.per_client_max.is_some_and(|max| open.of_client(client) > max * 100);",
        tests: Server(&["connections::one_client_has_a_part_of_the_connections"]),
        survives_because: None,
    },
    Mutant {
        name: "proxies-are-clients",
        breaks: "all clients behind a proxy have the connections of one",
        file: FILES,
        from: "(!settings.trust_forwarded_for).then_some(per_client as usize)",
        to: "Some(per_client as usize)",
        tests: Server(&["connections::one_client_has_a_part_of_the_connections"]),
        survives_because: None,
    },
    Mutant {
        name: "probes-are-refused",
        breaks: "a server that is full looks dead",
        file: CONNECTIONS,
        from: "    matches!(path, \"/livez\" | \"/readyz\" | \"/metrics\")",
        to: "    matches!(path, \"/readyz\" | \"/metrics\")",
        tests: Server(&[
            "connections::where_all_connections_are_served_the_next_is_told_so_and_probes_answer",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "bodies-take-for-ever",
        breaks: "a body may arrive byte by byte, for hours",
        file: ARRIVAL,
        from: "tokio::time::timeout(self.time_max, self.collect(body, client))",
        to: "tokio::time::timeout(self.time_max * 1000, self.collect(body, client))",
        tests: Server(&[
            "connections::bodies::a_body_that_does_not_arrive_in_its_time_is_answered_408",
        ]),
        survives_because: None,
    },
    Mutant {
        name: "bodies-are-awaited-in-place",
        breaks: "requests that have not arrived keep those out that have",
        file: "crates/freehold-server/src/http/middleware.rs",
        from: "    let request = match state.bodies().await_body(request, client).await {",
        to: "    let _early = state.places().of_client(client);
    let request = match state.bodies().await_body(request, client).await {",
        tests: Server(&["connections::bodies::unfinished_bodies_take_nobodys_place"]),
        survives_because: None,
    },
    Mutant {
        name: "two-lengths-are-taken",
        breaks: "a request that a proxy may cut elsewhere is served",
        file: "crates/freehold-server/src/http/connections/framing.rs",
        from: "            State::Head { length: Some(_), chunked: true, .. } if line.is_empty() => return None,
",
        to: "",
        tests: Server(&["connections::bodies::a_length_beside_chunks_is_refused"]),
        survives_because: None,
    },
    Mutant {
        name: "bodies-have-no-budget",
        breaks: "the bodies of many requests take all memory",
        file: ARRIVAL,
        from: "            share.take(bytes.len() as u64).map_err(|_| overloaded(NO_ROOM))?;",
        to: "            share.take(0).map_err(|_| overloaded(NO_ROOM))?;",
        tests: Server(&["connections::bodies::bodies_together_take_so_much_memory"]),
        survives_because: None,
    },
    Mutant {
        name: "rows-are-not-weighed",
        breaks: "an answer takes as much memory as PostgreSQL sends",
        file: WIRE,
        from: "                        if let Err(excess) = bound.take(row.weight()) {",
        to: "                        if let Err(excess) = bound.take(row.weight() / 1000) {",
        tests: Library(&["answers::rows_take_no_more_memory_than_they_may"]),
        survives_because: None,
    },
    Mutant {
        name: "answers-are-free-before-they-are-sent",
        breaks: "clients that read slowly fill the memory with answers",
        file: "crates/freehold-server/src/http/data.rs",
        from: "Response::new(Body::from(held(answer.body, share)));",
        to: "Response::new(Body::from(held(answer.body, ())));",
        tests: Server(&["connections::answers::answers_together_take_so_much_memory"]),
        survives_because: None,
    },
    Mutant {
        name: "returning-commits-before-its-size-is-known",
        breaks: "a write is done, and answered that it was refused",
        file: "crates/freehold-server/src/data/plan.rs",
        from: "let may_refuse = self.media_type.single || reply.written_max.is_some() || reply.has_body;",
        to: "let may_refuse = self.media_type.single || reply.written_max.is_some() || reply.returned_max.is_some();",
        tests: Server(&["connections::answers::a_write_whose_answer_is_too_large_is_not_done"]),
        survives_because: None,
    },
    Mutant {
        name: "batches-commit-before-their-size-is-known",
        breaks: "a batch is done, and answered that it was refused",
        file: "crates/freehold-server/src/http/batch.rs",
        from: "    if !tells_place && !may_exceed && ",
        to: "    if !tells_place && ",
        tests: Server(&["connections::answers::a_write_whose_answer_is_too_large_is_not_done"]),
        survives_because: None,
    },
];
