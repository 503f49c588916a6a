//! The training loop: epochs over batches, checkpoints, figures.
//!
//! Input: a trainer, a dataset, a run folder. Output: events for whoever shows progress, files in the folder.
//! Invariant: a run that stops after any step and is resumed ends with the same bits as one that did not stop.

mod files;
mod mishap;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::checkpoint::Note;
use super::data::{Batch, Plan};
use super::data::{Dataset, Split};
use super::figures::{Epoch, Figures};
use super::folder::BACK;
use super::record::{Record, StepLine, StepLog};
use super::saver::{Due, Saver};
use super::trainer::{Extent, Origin, Snapshot, StepReport, Trainer};
use crate::artifact::{Purpose, Watched};
use crate::diagnostics::Refusal;
use crate::kernel::Persistent;
use crate::settings::{NotFinite, SplitName, Training};
use files::{finish_pass, is_due, write_weights};
use mishap::{Turn, batches_left};

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
    /// Something went wrong beside the run, or with a step of it; the run goes on.
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
    /// Those of the last step, since the figure was never finite, or the weights with the best one are lost.
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
    Diverged(Box<Divergence>),
}

/// A step that is not finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// The step after which it was found.
    pub step: u64,
    /// The loss, or a tensor with its line.
    pub what: String,
    /// What made it so, if that was found.
    pub origin: Option<Origin>,
    /// Which records of the data alone made it so, if it lies at a few.
    pub records: Option<String>,
    /// What was done before the run was given up.
    pub tried: Option<String>,
}

impl Divergence {
    /// What is not finite and why, on one line.
    fn reason(&self) -> String {
        let origin = self.origin.as_ref().map(|origin| format!("; it comes from {}", origin.operation));
        let records = self.records.as_ref().map(|records| format!("; {records}"));
        format!("{} is not finite{}{}", self.what, origin.unwrap_or_default(), records.unwrap_or_default())
    }
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

/// What the loop knows beside the trainer and its settings.
struct Course {
    saver: Saver,
    /// When the last place to go on from was saved.
    saved: Instant,
    /// The state before the running step, where it may have to be undone.
    before: Snapshot,
    /// The origin of what is not finite was told; it takes time, and is told once.
    is_told: bool,
    began: Instant,
    extent: Extent,
}

/// Trains from the trainer's position to the end, or until asked to stop. Whatever ends it, no save is in flight then.
///
/// # Errors
/// A loss or a tensor that is not finite, a full disk.
pub fn run(trainer: &mut Trainer, run: &mut Loop<'_>, events: &mut dyn FnMut(Event<'_>)) -> Result<Ending, LoopError> {
    let now = Instant::now();
    let mut course = Course {
        saver: Saver::new(run.record.folder.clone(), run.training.keep.last),
        saved: now,
        before: Snapshot::default(),
        is_told: false,
        began: now,
        extent: Extent::of(run.training, run.dataset.train.len()),
    };
    let ending = steps(trainer, run, &mut course, events);
    let drawn = run.record.draw(&run.training.model);
    settle_aside(&mut course.saver, events);
    let ending = ending?;
    drawn.map_err(not_written)?;
    Ok(ending)
}

fn steps(
    trainer: &mut Trainer,
    run: &mut Loop<'_>,
    course: &mut Course,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Ending, LoopError> {
    let (first, total) = (trainer.position().step, course.extent.total_steps);
    let last = Due { last: true, ..Due::default() };
    if run.is_stopped(trainer) && first < total {
        course.save(trainer, run, last, events)?;
        course.saver.settle()?;
        return Ok(Ending::Stopped);
    }
    let goes_back = matches!(run.training.not_finite, NotFinite::RollBack { .. });
    let back = goes_back && (first == 0 || !run.record.folder.join(BACK).exists());
    // Whoever may have to go back has a place to go back to. Of a process that was ended among its last files, the newest
    // checkpoint may lack its name.
    if back || first >= total {
        course.save(trainer, run, Due { back, ..last }, events)?;
    }
    while trainer.position().step < total {
        if let Some(ending) = stretch(trainer, run, course, events)? {
            course.saver.settle()?;
            return Ok(ending);
        }
    }
    course.saver.settle()?;
    Ok(Ending::Complete(write_weights(trainer, run)?))
}

/// Steps until the last one, until asked to stop, or until the run goes back and needs other batches.
fn stretch(
    trainer: &mut Trainer,
    run: &mut Loop<'_>,
    course: &mut Course,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Option<Ending>, LoopError> {
    let Extent { total_steps, steps_per_epoch } = course.extent;
    let mut batches = batches_left(trainer, run, total_steps)?;
    while let Some(batch) = batches.next() {
        if trainer.position().step.is_multiple_of(steps_per_epoch) {
            trainer.reset_metrics()?;
        }
        let turn =
            step(trainer, run, course, &batch, events).inspect_err(|_| settle_aside(&mut course.saver, events))?;
        if turn == Turn::Back {
            return Ok(None);
        }
        batches.recycle(batch);
        let done = trainer.position().step;
        let mut due = Due::default();
        if done.is_multiple_of(steps_per_epoch) || done == total_steps {
            due.best = finish_pass(trainer, run, course, events)?;
        }
        let stopped = run.is_stopped(trainer);
        let goes_back = matches!(run.training.not_finite, NotFinite::RollBack { .. });
        // A run that goes back behind its best figure could not keep it.
        let keeps_place = is_due(&run.training.save, done, course.extent, course.saved) || (goes_back && due.best);
        due.back = goes_back && keeps_place;
        due.last = stopped || done == total_steps || keeps_place;
        if due.is_any() {
            course.save(trainer, run, due, events)?;
        } else if course.saver.has_ended() {
            course.saver.settle()?;
        }
        if stopped && done < total_steps {
            return Ok(Some(Ending::Stopped));
        }
    }
    Ok(None)
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
    course: &mut Course,
    batch: &Batch,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Turn, LoopError> {
    course.prepare(trainer, run)?;
    let report = trainer.step(batch)?;
    let step = trainer.position().step;
    let grads = run.log_gradients.then(|| trainer.gradient_norms(batch.rows)).transpose()?;
    let position = trainer.position_mut();
    let leapt_over = if report.not_finite.is_none() { position.recent.add(report.loss) } else { None };
    if let Some(log) = &mut run.log {
        let skipped = report.not_finite.is_some();
        let ms = report.seconds * 1e3;
        let line =
            StepLine { step, loss: report.loss, lr: report.lr, ms, not_finite: skipped, leap: leapt_over, grads };
        if let Err(error) = log.add(&line) {
            give_up_log(run, &error, events);
        }
    }
    if let Some(what) = report.not_finite {
        return course.turn(trainer, run, batch, what, events);
    }
    position.mishaps.in_a_row = 0;
    if let Some(median) = leapt_over {
        position.mishaps.leaps += 1;
        events(Event::Trouble(format!(
            "the loss of step {step} is {:.4}, far above {median:.4}, the median before it",
            report.loss
        )));
    }
    for metric in &report.lost_metrics {
        let words =
            format!("the metric `{metric}` is not finite at step {step}; a pass with such a step has no figure of it");
        events(Event::Trouble(words));
    }
    let total = Extent::of(run.training, run.dataset.train.len()).total_steps;
    run.record.events.step(step, report.loss, total);
    tell_of_events(run, events);
    events(Event::Step { step, report: &report, samples: batch.rows });
    Ok(Turn::On)
}

fn flush(run: &mut Loop<'_>, events: &mut dyn FnMut(Event<'_>)) {
    if let Some(Err(error)) = run.log.as_mut().map(StepLog::flush) {
        give_up_log(run, &error, events);
    }
    run.record.events.flush();
    tell_of_events(run, events);
}

/// As with a log of steps, events that cannot be written are worth less than the run.
fn tell_of_events(run: &mut Loop<'_>, events: &mut dyn FnMut(Event<'_>)) {
    if let Some(words) = run.record.events.trouble() {
        events(Event::Trouble(words));
    }
}

/// A log that cannot be written is worth less than the run: it is told once, and no line is tried again.
fn give_up_log(run: &mut Loop<'_>, error: &dyn std::fmt::Display, events: &mut dyn FnMut(Event<'_>)) {
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
    Ok(trainer.evaluate(batches)?)
}
