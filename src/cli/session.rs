//! What `train`, `resume`, `eval` and `predict` share: a model file with its data, ready to run.

use std::path::{Path, PathBuf};

use clap::Args;

use super::progress::Progress;
use super::tuning::Cache;
use super::{Failure, open};
use crate::artifact::{Purpose, Watched};
use crate::cpu::Lowering;
use crate::cpu::code::{self, Options};
use crate::kernel::Persistent;
use crate::machine::{self, Level};
use crate::model::{self, Resolved};
use crate::pipeline;
use crate::runtime::data::{self, DataError, Dataset, Preparation, Split};
use crate::runtime::recipe::Recipe;
use crate::runtime::trainer::{Extent, Trainer};
use crate::source::SourceMap;

/// Options about the machine; none of them changes results beyond rounding.
#[derive(Clone, Debug, Args)]
pub(super) struct Machine {
    /// Threads (all cores by default); results do not depend on it
    #[arg(long)]
    threads: Option<usize>,
    /// Instruction set: avx512, avx2 or portable (the best of this machine, or `ANSATZ_CPU`)
    #[arg(long, value_name = "LEVEL")]
    cpu: Option<String>,
}

impl Machine {
    pub(super) fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or(cores).clamp(1, 256)
    }

    /// These options, with the level that a run began at where none is asked for and this machine has it.
    pub(super) fn at_level_of(&self, recipe: Option<&Recipe>) -> Self {
        let asked = self.cpu.is_some() || std::env::var_os("ANSATZ_CPU").is_some();
        let level = recipe.and_then(|recipe| Level::parse(&recipe.level)).filter(|level| *level <= machine::detect());
        match level {
            Some(level) if !asked => Self { threads: self.threads, cpu: Some(level.to_string()) },
            Some(_) | None => self.clone(),
        }
    }

    pub(super) fn level(&self) -> Result<Level, Failure> {
        let best = machine::detect();
        if !best.runs_code() {
            return Err(Failure::Problem("machine code needs a processor of x86-64 with SSE 4.2".to_string()));
        }
        let Some(name) = self.cpu.clone().or_else(|| std::env::var("ANSATZ_CPU").ok()) else { return Ok(best) };
        let level = Level::parse(&name)
            .ok_or_else(|| Failure::Problem(format!("no instruction set `{name}`: choose avx512, avx2 or portable")))?;
        if level > best {
            return Err(Failure::Problem(format!("this machine has {best}, not {level}")));
        }
        Ok(level)
    }
}

/// What a trainer measures beside the loss.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measures {
    /// The norm of each parameter's gradient.
    pub gradient_norms: bool,
    /// The time of each kernel.
    pub profile: bool,
}

/// `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let (key, value) = (key.trim(), value.trim());
    // A run may be resumed from another folder.
    let value = match key {
        "data.folder" => std::path::absolute(value).map_err(|error| error.to_string())?.display().to_string(),
        _ => value.to_string(),
    };
    Ok((key.to_string(), value))
}

/// A model file with settings in place of its own.
#[derive(Debug, Args)]
pub(super) struct ModelFile {
    /// The model file
    pub file: PathBuf,
    /// Override a setting, such as `train.batch=64`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

/// The `train` item of a file, with these settings.
pub(super) fn training(path: &Path, overrides: &[(String, String)]) -> Result<Resolved, Failure> {
    let (mut project, file) = open::project(path)?;
    project.add_settings(overrides);
    open::unwrap(model::training(&project, file, overrides), &project.sources)
}

/// A model file with its data.
pub(super) struct Session {
    /// The file as the user gave it.
    pub path: PathBuf,
    /// The `train` item.
    pub training: Resolved,
    pub dataset: Dataset,
}

impl Session {
    /// Reads the file, its `train` item and its data.
    pub(super) fn open(path: &Path, overrides: &[(String, String)]) -> Result<Self, Failure> {
        Self::prepared(path, overrides, None)
    }

    /// As [`Session::open`], with what an earlier run measured where that is known.
    pub(super) fn prepared(
        path: &Path,
        overrides: &[(String, String)],
        known: Option<&Preparation>,
    ) -> Result<Self, Failure> {
        Self::with_data(path, overrides, |training| {
            data::open_with(&training.settings.data, training.settings.seed, known).map_err(data_failure(training))
        })
    }

    /// As [`Session::open`], with data from elsewhere.
    pub(super) fn with_data(
        path: &Path,
        overrides: &[(String, String)],
        read: impl FnOnce(&Resolved) -> Result<Dataset, Failure>,
    ) -> Result<Self, Failure> {
        let training = training(path, overrides)?;
        let dataset = read(&training)?;
        Ok(Self { path: path.to_path_buf(), training, dataset })
    }

    /// The texts of the file and all it uses.
    pub(super) fn sources(&self) -> &SourceMap {
        &self.training.project.sources
    }

    /// Prints what is suspicious about the run, now that the data is known.
    pub(super) fn warn(&self) -> super::Outcome {
        let samples = Some(self.dataset.train.len());
        let warnings = model::warnings(&self.training, &self.dataset.fields, samples);
        open::report(&warnings, self.sources())
    }

    pub(super) fn extent(&self) -> Extent {
        Extent::of(&self.training.settings, self.dataset.train.len())
    }

    /// The run's training and evaluation steps, of which those that train are loaded, with first values.
    pub(super) fn trainer(&self, machine: &Machine, measures: Measures) -> Result<Trainer, Failure> {
        let batch = self.training.settings.batch;
        let mut steps = vec![(Purpose::Train, batch)];
        steps.extend(rows_of(&self.dataset.train, batch).map(|rows| (Purpose::Train, rows)));
        for split in [&self.dataset.valid, &self.dataset.test] {
            steps.extend(rows_of(split, batch).map(|rows| (Purpose::Evaluate, rows)));
        }
        self.trainer_of(&steps, &[Purpose::Train], machine, measures)
    }

    /// The steps that evaluate a split and predict its samples, with first values.
    pub(super) fn evaluator(&self, split: &Split, machine: &Machine) -> Result<Trainer, Failure> {
        let batch = self.training.settings.batch;
        let mut steps: Vec<_> = rows_of(split, batch).map(|rows| (Purpose::Evaluate, rows)).collect();
        steps.push((Purpose::Predict, Trainer::prediction_rows(&self.training.settings)));
        self.trainer_of(&steps, &[Purpose::Evaluate, Purpose::Predict], machine, Measures::default())
    }

    /// The step that predicts, with first values.
    pub(super) fn predictor(&self, machine: &Machine) -> Result<Trainer, Failure> {
        let steps = [(Purpose::Predict, Trainer::prediction_rows(&self.training.settings))];
        self.trainer_of(&steps, &[Purpose::Predict], machine, Measures::default())
    }

    fn trainer_of(
        &self,
        steps: &[(Purpose, usize)],
        loaded: &[Purpose],
        machine: &Machine,
        measures: Measures,
    ) -> Result<Trainer, Failure> {
        let (level, threads) = (machine.level()?, machine.threads());
        let (norms, backend) = (measures.gradient_norms, Lowering::default());
        let artifact = pipeline::artifact(&self.training, &self.dataset.fields, steps, norms, &backend);
        let artifact = open::unwrap(artifact, self.sources())?;
        self.dataset.hold(&artifact.training.data, &artifact.ranges).map_err(data_failure(&self.training))?;
        let tuning = Cache::of_user().map(|cache| cache.load(level, threads)).unwrap_or_default();
        let options = Options { level, profile: measures.profile, tuning };
        let device = code::device(options, threads).map_err(|error| Failure::Problem(error.to_string()))?;
        Ok(Trainer::new(artifact, Box::new(device), self.extent(), threads, loaded)?)
    }

    /// The training step for so many samples, opened up to see what is not finite.
    pub(super) fn watched(&self, rows: usize, persistent: &Persistent) -> Option<Watched> {
        pipeline::watched(&self.training, &self.dataset.fields, rows, persistent, &Lowering::default()).ok()
    }

    /// What the run is made from.
    pub(super) fn recipe(&self, trainer: &Trainer, no_shuffle: bool) -> Result<Recipe, Failure> {
        Ok(Recipe {
            model: trainer.artifact().meaning.clone(),
            steps: self.extent().total_steps,
            data: self.dataset.hashes(),
            samples: self.dataset.samples(),
            settings: self.training.settings.overrides.clone(),
            seed: self.training.settings.seed,
            no_shuffle,
            level: trainer.level(),
        })
    }

    /// Progress from where the trainer stands; says what is about to run.
    pub(super) fn progress(&self, trainer: &Trainer) -> Progress {
        let extent = self.extent();
        eprintln!(
            "{}: {} parameters, {}; {} steps of {}",
            self.training.settings.model,
            super::progress::count(trainer.parameter_count() as f64),
            self.dataset.describe(),
            extent.total_steps,
            self.training.settings.batch
        );
        Progress::new(extent, trainer.position().step)
    }
}

/// The numbers of samples in the batches of a split.
fn rows_of(split: &Split, batch: usize) -> impl Iterator<Item = usize> {
    [batch.min(split.len()), split.len() % batch].into_iter().filter(|rows| *rows > 0)
}

pub(super) fn data_failure(training: &Resolved) -> impl Fn(DataError) -> Failure {
    |error| {
        let reported = open::report(&error.into_diagnostics(), &training.project.sources);
        reported.err().unwrap_or(Failure::Findings)
    }
}
