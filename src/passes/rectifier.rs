//! Rectifiers as maxima and minima, and the sign of a rectifier's input read from its output.
//!
//! Input and output: a graph. With `y = x <= c ? c : x`, later readers of the comparison (the backward half) compare y,
//! which is equal for every x, not-a-number included; likewise with `>=`, and with `x > c ? x : c` and `<`. Then x need not
//! be kept for the backward half; y is kept anyway as the next layer's input. The first two, which keep what is not a
//! number, become `max(x, c)` and `min(x, c)`: one instruction.
//! Invariant: only y and values behind it are changed. Run after `cse`, which makes the comparisons one value.

use std::collections::HashMap;

use crate::dim::Dim;
use crate::graph::{Binary, Compare, DType, Graph, Op, Value, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    let found: HashMap<ValueId, Rectifier> =
        graph.values().filter_map(|(id, value)| Some((id, rectifier(graph, value)?))).collect();
    // Comparison → the first rectified value.
    let mut first: HashMap<ValueId, ValueId> = HashMap::new();
    for (&id, rectifier) in &found {
        first.entry(rectifier.condition).and_modify(|y| *y = id.min(*y)).or_insert(id);
    }
    let mut moved: HashMap<ValueId, ValueId> = HashMap::new();
    let mut places: Vec<ValueId> = Vec::with_capacity(graph.len());
    super::rewrite(graph, |new, (id, old), mut value| {
        for (old_arg, arg) in old.args.iter().zip(&mut value.args) {
            let Some(&y) = first.get(old_arg).filter(|&&y| y < id) else { continue };
            let place = places[y.0 as usize];
            *arg = *moved.entry(y).or_insert_with(|| {
                let Value { shape, span, .. } = new.value(place).clone();
                let bound = new.constant(found[&y].bound, &shape, DType::F32, span);
                new.compare(found[&y].compare, place, bound, span)
            });
        }
        let extremum = found.get(&id).and_then(|rectifier| rectifier.extremum());
        if let (Some(op), [_, bound, x]) = (extremum, &value.args[..]) {
            value = Value { op: Op::Binary(op), args: vec![*x, *bound], ..value };
        }
        places.push(new.push(value));
        places[places.len() - 1]
    });
}

/// A selection between a tensor and the constant that it is compared with.
struct Rectifier {
    condition: ValueId,
    compare: Compare,
    bound: f64,
}

impl Rectifier {
    /// The function that the selection is for every number and for what is none.
    fn extremum(&self) -> Option<Binary> {
        match self.compare {
            Compare::Le => Some(Binary::Max),
            Compare::Ge => Some(Binary::Min),
            Compare::Lt | Compare::Gt | Compare::Eq | Compare::Ne => None,
        }
    }
}

fn rectifier(graph: &Graph, value: &Value) -> Option<Rectifier> {
    let [condition, then, otherwise] = value.args[..] else { return None };
    let wide = value.shape.iter().any(|dim| *dim != Dim::constant(1));
    let Op::Compare(compare) = graph.value(condition).op else { return None };
    if value.op != Op::Select || value.dtype != DType::F32 || !wide {
        return None;
    }
    let (x, bound) = match compare {
        Compare::Le | Compare::Ge => (otherwise, then),
        Compare::Lt | Compare::Gt => (then, otherwise),
        Compare::Eq | Compare::Ne => return None,
    };
    let compared = &graph.value(condition).args;
    let bound = number(graph, bound).filter(|bound| number(graph, compared[1]) == Some(*bound))?;
    (compared[0] == x && number(graph, x).is_none()).then_some(Rectifier { condition, compare, bound })
}

fn number(graph: &Graph, id: ValueId) -> Option<f64> {
    let Op::Const(number) = graph.value(id).op else { return None };
    Some(number)
}
