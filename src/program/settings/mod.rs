//! A `train` item and its `data` item as plain data: what a run needs to know of its model file.
//!
//! Input: made by `model`, which checks them and fills in defaults. Output: read by what runs.
//! Invariant: no syntax tree is behind them, so they are written to bytes and read back as they are.

mod data;
mod path;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Precision};
use crate::source::Span;
pub use data::{DataEntry, DataSpec, FieldInfo, FieldRange, FieldSpec, Literal, LiteralKind, PackedFiles};
pub use path::{PathRefusal, below, is_hidden, normalise};

/// The lines of a `train` item.
pub const TRAIN_KEYS: [&str; 13] = [
    "loss",
    "optimizer",
    "schedule",
    "batch",
    "drop_last",
    "length",
    "seed",
    "clip",
    "metrics",
    "keep",
    "save",
    "precision",
    "not_finite",
];

/// What stands before the dot of a setting.
pub const SETTING_HEADS: [&str; 6] = ["train", "model", "optimizer", "loss", "schedule", "data"];

/// The settings of a `train` item, checked and with defaults filled in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Training {
    /// The model's name.
    pub model: String,
    /// The data item.
    pub data: DataSpec,
    /// Samples a step (default 32).
    pub batch: usize,
    /// Leave a short last batch of an epoch out (default false).
    pub drop_last: bool,
    /// How long.
    pub length: Length,
    /// Seed of initialisation, shuffling, splits, augmentation and dropout (default 0).
    pub seed: u64,
    /// Clip the gradients' global L2 norm to this (`clip = 1.0`).
    pub clip: Option<f64>,
    /// The metrics, in order.
    pub metrics: Vec<MetricSpec>,
    /// Which checkpoints to keep.
    pub keep: Keep,
    /// When to save before the end, whichever comes first (default after each epoch).
    pub save: Vec<Interval>,
    /// What becomes of a step whose loss or result is not finite (default stop).
    pub not_finite: NotFinite,
    /// Which roundings are allowed (default strict).
    pub precision: Precision,
    /// The whole item.
    pub span: Span,
    /// Settings of the command line, which replace parts of the item.
    pub overrides: Vec<(String, String)>,
    /// What the item says of what a step computes, as written but for spaces and comments: `optimizer`, `loss`, …, and `model`.
    pub lines: BTreeMap<String, String>,
}

/// What becomes of a step whose loss or result is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotFinite {
    /// The run ends.
    #[default]
    Stop,
    /// The step is undone and its batch left out.
    Skip {
        /// So many in a row at most.
        limit: u64,
    },
    /// The run goes back to its last checkpoint, and on behind the step's batch.
    RollBack {
        /// So many times at most.
        limit: u64,
    },
}

impl Training {
    /// How many of so many samples an epoch trains on.
    pub fn trained(&self, samples: usize) -> usize {
        if self.drop_last { samples - samples % self.batch } else { samples }
    }
}

/// Length of a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Length {
    /// Passes over the training split.
    Epochs(f64),
    /// Optimizer steps.
    Steps(u64),
}

/// Time between two saves of a run (`save = 500 steps, 10 minutes`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Interval {
    /// Passes over the training split.
    Epochs(f64),
    /// Optimizer steps.
    Steps(u64),
    /// Minutes since the last save.
    Minutes(f64),
}

/// Which checkpoints to keep beside the last.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Keep {
    /// `best(valid.accuracy)`.
    pub best: Option<Best>,
    /// `last(3)`: how many of the latest (default 1).
    pub last: usize,
}

/// The figure by which the best weights are chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Where it is measured; `valid` unless said.
    pub split: SplitName,
    /// A metric of the training, or `loss`.
    pub figure: String,
    /// Which figures are better.
    pub direction: Direction,
    /// Where it stands.
    pub span: Span,
}

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SplitName {
    /// What is trained on.
    Train,
    /// What is held out to compare and select.
    Valid,
    /// What is measured in the end.
    Test,
}

impl SplitName {
    /// The split of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Train, Self::Valid, Self::Test].into_iter().find(|split| split.as_str() == name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for SplitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A metric of a training.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MetricSpec {
    /// The name shown: `accuracy`, `top(5)`, `recall(macro)`.
    pub name: String,
    /// A metric with state: a graph from the step graph's metric states (its inputs, named like the states)
    /// to one output `value`. Without: the step graph has an output `metric:NAME`, averaged over samples.
    pub finish: Option<Graph>,
    /// Which figures are better, where its definition says it.
    pub direction: Option<Direction>,
}

impl MetricSpec {
    /// Whether its value is one number, not a table.
    pub fn is_single(&self) -> bool {
        self.finish
            .as_ref()
            .is_none_or(|graph| graph.outputs.iter().all(|output| graph.value(output.value).shape.is_empty()))
    }
}

/// Which of two figures of merit is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// An error: the lower.
    Lower,
    /// A score: the higher.
    Higher,
}
