//! The visible state of a session, and how it must look to each tenant that uses it. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// Reads the view of `beside.sql`.
pub(crate) const LOOK: &str = "SELECT pid, seen FROM session_now";

/// The state of `random()` that a tenant may leave, and that another must not find.
pub(crate) const SEED: &str = "SELECT setseed(0.5)";

/// The state of a session, by name.
#[derive(Clone, Debug)]
pub(crate) struct Session(BTreeMap<String, Value>);

impl Session {
    /// Parses what the view returns to a tenant with this schema. `None` if it is something else.
    pub(crate) fn read(seen: &str, schema: &str) -> Option<Session> {
        serde_json::from_str(&seen.replace(schema, "{schema}")).ok().map(Session)
    }

    /// The first difference from `clean`, in words. `known` are the numbers that `random()` returns after
    /// [`SEED`].
    pub(crate) fn differs(&self, clean: &Session, known: &[f64]) -> Option<String> {
        let random = self.0.get("random").and_then(Value::as_f64);
        if random.is_none_or(|random| known.contains(&random)) {
            return Some(format!("random() gives {random:?}, which a tenant has chosen"));
        }
        let (ours, theirs) = (self.parts(), clean.parts());
        let names = ours.keys().chain(theirs.keys());
        let name = names.into_iter().find(|name| ours.get(*name) != theirs.get(*name))?;
        Some(format!("{name} is {:?} and was {:?}", ours.get(name), theirs.get(name)))
    }

    /// Each setting by itself. PostgreSQL keeps the name of a custom setting that was set once, and returns
    /// '' for it; after a reset, a pooler's sessions do not have our names.
    fn parts(&self) -> BTreeMap<String, &Value> {
        let mut parts = BTreeMap::new();
        for (name, value) in &self.0 {
            match value {
                Value::Object(settings) => {
                    parts.extend(settings.iter().map(|(name, value)| (name.clone(), value)));
                }
                Value::Null => {}
                Value::String(text) if text.is_empty() => {}
                _ if name == "random" => {}
                _ => drop(parts.insert(name.clone(), value)),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: &str = r#"{"settings":{"DateStyle":"ISO, MDY","work_mem":"4096"},"note":null,
        "search_path":"tenant_ab, public, pg_temp","channels":null,"locks":0,"random":0.25}"#;

    fn differs(seen: &str, schema: &str) -> Option<String> {
        let clean = Session::read(CLEAN, "tenant_ab").unwrap();
        Session::read(seen, schema).unwrap().differs(&clean, &[0.5, 0.75])
    }

    #[test]
    fn a_session_that_is_another_tenants_turn_looks_alike_but_for_its_schema() {
        let theirs = CLEAN.replace("tenant_ab", "tenant_cd").replace("0.25", "0.125");
        assert_eq!(differs(&theirs, "tenant_cd"), None);
        assert_eq!(differs(&CLEAN.replace(r#""note":null"#, r#""note":"""#), "tenant_ab"), None);
        assert!(differs(CLEAN, "tenant_cd").unwrap().contains("search_path"));
    }

    #[test]
    fn whatever_is_left_on_a_session_is_named() {
        for (from, to, named) in [
            ("ISO, MDY", "German, DMY", "DateStyle"),
            (r#","work_mem":"4096""#, "", "work_mem"),
            (r#""note":null"#, r#""note":"of another""#, "note"),
            (r#""channels":null"#, r#""channels":["left"]"#, "channels"),
            (r#""locks":0"#, r#""locks":1"#, "locks"),
            ("0.25", "0.75", "random"),
        ] {
            let seen = CLEAN.replace(from, to);
            let words = differs(&seen, "tenant_ab").unwrap_or_else(|| panic!("{named} passed"));
            assert!(words.starts_with(named), "{words}");
        }
    }
}
