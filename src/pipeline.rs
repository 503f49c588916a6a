//! The whole compiler as one readable function per purpose.
//!
//! Input: a project and a `train` item. Output: step graphs and compiled steps.
//! Invariant: files, clocks and threads are the caller's; everything here is a pure function of its arguments.

use std::collections::BTreeMap;

use crate::cpu::{self, Executable};
use crate::diagnostics::Diagnostic;
use crate::grad;
use crate::graph::{Binary, DType, Graph, Op, Output, ParamId, ScalarExpr, Unary, ValueId};
use crate::kernel::{Buffer, Program, Role};
use crate::model::{self, BoundField, FieldRange, Mode, Project, Training};
use crate::passes;

/// A step as machine code, with the places where the host meets it.
pub struct Compiled {
    /// Buffers and kernels.
    pub program: Program,
    /// The machine code.
    pub executable: Executable,
    /// The fields of the data that the step reads: name and place.
    pub inputs: Vec<(String, Buffer)>,
    /// The host's numbers: formula and place.
    pub scalars: Vec<(Buffer, ScalarExpr)>,
}

/// Forward, backward, clip, optimizer and metric sums for `batch` samples.
/// With `gradient_norms`, outputs `grad:PARAM` hold the L2 norm of each gradient before clipping.
///
/// # Errors
/// What is wrong with the model, loss, metrics or optimizer for fields of these sizes.
pub fn training_graph(
    project: &Project,
    training: &Training,
    batch: usize,
    fields: &[BoundField],
    gradient_norms: bool,
) -> Result<Graph, Vec<Diagnostic>> {
    let forward = model::forward(project, training, batch, Mode::Train, fields)?;
    let mut graph = forward.graph;
    graph.outputs.retain(|output| output.name == "loss" || output.name.starts_with("metric:"));
    let mut gradients = gradients(&mut graph, forward.loss);
    if gradient_norms {
        for (param, gradient) in &gradients {
            let square = square_sum(&mut graph, *gradient);
            let span = graph.value(square).span;
            let value = graph.unary(Unary::Sqrt, square, span);
            let name = format!("grad:{}", graph.params[param.0 as usize].name);
            graph.outputs.push(Output { name, value });
        }
    }
    if let Some(limit) = training.clip {
        clip(&mut graph, &mut gradients, limit);
    }
    model::apply_optimizer(project, training, &mut graph, &gradients)?;
    passes::run(&mut graph);
    Ok(graph)
}

/// The model for inference with loss and metric sums, for `batch` samples.
///
/// # Errors
/// As [`training_graph`].
pub fn evaluation_graph(
    project: &Project,
    training: &Training,
    batch: usize,
    fields: &[BoundField],
) -> Result<Graph, Vec<Diagnostic>> {
    let mut graph = model::forward(project, training, batch, Mode::Eval, fields)?.graph;
    graph.outputs.retain(|output| output.name == "loss" || output.name.starts_with("metric:"));
    passes::run(&mut graph);
    Ok(graph)
}

/// The model for inference with its outputs and what the loss reads from them, for `batch` samples; fields that the
/// model does not take are not needed.
///
/// # Errors
/// What is wrong with the model for fields of these sizes.
pub fn prediction_graph(
    project: &Project,
    training: &Training,
    batch: usize,
    fields: &[BoundField],
) -> Result<Graph, Vec<Diagnostic>> {
    let mut graph = model::prediction(project, training, batch, fields)?.graph;
    graph.updates.clear();
    passes::run(&mut graph);
    Ok(graph)
}

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// A training step.
    Train,
    /// Loss and metrics.
    Evaluate,
    /// The model's outputs.
    Predict,
}

/// What is wrong between the steps of a `train` item, and what their reads ask of the integers of the data: ranges of
/// fields, each once, for all of `purposes`.
///
/// # Errors
/// As [`training_graph`], and weights or states that inference has and training has not.
pub fn data_ranges(
    project: &Project,
    training: &Training,
    fields: &[BoundField],
    purposes: &[Purpose],
) -> Result<Vec<FieldRange>, Vec<Diagnostic>> {
    let mut ranges: Vec<FieldRange> = Vec::new();
    let mut ask = |graph: &Graph, demands: &[(ValueId, FieldRange)], purpose: Purpose| {
        let alive = alive(graph, purpose);
        for (_, range) in demands.iter().filter(|(reader, _)| alive[reader.0 as usize]) {
            if !ranges.contains(range) {
                ranges.push(range.clone());
            }
        }
    };
    // Outputs alone need no fields of the loss.
    if purposes != [Purpose::Predict] {
        let trained = model::forward(project, training, training.batch, Mode::Train, fields)?;
        let inferred = model::forward(project, training, training.batch, Mode::Eval, fields)?;
        let found = model::modes_agree(&trained.graph, &inferred.graph);
        if !found.is_empty() {
            return Err(found);
        }
        for purpose in purposes.iter().filter(|purpose| **purpose != Purpose::Predict) {
            let forward = if *purpose == Purpose::Train { &trained } else { &inferred };
            ask(&forward.graph, &forward.demands, *purpose);
        }
    }
    if purposes.contains(&Purpose::Predict) {
        let predicted = model::prediction(project, training, training.batch, fields)?;
        ask(&predicted.graph, &predicted.demands, Purpose::Predict);
    }
    Ok(ranges)
}

/// The values that a step for this purpose needs.
fn alive(graph: &Graph, purpose: Purpose) -> Vec<bool> {
    let figures = |name: &str| name == "loss" || name.starts_with("metric:");
    let outputs = graph.outputs.iter().filter(|output| figures(&output.name) != (purpose == Purpose::Predict));
    let updates = graph.updates.iter().filter(|_| purpose != Purpose::Predict);
    let mut alive = vec![false; graph.len()];
    for value in outputs.map(|output| output.value).chain(updates.map(|update| update.value)) {
        alive[value.0 as usize] = true;
    }
    for (id, value) in graph.values().rev() {
        if alive[id.0 as usize] {
            value.args.iter().for_each(|arg| alive[arg.0 as usize] = true);
        }
    }
    alive
}

/// Adds an output `d_PARAM` for the gradient of `loss` for each parameter.
pub fn add_gradient_outputs(graph: &mut Graph, loss: ValueId) {
    for (param, value) in gradients(graph, loss) {
        let name = format!("d_{}", graph.params[param.0 as usize].name);
        graph.outputs.push(Output { name, value });
    }
}

/// Machine code of a graph with bound sizes that is planned as `program`.
///
/// # Errors
/// What the code generator reports.
pub fn compile(graph: &Graph, program: Program, options: &cpu::Options) -> Result<Compiled, cpu::CodegenError> {
    let executable = Executable::load(&program, options)?;
    let scalars = graph
        .scalars
        .iter()
        .filter_map(|scalar| {
            let buffer = program.find(&Role::Scalar(scalar.name.clone()))?;
            Some((buffer.clone(), scalar.expr.clone()))
        })
        .collect();
    let input = |buffer: &Buffer| match &buffer.role {
        Role::Input(name) => Some((name.clone(), buffer.clone())),
        _ => None,
    };
    let inputs = program.buffers.iter().filter_map(input).collect();
    Ok(Compiled { program, executable, inputs, scalars })
}

/// The gradient of `loss` for each parameter that the graph reads; `differentiate` sums over its reads.
fn gradients(graph: &mut Graph, loss: ValueId) -> Vec<(ParamId, ValueId)> {
    let mut first: BTreeMap<ParamId, ValueId> = BTreeMap::new();
    for (id, value) in graph.values() {
        if let Op::Param(param) = value.op {
            first.entry(param).or_insert(id);
        }
    }
    let wrt: Vec<ValueId> = first.values().copied().collect();
    first.into_keys().zip(grad::differentiate(graph, loss, &wrt)).collect()
}

/// The sum of squares of a tensor.
fn square_sum(graph: &mut Graph, x: ValueId) -> ValueId {
    let span = graph.value(x).span;
    let square = graph.binary(Binary::Mul, x, x, span);
    let axes: Vec<usize> = (0..graph.shape(x).len()).collect();
    graph.sum(square, &axes, span)
}

/// Scales all gradients by min(1, limit / (norm + 1e-6)), norm over all of them (Pascanu et al. 2013, as in PyTorch).
fn clip(graph: &mut Graph, gradients: &mut [(ParamId, ValueId)], limit: f64) {
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
        let found = gradients(&mut graph, loss);
        assert_eq!(found.len(), 1);
        graph.outputs.push(Output { name: "gradient".into(), value: found[0].1 });
        let mut feeds = Feeds::default();
        feeds.params.insert("w".into(), Tensor::new(&[2], vec![3.0, -5.0]));
        let gradient = evaluate(&graph, &feeds).output("gradient").expect("an output").data.clone();
        assert_eq!(gradient, [6.0, -10.0]);
    }
}
