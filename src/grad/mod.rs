//! Reverse-mode differentiation: one walk over the graph and one page of [`rules`].
//!
//! Input: a graph, a scalar of it and the values to differentiate by. Output: the same graph with the gradients
//! appended, made of the same core operations. Invariant: a gradient has the shape and type of what it belongs to,
//! and each of its nodes carries the span of the node that it differentiates.

mod params;
pub mod print;
mod rules;

use std::collections::{HashMap, HashSet};

use crate::graph::{Binary, DType, Graph, Op, ParamId, Value, ValueId};
pub use params::{add_norms, by_params, clip};

/// Appends the gradient of `of` (rank 0, F32) by each of `wrt` (F32) and returns them in order; zeros where `of`
/// does not depend on one. All reads of one parameter count as that parameter. Sizes may be symbolic.
///
/// # Panics
/// When `of` is not a rank-0 F32 or one of `wrt` is not F32: a bug of the caller.
pub fn differentiate(graph: &mut Graph, of: ValueId, wrt: &[ValueId]) -> Vec<ValueId> {
    let root = graph.value(of);
    assert!(root.shape.is_empty() && root.dtype == DType::F32, "%{} is not a scalar to differentiate", of.0);
    assert!(wrt.iter().all(|&id| graph.value(id).dtype == DType::F32), "gradients exist by F32 values only");

    let count = of.0 as usize + 1;
    let owners = owners(graph, wrt);
    let depends = dependents(graph, wrt, &owners);
    let mut gradients: Vec<Option<ValueId>> = vec![None; graph.len()];
    let span = graph.value(of).span;
    gradients[of.0 as usize] = Some(graph.constant(1.0, &[], DType::F32, span));

    for index in (0..count).rev() {
        let id = ValueId(index as u32);
        let Some(upstream) = gradients[index].filter(|_| depends[index]) else { continue };
        let span = graph.value(id).span;
        for (position, arg) in graph.value(id).args.clone().into_iter().enumerate() {
            if !depends[arg.0 as usize] {
                continue;
            }
            let Some(part) = rules::gradient(graph, id, position, upstream) else { continue };
            let slot = &mut gradients[owners[arg.0 as usize].0 as usize];
            *slot = Some(match *slot {
                Some(sum) => graph.binary(Binary::Add, sum, part, span),
                None => part,
            });
        }
    }
    wrt.iter()
        .map(|&id| match gradients[owners[id.0 as usize].0 as usize] {
            Some(gradient) => gradient,
            None => {
                let value = graph.value(id).clone();
                graph.constant(0.0, &value.shape, DType::F32, value.span)
            }
        })
        .collect()
}

/// Whether a change of `on` may change `of` by a differentiable path.
pub fn depends(graph: &Graph, of: ValueId, on: ValueId) -> bool {
    let owners = owners(graph, &[on]);
    dependents(graph, &[on], &owners)[of.0 as usize]
}

/// Where each value's gradient is gathered: at itself, but for reads of a parameter at the first of `wrt` that reads it.
fn owners(graph: &Graph, wrt: &[ValueId]) -> Vec<ValueId> {
    let mut first: HashMap<ParamId, ValueId> = HashMap::new();
    for &id in wrt {
        if let Op::Param(param) = graph.value(id).op {
            first.entry(param).or_insert(id);
        }
    }
    let owner = |(id, value): (ValueId, &Value)| {
        let Op::Param(param) = value.op else { return id };
        first.get(&param).copied().unwrap_or(id)
    };
    graph.values().map(owner).collect()
}

/// For each value, whether a change of one of `wrt` may change it by a differentiable path.
fn dependents(graph: &Graph, wrt: &[ValueId], owners: &[ValueId]) -> Vec<bool> {
    let wrt: HashSet<ValueId> = wrt.iter().copied().collect();
    let mut depends = vec![false; graph.len()];
    for (id, value) in graph.values() {
        let through = value.op != Op::Detach && value.args.iter().any(|arg| depends[arg.0 as usize]);
        depends[id.0 as usize] =
            value.dtype == DType::F32 && (through || wrt.contains(&owners[id.0 as usize]) || wrt.contains(&id));
    }
    depends
}
