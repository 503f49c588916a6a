//! The commands that run networks: train, resume, evaluate, predict.
//!
//! Input: arguments, and a [`Host`] that gives networks: the compiler from model files, a trainer the one that it carries.
//! Output: text on standard output, findings and progress on standard error, an exit code:
//! 0 done, 1 findings in the user's files, 2 could not run, 128 and the signal's number where a signal ended a training.
//! Invariants: colours and bars only on a terminal; a closed pipe ends no command; neither parser nor code generator is
//! linked.

// The standard macros panic where the reader has gone away or the disk is full. These stand for them in all commands.
/// As [`std::print`].
#[macro_export]
macro_rules! print {
    ($($words:tt)*) => { $crate::output::say(format_args!($($words)*)) };
}
/// As [`std::println`].
#[macro_export]
macro_rules! println {
    ($($words:tt)*) => { $crate::output::say(format_args!("{}\n", format_args!($($words)*))) };
}
/// As [`std::eprint`].
#[macro_export]
macro_rules! eprint {
    ($($words:tt)*) => { $crate::output::tell(format_args!($($words)*)) };
}
/// As [`std::eprintln`].
#[macro_export]
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::output::tell(format_args!("{}\n", format_args!($($words)*))) };
}

mod answers;
mod confusion;
pub mod eval;
pub mod failure;
pub mod findings;
pub mod host;
pub mod interrupt;
pub mod options;
pub mod output;
pub mod outputs;
pub mod predict;
pub mod progress;
pub mod report;
pub mod resume;
pub mod roofline;
mod rows;
pub mod session;
pub mod sweep;
pub mod train;
mod trained;
mod watch;

use ansatz_compute::machine;
use ansatz_program::{artifact, device, diagnostics, graph, kernel, settings, source};
use ansatz_run::runtime;

pub use failure::{Failure, Outcome, SaysWhere, finish};
pub use host::{Host, Network, Platform, Processor};
