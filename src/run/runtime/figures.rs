//! Figures of merit of a pass, and how they are written.
//!
//! Input: loss and metrics by split. Output: flat JSON objects, as tables have columns: `epoch`, `step`, `train.loss`,
//! `valid.accuracy`. Invariant: a key says which split was measured; figures that are not finite become `null`.

use serde::ser::{Serialize, Serializer};
use serde_json::Value;

use crate::settings::SplitName;

/// One metric over one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// As the `train` item names it: `accuracy`, `top(5)`.
    pub name: String,
    /// Its shape; none for one number, classes by classes for a confusion matrix.
    pub sizes: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f64>,
}

impl Metric {
    /// The value of a metric that is one number.
    pub fn single(&self) -> Option<f64> {
        if self.sizes.is_empty() { self.values.first().copied() } else { None }
    }
}

/// Loss and metrics over one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Mean loss a sample.
    pub loss: f64,
    /// The metrics, in the order of the `train` item.
    pub metrics: Vec<Metric>,
    /// Samples.
    pub samples: u64,
}

impl Figures {
    /// `loss`, or the metric of this name, if it is one number.
    pub fn single(&self, name: &str) -> Option<f64> {
        if name == "loss" {
            return Some(self.loss);
        }
        self.metrics.iter().find(|metric| metric.name == name)?.single()
    }

    /// Names and values in the order in which they are written.
    fn entries(&self) -> impl Iterator<Item = (&str, Value)> {
        let metrics = self.metrics.iter().map(|metric| (metric.name.as_str(), nested(&metric.sizes, &metric.values)));
        [("samples", Value::from(self.samples)), ("loss", Value::from(self.loss))].into_iter().chain(metrics)
    }
}

/// A number, or arrays in arrays.
fn nested(sizes: &[usize], values: &[f64]) -> Value {
    match sizes {
        [] => values.first().copied().into(),
        [0, ..] => Value::Array(Vec::new()),
        [size, rest @ ..] => values.chunks((values.len() / size).max(1)).map(|row| nested(rest, row)).collect(),
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.entries())
    }
}

/// One epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// Epochs done, from 1; not whole when a run ends within one.
    pub epoch: f64,
    /// Steps done.
    pub step: u64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Seconds since the run (or its resumption) began.
    pub seconds: f64,
    /// Steps of the epoch that were skipped, since they were not finite.
    pub skipped: u64,
    /// Steps of the epoch whose losses leapt.
    pub leaps: u64,
    /// The figures of each split that was measured; of `train` while training.
    pub splits: Vec<(SplitName, Figures)>,
}

impl Epoch {
    /// The figures of a split, if it was measured.
    pub fn split(&self, name: SplitName) -> Option<&Figures> {
        self.splits.iter().find(|(split, _)| *split == name).map(|(_, figures)| figures)
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let clock = [
            ("epoch".to_string(), Value::from(self.epoch)),
            ("step".to_string(), self.step.into()),
            ("lr".to_string(), self.lr.into()),
            ("seconds".to_string(), self.seconds.into()),
        ];
        let mishaps = [("skipped", self.skipped), ("leaps", self.leaps)].into_iter().filter(|(_, count)| *count > 0);
        let mishaps = mishaps.map(|(name, count)| (name.to_string(), count.into()));
        let figures = self.splits.iter().flat_map(|(split, figures)| {
            figures.entries().map(move |(name, value)| (format!("{split}.{name}"), value))
        });
        serializer.collect_map(clock.into_iter().chain(mishaps).chain(figures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_one_flat_object_whose_keys_name_the_split() {
        let metric = |name: &str, sizes: &[usize], values: &[f64]| Metric {
            name: name.into(),
            sizes: sizes.to_vec(),
            values: values.to_vec(),
        };
        let metrics = vec![metric("accuracy", &[], &[0.5]), metric("confusion", &[2, 2], &[1.0, 2.0, 3.0, 4.0])];
        let train = Figures { loss: f64::NAN, metrics: Vec::new(), samples: 9 };
        let test = Figures { loss: 0.25, metrics, samples: 4 };
        let splits = vec![(SplitName::Train, train), (SplitName::Test, test)];
        let epoch = Epoch { epoch: 1.0, step: 3, lr: 0.1, seconds: 2.0, skipped: 0, leaps: 0, splits };
        let expected = concat!(
            r#"{"epoch":1.0,"step":3,"lr":0.1,"seconds":2.0,"train.samples":9,"train.loss":null,"#,
            r#""test.samples":4,"test.loss":0.25,"test.accuracy":0.5,"test.confusion":[[1.0,2.0],[3.0,4.0]]}"#
        );
        assert_eq!(serde_json::to_string(&epoch).expect("plain data"), expected);
        let text = serde_json::to_string(&Epoch { skipped: 2, leaps: 1, ..epoch }).expect("plain data");
        assert_eq!(text, expected.replace("\"train.samples\"", "\"skipped\":2,\"leaps\":1,\"train.samples\""));
    }
}
