//! What a run is made from, as its checkpoints note it.
//!
//! Input: hashes and settings of a session. Output: a [`Recipe`], plain data, and how two of them differ. Invariant:
//! it tells what files mean, never where they lie or how they are written; of the machine it has the instruction set
//! alone, on which the bits of results depend.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What fixes a run; two runs with equal recipes have equal bits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// A hash of the training step's graph: the model with its loss, optimizer, schedule and metrics for one batch.
    pub model: String,
    /// The lines of the `train` item that say what a step computes, and the model; see `settings::Training`.
    #[serde(default)]
    pub lines: BTreeMap<String, String>,
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// A hash of each field's numbers as training, validation and test read them.
    pub data: BTreeMap<String, String>,
    /// Samples to train, validate and test on.
    pub samples: [usize; 3],
    /// Settings of the command line.
    pub settings: Vec<(String, String)>,
    /// Of initialisation, shuffling, splits, augmentation and dropout.
    pub seed: u64,
    /// The samples keep their order.
    pub no_shuffle: bool,
    /// Short last batches are left out.
    #[serde(default)]
    pub drop_last: bool,
    /// The instruction set: `avx512`, `avx2` or `portable`.
    pub level: String,
}

impl Recipe {
    /// How the model file of `now` means something else than this one did; `tensors` tells how the weights of the two differ.
    pub fn changes_of_model(&self, now: &Recipe, tensors: &[String]) -> Vec<String> {
        let mut changes = Vec::new();
        if self.model != now.model {
            changes.extend(changes_of_lines(&self.lines, &now.lines));
            changes.extend(tensors.iter().take(SHOWN_TENSORS).cloned());
            if tensors.len() > SHOWN_TENSORS {
                changes.push(format!("{} other weights differ too", tensors.len() - SHOWN_TENSORS));
            }
            if changes.is_empty() {
                changes.push("the weights have the same shapes, but what a layer, the loss, the optimizer, the schedule or a metric \
                    computes is something else".to_string());
            }
        }
        if self.drop_last != now.drop_last {
            changes.push(format!("`drop_last` was {} and is {}", self.drop_last, now.drop_last));
        }
        // With other samples an epoch has other steps.
        if self.steps != now.steps && self.samples == now.samples {
            changes.push(format!("the run was to take {} steps and would take {}", self.steps, now.steps));
        }
        if self.seed != now.seed {
            changes.push(format!("the seed was {} and is {}", self.seed, now.seed));
        }
        changes
    }

    /// How the data of `now` are others than those of this one.
    pub fn changes_of_data(&self, now: &Recipe) -> Vec<String> {
        let mut changes = Vec::new();
        if self.samples != now.samples {
            let [train, valid, test] = self.samples;
            let [train_now, valid_now, test_now] = now.samples;
            changes.push(format!(
                "there were {train} samples to train, {valid} to validate and {test} to test on, and are {train_now}, \
                 {valid_now} and {test_now}"
            ));
        }
        let fields = self.data.keys().chain(now.data.keys().filter(|name| !self.data.contains_key(*name)));
        let others = fields.filter(|name| self.data.get(*name) != now.data.get(*name));
        changes.extend(others.map(|name| format!("`{name}` has other values")));
        changes
    }
}

/// Weights that are named where many differ.
const SHOWN_TENSORS: usize = 8;

/// Lines that differ in more than spaces, each with both texts.
fn changes_of_lines(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let plain = |text: &String| text.split_whitespace().collect::<String>();
    let said = |text: Option<&String>| text.map_or("not said".to_string(), |text| format!("`{text}`"));
    // An earlier build noted no lines.
    let names = now.keys().chain(before.keys().filter(|name| !now.contains_key(*name))).filter(|_| !before.is_empty());
    let others = names.filter(|name| before.get(*name).map(plain) != now.get(*name).map(plain));
    others.map(|name| format!("`{name}` is {}, was {}", said(now.get(name)), said(before.get(name)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_model_is_told_by_its_lines_and_weights() {
        let lines =
            |lines: &[(&str, &str)]| lines.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
        let before = Recipe {
            model: "a".into(),
            lines: lines(&[("optimizer", "sgd(lr = 1)"), ("clip", "1.0")]),
            ..Recipe::default()
        };
        let now = Recipe {
            model: "b".into(),
            lines: lines(&[("optimizer", "adam(lr=1)"), ("batch", "8")]),
            ..Recipe::default()
        };
        let told = [
            "`batch` is `8`, was not said",
            "`optimizer` is `adam(lr=1)`, was `sgd(lr = 1)`",
            "`clip` is not said, was `1.0`",
        ];
        assert_eq!(before.changes_of_model(&now, &[]), told);
        let spaced = Recipe {
            model: "b".into(),
            lines: lines(&[("optimizer", "sgd(lr=1)"), ("clip", "1.0")]),
            ..Recipe::default()
        };
        assert_eq!(before.changes_of_model(&spaced, &["`w` is [3], was [2]".into()]), ["`w` is [3], was [2]"]);
        let same = before.changes_of_model(&spaced, &[]);
        assert!(same.len() == 1 && same[0].contains("computes is something else"), "{same:?}");
        assert_eq!(before.changes_of_model(&spaced, &vec!["`w` is gone".into(); 11]).len(), 9);
        assert!(before.changes_of_model(&Recipe { model: "a".into(), ..now }, &[]).is_empty(), "written otherwise");
    }

    #[test]
    fn changes_are_told_one_by_one() {
        let data = |hash: &str| BTreeMap::from([("x".to_string(), hash.to_string())]);
        let before = Recipe { steps: 10, samples: [8, 0, 2], data: data("a"), ..Recipe::default() };
        assert!(before.changes_of_model(&before, &[]).is_empty() && before.changes_of_data(&before).is_empty());
        let longer = Recipe { steps: 20, seed: 3, ..before.clone() };
        assert_eq!(before.changes_of_model(&longer, &[]).len(), 2);
        assert!(before.changes_of_data(&longer).is_empty());
        let other = Recipe { steps: 12, samples: [9, 0, 2], data: data("b"), ..before.clone() };
        assert!(before.changes_of_model(&other, &[]).is_empty(), "the steps follow from the samples");
        assert_eq!(before.changes_of_data(&other).len(), 2);
        let renamed = Recipe { data: BTreeMap::from([("y".to_string(), "a".to_string())]), ..before.clone() };
        assert_eq!(before.changes_of_data(&renamed), ["`x` has other values", "`y` has other values"]);
    }
}
