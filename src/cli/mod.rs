//! The command line: one file per command.
//!
//! Input: arguments. Output: text on standard output, findings and progress on standard error, an exit code:
//! 0 done, 1 findings in the user's files, 2 could not run, 128 and the signal's number where a signal ended a training.
//! Invariants: colours and bars only on a terminal; a closed pipe ends no command.

mod about;
mod build;
mod check;
mod compiled;
mod completions;
mod devices;
mod dump;
mod fmt;
mod grad;
mod images;
mod new;
mod object;
mod open;
mod outline;
mod plan;
mod summary;
mod tune;
mod tuning;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::console::failure::{self, EXIT_CODES};
use crate::console::{Failure, Outcome, SaysWhere, eval, predict, report, resume, sweep, train};
use crate::cpu::code::CodegenError;
use compiled::Compiler;

/// Compile model files: check shapes, train networks, look inside the compiler.
#[derive(Debug, Parser)]
#[command(name = "ansatz", version, about, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a new model file
    New(new::Arguments),
    /// Prove shapes for all sizes and hold the file's promises
    Check(check::Arguments),
    /// Format model files in place
    Fmt(fmt::Arguments),
    /// Layers, shapes, parameters, MACs and FLOPs of a model
    Summary(summary::Arguments),
    /// Kernels and memory map of a training step
    Plan(plan::Arguments),
    /// Measure how to cut this model's products on this machine, for later runs
    Tune(tune::Arguments),
    /// The derivative of a training step as model text
    Grad(grad::Arguments),
    /// Train a model
    Train(On<train::Arguments>),
    /// Write a trainer: one executable file that trains, evaluates and predicts without a compiler; or an object for C
    Build(build::Arguments),
    /// Go on with an interrupted run
    Resume(Resume),
    /// Train with each combination of some settings
    Sweep(On<sweep::Arguments>),
    /// A page about a run, or several runs side by side
    Report(report::Arguments),
    /// Loss and metrics of trained weights
    Eval(On<eval::Arguments>),
    /// What trained weights say of samples: classes, probabilities, numbers
    Predict(On<predict::Arguments>),
    /// Print what a stage of the compiler made
    Dump(dump::Arguments),
    /// What this machine has to run on, and why not the rest
    Devices,
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

impl SaysWhere for CodegenError {}

/// A command on a model file.
#[derive(Debug, clap::Args)]
struct On<A: clap::Args> {
    /// The model file
    file: PathBuf,
    #[command(flatten)]
    arguments: A,
}

/// Options of `resume`.
#[derive(Debug, clap::Args)]
struct Resume {
    #[command(flatten)]
    arguments: resume::Arguments,
    /// Where the model file is, if it is not where it was
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    failure::begin();
    let command = Arguments::parse().command;
    let trains = matches!(command, Command::Train(_) | Command::Resume(_) | Command::Sweep(_));
    let outcome = match command {
        Command::New(arguments) => new::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Fmt(arguments) => fmt::run(&arguments),
        Command::Summary(arguments) => summary::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Grad(arguments) => grad::run(&arguments),
        Command::Build(arguments) => build::run(&arguments),
        Command::Train(on) => train::run(&Compiler, &on.file, &on.arguments),
        Command::Resume(on) => resume::run(&Compiler, on.model.as_deref(), &on.arguments),
        Command::Sweep(on) => sweep::run(&Compiler, &on.file, &on.arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Eval(on) => eval::run(&Compiler, &on.file, &on.arguments),
        Command::Predict(on) => predict::run(&Compiler, &on.file, &on.arguments),
        Command::Dump(arguments) => dump::run(&arguments),
        Command::Devices => devices::run(),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    failure::finish(outcome, trains)
}
