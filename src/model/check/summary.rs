//! Counts over an expanded model: parameters, multiply-adds, and a row for each stage.
//!
//! Input: an [`Expanded`]. Output: [`Summary`]. Invariant: the model's counts are sums over its graph alone,
//! so they do not depend on how the model is cut into layers.

use crate::dim::Dim;
use crate::graph::{Contract, DType, Graph, Op, StateKind, Value};
use crate::model::expand::Expanded;

/// One stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Row {
    /// The dotted path (`layer1.0.conv1`).
    pub path: String,
    /// The layer's or function's name.
    pub layer: String,
    /// Nesting depth, 0 for stages of the model.
    pub depth: usize,
    /// What it gives.
    pub shape: Vec<Dim>,
    /// The element type.
    pub dtype: DType,
    /// Parameters that its use creates, those of inner stages included; a second use of shared weights counts none.
    pub params: Dim,
    /// Multiply-adds, those of inner stages included.
    pub macs: Dim,
}

/// A model in numbers.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// The stages in order of execution, parents before their children.
    pub rows: Vec<Row>,
    /// Trained numbers.
    pub params: Dim,
    /// Numbers in buffers (running means, …).
    pub buffers: Dim,
    /// Multiply-adds of one forward pass.
    pub macs: Dim,
}

impl Summary {
    /// Floating-point operations of the forward pass's contractions: two a multiply-add.
    pub fn flops(&self) -> Dim {
        &self.macs * Dim::constant(2)
    }
}

/// Counts a model and its stages.
pub fn summarize(expanded: &Expanded) -> Summary {
    let graph = &expanded.graph;
    let values: Vec<&Value> = graph.values().map(|(_, value)| value).collect();
    let rows = expanded
        .layers
        .iter()
        .map(|call| {
            let inside = &values[call.values.start as usize..call.values.end as usize];
            let output = graph.value(call.output);
            Row {
                path: call.path.clone(),
                layer: call.layer.clone(),
                depth: call.depth,
                shape: output.shape.clone(),
                dtype: output.dtype,
                params: total(inside.iter().filter_map(|value| match &value.op {
                    Op::Param(id) => Some(Dim::product(&graph.params[id.0 as usize].shape)),
                    _ => None,
                })),
                macs: total(inside.iter().map(|value| multiply_adds(value))),
            }
        })
        .collect();
    Summary { rows, params: params(graph), buffers: buffers(graph), macs: macs(graph) }
}

/// Trained numbers of a graph.
pub fn params(graph: &Graph) -> Dim {
    total(graph.params.iter().map(|param| Dim::product(&param.shape)))
}

/// Multiply-adds of a graph: the domains of its two-operand contractions that sum over something.
pub fn macs(graph: &Graph) -> Dim {
    total(graph.values().map(|(_, value)| multiply_adds(value)))
}

fn buffers(graph: &Graph) -> Dim {
    let buffers = graph.states.iter().filter(|state| state.kind == StateKind::Buffer);
    total(buffers.map(|state| Dim::product(&state.shape)))
}

fn multiply_adds(value: &Value) -> Dim {
    match &value.op {
        Op::Contract(contract) if value.args.len() == 2 && reduces(contract) => Dim::product(&contract.domain),
        _ => Dim::constant(0),
    }
}

/// True where an index of the domain is summed over.
fn reduces(contract: &Contract) -> bool {
    (0..contract.domain.len())
        .any(|index| !contract.output.iter().any(|affine| affine.terms.iter().any(|term| term.0 == index)))
}

fn total(dims: impl Iterator<Item = Dim>) -> Dim {
    dims.fold(Dim::constant(0), |sum, dim| sum + dim)
}
