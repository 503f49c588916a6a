//! `ansatz grad`: the derivative of a training step as model text.

use std::path::PathBuf;

use clap::Args;

use super::open;
use super::outline::Outline;
use super::session;
use crate::graph::OutputName;
use crate::{model, passes, pipeline};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The model file
    file: PathBuf,
    /// Override a setting, such as `train.batch=64`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = session::pair)]
    set: Vec<(String, String)>,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let outline = Outline::open(&arguments.file, &arguments.set)?;
    let training = &outline.training;
    let forward = model::forward(training, training.settings.batch, model::Mode::Train, &outline.fields);
    let forward = open::unwrap(forward, outline.sources())?;
    let mut graph = forward.graph;
    graph.updates.clear();
    graph.outputs.retain(|output| output.name == OutputName::Loss);
    pipeline::add_gradient_outputs(&mut graph, forward.loss);
    passes::run(&mut graph);
    print!("{}", crate::grad::print::equations(&graph, outline.sources()));
    Ok(())
}
