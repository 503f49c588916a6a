//! The folder of a run: one process at a time uses it, and it knows which files in it are the run's.
//!
//! Input: a path. Output: a locked [`RunFolder`] and the checkpoints in it. Invariants: a folder has at most one holder;
//! only files of the names given here are ever deleted.
//!
//! `last.safetensors` is the newest checkpoint. With `keep = last(3)` it is a second name of the newest of three files
//! `last-STEP.safetensors`.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::checkpoint::{self, Note, Tensor};
use super::files::{self, named};
use crate::diagnostics::Refusal;

/// The name of the checkpoint with the best figure.
pub const BEST: &str = "best.safetensors";

/// The name of the checkpoint that a run with `not_finite = roll_back` goes back to. Interruptions do not move it, so that it is the same
/// in a run that was interrupted and in one that was not.
pub const BACK: &str = "back.safetensors";

/// A folder that no other process of ours uses.
#[derive(Debug)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Locked while it is open.
    _lock: File,
}

/// A checkpoint that can be gone on from.
#[derive(Debug)]
pub struct Found {
    /// Its file.
    pub path: PathBuf,
    /// Its tensors.
    pub tensors: BTreeMap<String, Tensor<'static>>,
    /// Its note, which has a position.
    pub note: Note,
}

impl RunFolder {
    /// A folder that did not exist: `STEM`, `STEM-2`, … in `parent`, whichever is free.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn fresh(parent: &Path, stem: &str) -> Result<Self, Refusal> {
        std::fs::create_dir_all(parent).map_err(|error| named(parent, &error))?;
        let mut number = 1;
        loop {
            let path = parent.join(if number == 1 { stem.to_string() } else { format!("{stem}-{number}") });
            // Whoever makes the folder has it: looking first and making it then would let two runs share one.
            match std::fs::create_dir(&path) {
                Ok(()) => return Self::lock(&path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(named(&path, &error)),
            }
        }
    }

    /// A folder for a new run; it is made if it is missing. `resume` is how the user goes on with a run that it holds.
    ///
    /// # Errors
    /// Another process uses it, it holds a file such as a run writes, or it cannot be made.
    pub fn for_new_run(path: &Path, resume: &str) -> Result<Self, Refusal> {
        std::fs::create_dir_all(path).map_err(|error| named(path, &error))?;
        let folder = Self::lock(path)?;
        let mut names = folder.names()?;
        names.retain(|name| is_ours(name) && !folder.join(name).is_dir());
        match names.iter().min() {
            None => Ok(folder),
            Some(_) if folder.holds_run() => {
                Err(Refusal(format!("{} holds a run; `{resume}` goes on with it", path.display())))
            }
            Some(name) => {
                let words = "which a run would write over; choose another folder";
                Err(Refusal(format!("{} holds `{name}`, {words}", path.display())))
            }
        }
    }

    /// Whether `run.json` is one of ours.
    fn holds_run(&self) -> bool {
        #[derive(Deserialize)]
        struct Command {
            #[serde(rename = "model")]
            _model: PathBuf,
        }
        let bytes = files::open(&self.join("run.json")).and_then(|file| files::read_all(file, 1 << 20));
        bytes.is_ok_and(|bytes| serde_json::from_slice::<Command>(&bytes).is_ok())
    }

    /// The folder of an earlier run.
    ///
    /// # Errors
    /// Another process uses it, or it cannot be written.
    pub fn of_run(path: &Path) -> Result<Self, Refusal> {
        Self::lock(path)
    }

    /// Takes the folder for this process, and clears what killed processes left half written.
    fn lock(path: &Path) -> Result<Self, Refusal> {
        let file = path.join(".lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&file);
        let lock = lock.map_err(|error| named(&file, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let words = format!("another process is using {}; wait for its end, or end it", path.display());
                return Err(Refusal(words));
            }
            // Some network folders have no locks; a run there is still correct if it is alone.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(named(&file, &error)),
        }
        let folder = Self { path: path.to_path_buf(), _lock: lock };
        for name in folder.names()?.iter().filter(|name| checkpoint::intended_name(name).is_some_and(is_ours)) {
            // Who wrote it had the lock, so it has ended.
            let _ = std::fs::remove_file(folder.join(name));
        }
        Ok(folder)
    }

    /// A file in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn names(&self) -> Result<Vec<String>, Refusal> {
        let entries = std::fs::read_dir(&self.path).map_err(|error| named(&self.path, &error))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    /// Steps of the numbered checkpoints, the newest first.
    fn numbered(&self) -> Result<Vec<u64>, Refusal> {
        let mut steps: Vec<u64> = self.names()?.iter().filter_map(|name| step_of(name)).collect();
        steps.sort_unstable_by_key(|step| std::cmp::Reverse(*step));
        Ok(steps)
    }

    /// The files of events with the numbers of the processes that wrote them, the oldest first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn event_files(&self) -> Result<Vec<(u64, PathBuf)>, Refusal> {
        let names = self.names()?;
        let mut files: Vec<_> = names.iter().filter_map(|name| Some((writer_of(name)?, self.join(name)))).collect();
        files.sort_unstable();
        Ok(files)
    }

    /// Saves the newest checkpoint and keeps `count` of the latest, itself included.
    ///
    /// # Errors
    /// Any failure to write; the older checkpoints are then intact.
    pub fn save_last(&self, count: usize, tensors: &BTreeMap<String, Tensor<'_>>, note: &Note) -> Result<(), Refusal> {
        let last = self.join("last.safetensors");
        match &note.position {
            Some(position) if count > 1 => {
                let file = self.join(&numbered_name(position.step));
                checkpoint::save(&file, tensors, note)?;
                // Where a file cannot have two names it is written twice.
                checkpoint::link_atomically(&file, &last).or_else(|_| checkpoint::save(&last, tensors, note))?;
            }
            Some(_) | None => checkpoint::save(&last, tensors, note)?,
        }
        let superfluous = self.numbered().unwrap_or_default().into_iter().skip(if count > 1 { count } else { 0 });
        // A file that cannot be deleted costs room, not the run.
        superfluous.for_each(|step| drop(std::fs::remove_file(self.join(&numbered_name(step)))));
        Ok(())
    }

    /// Deletes the numbered checkpoints of steps behind `step`, which come again otherwise.
    pub fn forget_behind(&self, step: u64) {
        let behind = self.numbered().unwrap_or_default().into_iter().filter(|number| *number > step);
        // One that stays is gone on from to the same turn back.
        behind.for_each(|number| drop(std::fs::remove_file(self.join(&numbered_name(number)))));
    }

    /// The newest checkpoint that is whole, and what is wrong with newer ones; the best one counts where no other is.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn newest(&self) -> Result<(Option<Found>, Vec<Refusal>), Refusal> {
        let numbered = self.numbered()?.into_iter().map(numbered_name);
        let candidates: Vec<String> = std::iter::once("last.safetensors".to_string()).chain(numbered).collect();
        let (mut found, mut damaged): (Option<Found>, Vec<Refusal>) = (None, Vec::new());
        for name in candidates {
            if let Some(other) = self.read(&name, &mut damaged)
                && found.as_ref().is_none_or(|found| step(found) < step(&other))
            {
                found = Some(other);
            }
        }
        if found.is_none() {
            found = self.read(BEST, &mut damaged);
        }
        Ok((found, damaged))
    }

    fn read(&self, name: &str, damaged: &mut Vec<Refusal>) -> Option<Found> {
        let path = self.join(name);
        // One that cannot be looked at is no missing one: a run must not go back behind it unheard.
        if path.try_exists().is_ok_and(|exists| !exists) {
            return None;
        }
        match checkpoint::load(&path) {
            Ok((tensors, note)) if note.position.is_some() => Some(Found { path, tensors, note }),
            Ok(_) => {
                damaged.push(named(&path, &"holds weights, not a place in a run"));
                None
            }
            Err(error) => {
                damaged.push(error);
                None
            }
        }
    }
}

fn step(found: &Found) -> Option<u64> {
    found.note.position.as_ref().map(|position| position.step)
}

fn numbered_name(step: u64) -> String {
    format!("last-{step}.safetensors")
}

/// The step of a numbered checkpoint, whose name is the one that we would give it.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("last-")?.strip_suffix(".safetensors")?.parse().ok()?;
    (numbered_name(step) == name).then_some(step)
}

/// The name of the events of the process that was the `number`-th to work on the run. Readers take files in the order of
/// their names.
pub fn events_name(number: u64) -> String {
    format!("events.out.tfevents.{number:06}.ansatz")
}

/// The number of the process that wrote a file of events, whose name is the one that we would give it.
fn writer_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("events.out.tfevents.")?.strip_suffix(".ansatz")?.parse().ok()?;
    (events_name(number) == name).then_some(number)
}

/// Files of a run, or of a sweep, that have one name in all of them.
const FIXED: [&str; 11] = [
    "run.json",
    "sweep.json",
    "metrics.jsonl",
    "loss.svg",
    "about.json",
    "result.json",
    "report.html",
    "last.safetensors",
    BEST,
    BACK,
    "weights.safetensors",
];

/// Names of files that a run writes.
fn is_ours(name: &str) -> bool {
    FIXED.contains(&name) || step_of(name).is_some() || writer_of(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::checkpoint::Position;

    fn note(step: u64) -> Note {
        Note { position: Some(Position { step, ..Position::default() }), recipe: None, preparation: None }
    }

    fn tensors(value: f32) -> BTreeMap<String, Tensor<'static>> {
        let bytes = value.to_le_bytes().to_vec().into();
        BTreeMap::from([("a".into(), Tensor { sizes: vec![1], integer: false, bytes })])
    }

    fn names(folder: &RunFolder) -> Vec<String> {
        let mut names = folder.names().expect("listed");
        names.sort();
        names
    }

    #[test]
    fn fresh_folders_are_made_by_one_and_locked() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let make = || RunFolder::fresh(parent.path(), "net").expect("made");
        let folders: Vec<RunFolder> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().expect("ended")).collect()
        });
        let paths: std::collections::BTreeSet<&Path> = folders.iter().map(|folder| folder.path.as_path()).collect();
        assert_eq!(paths.len(), 16);
        let taken = RunFolder::of_run(&folders[0].path).expect_err("taken").to_string();
        assert!(taken.contains("another process is using"), "{taken}");
        let path = folders[0].path.clone();
        drop(folders);
        RunFolder::of_run(&path).expect("free again");
    }

    #[test]
    fn the_latest_are_kept_and_only_our_files_are_deleted() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::for_new_run(&parent.path().join("run"), "ansatz resume").expect("made");
        let others =
            ["last-5.txt", "last-05.safetensors", "last-x.safetensors", ".note.12.tmp", ".last.safetensors.1.bak"];
        for name in others {
            std::fs::write(folder.join(name), b"mine").expect("written");
        }
        for step in [5, 10, 15, 20] {
            folder.save_last(3, &tensors(step as f32), &note(step)).expect("saved");
        }
        let present = names(&folder);
        let ours = [".lock", "last-10.safetensors", "last-15.safetensors", "last-20.safetensors", "last.safetensors"];
        for name in ours.iter().chain(&others) {
            assert!(present.contains(&name.to_string()), "{name} of {present:?}");
        }
        assert_eq!(present.len(), ours.len() + others.len(), "{present:?}");
        folder.save_last(1, &tensors(25.0), &note(25)).expect("saved");
        assert_eq!(names(&folder).len(), 2 + others.len());
        assert_eq!(folder.newest().expect("read").0.expect("found").note, note(25));
    }

    #[test]
    fn a_damaged_checkpoint_leaves_the_one_before() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::for_new_run(&parent.path().join("run"), "ansatz resume").expect("made");
        for step in [5, 10] {
            folder.save_last(2, &tensors(step as f32), &note(step)).expect("saved");
        }
        std::fs::write(folder.join("last-10.safetensors"), b"torn").expect("written");
        let (found, damaged) = folder.newest().expect("read");
        assert_eq!(found.expect("found").tensors, tensors(5.0));
        assert_eq!(damaged.len(), 2, "both names of the damaged file: {damaged:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_checkpoint_that_cannot_be_looked_at_is_no_missing_one() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::for_new_run(&parent.path().join("run"), "ansatz resume").expect("made");
        assert!(matches!(folder.newest().expect("read"), (None, damaged) if damaged.is_empty()));
        std::os::unix::fs::symlink("last.safetensors", folder.join("last.safetensors")).expect("a link to itself");
        let (found, damaged) = folder.newest().expect("read");
        assert!(found.is_none() && damaged.len() == 1, "{damaged:?}");
        assert!(damaged[0].0.contains("last.safetensors"), "{damaged:?}");
    }

    #[test]
    fn what_killed_processes_left_is_cleared_and_nothing_else() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &&str| std::fs::write(parent.path().join(name), b"").expect("written");
        let ours =
            [".last.safetensors.4194304.tmp", ".last-7.safetensors.1.tmp", ".run.json.12.tmp", ".run.json.12-3.tmp"];
        ours.iter().for_each(write);
        let others = [
            ".last.safetensors.tmp",
            ".last.safetensors.x1.tmp",
            ".last.safetensors.1-.tmp",
            ".last.safetensors.-2.tmp",
            ".secret.12.tmp",
            "last.safetensors.12.tmp",
        ];
        others.iter().for_each(write);
        let folder = RunFolder::of_run(parent.path()).expect("locked");
        let mut left = names(&folder);
        left.retain(|name| name != ".lock");
        let mut expected = others.map(str::to_string);
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_folder_with_a_file_such_as_a_run_writes_is_refused() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let new = || RunFolder::for_new_run(parent.path(), "./t resume x").map(drop);
        let refused = |words: &str| {
            let refusal = new().expect_err(words).to_string();
            assert!(refusal.contains(words), "{refusal}");
        };
        new().expect("an empty folder");
        std::fs::write(parent.path().join("notes.json"), b"{}").expect("written");
        new().expect("no file of a run");
        for name in ["metrics.jsonl", "report.html", "run.json", "weights.safetensors"] {
            std::fs::write(parent.path().join(name), b"{}").expect("written");
            refused(&format!("holds `{name}`, which a run would write over"));
            std::fs::remove_file(parent.path().join(name)).expect("removed");
        }
        std::fs::write(parent.path().join("run.json"), br#"{"model": "net.ansatz"}"#).expect("written");
        refused("holds a run; `./t resume x` goes on");
    }
}
