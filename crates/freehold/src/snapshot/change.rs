//! What a migration changed in the template, and whether a tenant has reached the same state.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::describe::{Fingerprint, describe};
use super::{Object, Snapshot, refused};
use crate::error::Result;
use crate::model::ids::TenantId;
use crate::tx::OwnerTx;

/// The most differences that an error names.
const NAMED_MAX: usize = 3;

/// Tables of the schema $1 that are named in $2 and are not there, or not protected.
pub(crate) const BARE_SQL: &str = "
SELECT name FROM unnest($2::text[]) name
WHERE NOT coalesce((SELECT c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (SELECT FROM pg_policy p
    WHERE p.polrelid = c.oid AND p.polname = 'tenant_isolation' AND NOT p.polpermissive AND p.polcmd = '*') FROM pg_class c
  WHERE c.relname = name::name AND c.relnamespace = $1::text::regnamespace), false)
ORDER BY name LIMIT 1";

/// The template before a migration and after it.
#[derive(Debug)]
pub(crate) struct Change {
    before: Arc<Snapshot>,
    after: Arc<Snapshot>,
    untouched: Vec<String>,
    /// The untouched relations that are tables.
    tables: Vec<String>,
}

impl Change {
    /// Compares tenants only where the two differ: the rest was compared before.
    pub(crate) fn between(before: Arc<Snapshot>, after: Arc<Snapshot>) -> Change {
        let (was, is) = (before.by_part(), after.by_part());
        let is_untouched = |name: &str, parts: &HashSet<(&str, &str, &str)>| {
            was.get(name).is_some_and(|before| before == parts)
        };
        let untouched = is.iter().filter(|(name, parts)| is_untouched(name, parts));
        let untouched: Vec<String> = untouched.map(|(name, _)| (*name).to_owned()).collect();
        let is_table = |name: &&String| {
            is[name.as_str()].iter().any(|(kind, ..)| *kind == "row-level security")
        };
        let tables = untouched.iter().filter(is_table).cloned().collect();
        Change { before, after, untouched, tables }
    }

    /// Compares the whole schema of a tenant.
    pub(crate) fn whole(before: Arc<Snapshot>, after: Arc<Snapshot>) -> Change {
        Change { before, after, untouched: Vec::new(), tables: Vec::new() }
    }

    /// Relations and routines that the migration has not changed, by their bare names.
    pub(crate) fn untouched(&self) -> &[String] {
        &self.untouched
    }

    /// Tables that are there after the migration, by their bare names.
    pub(crate) fn tables(&self) -> Vec<String> {
        let is_table = |object: &&Object| object.kind == "row-level security";
        self.after
            .objects
            .iter()
            .filter(is_table)
            .filter_map(|table| table.part_of.clone())
            .collect()
    }

    /// The hash by which tenants are compared that were equal before and run the same statements; None where
    /// only the whole comparison will do: an object has changed that is part of no relation or routine.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        let (was, is) = (by_key(&self.before.objects), by_key(&self.after.objects));
        let differs = |object: &&Object, others: &HashMap<_, &Object>| {
            let other = others.get(&object.key());
            object.kind != "dropped columns"
                && other.is_none_or(|other| other.statement != object.statement)
        };
        let changed = self.after.objects.iter().filter(|object| differs(object, &was));
        let gone = self.before.objects.iter().filter(|object| differs(object, &is));
        let (mut kinds, mut names) = (BTreeSet::new(), BTreeSet::new());
        for object in changed.chain(gone) {
            kinds.insert(object.kind.as_str());
            names.insert(object.part_of.clone()?);
        }
        Some(Fingerprint::of(&kinds, names.into_iter().collect()))
    }

    /// Compares a tenant's schema, which the migration has brought here: an error that says what is
    /// not as it is in the template. What the tenant has beyond that is not looked at, unless it should
    /// have gone: it may have been made at run time. `spared` are indexes that this tenant does without.
    /// Leaves the search path at `pg_catalog, pg_temp`.
    pub(crate) async fn require_in(
        &self,
        tx: &mut OwnerTx,
        tenant: TenantId,
        spared: &HashSet<String>,
    ) -> Result<()> {
        let found = describe(tx, tenant, &self.untouched).await?;
        let found: Vec<Object> = found.into_iter().map(|node| node.object).collect();
        let differences = self.differences(&found, spared);
        if !differences.is_empty() {
            let more = differences.len().saturating_sub(NAMED_MAX);
            let mut text = differences[..differences.len() - more].join("; ");
            if more > 0 {
                let _ = write!(text, "; and {more} more");
            }
            return Err(refused(text));
        }
        if self.tables.is_empty() {
            return Ok(());
        }
        let bare = tx.catalog().query(BARE_SQL, &[&tenant.schema(), &self.tables]).await?;
        match bare.first() {
            Some(row) => {
                let name: &str = row.get(0);
                Err(refused(format!("table {name} is missing, or not protected any more")))
            }
            None => Ok(()),
        }
    }

    fn differences(&self, found: &[Object], spared: &HashSet<String>) -> Vec<String> {
        let untouched: HashSet<&str> = self.untouched.iter().map(String::as_str).collect();
        let is_touched = |object: &&Object| {
            !object.part_of.as_deref().is_some_and(|name| untouched.contains(name))
        };
        let (found, before) = (by_key(found), by_key(&self.before.objects));
        let after = self.after.objects.iter().filter(is_touched);
        let mut differences = Vec::new();
        for wanted in after.filter(|object| object.kind != "dropped columns") {
            let title = wanted.title();
            let Some(here) = found.get(&wanted.key()) else {
                if !(wanted.kind == "index" && spared.contains(wanted.bare_name())) {
                    differences.push(format!("{title} is missing"));
                }
                continue;
            };
            if here.statement == wanted.statement {
                continue;
            }
            let before = before.get(&wanted.key()).map(|object| object.lines()).unwrap_or_default();
            let (wanted, here) = (wanted.lines(), here.lines());
            let missing = wanted.iter().filter(|line| !here.contains(*line));
            differences.extend(missing.map(|line| format!("{title} lacks: {line}")));
            let stale = here.iter().filter(|l| !wanted.contains(*l) && before.contains(*l));
            differences.extend(stale.map(|line| format!("{title} still has: {line}")));
        }
        let wanted: HashSet<_> = self.after.objects.iter().map(Object::key).collect();
        let stale = self.before.objects.iter().filter(|object| {
            let key = object.key();
            !wanted.contains(&key) && found.contains_key(&key) && object.kind != "dropped columns"
        });
        differences.extend(stale.map(|object| format!("{} is still there", object.title())));
        differences
    }
}

/// Objects by kind and name.
fn by_key(objects: &[Object]) -> HashMap<(&str, &str), &Object> {
    objects.iter().map(|object| (object.key(), object)).collect()
}

impl Snapshot {
    /// Kind, name and statement of everything that belongs to each relation or routine.
    fn by_part(&self) -> HashMap<&str, HashSet<(&str, &str, &str)>> {
        let mut parts: HashMap<&str, HashSet<_>> = HashMap::new();
        for object in &self.objects {
            if let Some(name) = &object.part_of {
                let (kind, title) = object.key();
                parts.entry(name).or_default().insert((kind, title, object.statement.as_str()));
            }
        }
        parts
    }
}
