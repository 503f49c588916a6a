//! What a training tells of itself beside its figures: what it is about, how it ended, and the report.
//!
//! Input: a session with its trainer; the end of a run. Output: `about.json`, `result.json` and `report.html` in the run folder.
//! Invariant: what cannot be written here is told and ends nothing; a run is worth more than its report.

use std::path::{Path, PathBuf};

use crate::eval;
use crate::options::Machine;
use crate::runtime::about::{About, Classes, Ended, Kernel, Session as Process, Story};
use crate::runtime::figures::Figures;
use crate::runtime::report::page;
use crate::runtime::train::{self, Weights};
use crate::runtime::trainer::Trainer;
use crate::session::Session;
use crate::settings::SplitName;
use crate::{Failure, kernel};

/// More classes than this make no table that anybody reads.
const MOST_CLASSES: usize = 500;

/// The story of a run in a folder.
pub(crate) struct Watch {
    folder: PathBuf,
    machine: Machine,
}

impl Watch {
    /// Notes what the run is about and that this process works on it.
    pub(crate) fn begin(folder: &Path, session: &Session, trainer: &Trainer, machine: &Machine) -> Self {
        let about = about(session, trainer);
        let process = Process::of_process(trainer.level(), machine.threads(), trainer.position().step);
        tell("what the run is about", Story::begin(folder, about, process).map_err(Failure::from));
        Self { folder: folder.to_path_buf(), machine: machine.clone() }
    }

    /// Notes how a run ended before its last step, in words, and writes the report.
    pub(crate) fn stopped(&self, how: &str, step: u64) {
        self.write(&Ended { how: how.to_string(), step, ..Ended::default() });
    }

    /// Notes how a run was completed, with its final figures, and writes the report; says where that is.
    pub(crate) fn complete(
        &self,
        session: &Session,
        step: u64,
        weights: &Weights,
        figures: Option<(SplitName, &Figures)>,
    ) -> Option<PathBuf> {
        let mut ended = Ended { how: "complete".into(), complete: true, step, ..Ended::default() };
        if let Weights::Best { figure, value, step } = weights {
            ended.best = Some((figure.clone(), *value, *step));
        }
        if let Some((split, figures)) = figures {
            ended.measured(split.as_str(), figures);
            ended.classes = tell("which classes are taken for which", self.classes(session)).flatten();
        }
        self.write(&ended)
    }

    /// Which classes the weights of the run take for which over the final split, where they tell classes apart.
    fn classes(&self, session: &Session) -> Result<Option<Classes>, Failure> {
        let Some((_, split)) = train::final_split(&session.dataset) else { return Ok(None) };
        if !eval::tells_classes_apart(session)? {
            return Ok(None);
        }
        let mut trainer = session.predictor(&self.machine)?;
        trainer.load_weights(&self.folder.join("weights.safetensors"))?;
        let confusion = eval::confusion(session, &mut trainer, split, MOST_CLASSES)?;
        Ok(confusion.map(|confusion| Classes {
            words: confusion.words().to_vec(),
            counts: confusion.rows().into_iter().map(<[u64]>::to_vec).collect(),
        }))
    }

    fn write(&self, ended: &Ended) -> Option<PathBuf> {
        tell("how the run ended", ended.write(&self.folder).map_err(Failure::from));
        tell("the report", page::write(&self.folder).map_err(Failure::from))
    }
}

/// What was made, or nothing and a warning.
fn tell<T>(what: &str, made: Result<T, Failure>) -> Option<T> {
    match made {
        Ok(made) => Some(made),
        Err(Failure::Problem(words)) => {
            eprintln!("warning: {what} cannot be noted: {words}");
            None
        }
        // Findings have been printed; a signal ends nothing here.
        Err(Failure::Findings | Failure::Signal(_)) => None,
    }
}

/// What the compiler knows of the run, with what follows from its data and its steps.
fn about(session: &Session, trainer: &Trainer) -> About {
    let report = kernel::report::report(trainer.program(), session.sources());
    let memory = [
        ("parameters", report.param_bytes),
        ("states", report.state_bytes),
        ("inputs and outputs", report.exchange_bytes),
        ("temporaries", report.temporary_bytes),
        ("all", report.arena_bytes),
        ("and each thread", report.local_bytes),
    ];
    let kernels = report.kernels.into_iter().map(|kernel| Kernel {
        name: kernel.name,
        shape: kernel.shape,
        place: kernel.place,
        flops: kernel.flops,
        bytes: kernel.bytes,
    });
    About {
        data: session.dataset.describe(),
        parameters: trainer.parameter_count() as u64,
        memory: memory
            .iter()
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(name, bytes)| (name.to_string(), *bytes as u64))
            .collect(),
        kernels: kernels.collect(),
        ..session.network.about(&session.dataset.fields)
    }
}
