//! What `train`, `resume`, `eval` and `predict` share: a model file with its data, ready to run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::progress::Progress;
use super::{Failure, open};
use crate::model::{self, BoundField, Project, Training};
use crate::pipeline::{self, Purpose};
use crate::primitives::{self, Level};
use crate::runtime::check;
use crate::runtime::data::{self, DataError, Dataset, Preparation};
use crate::runtime::recipe::Recipe;
use crate::runtime::train::{Extent, LoopError};
use crate::runtime::trainer::{Settings, Trainer, TrainerError};
use crate::runtime::tuning::Cache;

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
        let level =
            recipe.and_then(|recipe| Level::parse(&recipe.level)).filter(|level| *level <= primitives::detect());
        match level {
            Some(level) if !asked => Self { threads: self.threads, cpu: Some(level.to_string()) },
            Some(_) | None => self.clone(),
        }
    }

    pub(super) fn level(&self) -> Result<Level, Failure> {
        let best = primitives::detect();
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

/// A model file with its data.
pub(super) struct Session {
    /// The file as the user gave it.
    pub path: PathBuf,
    /// The file and all it uses.
    pub project: Project,
    /// The settings of the `train` item.
    pub training: Training,
    /// The data.
    pub dataset: Dataset,
    /// The data's fields with the batch first.
    pub fields: Vec<BoundField>,
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
        Self::with_data(path, overrides, |project, training| {
            data::open_with(&training.data, training.seed, known).map_err(|error| data_failure(project, error))
        })
    }

    /// As [`Session::open`], with data from elsewhere.
    pub(super) fn with_data(
        path: &Path,
        overrides: &[(String, String)],
        read: impl FnOnce(&Project, &Training) -> Result<Dataset, Failure>,
    ) -> Result<Self, Failure> {
        let (mut project, file) = open::project(path)?;
        project.add_settings(overrides);
        let training = open::unwrap(model::training(&project, file, overrides), &project.sources)?;
        let dataset = read(&project, &training)?;
        let fields = check::bound_fields(&dataset.fields, training.batch);
        Ok(Self { path: path.to_path_buf(), project, training, dataset, fields })
    }

    /// Prints what is suspicious about the run, now that the data is known.
    pub(super) fn warn(&self) -> super::Outcome {
        let samples = Some(self.dataset.train.len());
        let warnings = model::warnings(&self.project, &self.training, &self.fields, samples);
        open::report(&warnings, &self.project.sources)
    }

    pub(super) fn extent(&self) -> Extent {
        Extent::of(&self.training, self.dataset.train.len())
    }

    /// Holds weights to both modes, and the integers of the data to the reads of the steps that are about to run.
    pub(super) fn hold_data(&self, purposes: &[Purpose]) -> Result<(), Failure> {
        let ranges = pipeline::data_ranges(&self.project, &self.training, &self.fields, purposes);
        let ranges = open::unwrap(ranges, &self.project.sources)?;
        self.dataset.hold(&self.training.data, &ranges).map_err(|error| data_failure(&self.project, error))
    }

    /// The compiled training step with first values.
    pub(super) fn trainer(&self, machine: &Machine, measures: Measures) -> Result<Trainer<'_>, Failure> {
        self.trainer_for(Purpose::Train, machine, measures)
    }

    /// The compiled step of a kind with first values.
    pub(super) fn trainer_for(
        &self,
        kind: Purpose,
        machine: &Machine,
        measures: Measures,
    ) -> Result<Trainer<'_>, Failure> {
        let extent = self.extent();
        let (level, threads) = (machine.level()?, machine.threads());
        let settings = Settings {
            threads,
            level,
            tuning: Arc::new(Cache::of_user().map(|cache| cache.load(level, threads)).unwrap_or_default()),
            gradient_norms: measures.gradient_norms,
            profile: measures.profile,
            total_steps: extent.total_steps,
            steps_per_epoch: extent.steps_per_epoch,
        };
        Trainer::for_steps(kind, &self.project, &self.training, self.fields.clone(), settings)
            .map_err(|error| self.trainer_failure(error))
    }

    /// What the run is made from.
    pub(super) fn recipe(&self, trainer: &Trainer<'_>, no_shuffle: bool) -> Result<Recipe, Failure> {
        Ok(Recipe {
            model: trainer.meaning().map_err(|error| self.trainer_failure(error))?,
            steps: self.extent().total_steps,
            data: self.dataset.hashes(),
            samples: self.dataset.samples(),
            settings: self.training.overrides.clone(),
            seed: self.training.seed,
            no_shuffle,
            level: trainer.level().to_string(),
        })
    }

    /// Progress from where the trainer stands; says what is about to run.
    pub(super) fn progress(&self, trainer: &Trainer<'_>) -> Progress {
        let extent = self.extent();
        eprintln!(
            "{}: {} parameters, {}; {} steps of {}",
            self.training.model,
            super::progress::count(trainer.parameter_count() as f64),
            self.dataset.describe(),
            extent.total_steps,
            self.training.batch
        );
        Progress::new(extent, trainer.position().step)
    }

    pub(super) fn trainer_failure(&self, error: TrainerError) -> Failure {
        match error {
            TrainerError::Findings(diagnostics) => {
                open::report(&diagnostics, &self.project.sources).err().unwrap_or(Failure::Findings)
            }
            TrainerError::Problem(words) => Failure::Problem(words),
        }
    }

    pub(super) fn loop_failure(&self, error: LoopError) -> Failure {
        match error {
            LoopError::Trainer(error) => self.trainer_failure(error),
            LoopError::Problem(words) => Failure::Problem(words),
            LoopError::Diverged { step, what, .. } => Failure::Problem(format!("{what} is not finite at step {step}")),
        }
    }
}

pub(super) fn data_failure(project: &Project, error: DataError) -> Failure {
    open::report(&error.into_diagnostics(), &project.sources).err().unwrap_or(Failure::Findings)
}
