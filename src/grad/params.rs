//! The gradients of a loss by all parameters, their norms, and clipping.
//!
//! Input: a graph and its loss. Output: the same graph with a gradient for each parameter that it reads. Invariant: a
//! parameter has one gradient, over all of its reads.

use std::collections::BTreeMap;

use crate::graph::{Binary, DType, Graph, Op, Output, OutputName, ParamId, Unary, ValueId};

/// The gradient of `loss` for each parameter that the graph reads; `differentiate` sums over its reads.
pub fn by_params(graph: &mut Graph, loss: ValueId) -> Vec<(ParamId, ValueId)> {
    let mut first: BTreeMap<ParamId, ValueId> = BTreeMap::new();
    for (id, value) in graph.values() {
        if let Op::Param(param) = value.op {
            first.entry(param).or_insert(id);
        }
    }
    let wrt: Vec<ValueId> = first.values().copied().collect();
    first.into_keys().zip(super::differentiate(graph, loss, &wrt)).collect()
}

/// Adds an output for the L2 norm of each gradient.
pub fn add_norms(graph: &mut Graph, gradients: &[(ParamId, ValueId)]) {
    for (param, gradient) in gradients {
        let square = square_sum(graph, *gradient);
        let span = graph.value(square).span;
        let value = graph.unary(Unary::Sqrt, square, span);
        let name = OutputName::GradientNorm(graph.params[param.0 as usize].name.clone());
        graph.outputs.push(Output { name, value });
    }
}

/// The sum of squares of a tensor.
fn square_sum(graph: &mut Graph, x: ValueId) -> ValueId {
    let span = graph.value(x).span;
    let square = graph.binary(Binary::Mul, x, x, span);
    let axes: Vec<usize> = (0..graph.shape(x).len()).collect();
    graph.sum(square, &axes, span)
}

/// Scales all gradients by min(1, limit / (norm + 1e-6)), norm over all of them (Pascanu et al. 2013, as in PyTorch).
pub fn clip(graph: &mut Graph, gradients: &mut [(ParamId, ValueId)], limit: f64) {
    let squares: Vec<ValueId> = gradients.iter().map(|(_, gradient)| square_sum(graph, *gradient)).collect();
    let Some(total) = squares.into_iter().reduce(|a, b| {
        let span = graph.value(a).span;
        graph.binary(Binary::Add, a, b, span)
    }) else {
        return;
    };
    let span = graph.value(total).span;
    let constant = |graph: &mut Graph, value| graph.constant(value, &[], DType::F32, span);
    let norm = graph.unary(Unary::Sqrt, total, span);
    let epsilon = constant(graph, 1e-6);
    let norm = graph.binary(Binary::Add, norm, epsilon, span);
    let limit = constant(graph, limit);
    let ratio = graph.binary(Binary::Div, limit, norm, span);
    let one = constant(graph, 1.0);
    let scale = graph.binary(Binary::Min, one, ratio, span);
    for (_, gradient) in gradients {
        let shape = graph.shape(*gradient).to_vec();
        let factor = graph.broadcast(scale, &shape, &[], span);
        *gradient = graph.binary(Binary::Mul, *gradient, factor, span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dim::Dim;
    use crate::graph::{Feeds, Init, Param, Tensor, evaluate};
    use crate::source::{FileId, Span};

    #[test]
    fn a_parameter_that_is_read_twice_has_one_gradient_over_both_reads() {
        let span = Span::new(FileId(0), 0, 0);
        let mut graph = Graph::default();
        let first =
            graph.param(Param { name: "w".into(), shape: vec![Dim::from(2usize)], init: Init::Constant(1.0), span });
        let second = graph.read_param(ParamId(0), span);
        let product = graph.binary(Binary::Mul, first, second, span);
        let loss = graph.sum(product, &[0], span);
        let found = by_params(&mut graph, loss);
        assert_eq!(found.len(), 1);
        graph.outputs.push(Output { name: "gradient".into(), value: found[0].1 });
        let mut feeds = Feeds::default();
        feeds.params.insert("w".into(), Tensor::new(&[2], vec![3.0, -5.0]));
        let gradient = evaluate(&graph, &feeds).output("gradient").expect("an output").data.clone();
        assert_eq!(gradient, [6.0, -10.0]);
    }
}
