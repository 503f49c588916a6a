//! The command line: one file per command.
//!
//! Input: arguments. Output: text on standard output, findings and progress on standard error, an exit code:
//! 0 done, 1 findings in the user's files, 2 could not run. Invariant: colours and bars only on a terminal.

mod check;
mod completions;
mod dump;
mod eval;
mod fmt;
mod grad;
mod new;
mod open;
mod plan;
mod predict;
mod progress;
mod resume;
mod roofline;
mod session;
mod summary;
mod train;
mod tune;

use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use clap::{Parser, Subcommand};

/// Compile model files: check shapes, train networks, look inside the compiler.
#[derive(Debug, Parser)]
#[command(name = "ansatz", version, about, max_term_width = 100)]
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
    Train(train::Arguments),
    /// Go on with an interrupted run
    Resume(resume::Arguments),
    /// Loss and metrics of trained weights
    Eval(eval::Arguments),
    /// Outputs of trained weights, one JSON line a sample
    Predict(predict::Arguments),
    /// Print what a stage of the compiler made
    Dump(dump::Arguments),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// The user's files have errors, which have been printed.
    Findings,
    /// Anything else, in words.
    Problem(String),
}

impl Failure {
    /// A problem of the system with a file.
    fn at(path: &Path) -> impl Fn(std::io::Error) -> Failure {
        move |error| Failure::Problem(format!("{}: {error}", path.display()))
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Problem(error.to_string())
    }
}

type Outcome = Result<(), Failure>;

/// When the process began its work.
static START: OnceLock<Instant> = OnceLock::new();

/// Seconds since the process began its work.
fn seconds_since_start() -> f64 {
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    START.get_or_init(Instant::now);
    let outcome = match Arguments::parse().command {
        Command::New(arguments) => new::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Fmt(arguments) => fmt::run(&arguments),
        Command::Summary(arguments) => summary::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Grad(arguments) => grad::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Resume(arguments) => resume::run(&arguments),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Predict(arguments) => predict::run(&arguments),
        Command::Dump(arguments) => dump::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Findings) => ExitCode::from(1),
        Err(Failure::Problem(words)) => {
            let words = crate::source::visible_lines(&words);
            eprintln!("{}error:{} {words}", open::style("\x1b[1;31m"), open::style("\x1b[0m"));
            ExitCode::from(2)
        }
    }
}
