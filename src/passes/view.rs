//! Contractions read through views, and sums of sums become one.
//!
//! Input and output: a graph. A view is a transposition, broadcast, slice, pad or window (see [`as_view`]).
//! 1. An operand of a contraction that is a view is replaced by what the view reads, where no guard is lost.
//! 2. A sum or transposition of a contraction that nobody else reads joins it.
//!
//! Invariant: no element is multiplied or added more often than before.

use super::access::{as_view, confines, is_bijective, is_plain, substituted, substituted_access};
use crate::dim::Dim;
use crate::graph::{Access, Affine, Contract, Graph, Op, Value, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    let uses = super::uses(graph);
    super::rewrite(graph, |new, (_, old), value| {
        let Op::Contract(contract) = &value.op else { return new.push(value) };
        let (contract, args) = through_views(new, contract.clone(), value.args.clone());
        let single = uses[old.args[0].0 as usize] == 1;
        let joined = if single { join(new, &contract, &args) } else { None };
        let (contract, args) = joined.unwrap_or((contract, args));
        new.push(Value { op: Op::Contract(contract), args, ..value })
    });
}

/// Replaces each operand that is a view by the view's source.
fn through_views(graph: &Graph, mut contract: Contract, mut args: Vec<ValueId>) -> (Contract, Vec<ValueId>) {
    for (operand, arg) in contract.operands.iter_mut().zip(&mut args) {
        if let Some(view) = as_view(graph, *arg)
            && guards_survive(operand, &contract.domain, graph.shape(*arg), &view.read, graph.shape(view.source))
        {
            *operand = substituted_access(&view.read, operand);
            *arg = view.source;
        }
    }
    (contract, args)
}

/// True if reading the source at `read ∘ outer` gives 0 wherever `outer` leaves the view.
fn guards_survive(outer: &Access, domain: &[Dim], view: &[Dim], read: &Access, source: &[Dim]) -> bool {
    outer.iter().zip(view).enumerate().all(|(axis, (affine, extent))| {
        affine.is_within(domain, extent)
            || read.iter().zip(source).any(|(inner, size)| confines(inner, size, axis, extent))
    })
}

/// `outer` is a one-operand contraction of an inner one: their union, where it costs no more.
fn join(graph: &Graph, outer: &Contract, args: &[ValueId]) -> Option<(Contract, Vec<ValueId>)> {
    let ([read], [arg]) = (outer.operands.as_slice(), args) else { return None };
    let value = graph.value(*arg);
    let Op::Contract(inner) = &value.op else { return None };
    if !is_bijective(read, &outer.domain, &value.shape) || !is_plain(&inner.output, &inner.domain, &value.shape) {
        return None;
    }
    // A product joins a transposition only: a further sum would spoil its form.
    let moved = |index: usize| outer.output.iter().any(|affine| affine.as_index() == Some(index));
    if inner.operands.len() > 1 && !(0..outer.domain.len()).all(moved) {
        return None;
    }
    let mut place = vec![Affine::constant(0); outer.domain.len()];
    for (outer_index, inner_index) in read.iter().zip(&inner.output) {
        if let Some(index) = outer_index.as_index() {
            place[index] = inner_index.clone();
        }
    }
    let output = outer.output.iter().map(|affine| substituted(affine, &place)).collect();
    Some((Contract { output, ..inner.clone() }, value.args.clone()))
}
