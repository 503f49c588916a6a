//! Sums of metrics with twice the digits of f32.
//!
//! Input: an update of a metric's state. Output: where it adds something to the state, updates of the state and of a second
//! one, `STATE.low`, which keeps what rounding takes off (Dekker 1971, Knuth's two-sum). The figure is computed from both.
//! Invariant: `state + low` is the sum up to some 2⁻⁴⁷ of it for each summand, so counts are exact; a sum that is infinite
//! or not a number stays so, with a `low` of 0. No pass reorders additions.

use crate::graph::build::identity_access;
use crate::graph::{Binary, Compare, DType, Graph, Op, State, StateId, StateKind, ValueId, Variable};
use crate::model::expander::Expander;
use crate::source::Span;

/// The name of the second state.
pub(crate) fn low_name(state: &str) -> String {
    format!("{state}.low")
}

impl Expander<'_> {
    /// The value of `state <- new`: of a sum, with `low` taken in. Records the update of `low`.
    pub(super) fn total(&mut self, id: StateId, new: ValueId) -> ValueId {
        let state = self.graph.states[id.0 as usize].clone();
        let Some((_, old)) = self.states.get(&state.name).copied().filter(|_| state.dtype == DType::F32) else {
            return new;
        };
        let span = self.graph.value(new).span;
        let Some(summand) = summand(&mut self.graph, old, new, span) else { return new };
        let name = low_name(&state.name);
        let (low_id, low) = match self.states.get(&name) {
            Some(known) => *known,
            None => {
                let low = State { name: name.clone(), init: 0.0, kind: StateKind::Metric, ..state };
                let value = self.graph.state(low);
                (StateId(self.graph.states.len() as u32 - 1), value)
            }
        };
        let (total, low) = added(&mut self.graph, (old, low), summand, span);
        self.record(Variable::State(low_id), low);
        self.states.insert(name, (low_id, low));
        total
    }
}

/// `x` where `new` is `old + x`; none where it is anything else.
fn summand(graph: &mut Graph, old: ValueId, new: ValueId, span: Span) -> Option<ValueId> {
    let mut depends = vec![false; graph.len()];
    depends[old.0 as usize] = true;
    for (id, value) in graph.values().skip(old.0 as usize + 1) {
        depends[id.0 as usize] = value.args.iter().any(|arg| depends[arg.0 as usize]);
    }
    let depends = |id: ValueId| depends[id.0 as usize];
    let mut parts: Vec<(Binary, ValueId)> = Vec::new();
    let mut at = new;
    while at != old {
        let value = graph.value(at);
        match (&value.op, &value.args[..]) {
            (Op::Binary(op @ (Binary::Add | Binary::Sub)), [a, b]) if !depends(*b) => {
                parts.push((*op, *b));
                at = *a;
            }
            (Op::Binary(Binary::Add), [a, b]) if !depends(*a) => {
                parts.push((Binary::Add, *a));
                at = *b;
            }
            (Op::Contract(contract), [arg]) if graph.shape(*arg) == value.shape => {
                let whole = identity_access(value.shape.len());
                let same = contract.operands[0] == whole && contract.output == whole && contract.domain == value.shape;
                at = same.then_some(*arg)?;
            }
            _other_than_a_sum => return None,
        }
    }
    let (op, first) = parts.pop()?;
    let first = if op == Binary::Sub { graph.unary(crate::graph::Unary::Neg, first, span) } else { first };
    Some(parts.into_iter().rev().fold(first, |sum, (op, part)| graph.binary(op, sum, part, span)))
}

/// `(high, low) + x`, with a `high` that is the sum as f32 rounds it.
fn added(graph: &mut Graph, (high, low): (ValueId, ValueId), x: ValueId, span: Span) -> (ValueId, ValueId) {
    let add = |graph: &mut Graph, a, b| graph.binary(Binary::Add, a, b, span);
    let sub = |graph: &mut Graph, a, b| graph.binary(Binary::Sub, a, b, span);
    let sum = add(graph, high, x);
    let taken = sub(graph, sum, high);
    let rest = sub(graph, sum, taken);
    let (of_high, of_x) = (sub(graph, high, rest), sub(graph, x, taken));
    let lost = add(graph, of_high, of_x);
    let lost = add(graph, low, lost);
    let lost = number_or_zero(graph, lost, span);
    let total = add(graph, sum, lost);
    let taken = sub(graph, total, sum);
    let left = sub(graph, lost, taken);
    (total, number_or_zero(graph, left, span))
}

fn number_or_zero(graph: &mut Graph, x: ValueId, span: Span) -> ValueId {
    let shape = graph.shape(x).to_vec();
    let zero = graph.constant(0.0, &shape, DType::F32, span);
    let is_number = graph.compare(Compare::Eq, x, x, span);
    graph.select(is_number, x, zero, span)
}
