//! `ansatz eval`: loss and metrics of trained weights.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::session::{self, Machine, Measures, Session};
use super::{Failure, progress};
use crate::pipeline::Purpose;
use crate::runtime::data::Split;
use crate::runtime::train;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The model file
    file: PathBuf,
    /// The weights
    #[arg(long, value_name = "SAFETENSORS")]
    weights: PathBuf,
    /// train, valid or test (by default the last of them that the data has)
    #[arg(long)]
    split: Option<String>,
    /// Override a setting, such as `train.batch=64`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = session::pair)]
    set: Vec<(String, String)>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let session = Session::open(&arguments.file, &arguments.set)?;
    session.hold_data(&[Purpose::Evaluate])?;
    let (name, split) = choose(&session, arguments.split.as_deref())?;
    let mut trainer = session.trainer(&arguments.machine, Measures::default())?;
    trainer.load_weights(&arguments.weights).map_err(|error| session.trainer_failure(error))?;
    let figures =
        train::evaluate(&mut trainer, split, session.training.batch).map_err(|error| session.loop_failure(error))?;
    if arguments.json {
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(());
    }
    println!("{name}: {} samples", figures.samples);
    println!("  loss  {:.6}", figures.loss);
    for (name, values) in &figures.metrics {
        match values.as_slice() {
            [value] => println!("  {name}  {value:.6}"),
            values => print_table(name, values),
        }
    }
    Ok(())
}

/// The split named, or the last one that the data has, with its name.
pub(super) fn choose<'s>(session: &'s Session, name: Option<&str>) -> Result<(&'s str, &'s Arc<Split>), Failure> {
    let dataset = &session.dataset;
    let (name, split) = match name {
        None => train::final_split(dataset).unwrap_or(("train", &dataset.train)),
        Some("train") => ("train", &dataset.train),
        Some("valid") => ("valid", &dataset.valid),
        Some("test") => ("test", &dataset.test),
        Some(other) => return Err(Failure::Problem(format!("no split `{other}`: choose train, valid or test"))),
    };
    if split.is_empty() {
        return Err(Failure::Problem(format!("the data has no {name} split")));
    }
    Ok((name, split))
}

/// A confusion matrix as rows of true classes; other lists on one line.
fn print_table(name: &str, values: &[f64]) {
    let side = (values.len() as f64).sqrt() as usize;
    if side * side != values.len() || side < 2 {
        println!("  {name}  {values:?}");
        return;
    }
    println!("  {name}");
    let width = values.iter().map(|value| progress::count(*value).len()).max().unwrap_or(1) + 1;
    for row in values.chunks(side) {
        let cells: Vec<String> = row.iter().map(|value| format!("{:>width$}", progress::count(*value))).collect();
        println!("    {}", cells.concat());
    }
}
