//! One network in training: its memory, its compiled steps, its place in the run.
//!
//! Input: a `train` item and its data. Output: losses, figures and checkpoints. Invariant: all that a later step
//! depends on is in the tensors of [`Trainer::tensors`] and in [`Trainer::position`].

mod origin;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::checkpoint::{self, Exact, Position};
use super::data::{Batch, Rows};
use super::figures::{Figures, Metric};
use super::places::{fill, not_finite, places, sizes};
use super::{init, memory};
use crate::cpu::{Arena, Options, StepInput};
use crate::diagnostics::Diagnostic;
use crate::graph::print::print;
use crate::graph::{ClockReading, DType, Feeds, Graph, Op, StateKind, Tensor as Tensor64, evaluate};
use crate::kernel::{Buffer, Program, Role};
use crate::model::check::bytes_text;
use crate::model::{BoundField, Project, Training};
use crate::pipeline::{self, Compiled, Purpose};
use crate::primitives::Level;
use crate::primitives::float_mode::all_finite;
use crate::primitives::pool::Pool;
use crate::primitives::tuning::Tuning;
use crate::schedule::{self, Persistent};
use crate::source::SourceMap;
pub use origin::Origin;

/// Batches that wait, are filled and are read while a step runs; see [`super::data::Batches`].
const BATCHES_AT_ONCE: u64 = 4;

/// How a trainer runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads, at least 1.
    pub threads: usize,
    /// The instruction set.
    pub level: Level,
    /// Compute the norm of each parameter's gradient at each step.
    pub gradient_norms: bool,
    /// Measure the time of each kernel.
    pub profile: bool,
    /// Measured cuts of products; see [`super::tuning`].
    pub tuning: Arc<Tuning>,
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Optimizer steps in one pass over the training split.
    pub steps_per_epoch: u64,
}

/// Why a trainer could not go on.
#[derive(Debug)]
pub enum TrainerError {
    /// The model file.
    Findings(Vec<Diagnostic>),
    /// Anything else, in words.
    Problem(String),
}

impl From<Vec<Diagnostic>> for TrainerError {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self::Findings(diagnostics)
    }
}

impl From<crate::cpu::CodegenError> for TrainerError {
    fn from(error: crate::cpu::CodegenError) -> Self {
        Self::Problem(error.to_string())
    }
}

/// What one optimizer step reports.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Mean loss of the batch before the update.
    pub loss: f64,
    /// The learning rate.
    pub lr: f64,
    /// How long it took, feeding included.
    pub seconds: f64,
    /// The first tensor that is not finite after the update: its name, and the line that declares it.
    pub not_finite: Option<String>,
    /// Metrics that are not finite, each told once in a run.
    pub lost_metrics: Vec<String>,
}

/// One output of the model for a batch.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Its name.
    pub name: String,
    /// Its sizes; the batch comes first in outputs that have one.
    pub sizes: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// Samples of a prediction: enough to fill a product's tiles, few enough that one alone costs little.
const PREDICTION_ROWS: usize = 16;

/// The way out where finite weights give what is not a number.
pub const NOT_A_NUMBER: &str = "a logarithm or root of a negative number, or a division by zero, needs its argument kept \
                                away from there, such as by `log(max(x, 1e-6))`";

/// See the module's text.
pub struct Trainer<'p> {
    project: &'p Project,
    training: &'p Training,
    settings: Settings,
    fields: Vec<BoundField>,
    graph: Graph,
    persistent: Persistent,
    /// Where parameters and states lie.
    places: BTreeMap<Role, Buffer>,
    compiled: BTreeMap<(Purpose, usize), Arc<Compiled>>,
    /// The model itself holds infinities, so that none need be made for one to reach a parameter.
    has_infinities: bool,
    /// Metrics that were told not to be finite.
    lost_metrics: BTreeSet<String>,
    arena: Arena,
    pool: Pool,
    position: Position,
    full_steps: (u64, f64),
}

impl<'p> Trainer<'p> {
    /// Compiles the training step for full batches and sets all parameters and states to their first values.
    /// `fields` have the batch as their first size.
    ///
    /// # Errors
    /// What is wrong with the model for these fields.
    pub fn new(
        project: &'p Project,
        training: &'p Training,
        fields: Vec<BoundField>,
        settings: Settings,
    ) -> Result<Self, TrainerError> {
        Self::for_steps(Purpose::Train, project, training, fields, settings)
    }

    /// As [`Trainer::new`] with steps of this kind: without training, optimizers have no memory, and without loss the
    /// fields that only the loss names are not needed.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn for_steps(
        kind: Purpose,
        project: &'p Project,
        training: &'p Training,
        fields: Vec<BoundField>,
        settings: Settings,
    ) -> Result<Self, TrainerError> {
        let mut fields = fields;
        let batch = if kind == Purpose::Predict { Self::prediction_rows(training) } else { training.batch };
        fields.iter_mut().for_each(|field| field.sizes[0] = batch);
        let graph = graph_of(kind, project, training, &fields, settings.gradient_norms)?;
        let persistent = Persistent::of(&graph);
        let pool = Pool::new(settings.threads);
        let mut trainer = Self {
            project,
            training,
            fields,
            places: places(&graph, &persistent),
            persistent,
            compiled: BTreeMap::new(),
            has_infinities: graph.values().any(|(_, v)| matches!(v.op, Op::Const(number) if !number.is_finite())),
            lost_metrics: BTreeSet::new(),
            arena: Arena::with_bytes(0).map_err(|error| TrainerError::Problem(error.to_string()))?,
            pool,
            position: Position::default(),
            settings,
            graph: Graph::default(),
            full_steps: (0, 0.0),
        };
        let first = trainer.compile(&graph, batch)?;
        trainer.compiled.insert((kind, batch), Arc::new(first));
        trainer.graph = graph;
        trainer.initialise();
        Ok(trainer)
    }

    /// Plans a step for `batch` samples, takes its memory, and makes its code. Memory that is there is not taken again.
    fn compile(&mut self, graph: &Graph, batch: usize) -> Result<Compiled, TrainerError> {
        let program = schedule::plan(graph, &self.persistent);
        let (arena, threads) = (program.arena_bytes, self.pool.threads());
        let batches = BATCHES_AT_ONCE * self.fields.iter().map(|field| bytes_of(field, batch)).sum::<u64>();
        let wanted = arena as u64 + (program.local_bytes * threads) as u64 + batches;
        let what = format!("a step for {batch} samples");
        if arena > self.arena.bytes()
            && let Some(room) = memory::room().filter(|room| room.bytes < wanted)
        {
            let words = memory::refusal(wanted, &what, room) + &self.way_out(wanted, room.bytes, batch);
            return Err(TrainerError::Problem(words));
        }
        let compiled = pipeline::compile(graph, program, &self.options())?;
        let scratch = compiled.executable.scratch_bytes(threads);
        let grown = self.arena.grow(arena).and_then(|()| self.arena.grow_scratch(scratch));
        grown.map_err(|error| TrainerError::Problem(format!("{what} takes {}: {error}", bytes_text(wanted))))?;
        Ok(compiled)
    }

    /// How a step that takes `wanted` bytes comes to fit into `room`.
    fn way_out(&self, wanted: u64, room: u64, batch: usize) -> String {
        let fixed = self.persistent.bytes as u64;
        let sample = (wanted.saturating_sub(fixed) / batch as u64).max(1);
        match room.saturating_sub(fixed) / sample {
            0 => format!("; weights and states alone take {}: a smaller model is needed", bytes_text(fixed)),
            some => format!("; about {some} samples fit: `--set train.batch={some}`"),
        }
    }

    fn options(&self) -> Options {
        let Settings { level, profile, tuning, .. } = &self.settings;
        Options { level: *level, profile: *profile, tuning: tuning.clone() }
    }

    /// Where the run stands.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Where the run stands, for notes such as the best figure so far.
    pub fn position_mut(&mut self) -> &mut Position {
        &mut self.position
    }

    /// The program of the training step for full batches.
    pub fn program(&self) -> &Program {
        &self.compiled[&(Purpose::Train, self.training.batch)].program
    }

    /// How many steps of whole batches ran here, and their seconds.
    pub fn full_steps(&self) -> (u64, f64) {
        self.full_steps
    }

    /// Nanoseconds spent in each kernel of [`Trainer::program`] so far, if [`Settings::profile`].
    pub fn profile(&self) -> Vec<u64> {
        self.compiled[&(Purpose::Train, self.training.batch)].executable.profile()
    }

    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.graph.params.iter().map(|p| sizes(&p.shape).iter().product::<usize>()).sum()
    }

    /// Back to the first values of all parameters and states, at the start of the run.
    pub fn restart(&mut self) {
        for state in &self.graph.states {
            fill(&mut self.arena, &self.places[&Role::State(state.name.clone())], state.init);
        }
        self.position = Position::default();
        self.initialise();
    }

    fn initialise(&mut self) {
        for (position, param) in self.graph.params.iter().enumerate() {
            let values = self.arena.f32_mut(&self.places[&Role::Param(param.name.clone())]);
            init::fill(&param.init, &sizes(&param.shape), self.training.seed, position, &self.pool, values);
        }
        // A fresh arena is zero: pages of optimizer memory are left for the threads that first use them.
        for state in self.graph.states.iter().filter(|state| state.init != 0.0) {
            let buffer = &self.places[&Role::State(state.name.clone())];
            fill(&mut self.arena, buffer, state.init);
        }
    }

    /// Sets the metric sums to their first values, at the start of a pass.
    pub fn reset_metrics(&mut self) {
        for state in self.graph.states.iter().filter(|state| state.kind == StateKind::Metric) {
            let buffer = &self.places[&Role::State(state.name.clone())];
            fill(&mut self.arena, buffer, state.init);
        }
        self.position.loss_sum = Exact(0.0);
        self.position.samples = 0;
        self.position.metric_sums.clear();
    }

    /// Makes sure that a step for `batch` samples is compiled and fits the arena.
    fn prepare(&mut self, kind: Purpose, batch: usize) -> Result<(), TrainerError> {
        if self.compiled.contains_key(&(kind, batch)) {
            return Ok(());
        }
        let mut fields = self.fields.clone();
        fields.iter_mut().for_each(|field| field.sizes[0] = batch);
        let graph = graph_of(kind, self.project, self.training, &fields, self.settings.gradient_norms)?;
        let compiled = self.compile(&graph, batch)?;
        self.compiled.insert((kind, batch), Arc::new(compiled));
        Ok(())
    }

    /// Feeds a batch and runs a step; afterwards outputs lie in the arena. False if nothing that the step wrote can have
    /// become infinite or not a number by it.
    fn run(&mut self, kind: Purpose, batch: &Batch) -> Result<bool, TrainerError> {
        self.prepare(kind, batch.rows)?;
        let compiled = self.compiled[&(kind, batch.rows)].clone();
        let step = self.position.step + u64::from(kind == Purpose::Train);
        Ok(self.run_compiled(&compiled, batch, step))
    }

    fn run_compiled(&mut self, compiled: &Compiled, batch: &Batch, step: u64) -> bool {
        let mut suspect = self.has_infinities || !batch.is_finite;
        for (field, rows) in self.fields.iter().zip(&batch.fields) {
            let Some((_, buffer)) = compiled.inputs.iter().find(|(name, _)| *name == field.name) else { continue };
            match rows {
                Rows::F32(values) => self.arena.f32_mut(buffer).copy_from_slice(values),
                Rows::I32(values) => self.arena.i32_mut(buffer).copy_from_slice(values),
            }
        }
        let clock = self.clock(step);
        for (buffer, expr) in &compiled.scalars {
            let value = expr.evaluate(&clock) as f32;
            self.arena.f32_mut(buffer)[0] = value;
            suspect |= !value.is_finite();
        }
        let input = StepInput { seed: self.training.seed, step };
        suspect | compiled.executable.run(&mut self.arena, &self.pool, input)
    }

    fn clock(&self, step: u64) -> ClockReading {
        ClockReading { step, total_steps: self.settings.total_steps, steps_per_epoch: self.settings.steps_per_epoch }
    }

    /// The learning rate of a step, counted from 1.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let lr = self.graph.scalars.iter().find(|scalar| scalar.name == "lr");
        lr.map_or(f64::NAN, |scalar| scalar.expr.evaluate(&self.clock(step)))
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// What is wrong with the model for a batch of this size (a short last batch compiles at its first use).
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, TrainerError> {
        let began = Instant::now();
        let suspect = self.run(Purpose::Train, batch)?;
        let seconds = began.elapsed().as_secs_f64();
        if batch.rows == self.training.batch {
            self.full_steps.0 += 1;
            self.full_steps.1 += seconds;
        }
        self.position.step += 1;
        let loss = self.add_figures(Purpose::Train, batch.rows);
        let not_finite = if suspect { self.not_finite() } else { None };
        let lost_metrics = if suspect { self.newly_lost_metrics() } else { Vec::new() };
        Ok(StepReport { loss, lr: self.learning_rate(self.position.step), seconds, not_finite, lost_metrics })
    }

    /// Metrics whose sums are not finite, each once.
    fn newly_lost_metrics(&mut self) -> Vec<String> {
        let sums = self.position.metric_sums.iter().filter(|(_, sum)| !sum.0.is_finite()).map(|(name, _)| name);
        let states = self.graph.states.iter().filter(|state| state.kind == StateKind::Metric && state.init.is_finite());
        let states = states.filter(|state| {
            let buffer = &self.places[&Role::State(state.name.clone())];
            buffer.dtype == DType::F32 && !all_finite(self.arena.f32(buffer))
        });
        let states = states.filter_map(|state| state.name.split('.').next());
        let lost: Vec<String> = sums.map(String::as_str).chain(states).map(str::to_string).collect();
        lost.into_iter().filter(|name| self.lost_metrics.insert(name.clone())).collect()
    }

    /// Norms of the last step's gradients by parameter, if [`Settings::gradient_norms`].
    pub fn gradient_norms(&self, batch: usize) -> BTreeMap<String, f64> {
        let buffers = &self.compiled[&(Purpose::Train, batch)].program.buffers;
        let norm = |buffer: &Buffer| {
            let name = buffer.role.output()?.strip_prefix("grad:")?;
            Some((name.to_string(), f64::from(self.arena.f32(buffer)[0])))
        };
        buffers.iter().filter_map(norm).collect()
    }

    /// Adds the last step's loss and stateless metrics to the sums of the pass; returns the loss.
    fn add_figures(&mut self, kind: Purpose, batch: usize) -> f64 {
        let weight = batch as f64;
        let mut loss = f64::NAN;
        for buffer in &self.compiled[&(kind, batch)].program.buffers {
            let Some(output) = buffer.role.output() else { continue };
            if output == "loss" {
                loss = f64::from(self.arena.f32(buffer)[0]);
                self.position.loss_sum.0 += loss * weight;
            } else if let Some(name) = output.strip_prefix("metric:") {
                let value = f64::from(self.arena.f32(buffer)[0]);
                self.position.metric_sums.entry(name.to_string()).or_default().0 += value * weight;
            }
        }
        self.position.samples += batch as u64;
        loss
    }

    /// Loss and metrics since [`Trainer::reset_metrics`].
    pub fn figures(&self) -> Figures {
        let samples = self.position.samples.max(1) as f64;
        let metrics = self.training.metrics.iter().map(|metric| {
            let mean = || self.position.metric_sums.get(&metric.name).map_or(f64::NAN, |sum| sum.0 / samples);
            let (sizes, values) = match &metric.finish {
                Some(graph) => self.finish(graph),
                None => (Vec::new(), vec![mean()]),
            };
            Metric { name: metric.name.clone(), sizes, values }
        });
        Figures { loss: self.position.loss_sum.0 / samples, metrics: metrics.collect(), samples: self.position.samples }
    }

    /// The shape and value of a metric with state.
    fn finish(&self, graph: &Graph) -> (Vec<usize>, Vec<f64>) {
        let mut feeds = Feeds::default();
        for input in &graph.inputs {
            let buffer = &self.places[&Role::State(input.name.clone())];
            let values = self.arena.f32(buffer).iter().map(|x| f64::from(*x)).collect();
            feeds.inputs.insert(input.name.clone(), Tensor64::new(&buffer.sizes, values));
        }
        let evaluation = evaluate(graph, &feeds);
        let value = evaluation.output("value").expect("a finishing graph has one output");
        (value.sizes.clone(), value.data.clone())
    }

    /// Loss and metrics over batches, without training; the sums of the running pass are kept.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn evaluate(&mut self, batches: impl Iterator<Item = Batch>) -> Result<Figures, TrainerError> {
        let (position, sums) = (self.position.clone(), self.metric_states());
        self.reset_metrics();
        for batch in batches {
            self.run(Purpose::Evaluate, &batch)?;
            self.add_figures(Purpose::Evaluate, batch.rows);
        }
        let figures = self.figures();
        self.position = position;
        for (buffer, values) in sums {
            self.arena.f32_mut(&buffer).copy_from_slice(&values);
        }
        Ok(figures)
    }

    fn metric_states(&self) -> Vec<(Buffer, Vec<f32>)> {
        let metrics = self.graph.states.iter().filter(|state| state.kind == StateKind::Metric);
        let buffers = metrics.map(|state| &self.places[&Role::State(state.name.clone())]);
        buffers.map(|buffer| (buffer.clone(), self.arena.f32(buffer).to_vec())).collect()
    }

    /// How many samples a prediction takes at once.
    pub fn prediction_rows(training: &Training) -> usize {
        training.batch.min(PREDICTION_ROWS)
    }

    /// The model's outputs for at most [`Trainer::prediction_rows`] samples. Fewer are filled up with copies of the last
    /// one, so that the same program runs and a sample's bits do not depend on how many come with it.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn predict(&mut self, batch: &Batch) -> Result<Vec<Prediction>, TrainerError> {
        let rows = Self::prediction_rows(self.training);
        let filled = if batch.rows < rows { &batch.filled(rows) } else { batch };
        self.run(Purpose::Predict, filled)?;
        let program = &self.compiled[&(Purpose::Predict, filled.rows)].program;
        let outputs = program.buffers.iter().filter_map(|buffer| {
            let name = buffer.role.output()?;
            let (mut values, mut sizes) = (self.arena.f32(buffer).to_vec(), buffer.sizes.clone());
            if let Some(first) = sizes.first_mut().filter(|first| **first == filled.rows) {
                values.truncate(values.len() / filled.rows * batch.rows);
                *first = batch.rows;
            }
            Some(Prediction { name: name.to_string(), sizes, values })
        });
        let outputs: Vec<Prediction> = outputs.collect();
        // Infinity may be meant, as that of a mask.
        match outputs.iter().find(|output| output.values.iter().any(|value| value.is_nan())) {
            Some(output) => Err(TrainerError::Problem(format!(
                "the output `{}` holds values that are not numbers, though the weights are finite; {NOT_A_NUMBER}",
                output.name
            ))),
            None => Ok(outputs),
        }
    }

    /// The first parameter, buffer or optimizer state that holds a value that is not finite: its name, and the line that
    /// declares it.
    pub fn not_finite(&self) -> Option<String> {
        let (name, span) = not_finite(&self.graph, &self.places, &self.arena)?;
        Some(format!("`{name}` ({})", self.project.sources.location(span)))
    }

    /// A hash of what a training step computes, wherever and however the model file says it.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn meaning(&self) -> Result<String, TrainerError> {
        let plain;
        let graph = if self.settings.gradient_norms {
            // What is measured on the side is no part of it.
            let (batch, fields) = (self.training.batch, &self.fields);
            plain = pipeline::training_graph(self.project, self.training, batch, fields, false)?;
            &plain
        } else {
            &self.graph
        };
        // Without sources the values carry no places.
        let text = print(graph, &SourceMap::default());
        let precision = format!("{:?}", graph.precision);
        Ok(checkpoint::checksum([text.as_bytes(), precision.as_bytes()].into_iter()))
    }

    /// The instruction set.
    pub fn level(&self) -> Level {
        self.settings.level
    }
}

/// The step of this kind for the batch that the fields have.
fn graph_of(
    kind: Purpose,
    project: &Project,
    training: &Training,
    fields: &[BoundField],
    gradient_norms: bool,
) -> Result<Graph, Vec<Diagnostic>> {
    let batch = fields.first().and_then(|field| field.sizes.first().copied()).unwrap_or(training.batch);
    match kind {
        Purpose::Train => pipeline::training_graph(project, training, batch, fields, gradient_norms),
        Purpose::Evaluate => pipeline::evaluation_graph(project, training, batch, fields),
        Purpose::Predict => pipeline::prediction_graph(project, training, batch, fields),
    }
}

/// Bytes of a field for `batch` samples.
fn bytes_of(field: &BoundField, batch: usize) -> u64 {
    4 * field.sizes[1..].iter().product::<usize>() as u64 * batch as u64
}
