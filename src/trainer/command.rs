//! The command line of a trainer.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::carried::Trainer;
use crate::console::failure::{self, EXIT_CODES};
use crate::console::{Failure, Outcome, eval, predict, resume, train};
use crate::contents::Carrier;
use crate::info;
use ansatz_program::diagnostics::Refusal;

#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train the network
    Train(On<train::Arguments>),
    /// Go on with an interrupted run
    Resume(resume::Arguments),
    /// Loss and metrics of trained weights
    Eval(On<eval::Arguments>),
    /// What trained weights say of samples: classes, probabilities, numbers
    Predict(On<predict::Arguments>),
    /// What this trainer is: its model, its data, its plan
    Info(info::Arguments),
}

/// A command on data.
#[derive(Debug, Args)]
struct On<A: Args> {
    /// Where the data lie, in place of where they lay when this trainer was built, or beside it
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    #[command(flatten)]
    arguments: A,
}

/// Runs the command line of this process, whose file is `path`.
pub(crate) fn main(path: &Path, carrier: Result<Carrier<'static>, Refusal>) -> ExitCode {
    failure::begin();
    let name = std::env::args_os().next().map_or_else(|| path.to_path_buf(), PathBuf::from);
    let trainer = || -> Result<Trainer, Refusal> {
        let carrier = Rc::new(carrier?);
        let contents = Rc::new(carrier.contents()?);
        Ok(Trainer { name: name.display().to_string(), path: path.to_path_buf(), carrier, contents })
    };
    let trainer = match trainer() {
        Ok(trainer) => trainer,
        Err(refusal) => return failure::finish(Err(refusal.into()), false),
    };
    let settings = &trainer.contents.artifact.training;
    let about = format!(
        "Trains {} on {}, compiled by ansatz {}",
        settings.model,
        settings.data.name,
        env!("CARGO_PKG_VERSION")
    );
    let line = Arguments::command().about(about);
    let command = Arguments::from_arg_matches(&line.get_matches()).unwrap_or_else(|error| error.exit()).command;
    let trains = matches!(command, Command::Train(_) | Command::Resume(_));
    failure::finish(run(&trainer, path, command), trains)
}

fn run(trainer: &Trainer, path: &Path, command: Command) -> Outcome {
    match command {
        Command::Train(mut on) => {
            placed(&mut on.arguments.set, on.data)?;
            train::run(trainer, path, &on.arguments)
        }
        Command::Resume(arguments) => resume::run(trainer, Some(path), &arguments),
        Command::Eval(mut on) => {
            placed(&mut on.arguments.set, on.data)?;
            eval::run(trainer, path, &on.arguments)
        }
        Command::Predict(mut on) => {
            placed(&mut on.arguments.set, on.data)?;
            predict::run(trainer, path, &on.arguments)
        }
        Command::Info(arguments) => info::run(trainer, &arguments),
    }
}

/// Adds the folder of the data, from the root on: a run may be resumed from another folder.
fn placed(settings: &mut Vec<(String, String)>, folder: Option<PathBuf>) -> Outcome {
    if let Some(folder) = folder {
        let folder = std::path::absolute(&folder).map_err(Failure::at(&folder))?;
        settings.push(("data.folder".to_string(), folder.display().to_string()));
    }
    Ok(())
}
