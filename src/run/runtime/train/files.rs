//! The files of a run: figures after each pass, checkpoints that are due, and the weights that the run was for.
//!
//! Input: a trainer between two steps. Output: files in the run folder. Invariants: a checkpoint gets its name when figures and step
//! log hold what came before it; values that are not finite are in none.

use std::time::Instant;

use super::{Course, Divergence, Event, Extent, Loop, LoopError, Weights, evaluate, flush, not_written};
use crate::runtime::checkpoint::{self, Exact, Note};
use crate::runtime::figures::Epoch;
use crate::runtime::folder::BEST;
use crate::runtime::keep;
use crate::runtime::saver::Due;
use crate::runtime::trainer::Trainer;
use crate::settings::{Interval, SplitName};

/// Whether a save is due after `done` steps, the last one having been at `saved`.
pub(super) fn is_due(intervals: &[Interval], done: u64, extent: Extent, saved: Instant) -> bool {
    intervals.iter().any(|interval| match interval {
        Interval::Steps(steps) => done.is_multiple_of(*steps),
        Interval::Epochs(epochs) => {
            done.is_multiple_of(((epochs * extent.steps_per_epoch as f64).round() as u64).max(1))
        }
        Interval::Minutes(minutes) => saved.elapsed().as_secs_f64() >= minutes * 60.0,
    })
}

/// Figures on the held-out split, in the files that hold them. True if the kept one is the best so far.
pub(super) fn finish_pass(
    trainer: &mut Trainer,
    run: &mut Loop<'_>,
    course: &Course,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<bool, LoopError> {
    let mut splits = vec![(SplitName::Train, trainer.figures()?)];
    for (name, split) in keep::measured(run.training, run.dataset) {
        splits.push((name, evaluate(trainer, split, run.training.batch)?));
    }
    let step = trainer.position().step;
    let epoch = Epoch {
        epoch: step as f64 / course.extent.steps_per_epoch as f64,
        step,
        lr: trainer.learning_rate(step),
        seconds: course.began.elapsed().as_secs_f64(),
        skipped: trainer.position().mishaps.skipped,
        leaps: trainer.position().mishaps.leaps,
        splits,
    };
    let is_best = notes_best(trainer, run, &epoch);
    run.record.add(&epoch, &run.training.model).map_err(not_written)?;
    events(Event::Epoch(&epoch));
    Ok(is_best)
}

/// Whether the kept figure is the best so far, which the position then notes.
fn notes_best(trainer: &mut Trainer, run: &Loop<'_>, epoch: &Epoch) -> bool {
    let Some(best) = &run.training.keep.best else { return false };
    let value = keep::new_best(best, epoch, trainer.position().best.map(|best| best.0));
    if let Some(value) = value {
        trainer.position_mut().best = Some(Exact(value));
    }
    value.is_some()
}

/// Writes the weights that the run was for, and leaves the trainer with them.
pub(super) fn write_weights(trainer: &mut Trainer, run: &Loop<'_>) -> Result<Weights, LoopError> {
    let path = run.record.folder.join(BEST);
    let weights = match (&run.training.keep.best, trainer.position().best) {
        (Some(best), Some(Exact(value))) => {
            let step = trainer.load_weights(&path)?.position.map_or(0, |position| position.step);
            Weights::Best { figure: format!("{}.{}", best.split, best.figure), value, step }
        }
        (Some(best), None) => Weights::NoBest { figure: format!("{}.{}", best.split, best.figure) },
        (None, _) => Weights::Last,
    };
    checkpoint::save(&run.record.folder.join("weights.safetensors"), &trainer.tensors(true)?, &run.note)?;
    Ok(weights)
}

impl Course {
    /// Begins to write the files that are due; the log then holds the lines of all steps so far.
    pub(super) fn save(
        &mut self,
        trainer: &mut Trainer,
        run: &mut Loop<'_>,
        due: Due,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), LoopError> {
        flush(run, events);
        hold_finite(trainer)?;
        if due.back {
            trainer.position_mut().mishaps.place = trainer.position().step;
        }
        self.saver.begin(trainer, note(trainer, run), due)?;
        if due.last {
            self.saved = Instant::now();
        }
        Ok(())
    }
}

/// Weights that are not finite are not saved: the older file stays. Each step is looked at by itself; a file is worth a second
/// look that does not rely on what the device noticed.
fn hold_finite(trainer: &Trainer) -> Result<(), LoopError> {
    match trainer.not_finite()? {
        Some(what) => {
            let step = trainer.position().step;
            Err(LoopError::Diverged(Divergence { step, what, origin: None, records: None, tried: None }.into()))
        }
        None => Ok(()),
    }
}

fn note(trainer: &Trainer, run: &Loop<'_>) -> Note {
    Note { position: Some(trainer.position().clone()), ..run.note.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

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
