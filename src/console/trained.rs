//! A file of weights with what the run that made it says: settings, seed, preparation.
//!
//! Input: `--weights` and the settings of the command line. Output: a session on the data as that run saw them.
//! Invariant: nothing is measured on new data; where the command line or the model file contradicts the run, standard
//! error says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::host::Host;
use crate::runtime::checkpoint::{self, Note, Tensor};
use crate::runtime::data::{self, DataError, Preparation};
use crate::runtime::trainer::Trainer;
use crate::session::{Session, data_failure};
use crate::settings::Training;

/// See the module's text.
pub struct Trained {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor<'static>>,
    note: Note,
}

impl Trained {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let (tensors, note) = checkpoint::load(path)?;
        Ok(Self { path: path.to_path_buf(), tensors, note })
    }

    /// The settings of the run that matter, then those of the command line, which win.
    fn settings(&self, host: &dyn Host, given: &[(String, String)]) -> Vec<(String, String)> {
        let Some(recipe) = &self.note.recipe else { return given.to_vec() };
        let bare = |key: &str| key.strip_prefix("train.").unwrap_or(key).to_owned();
        let mut settings = recipe.settings.clone();
        settings.retain(|(key, _)| host.matters(key));
        if !settings.iter().any(|(key, _)| bare(key) == "seed") {
            settings.push(("train.seed".into(), recipe.seed.to_string()));
        }
        let set = |(key, value): &(String, String)| format!("--set {key}={value}");
        for setting in given {
            let run = settings.iter().rev().find(|(key, value)| bare(key) == bare(&setting.0) && *value != setting.1);
            if let Some(run) = run {
                eprintln!("note: {} in place of the run's {}", set(setting), set(run));
            }
        }
        settings.retain(|(key, _)| !given.iter().any(|(other, _)| bare(other) == bare(key)));
        settings.extend_from_slice(given);
        settings
    }

    /// The model file on its own data, prepared as in the run.
    pub fn session(&self, host: &dyn Host, file: &Path, given: &[(String, String)]) -> Result<Session, Failure> {
        let session = Session::prepared(host, file, &self.settings(host, given), self.note.preparation.as_ref())?;
        let known = self.note.preparation.as_ref();
        if known.is_some_and(|known| known.division != session.dataset.preparation.division) {
            eprintln!(
                "warning: the data are not divided as in the run that made {}: what it trained on may be among these",
                self.path.display()
            );
        }
        Ok(session)
    }

    /// The model file on new data; the item's own files are read only if the weights come without a preparation.
    pub fn session_on(
        &self,
        host: &dyn Host,
        file: &Path,
        given: &[(String, String)],
        input: &Path,
    ) -> Result<Session, Failure> {
        Session::with_data(host, file, &self.settings(host, given), |network| {
            let training = network.settings();
            let failure = data_failure(network);
            let known = match &self.note.preparation {
                Some(known) => known.clone(),
                None => self.preparation_of(training).map_err(&failure)?,
            };
            let input = data::open_input(&training.data, &known, input, &network.reading()?.fields);
            let input = input.map_err(|error| match error {
                DataError::File { error, .. } => Failure::Problem(error.to_string()),
                DataError::Spec(_) => failure(error),
            })?;
            input.remarks.iter().for_each(|remark| eprintln!("note: {remark}"));
            Ok(input.dataset)
        })
    }

    /// For weights that say nothing of their preparation: the item's own, measured on its training split.
    fn preparation_of(&self, training: &Training) -> Result<Preparation, DataError> {
        let words = "says nothing of a preparation";
        match (data::open(&training.data, training.seed), Preparation::given(&training.data)?) {
            (Ok(dataset), _) => {
                eprintln!("note: {} {words}: it is measured on the training split of the item", self.path.display());
                Ok(dataset.preparation)
            }
            (Err(_), Some(given)) => Ok(given),
            (Err(error), None) => {
                eprintln!("note: {} {words}: the item's own data are needed", self.path.display());
                Err(error)
            }
        }
    }

    /// Gives a trainer these weights.
    pub fn give(self, mut trainer: Trainer) -> Result<Trainer, Failure> {
        trainer.take_weights(&self.path, self.tensors)?;
        Ok(trainer)
    }
}
