//! `ansatz plan`: kernels and memory map of a training step.

use std::path::PathBuf;

use clap::Args;

use super::session::{self, Machine, Session};
use super::{Failure, open, roofline};
use crate::primitives::limits::Limits;
use crate::{pipeline, schedule};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The model file
    file: PathBuf,
    /// Override a setting, such as `train.batch=64`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = session::pair)]
    set: Vec<(String, String)>,
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
    let session = Session::open(&arguments.file, &arguments.set)?;
    let (project, training) = (&session.project, &session.training);
    let train = pipeline::training_graph(project, training, training.batch, &session.fields, false);
    let train = open::unwrap(train, &project.sources)?;
    let persistent = schedule::Persistent::of(&train);
    let graph = if arguments.inference {
        let graph = pipeline::prediction_graph(project, training, training.batch, &session.fields);
        open::unwrap(graph, &project.sources)?
    } else {
        train
    };
    let program = schedule::plan(&graph, &persistent);
    let report = schedule::report(&program, &project.sources);
    if arguments.roofline {
        let limits = Limits::measure(arguments.machine.level()?, arguments.machine.threads());
        print!("{}", roofline::table(&report, &limits));
    } else {
        print!("{report}");
    }
    Ok::<(), Failure>(())
}
