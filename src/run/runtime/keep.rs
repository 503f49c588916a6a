//! Which weights a run keeps as its best.
//!
//! Input: the `keep` line, the data, figures of epochs. Output: findings, splits to measure, whether a figure is a new
//! best. Invariant: a figure is taken from the split that the line names; one that is not finite is never the best.

use std::sync::Arc;

use super::data::{self, Dataset, Split};
use super::figures::Epoch;
use crate::diagnostics::Diagnostic;
use crate::settings::{Best, Direction, SplitName, Training};

/// What is wrong with the line for this data; without the data itself, for what its item declares.
pub fn findings(training: &Training, dataset: Option<&Dataset>) -> Vec<Diagnostic> {
    let Some(best) = &training.keep.best else { return Vec::new() };
    let has = match (best.split, dataset) {
        (split, Some(dataset)) => !dataset.split(split).is_empty(),
        (SplitName::Valid, None) => data::declares_valid(&training.data),
        (SplitName::Train | SplitName::Test, None) => true,
    };
    let figure = &best.figure;
    if !has {
        let message = format!("the data has no {0} split, so there is no `{0}.{figure}`", best.split);
        let hint = match best.split {
            SplitName::Valid => format!(
                "write `split = random(valid = 0.1, test = 0.1)` in the data item; or choose by what there is: \
                 `best(train.{figure})`, or `best(test.{figure})`, after which the test figure is too good to be true"
            ),
            SplitName::Train | SplitName::Test => format!("choose by what there is: `best(train.{figure})`"),
        };
        return vec![Diagnostic::error("missing-split", best.span, message).hint(hint)];
    }
    if best.split == SplitName::Test {
        let message = "weights that are chosen on the test split make its figures misleadingly good";
        let hint =
            format!("hold out another split to choose on: `split = random(valid = 0.1, …)`, `best(valid.{figure})`");
        return vec![Diagnostic::warning("selected-on-test", best.span, message).hint(hint)];
    }
    Vec::new()
}

/// The splits that are measured after each pass beside the training split: `valid`, without one `test`, and the one
/// that the best weights are chosen on.
pub fn measured<'d>(training: &Training, dataset: &'d Dataset) -> Vec<(SplitName, &'d Arc<Split>)> {
    let usual = [SplitName::Valid, SplitName::Test].into_iter().find(|split| !dataset.split(*split).is_empty());
    let chosen = training.keep.best.as_ref().map(|best| best.split).filter(|split| *split != SplitName::Train);
    let mut splits: Vec<SplitName> = usual.into_iter().chain(chosen).collect();
    splits.sort_unstable();
    splits.dedup();
    splits.into_iter().map(|name| (name, dataset.split(name))).filter(|(_, split)| !split.is_empty()).collect()
}

/// The kept figure of an epoch, if it is better than the best so far.
pub fn new_best(best: &Best, epoch: &Epoch, so_far: Option<f64>) -> Option<f64> {
    let value = epoch.split(best.split)?.single(&best.figure).filter(|value| value.is_finite())?;
    let is_better = |old: f64| match best.direction {
        Direction::Lower => value < old,
        Direction::Higher => value > old,
    };
    so_far.is_none_or(is_better).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Figures, Metric};
    use super::*;
    use crate::source::{FileId, Span};

    fn best(split: SplitName, figure: &str, direction: Direction) -> Best {
        Best { split, figure: figure.into(), direction, span: Span::new(FileId(0), 0, 0) }
    }

    fn epoch(split: SplitName, loss: f64, accuracy: f64) -> Epoch {
        let metrics = vec![Metric { name: "accuracy".into(), sizes: Vec::new(), values: vec![accuracy] }];
        let splits = vec![(split, Figures { loss, metrics, samples: 1 })];
        Epoch { epoch: 1.0, step: 1, lr: 0.1, seconds: 0.0, skipped: 0, leaps: 0, splits }
    }

    #[test]
    fn the_kept_figure_is_that_of_its_split_and_direction() {
        let by_accuracy = best(SplitName::Valid, "accuracy", Direction::Higher);
        let by_loss = best(SplitName::Valid, "loss", Direction::Lower);
        let valid = epoch(SplitName::Valid, 2.0, 0.25);
        assert_eq!(new_best(&by_accuracy, &valid, None), Some(0.25));
        assert_eq!(new_best(&by_accuracy, &valid, Some(0.5)), None);
        assert_eq!(new_best(&by_loss, &valid, Some(3.0)), Some(2.0));
        assert_eq!(new_best(&by_loss, &valid, Some(1.0)), None);
        assert_eq!(new_best(&by_accuracy, &epoch(SplitName::Test, 2.0, 0.25), None), None, "another split");
    }

    #[test]
    fn a_figure_that_is_not_finite_is_never_the_best() {
        let by_loss = best(SplitName::Valid, "loss", Direction::Lower);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(new_best(&by_loss, &epoch(SplitName::Valid, value, 0.5), None), None);
        }
        assert_eq!(new_best(&by_loss, &epoch(SplitName::Valid, 1.0, 0.5), None), Some(1.0));
    }
}
