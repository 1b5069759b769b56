//! The queue: what is folded, what is evicted, and when a violation is due.

use super::*;
use crate::model::origin::{Origin, with_origin};

/// As `origin.rs` bounds what came from outside.
const TEXT_CHARS_MAX: usize = 400;

fn request(id: &str) -> Origin {
    Origin { request_id: Some(id.into()), from: None }
}

fn because(reason: &str) -> Violation {
    Violation::new(ViolationKind::WrongScope).because(reason)
}

fn kinds(violations: &Violations) -> [u64; 5] {
    violations.counts().by_kind.map(|(_, count)| count)
}

#[tokio::test(start_paused = true)]
async fn the_first_is_due_at_once_and_its_repetitions_together_after_a_second() {
    let violations = Violations::default();
    for _ in 0..3 {
        violations.record(because("a"));
    }
    violations.due().await;
    let first = violations.batch(100, false);
    assert_eq!((first.len(), first[0].count), (1, 3));
    violations.written(&first);
    assert!(violations.batch(100, true).is_empty(), "what is written is not due again");

    let began = Instant::now();
    violations.record(because("a"));
    assert!(violations.batch(100, false).is_empty(), "a repetition may still be folded");
    violations.due().await;
    assert_eq!(began.elapsed(), FOLD);
    let again = violations.batch(100, false);
    assert_eq!((again.len(), again[0].id, again[0].count), (1, first[0].id, 4));
    violations.written(&again);

    violations.record(because("a"));
    let next = violations.batch(100, false);
    assert_eq!((next.len(), next[0].count), (1, 1), "a second later it is an event of its own");
    assert!(next[0].id > first[0].id, "ids are in the order of time");
    assert_eq!(kinds(&violations), [0, 0, 5, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_the_same_in_all_but_its_request_is_folded() {
    let violations = Violations::default();
    let tenant = TenantId::generate();
    with_origin(request("one"), async { violations.record(because("a")) }).await;
    with_origin(request("two"), async { violations.record(because("a")) }).await;
    violations.record(because("b"));
    violations.record(because("a").towards(Some(tenant)));
    violations.record(Violation::new(ViolationKind::ForgedToken).because("a"));
    let rows = violations.batch(100, false);
    let told: Vec<_> = rows.iter().map(|row| (row.count, row.request_id.as_deref())).collect();
    assert_eq!(told, [(2, Some("one")), (1, None), (1, None), (1, None)]);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_what_falls_out_is_counted() {
    let violations = Violations::default();
    violations.record(because("first"));
    violations.record(because("first"));
    for n in 0..WAITING_MAX + 10 {
        violations.record(because(&n.to_string()));
    }
    let all = violations.batch(usize::MAX, true);
    assert_eq!(all.len(), WAITING_MAX);
    assert_eq!(all[0].violation.reason.as_deref(), Some("10"), "the oldest went");
    assert_eq!(violations.counts().dropped, 12, "both of the first, and ten more");

    // Rows that were written make room without a loss.
    violations.written(&all);
    tokio::time::advance(FOLD).await;
    violations.record(because("next"));
    assert_eq!(violations.batch(usize::MAX, true).len(), 1);
    assert_eq!(violations.counts().dropped, 12);

    assert_eq!(violations.give_up(), 1);
    assert_eq!(violations.counts().dropped, 13);
    assert!(violations.batch(usize::MAX, true).is_empty());
    assert_eq!(kinds(&violations)[2], WAITING_MAX as u64 + 13);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_written_stays_due() {
    let violations = Violations::default();
    violations.record(because("a"));
    let failed = violations.batch(100, false);
    tokio::time::advance(FOLD * 60).await;
    violations.due().await;
    assert_eq!(violations.batch(100, false)[0].id, failed[0].id);
}

#[tokio::test]
async fn no_text_can_stop_the_writer() {
    let violations = Violations::default();
    let long = "x\0\n".repeat(1000);
    with_origin(request(&long), async { violations.record(because(&long)) }).await;
    let row = violations.batch(1, true).remove(0);
    for text in [row.request_id.unwrap(), row.violation.reason.unwrap()] {
        assert_eq!(text.chars().count(), TEXT_CHARS_MAX);
        assert!(!text.contains(char::is_control));
    }
}

#[test]
fn the_target_is_read_from_the_detail_of_the_database() {
    let id = TenantId::generate();
    for (detail, expected) in [
        (format!("tenant={id}"), Some(id)),
        (format!("refused; tenant={id}, context=none"), Some(id)),
        (format!("tenant={}", &id.to_string()[..35]), None),
        ("tenant=é".repeat(12), None),
        ("tenant=".to_owned(), None),
        ("malformed context".to_owned(), None),
    ] {
        assert_eq!(target_of_detail(&detail), expected, "{detail}");
    }
}

#[test]
fn kinds_are_read_as_they_are_written() {
    for kind in ViolationKind::ALL {
        assert_eq!(ViolationKind::parse(kind.as_str()).unwrap(), kind);
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        assert_eq!(ViolationKind::ALL[kind as usize], kind, "its counter is its own");
    }
    assert_eq!(ViolationKind::parse("other").unwrap_err().kind(), ErrorKind::InvalidInput);
}
