//! From syntax trees to graphs: names, defaults, shapes, and the expansion of layers.
//!
//! Input: the syntax trees of a project's files. Output: a [`Graph`] per model and mode, and the plain settings
//! of a `train` item. Invariant: a graph that leaves this module passes the verifier; every shape in it was proved
//! for all sizes that the model's `require` lines admit, or, with bound sizes, for those.

mod advice;
mod apply;
mod arguments;
mod arithmetic;
mod builtins;
pub mod check;
mod condition;
mod declare;
mod equal_sizes;
mod equation;
#[cfg(test)]
mod equation_random_tests;
#[cfg(test)]
mod equation_tests;
mod expand;
mod expander;
mod expression;
mod forward;
mod index_range;
mod library;
mod lint;
mod literal;
mod lowering;
mod metric;
mod node;
mod optimizer;
mod project;
mod reduction;
mod stack;
mod stage;
mod standalone;
mod statement;
pub mod summary;
#[cfg(test)]
mod tests;
mod total;
mod train_item;
mod training;
#[cfg(test)]
mod training_tests;

use crate::graph::{DType, Graph, Precision, ValueId};
use crate::source::Span;
use crate::syntax::ast::Direction;
pub use advice::warnings;
pub use expand::{ModelUse, expand, expand_use};
pub use forward::{FieldRange, Predicted, forward, prediction};
pub use optimizer::apply_optimizer;
pub use project::{MAX_BYTES, PathRefusal, Project, below, is_hidden, is_model_file, unread};
pub use standalone::modes_agree;
pub use training::training;

/// Whether `training` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Dropout drops, batch statistics are used and updated.
    Train,
    /// Inference.
    Eval,
}

/// A model expanded to core operations.
#[derive(Clone, Debug)]
pub struct Expanded {
    /// The graph. Its inputs are the model's; its outputs are named after the returned names
    /// (`output` where the returned expression has none; `output0`, `output1`, … for several).
    pub graph: Graph,
    /// The stages in order of execution, for `summary` and pictures.
    pub layers: Vec<LayerCall>,
}

/// One use of a layer or a function stage.
#[derive(Clone, Debug)]
pub struct LayerCall {
    /// The dotted path (`layer1.0.conv1`); empty for the model itself.
    pub path: String,
    /// The layer's name (`Conv`).
    pub layer: String,
    /// Nesting depth, 0 for stages of the model.
    pub depth: usize,
    /// What it gives.
    pub output: ValueId,
    /// The values created inside, as a range of the arena.
    pub values: std::ops::Range<u32>,
    /// Where it is used.
    pub span: Span,
}

/// The settings of a `train` item, checked and with defaults filled in.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Training {
    /// The model's name.
    pub model: String,
    /// The data item.
    pub data: DataSpec,
    /// Samples a step (default 32).
    pub batch: usize,
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
    /// Which roundings are allowed (default strict).
    pub precision: Precision,
    /// The whole item.
    pub span: Span,
    /// The file that holds the item.
    pub file: crate::source::FileId,
    /// Settings of the command line, which replace parts of the item.
    pub overrides: Vec<(String, String)>,
}

/// Length of a training.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Length {
    /// Passes over the training split.
    Epochs(f64),
    /// Optimizer steps.
    Steps(u64),
}

/// Time between two saves of a run (`save = 500 steps, 10 minutes`).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Interval {
    /// Passes over the training split.
    Epochs(f64),
    /// Optimizer steps.
    Steps(u64),
    /// Minutes since the last save.
    Minutes(f64),
}

/// Which checkpoints to keep beside the last.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Keep {
    /// `best(valid.accuracy)`.
    pub best: Option<Best>,
    /// `last(3)`: how many of the latest (default 1).
    pub last: usize,
}

/// The figure by which the best weights are chosen.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
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

impl std::fmt::Display for SplitName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A metric of a training.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
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

/// A `data` item as plain values; its meaning belongs to `runtime::data`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DataSpec {
    /// The item's name.
    pub name: String,
    /// The declared fields.
    pub fields: Vec<FieldSpec>,
    /// Keys and pipelines in order: `source`, `test`, `split`, `prepare`, `prepare.image`, `augment.image`, …
    pub entries: Vec<DataEntry>,
    /// The folder that the item's paths stay below.
    pub root: std::path::PathBuf,
    /// The folder, relative to the root, that the item's paths start at.
    pub folder: std::path::PathBuf,
    /// The item.
    pub span: Span,
}

/// `image: u8[3, 32, 32]`, optionally `= columns(0, 63)`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct FieldSpec {
    /// The field.
    pub name: String,
    /// `f32`, `u8`, `i32`, `class`, `text`, as written.
    pub element: String,
    /// Its dims, without the batch; for `class[10]` the number of classes.
    pub sizes: Vec<usize>,
    /// Where it comes from, if said.
    pub value: Option<Literal>,
    /// Where it is declared.
    pub span: Span,
}

/// One `key = value` of a data item.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct DataEntry {
    /// `["prepare", "image"]`.
    pub key: Vec<String>,
    /// The value.
    pub value: Literal,
    /// Where it stands.
    pub span: Span,
}

/// A constant with its place; expressions over numbers are already evaluated, `deg` is in radians.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Literal {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: LiteralKind,
}

/// The kinds of constants of a data item.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum LiteralKind {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// `true`, `false`.
    Bool(bool),
    /// A bare name (`horizontal`, `per_channel`).
    Name(String),
    /// `[a, b]`.
    List(Vec<Literal>),
    /// `random_crop(32, pad = 4)`.
    Call {
        /// The name.
        name: String,
        /// The arguments.
        arguments: Vec<(Option<String>, Literal)>,
    },
    /// `scale(1 / 255) -> normalize(…)`.
    Pipeline(Vec<Literal>),
}

/// A data field as the model sees it: batch dim first, after preparation and augmentation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BoundField {
    /// The field.
    pub name: String,
    /// Sizes with the batch first.
    pub sizes: Vec<usize>,
    /// F32 or I32.
    pub dtype: DType,
    /// For `class[n]`: n.
    pub classes: Option<usize>,
}

/// The forward half of a step with bound sizes: the model on the data's fields, loss and metrics.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Inputs are data fields; outputs are the model's, `loss`, and `metric:NAME` of stateless metrics;
    /// updates are those of buffers and metric states.
    pub graph: Graph,
    /// The loss, rank 0.
    pub loss: ValueId,
    /// What reads at the values of fields ask of the data, each with the value that relies on it.
    pub demands: Vec<(ValueId, FieldRange)>,
}
