//! Sharing of equal values.
//!
//! Input and output: a graph. Invariant: of equal values the first stays, with its span.
//! Draws of random numbers are equal when stream and shape are.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;

use crate::graph::{Access, Binary, Graph, IndirectIndex, Op, Value, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    let mut known: HashMap<u64, Vec<ValueId>> = HashMap::new();
    super::rewrite(graph, |new, _, mut value| {
        if let Op::Binary(Binary::Add | Binary::Mul | Binary::And | Binary::Or) = value.op {
            value.args.sort_unstable();
        }
        let key = digest(&value);
        let same = |&id: &ValueId| {
            let other = new.value(id);
            other.op == value.op && other.args == value.args && other.shape == value.shape && other.dtype == value.dtype
        };
        if let Some(id) = known.get(&key).and_then(|ids| ids.iter().copied().find(|id| same(id))) {
            return id;
        }
        let id = new.push(value);
        known.entry(key).or_default().push(id);
        id
    });
}

/// A hash that equal values share; 0.0 and −0.0 differ.
fn digest(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    discriminant(&value.op).hash(&mut hasher);
    (&value.args, &value.shape, value.dtype).hash(&mut hasher);
    let mut accesses: Vec<&Access> = Vec::new();
    match &value.op {
        Op::Input(id) => id.hash(&mut hasher),
        Op::Param(id) => id.hash(&mut hasher),
        Op::State(id) => id.hash(&mut hasher),
        Op::Scalar(id) => id.hash(&mut hasher),
        Op::Const(number) => number.to_bits().hash(&mut hasher),
        Op::Size(dim) => dim.hash(&mut hasher),
        Op::Index { axis } => axis.hash(&mut hasher),
        Op::Random { stream } => stream.hash(&mut hasher),
        Op::Unary(op) => op.hash(&mut hasher),
        Op::Binary(op) => op.hash(&mut hasher),
        Op::Compare(op) => op.hash(&mut hasher),
        Op::Select | Op::Cast | Op::Detach | Op::Reshape => {}
        Op::Contract(contract) => {
            contract.domain.hash(&mut hasher);
            accesses.extend(&contract.operands);
            accesses.push(&contract.output);
        }
        Op::ReduceMax { axes } | Op::ArgMax { axes } => axes.hash(&mut hasher),
        Op::Gather(indirect) | Op::Scatter(indirect) => {
            indirect.domain.hash(&mut hasher);
            for index in &indirect.index {
                match index {
                    IndirectIndex::Affine(affine) => affine.hash(&mut hasher),
                    IndirectIndex::Tensor { arg, access } => (arg, access).hash(&mut hasher),
                }
            }
        }
    }
    accesses.hash(&mut hasher);
    hasher.finish()
}
