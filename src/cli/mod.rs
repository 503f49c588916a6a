//! The command line: one file per command.
//!
//! Input: arguments. Output: text on standard output, findings and progress on standard error, an exit code:
//! 0 done, 1 findings in the user's files, 2 could not run, 128 and the signal's number where a signal ended a training.
//! Invariants: colours and bars only on a terminal; a closed pipe ends no command.

// The standard macros panic where the reader has gone away or the disk is full. These stand for them in all commands.
macro_rules! print {
    ($($words:tt)*) => { $crate::cli::output::say(format_args!($($words)*)) };
}
macro_rules! println {
    ($($words:tt)*) => { $crate::cli::output::say(format_args!("{}\n", format_args!($($words)*))) };
}
macro_rules! eprint {
    ($($words:tt)*) => { $crate::cli::output::tell(format_args!($($words)*)) };
}
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::cli::output::tell(format_args!("{}\n", format_args!($($words)*))) };
}

mod answers;
mod check;
mod completions;
mod confusion;
mod dump;
mod eval;
mod fmt;
mod grad;
mod interrupt;
mod new;
mod open;
mod outline;
mod output;
mod plan;
mod predict;
mod progress;
mod resume;
mod roofline;
mod rows;
mod session;
mod summary;
mod train;
mod trained;
mod tune;
mod tuning;

use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

use clap::{Parser, Subcommand};

use crate::cpu::code::CodegenError;
use crate::diagnostics::Refusal;
use crate::runtime::train::LoopError;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 findings in your files, 2 could not run. A training that a signal ends \
    has saved its last step and ends with 130 (Ctrl-C), 143 (SIGTERM) or 129 (the terminal closed).";

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
    Train(train::Arguments),
    /// Go on with an interrupted run
    Resume(resume::Arguments),
    /// Loss and metrics of trained weights
    Eval(eval::Arguments),
    /// What trained weights say of samples: classes, probabilities, numbers
    Predict(predict::Arguments),
    /// Print what a stage of the compiler made
    Dump(dump::Arguments),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
}

/// Characters of a problem that are printed.
const LONGEST_PROBLEM: usize = 8000;

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// The user's files have errors, which have been printed.
    Findings,
    /// Anything else, in words.
    Problem(String),
    /// A signal ended a training, which is saved; with the exit code.
    Signal(u8),
}

impl Failure {
    /// The system refuses something that is no file.
    fn of(what: &str) -> impl Fn(std::io::Error) -> Failure {
        move |error| Failure::Problem(format!("{what}: {error}"))
    }

    /// A problem of the system with a file.
    fn at(path: &Path) -> impl Fn(std::io::Error) -> Failure {
        move |error| Failure::Problem(format!("{}: {error}", path.display()))
    }
}

/// Errors whose words say what they are about. [`std::io::Error`] names no file, so it is none of them: see
/// [`Failure::at`].
trait SaysWhere: std::error::Error {}

impl SaysWhere for Refusal {}
impl SaysWhere for CodegenError {}
/// Of values that are written to memory.
impl SaysWhere for serde_json::Error {}

impl<E: SaysWhere> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Problem(error.to_string())
    }
}

impl From<LoopError> for Failure {
    fn from(error: LoopError) -> Self {
        match error {
            LoopError::Problem(words) => Failure::Problem(words),
            LoopError::Diverged { step, what, .. } => Failure::Problem(format!("{what} is not finite at step {step}")),
        }
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
    let command = Arguments::parse().command;
    // What a training prints is also in its folder, so a full disk under its output is no failure of it.
    let trains = matches!(command, Command::Train(_) | Command::Resume(_));
    let outcome = match command {
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
    let lost = output::finish();
    match outcome {
        Ok(()) if lost.is_none() || trains => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(2),
        Err(Failure::Signal(code)) => ExitCode::from(code),
        Err(Failure::Findings) => ExitCode::from(1),
        Err(Failure::Problem(words)) => {
            // A damaged file may have been quoted at length.
            let words = crate::source::visible_lines(&words.chars().take(LONGEST_PROBLEM).collect::<String>());
            eprintln!("{}error:{} {words}", open::style("\x1b[1;31m"), open::style("\x1b[0m"));
            ExitCode::from(2)
        }
    }
}
