//! Rewrites that keep a graph's meaning and make it cheaper: a flat list, with the verifier between in debug builds.
//!
//! Input: a graph whose gradients have been taken ([`Op::Detach`](crate::graph::Op::Detach) vanishes here).
//! Output: an equal graph: every output and update has the same value up to the rounding of reordered sums and products.
//! Invariant: entries keep their identifiers; values do not.

mod access;
mod broadcast;
mod cse;
mod dce;
mod factor;
mod fold;
mod product;
mod rectifier;
mod view;
mod write;

use crate::graph::{Graph, Value, ValueId};

/// A pass with its name for messages.
pub type Pass = (&'static str, fn(&mut Graph));

/// The passes in the order of [`run`].
pub const PASSES: &[Pass] = &[
    ("dce", dce::run),
    ("fold", fold::run),
    ("cse", cse::run),
    ("broadcast", broadcast::run),
    ("view", view::run),
    ("product", product::run),
    ("fold", fold::run),
    ("cse", cse::run),
    ("rectifier", rectifier::run),
    ("factor", factor::run),
    ("variables", write::variables),
    ("residues", write::residues),
    ("view", view::run),
    ("product", product::run),
    ("broadcast", broadcast::run),
    ("fold", fold::run),
    ("cse", cse::run),
    ("dce", dce::run),
];

/// Those that bring a graph nearer to what a person would write; run by [`for_reading`].
const FOR_READING: &[Pass] = &[
    ("dce", dce::run),
    ("fold", fold::run),
    ("cse", cse::run),
    ("broadcast", broadcast::run),
    ("view", view::run),
    ("product", product::run),
    ("variables", write::variables),
    ("fold", fold::run),
    ("view", view::run),
    ("product", product::run),
    ("fold", fold::run),
    ("cse", cse::run),
    ("dce", dce::run),
];

/// Runs all passes.
pub fn run(graph: &mut Graph) {
    run_all(graph, PASSES);
}

/// Runs the passes that shorten a graph, without those that only a machine profits from. Sizes may be symbolic.
pub fn for_reading(graph: &mut Graph) {
    run_all(graph, FOR_READING);
}

fn run_all(graph: &mut Graph, passes: &[Pass]) {
    for (name, pass) in passes {
        pass(graph);
        if cfg!(debug_assertions)
            && let Err(message) = crate::graph::verify(graph)
        {
            panic!("after pass `{name}`: {message}");
        }
    }
}

/// Rebuilds a graph: `rule` gets each value as it was, and again with its arguments renamed, and gives its substitute
/// in the new graph.
fn rewrite(graph: &mut Graph, mut rule: impl FnMut(&mut Graph, (ValueId, &Value), Value) -> ValueId) {
    let mut map: Vec<ValueId> = Vec::with_capacity(graph.len());
    for (id, value) in graph.take_values() {
        let args = value.args.iter().map(|arg| map[arg.0 as usize]).collect();
        let renamed = Value { args, ..value.clone() };
        let new = rule(graph, (id, &value), renamed);
        debug_assert!(graph.shape(new) == value.shape && graph.value(new).dtype == value.dtype, "%{} changed", id.0);
        map.push(new);
    }
    graph.outputs.iter_mut().for_each(|output| output.value = map[output.value.0 as usize]);
    graph.updates.iter_mut().for_each(|update| update.value = map[update.value.0 as usize]);
}

/// How often each value is read by values, outputs and updates.
fn uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.len()];
    let args = graph.values().flat_map(|(_, value)| value.args.iter().copied());
    for id in args.chain(graph.roots()) {
        uses[id.0 as usize] += 1;
    }
    uses
}
