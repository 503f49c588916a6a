//! `ansatz resume`: go on with an interrupted run.

use std::path::PathBuf;

use clap::Args;

use super::session::{Machine, Measures, Session};
use super::{Failure, train};
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
    let checkpoint = folder.join("last.safetensors");
    if !checkpoint.exists() {
        let words = format!("{} has no checkpoint yet; start again with `ansatz train`", folder.display());
        return Err(Failure::Problem(words));
    }
    let session = Session::open(&command.model, &command.overrides)?;
    let mut trainer = session.trainer(&arguments.machine, Measures::default())?;
    trainer.restore(&checkpoint).map_err(|error| session.trainer_failure(error))?;
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
