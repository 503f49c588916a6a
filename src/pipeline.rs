//! The whole compiler as one readable function per purpose.
//!
//! Input: a project and a `train` item. Output: step graphs and compiled steps.
//! Invariant: files, clocks and threads are the caller's; everything here is a pure function of its arguments.

use std::collections::BTreeMap;

use crate::cpu::{self, Executable};
use crate::diagnostics::Diagnostic;
use crate::grad;
use crate::graph::{Binary, DType, Graph, Op, Output, ParamId, ScalarExpr, Unary, ValueId};
use crate::kernel::{Buffer, Program};
use crate::model::{self, BoundField, FieldRange, Forward, Mode, Project, Training};
use crate::passes;
use crate::schedule::{self, Persistent};

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

/// The model for inference with its outputs alone, for `batch` samples.
///
/// # Errors
/// As [`training_graph`].
pub fn prediction_graph(
    project: &Project,
    training: &Training,
    batch: usize,
    fields: &[BoundField],
) -> Result<Graph, Vec<Diagnostic>> {
    let mut graph = model::forward(project, training, batch, Mode::Eval, fields)?.graph;
    graph.outputs.retain(|output| output.name != "loss" && !output.name.starts_with("metric:"));
    graph.updates.clear();
    passes::run(&mut graph);
    Ok(graph)
}

/// What a step is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A training step.
    Train,
    /// Loss and metrics.
    Evaluate,
    /// The model's outputs.
    Predict,
}

/// What the reads of a step ask of the integers of the data: ranges of fields, each once.
///
/// # Errors
/// As [`training_graph`].
pub fn data_ranges(
    project: &Project,
    training: &Training,
    fields: &[BoundField],
    purpose: Purpose,
) -> Result<Vec<FieldRange>, Vec<Diagnostic>> {
    let mode = if purpose == Purpose::Train { Mode::Train } else { Mode::Eval };
    let Forward { graph, demands, .. } = model::forward(project, training, training.batch, mode, fields)?;
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
    let mut ranges = Vec::new();
    for (_, range) in demands.into_iter().filter(|(reader, _)| alive[reader.0 as usize]) {
        if !ranges.contains(&range) {
            ranges.push(range);
        }
    }
    Ok(ranges)
}

/// Adds an output `d_PARAM` for the gradient of `loss` for each parameter.
pub fn add_gradient_outputs(graph: &mut Graph, loss: ValueId) {
    for (param, value) in gradients(graph, loss) {
        let name = format!("d_{}", graph.params[param.0 as usize].name);
        graph.outputs.push(Output { name, value });
    }
}

/// Kernels, memory plan and machine code of a graph with bound sizes.
///
/// # Errors
/// What the code generator reports.
pub fn compile(graph: &Graph, persistent: &Persistent, options: &cpu::Options) -> Result<Compiled, cpu::CodegenError> {
    let program = schedule::plan(graph, persistent);
    let executable = Executable::load(&program, options)?;
    let scalars = graph
        .scalars
        .iter()
        .filter_map(|scalar| {
            let name = format!("scalar:{}", scalar.name);
            let buffer = program.buffers.iter().find(|buffer| buffer.name == name)?;
            Some((buffer.clone(), scalar.expr.clone()))
        })
        .collect();
    let named = |buffer: &Buffer| Some((buffer.name.strip_prefix("input:")?.to_string(), buffer.clone()));
    let inputs = program.buffers.iter().filter_map(named).collect();
    Ok(Compiled { program, executable, inputs, scalars })
}

/// The gradient of `loss` for each parameter that the graph reads, summed over its reads.
fn gradients(graph: &mut Graph, loss: ValueId) -> Vec<(ParamId, ValueId)> {
    let reads: Vec<(ParamId, ValueId)> = graph
        .values()
        .filter_map(|(id, value)| if let Op::Param(param) = value.op { Some((param, id)) } else { None })
        .collect();
    let wrt: Vec<ValueId> = reads.iter().map(|(_, value)| *value).collect();
    let mut sums: BTreeMap<ParamId, ValueId> = BTreeMap::new();
    for ((param, _), gradient) in reads.into_iter().zip(grad::differentiate(graph, loss, &wrt)) {
        let sum = match sums.get(&param) {
            Some(sum) => graph.binary(Binary::Add, *sum, gradient, graph.value(gradient).span),
            None => gradient,
        };
        sums.insert(param, sum);
    }
    sums.into_iter().collect()
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
