//! `ansatz eval`: loss and metrics of trained weights, and which classes they mistake for which.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::answers::Answers;
use crate::confusion::{Class, Confusion};
use crate::host::Host;
use crate::options::Machine;
use crate::runtime::data::{Plan, Rows, Split};
use crate::runtime::figures::{Figures, Metric};
use crate::runtime::train;
use crate::runtime::trainer::{NOT_A_NUMBER, Trainer};
use crate::session::{self, Session};
use crate::settings::SplitName;
use crate::trained::Trained;
use crate::{Failure, progress};

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The weights
    #[arg(long, value_name = "SAFETENSORS")]
    weights: PathBuf,
    /// train, valid or test (by default the last of them that the data has)
    #[arg(long)]
    split: Option<String>,
    /// Override a setting of the run, such as `train.batch=64`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = session::pair)]
    pub set: Vec<(String, String)>,
    /// Print one JSON object, with the confusion matrix as rows of true classes
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Machine,
}

/// Measures trained weights.
///
/// # Errors
/// What is wrong with the model file, its data or the weights.
pub fn run(host: &dyn Host, file: &Path, arguments: &Arguments) -> crate::Outcome {
    let trained = Trained::read(&arguments.weights)?;
    let session = trained.session(host, file, &arguments.set)?;
    let (name, split) = choose(&session, arguments.split.as_deref())?;
    let mut trainer = trained.give(session.evaluator(split, &arguments.machine)?)?;
    let figures = train::evaluate(&mut trainer, split, session.settings().batch)?;
    if !figures.loss.is_finite() {
        return Err(Failure::Problem(format!("the loss is not finite, though the weights are; {NOT_A_NUMBER}")));
    }
    let confusion = confusion(&session, &mut trainer, split, usize::MAX)?;
    if arguments.json {
        // A key stands once: the metric's own matrix is the same one.
        let is_metric = figures.metrics.iter().any(|metric| metric.name == "confusion");
        let report = Report {
            split: name.as_str(),
            figures: &figures,
            classes: confusion.as_ref().map(Confusion::classes),
            confusion: confusion.as_ref().filter(|_| !is_metric).map(Confusion::rows),
        };
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    println!("{name}: {} samples", figures.samples);
    println!("  loss  {:.6}", figures.loss);
    for metric in &figures.metrics {
        match metric.single() {
            Some(value) => println!("  {}  {value:.6}", metric.name),
            // The matrix that is drawn below, with words.
            None if confusion.is_some() && metric.sizes.len() == 2 => {}
            None => print_table(metric),
        }
    }
    if let Some(confusion) = confusion {
        print!("{}", confusion.text());
    }
    Ok(())
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'r> {
    split: &'r str,
    #[serde(flatten)]
    figures: &'r Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<Class>>,
    /// Rows of true classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    confusion: Option<Vec<&'r [u64]>>,
}

/// Whether the field that the model learns to predict has classes.
pub(crate) fn tells_classes_apart(session: &Session) -> Result<bool, Failure> {
    Ok(Answers::of(session)?.has_classes())
}

/// True and chosen classes over a split, where the model tells at most so many classes apart.
pub(crate) fn confusion(
    session: &Session,
    trainer: &mut Trainer,
    split: &Arc<Split>,
    most: usize,
) -> Result<Option<Confusion>, Failure> {
    let answers = Answers::of(session)?;
    let Some(target) = answers.target() else { return Ok(None) };
    let Some(field) = session.dataset.fields.iter().position(|field| field.name == target.name) else {
        return Ok(None);
    };
    let size = Trainer::prediction_rows(session.settings());
    let mut confusion = None;
    let batches = split.batches(Plan::evaluation(size), 0, split.steps_per_epoch(size));
    for batch in batches.map_err(Failure::of("the thread that reads the data cannot be started"))? {
        let outputs = trainer.predict(&batch)?;
        let Some(classes) = answers.classes(&outputs).filter(|classes| *classes <= most) else { return Ok(None) };
        let counts = confusion.get_or_insert_with(|| Confusion::new(answers.words(classes)));
        let length = target.elements();
        for row in 0..batch.rows {
            let chosen = answers.chosen(&outputs, row, batch.rows);
            let place = row * length..(row + 1) * length;
            let truth: Vec<usize> = match &batch.fields[field] {
                Rows::I32(values) => {
                    values[place].iter().map(|label| usize::try_from(*label).unwrap_or(usize::MAX)).collect()
                }
                Rows::F32(values) if length == chosen.len() => {
                    values[place].iter().map(|value| usize::from(*value > 0.5)).collect()
                }
                Rows::F32(values) => values[place].chunks_exact(classes).map(largest).collect(),
            };
            truth.iter().zip(&chosen).for_each(|(truth, chosen)| counts.add(*truth, *chosen));
        }
    }
    Ok(confusion)
}

/// The place of the one in a one-hot label.
fn largest(values: &[f32]) -> usize {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best }).unwrap_or(0)
}

/// The split named, or the last one that the data has, with its name.
pub(crate) fn choose<'s>(session: &'s Session, name: Option<&str>) -> Result<(SplitName, &'s Arc<Split>), Failure> {
    let dataset = &session.dataset;
    let name = match name {
        None => train::final_split(dataset).map_or(SplitName::Train, |(name, _)| name),
        Some(name) => SplitName::parse(name)
            .ok_or_else(|| Failure::Problem(format!("no split `{name}`: choose train, valid or test")))?,
    };
    let split = dataset.split(name);
    if split.is_empty() {
        return Err(Failure::Problem(format!("the data has no {name} split")));
    }
    Ok((name, split))
}

/// A confusion matrix as rows of true classes; other lists on one line.
fn print_table(metric: &Metric) {
    let Metric { name, sizes, values } = metric;
    let [_, columns] = sizes[..] else {
        println!("  {name}  {values:?}");
        return;
    };
    println!("  {name}");
    let width = values.iter().map(|value| progress::count(*value).len()).max().unwrap_or(1) + 1;
    for row in values.chunks(columns.max(1)) {
        let cells: Vec<String> = row.iter().map(|value| format!("{:>width$}", progress::count(*value))).collect();
        println!("    {}", cells.concat());
    }
}
