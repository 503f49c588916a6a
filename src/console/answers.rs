//! What a model's outputs say to a person: the class's word and its probability, or a number in the unit of the data.
//!
//! Input: outputs of a batch. Output: [`Cell`]s by name for a sample. Invariant: what stands for a class or a probability
//! follows from the data item and from what the loss `predicts`, never from a name.

use crate::Failure;
use crate::findings;
use crate::graph::{DType, OutputName};
use crate::rows::Cell;
use crate::runtime::data::{self, Preparation};
use crate::runtime::trainer::Prediction;
use crate::session::Session;
use crate::settings::FieldInfo;

/// How the outputs of a session's model are read.
pub struct Answers {
    target: Option<Target>,
    output: Option<OutputName>,
    reading: Option<OutputName>,
    preparation: Preparation,
}

/// The field that the model learned to predict.
struct Target {
    info: FieldInfo,
    /// As declared, before preparation.
    classes: Option<usize>,
}

/// What an output is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerKind {
    /// The last dim has a place for each class.
    Classes(usize),
    /// A probability of the second of two classes.
    Binary,
    /// Numbers as they are.
    Numbers,
}

impl Answers {
    /// Of the model and loss of a session.
    pub fn of(session: &Session) -> Result<Self, Failure> {
        let spec = &session.settings().data;
        let fields = findings::unwrap(data::fields(spec), session.sources())?;
        let reading = session.network.reading()?;
        let target = reading.target.and_then(|name| {
            let declared = spec.fields.iter().find(|field| field.name == name)?;
            let classes = (declared.element == "class").then(|| declared.sizes.first().copied()).flatten();
            Some(Target { info: fields.iter().find(|info| info.name == name)?.clone(), classes })
        });
        let preparation = session.dataset.preparation.clone();
        Ok(Self { target, output: reading.output, reading: reading.predicted, preparation })
    }

    /// What an output of these sizes a sample is about.
    fn kind(&self, sizes: &[usize]) -> AnswerKind {
        let Some(target) = &self.target else { return AnswerKind::Numbers };
        let (elements, own) = (sizes.iter().product::<usize>(), target.info.elements());
        match sizes.last() {
            Some(&count) if count > 1 && target.info.dtype == DType::I32 && elements == own * count => {
                AnswerKind::Classes(count)
            }
            Some(&count) if count > 1 && target.classes.is_some() && elements == own => AnswerKind::Classes(count),
            _ if target.classes == Some(2) && elements == own && self.reading.is_some() => AnswerKind::Binary,
            _ => AnswerKind::Numbers,
        }
    }

    /// The outputs of one sample of `rows`, as the model gives them.
    pub fn raw(&self, outputs: &[Prediction], row: usize, rows: usize) -> Vec<(String, Cell)> {
        let own = outputs
            .iter()
            .filter(|output| matches!(output.name, OutputName::Named(_)) && output.sizes.first() == Some(&rows));
        own.map(|output| {
            let values = sample(output, row, rows).iter().map(|value| Cell::Single(*value)).collect();
            (output.name.to_string(), Cell::of(values))
        })
        .collect()
    }

    /// What the model says of one sample, with the `top` likeliest classes.
    ///
    /// # Errors
    /// An output that is not finite.
    pub fn read(
        &self,
        outputs: &[Prediction],
        row: usize,
        rows: usize,
        top: usize,
    ) -> Result<Vec<(String, Cell)>, String> {
        let (Some(target), Some((output, values))) = (&self.target, self.values(outputs, row, rows)) else {
            return Ok(self.raw(outputs, row, rows));
        };
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(format!("`{}` is {value}", output.name));
        }
        let likely = |value: f32| self.reading.is_some().then_some(Cell::Single(value));
        let field = &target.info.name;
        let mut cells = Vec::new();
        match self.kind(&output.sizes[1..]) {
            AnswerKind::Classes(count) => {
                let orders: Vec<Vec<usize>> = values.chunks_exact(count).map(descending).collect();
                for place in 0..top.min(count) {
                    let end = if place == 0 { String::new() } else { format!("_{}", place + 1) };
                    let chosen = orders.iter().map(|order| self.class(field, order[place])).collect();
                    cells.push((format!("class{end}"), Cell::of(chosen)));
                    let of_chosen = orders.iter().zip(values.chunks_exact(count));
                    let probabilities: Option<Vec<Cell>> =
                        of_chosen.map(|(order, v)| likely(v[order[place]])).collect();
                    cells.extend(probabilities.map(|list| (format!("probability{end}"), Cell::of(list))));
                }
            }
            AnswerKind::Binary => {
                let chosen = values.iter().map(|value| self.class(field, usize::from(*value > 0.5))).collect();
                cells.push(("class".to_string(), Cell::of(chosen)));
                let sure = values.iter().map(|value| Cell::Single(value.max(1.0 - value))).collect();
                cells.push(("probability".to_string(), Cell::of(sure)));
            }
            AnswerKind::Numbers => {
                let name = if values.len() == target.info.elements() { field } else { &output.name.to_string() };
                let mut restored: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
                if name == field {
                    self.preparation.restore(field, &mut restored);
                }
                cells.push((name.clone(), Cell::of(restored.iter().map(|v| Cell::Single(*v as f32)).collect())));
            }
        }
        Ok(cells)
    }

    /// How many classes an output of this shape tells apart, if it does.
    pub fn classes(&self, outputs: &[Prediction]) -> Option<usize> {
        let output = outputs.iter().find(|output| Some(&output.name) == self.output.as_ref())?;
        match self.kind(output.sizes.get(1..)?) {
            AnswerKind::Classes(count) => Some(count),
            AnswerKind::Binary => Some(2),
            AnswerKind::Numbers => None,
        }
    }

    /// The classes that the model gives the places of one sample.
    pub fn chosen(&self, outputs: &[Prediction], row: usize, rows: usize) -> Vec<usize> {
        let Some((output, values)) = self.values(outputs, row, rows) else { return Vec::new() };
        match self.kind(&output.sizes[1..]) {
            AnswerKind::Classes(count) => values.chunks_exact(count).map(|values| descending(values)[0]).collect(),
            AnswerKind::Binary => values.iter().map(|value| usize::from(*value > 0.5)).collect(),
            AnswerKind::Numbers => Vec::new(),
        }
    }

    /// Whether the model learned to predict classes.
    pub fn has_classes(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.classes.is_some() || target.info.dtype == DType::I32)
    }

    /// The field that holds the true classes.
    pub fn target(&self) -> Option<&FieldInfo> {
        self.target.as_ref().map(|target| &target.info)
    }

    /// The words or numbers of the first classes.
    pub fn words(&self, count: usize) -> Vec<String> {
        let field = self.target.as_ref().map_or("", |target| target.info.name.as_str());
        (0..count).map(|class| self.preparation.class(field, class)).collect()
    }

    /// The output that flows into the loss, and what is to be read from it for one sample.
    fn values<'o>(&self, outputs: &'o [Prediction], row: usize, rows: usize) -> Option<(&'o Prediction, &'o [f32])> {
        let find = |name: &OutputName| {
            outputs.iter().find(|output| output.name == *name && output.sizes.first() == Some(&rows))
        };
        let output = find(self.output.as_ref()?)?;
        let read = self.reading.as_ref().and_then(find).unwrap_or(output);
        Some((output, sample(read, row, rows)))
    }

    fn class(&self, field: &str, class: usize) -> Cell {
        let has_words = self.preparation.field(field).is_some_and(|field| !field.words.is_empty());
        if has_words { Cell::Text(self.preparation.class(field, class)) } else { Cell::Whole(class as u64) }
    }
}

fn sample(output: &Prediction, row: usize, rows: usize) -> &[f32] {
    let length = output.values.len() / rows.max(1);
    &output.values[row * length..(row + 1) * length]
}

/// Places by value, the largest first; of equal ones the first.
fn descending(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_without_samples_says_nothing_of_one() {
        let name = OutputName::Named("energy".into());
        let info = FieldInfo { name: "y".into(), sizes: Vec::new(), dtype: DType::F32, classes: None };
        let target = Some(Target { info, classes: None });
        let answers =
            Answers { target, output: Some(name.clone()), reading: None, preparation: Preparation::default() };
        for sizes in [vec![], vec![3]] {
            let values = vec![0.5; sizes.iter().product()];
            let outputs = [Prediction { name: name.clone(), sizes, values }];
            assert!(answers.read(&outputs, 1, 2, 1).expect("read").is_empty());
            assert!(answers.chosen(&outputs, 1, 2).is_empty() && answers.classes(&outputs).is_none());
        }
    }
}
