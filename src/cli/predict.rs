//! `ansatz predict`: outputs of trained weights, one JSON line a sample.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;

use super::session::{self, Machine, Measures, Session};
use super::{Failure, eval};
use crate::model::{LiteralKind, Training};
use crate::pipeline::Purpose;
use crate::runtime::data::Plan;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The model file
    file: PathBuf,
    /// The weights
    #[arg(long, value_name = "SAFETENSORS")]
    weights: PathBuf,
    /// Read samples from this file in place of the data's source
    #[arg(long, value_name = "FILE", conflicts_with = "split")]
    input: Option<PathBuf>,
    /// train, valid or test (by default the last of them that the data has)
    #[arg(long)]
    split: Option<String>,
    /// Where the lines go (standard output by default)
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Override a setting, such as `train.batch=64`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = session::pair)]
    set: Vec<(String, String)>,
    #[command(flatten)]
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let trained = Session::open(&arguments.file, &arguments.set)?;
    let other;
    let (session, split) = match &arguments.input {
        None => (&trained, eval::choose(&trained, arguments.split.as_deref())?.1),
        Some(input) => {
            other = Session::with_data(&arguments.file, &arguments.set, |training| redirect(training, input))?;
            (&other, &other.dataset.train)
        }
    };
    session.hold_data(&[Purpose::Predict])?;
    let mut trainer = session.trainer(&arguments.machine, Measures::default())?;
    trainer.load_weights(&arguments.weights).map_err(|error| session.trainer_failure(error))?;
    let out: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(std::fs::File::create(path)?),
        None => Box::new(std::io::stdout().lock()),
    };
    let mut out = BufWriter::new(out);
    let mut sample = 0usize;
    let size = session.training.batch;
    for batch in split.batches(Plan::evaluation(size), 0, split.steps_per_epoch(size))? {
        let outputs = trainer.predict(&batch).map_err(|error| session.trainer_failure(error))?;
        for row in 0..batch.rows {
            let mut line = serde_json::Map::from_iter([("sample".to_string(), sample.into())]);
            for output in outputs.iter().filter(|output| output.sizes.first() == Some(&batch.rows)) {
                let (name, length) = (&output.name, output.values.len() / batch.rows);
                let values = &output.values[row * length..(row + 1) * length];
                let best = (0..length).reduce(|best, i| if values[i] > values[best] { i } else { best });
                if let Some(best) = best.filter(|_| length > 1) {
                    line.insert(format!("{name}.argmax"), best.into());
                }
                line.insert(name.clone(), values.to_vec().into());
            }
            sample += 1;
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Lets the data come from one other file, whole and in order.
fn redirect(training: &mut Training, input: &std::path::Path) -> Result<(), Failure> {
    training
        .data
        .entries
        .retain(|entry| !matches!(entry.key.first().map(String::as_str), Some("split" | "test" | "valid" | "augment")));
    let source = training.data.entries.iter_mut().find(|entry| entry.key == ["source"]);
    let path = match source.map(|entry| &mut entry.value.kind) {
        Some(LiteralKind::Call { arguments, .. }) => arguments.first_mut().map(|(_, value)| &mut value.kind),
        _ => None,
    };
    match path {
        Some(LiteralKind::Text(path)) => {
            // The user names it, so it may lie anywhere and be a link: the folder that it lies in is the root.
            let problem = |words: &dyn std::fmt::Display| Failure::Problem(format!("{}: {words}", input.display()));
            let input = std::fs::canonicalize(input).map_err(|error| problem(&error))?;
            let name = input.file_name().and_then(std::ffi::OsStr::to_str);
            *path = name.ok_or_else(|| problem(&"the name is not text"))?.to_string();
            training.data.root = input.parent().unwrap_or(&input).to_path_buf();
            training.data.folder = Default::default();
            Ok(())
        }
        _ => Err(Failure::Problem("the data's source names no file that `--input` could stand for".into())),
    }
}
