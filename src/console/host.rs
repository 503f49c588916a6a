//! Who gives the networks that commands run.
//!
//! Input: a model file's path and settings. Output: a [`Network`]. Invariant: what a network gives is the compiler's own
//! work, made now or carried along.

use std::path::{Path, PathBuf};

use crate::artifact::{Artifact, Purpose, Reading, Watched};
use crate::device::Device;
use crate::kernel::Persistent;
use crate::machine::Level;
use crate::runtime::about::About;
use crate::runtime::data::Dataset;
use crate::settings::{FieldInfo, Training};
use crate::source::SourceMap;
use crate::{Failure, Outcome};

/// Kinds of devices: a program is made for one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Platform {
    /// The processor of this machine.
    #[default]
    Cpu,
    /// A GPU of NVIDIA's.
    Cuda,
}

/// What steps run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// Threads of this machine's processor with the instructions of a level.
    Cpu(Level, usize),
    /// The first GPU.
    Cuda,
}

impl Processor {
    /// What programs for it are made for.
    pub fn platform(self) -> Platform {
        match self {
            Processor::Cpu(..) => Platform::Cpu,
            Processor::Cuda => Platform::Cuda,
        }
    }
}

/// The program that the user has called.
pub trait Host {
    /// How the user calls a command of this program on a model file: `ansatz eval net.ansatz`.
    fn call(&self, command: &str, model: &Path) -> String;

    /// How the user goes on with a run: `ansatz resume`.
    fn call_resume(&self) -> String;

    /// Whether a setting of a run matters to its weights here, once they are trained.
    fn matters(&self, _key: &str) -> bool {
        true
    }

    /// The `train` item of a model file with these settings in place of its own.
    ///
    /// # Errors
    /// What is wrong with the file or the settings, printed or in words.
    fn open(&self, model: &Path, settings: &[(String, String)]) -> Result<Box<dyn Network>, Failure>;
}

/// The `train` item of a model file, ready for data.
pub trait Network {
    /// Its settings, its data item among them.
    fn settings(&self) -> &Training;

    /// The texts of the file and all it uses.
    fn sources(&self) -> &SourceMap;

    /// What helps where a file of its data is missing, if it knows that better than the data do.
    fn missing_data(&self) -> Option<String> {
        None
    }

    /// The files that it is made of, as far as they were read.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Prints what is suspicious about a run on these data.
    ///
    /// # Errors
    /// A finding that is an error.
    fn warn(&self, dataset: &Dataset) -> Outcome;

    /// Its steps on a platform for data with these fields; with `gradient_norms` training steps measure those too.
    ///
    /// # Errors
    /// Findings of the model for these sizes, or a step that is not at hand.
    fn artifact(
        &self,
        fields: &[FieldInfo],
        steps: &[(Purpose, usize)],
        gradient_norms: bool,
        platform: Platform,
    ) -> Result<Artifact, Failure>;

    /// A device for its steps; with `profile` it measures each kernel.
    ///
    /// # Errors
    /// A level or a measurement for which no code is at hand; no memory; no GPU.
    fn device(&self, processor: Processor, profile: bool) -> Result<Box<dyn Device>, Failure>;

    /// What it runs on where nobody says it.
    fn platform(&self) -> Platform {
        Platform::default()
    }

    /// Whether it runs on a platform.
    ///
    /// # Errors
    /// That it has no code for it, and the way out.
    fn admit(&self, _platform: Platform) -> Outcome {
        Ok(())
    }

    /// The instruction sets that there is code for.
    fn levels(&self) -> &[Level];

    /// What the compiler tells people of it, for data with these fields.
    fn about(&self, _fields: &[FieldInfo]) -> About {
        About::of(self.settings())
    }

    /// How its outputs are read.
    ///
    /// # Errors
    /// Findings of the model.
    fn reading(&self) -> Result<Reading, Failure>;

    /// The training step for so many samples, opened up to see what is not finite; none where it is not at hand.
    fn watched(&self, rows: usize, persistent: &Persistent, platform: Platform) -> Option<Watched>;
}
