//! The training loop: epochs over batches, checkpoints, figures.
//!
//! Input: a trainer, a dataset, a run folder. Output: events for whoever shows progress, files in the folder.
//! Invariant: a run that stops after any step and is resumed ends with the same bits as one that did not stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::checkpoint::{self, Exact, Note};
use super::data::{Batch, Plan};
use super::data::{Dataset, Split};
use super::record::{Epoch, Figures, Record, StepLine, StepLog};
use super::trainer::{StepReport, Trainer, TrainerError};
use crate::model::{Interval, Keep, Length, Training};

/// The clock of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Optimizer steps of the whole run.
    pub total_steps: u64,
    /// Optimizer steps in one pass.
    pub steps_per_epoch: u64,
}

impl Extent {
    /// From the settings and the number of training samples.
    pub fn of(training: &Training, samples: usize) -> Self {
        let steps_per_epoch = samples.div_ceil(training.batch).max(1) as u64;
        let total_steps = match training.length {
            Length::Epochs(epochs) => (epochs * steps_per_epoch as f64).round() as u64,
            Length::Steps(steps) => steps,
        };
        Self { total_steps, steps_per_epoch }
    }
}

/// How the loop runs.
pub struct Loop<'a> {
    /// The settings of the `train` item.
    pub training: &'a Training,
    /// The data.
    pub dataset: &'a Dataset,
    /// What each file of the run says of itself, but for the position.
    pub note: Note,
    /// Where files go.
    pub record: &'a mut Record,
    /// The title of pictures.
    pub title: String,
    /// A line a step, if wanted.
    pub log: Option<StepLog>,
    /// Add gradient norms to the log.
    pub log_gradients: bool,
    /// Keep the samples' order.
    pub no_shuffle: bool,
    /// Not zero to stop after the running step.
    pub stop: &'a AtomicUsize,
    /// Stop when this many steps are done, as if interrupted.
    pub stop_after: Option<u64>,
}

/// What happened, for whoever shows progress.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step is done.
    Step {
        /// Steps done.
        step: u64,
        /// Its loss and learning rate.
        report: &'a StepReport,
        /// Its samples.
        samples: usize,
    },
    /// A pass is done and its figures are written.
    Epoch(&'a Epoch),
    /// Something beside the run went wrong; the run goes on.
    Trouble(String),
}

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Complete,
    /// It was asked to stop; the checkpoint is saved.
    Stopped,
}

/// Why the loop could not go on.
#[derive(Debug)]
pub enum LoopError {
    /// The trainer.
    Trainer(TrainerError),
    /// Files of the run.
    Problem(String),
    /// The loss is not finite; the last checkpoint is untouched.
    Diverged {
        /// The step whose loss is not finite.
        step: u64,
    },
}

impl From<TrainerError> for LoopError {
    fn from(error: TrainerError) -> Self {
        Self::Trainer(error)
    }
}

impl From<std::io::Error> for LoopError {
    fn from(error: std::io::Error) -> Self {
        Self::Problem(format!("the run folder cannot be written: {error}"))
    }
}

impl From<checkpoint::CheckpointError> for LoopError {
    fn from(error: checkpoint::CheckpointError) -> Self {
        Self::Problem(error.to_string())
    }
}

/// The split of the last word: `test`, without one `valid`; none where both are empty.
pub fn final_split(dataset: &Dataset) -> Option<(&'static str, &Arc<Split>)> {
    [("test", &dataset.test), ("valid", &dataset.valid)].into_iter().find(|(_, split)| !split.is_empty())
}

/// Trains from the trainer's position to the end, or until asked to stop.
///
/// # Errors
/// A loss that is not finite, a full disk.
pub fn run(
    trainer: &mut Trainer<'_>,
    run: &mut Loop<'_>,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Ending, LoopError> {
    let extent = Extent::of(run.training, run.dataset.train.len());
    let began = Instant::now();
    let plan = Plan::training(run.training.batch, run.training.seed);
    let plan = if run.no_shuffle { plan.in_order() } else { plan };
    let (first, mut saved) = (trainer.position().step, Instant::now());
    if run.is_stopped(trainer) && first < extent.total_steps {
        save_last(trainer, run, events)?;
        return Ok(Ending::Stopped);
    }
    let mut batches = run.dataset.train.batches(plan, first, extent.total_steps)?;
    while let Some(batch) = batches.next() {
        if trainer.position().step.is_multiple_of(extent.steps_per_epoch) {
            trainer.reset_metrics();
        }
        step(trainer, run, &batch, events)?;
        batches.recycle(batch);
        let done = trainer.position().step;
        if done.is_multiple_of(extent.steps_per_epoch) || done == extent.total_steps {
            finish_pass(trainer, run, extent, began, events)?;
        }
        let stopped = run.is_stopped(trainer);
        if stopped || done == extent.total_steps || is_due(&run.training.save, done, extent, saved) {
            save_last(trainer, run, events)?;
            saved = Instant::now();
        }
        if stopped && done < extent.total_steps {
            return Ok(Ending::Stopped);
        }
    }
    if first >= extent.total_steps {
        // All steps were done by a process that was ended among its last files; the newest checkpoint may lack its name.
        save_last(trainer, run, events)?;
    }
    checkpoint::save(&run.record.folder.join("weights.safetensors"), &trainer.tensors(true), &run.note)?;
    Ok(Ending::Complete)
}

/// One step with its line in the log.
fn step(
    trainer: &mut Trainer<'_>,
    run: &mut Loop<'_>,
    batch: &Batch,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<(), LoopError> {
    let report = trainer.step(batch)?;
    let step = trainer.position().step;
    if let Some(log) = &mut run.log {
        let grads = run.log_gradients.then(|| trainer.gradient_norms(batch.rows));
        let line = StepLine { step, loss: report.loss, lr: report.lr, ms: report.seconds * 1e3, grads };
        if let Err(error) = log.add(&line) {
            give_up_log(run, &error, events);
        }
    }
    if !report.loss.is_finite() {
        flush(run, events);
        return Err(LoopError::Diverged { step });
    }
    events(Event::Step { step, report: &report, samples: batch.rows });
    Ok(())
}

fn flush(run: &mut Loop<'_>, events: &mut dyn FnMut(Event<'_>)) {
    if let Some(Err(error)) = run.log.as_mut().map(StepLog::flush) {
        give_up_log(run, &error, events);
    }
}

/// A log that cannot be written is worth less than the run: it is told once, and no line is tried again.
fn give_up_log(run: &mut Loop<'_>, error: &std::io::Error, events: &mut dyn FnMut(Event<'_>)) {
    run.log = None;
    events(Event::Trouble(format!("the log of steps cannot be written and ends here: {error}")));
}

impl Loop<'_> {
    /// Whether somebody asked the run to stop, or it was to stop here.
    fn is_stopped(&self, trainer: &Trainer<'_>) -> bool {
        self.stop.load(Ordering::Relaxed) != 0 || self.stop_after.is_some_and(|step| trainer.position().step >= step)
    }
}

/// Whether a save is due after `done` steps, the last one having been at `saved`.
fn is_due(intervals: &[Interval], done: u64, extent: Extent, saved: Instant) -> bool {
    intervals.iter().any(|interval| match interval {
        Interval::Steps(steps) => done.is_multiple_of(*steps),
        Interval::Epochs(epochs) => {
            done.is_multiple_of(((epochs * extent.steps_per_epoch as f64).round() as u64).max(1))
        }
        Interval::Minutes(minutes) => saved.elapsed().as_secs_f64() >= minutes * 60.0,
    })
}

/// Figures on the held-out split, files, checkpoints.
fn finish_pass(
    trainer: &mut Trainer<'_>,
    run: &mut Loop<'_>,
    extent: Extent,
    began: Instant,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<(), LoopError> {
    let train = trainer.figures();
    let valid = match run.dataset.held_out() {
        Some((_, split)) => Some(evaluate(trainer, split, run.training.batch)?),
        None => None,
    };
    let step = trainer.position().step;
    let epoch = Epoch {
        epoch: step as f64 / extent.steps_per_epoch as f64,
        step,
        lr: trainer.learning_rate(step),
        seconds: began.elapsed().as_secs_f64(),
        train,
        valid,
    };
    keep_best(trainer, run, &epoch)?;
    run.record.add(epoch, &run.title)?;
    events(Event::Epoch(run.record.epochs.last().expect("an epoch was just added")));
    Ok(())
}

/// Loss and metrics of a split, in order and without augmentation.
///
/// # Errors
/// A model that does not fit the data.
pub fn evaluate(trainer: &mut Trainer<'_>, split: &Arc<Split>, batch: usize) -> Result<Figures, LoopError> {
    let batches = split.batches(Plan::evaluation(batch), 0, split.steps_per_epoch(batch))?;
    Ok(trainer.evaluate(batches)?)
}

/// Saves a copy when the kept figure is the best so far.
fn keep_best(trainer: &mut Trainer<'_>, run: &Loop<'_>, epoch: &Epoch) -> Result<(), LoopError> {
    let Keep { best: Some(name), .. } = &run.training.keep else { return Ok(()) };
    let Some(value) = kept_figure(name, epoch) else { return Ok(()) };
    let better = |old: f64| if lower_is_better(name) { value < old } else { value > old };
    if trainer.position().best.is_none_or(|best| better(best.0)) {
        trainer.position_mut().best = Some(Exact(value));
        save_best(trainer, run)?;
    }
    Ok(())
}

/// `valid.accuracy`, `train.loss`, or without a prefix the held-out split's.
fn kept_figure(name: &str, epoch: &Epoch) -> Option<f64> {
    let (split, figure) = name.split_once('.').unwrap_or(("valid", name));
    let figures = if split == "train" { Some(&epoch.train) } else { epoch.valid.as_ref() }?;
    if figure == "loss" {
        return Some(figures.loss);
    }
    let (_, values) = figures.metrics.iter().find(|(metric, _)| metric == figure)?;
    values.first().copied()
}

/// Errors shrink as a model learns; every other figure of merit grows.
fn lower_is_better(name: &str) -> bool {
    let figure = name.rsplit('.').next().unwrap_or(name);
    ["loss", "mae", "rmse", "mse", "perplexity"].contains(&figure)
}

fn save_best(trainer: &Trainer<'_>, run: &Loop<'_>) -> Result<(), LoopError> {
    Ok(checkpoint::save(&run.record.folder.join("best.safetensors"), &trainer.tensors(false), &note(trainer, run))?)
}

/// Saves what resuming needs; the log then holds the lines of all steps so far.
fn save_last(trainer: &Trainer<'_>, run: &mut Loop<'_>, events: &mut dyn FnMut(Event<'_>)) -> Result<(), LoopError> {
    flush(run, events);
    let folder = &run.record.folder;
    Ok(folder.save_last(run.training.keep.last, &trainer.tensors(false), &note(trainer, run))?)
}

fn note(trainer: &Trainer<'_>, run: &Loop<'_>) -> Note {
    Note { position: Some(trainer.position().clone()), ..run.note.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_figure_is_found_by_split_and_name() {
        let figures = |loss, accuracy| Figures { loss, metrics: vec![("accuracy".into(), vec![accuracy])], samples: 1 };
        let (train, valid) = (figures(1.0, 0.5), Some(figures(2.0, 0.25)));
        let epoch = Epoch { epoch: 1.0, step: 1, lr: 0.1, seconds: 0.0, train, valid };
        assert_eq!(kept_figure("valid.accuracy", &epoch), Some(0.25));
        assert_eq!(kept_figure("accuracy", &epoch), Some(0.25));
        assert_eq!(kept_figure("train.loss", &epoch), Some(1.0));
        assert_eq!(kept_figure("valid.recall", &epoch), None);
        assert!(lower_is_better("valid.loss") && !lower_is_better("valid.accuracy"));
    }

    #[test]
    fn a_save_is_due_at_the_first_interval_that_is_over() {
        let extent = Extent { total_steps: 100, steps_per_epoch: 10 };
        let due = |intervals: &[Interval]| -> Vec<u64> {
            (1..=20).filter(|step| is_due(intervals, *step, extent, Instant::now())).collect()
        };
        assert_eq!(due(&[Interval::Epochs(1.0)]), [10, 20]);
        assert_eq!(due(&[Interval::Epochs(0.25)]), [3, 6, 9, 12, 15, 18]);
        assert_eq!(due(&[Interval::Steps(8), Interval::Epochs(2.0)]), [8, 16, 20]);
        assert!(due(&[Interval::Minutes(60.0)]).is_empty());
        assert_eq!(due(&[Interval::Minutes(0.0)]).len(), 20);
    }
}
