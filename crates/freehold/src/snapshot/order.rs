//! The order in which objects can be created: each after all that it depends on, otherwise by stage. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Node, Number, Object};

/// `parts` maps a part without a statement of its own to the object that it belongs to. An error names
/// objects that depend on each other in a cycle.
pub(super) fn in_order(
    nodes: Vec<Node>,
    parts: &HashMap<Number, Number>,
    dependences: &[(Number, Number)],
) -> Result<Vec<Object>, String> {
    let places: HashMap<Number, usize> =
        nodes.iter().enumerate().filter_map(|(at, node)| Some((node.number?, at))).collect();
    let statement_of = |mut number: Number| {
        // Such as a column's default, of a table, of a row type: chains are short.
        for _ in 0..8 {
            if let Some(place) = places.get(&number) {
                return Some(*place);
            }
            number = *parts.get(&number)?;
        }
        None
    };
    let mut before: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); nodes.len()];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (from, to) in dependences {
        let (Some(from), Some(to)) = (statement_of(*from), statement_of(*to)) else { continue };
        if from != to && before[from].insert(to) {
            after[to].push(from);
        }
    }
    let mut stages: Vec<i32> = nodes.iter().map(|node| node.object.stage).collect();
    let mut missing: Vec<usize> = before.iter().map(BTreeSet::len).collect();
    // The objects that can be created now: the lowest stage first, otherwise in their original order.
    let mut ready: BTreeSet<(i32, usize)> =
        (0..nodes.len()).filter(|at| missing[*at] == 0).map(|at| (stages[at], at)).collect();
    let mut objects: BTreeMap<usize, Object> =
        nodes.into_iter().map(|node| node.object).enumerate().collect();
    let mut ordered = Vec::with_capacity(objects.len());
    while let Some((stage, at)) = ready.pop_first() {
        if let Some(mut object) = objects.remove(&at) {
            // It may be later than usual for its kind: a view over a materialized view.
            object.stage = stage;
            ordered.push(object);
        }
        for next in &after[at] {
            stages[*next] = stages[*next].max(stage);
            missing[*next] -= 1;
            if missing[*next] == 0 {
                ready.insert((stages[*next], *next));
            }
        }
    }
    // Properties of objects depend only on their stage; the sort is stable.
    ordered.sort_by_key(|object| object.stage);
    if objects.is_empty() {
        return Ok(ordered);
    }
    let circle: Vec<String> = objects.values().map(Object::title).collect();
    Err(format!(
        "these depend on each other in a circle, so no order makes them for a new tenant: {}; let one of them find the others by name, in a function's body that is a string",
        circle.join(", ")
    ))
}
