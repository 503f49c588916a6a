//! What is suspicious about a `train` item that compiles, and words for a loss that does not fit its model.
//!
//! Input: the item, the data's fields, and the number of training samples where it is known. Output: warnings, and hints
//! added to findings. Invariant: nothing here makes a finding an error; what is said follows from graphs, formulas and
//! the types of fields, never from names.

use super::Resolved;
use super::item::TrainItem;
use super::metric::Bound;
use super::optimizer::Rate;
use crate::diagnostics::Diagnostic;
use crate::graph::{ClockReading, DType, ScalarExpr};
use crate::model::expand::show;
use crate::model::expander::{Expander, Mode, with_room};
use crate::settings::{FieldInfo, Length, Training};
use crate::source::Span;

/// Passes of so few and so many steps stand for every run where the samples are not counted yet.
const UNKNOWN_EPOCHS: [u64; 2] = [1, 1_000_000];

/// At how many steps of a run the learning rate is looked at.
const RATES: u64 = 32;

/// What a loss of the library says about tensors that do not fit it.
const REFUSALS: [&str; 4] = ["shape-mismatch", "rank-mismatch", "type-mismatch", "require-failed"];

/// Warnings about a `train` item without errors. `samples`: of the training split, where the data has been read.
pub fn warnings(training: &Resolved, fields: &[FieldInfo], samples: Option<usize>) -> Vec<Diagnostic> {
    let item = &training.item;
    let clocks = clocks(&training.settings, samples);
    let mut found = with_room(|| {
        let mut expander = Expander::new(&training.project, Mode::Train);
        // Errors have been reported before.
        let _ = expander.step(item, training.settings.batch, fields);
        let rate = expander.rate(item).ok().flatten();
        let mut found = expander.diagnostics;
        found.extend(
            rate.iter().flat_map(|rate| about_rate(rate, &clocks).into_iter().chain(about_stages(rate, &clocks))),
        );
        found
    });
    if let Some(samples) = samples.filter(|samples| *samples < training.settings.batch) {
        let place = item.get("batch").map_or(item.model.span, |line| line.span);
        let message = format!("a batch of {} is larger than the training split of {samples}", training.settings.batch);
        let hint = format!("every step sees all samples; `batch = {samples}` says so and takes less memory");
        found.push(Diagnostic::warning("batch-larger-than-data", place, message).hint(hint));
    }
    found.retain(|finding| !finding.is_error());
    found
}

/// The clocks that the last step of the run may show.
fn clocks(training: &Training, samples: Option<usize>) -> Vec<ClockReading> {
    let known = samples.map(|samples| vec![samples.div_ceil(training.batch).max(1) as u64]);
    let ends = known.unwrap_or(UNKNOWN_EPOCHS.to_vec()).into_iter().map(|steps_per_epoch| {
        let total_steps = match training.length {
            Length::Epochs(epochs) => (epochs * steps_per_epoch as f64).round().max(1.0) as u64,
            Length::Steps(steps) => steps,
        };
        ClockReading { step: total_steps, total_steps, steps_per_epoch }
    });
    ends.collect()
}

/// Step number `part` of [`RATES`] that are spread evenly over the steps from 1 to `last`.
fn spread(last: u64, part: u64) -> u64 {
    let beyond = u128::from(last.saturating_sub(1)) * u128::from(part) / u128::from(RATES - 1);
    1 + u64::try_from(beyond).expect("a part of the steps")
}

/// A learning rate that never moves a parameter, or moves it uphill.
fn about_rate(rate: &Rate, clocks: &[ClockReading]) -> Option<Diagnostic> {
    let rates: Vec<(u64, f64)> = clocks
        .iter()
        .flat_map(|end| (0..RATES).map(|part| ClockReading { step: spread(end.step, part), ..*end }))
        .map(|clock| (clock.step, rate.formula.evaluate(&clock)))
        .collect();
    let negative = rates.iter().find(|(_, rate)| *rate < 0.0);
    let message = match (negative, rates.iter().all(|(_, rate)| *rate == 0.0)) {
        (Some((step, rate)), _) => format!("the learning rate is {rate} at step {step}, which climbs the loss"),
        (None, true) => "the learning rate is 0 in every step, so nothing is learned".to_string(),
        (None, false) => return None,
    };
    Some(
        Diagnostic::warning("learning-rate", rate.span, message)
            .hint("a learning rate is above 0, such as `lr = 1e-3`"),
    )
}

/// Stages of the schedule that the run ends in the middle of, whatever the number of steps an epoch.
fn about_stages(rate: &Rate, clocks: &[ClockReading]) -> Vec<Diagnostic> {
    let late = |end: &ScalarExpr| clocks.iter().all(|clock| end.evaluate(clock) > clock.total_steps as f64);
    let warning = |(span, end): &(Span, ScalarExpr)| {
        let steps = match clocks {
            [clock] => format!(": it ends after step {}, and the run has {}", end.evaluate(clock), clock.total_steps),
            _ => String::new(),
        };
        let message = format!("this stage of the schedule lasts longer than the run{steps}");
        Diagnostic::warning("schedule-longer-than-run", *span, message).hint("shorten it, or train longer")
    };
    rate.stages.iter().filter(|(_, end)| late(end)).map(warning).collect()
}

impl Expander<'_> {
    /// Adds to a library's refusal of the loss what it was given, and the way out that the types of the fields show.
    pub(super) fn explain_loss(&mut self, before: usize, item: &TrainItem, bound: &Bound, fields: &[FieldInfo]) {
        let project = self.project;
        let refused = self.diagnostics[before..].iter_mut().find(|finding| {
            REFUSALS.contains(&finding.code)
                && finding.labels.get(1).is_some_and(|label| project.is_library(label.span.file))
        });
        let target = bound.targets.iter().find_map(|name| fields.iter().find(|field| field.name == *name));
        let (Some(refused), Some(target), Some((_, output))) = (refused, target, bound.outputs.first()) else { return };
        let (name, shape) = (&target.name, self.graph.shape(*output));
        let wanted = bound.field(name).map_or(&[][..], |value| self.graph.shape(value));
        let kind = match (target.classes, target.dtype) {
            (Some(classes), _) => format!("class[{classes}]"),
            (None, DType::I32) => "integers".to_string(),
            (None, DType::F32 | DType::Bool) => "floats".to_string(),
        };
        let place = item.field_place(name).unwrap_or(item.model.span);
        let given = format!("{kind} of shape {}, and the model gives {}", show(wanted), show(shape));
        *refused = refused.clone().label(place, given);
        let way_out = match (target.classes, target.dtype) {
            (_, DType::I32) if shape.len() > wanted.len() + 1 => {
                "`flatten` before the last layers makes one row of each sample".to_string()
            }
            (Some(classes), _) if shape.len() == wanted.len() + 1 => format!(
                "`cross_entropy({name})` takes numbers of classes; `prepare.{name} = one_hot` makes {classes} floats of each"
            ),
            (None, DType::F32) if refused.code == "type-mismatch" => {
                format!("declare `{name}` as `class[n]` for n classes, or as `i32`")
            }
            (Some(_) | None, DType::F32 | DType::I32 | DType::Bool) => return,
        };
        refused.hints.push(way_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_spread_over_runs_of_any_length() {
        for last in [1, 2, 1000, u64::MAX] {
            assert_eq!((spread(last, 0), spread(last, RATES - 1)), (1, last));
            assert!((1..RATES).all(|part| spread(last, part - 1) <= spread(last, part)));
        }
    }
}
