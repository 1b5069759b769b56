//! What PostgreSQL's catalogs and counts show about a tenant, and what they do not.

use super::{advise, fill, house, inside, told};
use crate::support::operator;

#[tokio::test]
async fn what_was_counted_before_a_tenant_was_there_is_not_its_own() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    let report = advise(&house, &acme).await;
    let tenant = house.freehold.tenants().get(&operator(), acme.tenant()).await.unwrap();
    assert_eq!(report.counted_since, tenant.created_at);
}

#[tokio::test]
async fn indexes_that_find_or_order_otherwise_are_no_duplicates() {
    let house = house().await;
    let acme = house.tenant("acme").await;
    fill(&house, &acme).await;
    let client = inside(&house, &acme).await;
    let others = "
        CREATE INDEX by_order ON logs (line, id DESC);
        CREATE INDEX by_class ON logs (line text_pattern_ops, id);
        CREATE INDEX by_collation ON logs (line COLLATE \"C\", id);
        CREATE INDEX by_condition ON logs (line, id) WHERE id > 5;
        CREATE INDEX by_expression ON logs (lower(line), id);
        CREATE INDEX by_hash ON logs USING hash (line);
        CREATE INDEX plain ON logs (line, id);";
    client.batch_execute(others).await.unwrap();
    let baseline = "duplicate people_city_idx".to_owned();
    assert_eq!(told(&advise(&house, &acme).await), std::slice::from_ref(&baseline));
    // One that is, beside them.
    client.batch_execute("CREATE INDEX twin ON logs (line, id)").await.unwrap();
    let told = told(&advise(&house, &acme).await);
    assert_eq!(told, ["duplicate twin".to_owned(), baseline]);
}
