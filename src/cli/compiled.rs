//! Networks that are compiled when they are asked for.
//!
//! Input: a model file and settings. Output: a [`Network`] for the commands that run one. Invariant: no file of the data is
//! opened here.

use std::path::{Path, PathBuf};

use clap::Args;

use super::images::Images;
use super::tuning::Cache;
use super::{Failure, about, open};
use crate::artifact::{Artifact, Purpose, Reading, Watched};
use crate::console::findings::{quoted, shown};
use crate::console::session::pair;
use crate::console::{Host, Network, Platform, Processor};
use crate::cpu::code::{self, Options};
use crate::cuda::compile;
use crate::device::Device;
use crate::kernel::Persistent;
use crate::machine::Level;
use crate::model::{self, Project, Resolved};
use crate::runtime::about::About;
use crate::runtime::data::{self, Dataset};
use crate::schedule::Backend;
use crate::settings::{FieldInfo, Training};
use crate::source::SourceMap;
use crate::{cpu, cuda, pipeline};
use ansatz_trainer::contents;

/// A model file with settings in place of its own.
#[derive(Debug, Args)]
pub(super) struct ModelFile {
    /// The model file
    pub file: PathBuf,
    /// Override a setting, such as `train.batch=64`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub set: Vec<(String, String)>,
}

/// What makes programs for a platform.
pub(super) fn backend(platform: Platform) -> Box<dyn Backend> {
    match platform {
        Platform::Cpu => Box::new(cpu::Lowering::default()),
        Platform::Cuda => Box::new(cuda::Lowering::default()),
    }
}

/// The `train` item of a file, with these settings.
pub(super) fn training(path: &Path, overrides: &[(String, String)]) -> Result<Resolved, Failure> {
    let (mut project, file) = open::project(path)?;
    project.add_settings(overrides);
    open::unwrap(model::training(&project, file, overrides), &project.sources)
}

/// The user's files of a project.
pub(super) fn files(project: &Project) -> Vec<PathBuf> {
    let own = project.sources.files().filter(|(id, _)| project.is_written(*id));
    own.map(|(id, _)| project.path(id).to_path_buf()).collect()
}

/// The `ansatz` command.
pub(super) struct Compiler;

impl Host for Compiler {
    fn call(&self, command: &str, model: &Path) -> String {
        format!("ansatz {command} {}", quoted(model))
    }

    fn call_resume(&self) -> String {
        "ansatz resume".to_string()
    }

    fn open(&self, model: &Path, settings: &[(String, String)]) -> Result<Box<dyn Network>, Failure> {
        if let Ok(Some(_)) = contents::open(model) {
            let name = shown(model);
            let words =
                format!("{name} is a trainer: call it to go on with its run, or name the model file: `--model FILE`");
            return Err(Failure::Problem(words));
        }
        Ok(Box::new(Compiled { training: training(model, settings)? }))
    }
}

/// A checked `train` item.
struct Compiled {
    training: Resolved,
}

impl Network for Compiled {
    fn settings(&self) -> &Training {
        &self.training.settings
    }

    fn sources(&self) -> &SourceMap {
        &self.training.project.sources
    }

    fn files(&self) -> Vec<PathBuf> {
        files(&self.training.project)
    }

    fn warn(&self, dataset: &Dataset) -> super::Outcome {
        let warnings = model::warnings(&self.training, &dataset.fields, Some(dataset.train.len()));
        open::report(&warnings, self.sources())
    }

    fn artifact(
        &self,
        fields: &[FieldInfo],
        steps: &[(Purpose, usize)],
        gradient_norms: bool,
        platform: Platform,
    ) -> Result<Artifact, Failure> {
        let made = pipeline::artifact(&self.training, fields, steps, gradient_norms, &*backend(platform));
        open::unwrap(made, self.sources())
    }

    fn device(&self, processor: Processor, profile: bool) -> Result<Box<dyn Device>, Failure> {
        Ok(match processor {
            Processor::Cpu(level, threads) => {
                let tuning = Cache::of_user().map(|cache| cache.load(level, threads)).unwrap_or_default();
                Box::new(code::device(Options { level, profile, tuning }, threads)?)
            }
            Processor::Cuda => Box::new(compile::device(profile, Images::of_user())?),
        })
    }

    fn levels(&self) -> &[Level] {
        &Level::ALL
    }

    fn about(&self, fields: &[FieldInfo]) -> About {
        about::about(&self.training, fields)
    }

    fn reading(&self) -> Result<Reading, Failure> {
        let fields = open::unwrap(data::fields(&self.settings().data), self.sources())?;
        let predicted = model::prediction(&self.training, self.settings().batch, &fields);
        Ok(open::unwrap(predicted, self.sources())?.reading)
    }

    fn watched(&self, rows: usize, persistent: &Persistent, platform: Platform) -> Option<Watched> {
        let fields = data::fields(&self.settings().data).ok()?;
        pipeline::watched(&self.training, &fields, rows, persistent, &*backend(platform)).ok()
    }
}
