//! What becomes of a step that is not finite: the run ends, the step is skipped, or the run goes back.
//!
//! Input: a step that made an infinity or what is not a number, and what the `train` item wants then. Output: a trainer that may go on, or the
//! reason why not. Invariant: what follows depends on the tensors and the position alone, so a resumed run takes the same
//! turns.

use std::sync::atomic::Ordering;

use super::{Course, Divergence, Event, Loop, LoopError, flush, give_up_log, not_started, settle_aside};
use crate::diagnostics::Refusal;
use crate::runtime::checkpoint::{self, Mishaps};
use crate::runtime::data::{Batch, Batches};
use crate::runtime::files::named;
use crate::runtime::folder::BACK;
use crate::runtime::memory;
use crate::runtime::trainer::{Origin, Trainer};
use crate::settings::NotFinite;

/// How the loop goes on behind such a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// With the next batch.
    On,
    /// From an earlier step, with other batches.
    Back,
}

impl Course {
    /// Before a step: a copy of what it starts from, where it may have to be undone.
    pub(super) fn prepare(&mut self, trainer: &Trainer, run: &Loop<'_>) -> Result<(), LoopError> {
        if let NotFinite::Skip { .. } = run.training.not_finite {
            if self.before.is_empty() {
                let what = "a copy of the weights, for `not_finite = skip`,";
                memory::check(trainer.snapshot_bytes(), what).map_err(LoopError::Problem)?;
            }
            trainer.take(&mut self.before)?;
        }
        Ok(())
    }

    /// Ends the run, or brings the trainer to where it goes on. `what` is not finite after the trainer's last step.
    pub(super) fn turn(
        &mut self,
        trainer: &mut Trainer,
        run: &mut Loop<'_>,
        batch: &Batch,
        what: String,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Turn, LoopError> {
        flush(run, events);
        let step = trainer.position().step;
        match run.training.not_finite {
            NotFinite::Stop => {
                settle_aside(&mut self.saver, events);
                Err(self.divergence(trainer, run, (step, what, None), events))
            }
            NotFinite::Skip { limit } => self.skip(trainer, run, batch, (step, what, limit), events),
            NotFinite::RollBack { limit } => self.roll_back(trainer, run, batch, (step, what, limit), events),
        }
    }

    fn skip(
        &mut self,
        trainer: &mut Trainer,
        run: &Loop<'_>,
        batch: &Batch,
        (step, what, limit): (u64, String, u64),
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Turn, LoopError> {
        trainer.put_back(&self.before)?;
        let in_a_row = trainer.position().mishaps.in_a_row;
        if in_a_row == limit {
            settle_aside(&mut self.saver, events);
            let tried =
                Some(format!("the {limit} steps before it were skipped; `not_finite = skip({limit})` allows no more"));
            return Err(LoopError::Diverged(self.named(trainer, run, batch, (step, what, tried)).into()));
        }
        let reason = if self.is_told {
            format!("{what} is not finite")
        } else {
            self.named(trainer, run, batch, (step, what, None)).reason()
        };
        self.is_told = true;
        let position = trainer.position_mut();
        position.step = step;
        position.mishaps.in_a_row += 1;
        position.mishaps.skipped += 1;
        events(Event::Trouble(format!("step {step} is skipped: {reason}")));
        Ok(Turn::On)
    }

    /// What is wrong with the step behind the trainer, which stands before it.
    fn named(
        &self,
        trainer: &mut Trainer,
        run: &Loop<'_>,
        batch: &Batch,
        (step, what, tried): (u64, String, Option<String>),
    ) -> Divergence {
        let watched = (run.watched)(batch.rows, &trainer.artifact().persistent);
        let origin = watched.and_then(|watched| trainer.origin(&watched, batch).ok()?);
        let records = records(run, batch, origin.as_ref());
        Divergence { step, what, origin, records, tried }
    }

    fn roll_back(
        &mut self,
        trainer: &mut Trainer,
        run: &mut Loop<'_>,
        batch: &Batch,
        (step, what, limit): (u64, String, u64),
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<Turn, LoopError> {
        // A save that failed ends the run: there is nothing sure to go back to.
        self.saver.settle()?;
        let (returns, place) = (trainer.position().mishaps.returns, trainer.position().mishaps.place);
        if returns == limit {
            let tried = Some(format!(
                "the run went back {limit} times before; `not_finite = roll_back({limit})` allows no more"
            ));
            return Err(self.divergence(trainer, run, (step, what, tried), events));
        }
        let reason = match self.is_told {
            true => format!("{what} is not finite"),
            false => self.replayed(trainer, run, (step, what, None), events).reason(),
        };
        self.is_told = true;
        go_back(trainer, run, place).map_err(|error| {
            LoopError::Problem(format!("step {step}: {reason}; step {place} cannot be gone back to: {error}"))
        })?;
        let back = trainer.position().step;
        let passed = batch.step + 1 - back;
        trainer.position_mut().mishaps.passed = passed;
        trainer.position_mut().mishaps.returns = returns + 1;
        run.record.folder.forget_behind(back);
        run.record.go_back(back)?;
        if let Some(Err(error)) = run.log.as_mut().map(|log| log.go_back(back)) {
            give_up_log(run, &error, events);
        }
        events(Event::Trouble(format!(
            "step {step}: {reason}; back to step {back}, and on with the batches behind that one ({} of at most {limit} times)",
            returns + 1
        )));
        Ok(Turn::Back)
    }

    fn divergence(
        &self,
        trainer: &mut Trainer,
        run: &Loop<'_>,
        known: (u64, String, Option<String>),
        events: &mut dyn FnMut(Event<'_>),
    ) -> LoopError {
        LoopError::Diverged(self.replayed(trainer, run, known, events).into())
    }

    /// What made the last step's loss or tensors not finite: the steps since the last checkpoint give the same bits again, and
    /// the last one is then looked at value by value. Without an origin if somebody does not want to wait, or there is no memory
    /// for it. The trainer is left where it was looked at.
    fn replayed(
        &self,
        trainer: &mut Trainer,
        run: &Loop<'_>,
        (step, what, tried): (u64, String, Option<String>),
        events: &mut dyn FnMut(Event<'_>),
    ) -> Divergence {
        let found = replay(trainer, run, step, events);
        let (origin, records) = found.map_or((None, None), |(origin, records)| (Some(origin), records));
        Divergence { step, what, origin, records, tried }
    }
}

/// Brings the trainer to the place to go back to, which is to be of this step.
fn go_back(trainer: &mut Trainer, run: &Loop<'_>, place: u64) -> Result<(), Refusal> {
    let path = run.record.folder.join(BACK);
    let (tensors, note) = checkpoint::load(&path)?;
    match note.position {
        Some(position) if position.step == place => trainer.restore(&path, tensors, position),
        Some(position) => Err(named(&path, &format!("is of step {}", position.step))),
        None => Err(named(&path, &"holds weights, not a place in a run")),
    }
}

fn replay(
    trainer: &mut Trainer,
    run: &Loop<'_>,
    step: u64,
    events: &mut dyn FnMut(Event<'_>),
) -> Option<(Origin, Option<String>)> {
    let Mishaps { passed, place, .. } = trainer.position().mishaps;
    if let NotFinite::RollBack { .. } = run.training.not_finite {
        // Newer checkpoints may be of steps that were left behind.
        go_back(trainer, run, place).ok()?;
    } else if let Some(found) = run.record.folder.newest().ok()?.0 {
        trainer.restore(&found.path, found.tensors, found.note.position?).ok()?;
    } else {
        trainer.restart().ok()?;
        run.init.as_ref().map_or(Ok(()), |path| trainer.load_weights(path).map(drop)).ok()?;
    }
    let first = trainer.position().step;
    events(Event::Search { steps: step - first });
    for batch in run.dataset.train.batches(run.plan(), first + passed, step + passed).ok()? {
        if trainer.position().step + 1 == step {
            let watched = (run.watched)(batch.rows, &trainer.artifact().persistent)?;
            let origin = trainer.origin(&watched, &batch).ok()??;
            let records = records(run, &batch, Some(&origin));
            return Some((origin, records));
        }
        trainer.step(&batch).ok()?;
        if run.stop.load(Ordering::Relaxed) != 0 {
            return None;
        }
    }
    None
}

/// The records of the samples that alone make a step not finite.
fn records(run: &Loop<'_>, batch: &Batch, origin: Option<&Origin>) -> Option<String> {
    let places = origin.map(|origin| origin.samples.as_slice()).filter(|samples| !samples.is_empty())?;
    let sources = places.iter().map(|place| run.dataset.source_of(&run.plan(), batch, *place));
    let sources: Vec<String> = sources.collect();
    Some(format!("without {} (train) its batch would be finite", sources.join(" and ")))
}

/// The batches of the steps that are left.
pub(super) fn batches_left(trainer: &Trainer, run: &Loop<'_>, total_steps: u64) -> Result<Batches, LoopError> {
    let (step, passed) = (trainer.position().step, trainer.position().mishaps.passed);
    run.dataset.train.batches(run.plan(), step + passed, total_steps + passed).map_err(not_started)
}
