//! How commands end.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::diagnostics::Refusal;
use crate::findings::style;
use crate::output;
use crate::runtime::train::LoopError;

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 findings in your files, 2 could not run. A training that a signal ends \
    has saved its last step and ends with 130 (Ctrl-C), 143 (SIGTERM) or 129 (the terminal closed).";

/// Characters of a problem that are printed.
const LONGEST_PROBLEM: usize = 8000;

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Failure {
    /// The user's files have errors, which have been printed.
    Findings,
    /// Anything else, in words.
    Problem(String),
    /// A signal ended a training, which is saved; with the exit code.
    Signal(u8),
}

/// What a command gives.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// The system refuses something that is no file.
    pub fn of(what: &str) -> impl Fn(std::io::Error) -> Failure {
        move |error| Failure::Problem(format!("{what}: {error}"))
    }

    /// A problem of the system with a file.
    pub fn at(path: &Path) -> impl Fn(std::io::Error) -> Failure {
        move |error| Failure::Problem(format!("{}: {error}", path.display()))
    }
}

/// Errors whose words say what they are about. [`std::io::Error`] names no file, so it is none of them: see
/// [`Failure::at`].
pub trait SaysWhere: std::error::Error {}

impl SaysWhere for Refusal {}
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
            LoopError::Diverged(found) => {
                Failure::Problem(format!("{} is not finite at step {}", found.what, found.step))
            }
        }
    }
}

/// When the process began its work, or the last run of several.
static START: Mutex<Option<Instant>> = Mutex::new(None);

/// Notes that the process begins its work, which ends by [`finish`]. From here on a panic, which is a mistake of ours, ends
/// the process on whichever thread it comes; nothing catches one and goes on.
pub fn begin() {
    start();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
}

/// Notes that a run begins: the process's first, or the next one.
pub(crate) fn start() {
    *START.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// Seconds since [`start`].
pub(crate) fn seconds_since_start() -> f64 {
    START.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now).elapsed().as_secs_f64()
}

/// The exit code of a command, whose problem is printed. What a training prints is also in its folder, so a full disk
/// under the output of a command that `trains` is no failure of it.
pub fn finish(outcome: Outcome, trains: bool) -> ExitCode {
    let lost = output::finish();
    match outcome {
        Ok(()) if lost.is_none() || trains => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(2),
        Err(Failure::Signal(code)) => ExitCode::from(code),
        Err(Failure::Findings) => ExitCode::from(1),
        Err(Failure::Problem(words)) => {
            // A damaged file may have been quoted at length.
            let words = crate::source::visible_lines(&words.chars().take(LONGEST_PROBLEM).collect::<String>());
            eprintln!("{}error:{} {words}", style("\x1b[1;31m"), style("\x1b[0m"));
            ExitCode::from(2)
        }
    }
}
