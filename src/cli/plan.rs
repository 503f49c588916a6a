//! `ansatz plan`: kernels and memory map of a training step.

use clap::Args;

use super::Failure;
use super::compiled::ModelFile;
use super::outline::Outline;
use crate::console::options::Machine;
use crate::console::roofline;
use crate::kernel::report;
use crate::machine::Level;
use crate::machine::limits::Limits;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelFile,
    /// Plan inference instead of training
    #[arg(long)]
    inference: bool,
    /// Measure this machine for a moment, and print the least time of each kernel on it
    #[arg(long)]
    roofline: bool,
    #[command(flatten)]
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let outline = Outline::open(&arguments.model)?;
    let program = outline.program(arguments.inference)?;
    let report = report::report(&program, outline.sources());
    if arguments.roofline {
        let limits = Limits::measure(arguments.machine.level(&Level::ALL)?, arguments.machine.threads());
        print!("{}", roofline::table(&report, &limits));
    } else {
        print!("{report}");
    }
    Ok::<(), Failure>(())
}
