//! From syntax trees to graphs: names, defaults, shapes, and the expansion of layers.
//!
//! Input: the syntax trees of a project's files. Output: a [`Graph`](crate::graph::Graph) per model and mode, and the plain
//! settings of a `train` item. Invariant: a graph that leaves this module passes the verifier; every shape in it was proved
//! for all sizes that the model's `require` lines admit, or, with bound sizes, for those.
//!
//! The rooms in order; each imports only earlier ones:
//!
//! 1. `project`: the files of one compilation, the library's among them, and the lookup of items.
//! 2. `expander`: the state of one expansion, which all later rooms give methods to: names and what they stand for.
//! 3. `expression`: values without indices: operators, built-in functions, conditions.
//! 4. `equation`: values with indices: ranges, reductions, lowering to contractions.
//! 5. `expand`: bodies: statements, declarations, stages and their use; whole models.
//! 6. `train`: a `train` item: its settings, the forward half of a step, metrics, the optimizer.
//! 7. `check`: findings for all sizes, lints, and counts.

pub mod check;
mod equation;
mod expand;
mod expander;
mod expression;
mod project;
#[cfg(test)]
mod tests;
mod train;

pub use check::{modes_agree, summary};
pub use expand::{Expanded, ModelUse, expand, expand_use};
pub use expander::{LayerCall, Mode};
pub use project::{MAX_BYTES, Project, is_model_file, unread};
pub use train::{Demands, Forward, Predicted, Resolved, apply_optimizer, forward, prediction, training, warnings};
