//! Where a step's first value that is not finite comes from.
//!
//! Input: the state before the step, and its batch. Output: an operation and its place in the model file. Invariant: all
//! arguments of the operation named were finite, or it is where such a value enters the step.

use std::collections::HashSet;

use super::{Trainer, TrainerError, load, run_step};
use crate::artifact::Watched;
use crate::device::Loaded;
use crate::graph::{Binary, Graph, Op, OutputName, Unary, Value, ValueId};
use crate::kernel::Role;
use crate::runtime::data::Batch;

/// See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// `a division at net.ansatz:7:12`
    pub operation: String,
    /// What may help.
    pub advice: &'static str,
    /// Places in the batch of the samples without which the step would be finite; none where it does not lie at a few.
    pub samples: Vec<usize>,
}

/// Samples of a batch that are looked for, one after the other.
const GUILTY_SAMPLES: usize = 3;

impl Trainer {
    /// Computes the next step for this batch without its updates, and looks at every value of it. None if all are finite.
    ///
    /// # Errors
    /// No memory for a step that keeps so many values; the device has failed.
    pub fn origin(&mut self, watched: &Watched, batch: &Batch) -> Result<Option<Origin>, TrainerError> {
        let loaded = load(&mut *self.device, &self.artifact, &watched.step.program, batch.rows)?;
        let broken = self.broken(watched, loaded, batch)?;
        let is_broken = |value: ValueId| broken.contains(&value);
        let Some(root) = watched.roots.iter().find(|root| is_broken(**root)) else { return Ok(None) };
        let value = watched.graph.value(first_broken(&watched.graph, is_broken, *root));
        let (operation, advice) = words(&watched.graph, value);
        let operation = format!("{operation} at {}", self.artifact.sources.location(value.span));
        let samples = guilty(batch.rows, |places| {
            let broken = self.broken(watched, loaded, &batch.only(places))?;
            Ok(watched.roots.iter().any(|root| broken.contains(root)))
        })?;
        Ok(Some(Origin { operation, advice, samples }))
    }

    /// The values of the next step that are not finite for this batch.
    fn broken(&mut self, watched: &Watched, loaded: Loaded, batch: &Batch) -> Result<HashSet<ValueId>, TrainerError> {
        let clock = self.extent.clock(self.position.step + 1);
        run_step(&mut *self.device, &self.artifact, &watched.step, loaded, batch, clock)?;
        let mut broken = HashSet::new();
        for buffer in &watched.step.program.buffers {
            if let Role::Output(OutputName::Watch(value)) = &buffer.role
                && !self.device.read_f32(buffer)?[0].is_finite()
            {
                broken.insert(*value);
            }
        }
        Ok(broken)
    }
}

/// The few samples of a batch without which a step of it is finite; `is_broken` is asked of batches that hold only the samples at
/// some places. None where more are needed than are looked for, or where a batch of any samples is broken.
fn guilty(
    rows: usize,
    mut is_broken: impl FnMut(&[usize]) -> Result<bool, TrainerError>,
) -> Result<Vec<usize>, TrainerError> {
    let (mut rest, mut found): (Vec<usize>, Vec<usize>) = ((0..rows).collect(), Vec::new());
    while rest.len() > 1 && found.len() < GUILTY_SAMPLES {
        let mut suspects = rest.clone();
        while suspects.len() > 1 {
            let behind = suspects.split_off(suspects.len() / 2);
            if !is_broken(&suspects)? {
                // A pair that only together is too much lies at no sample.
                if !is_broken(&behind)? {
                    return Ok(Vec::new());
                }
                suspects = behind;
            }
        }
        found.push(suspects[0]);
        rest.retain(|place| *place != suspects[0]);
        if !is_broken(&rest)? {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// From a broken value to one none of whose arguments is. Infinite constants are meant, such as those of masks, and are
/// followed only where nothing else explains the value.
fn first_broken(graph: &Graph, is_broken: impl Fn(ValueId) -> bool, root: ValueId) -> ValueId {
    let mut value = root;
    loop {
        let broken = graph.value(value).args.iter().filter(|arg| is_broken(**arg));
        match broken.min_by_key(|arg| matches!(graph.value(**arg).op, Op::Const(_))) {
            Some(arg) => value = *arg,
            None => return value,
        }
    }
}

const TOO_LARGE: &str = "values grew beyond the largest f32, 3.4e38: a smaller learning rate or `clip = 1.0` may help";

/// What the operation is called, and what may help.
fn words(graph: &Graph, value: &Value) -> (String, &'static str) {
    let plain = |words: &str, advice| (words.to_string(), advice);
    match &value.op {
        Op::Unary(Unary::Log) => plain(
            "a logarithm of zero or of a negative number",
            "keep its argument away from there, such as by `log(max(x, 1e-6))`",
        ),
        Op::Unary(Unary::Sqrt) => {
            plain("a root of a negative number", "keep its argument away from there, such as by `sqrt(max(x, 0))`")
        }
        Op::Binary(Binary::Div) => plain(
            "a division by zero, or by nearly zero (the slope of a root or a logarithm is one too),",
            "keep what it divides by away from zero, such as by `x / (y + 1e-6)`, `sqrt(x + 1e-12)`, `log(max(x, 1e-6))`",
        ),
        Op::Binary(Binary::Pow) => plain(
            "a power",
            "a negative number has no broken power, and zero no negative one: keep its base above zero, such as by `max(x, 1e-6)`",
        ),
        Op::Unary(Unary::Exp) => plain(
            "an exponential of more than 88.7",
            "subtract the largest argument first, as `softmax` does, or keep it below, such as by `exp(min(x, 80))`",
        ),
        Op::Input(id) => (
            format!(
                "the data's field `{}`, which holds what is not finite and is read",
                graph.inputs[id.0 as usize].name
            ),
            "clean the data, such as by `fill`",
        ),
        Op::Scalar(id) => (
            format!("the number `{}`", graph.scalars[id.0 as usize].name),
            "look at its formula and the settings of the optimizer and the schedule",
        ),
        Op::Const(number) => (format!("the constant {number}"), "a large finite number may do in its place"),
        Op::Param(_) | Op::State(_) => plain("a weight or a buffer", "start from others"),
        Op::Unary(Unary::Neg | Unary::Abs | Unary::Sin | Unary::Cos | Unary::Tanh | Unary::Sigmoid)
        | Op::Unary(Unary::Erf | Unary::Floor | Unary::Not)
        | Op::Binary(Binary::Rem | Binary::Max | Binary::Min | Binary::And | Binary::Or)
        | Op::Size(_)
        | Op::Index { .. }
        | Op::Random { .. }
        | Op::Compare(_)
        | Op::Select
        | Op::Cast
        | Op::Detach
        | Op::Reshape
        | Op::ReduceMax { .. }
        | Op::ArgMax { .. }
        | Op::Gather(_) => plain("an operation", TOO_LARGE),
        Op::Binary(Binary::Add | Binary::Sub) => plain("a sum", TOO_LARGE),
        Op::Binary(Binary::Mul) => plain("a product", TOO_LARGE),
        Op::Contract(_) | Op::Scatter(_) => plain("a sum of products", TOO_LARGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_guilty_samples_are_found_and_many_are_not() {
        let found = |bad: &[usize], rows| {
            guilty(rows, |places| Ok(places.iter().any(|place| bad.contains(place)))).expect("a device")
        };
        for rows in [2, 7, 32] {
            for bad in 0..rows {
                assert_eq!(found(&[bad], rows), [bad], "of {rows}");
            }
        }
        assert_eq!(found(&[3, 20], 32), [3, 20]);
        assert!(found(&[1, 3, 5, 20], 32).is_empty() && found(&[0, 1], 2).is_empty() && found(&[0], 1).is_empty());
        let together = guilty(32, |places| Ok(places.len() > 20)).expect("a device");
        assert!(together.is_empty(), "all of them together");
    }
}
