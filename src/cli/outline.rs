//! What `plan`, `tune`, `grad` and `dump` share: a model file with its settings and the sizes that its data item declares.
//!
//! Input: a path and settings of the command line. Output: an [`Outline`]. Invariant: no file of the data is opened; only
//! the number of samples is unknown.

use super::compiled::{self, ModelFile};
use super::{Failure, open};
use crate::console::Platform;
use crate::kernel::{Persistent, Program};
use crate::model::Resolved;
use crate::pipeline;
use crate::runtime::data;
use crate::schedule;
use crate::settings::FieldInfo;
use crate::source::SourceMap;

/// A model file without its data.
pub(super) struct Outline {
    /// The `train` item.
    pub training: Resolved,
    /// The data's fields after preparation.
    pub fields: Vec<FieldInfo>,
}

impl Outline {
    /// Reads the file and its `train` item.
    pub(super) fn open(model: &ModelFile) -> Result<Self, Failure> {
        let training = compiled::training(&model.file, &model.set)?;
        let fields = open::unwrap(data::fields(&training.settings.data), &training.project.sources)?;
        Ok(Self { training, fields })
    }

    /// The texts of the file and all it uses.
    pub(super) fn sources(&self) -> &SourceMap {
        &self.training.project.sources
    }

    /// The training step for full batches, or inference on one, planned for a platform.
    pub(super) fn program(&self, inference: bool, platform: Platform) -> Result<Program, Failure> {
        let (training, sources) = (&self.training, self.sources());
        let backend = compiled::backend(platform);
        let train = pipeline::training_graph(training, training.settings.batch, &self.fields, false);
        let train = open::unwrap(train, sources)?;
        let persistent = Persistent::of(&train);
        if !inference {
            return Ok(schedule::plan(&train, &persistent, &*backend));
        }
        let graph = pipeline::prediction_graph(training, training.settings.batch, &self.fields);
        Ok(schedule::plan(&open::unwrap(graph, sources)?, &persistent, &*backend))
    }
}
