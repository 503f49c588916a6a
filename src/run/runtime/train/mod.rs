//! The training loop: epochs over batches, checkpoints, figures.
//!
//! Input: a trainer, a dataset, a run folder. Output: events for whoever shows progress, files in the folder.
//! Invariant: a run that stops after any step and is resumed ends with the same bits as one that did not stop.

mod files;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::checkpoint::Note;
use super::data::{Batch, Plan};
use super::data::{Dataset, Split};
use super::figures::{Epoch, Figures};
use super::record::{Record, StepLine, StepLog};
use super::saver::{Due, Saver};
use super::trainer::{Extent, Origin, StepReport, Trainer};
use crate::artifact::{Purpose, Watched};
use crate::diagnostics::Refusal;
use crate::kernel::Persistent;
use crate::settings::{SplitName, Training};
use files::{finish_pass, is_due, save, write_weights};

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
    /// A line a step, if wanted.
    pub log: Option<StepLog>,
    /// Add gradient norms to the log.
    pub log_gradients: bool,
    /// Keep the samples' order.
    pub no_shuffle: bool,
    /// The weights that it began from, if not from first values.
    pub init: Option<PathBuf>,
    /// The training step for so many samples, opened up to see what is not finite; none where no compiler is at hand.
    pub watched: &'a dyn Fn(usize, &Persistent) -> Option<Watched>,
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
    /// So many steps are repeated to see where the loss or a tensor ceased to be finite.
    Search {
        /// Steps from the last checkpoint, or from the start.
        steps: u64,
    },
}

/// Which weights a complete run ends with.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// Those of the last step; no others were asked for.
    Last,
    /// Those with the best figure.
    Best {
        /// `valid.accuracy`.
        figure: String,
        /// Its value.
        value: f64,
        /// The step after which it was measured.
        step: u64,
    },
    /// Those of the last step, since the figure was never finite.
    NoBest {
        /// `valid.accuracy`.
        figure: String,
    },
}

/// How the loop ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// All steps are done; the trainer has these weights.
    Complete(Weights),
    /// It was asked to stop; the checkpoint is saved.
    Stopped,
}

/// Why the loop could not go on.
#[derive(Debug)]
pub enum LoopError {
    /// The trainer, or files of the run.
    Problem(String),
    /// Something is not finite; the last checkpoint is untouched.
    Diverged {
        /// The step after which it was found.
        step: u64,
        /// The loss, or a tensor with its line.
        what: String,
        /// What made it so, if that was found.
        origin: Option<Origin>,
    },
}

impl From<Refusal> for LoopError {
    fn from(error: Refusal) -> Self {
        Self::Problem(error.0)
    }
}

fn not_written(error: Refusal) -> LoopError {
    LoopError::Problem(format!("the run folder cannot be written: {error}"))
}

/// The split of the last word: `test`, without one `valid`; none where both are empty.
pub fn final_split(dataset: &Dataset) -> Option<(SplitName, &Arc<Split>)> {
    let splits = [SplitName::Test, SplitName::Valid].map(|name| (name, dataset.split(name)));
    splits.into_iter().find(|(_, split)| !split.is_empty())
}

/// Trains from the trainer's position to the end, or until asked to stop. Whatever ends it, no save is in flight then.
///
/// # Errors
/// A loss or a tensor that is not finite, a full disk.
pub fn run(trainer: &mut Trainer, run: &mut Loop<'_>, events: &mut dyn FnMut(Event<'_>)) -> Result<Ending, LoopError> {
    let mut saver = Saver::new(run.record.folder.clone(), run.training.keep.last);
    let ending = steps(trainer, run, &mut saver, events);
    let drawn = run.record.draw(&run.training.model);
    settle_aside(&mut saver, events);
    let ending = ending?;
    drawn.map_err(not_written)?;
    Ok(ending)
}

fn steps(
    trainer: &mut Trainer,
    run: &mut Loop<'_>,
    saver: &mut Saver,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Ending, LoopError> {
    let extent = Extent::of(run.training, run.dataset.train.len());
    let began = Instant::now();
    let (first, mut saved) = (trainer.position().step, Instant::now());
    let last = Due { best: false, last: true };
    if run.is_stopped(trainer) && first < extent.total_steps {
        save(trainer, run, saver, last, events)?;
        saver.settle()?;
        return Ok(Ending::Stopped);
    }
    let mut batches = run.dataset.train.batches(run.plan(), first, extent.total_steps).map_err(not_started)?;
    while let Some(batch) = batches.next() {
        if trainer.position().step.is_multiple_of(extent.steps_per_epoch) {
            trainer.reset_metrics();
        }
        step(trainer, run, saver, &batch, events)?;
        batches.recycle(batch);
        let done = trainer.position().step;
        let mut due = Due::default();
        if done.is_multiple_of(extent.steps_per_epoch) || done == extent.total_steps {
            due.best = finish_pass(trainer, run, extent, began, events)?;
        }
        let stopped = run.is_stopped(trainer);
        due.last = stopped || done == extent.total_steps || is_due(&run.training.save, done, extent, saved);
        if due.is_any() {
            save(trainer, run, saver, due, events)?;
        } else if saver.has_ended() {
            saver.settle()?;
        }
        if due.last {
            saved = Instant::now();
        }
        if stopped && done < extent.total_steps {
            saver.settle()?;
            return Ok(Ending::Stopped);
        }
    }
    if first >= extent.total_steps {
        // All steps were done by a process that was ended among its last files; the newest checkpoint may lack its name.
        save(trainer, run, saver, last, events)?;
    }
    saver.settle()?;
    Ok(Ending::Complete(write_weights(trainer, run)?))
}

/// Waits for the save in flight where the run ends for a reason of its own; what went wrong with the save is told beside it.
fn settle_aside(saver: &mut Saver, events: &mut dyn FnMut(Event<'_>)) {
    if let Err(error) = saver.settle() {
        events(Event::Trouble(error.to_string()));
    }
}

/// One step with its line in the log.
fn step(
    trainer: &mut Trainer,
    run: &mut Loop<'_>,
    saver: &mut Saver,
    batch: &Batch,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<(), LoopError> {
    let report = trainer.step(batch);
    let step = trainer.position().step;
    if let Some(log) = &mut run.log {
        let grads = run.log_gradients.then(|| trainer.gradient_norms(batch.rows));
        let line = StepLine { step, loss: report.loss, lr: report.lr, ms: report.seconds * 1e3, grads };
        if let Err(error) = log.add(&line) {
            give_up_log(run, &error, events);
        }
    }
    let what = if report.loss.is_finite() { report.not_finite.clone() } else { Some("the loss".into()) };
    if let Some(what) = what {
        flush(run, events);
        settle_aside(saver, events);
        return Err(LoopError::Diverged { step, what, origin: origin(trainer, run, events) });
    }
    for metric in &report.lost_metrics {
        let words =
            format!("the metric `{metric}` is not finite at step {step}; a pass with such a step has no figure of it");
        events(Event::Trouble(words));
    }
    events(Event::Step { step, report: &report, samples: batch.rows });
    Ok(())
}

/// What made the last step's loss or tensors not finite: the steps since the last checkpoint give the same bits again, and
/// the last one is then looked at value by value. None if somebody does not want to wait, or there is no memory for it.
/// The trainer is left where it was looked at.
fn origin(trainer: &mut Trainer, run: &Loop<'_>, events: &mut dyn FnMut(Event<'_>)) -> Option<Origin> {
    let step = trainer.position().step;
    match run.record.folder.newest().ok()?.0 {
        Some(found) => trainer.restore(&found.path, found.tensors, found.note.position?).ok()?,
        None => {
            trainer.restart();
            run.init.as_ref().map_or(Ok(()), |path| trainer.load_weights(path).map(drop)).ok()?;
        }
    }
    let first = trainer.position().step;
    events(Event::Search { steps: step - first });
    for batch in run.dataset.train.batches(run.plan(), first, step).ok()? {
        if trainer.position().step + 1 == step {
            let watched = (run.watched)(batch.rows, &trainer.artifact().persistent)?;
            return trainer.origin(&watched, &batch).ok()?;
        }
        trainer.step(&batch);
        if run.stop.load(Ordering::Relaxed) != 0 {
            return None;
        }
    }
    None
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
    fn plan(&self) -> Plan {
        let plan = Plan::of_run(self.training);
        if self.no_shuffle { plan.in_order() } else { plan }
    }

    /// Whether somebody asked the run to stop, or it was to stop here.
    fn is_stopped(&self, trainer: &Trainer) -> bool {
        self.stop.load(Ordering::Relaxed) != 0 || self.stop_after.is_some_and(|step| trainer.position().step >= step)
    }
}

fn not_started(error: std::io::Error) -> LoopError {
    LoopError::Problem(format!("the thread that reads the data cannot be started: {error}"))
}

/// Loss and metrics of a split, in order and without augmentation.
///
/// # Errors
/// No memory for the steps that evaluate.
pub fn evaluate(trainer: &mut Trainer, split: &Arc<Split>, batch: usize) -> Result<Figures, LoopError> {
    let batches = split.batches(Plan::evaluation(batch), 0, split.steps_per_epoch(batch)).map_err(not_started)?;
    trainer.load_steps(Purpose::Evaluate)?;
    Ok(trainer.evaluate(batches))
}
