//! Work that no request asks for: each day's count of notes, in every active tenant.

use freehold::control::PAGE_MAX;
use freehold::{Actor, ErrorKind, Freehold, OperatorContext, Result, Tenant, TenantStatus};

/// Counts once; returns in how many tenants. Counting again on the same day is harmless.
pub async fn count_everywhere(freehold: &Freehold) -> Result<usize> {
    let operator = OperatorContext::system("count each tenant's notes");
    let (mut counted, mut after) = (0, None::<Tenant>);
    loop {
        let slug = after.as_ref().map(|tenant| tenant.slug.as_str());
        let page = freehold.tenants().list(&operator, slug, Some(PAGE_MAX)).await?;
        for tenant in page.iter().filter(|tenant| tenant.status == TenantStatus::Active) {
            match count(freehold, tenant).await {
                Ok(()) => counted += 1,
                // Suspended since the page was read.
                Err(error) if error.kind() == ErrorKind::TenantSuspended => {}
                // One tenant's trouble is not the others'.
                Err(error) => tracing::error!(%error, slug = %tenant.slug, "not counted"),
            }
        }
        after = page.into_iter().last();
        if after.is_none() {
            return Ok(counted);
        }
    }
}

async fn count(freehold: &Freehold, tenant: &Tenant) -> Result<()> {
    let context = freehold.tenant_context_as(tenant.id, Actor::SYSTEM).await?;
    let sql = "INSERT INTO daily_counts (day, notes)
        SELECT current_date, count(*) FROM notes
        ON CONFLICT (day) DO UPDATE SET notes = excluded.notes";
    freehold.query(&context, sql, &[]).await?;
    Ok(())
}
