//! Runs in this process that are stopped, broken and gone on with: the same loop as the commands', without their start-up.

mod changes;
mod leaps;
mod not_finite;
mod saving;
mod stops;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use ansatz::artifact::{Artifact, Purpose};
use ansatz::cpu::Lowering;
use ansatz::cpu::code::{self, Options};
use ansatz::cpu::run::{Code, Cpu, found_in};
use ansatz::device::DeviceError;
use ansatz::machine::{self, Level};
use ansatz::model::{self, Resolved};
use ansatz::pipeline;
use ansatz::runtime::checkpoint::Note;
use ansatz::runtime::data::{self, Dataset};
use ansatz::runtime::folder::RunFolder;
use ansatz::runtime::record::{Command, Record, StepLog};
use ansatz::runtime::train::{self, Ending, Event, Loop, LoopError};
use ansatz::runtime::trainer::{Extent, Trainer};
use ansatz::workspace;

/// A model file with its data, compiled once for many runs.
pub struct Prepared {
    training: Resolved,
    pub dataset: Dataset,
    artifact: Artifact,
    codes: Vec<Code>,
    level: Level,
    path: PathBuf,
    text: String,
    files: Vec<(String, Vec<u8>)>,
    pub folder: tempfile::TempDir,
}

/// A JSON object of one line.
pub type Line = BTreeMap<String, serde_json::Value>;

/// How one process of a run goes.
#[derive(Clone, Copy, Default)]
pub struct How {
    /// All of them if not said.
    pub stop_after: Option<u64>,
    /// One thread if not said.
    pub threads: usize,
}

/// Steps done, and how it ended.
pub struct Told {
    pub steps: u64,
    pub ending: Result<Ending, LoopError>,
}

impl Prepared {
    /// A model file of this text beside these files.
    pub fn new(text: &str, files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("net.ansatz");
        std::fs::write(&path, text).expect("written");
        files.iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).expect("written"));
        let (project, file, found) = workspace::project(&path);
        assert!(found.is_empty(), "{found:#?}");
        let training = model::training(&project, file, &[]).unwrap_or_else(|found| panic!("{found:#?}"));
        let dataset = data::open(&training.settings.data, training.settings.seed).expect("the data is there");
        let batch = training.settings.batch;
        let mut wanted = Vec::new();
        for (purpose, samples) in [(Purpose::Train, dataset.train.len()), (Purpose::Evaluate, dataset.valid.len())] {
            wanted.extend([batch.min(samples), samples % batch].map(|rows| (purpose, rows)));
        }
        wanted.retain(|(_, rows)| *rows > 0);
        let artifact = pipeline::artifact(&training, &dataset.fields, &wanted, false, &Lowering::default());
        let artifact = artifact.unwrap_or_else(|found| panic!("{found:#?}"));
        let level = machine::detect();
        let options = Options { level, profile: false, tuning: Default::default() };
        let compiled = artifact.steps.values().map(|step| code::compile(&step.program, &options).expect("it compiles"));
        let codes = compiled.collect();
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
        Self { codes, training, dataset, artifact, level, path, text: text.to_string(), files, folder }
    }

    /// The same with another text in the place of one.
    pub fn with(&self, before: &str, after: &str) -> Self {
        assert!(self.text.contains(before), "{before}");
        let files: Vec<(&str, &[u8])> =
            self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        Self::new(&self.text.replace(before, after), &files)
    }

    /// A run's folder.
    pub fn at(&self, run: &str) -> PathBuf {
        self.folder.path().join(run)
    }

    pub fn bytes(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.at(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// The lines of a file of JSON objects, without times.
    pub fn lines(&self, file: &str) -> Vec<Line> {
        let text = String::from_utf8(self.bytes(file)).expect("text");
        let line = |line: &str| -> Line {
            let mut line: Line = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            line.retain(|key, _| key != "ms" && key != "seconds");
            line
        };
        text.lines().map(line).collect()
    }

    pub fn trainer(&self, threads: usize) -> Trainer {
        let device = device(self.level, threads.max(1), self.codes.clone());
        let extent = Extent::of(&self.training.settings, self.dataset.train.len());
        let artifact = self.artifact.clone();
        Trainer::new(artifact, Box::new(device), extent, threads.max(1), &[Purpose::Train]).expect("memory")
    }

    /// Begins a run, or goes on with it if its folder is there.
    pub fn run(&self, name: &str, how: How, beside: &mut dyn FnMut(&Event<'_>)) -> Told {
        let (path, log) = (self.at(name), self.at(&format!("{name}.jsonl")));
        let mut trainer = self.trainer(how.threads);
        let is_new = !path.join("run.json").exists();
        let (mut record, log) = if is_new {
            let command = Command::new(&self.path, &path, Vec::new(), false, None).expect("paths");
            let folder = RunFolder::for_new_run(&path, "ansatz resume").expect("a folder");
            (Record::create(folder, &command).expect("written"), StepLog::create(&log).expect("written"))
        } else {
            let folder = RunFolder::of_run(&path).expect("a folder");
            if let Some(found) = folder.newest().expect("read").0 {
                let position = found.note.position.expect("a place");
                trainer.restore(&found.path, found.tensors, position).expect("the same model");
            }
            let step = trainer.position().step;
            (Record::open(folder, step).expect("read"), StepLog::go_on(&log, step).expect("read"))
        };
        self.go(&mut trainer, &mut record, log, how, beside)
    }

    fn go(
        &self,
        trainer: &mut Trainer,
        record: &mut Record,
        log: StepLog,
        how: How,
        beside: &mut dyn FnMut(&Event<'_>),
    ) -> Told {
        let stop = AtomicUsize::new(0);
        let watched = |rows: usize, persistent: &_| {
            let backend = Lowering::default();
            pipeline::watched(&self.training, &self.dataset.fields, rows, persistent, &backend).ok()
        };
        let mut settings = Loop {
            training: &self.training.settings,
            dataset: &self.dataset,
            note: Note::default(),
            record,
            log: Some(log),
            log_gradients: false,
            no_shuffle: false,
            init: None,
            watched: &watched,
            stop: &stop,
            stop_after: how.stop_after,
        };
        let ending = train::run(trainer, &mut settings, &mut |event| beside(&event));
        Told { steps: trainer.position().step, ending }
    }

    /// As [`Prepared::run`], of which nothing but the end is of interest.
    pub fn finish(&self, name: &str, how: How) -> Told {
        let told = self.run(name, how, &mut |_| {});
        if let Err(error) = &told.ending {
            panic!("{name}: {error:?}");
        }
        told
    }
}

/// A device for codes that were made here, and for others that are made when they are asked for.
#[allow(unsafe_code)]
fn device(level: Level, threads: usize, codes: Vec<Code>) -> Cpu {
    let known = found_in(codes, level);
    let options = Options { level, profile: false, tuning: Default::default() };
    let compile = move |program: &_| {
        known(program).or_else(|_| code::compile(program, &options).map_err(|error| DeviceError(error.to_string())))
    };
    // SAFETY: the codes are those of the compiler for the programs that they are found by.
    unsafe { Cpu::new(level, threads, Box::new(compile)) }.expect("memory")
}

/// Whether a folder holds the rest of a file that was not renamed.
pub fn has_rubbish(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).expect("listed");
    entries.map(|entry| entry.expect("an entry").file_name()).any(|name| name.to_string_lossy().ends_with(".tmp"))
}
