//! One run in the hands of another program.
//!
//! Input: contents, options, batches as bytes. Output: what steps report. Invariants: a step is taken at its place in the
//! run's clock or refused; an error leaves parameters and states as they were, [`Problem::NotFinite`] alone excepted.

use std::collections::BTreeMap;
use std::path::Path;

use ansatz_compute::machine::{self, Level};
use ansatz_program::artifact::{Artifact, Purpose};
use ansatz_program::diagnostics::Refusal;
use ansatz_program::settings::Length;
use ansatz_run::cpu::{Cpu, found_in};
use ansatz_run::runtime::checkpoint::{self, Note};
use ansatz_run::runtime::data::Batch;
use ansatz_run::runtime::figures::Figures;
use ansatz_run::runtime::recipe::Recipe;
use ansatz_run::runtime::trainer::{Aside, Extent, Snapshot, Trainer};
use ansatz_trainer::Contents;
use ansatz_trainer::contents;

use crate::batch::{ELEMENT, Inputs, fill};
use crate::describe::Tables;

/// What is to be known beside the contents.
#[derive(Clone, Debug, Default)]
pub struct Options<'o> {
    /// Threads that compute; all that the machine has where it is 0. Results do not depend on it.
    pub threads: usize,
    /// `avx512`, `avx2` or `portable`; the best of the machine and the contents where it is absent.
    pub level: Option<&'o str>,
    /// In place of the model file's.
    pub seed: Option<u64>,
    /// Optimizer steps of the whole run, which schedules count to; 0 for what the model file says.
    pub total_steps: u64,
    /// Optimizer steps in one pass over the training samples; at least 1.
    pub steps_per_epoch: u64,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// Nothing has changed.
    Refused(Refusal),
    /// The step was taken, and something is infinite or not a number now.
    NotFinite(String),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => f.write_str(&refusal.0),
            Self::NotFinite(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for Problem {}

/// What a step reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stepped {
    /// Mean loss of the batch before the update.
    pub loss: f64,
    /// The learning rate of the step.
    pub learning_rate: f64,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Parameters and buffers.
    Weights,
    /// Those, the memory of optimizer and metrics, and the place in the run.
    Checkpoint,
}

/// See the module's text.
pub struct Run {
    trainer: Trainer,
    extent: Extent,
    recipe: Recipe,
    tables: Tables,
    /// Memory for the batch at hand.
    batch: Batch,
    /// The sums of training while an evaluation is under way.
    aside: Option<Aside>,
}

impl Run {
    /// A run at its start, with its first values.
    ///
    /// # Errors
    /// Contents that are damaged or of another version; a level that the machine or the contents lack; no length; no memory.
    ///
    /// # Safety
    /// The contents were written by `ansatz build`: they hold machine code, which is run.
    pub unsafe fn create(bytes: &[u8], options: &Options<'_>) -> Result<Self, Problem> {
        let carrier = contents::of_bytes("the contents", bytes)?;
        let carrier = carrier.ok_or_else(|| refused("these are no contents that `ansatz build` wrote"))?;
        if carrier.levels().is_empty() {
            return Err(Problem::from(Refusal(
                "the contents are a trainer for GPUs, which this interface does not run".into(),
            )));
        }
        let level = machine::choose(options.level, &carrier.levels())?;
        let Contents { mut artifact, .. } = carrier.contents()?;
        if let Some(seed) = options.seed {
            artifact.training.seed = seed;
            artifact.training.overrides.push(("train.seed".into(), seed.to_string()));
        }
        let extent = extent(&artifact, options)?;
        let threads = machine::threads(Some(options.threads).filter(|threads| *threads > 0));
        // SAFETY: the caller vouches for the contents, and their checksums hold.
        let device = unsafe { Cpu::new(level, threads, found_in(carrier.codes(level)?, level)) }?;
        let recipe = recipe(&artifact, extent, level);
        let tables = Tables::of(&artifact);
        let trainer = Trainer::new(artifact, Box::new(device), extent, threads, &[Purpose::Train])?;
        Ok(Self { trainer, extent, recipe, tables, batch: Batch::default(), aside: None })
    }

    /// Its fields, outputs, tensors and metrics.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Samples of a whole batch.
    pub fn batch(&self) -> usize {
        self.artifact().training.batch
    }

    /// Optimizer steps done.
    pub fn position(&self) -> u64 {
        self.trainer.position().step
    }

    /// `avx512`, `avx2` or `portable`.
    pub fn level(&self) -> &str {
        &self.recipe.level
    }

    fn artifact(&self) -> &Artifact {
        self.trainer.artifact()
    }

    /// One optimizer step on so many samples, given field by field as bytes, row-major, sample first.
    ///
    /// # Errors
    /// A number of samples that no step was compiled for; fields as `fill` refuses them; the end of the run, or an
    /// evaluation under way.
    pub fn step(&mut self, rows: usize, inputs: Inputs<'_>) -> Result<Stepped, Problem> {
        self.hold_no_evaluation()?;
        let sizes: Vec<usize> = rows_of(self.artifact(), Purpose::Train);
        if !sizes.contains(&rows) {
            let sizes: Vec<String> = sizes.iter().rev().map(usize::to_string).collect();
            let words = format!("there is no step for {rows} samples, only for {}", sizes.join(" and for "));
            return Err(refused(&words));
        }
        if self.position() >= self.extent.total_steps {
            let words =
                format!("the run is complete after {} steps; create it with more `total_steps`", self.position());
            return Err(refused(&words));
        }
        fill(self.trainer.artifact(), Purpose::Train, rows, inputs, &mut self.batch)?;
        if self.position().is_multiple_of(self.extent.steps_per_epoch) {
            self.trainer.reset_metrics()?;
        }
        let report = self.trainer.step(&self.batch)?;
        let what = if report.loss.is_finite() { report.not_finite } else { Some("the loss".into()) };
        match what {
            Some(what) => Err(Problem::NotFinite(format!("{what} is not finite at step {}", self.position()))),
            None => Ok(Stepped { loss: report.loss, learning_rate: report.lr }),
        }
    }

    /// Begins a pass that evaluates; training waits until it is finished.
    ///
    /// # Errors
    /// One that is under way; no memory.
    pub fn evaluate_begin(&mut self) -> Result<(), Problem> {
        self.hold_no_evaluation()?;
        self.trainer.load_steps(Purpose::Evaluate)?;
        self.aside = Some(self.trainer.begin_evaluation()?);
        Ok(())
    }

    /// Adds at most a batch of samples to the pass.
    ///
    /// # Errors
    /// No pass that was begun; too many samples or none; fields as [`Run::step`].
    pub fn evaluate_add(&mut self, rows: usize, inputs: Inputs<'_>) -> Result<(), Problem> {
        if self.aside.is_none() {
            return Err(refused("no evaluation was begun"));
        }
        if !(1..=self.batch()).contains(&rows) {
            return Err(refused(&format!("an evaluation takes 1 to {} samples at once, not {rows}", self.batch())));
        }
        fill(self.trainer.artifact(), Purpose::Evaluate, rows, inputs, &mut self.batch)?;
        self.trainer.evaluate_batch(&self.batch)?;
        Ok(())
    }

    /// Loss and metrics of all samples that were added; training goes on where it was.
    ///
    /// # Errors
    /// No pass that was begun; one without a sample, which stays under way.
    pub fn evaluate_finish(&mut self) -> Result<Figures, Problem> {
        if self.aside.is_some() && self.trainer.position().samples == 0 {
            return Err(refused("no sample was evaluated"));
        }
        let aside = self.aside.take().ok_or_else(|| refused("no evaluation was begun"))?;
        Ok(self.trainer.finish_evaluation(aside)?)
    }

    /// The model's outputs for any number of samples, as F32, into those of the caller's buffers that are there. Fields
    /// that the model does not take, such as labels, may be absent. A sample's bits do not depend on how many come with it.
    ///
    /// # Errors
    /// Fields as [`Run::step`]; buffers of another number or length; an output over all samples for another number of them
    /// than [`Trainer::prediction_rows`]; an output that is not a number, some buffers are written then.
    pub fn predict(
        &mut self,
        rows: usize,
        inputs: Inputs<'_>,
        outputs: &mut [Option<&mut [u8]>],
    ) -> Result<(), Problem> {
        let at_once = Trainer::prediction_rows(&self.artifact().training);
        self.hold_outputs(rows, at_once, outputs)?;
        if inputs.len() != self.tables.fields.len() {
            let known = self.tables.fields.len();
            return Err(refused(&format!("the data have {known} fields, and {} were given", inputs.len())));
        }
        // All lengths, before anything is written.
        fill(self.trainer.artifact(), Purpose::Predict, rows, inputs, &mut self.batch)?;
        self.trainer.load_steps(Purpose::Predict)?;
        for first in (0..rows).step_by(at_once) {
            let some = at_once.min(rows - first);
            let fields = inputs.iter().zip(&self.tables.fields).map(|(bytes, entry)| {
                let width = entry.elements() * ELEMENT;
                (*bytes).map(|bytes| &bytes[first * width..(first + some) * width])
            });
            let part: Vec<Option<&[u8]>> = fields.collect();
            fill(self.trainer.artifact(), Purpose::Predict, some, &part, &mut self.batch)?;
            let predicted = self.trainer.predict(&self.batch)?;
            for ((output, entry), values) in outputs.iter_mut().zip(&self.tables.outputs).zip(&predicted) {
                let Some(output) = output else { continue };
                let from = if entry.role == 1 { 0 } else { first * entry.elements() * ELEMENT };
                let places = output[from..].as_chunks_mut::<ELEMENT>().0;
                places.iter_mut().zip(&values.values).for_each(|(place, value)| *place = value.to_le_bytes());
            }
        }
        Ok(())
    }

    fn hold_outputs(&self, rows: usize, at_once: usize, outputs: &[Option<&mut [u8]>]) -> Result<(), Problem> {
        let known = &self.tables.outputs;
        if outputs.len() != known.len() {
            return Err(refused(&format!("the model has {} outputs, and {} were given", known.len(), outputs.len())));
        }
        if rows == 0 {
            return Err(refused("there is no sample to predict"));
        }
        for (output, entry) in outputs.iter().zip(known) {
            let Some(output) = output else { continue };
            let name = entry.name.to_string_lossy();
            // Fewer samples are filled up with copies, which a mean over all of them would count.
            if entry.role == 1 && rows != at_once {
                let words = format!("`{name}` has no value for each sample: it is for {at_once} samples, not {rows}");
                return Err(refused(&words));
            }
            let samples = if entry.role == 1 { 1 } else { rows };
            if samples.checked_mul(entry.elements() * ELEMENT) != Some(output.len()) {
                let wanted = samples.saturating_mul(entry.elements() * ELEMENT);
                return Err(refused(&format!("the buffer of `{name}` has {} bytes, not {wanted}", output.len())));
            }
        }
        Ok(())
    }

    /// Copies a parameter or a state, by its name in a checkpoint, into elements of four bytes.
    ///
    /// # Errors
    /// No such tensor, or a buffer of another length.
    pub fn get(&self, name: &str, into: &mut [u8]) -> Result<(), Problem> {
        let tensors = self.trainer.tensors(false)?;
        let tensor = tensors.get(name).ok_or_else(|| refused(&format!("the model has no `{name}`")))?;
        if tensor.bytes.len() != into.len() {
            let (given, wanted) = (into.len(), tensor.bytes.len());
            return Err(refused(&format!("`{name}` {:?} is {wanted} bytes, not {given}", tensor.sizes)));
        }
        into.copy_from_slice(&tensor.bytes);
        Ok(())
    }

    /// Sets a parameter or a state.
    ///
    /// # Errors
    /// As [`Run::get`], and values that are not finite.
    pub fn set(&mut self, name: &str, bytes: &[u8]) -> Result<(), Problem> {
        self.hold_no_evaluation()?;
        Ok(self.trainer.set_tensor(name, bytes)?)
    }

    /// Writes a safetensors file: weights as `--init`, `eval` and `predict` take them, or a checkpoint.
    ///
    /// # Errors
    /// An evaluation under way, something that is not finite, and any failure to write; an older file is then as it was.
    pub fn save(&self, path: &Path, kind: Kind) -> Result<(), Problem> {
        self.hold_no_evaluation()?;
        if let Some(what) = self.trainer.not_finite()? {
            return Err(refused(&format!("{what} is not finite, which no file holds")));
        }
        let position = (kind == Kind::Checkpoint).then(|| self.trainer.position().clone());
        let note = Note { recipe: Some(self.recipe.clone()), preparation: None, position };
        Ok(checkpoint::save(path, &self.trainer.tensors(kind == Kind::Weights)?, &note)?)
    }

    /// Takes the weights of a safetensors file and stays where the run is, or goes on from a checkpoint of this model.
    ///
    /// # Errors
    /// A file that is damaged, does not fit the model, or is no checkpoint of this run's model, seed and length.
    pub fn load(&mut self, path: &Path, kind: Kind) -> Result<(), Problem> {
        self.hold_no_evaluation()?;
        let (tensors, note) = checkpoint::load(path)?;
        let mut before = Snapshot::default();
        self.trainer.take(&mut before)?;
        let taken = match kind {
            Kind::Weights => self.trainer.take_weights(path, tensors),
            Kind::Checkpoint => match self.position_of(path, &tensors, note) {
                Ok(position) => self.trainer.restore(path, tensors, position),
                Err(refusal) => Err(refusal),
            },
        };
        if let Err(refusal) = taken {
            self.trainer.put_back(&before)?;
            return Err(refusal.into());
        }
        Ok(())
    }

    /// Where a checkpoint stands, if it is one of this run.
    fn position_of(
        &self,
        path: &Path,
        tensors: &BTreeMap<String, checkpoint::Tensor<'_>>,
        note: Note,
    ) -> Result<checkpoint::Position, Refusal> {
        let refuse = |words: &str| Refusal(format!("{} {words}", path.display()));
        let (Some(position), Some(before)) = (note.position, note.recipe) else {
            return Err(refuse("is no checkpoint: it does not say where a run stands; load it as weights"));
        };
        // The samples are the caller's; the number of steps is compared as if they were the same.
        let before = Recipe { samples: self.recipe.samples, ..before };
        let mut changes = before.changes_of_model(&self.recipe, &self.trainer.changes_of_shape(tensors)?);
        if before.level != self.recipe.level {
            changes.push(format!("the run was at {} and is at {}", before.level, self.recipe.level));
        }
        match changes.is_empty() {
            true => Ok(position),
            false => Err(refuse(&format!("is of another run: {}", changes.join("; ")))),
        }
    }

    fn hold_no_evaluation(&self) -> Result<(), Problem> {
        match self.aside {
            Some(_) => Err(refused("an evaluation is under way; finish it first")),
            None => Ok(()),
        }
    }
}

pub(crate) fn refused(words: &str) -> Problem {
    Problem::Refused(Refusal(words.to_string()))
}

fn rows_of(artifact: &Artifact, purpose: Purpose) -> Vec<usize> {
    artifact.steps.keys().filter(|(known, _)| *known == purpose).map(|(_, rows)| *rows).collect()
}

/// The run's clock. Schedules count steps and epochs, so neither has a default that could be wrong.
fn extent(artifact: &Artifact, options: &Options<'_>) -> Result<Extent, Problem> {
    let steps_per_epoch = options.steps_per_epoch;
    if steps_per_epoch == 0 {
        return Err(refused("`steps_per_epoch` is 0: say how many batches your training samples have"));
    }
    let length = match options.total_steps {
        0 => artifact.training.length,
        steps => Length::Steps(steps),
    };
    Ok(Extent::of_length(length, steps_per_epoch))
}

fn recipe(artifact: &Artifact, extent: Extent, level: Level) -> Recipe {
    Recipe {
        model: artifact.meaning.clone(),
        lines: artifact.training.lines.clone(),
        steps: extent.total_steps,
        settings: artifact.training.overrides.clone(),
        seed: artifact.training.seed,
        no_shuffle: true,
        drop_last: artifact.training.drop_last,
        level: level.to_string(),
        ..Recipe::default()
    }
}
