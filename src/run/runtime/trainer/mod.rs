//! One network in training: the steps of an artifact on a device, and its place in the run.
//!
//! Input: an artifact, a device, batches. Output: losses, figures and checkpoints. Invariant: all that a later step
//! depends on is in the tensors of [`Trainer::tensors`] and in [`Trainer::position`].

mod origin;
mod snapshot;
mod weights;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::checkpoint::{Exact, Position};
use super::data::{Batch, Plan, Rows};
use super::figures::{Figures, Metric};
use super::places::{all_finite, not_finite, places};
use super::{init, memory};
use crate::artifact::{Artifact, Purpose, Step, wanted};
use crate::device::{Device, Loaded, StepInput};
pub use crate::diagnostics::Refusal as TrainerError;
use crate::dim::bound;
use crate::graph::{ClockReading, DType, Feeds, Graph, OutputName, State, StateKind, Tensor as Tensor64, evaluate};
use crate::kernel::{Buffer, Program, Role};
use crate::settings::{Length, Training};
use crate::source::bytes_text;
pub use origin::Origin;
pub use snapshot::Snapshot;

/// Batches that wait, are filled and are read while a step runs; see [`super::data::Batches`].
const BATCHES_AT_ONCE: u64 = 4;

/// The clock of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Optimizer steps in one pass over the training split.
    pub steps_per_epoch: u64,
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
    /// The loss, or the first tensor that is not finite after the update: its name, and the line that declares it.
    pub not_finite: Option<String>,
    /// Metrics that are not finite, each told once in a run.
    pub lost_metrics: Vec<String>,
}

/// One output of the model for a batch.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Its name.
    pub name: OutputName,
    /// Its sizes; the batch comes first in outputs that have one.
    pub sizes: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// The sums of a pass that waits while another one evaluates; no step trains meanwhile.
#[derive(Debug)]
pub struct Aside {
    position: Position,
    sums: Vec<(Buffer, Vec<f32>)>,
}

/// The way out where finite weights give what is not a number.
pub const NOT_A_NUMBER: &str = "a logarithm or root of a negative number, or a division by zero, needs its argument kept \
                                away from there, such as by `log(max(x, 1e-6))`";

/// See the module's text.
pub struct Trainer {
    artifact: Artifact,
    device: Box<dyn Device>,
    extent: Extent,
    /// Threads of the host for what it does itself.
    threads: usize,
    /// Where parameters and states lie.
    places: BTreeMap<Role, Buffer>,
    loaded: BTreeMap<(Purpose, usize), Loaded>,
    /// Metrics that were told not to be finite.
    lost_metrics: BTreeSet<String>,
    position: Position,
    full_steps: (u64, f64),
}

impl Trainer {
    /// Loads the steps of the artifact that `wanted` names and sets all parameters and states to their first values.
    ///
    /// # Errors
    /// No code or no memory for one of them.
    pub fn new(
        artifact: Artifact,
        device: Box<dyn Device>,
        extent: Extent,
        threads: usize,
        wanted: &[Purpose],
    ) -> Result<Self, TrainerError> {
        let mut trainer = Self {
            places: places(&artifact),
            artifact,
            device,
            extent,
            threads,
            loaded: BTreeMap::new(),
            lost_metrics: BTreeSet::new(),
            position: Position::default(),
            full_steps: (0, 0.0),
        };
        wanted.iter().try_for_each(|purpose| trainer.load_steps(*purpose))?;
        trainer.initialise()?;
        Ok(trainer)
    }

    /// Loads the artifact's steps for this purpose, the largest first; those that are loaded stay.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn load_steps(&mut self, purpose: Purpose) -> Result<(), TrainerError> {
        let is_missing = |key: &&(Purpose, usize)| key.0 == purpose && !self.loaded.contains_key(*key);
        let missing: Vec<(Purpose, usize)> = self.artifact.steps.keys().rev().filter(is_missing).copied().collect();
        for key in missing {
            let loaded = load(&mut *self.device, &self.artifact, &self.artifact.steps[&key].program, key.1)?;
            self.loaded.insert(key, loaded);
        }
        Ok(())
    }

    /// What is run.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
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
        &self.step_of(Purpose::Train, self.training().batch).program
    }

    /// How many steps of whole batches ran here, and their seconds.
    pub fn full_steps(&self) -> (u64, f64) {
        self.full_steps
    }

    /// Nanoseconds spent in each kernel of [`Trainer::program`] so far, if the device was asked to.
    pub fn profile(&self) -> Vec<u64> {
        self.device.profile(self.loaded[&(Purpose::Train, self.training().batch)])
    }

    fn training(&self) -> &Training {
        &self.artifact.training
    }

    fn step_of(&self, purpose: Purpose, rows: usize) -> &Step {
        &self.artifact.steps[&(purpose, rows)]
    }

    fn place(&self, state: &State) -> &Buffer {
        &self.places[&Role::State(state.name.clone())]
    }

    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.artifact.params.iter().map(|p| bound(&p.shape).iter().product::<usize>()).sum()
    }

    /// Back to the first values of all parameters and states, at the start of the run.
    ///
    /// # Errors
    /// The device has failed, here and in all that computes, reads or writes.
    pub fn restart(&mut self) -> Result<(), TrainerError> {
        for state in &self.artifact.states {
            self.device.fill(&self.places[&Role::State(state.name.clone())], state.init)?;
        }
        self.position = Position::default();
        self.initialise()
    }

    fn initialise(&mut self) -> Result<(), TrainerError> {
        let (seed, threads) = (self.training().seed, self.threads);
        for (position, param) in self.artifact.params.iter().enumerate() {
            let sizes = bound(&param.shape);
            self.device.write_with(&self.places[&Role::Param(param.name.clone())], &mut |values| {
                init::fill(&param.init, &sizes, seed, position, threads, values);
            })?;
        }
        // A fresh arena is zero: pages of optimizer memory are left for the threads that first use them.
        for state in self.artifact.states.iter().filter(|state| state.init != 0.0) {
            self.device.fill(&self.places[&Role::State(state.name.clone())], state.init)?;
        }
        Ok(())
    }

    /// Sets the metric sums to their first values, at the start of a pass.
    ///
    /// # Errors
    /// As [`Trainer::restart`].
    pub fn reset_metrics(&mut self) -> Result<(), TrainerError> {
        for state in self.artifact.states.iter().filter(|state| state.kind == StateKind::Metric) {
            self.device.fill(&self.places[&Role::State(state.name.clone())], state.init)?;
        }
        self.position.loss_sum = Exact(0.0);
        self.position.samples = 0;
        self.position.metric_sums.clear();
        (self.position.mishaps.skipped, self.position.mishaps.leaps) = (0, 0);
        Ok(())
    }

    /// Feeds a batch and runs a step; afterwards outputs lie in the device's memory. False if nothing that the step wrote
    /// can have become infinite or not a number by it.
    ///
    /// # Panics
    /// If the artifact has no step for so many samples, or it was not loaded: a bug of the caller.
    fn run(&mut self, purpose: Purpose, batch: &Batch) -> Result<bool, TrainerError> {
        let key = (purpose, batch.rows);
        let number = self.position.step + u64::from(purpose == Purpose::Train);
        let loaded = *self.loaded.get(&key).unwrap_or_else(|| panic!("no step is loaded for {key:?}"));
        run_step(
            &mut *self.device,
            &self.artifact,
            &self.artifact.steps[&key],
            loaded,
            batch,
            self.extent.clock(number),
        )
    }

    /// The learning rate of a step, counted from 1.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let lr = self.artifact.scalars.iter().find(|scalar| scalar.name == "lr");
        lr.map_or(f64::NAN, |scalar| scalar.expr.evaluate(&self.extent.clock(step)))
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// As [`Trainer::restart`].
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport, TrainerError> {
        let began = Instant::now();
        let suspect = self.run(Purpose::Train, batch)?;
        let seconds = began.elapsed().as_secs_f64();
        if batch.rows == self.training().batch {
            self.full_steps.0 += 1;
            self.full_steps.1 += seconds;
        }
        self.position.step += 1;
        let loss = self.add_figures(Purpose::Train, batch.rows)?;
        let not_finite = if suspect { self.not_finite()? } else { None };
        let not_finite = if loss.is_finite() { not_finite } else { Some("the loss".to_string()) };
        let is_kept = suspect && not_finite.is_none();
        let lost_metrics = if is_kept { self.newly_lost_metrics()? } else { Vec::new() };
        Ok(StepReport { loss, lr: self.learning_rate(self.position.step), seconds, not_finite, lost_metrics })
    }

    /// Metrics whose sums are not finite, each once.
    fn newly_lost_metrics(&mut self) -> Result<Vec<String>, TrainerError> {
        let sums = self.position.metric_sums.iter().filter(|(_, sum)| !sum.0.is_finite()).map(|(name, _)| name);
        let states = self.artifact.states.iter().filter(|s| s.kind == StateKind::Metric && s.init.is_finite());
        let mut lost: Vec<String> = sums.cloned().collect();
        for state in states.filter(|state| state.dtype == DType::F32) {
            if !all_finite(&self.device.read_f32(self.place(state))?) {
                lost.extend(state.name.split('.').next().map(str::to_string));
            }
        }
        Ok(lost.into_iter().filter(|name| self.lost_metrics.insert(name.clone())).collect())
    }

    /// Norms of the last step's gradients by parameter, if the artifact has them.
    ///
    /// # Errors
    /// As [`Trainer::restart`].
    pub fn gradient_norms(&self, batch: usize) -> Result<BTreeMap<String, f64>, TrainerError> {
        let buffers = &self.step_of(Purpose::Train, batch).program.buffers;
        let norm = |buffer: &Buffer| {
            let OutputName::GradientNorm(name) = buffer.role.output()? else { return None };
            let norm = self.device.read_f32(buffer).map(|norm| f64::from(norm[0]));
            Some(norm.map(|norm| (name.to_string(), norm)))
        };
        buffers.iter().filter_map(norm).collect()
    }

    /// Adds the last step's loss and stateless metrics to the sums of the pass; returns the loss.
    fn add_figures(&mut self, kind: Purpose, batch: usize) -> Result<f64, TrainerError> {
        let weight = batch as f64;
        let mut loss = f64::NAN;
        for buffer in &self.artifact.steps[&(kind, batch)].program.buffers {
            let Some(name) = buffer.role.output().filter(|name| name.is_figure()) else { continue };
            let value = f64::from(self.device.read_f32(buffer)?[0]);
            if let OutputName::Metric(name) = name {
                self.position.metric_sums.entry(name.clone()).or_default().0 += value * weight;
            } else {
                loss = value;
                self.position.loss_sum.0 += loss * weight;
            }
        }
        self.position.samples += batch as u64;
        Ok(loss)
    }

    /// Loss and metrics since [`Trainer::reset_metrics`].
    ///
    /// # Errors
    /// As [`Trainer::restart`].
    pub fn figures(&self) -> Result<Figures, TrainerError> {
        // Of no sample, where all steps were skipped, there is no figure: NaN.
        let samples = self.position.samples as f64;
        let metrics = self.training().metrics.iter().map(|metric| {
            let mean = || self.position.metric_sums.get(&metric.name).map_or(f64::NAN, |sum| sum.0 / samples);
            let (sizes, values) = match &metric.finish {
                Some(graph) => self.finish(graph)?,
                None => (Vec::new(), vec![mean()]),
            };
            Ok(Metric { name: metric.name.clone(), sizes, values })
        });
        let metrics = metrics.collect::<Result<_, TrainerError>>()?;
        Ok(Figures { loss: self.position.loss_sum.0 / samples, metrics, samples: self.position.samples })
    }

    /// The shape and value of a metric with state.
    fn finish(&self, graph: &Graph) -> Result<(Vec<usize>, Vec<f64>), TrainerError> {
        let mut feeds = Feeds::default();
        for input in &graph.inputs {
            let buffer = &self.places[&Role::State(input.name.clone())];
            let values = self.device.read_f32(buffer)?.iter().map(|x| f64::from(*x)).collect();
            feeds.inputs.insert(input.name.clone(), Tensor64::new(&buffer.sizes, values));
        }
        let evaluation = evaluate(graph, &feeds);
        let value = evaluation.output("value").expect("a finishing graph has one output");
        Ok((value.sizes.clone(), value.data.clone()))
    }

    /// Loss and metrics over batches, without training; the sums of the running pass are kept.
    ///
    /// # Errors
    /// As [`Trainer::restart`].
    pub fn evaluate(&mut self, batches: impl Iterator<Item = Batch>) -> Result<Figures, TrainerError> {
        let aside = self.begin_evaluation()?;
        for batch in batches {
            self.evaluate_batch(&batch)?;
        }
        self.finish_evaluation(aside)
    }

    /// Puts the sums of the running pass aside and begins one that evaluates.
    ///
    /// # Errors
    /// As [`Trainer::restart`].
    pub fn begin_evaluation(&mut self) -> Result<Aside, TrainerError> {
        let aside = Aside { position: self.position.clone(), sums: self.metric_states()? };
        self.reset_metrics()?;
        Ok(aside)
    }

    /// Adds a batch to the pass that evaluates. One for which there is no step is evaluated sample by sample.
    ///
    /// # Errors
    /// As [`Trainer::restart`].
    pub fn evaluate_batch(&mut self, batch: &Batch) -> Result<(), TrainerError> {
        if self.loaded.contains_key(&(Purpose::Evaluate, batch.rows)) {
            self.run(Purpose::Evaluate, batch)?;
            self.add_figures(Purpose::Evaluate, batch.rows)?;
            return Ok(());
        }
        for row in 0..batch.rows {
            self.run(Purpose::Evaluate, &batch.single(row))?;
            self.add_figures(Purpose::Evaluate, 1)?;
        }
        Ok(())
    }

    /// Loss and metrics of the pass that evaluated; the one before goes on.
    ///
    /// # Errors
    /// As [`Trainer::restart`].
    pub fn finish_evaluation(&mut self, aside: Aside) -> Result<Figures, TrainerError> {
        let figures = self.figures()?;
        self.position = aside.position;
        for (buffer, values) in aside.sums {
            self.device.write_f32(&buffer, &values)?;
        }
        Ok(figures)
    }

    fn metric_states(&self) -> Result<Vec<(Buffer, Vec<f32>)>, TrainerError> {
        let metrics = self.artifact.states.iter().filter(|state| state.kind == StateKind::Metric);
        let held = metrics.map(|state| self.place(state));
        held.map(|buffer| Ok((buffer.clone(), self.device.read_f32(buffer)?.into_owned()))).collect()
    }

    /// How many samples a prediction takes at once.
    pub fn prediction_rows(training: &Training) -> usize {
        wanted::prediction_rows(training.batch)
    }

    /// The model's outputs for at most [`Trainer::prediction_rows`] samples. Fewer are filled up with copies of the last
    /// one, so that the same program runs and a sample's bits do not depend on how many come with it. An output without
    /// samples, such as a mean over them, then counts the copies.
    ///
    /// # Errors
    /// An output that is not a number; the device has failed.
    pub fn predict(&mut self, batch: &Batch) -> Result<Vec<Prediction>, TrainerError> {
        let rows = Self::prediction_rows(self.training());
        let filled = if batch.rows < rows { &batch.filled(rows) } else { batch };
        self.run(Purpose::Predict, filled)?;
        let program = &self.step_of(Purpose::Predict, filled.rows).program;
        let outputs = program.buffers.iter().filter_map(|buffer| {
            let name = buffer.role.output()?;
            let values = self.device.read_f32(buffer).map(Cow::into_owned);
            Some(values.map(|values| (name, buffer, values)))
        });
        let cut = |read: Result<(&OutputName, &Buffer, Vec<f32>), TrainerError>| {
            let (name, buffer, mut values) = read?;
            let mut sizes = buffer.sizes.clone();
            if let Some(first) = sizes.first_mut().filter(|first| **first == filled.rows) {
                values.truncate(values.len() / filled.rows * batch.rows);
                *first = batch.rows;
            }
            Ok(Prediction { name: name.clone(), sizes, values })
        };
        let outputs = outputs.map(cut).collect::<Result<Vec<Prediction>, TrainerError>>()?;
        // Infinity may be meant, as that of a mask.
        match outputs.iter().find(|output| output.values.iter().any(|value| value.is_nan())) {
            Some(output) => Err(TrainerError(format!(
                "the output `{}` holds values that are not numbers, though the weights are finite; {NOT_A_NUMBER}",
                output.name
            ))),
            None => Ok(outputs),
        }
    }

    /// The first parameter, buffer or optimizer state that holds a value that is not finite: its name, and the line that
    /// declares it.
    ///
    /// # Errors
    /// As [`Trainer::restart`].
    pub fn not_finite(&self) -> Result<Option<String>, TrainerError> {
        let found = not_finite(&self.artifact, &self.places, &*self.device)?;
        Ok(found.map(|(name, span)| format!("`{name}` ({})", self.artifact.sources.location(span))))
    }

    /// What results depend on beside the artifact: the instruction set, or the kind of the device.
    pub fn level(&self) -> String {
        self.device.level()
    }
}

impl Extent {
    /// From the settings and the number of training samples.
    pub fn of(training: &Training, samples: usize) -> Self {
        let plan = Plan::of_run(training);
        Self::of_length(training.length, plan.steps_per_epoch(samples).max(1))
    }

    /// From a length and the steps of an epoch.
    pub fn of_length(length: Length, steps_per_epoch: u64) -> Self {
        let total_steps = match length {
            Length::Epochs(epochs) => (epochs * steps_per_epoch as f64).round() as u64,
            Length::Steps(steps) => steps,
        };
        Self { total_steps, steps_per_epoch }
    }

    fn clock(&self, step: u64) -> ClockReading {
        ClockReading { step, total_steps: self.total_steps, steps_per_epoch: self.steps_per_epoch }
    }
}

/// Room and code for a program for `rows` samples. Memory that is there is not taken again.
fn load(device: &mut dyn Device, artifact: &Artifact, program: &Program, rows: usize) -> Result<Loaded, TrainerError> {
    let batches =
        BATCHES_AT_ONCE * artifact.fields.iter().map(|field| (4 * field.elements() * rows) as u64).sum::<u64>();
    let wanted = device.bytes_for(program) + batches;
    let what = format!("a step for {rows} samples");
    let grows = program.arena_bytes as u64 > device.bytes();
    let room = device.room();
    if let Some(room) = room.filter(|room| grows && *room < wanted) {
        let words =
            format!("{what} takes {} of the GPU's memory, of which {} are free", bytes_text(wanted), bytes_text(room));
        return Err(TrainerError(words + &way_out(artifact, wanted, room, rows)));
    }
    if grows
        && room.is_none()
        && let Some(room) = memory::room().filter(|room| room.bytes < wanted)
    {
        let words = memory::refusal(wanted, &what, room) + &way_out(artifact, wanted, room.bytes, rows);
        return Err(TrainerError(words));
    }
    device.load(program).map_err(|error| TrainerError(format!("{what} takes {}: {error}", bytes_text(wanted))))
}

/// How a step that takes `wanted` bytes comes to fit into `room`.
fn way_out(artifact: &Artifact, wanted: u64, room: u64, rows: usize) -> String {
    let fixed = artifact.persistent.bytes as u64;
    let sample = (wanted.saturating_sub(fixed) / rows as u64).max(1);
    match room.saturating_sub(fixed) / sample {
        0 => format!("; weights and states alone take {}: a smaller model is needed", bytes_text(fixed)),
        some => format!("; about {some} samples fit: `--set train.batch={some}`"),
    }
}

/// Feeds a batch and the host's numbers and runs a step; the answer is as [`Trainer::run`]'s.
fn run_step(
    device: &mut dyn Device,
    artifact: &Artifact,
    step: &Step,
    loaded: Loaded,
    batch: &Batch,
    clock: ClockReading,
) -> Result<bool, TrainerError> {
    let mut suspect = artifact.has_infinities || !batch.is_finite;
    for (field, rows) in artifact.fields.iter().zip(&batch.fields) {
        let Some((_, buffer)) = step.inputs.iter().find(|(name, _)| *name == field.name) else { continue };
        match rows {
            Rows::F32(values) => device.write_f32(buffer, values)?,
            Rows::I32(values) => device.write_i32(buffer, values)?,
        }
    }
    for (buffer, expr) in &step.scalars {
        let value = expr.evaluate(&clock) as f32;
        device.write_f32(buffer, &[value])?;
        suspect |= !value.is_finite();
    }
    Ok(suspect | device.run(loaded, StepInput { seed: artifact.training.seed, step: clock.step })?)
}
