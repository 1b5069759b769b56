//! A transaction reaches its own tenant and nothing else, and leaves a clean connection.

use freehold::testing::create_tenant;

use crate::support::house;

#[tokio::test]
async fn a_tenant_reads_what_it_wrote_and_no_other_tenant_does() {
    let house = house().await;
    let (_, acme) = create_tenant(&house.freehold, "acme").await.unwrap();
    let (_, globex) = create_tenant(&house.freehold, "globex").await.unwrap();
    house.freehold.query(&acme, "INSERT INTO notes (body) VALUES ('ours')", &[]).await.unwrap();

    let ours = house.freehold.query(&acme, "SELECT body FROM notes", &[]).await.unwrap();
    let theirs = house.freehold.query(&globex, "SELECT body FROM notes", &[]).await.unwrap();
    assert_eq!(ours.len(), 1);
    assert_eq!(theirs.len(), 0);
}
