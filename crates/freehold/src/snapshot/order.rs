//! The order in which objects can be made: each after all that it depends on, else by their stage. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Node, Number, Object};

/// `parts` says to what an object belongs that has no statement of its own. An error names objects that
/// depend on each other in a circle.
pub(super) fn in_order(
    nodes: Vec<Node>,
    parts: &HashMap<Number, Number>,
    dependences: &[(Number, Number)],
) -> Result<Vec<Object>, String> {
    let places: HashMap<Number, usize> =
        nodes.iter().enumerate().filter_map(|(at, node)| Some((node.number?, at))).collect();
    let statement_of = |mut number: Number| {
        // A column's default, of a table, of a row's type: no chain is longer than a few.
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
    // Those that can be made now, the lowest stage first, else as they came.
    let mut ready: BTreeSet<(i32, usize)> =
        (0..nodes.len()).filter(|at| missing[*at] == 0).map(|at| (stages[at], at)).collect();
    let mut objects: BTreeMap<usize, Object> =
        nodes.into_iter().map(|node| node.object).enumerate().collect();
    let mut ordered = Vec::with_capacity(objects.len());
    while let Some((stage, at)) = ready.pop_first() {
        if let Some(mut object) = objects.remove(&at) {
            // It may be later than its kind is: a view over a materialized one.
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
    // What is said about an object needs nothing but its stage; the sort is stable.
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
