//! `ansatz resume`: go on with an interrupted run.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::host::Host;
use crate::interrupt::Interrupt;
use crate::options::Machine;
use crate::runtime::about::Ended;
use crate::runtime::checkpoint;
use crate::runtime::folder::{BEST, Found, RunFolder};
use crate::runtime::recipe::Recipe;
use crate::runtime::record::{self, Command, Record, StepLog};
use crate::runtime::trainer::Trainer;
use crate::session::{Measures, Session};
use crate::{Failure, train};

/// Options of `resume`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The run folder
    pub run: PathBuf,
    /// Go on although the data are not what the run began with
    #[arg(long)]
    pub changed_data: bool,
    /// Where the data lie, in place of where they lay
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Append a JSON line for each step
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Save and stop when this many steps are done
    #[arg(long, value_name = "STEPS")]
    pub stop_after: Option<u64>,
    /// The machine.
    #[command(flatten)]
    pub machine: Machine,
}

/// Goes on with a run. The model is where the command says, or where `model` does.
///
/// # Errors
/// As [`train::run`], and another model or data than the run's.
pub fn run(host: &dyn Host, model: Option<&Path>, arguments: &Arguments) -> crate::Outcome {
    let interrupt = Interrupt::watch().map_err(Failure::of("signals cannot be watched"))?;
    under(host, model, arguments, &interrupt)
}

/// As [`run`], where signals are watched already.
///
/// # Errors
/// As [`run`].
pub fn under(host: &dyn Host, model: Option<&Path>, arguments: &Arguments, interrupt: &Interrupt) -> crate::Outcome {
    let path = &arguments.run;
    let mut command = Record::command(path)
        .map_err(|error| Failure::Problem(format!("{} is not the folder of a run: {error}", path.display())))?;
    let model = model.map(Path::to_path_buf).or_else(|| command.find_model(path)).ok_or_else(|| {
        let words = format!("{} is not there; say where it is with `--model FILE`", command.model.display());
        Failure::Problem(words)
    })?;
    let folder = RunFolder::of_run(path)?;
    let found = newest(&folder)?;
    let recorded = found.as_ref().and_then(|found| found.note.recipe.as_ref());
    let session = Session::open(host, &model, &settings(&command, arguments.data.as_deref())?)?;
    let machine = arguments.machine.at_level_of(recorded, &*session.network);
    let mut trainer = session.trainer(&machine, Measures::default())?;
    let recipe = session.recipe(&trainer, command.no_shuffle)?;
    match found {
        Some(found) => restore(&mut trainer, found, &recipe, arguments.changed_data)?,
        None => begin(&mut trainer, &command)?,
    }
    let step = trainer.position().step;
    if step >= recipe.steps && is_complete(&folder.path) {
        println!("the run is complete after {step} steps; nothing is left to do");
        return Ok(());
    }
    if let Some(stop) = arguments.stop_after.filter(|stop| *stop <= step) {
        return Err(Failure::Problem(format!("`--stop-after {stop}`: the run stands after step {step} already")));
    }
    look_at_best(&mut trainer, &folder)?;
    eprintln!("going on after step {step}");
    interrupt.begin();
    if record::absolute(&model)? != command.model {
        command = Command::new(&model, path, command.overrides, command.no_shuffle, command.init)?;
        record::write_command(&folder, &command)?;
    }
    let log = arguments.log.as_deref().map(|path| StepLog::go_on(path, step)).transpose()?;
    let mut record = Record::open(folder, step)?;
    let options = train::Options { recipe, log, log_gradients: false, stop_after: arguments.stop_after, machine };
    train::go(host, &session, &mut trainer, &mut record, &command, options, interrupt)
}

/// The settings of a run, with its data in another folder where one is named.
fn settings(command: &Command, folder: Option<&Path>) -> Result<Vec<(String, String)>, Failure> {
    let mut settings = command.overrides.clone();
    if let Some(folder) = folder {
        settings.retain(|(key, _)| key != "data.folder");
        settings.push(("data.folder".to_string(), record::absolute(folder)?.display().to_string()));
    }
    Ok(settings)
}

/// Whether a run has done all its steps, written its weights and told its final figures.
pub(crate) fn is_complete(folder: &Path) -> bool {
    let is_ended = Ended::read(folder).is_ok_and(|ended| ended.is_some_and(|ended| ended.complete));
    is_ended && folder.join("weights.safetensors").exists()
}

/// The newest checkpoint that is whole; none where none was saved yet.
fn newest(folder: &RunFolder) -> Result<Option<Found>, Failure> {
    let (found, damaged) = folder.newest()?;
    damaged.iter().for_each(|error| eprintln!("warning: {error}"));
    if found.is_some() || damaged.is_empty() {
        return Ok(found);
    }
    let words = "has no checkpoint that is whole; with `keep = last(2)` a run keeps one more";
    Err(Failure::Problem(format!("{} {words}", folder.path.display())))
}

/// Brings the trainer to a checkpoint, if that is of the same run.
fn restore(trainer: &mut Trainer, found: Found, recipe: &Recipe, changed_data: bool) -> crate::Outcome {
    let Found { path, tensors, note } = found;
    let before = note.recipe.unwrap_or_default();
    let changes = before.changes_of_model(recipe, &trainer.changes_of_shape(&tensors)?);
    if !changes.is_empty() {
        return Err(Failure::Problem(format!(
            "{} was written by another version of the model file: {}; to start from its weights use `--init`",
            path.display(),
            changes.join("; ")
        )));
    }
    let changes = before.changes_of_data(recipe).join("; ");
    if !changes.is_empty() && !changed_data {
        return Err(Failure::Problem(format!(
            "the data are not what {} was trained on: {changes}; bring them back, or go on with `--changed-data`",
            path.display()
        )));
    }
    if !changes.is_empty() {
        eprintln!("warning: the data have changed: {changes}");
    }
    if before.level != recipe.level {
        eprintln!(
            "warning: the run was at {} and goes on at {}, so it will not end with the bits of an uninterrupted one",
            before.level, recipe.level
        );
    }
    let position = note.position.unwrap_or_default();
    Ok(trainer.restore(&path, tensors, position)?)
}

/// Forgets the best weights where they are gone: a run must not learn at its end that it cannot be finished.
fn look_at_best(trainer: &mut Trainer, folder: &RunFolder) -> crate::Outcome {
    if trainer.position().best.is_none() {
        return Ok(());
    }
    let path = folder.join(BEST);
    let problem = match checkpoint::load(&path) {
        Err(error) => error.to_string(),
        Ok((tensors, _)) => match &trainer.changes_of_shape(&tensors)?[..] {
            [] => return Ok(()),
            changes => format!("{}: {}", path.display(), changes.join("; ")),
        },
    };
    eprintln!("warning: {problem}; the best weights so far are lost, and the best of what follows takes their place");
    trainer.position_mut().best = None;
    Ok(())
}

/// A run that was killed before its first save begins again.
fn begin(trainer: &mut Trainer, command: &Command) -> crate::Outcome {
    let Some(init) = &command.init else { return Ok(()) };
    trainer.load_weights(&init.path)?;
    if trainer.content()? == init.content {
        return Ok(());
    }
    Err(Failure::Problem(format!(
        "{} is not what the run began from, and no checkpoint was saved; start again with `train`",
        init.path.display()
    )))
}
