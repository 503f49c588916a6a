//! The whole compiler as one readable function per purpose.
//!
//! Input: a resolved `train` item. Output: step graphs, and the planned steps as an [`Artifact`].
//! Invariant: files, clocks and threads are the caller's; everything here is a pure function of its arguments.

use std::collections::{BTreeMap, BTreeSet};

use crate::artifact::{Artifact, Purpose, Step, Watched, checksum};
use crate::diagnostics::Diagnostic;
use crate::grad;
use crate::graph::print::print;
use crate::graph::{Binary, DType, Graph, Op, Output, OutputName, ValueId};
use crate::kernel::Persistent;
use crate::model::{self, Mode, Resolved};
use crate::passes;
use crate::schedule::{self, Backend};
use crate::settings::{FieldInfo, FieldRange};
use crate::source::SourceMap;

/// Forward, backward, clip, optimizer and metric sums for `batch` samples.
/// With `gradient_norms`, further outputs hold the L2 norm of each gradient before clipping.
///
/// # Errors
/// What is wrong with the model, loss, metrics or optimizer for fields of these sizes.
pub fn training_graph(
    training: &Resolved,
    batch: usize,
    fields: &[FieldInfo],
    gradient_norms: bool,
) -> Result<Graph, Vec<Diagnostic>> {
    let forward = model::forward(training, batch, Mode::Train, fields)?;
    let mut graph = forward.graph;
    graph.outputs.retain(|output| output.name.is_figure());
    let mut gradients = grad::by_params(&mut graph, forward.loss);
    if gradient_norms {
        grad::add_norms(&mut graph, &gradients);
    }
    if let Some(limit) = training.settings.clip {
        grad::clip(&mut graph, &mut gradients, limit);
    }
    model::apply_optimizer(training, &mut graph, &gradients)?;
    passes::run(&mut graph);
    Ok(graph)
}

/// The model for inference with loss and metric sums, for `batch` samples.
///
/// # Errors
/// As [`training_graph`].
pub fn evaluation_graph(training: &Resolved, batch: usize, fields: &[FieldInfo]) -> Result<Graph, Vec<Diagnostic>> {
    let mut graph = model::forward(training, batch, Mode::Eval, fields)?.graph;
    graph.outputs.retain(|output| output.name.is_figure());
    passes::run(&mut graph);
    Ok(graph)
}

/// The model for inference with its outputs and what the loss reads from them, for `batch` samples; fields that the
/// model does not take are not needed.
///
/// # Errors
/// What is wrong with the model for fields of these sizes.
pub fn prediction_graph(training: &Resolved, batch: usize, fields: &[FieldInfo]) -> Result<Graph, Vec<Diagnostic>> {
    let mut graph = model::prediction(training, batch, fields)?.graph;
    graph.updates.clear();
    passes::run(&mut graph);
    Ok(graph)
}

/// What is wrong between the steps of a `train` item, and what their reads ask of the integers of the data: ranges of
/// fields, each once, for all of `purposes`.
///
/// # Errors
/// As [`training_graph`], and weights or states that inference has and training has not.
pub fn data_ranges(
    training: &Resolved,
    fields: &[FieldInfo],
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
        let trained = model::forward(training, training.settings.batch, Mode::Train, fields)?;
        let inferred = model::forward(training, training.settings.batch, Mode::Eval, fields)?;
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
        let predicted = model::prediction(training, training.settings.batch, fields)?;
        ask(&predicted.graph, &predicted.demands, Purpose::Predict);
    }
    Ok(ranges)
}

/// The values that a step for this purpose needs.
fn alive(graph: &Graph, purpose: Purpose) -> Vec<bool> {
    let outputs = graph.outputs.iter().filter(|output| output.name.is_figure() != (purpose == Purpose::Predict));
    let updates = graph.updates.iter().filter(|_| purpose != Purpose::Predict);
    graph.alive(outputs.map(|output| output.value).chain(updates.map(|update| update.value)))
}

/// Adds an output for the gradient of `loss` for each parameter.
pub fn add_gradient_outputs(graph: &mut Graph, loss: ValueId) {
    for (param, value) in grad::by_params(graph, loss) {
        let name = OutputName::Gradient(graph.params[param.0 as usize].name.clone());
        graph.outputs.push(Output { name, value });
    }
}

/// The steps of a `train` item for one kind of machine, as plain data: `wanted` of them, each for a number of samples, the
/// first of which has all parameters and states. With `gradient_norms`, training steps measure them too.
///
/// # Errors
/// As [`data_ranges`].
pub fn artifact(
    training: &Resolved,
    fields: &[FieldInfo],
    wanted: &[(Purpose, usize)],
    gradient_norms: bool,
    backend: &dyn Backend,
) -> Result<Artifact, Vec<Diagnostic>> {
    let (purpose, rows) = wanted[0];
    let purposes: BTreeSet<Purpose> = wanted.iter().map(|(purpose, _)| *purpose).collect();
    let ranges = data_ranges(training, fields, &Vec::from_iter(purposes))?;
    let first = step_graph(training, fields, (purpose, rows), gradient_norms)?;
    let persistent = Persistent::of(&first);
    let mut steps = BTreeMap::new();
    for key in &wanted[1..] {
        let graph = step_graph(training, fields, *key, gradient_norms)?;
        steps.insert(*key, Step::new(&graph, schedule::plan(&graph, &persistent, backend)));
    }
    steps.insert(wanted[0], Step::new(&first, schedule::plan(&first, &persistent, backend)));
    let meaning = match purpose {
        // What is measured on the side is no part of it.
        Purpose::Train if gradient_norms => meaning(&step_graph(training, fields, (purpose, rows), false)?),
        Purpose::Train | Purpose::Evaluate | Purpose::Predict => meaning(&first),
    };
    let is_infinite = |op: &Op| matches!(op, Op::Const(number) if !number.is_finite());
    let has_infinities = first.values().any(|(_, value)| is_infinite(&value.op));
    Ok(Artifact {
        sources: training.project.sources.clone(),
        training: training.settings.clone(),
        fields: fields.to_vec(),
        ranges,
        has_infinities,
        params: first.params,
        states: first.states,
        scalars: first.scalars,
        persistent,
        steps,
        meaning,
    })
}

/// The training step for `rows` samples, opened up so that what is not finite can be traced.
///
/// # Errors
/// As [`training_graph`].
pub fn watched(
    training: &Resolved,
    fields: &[FieldInfo],
    rows: usize,
    persistent: &Persistent,
    backend: &dyn Backend,
) -> Result<Watched, Vec<Diagnostic>> {
    let graph = step_graph(training, fields, (Purpose::Train, rows), false)?;
    let loss = graph.outputs.iter().filter(|output| output.name == OutputName::Loss).map(|output| output.value);
    let roots = loss.chain(graph.updates.iter().map(|update| update.value)).collect();
    let mut opened = graph.clone();
    opened.updates.clear();
    opened.outputs.clear();
    for (id, value) in graph.values().filter(|(_, value)| value.dtype == DType::F32) {
        // The sum of x - x is 0, or not a number.
        let difference = opened.binary(Binary::Sub, id, id, value.span);
        let axes: Vec<usize> = (0..value.shape.len()).collect();
        let sum = opened.sum(difference, &axes, value.span);
        opened.outputs.push(Output { name: OutputName::Watch(id), value: sum });
    }
    let step = Step::new(&opened, schedule::plan(&opened, persistent, backend));
    Ok(Watched { step, graph, roots })
}

/// The graph of a step for a number of samples.
fn step_graph(
    training: &Resolved,
    fields: &[FieldInfo],
    (purpose, rows): (Purpose, usize),
    gradient_norms: bool,
) -> Result<Graph, Vec<Diagnostic>> {
    match purpose {
        Purpose::Train => training_graph(training, rows, fields, gradient_norms),
        Purpose::Evaluate => evaluation_graph(training, rows, fields),
        Purpose::Predict => prediction_graph(training, rows, fields),
    }
}

/// A hash of what a graph computes.
fn meaning(graph: &Graph) -> String {
    // Without sources the values carry no places.
    let text = print(graph, &SourceMap::default());
    let precision = format!("{:?}", graph.precision);
    checksum([text.as_bytes(), precision.as_bytes()].into_iter())
}
