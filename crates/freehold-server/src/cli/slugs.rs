//! The slugs of tenants that a text names by id or schema, since people know tenants by their slugs.

use std::collections::{BTreeSet, HashMap};

use freehold::{Freehold, OperatorContext, TenantId};

/// Slugs by ids.
#[derive(Default)]
pub(super) struct Slugs(HashMap<TenantId, String>);

impl Slugs {
    /// The slug, or the id of a tenant that no longer exists.
    pub(super) fn name(&self, tenant: TenantId) -> String {
        self.0.get(&tenant).cloned().unwrap_or_else(|| tenant.to_string())
    }

    /// The slugs of the tenants whose schemas a text names, in order, to be shown beside the text.
    pub(super) fn named_in(&self, text: &str) -> Vec<&str> {
        let mut found: Vec<&str> = Vec::new();
        for slug in schemas_in(text).filter_map(|tenant| self.0.get(&tenant)) {
            if !found.contains(&slug.as_str()) {
                found.push(slug);
            }
        }
        found
    }
}

pub(super) async fn of(
    freehold: &Freehold,
    context: &OperatorContext,
    tenants: impl Iterator<Item = TenantId>,
) -> freehold::Result<Slugs> {
    let tenants: Vec<TenantId> = tenants.collect::<BTreeSet<_>>().into_iter().collect();
    if tenants.is_empty() {
        return Ok(Slugs::default());
    }
    Ok(Slugs(freehold.usage().slugs_of(context, &tenants).await?.into_iter().collect()))
}

/// The tenants whose schemas a text names.
pub(super) fn schemas_in(text: &str) -> impl Iterator<Item = TenantId> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter_map(TenantId::of_schema)
}
