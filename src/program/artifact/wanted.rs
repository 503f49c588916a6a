//! Which steps a run wants, for its numbers of samples.
//!
//! Input: numbers of samples, and of those in a batch. Output: steps by purpose and number of samples. Invariant: a step is
//! named once; the first one is for a whole batch, where there are so many samples.

use super::Purpose;

/// Samples of a prediction: enough to fill a product's tiles, few enough that one alone costs little.
const PREDICTION_ROWS: usize = 16;

/// The numbers of samples in the batches of a split: whole ones, and a short last one.
pub fn batches(samples: usize, batch: usize) -> impl Iterator<Item = usize> {
    [batch.min(samples), samples % batch].into_iter().filter(|rows| *rows > 0)
}

/// How many samples a prediction takes at once.
pub fn prediction_rows(batch: usize) -> usize {
    batch.min(PREDICTION_ROWS)
}

/// The steps that train on the first of these splits and evaluate on the others.
pub fn to_train([train, valid, test]: [usize; 3], batch: usize) -> Vec<(Purpose, usize)> {
    let trained = std::iter::once(batch).chain(batches(train, batch)).map(|rows| (Purpose::Train, rows));
    let evaluated = [valid, test].into_iter().flat_map(|samples| batches(samples, batch));
    each_once(trained.chain(evaluated.map(|rows| (Purpose::Evaluate, rows))))
}

/// The steps that evaluate a split of so many samples and predict them.
pub fn to_evaluate(samples: usize, batch: usize) -> Vec<(Purpose, usize)> {
    let evaluated = batches(samples, batch).map(|rows| (Purpose::Evaluate, rows));
    each_once(evaluated.chain(to_predict(batch)))
}

/// The step that predicts.
pub fn to_predict(batch: usize) -> Vec<(Purpose, usize)> {
    vec![(Purpose::Predict, prediction_rows(batch))]
}

/// Steps in order without repetitions.
pub fn each_once(steps: impl Iterator<Item = (Purpose, usize)>) -> Vec<(Purpose, usize)> {
    let mut known = Vec::new();
    steps.for_each(|step| {
        if !known.contains(&step) {
            known.push(step);
        }
    });
    known
}

#[cfg(test)]
mod tests {
    use super::Purpose::{Evaluate, Predict, Train};
    use super::*;

    #[test]
    fn whole_and_short_batches_each_have_a_step() {
        assert_eq!(to_train([70, 32, 33], 32), [(Train, 32), (Train, 6), (Evaluate, 32), (Evaluate, 1)]);
        assert_eq!(to_train([20, 0, 5], 32), [(Train, 32), (Train, 20), (Evaluate, 5)]);
        assert_eq!(to_evaluate(64, 32), [(Evaluate, 32), (Predict, 16)]);
        assert_eq!(to_predict(4), [(Predict, 4)]);
    }
}
