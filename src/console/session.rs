//! What the commands share: a network with its data, ready to run.

use std::path::{Path, PathBuf};

use crate::Failure;
use crate::artifact::{Purpose, Watched, wanted};
use crate::diagnostics::Refusal;
use crate::findings;
use crate::host::{Host, Network, Platform};
use crate::kernel::Persistent;
use crate::options::Machine;
use crate::progress::Progress;
use crate::runtime::data::{self, DataError, Dataset, Preparation, Split};
use crate::runtime::recipe::Recipe;
use crate::runtime::trainer::{Extent, Trainer};
use crate::settings::Training;
use crate::source::SourceMap;

/// What a trainer measures beside the loss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measures {
    /// The norm of each parameter's gradient.
    pub gradient_norms: bool,
    /// The time of each kernel.
    pub profile: bool,
}

/// `KEY=VALUE`.
///
/// # Errors
/// A text without `=`, and a folder that cannot be named from the root.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let (key, value) = (key.trim(), value.trim());
    // A run may be resumed from another folder.
    let value = match key {
        "data.folder" => std::path::absolute(value).map_err(|error| error.to_string())?.display().to_string(),
        _ => value.to_string(),
    };
    Ok((key.to_string(), value))
}

/// A network with its data.
pub struct Session {
    /// The model file as the user gave it.
    pub path: PathBuf,
    /// The network.
    pub network: Box<dyn Network>,
    /// Its data.
    pub dataset: Dataset,
}

impl Session {
    /// Opens the network with these settings, and its data.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn open(host: &dyn Host, path: &Path, settings: &[(String, String)]) -> Result<Self, Failure> {
        Self::prepared(host, path, settings, None)
    }

    /// As [`Session::open`], with what an earlier run measured where that is known.
    pub(crate) fn prepared(
        host: &dyn Host,
        path: &Path,
        settings: &[(String, String)],
        known: Option<&Preparation>,
    ) -> Result<Self, Failure> {
        Self::with_data(host, path, settings, |network| {
            let settings = network.settings();
            data::open_with(&settings.data, settings.seed, known).map_err(data_failure(network))
        })
    }

    /// As [`Session::open`], with data from elsewhere.
    pub(crate) fn with_data(
        host: &dyn Host,
        path: &Path,
        settings: &[(String, String)],
        read: impl FnOnce(&dyn Network) -> Result<Dataset, Failure>,
    ) -> Result<Self, Failure> {
        let network = host.open(path, settings)?;
        let dataset = read(&*network)?;
        Ok(Self { path: path.to_path_buf(), network, dataset })
    }

    /// The settings of the `train` item.
    pub fn settings(&self) -> &Training {
        self.network.settings()
    }

    /// The texts of the file and all it uses.
    pub fn sources(&self) -> &SourceMap {
        self.network.sources()
    }

    /// Steps of the run.
    pub(crate) fn extent(&self) -> Extent {
        Extent::of(self.settings(), self.dataset.train.len())
    }

    /// The run's training and evaluation steps, of which those that train are loaded, with first values.
    pub(crate) fn trainer(&self, machine: &Machine, measures: Measures) -> Result<Trainer, Failure> {
        let steps = wanted::to_train(self.samples(), self.settings().batch);
        self.hold_one_batch()?;
        self.trainer_of(&steps, &[Purpose::Train], machine, measures)
    }

    /// The steps that evaluate a split and predict its samples, with first values.
    pub(crate) fn evaluator(&self, split: &Split, machine: &Machine) -> Result<Trainer, Failure> {
        let steps = wanted::to_evaluate(split.len(), self.settings().batch);
        self.trainer_of(&steps, &[Purpose::Evaluate, Purpose::Predict], machine, Measures::default())
    }

    /// The step that predicts, with first values.
    pub(crate) fn predictor(&self, machine: &Machine) -> Result<Trainer, Failure> {
        let steps = wanted::to_predict(self.settings().batch);
        self.trainer_of(&steps, &[Purpose::Predict], machine, Measures::default())
    }

    /// Samples that are trained on in an epoch, and those of the other splits.
    fn samples(&self) -> [usize; 3] {
        let [train, valid, test] = self.dataset.samples();
        [self.settings().trained(train), valid, test]
    }

    /// Refuses data of which `drop_last` leaves nothing.
    fn hold_one_batch(&self) -> Result<(), Failure> {
        let (samples, batch) = (self.dataset.train.len(), self.settings().batch);
        if self.settings().drop_last && (1..batch).contains(&samples) {
            let words =
                format!("there are {samples} samples to train on, not one batch of {batch}, and `drop_last` is true");
            return Err(Failure::Problem(words));
        }
        Ok(())
    }

    fn trainer_of(
        &self,
        steps: &[(Purpose, usize)],
        loaded: &[Purpose],
        machine: &Machine,
        measures: Measures,
    ) -> Result<Trainer, Failure> {
        let processor = machine.processor(&*self.network)?;
        let fields = &self.dataset.fields;
        let artifact = self.network.artifact(fields, steps, measures.gradient_norms, processor.platform())?;
        self.dataset.hold(&artifact.training.data, &artifact.ranges).map_err(data_failure(&*self.network))?;
        let device = self.network.device(processor, measures.profile)?;
        Ok(Trainer::new(artifact, device, self.extent(), machine.threads(), loaded)?)
    }

    /// The training step for so many samples, opened up to see what is not finite.
    pub(crate) fn watched(&self, rows: usize, persistent: &Persistent, platform: Platform) -> Option<Watched> {
        self.network.watched(rows, persistent, platform)
    }

    /// What the run is made from.
    pub(crate) fn recipe(&self, trainer: &Trainer, no_shuffle: bool) -> Result<Recipe, Failure> {
        Ok(Recipe {
            model: trainer.artifact().meaning.clone(),
            lines: self.settings().lines.clone(),
            steps: self.extent().total_steps,
            data: self.dataset.hashes(),
            samples: self.dataset.samples(),
            settings: self.settings().overrides.clone(),
            seed: self.settings().seed,
            no_shuffle,
            drop_last: self.settings().drop_last,
            level: trainer.level(),
        })
    }

    /// Progress from where the trainer stands; says what is about to run.
    pub(crate) fn progress(&self, trainer: &Trainer) -> Progress {
        let extent = self.extent();
        eprintln!(
            "{}: {} parameters, {}; {} steps of {}",
            self.settings().model,
            crate::progress::count(trainer.parameter_count() as f64),
            self.dataset.describe(),
            extent.total_steps,
            self.settings().batch
        );
        Progress::new(extent, trainer.position().step)
    }
}

/// Why there is no new folder below `runs`, and the way out.
pub(crate) fn elsewhere(refusal: Refusal) -> Failure {
    Failure::Problem(format!("{refusal}; name a folder for it with `--run FOLDER`"))
}

/// Prints findings of an item, or words about one of its files.
pub(crate) fn data_failure(network: &dyn Network) -> impl Fn(DataError) -> Failure {
    |mut error| {
        if let DataError::File { error, .. } = &mut error
            && error.hint.as_deref() == Some(data::RELATIVE)
            && let Some(words) = network.missing_data()
        {
            error.hint = Some(words);
        }
        findings::report(&error.into_diagnostics(), network.sources()).err().unwrap_or(Failure::Findings)
    }
}
