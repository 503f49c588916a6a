//! Checkpoints written beside the training: the loop takes a copy of what it stands on, and a thread writes it.
//!
//! Input: copies of a run, and which files they are due for. Output: files in the run folder. Invariants: at most one save is in
//! flight, so files get their names in the order of the steps; a save that is due while one is in flight waits for it;
//! whoever drops a saver waits for its thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::checkpoint::{self, Note, Tensor};
use super::folder::{BACK, BEST, RunFolder};
use super::memory;
use super::trainer::{Snapshot, Trainer};
use crate::diagnostics::Refusal;

/// The files that a save is due for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The best figure so far has just been measured.
    pub best: bool,
    /// A place to go back to.
    pub back: bool,
    /// A place to go on from.
    pub last: bool,
}

impl Due {
    /// Whether there is anything to write.
    pub fn is_any(self) -> bool {
        self.best || self.back || self.last
    }
}

/// Writes the files of a save.
type Write = Arc<dyn Fn(&BTreeMap<String, Tensor<'_>>, &Note, Due) -> Result<(), Refusal> + Send + Sync>;

/// What a save gives back: the memory of its copy, and what became of the files.
type Saved = (Snapshot, Result<(), Refusal>);

/// See the module's text.
pub struct Saver {
    write: Write,
    /// The memory of the next copy, while no save is in flight.
    spare: Snapshot,
    in_flight: Option<JoinHandle<Saved>>,
}

impl Saver {
    /// Writes into a run's folder, where `count` of the latest checkpoints are kept.
    pub fn new(folder: Arc<RunFolder>, count: usize) -> Self {
        let write = move |tensors: &BTreeMap<String, Tensor<'_>>, note: &Note, due: Due| {
            if due.best {
                checkpoint::save(&folder.join(BEST), tensors, note)?;
            }
            if due.back {
                checkpoint::save(&folder.join(BACK), tensors, note)?;
            }
            if due.last {
                folder.save_last(count, tensors, note)?;
            }
            Ok(())
        };
        Self { write: Arc::new(write), spare: Snapshot::default(), in_flight: None }
    }

    /// Takes a copy of the run and begins to write it, beside whatever the trainer does next. Where there is no memory for a
    /// copy, or no thread, the files are written before this returns.
    ///
    /// # Errors
    /// What went wrong with the save before, which this one waits for; or with this one, where it is not written beside.
    pub fn begin(&mut self, trainer: &Trainer, note: Note, due: Due) -> Result<(), Refusal> {
        self.settle()?;
        if self.spare.is_empty() && memory::check(trainer.snapshot_bytes(), "a copy of the weights").is_err() {
            return (self.write)(&trainer.tensors(false)?, &note, due);
        }
        let mut snapshot = std::mem::take(&mut self.spare);
        trainer.take(&mut snapshot)?;
        self.hand_over(snapshot, note, due)
    }

    fn hand_over(&mut self, snapshot: Snapshot, note: Note, due: Due) -> Result<(), Refusal> {
        let job = Arc::new(Mutex::new(Some((snapshot, note))));
        let (write, theirs) = (self.write.clone(), job.clone());
        let work = move || {
            let (snapshot, note) = taken(&theirs).expect("a save is handed over once");
            let written = write(&snapshot.tensors(), &note, due);
            (snapshot, written)
        };
        match std::thread::Builder::new().name("save".to_string()).spawn(work) {
            Ok(thread) => {
                self.in_flight = Some(thread);
                Ok(())
            }
            Err(_) => {
                let (snapshot, note) = taken(&job).expect("no thread has taken it");
                let written = (self.write)(&snapshot.tensors(), &note, due);
                self.spare = snapshot;
                written
            }
        }
    }

    /// Whether the save in flight has ended and waits to be settled.
    pub fn has_ended(&self) -> bool {
        self.in_flight.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Waits for the save in flight.
    ///
    /// # Errors
    /// A file of it that could not be written; the older one is whole.
    pub fn settle(&mut self) -> Result<(), Refusal> {
        let Some(thread) = self.in_flight.take() else { return Ok(()) };
        let (snapshot, written) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.spare = snapshot;
        written
    }
}

fn taken<T>(place: &Mutex<Option<T>>) -> Option<T> {
    place.lock().expect("nobody panics with it in hand").take()
}

impl Drop for Saver {
    fn drop(&mut self) {
        if let Some(thread) = self.in_flight.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::runtime::checkpoint::Position;

    /// The steps of which files are written, and what for.
    type Written = Receiver<(u64, Due)>;

    /// A saver whose files are done when the test says so.
    fn gated() -> (Saver, Sender<Result<(), Refusal>>, Written) {
        let (open, gate) = channel();
        let (tell, written) = channel();
        let gate = Mutex::new(gate);
        let write = move |_: &BTreeMap<String, Tensor<'_>>, note: &Note, due: Due| {
            let step = note.position.as_ref().map_or(0, |position| position.step);
            tell.send((step, due)).expect("somebody listens");
            gate.lock().expect("one save at a time").recv().expect("somebody opens")
        };
        (Saver { write: Arc::new(write), spare: Snapshot::default(), in_flight: None }, open, written)
    }

    fn note(step: u64) -> Note {
        Note { position: Some(Position { step, ..Position::default() }), ..Note::default() }
    }

    const LAST: Due = Due { best: false, back: false, last: true };

    #[test]
    fn a_save_returns_before_its_files_are_written_and_the_next_waits_for_it() {
        let (mut saver, open, written) = gated();
        saver.hand_over(Snapshot::default(), note(1), LAST).expect("begun");
        assert_eq!(written.recv().expect("begun"), (1, LAST));
        assert!(!saver.has_ended(), "its files are not written, and the caller goes on");
        let waits = std::thread::spawn(move || {
            saver.settle().expect("the first one");
            saver.hand_over(Snapshot::default(), note(2), LAST).expect("begun");
            saver
        });
        assert!(!waits.is_finished() && written.try_recv().is_err(), "two saves are in flight");
        open.send(Ok(())).expect("sent");
        let mut saver = waits.join().expect("ended");
        open.send(Ok(())).expect("sent");
        saver.settle().expect("the second one");
        assert_eq!(written.recv().expect("written"), (2, LAST));
    }

    #[test]
    fn what_went_wrong_is_told_once_and_whoever_drops_a_saver_waits() {
        let (mut saver, open, written) = gated();
        open.send(Err(Refusal("last.safetensors: no space".into()))).expect("sent");
        saver.hand_over(Snapshot::default(), note(1), LAST).expect("begun");
        assert_eq!(saver.settle().expect_err("refused").to_string(), "last.safetensors: no space");
        saver.settle().expect("nothing is in flight");
        open.send(Ok(())).expect("sent");
        saver.hand_over(Snapshot::default(), note(2), LAST).expect("begun");
        drop(saver);
        assert_eq!(written.iter().map(|(step, _)| step).collect::<Vec<_>>(), [1, 2]);
        assert!(open.send(Ok(())).is_err(), "its thread has ended");
    }
}
