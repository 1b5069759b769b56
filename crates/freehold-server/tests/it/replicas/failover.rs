//! A server whose database is a standby that has not been promoted yet, after a failover.

use freehold::{ErrorKind, Freehold};

use super::{SOON, house, patient};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_led_to_a_standby_says_so_until_it_is_promoted_and_writes_then() {
    let house = house(patient()).await;
    let acme = house.tenant("acme").await;
    house.note(&acme, "old").await;
    house.until_replayed().await;
    let mut options = house.database.options();
    options.app_url = house.replica.url(&options.app_url);
    options.owner_url = options.owner_url.map(|url| house.replica.url(&url));
    options.analytics_url = None;
    let server = Freehold::connect(&options).await.unwrap();
    assert!(server.check().await.unwrap_err().is_read_only());
    let insert = "INSERT INTO notes (body) VALUES ('new')";
    let refused = server.query(&acme, insert, &[]).await.unwrap_err();
    assert!(refused.is_read_only() && refused.kind() == ErrorKind::Unavailable, "{refused}");
    assert_eq!(server.query(&acme, "SELECT body FROM notes", &[]).await.unwrap().len(), 1);

    house.replica.promote().await;
    server.check().await.unwrap();
    let wrote = async || server.query(&acme, insert, &[]).await.is_ok();
    eventually("it writes", SOON, wrote).await;
}
