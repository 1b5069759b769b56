//! Canaries: marks that tell which tenant a row belongs to, and the search for them in every answer. Pure.

use aho_corasick::AhoCorasick;
use uuid::Uuid;

use super::dice::Dice;

/// The mark in a tenant's rows.
#[derive(Clone, Debug)]
pub struct Mark {
    /// In every text column: `canary-` and 16 hex digits.
    pub text: String,
    /// In every `tag`.
    pub tag: i64,
    /// The upper half of every row's id.
    prefix: u64,
}

impl Mark {
    pub(crate) fn new(dice: &mut Dice, number: usize) -> Mark {
        let tag = (number as i64 + 1) * 1_000_003 + dice.below(1000) as i64;
        // A UUID of version 8, whose bits may be chosen freely.
        let prefix = (dice.draw() & !0xF000) | 0x8000;
        Mark { text: format!("canary-{:016x}", dice.draw()), tag, prefix }
    }

    /// The id of the tenant's row with this number.
    pub fn row_id(&self, number: u64) -> Uuid {
        Uuid::from_u64_pair(self.prefix, (0b10 << 62) | number)
    }

    /// The beginning of every row's id, as text.
    fn id_text(&self) -> String {
        self.row_id(0).to_string()[..19].to_owned()
    }
}

/// A trace of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    Mark,
    RowId,
    TenantId,
}

impl Trace {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Trace::Mark => "the mark of a row",
            Trace::RowId => "the id of a row",
            Trace::TenantId => "the id or the schema",
        }
    }
}

/// The result of examining an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Marks of the tenant that asked.
    pub(crate) own_marks: usize,
    /// The first trace of another tenant, and which tenant.
    pub(crate) foreign: Option<(usize, Trace)>,
}

/// Finds every trace of every tenant of a run in one pass, ignoring case.
#[derive(Debug)]
pub(crate) struct Watch {
    traces: AhoCorasick,
    owners: Vec<(usize, Trace)>,
}

impl Watch {
    /// For tenants in the order of their numbers.
    pub(crate) fn new<'a>(tenants: impl Iterator<Item = (&'a Mark, Uuid)>) -> Watch {
        let (mut patterns, mut owners) = (Vec::new(), Vec::new());
        for (number, (mark, id)) in tenants.enumerate() {
            for (pattern, trace) in [
                (mark.text.clone(), Trace::Mark),
                (mark.id_text(), Trace::RowId),
                (id.to_string(), Trace::TenantId),
                // In the form used in the schema's name.
                (id.simple().to_string(), Trace::TenantId),
            ] {
                patterns.push(pattern);
                owners.push((number, trace));
            }
        }
        let traces = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(&patterns)
            .expect("some hundred short patterns make a small automaton");
        Watch { traces, owners }
    }

    /// Examines an answer to the tenant `asking`.
    pub(crate) fn look(&self, asking: usize, answer: &[u8]) -> Sight {
        let mut sight = Sight::default();
        for found in self.traces.find_iter(answer) {
            let (owner, trace) = self.owners[found.pattern().as_usize()];
            if owner != asking {
                sight.foreign = sight.foreign.or(Some((owner, trace)));
            } else if trace == Trace::Mark {
                sight.own_marks += 1;
            }
        }
        sight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Watch, [Mark; 2], [Uuid; 2]) {
        let mut dice = Dice::new(1, 1);
        let marks = [Mark::new(&mut dice, 0), Mark::new(&mut dice, 1)];
        let ids = [Uuid::new_v4(), Uuid::new_v4()];
        (Watch::new(marks.iter().zip(ids)), marks, ids)
    }

    #[test]
    fn every_trace_of_another_tenant_is_seen_in_any_spelling() {
        let (watch, [own, other], [own_id, other_id]) = two();
        let rows = format!(r#"[{{"id":"{}","body":"{} 1"}}]"#, own.row_id(1), own.text);
        assert_eq!(watch.look(0, rows.as_bytes()), Sight { own_marks: 1, foreign: None });
        let own_schema = format!("tenant_{} {own_id}", own_id.simple());
        assert_eq!(watch.look(0, own_schema.as_bytes()).foreign, None);
        for (text, trace) in [
            (format!("{rows} {} 7", other.text), Trace::Mark),
            (format!("{rows} {}", other.text.to_uppercase()), Trace::Mark),
            (format!(r#"{{"id":"{}"}}"#, other.row_id(u64::from(u32::MAX))), Trace::RowId),
            (format!("no tenant {other_id}"), Trace::TenantId),
            (format!("relation tenant_{}.canaries", other_id.simple()), Trace::TenantId),
        ] {
            assert_eq!(watch.look(0, text.as_bytes()).foreign, Some((1, trace)), "{text}");
        }
    }

    #[test]
    fn ids_of_rows_are_valid_and_differ() {
        let (_, [own, other], _) = two();
        assert_eq!(own.row_id(5).get_version_num(), 8);
        assert_ne!(own.row_id(5), own.row_id(6));
        assert_ne!(own.row_id(5), other.row_id(5));
        assert_ne!(own.tag, other.tag);
    }
}
