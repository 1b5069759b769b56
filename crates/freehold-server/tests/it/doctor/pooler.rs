//! The doctor behind a PgBouncer: what it detects with two clients.

use super::{Fleet, codes, doctor};
use crate::pooler::PgBouncer;
use crate::support::text;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_transaction_mode_is_seen_and_what_crosses_it_is_told() {
    let fleet = Fleet::new().await;
    let pooler =
        PgBouncer::start(&fleet.database, "pool_mode = transaction\nstats_users = freehold_app");
    let owner = fleet.database.owner_url();
    let report = doctor(&pooler.url(&fleet.database), &owner, &["--json"]).ended(0).json();
    let found = codes(&report);
    assert!(found.contains(&"FH602".to_owned()), "{report:#}");
    assert!(!found.contains(&"FH601".to_owned()), "{report:#}");
    let shared =
        report["findings"].as_array().unwrap().iter().find(|f| f["code"] == "FH602").unwrap();
    let detail = text(&shared["examples"][0]["detail"]);
    assert!(detail.contains("a setting of the first reached the second"), "{detail}");
    assert_eq!(report["not_checked"], serde_json::json!([]));
    // The trial leaves nothing in the session for the next client.
    let again = doctor(&pooler.url(&fleet.database), &owner, &["--json"]).ended(0).json();
    assert_eq!(codes(&again), found);
    // All the rest can be asked through it too.
    let report = doctor(&pooler.url(&fleet.database), "", &["--json"]).ended(0).json();
    assert_eq!(codes(&report), found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_shows_no_settings_is_not_taken_for_a_good_one() {
    let fleet = Fleet::new().await;
    let pooler = PgBouncer::start(&fleet.database, "pool_mode = transaction");
    let report =
        doctor(&pooler.url(&fleet.database), &fleet.database.owner_url(), &["--json"]).json();
    let missing = report["not_checked"].as_array().unwrap();
    assert_eq!(missing.len(), 1, "{report:#}");
    assert_eq!(missing[0]["code"], "FH603");
    assert!(text(&missing[0]["reason"]).contains("stats_users"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_breaks_transactions_apart_is_critical() {
    let fleet = Fleet::new().await;
    let pooler = PgBouncer::start(&fleet.database, "pool_mode = statement");
    let report = doctor(&pooler.url(&fleet.database), &fleet.database.owner_url(), &["--json"])
        .ended(3)
        .json();
    assert!(codes(&report).contains(&"FH601".to_owned()), "{report:#}");
}
