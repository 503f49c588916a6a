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
mod demand;
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

use crate::graph::{Graph, ValueId};
use crate::settings::{FieldRange, Training};
use crate::source::Span;
pub use advice::warnings;
pub use expand::{ModelUse, expand, expand_use};
pub use forward::{Predicted, forward, prediction};
pub use optimizer::apply_optimizer;
pub use project::{MAX_BYTES, Project, is_model_file, unread};
pub use standalone::modes_agree;
use train_item::TrainItem;
pub use training::training;

/// Whether `training` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Dropout drops, batch statistics are used and updated.
    Train,
    /// Inference.
    Eval,
}

/// A `train` item, resolved: what its steps are made of.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The files that its names are found in.
    pub project: Project,
    /// The lines as trees, with the command line's settings applied.
    item: TrainItem,
    /// The settings.
    pub settings: Training,
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

/// The forward half of a step with bound sizes: the model on the data's fields, loss and metrics.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Inputs are data fields; outputs are the model's, `loss`, and `metric:NAME` of stateless metrics;
    /// updates are those of buffers and metric states.
    pub graph: Graph,
    /// The loss, rank 0.
    pub loss: ValueId,
    /// What it asks of the data.
    pub demands: Demands,
}

/// What reads at the values of fields ask of the data, each with the value that relies on it.
pub type Demands = Vec<(ValueId, FieldRange)>;
