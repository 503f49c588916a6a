//! `ansatz grad`: the derivative of a training step as model text.

use clap::Args;

use super::compiled::ModelFile;
use super::open;
use super::outline::Outline;
use crate::graph::OutputName;
use crate::{model, passes, pipeline};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelFile,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let outline = Outline::open(&arguments.model)?;
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
