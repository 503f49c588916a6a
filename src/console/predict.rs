//! `ansatz predict`: what trained weights say of samples.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::answers::Answers;
use crate::host::Host;
use crate::options::Machine;
use crate::rows::{Cell, Format, Rows};
use crate::runtime::data::{Place, Plan, Split};
use crate::runtime::trainer::Trainer;
use crate::session::{self, Session};
use crate::trained::Trained;
use crate::{Failure, eval};

/// Options of `predict`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The weights
    #[arg(long, value_name = "SAFETENSORS")]
    weights: PathBuf,
    /// New samples, without labels, in place of the data's source: a table, an array, a picture, a folder of pictures, or
    /// `-` for a table on standard input
    #[arg(long, value_name = "FILE", conflicts_with = "split")]
    input: Option<PathBuf>,
    /// train, valid or test (by default the last of them that the data has)
    #[arg(long)]
    split: Option<String>,
    /// How many classes to name, the likeliest first
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    top: usize,
    /// The model's outputs as they are
    #[arg(long, conflicts_with = "top")]
    raw: bool,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
    /// Where they go (standard output by default)
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Override a setting of the run, such as `train.batch=64`
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = session::pair)]
    pub set: Vec<(String, String)>,
    #[command(flatten)]
    machine: Machine,
}

/// Writes what trained weights say of samples.
///
/// # Errors
/// What is wrong with the model file, the samples or the weights.
pub fn run(host: &dyn Host, file: &Path, arguments: &Arguments) -> crate::Outcome {
    if arguments.top == 0 {
        return Err(Failure::Problem("`--top 0` names no class".into()));
    }
    let trained = Trained::read(&arguments.weights)?;
    let session = match &arguments.input {
        None => trained.session(host, file, &arguments.set)?,
        Some(input) => trained.session_on(host, file, &arguments.set, input)?,
    };
    let split = match &arguments.input {
        None => eval::choose(&session, arguments.split.as_deref())?.1,
        Some(_) => &session.dataset.train,
    };
    let answers = Answers::of(&session)?;
    if let Some(output) = &arguments.output {
        let pictures = (0..split.len()).filter_map(|sample| match split.place(sample) {
            Place::File(file) => Some(PathBuf::from(file)),
            Place::Record(_) => None,
        });
        let pictures: Vec<PathBuf> = if output.is_file() { pictures.collect() } else { Vec::new() };
        let read: Vec<&PathBuf> = [&arguments.weights].into_iter().chain(&arguments.input).chain(&pictures).collect();
        session.hold_apart("--output", output, &read)?;
    }
    let mut trainer = trained.give(session.predictor(&arguments.machine)?)?;
    // An older file is emptied by nothing that is refused.
    let out: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(std::fs::File::create(path).map_err(Failure::at(path))?),
        None => Box::new(std::io::stdout().lock()),
    };
    let mut rows = Rows::new(arguments.format, BufWriter::new(out));
    write(arguments, &answers, &mut trainer, &session, split, &mut rows)?;
    whole(rows.finish()).map(|_| ())
}

/// True unless whoever reads the rows has enough of them.
fn whole(written: std::io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Problem(format!("the predictions cannot be written: {error}"))),
    }
}

fn write<W: Write>(
    arguments: &Arguments,
    answers: &Answers,
    trainer: &mut Trainer,
    session: &Session,
    split: &std::sync::Arc<Split>,
    rows: &mut Rows<W>,
) -> crate::Outcome {
    let size = Trainer::prediction_rows(session.settings());
    let mut sample = 0;
    let batches = split.batches(Plan::evaluation(size), 0, split.steps_per_epoch(size));
    for batch in batches.map_err(Failure::of("the thread that reads the data cannot be started"))? {
        let outputs = trainer.predict(&batch)?;
        for row in 0..batch.rows {
            let (name, place) = match split.place(sample) {
                Place::Record(record) => ("row", Cell::Whole(record as u64)),
                Place::File(file) => ("file", Cell::Text(file.to_string())),
            };
            let answer = match arguments.raw {
                true => Ok(answers.raw(&outputs, row, batch.rows)),
                false => answers.read(&outputs, row, batch.rows, arguments.top),
            };
            let place = (name.to_string(), place);
            let answer = answer
                .map_err(|words| Failure::Problem(format!("sample {} is not to be predicted: {words}", sample + 1)))?;
            if !whole(rows.add(std::iter::once(place).chain(answer).collect()))? {
                return Ok(());
            }
            sample += 1;
        }
    }
    Ok(())
}
