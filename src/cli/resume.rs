//! `ansatz resume`: go on with an interrupted run.

use std::path::PathBuf;

use clap::Args;

use super::session::{Machine, Measures, Session};
use super::{Failure, train};
use crate::pipeline::Purpose;
use crate::runtime::checkpoint;
use crate::runtime::record::{Record, StepLog};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The run folder
    run: PathBuf,
    /// Append a JSON line for each step
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Save and stop when this many steps are done
    #[arg(long, value_name = "STEPS")]
    stop_after: Option<u64>,
    #[command(flatten)]
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let folder = &arguments.run;
    let command = Record::command(folder)
        .map_err(|error| Failure::Problem(format!("{} is not the folder of a run: {error}", folder.display())))?;
    let path = folder.join("last.safetensors");
    if !path.exists() {
        let words = format!("{} has no checkpoint yet; start again with `ansatz train`", folder.display());
        return Err(Failure::Problem(words));
    }
    let session = Session::open(&command.model, &command.overrides)?;
    session.hold_data(&[Purpose::Train, Purpose::Evaluate])?;
    let mut trainer = session.trainer(&arguments.machine, Measures::default())?;
    let (tensors, note) = checkpoint::load(&path)?;
    let Some(position) = note.position else {
        return Err(Failure::Problem(format!("{} holds weights, not a place in a run", path.display())));
    };
    if note.recipe.map(|recipe| recipe.model) != session.note(&trainer, command.no_shuffle).recipe.map(|own| own.model)
    {
        let words = "was written by another version of the model file; to start from its weights use `--init`";
        return Err(Failure::Problem(format!("{} {words}", path.display())));
    }
    trainer.restore(&path, tensors, position).map_err(|error| session.trainer_failure(error))?;
    let step = trainer.position().step;
    if step >= session.extent().total_steps {
        println!("the run is complete after {step} steps; nothing is left to do");
        return Ok(());
    }
    eprintln!("going on after step {step}");
    let mut record = Record::open(folder, step)?;
    let log = arguments.log.as_deref().map(|path| StepLog::open(path, true)).transpose()?;
    let options =
        train::Options { log, log_gradients: false, no_shuffle: command.no_shuffle, stop_after: arguments.stop_after };
    train::go(&session, &mut trainer, &mut record, options)
}
