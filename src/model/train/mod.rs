//! What a `train` item asks for: its settings, and the parts of a step that come from its lines.
//!
//! Input: a project, a file, settings of the command line; then the fields of the data, or a graph with gradients.
//! Output: [`Resolved`]; of it a [`Forward`], a [`Predicted`], and updates by an optimizer.
//! Invariant: what is wrong with a line is reported at that line.

mod advice;
mod forward;
mod item;
mod literal;
mod metric;
mod optimizer;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::diagnostics::Diagnostic;
use crate::graph::{Graph, ValueId};
use crate::model::expand::{Expanded, ModelUse, expand_use};
use crate::model::expander::Mode;
use crate::model::project::Project;
use crate::settings::{FieldInfo, FieldRange, Training};
pub use advice::warnings;
pub use forward::{Predicted, forward, prediction};
use item::TrainItem;
pub(crate) use item::model_name;
pub use optimizer::apply_optimizer;
pub use settings::training;

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

impl Resolved {
    /// The model alone as it is trained, with the sizes that the fields give; the number of samples keeps its name.
    ///
    /// # Errors
    /// What is wrong with the model for these sizes.
    pub fn expanded(&self, fields: &[FieldInfo]) -> Result<Expanded, Vec<Diagnostic>> {
        let used = ModelUse { file: self.item.file, model: &self.item.model };
        let expand = |sizes: &BTreeMap<String, i64>| expand_use(&self.project, &used, Mode::Train, sizes);
        let (free, _) = expand(&BTreeMap::new())?;
        let mut sizes = BTreeMap::new();
        for input in &free.graph.inputs {
            let Some(field) = fields.iter().find(|field| field.name == input.name) else { continue };
            // The first dim is the batch.
            for (dim, size) in input.shape.iter().skip(1).zip(&field.sizes) {
                if let (Some(name), Ok(size)) = (dim.as_var(), i64::try_from(*size)) {
                    sizes.insert(name.to_string(), size);
                }
            }
        }
        if sizes.is_empty() { Ok(free) } else { expand(&sizes).map(|(expanded, _)| expanded) }
    }
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
