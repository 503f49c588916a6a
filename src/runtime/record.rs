//! The run folder: what a run writes for people and programs to read.
//!
//! Input: figures of epochs and steps. Output: `metrics.jsonl`, `loss.svg`, a step log, `run.json`.
//! Invariant: every line written is complete JSON; figures that are not finite become `null`.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Loss and metrics over one pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Mean loss a sample.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Name and value of each metric; a confusion matrix has many values.
    pub metrics: Vec<(String, Vec<f64>)>,
    /// Samples.
    pub samples: u64,
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Epochs done, from 1; not whole when a run ends within one.
    pub epoch: f64,
    /// Steps done.
    pub step: u64,
    /// Learning rate of the last step.
    #[serde(deserialize_with = "number")]
    pub lr: f64,
    /// Seconds since the run (or its resumption) began.
    pub seconds: f64,
    /// On the training split, while training.
    pub train: Figures,
    /// On the held-out split.
    pub valid: Option<Figures>,
}

/// JSON has no NaN; `null` reads as NaN.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// How a run was started, so that it can be resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The model file, absolute.
    pub model: PathBuf,
    /// `--set` pairs, with the other options that change results folded in.
    pub overrides: Vec<(String, String)>,
    /// The samples keep their order.
    pub no_shuffle: bool,
}

/// The open run folder.
#[derive(Debug)]
pub struct Record {
    /// The folder.
    pub folder: PathBuf,
    /// The epochs so far.
    pub epochs: Vec<Epoch>,
}

impl Record {
    /// Creates the folder and notes how the run was started.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(folder: &Path, command: &Command) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let text = serde_json::to_string_pretty(command).expect("a command is plain data");
        super::checkpoint::write_atomically(&folder.join("run.json"), text.as_bytes())?;
        super::checkpoint::write_atomically(&folder.join("metrics.jsonl"), b"")?;
        Ok(Self { folder: folder.to_path_buf(), epochs: Vec::new() })
    }

    /// Opens the folder of an earlier run, keeping the epochs up to `step`.
    ///
    /// # Errors
    /// The folder is not one of a run, or cannot be read.
    pub fn open(folder: &Path, step: u64) -> io::Result<Self> {
        let text = std::fs::read_to_string(folder.join("metrics.jsonl"))?;
        let epochs: Vec<Epoch> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let epochs: Vec<Epoch> = epochs.into_iter().filter(|epoch| epoch.step <= step).collect();
        let mut record = Self { folder: folder.to_path_buf(), epochs };
        record.write()?;
        record.epochs.shrink_to_fit();
        Ok(record)
    }

    /// How the run in `folder` was started.
    ///
    /// # Errors
    /// The folder is not one of a run.
    pub fn command(folder: &Path) -> io::Result<Command> {
        let text = std::fs::read_to_string(folder.join("run.json"))?;
        serde_json::from_str(&text).map_err(io::Error::other)
    }

    /// Adds an epoch and rewrites the curve.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn add(&mut self, epoch: Epoch, title: &str) -> io::Result<()> {
        let mut line = serde_json::to_string(&epoch).expect("an epoch is plain data");
        line.push('\n');
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.folder.join("metrics.jsonl"))?
            .write_all(line.as_bytes())?;
        self.epochs.push(epoch);
        let picture = super::curve::svg(title, &self.epochs).map_err(io::Error::other)?;
        super::checkpoint::write_atomically(&self.folder.join("loss.svg"), picture.as_bytes())
    }

    fn write(&mut self) -> io::Result<()> {
        let mut text = String::new();
        for epoch in &self.epochs {
            text.push_str(&serde_json::to_string(epoch).expect("an epoch is plain data"));
            text.push('\n');
        }
        super::checkpoint::write_atomically(&self.folder.join("metrics.jsonl"), text.as_bytes())
    }
}

/// One line a step (`--log`).
#[derive(Debug)]
pub struct StepLog {
    out: BufWriter<File>,
}

/// One step of a [`StepLog`].
#[derive(Clone, Debug, Serialize)]
pub struct StepLine {
    /// From 1.
    pub step: u64,
    /// Mean loss of the batch, before the update.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Milliseconds of the step, without waiting for data.
    pub ms: f64,
    /// L2 norm of each parameter's gradient (`--log-grads`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grads: Option<std::collections::BTreeMap<String, f64>>,
}

impl StepLog {
    /// Creates the file; `append` keeps what a resumed run wrote before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(path: &Path, append: bool) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).append(append).truncate(!append).open(path)?;
        Ok(Self { out: BufWriter::new(file) })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, line: &StepLine) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::other)?;
        self.out.write_all(b"\n")
    }

    /// Hands buffered lines to the system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
