//! The sign of a rectifier's input is read from its output.
//!
//! Input and output: a graph. With `y = x > 0 ? x : 0`, later readers of `x > 0` (the backward half) read `y > 0`,
//! which is equal for every x, not-a-number included. Then x need not be kept for the backward half; y is kept anyway
//! as the next layer's input.
//! Invariant: only values behind y are changed. Run after `cse`, which makes the comparisons one value.

use std::collections::HashMap;

use crate::dim::Dim;
use crate::graph::{Compare, DType, Graph, Op, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    // Comparison → rectified value.
    let mut rectified: HashMap<ValueId, ValueId> = HashMap::new();
    for (id, value) in graph.values() {
        if value.op == Op::Select
            && let [condition, then, otherwise] = value.args[..]
            && is_zero(graph, otherwise)
            && is_positive(graph, condition, then)
        {
            rectified.entry(condition).or_insert(id);
        }
    }
    let mut moved: HashMap<ValueId, ValueId> = HashMap::new();
    let mut places: Vec<ValueId> = Vec::with_capacity(graph.len());
    super::rewrite(graph, |new, (id, old), mut value| {
        for (old_arg, arg) in old.args.iter().zip(&mut value.args) {
            let Some(&y) = rectified.get(old_arg).filter(|&&y| y < id) else { continue };
            let place = places[y.0 as usize];
            *arg = *moved.entry(y).or_insert_with(|| {
                let y = new.value(place).clone();
                let zero = new.constant(0.0, &y.shape, DType::F32, y.span);
                new.compare(Compare::Gt, place, zero, y.span)
            });
        }
        places.push(new.push(value));
        places[places.len() - 1]
    });
}

fn is_zero(graph: &Graph, id: ValueId) -> bool {
    graph.value(id).op == Op::Const(0.0)
}

/// True for `x > 0` on F32 of more than one element.
fn is_positive(graph: &Graph, condition: ValueId, x: ValueId) -> bool {
    let value = graph.value(condition);
    let wide = value.shape.iter().any(|dim| *dim != Dim::constant(1));
    wide && value.op == Op::Compare(Compare::Gt)
        && value.args[0] == x
        && is_zero(graph, value.args[1])
        && graph.value(x).dtype == DType::F32
}
