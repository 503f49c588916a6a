//! `ansatz plan`: kernels and memory map of a training step.

use std::path::PathBuf;

use clap::Args;

use super::session::{self, Session};
use super::{Failure, open};
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
    print!("{}", schedule::report(&program, &project.sources));
    Ok::<(), Failure>(())
}
