//! Removal of values that no output and no update needs.
//!
//! Input and output: a graph. Invariant: the order of the values that stay.

use crate::graph::{Graph, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    let needed = graph.alive(graph.roots());
    let mut map = vec![None; graph.len()];
    for (id, mut value) in graph.take_values().filter(|(id, _)| needed[id.0 as usize]) {
        value.args.iter_mut().for_each(|arg| *arg = renamed(&map, *arg));
        map[id.0 as usize] = Some(graph.push(value));
    }
    graph.outputs.iter_mut().for_each(|output| output.value = renamed(&map, output.value));
    graph.updates.iter_mut().for_each(|update| update.value = renamed(&map, update.value));
}

fn renamed(map: &[Option<ValueId>], id: ValueId) -> ValueId {
    map[id.0 as usize].expect("what is needed precedes its users")
}
