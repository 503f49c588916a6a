//! The network that a trainer carries.
//!
//! Input: [`Contents`] and settings. Output: a [`Network`] for the console's commands. Invariant: a setting that is compiled
//! in is never taken for another one: it is refused unless it says what is carried.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::artifact::{Artifact, Purpose, Reading, Watched};
use crate::console::findings::quoted;
use crate::console::{Failure, Host, Network, Outcome, Platform, Processor};
use crate::contents::{Carrier, Contents};
use crate::cpu::{Cpu, found_in};
use crate::cuda;
use crate::device::Device;
use crate::kernel::{Persistent, Program};
use crate::runtime::about::About;
use crate::runtime::data::{self, Dataset};
use crate::settings::{FieldInfo, Length, SETTING_HEADS, TRAIN_KEYS, Training};
use crate::source::SourceMap;
use ansatz_compute::machine::Level;
use ansatz_program::diagnostics::suggest::nearest;

/// A trainer as the user has called it.
pub struct Trainer {
    /// As the shell was told.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// The file's directory.
    pub carrier: Rc<Carrier<'static>>,
    /// The run.
    pub contents: Rc<Contents>,
}

impl Trainer {
    /// Where data are looked for: where they lay from the trainer when it was built, and beside it.
    fn places(&self) -> [PathBuf; 2] {
        let own = self.path.parent().unwrap_or(Path::new("."));
        [own.join(&self.contents.data_root), own.to_path_buf()]
    }

    /// Where the data lie if nobody says it: the first of the places that has them.
    fn data_folder(&self) -> (PathBuf, PathBuf) {
        let [root, own] = self.places();
        let spec = &self.contents.artifact.training.data;
        // The folder alone says nothing: `..` is there wherever the trainer is.
        match data::lies_at(spec, &root, &spec.folder) {
            true => (root, spec.folder.clone()),
            false => (own, PathBuf::new()),
        }
    }
}

impl Host for Trainer {
    fn call(&self, command: &str, _: &Path) -> String {
        format!("{} {command}", quoted(Path::new(&self.name)))
    }

    fn call_resume(&self) -> String {
        self.call("resume", &self.path)
    }

    fn matters(&self, key: &str) -> bool {
        // How weights were trained is compiled in, and is of no use to what evaluates them.
        let key = bare(key);
        let head = key.split('.').next().unwrap_or(key);
        !["optimizer", "schedule", "batch", "length", "clip", "keep", "save", "not_finite"].contains(&head)
    }

    fn open(&self, _: &Path, settings: &[(String, String)]) -> Result<Box<dyn Network>, Failure> {
        let mut training = self.contents.artifact.training.clone();
        let is_folder = |(key, _): &(String, String)| key == "data.folder";
        training.data.packed = match settings.iter().any(is_folder) {
            true => None,
            false => self.carrier.data()?.map(Arc::new),
        };
        let is_placed = training.data.packed.is_some() || training.overrides.iter().any(is_folder);
        if !is_placed {
            (training.data.root, training.data.folder) = self.data_folder();
        }
        for (key, value) in settings {
            set(&mut training, key, value).map_err(Failure::Problem)?;
        }
        let named = settings.iter().rev().find(|setting| is_folder(setting));
        let missing = match named {
            Some((_, folder)) => format!("the data are looked for in {folder}, which is what `--data` names"),
            None => {
                let [root, own] = self.places();
                let folders = match is_placed {
                    true => vec![training.data.root.clone()],
                    false => vec![root.join(&self.contents.artifact.training.data.folder), own],
                };
                let folders: Vec<String> = folders.iter().map(|path| resolved(path).display().to_string()).collect();
                format!("name their folder with `--data FOLDER`; they were looked for in {}", folders.join(" and in "))
            }
        };
        Ok(Box::new(Carried {
            training,
            missing,
            carrier: self.carrier.clone(),
            contents: self.contents.clone(),
            levels: self.carrier.levels(),
        }))
    }
}

/// The folder without `..`, where it is there.
fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Of `train.batch` and `batch` one name.
fn bare(key: &str) -> &str {
    key.strip_prefix("train.").unwrap_or(key)
}

/// Puts a setting in the place of the carried one.
fn set(training: &mut Training, key: &str, value: &str) -> Result<(), String> {
    match bare(key) {
        "length" => {
            training.length = length(value)
                .ok_or_else(|| format!("`{key}={value}`: a length is such as `5 epochs` or `1000 steps`"))?;
        }
        "seed" => {
            training.seed = value.parse().map_err(|_| format!("`{key}={value}`: a seed is a whole number"))?;
        }
        "drop_last" => {
            training.drop_last =
                value.parse().map_err(|_| format!("`{key}={value}`: this is neither true nor false"))?;
        }
        "data.folder" => {
            (training.data.root, training.data.folder) = (value.into(), PathBuf::new());
        }
        bare_key => {
            let built = training.overrides.iter().rev().find(|(known, _)| bare(known) == bare_key);
            return match built {
                Some((_, known)) if known == value => Ok(()),
                Some((_, known)) => Err(format!("`{key}={value}`: this trainer was built with {key}={known}")),
                None if !is_setting(bare_key) => Err(unknown(key)),
                None => Err(format!(
                    "`{key}` is compiled into this trainer; build another with `ansatz build --set {key}={value}`. A \
                     trainer takes train.length, train.seed, train.drop_last and data.folder"
                )),
            };
        }
    }
    training.overrides.push((key.to_string(), value.to_string()));
    Ok(())
}

/// Whether a key is one of settings, as far as that shows without the model.
fn is_setting(bare_key: &str) -> bool {
    match bare_key.split_once('.') {
        Some((head, _)) => SETTING_HEADS.contains(&head),
        None => TRAIN_KEYS.contains(&bare_key),
    }
}

/// Words for a key that no setting has.
fn unknown(key: &str) -> String {
    let near = match key.split_once('.') {
        Some((head @ "train", name)) => nearest(name, TRAIN_KEYS).map(|near| format!("{head}.{near}")),
        Some((head, name)) => nearest(head, SETTING_HEADS).map(|near| format!("{near}.{name}")),
        None => nearest(key, TRAIN_KEYS).map(|near| format!("train.{near}")),
    };
    match near {
        Some(near) => format!("there is no setting `{key}`; did you mean `{near}`?"),
        None => format!(
            "there is no setting `{key}`; a trainer takes train.length, train.seed, train.drop_last and data.folder"
        ),
    }
}

/// `5 epochs`, `1000 steps`.
fn length(text: &str) -> Option<Length> {
    let (number, unit) = text.trim().split_once(char::is_whitespace)?;
    match unit.trim() {
        "epochs" | "epoch" => {
            let epochs: f64 = number.parse().ok()?;
            (epochs.is_finite() && epochs > 0.0).then_some(Length::Epochs(epochs))
        }
        "steps" | "step" => number.parse().ok().filter(|steps| *steps > 0).map(Length::Steps),
        _ => None,
    }
}

/// The carried `train` item with settings in place of its own.
struct Carried {
    training: Training,
    /// What helps where its data are missing.
    missing: String,
    carrier: Rc<Carrier<'static>>,
    contents: Rc<Contents>,
    levels: Vec<Level>,
}

impl Network for Carried {
    fn settings(&self) -> &Training {
        &self.training
    }

    fn sources(&self) -> &SourceMap {
        &self.contents.artifact.sources
    }

    fn missing_data(&self) -> Option<String> {
        Some(self.missing.clone())
    }

    fn warn(&self, _: &Dataset) -> Outcome {
        // What is suspicious about the model was told when it was built.
        Ok(())
    }

    fn artifact(
        &self,
        fields: &[FieldInfo],
        steps: &[(Purpose, usize)],
        gradient_norms: bool,
        _: Platform,
    ) -> Result<Artifact, Failure> {
        if gradient_norms {
            return Err(Failure::Problem("norms of gradients are not compiled into a trainer".into()));
        }
        let carried = &self.contents.artifact;
        let mut artifact = Artifact {
            training: self.training.clone(),
            fields: fields.to_vec(),
            steps: Default::default(),
            ..carried.clone()
        };
        for key in steps {
            match (carried.steps.get(key), key) {
                (Some(step), _) => {
                    artifact.steps.insert(*key, step.clone());
                }
                // A short batch is evaluated sample by sample.
                (None, (Purpose::Evaluate, rows)) => match carried.steps.get(&(Purpose::Evaluate, 1)) {
                    Some(step) => {
                        artifact.steps.insert((Purpose::Evaluate, 1), step.clone());
                    }
                    None => {
                        return Err(Failure::Problem(format!("this trainer cannot evaluate {rows} samples at once")));
                    }
                },
                (None, (Purpose::Train, rows)) => return Err(Failure::Problem(self.no_step(*rows))),
                (None, (Purpose::Predict, _)) => {
                    return Err(Failure::Problem("this trainer has no step that predicts".into()));
                }
            }
        }
        Ok(artifact)
    }

    fn device(&self, processor: Processor, profile: bool) -> Result<Box<dyn Device>, Failure> {
        if profile {
            return Err(Failure::Problem(
                "a trainer does not measure its kernels; `ansatz train --profile` does".into(),
            ));
        }
        let carrier = self.carrier.clone();
        let Processor::Cpu(level, threads) = processor else {
            let steps = cuda::found_in(self.carrier.gpu_codes()?);
            let compile = move |program: &Program, arch| {
                steps(program, arch).or_else(|_| cuda::found_in(carrier.watched_gpu_codes()?)(program, arch))
            };
            // SAFETY: as below.
            let device = unsafe { cuda::Gpu::new(profile, Box::new(compile)) }?;
            return Ok(Box::new(device));
        };
        let steps = found_in(self.carrier.codes(level)?, level);
        // A watched step is wanted at most once, when a run fails.
        let compile = move |program: &Program| {
            steps(program).or_else(|_| found_in(carrier.watched_codes(level)?, level)(program))
        };
        // SAFETY: the sections' checksums hold, and whoever starts a trainer vouches for it: it is the program itself.
        let device = unsafe { Cpu::new(level, threads, Box::new(compile)) }?;
        Ok(Box::new(device))
    }

    fn platform(&self) -> Platform {
        self.carrier.platform()
    }

    fn admit(&self, platform: Platform) -> Outcome {
        let words = match (self.carrier.platform(), platform) {
            (Platform::Cpu, Platform::Cuda) => "the processor alone: build another with `ansatz build --device cuda`",
            (Platform::Cuda, Platform::Cpu) => "GPUs alone: build another without `--device cuda`",
            (Platform::Cpu, Platform::Cpu) | (Platform::Cuda, Platform::Cuda) => return Ok(()),
        };
        Err(Failure::Problem(format!("this trainer has code for {words}")))
    }

    fn levels(&self) -> &[Level] {
        &self.levels
    }

    fn about(&self, _: &[FieldInfo]) -> About {
        let About { settings, seed, .. } = About::of(&self.training);
        About { settings, seed, ..self.contents.about.clone() }
    }

    fn reading(&self) -> Result<Reading, Failure> {
        Ok(self.contents.reading.clone())
    }

    fn watched(&self, rows: usize, _: &Persistent, _: Platform) -> Option<Watched> {
        self.carrier.watched().ok()?.into_iter().find(|(known, _)| *known == rows).map(|(_, watched)| watched)
    }
}

impl Carried {
    /// Words for a number of samples that no step trains on.
    fn no_step(&self, rows: usize) -> String {
        let batch = self.training.batch;
        format!(
            "the last batch of an epoch has {rows} samples, for which this trainer has no step: leave it out with \
             `--drop-last`, use a multiple of {batch} samples, or build a trainer with these data"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_epochs_or_steps() {
        assert_eq!(length("5 epochs"), Some(Length::Epochs(5.0)));
        assert_eq!(length("0.5 epochs"), Some(Length::Epochs(0.5)));
        assert_eq!(length(" 70  steps"), Some(Length::Steps(70)));
        for wrong in
            ["5", "epochs", "-1 epochs", "0 epochs", "nan epochs", "0 steps", "1.5 steps", "5 minutes", "5 epochs more"]
        {
            assert_eq!(length(wrong), None, "{wrong}");
        }
    }
}
