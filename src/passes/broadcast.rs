//! Elementwise work on repeated elements is done before they are repeated.
//!
//! Input and output: a graph. `op(broadcast a, broadcast b, constant)` becomes `broadcast op(a', b', constant)` over the
//! axes along which at least one operand varies, where some axis is left out.
//! Invariant: an elementwise op never computes more elements than before.

use super::access::{as_view, is_plain};
use crate::dim::Dim;
use crate::graph::{Affine, Contract, Graph, Op, Value, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    super::rewrite(graph, |new, _, value| match value.op {
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast | Op::Detach => {
            narrowed(new, &value).unwrap_or_else(|| new.push(value))
        }
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => new.push(value),
        Op::Const(_) | Op::Size(_) | Op::Index { .. } | Op::Random { .. } => new.push(value),
        Op::Reshape | Op::Contract(_) | Op::ReduceMax { .. } | Op::ArgMax { .. } => new.push(value),
        Op::Gather(_) | Op::Scatter(_) => new.push(value),
    });
}

/// An operand that varies along some axes only.
enum Operand {
    /// A constant or size.
    Uniform(Op),
    /// The index along an axis.
    Index(usize),
    /// `source[axes…]`; `None` stands for index 0 of a dim of size 1.
    Repeated(ValueId, Vec<Option<usize>>),
}

impl Operand {
    fn axes(&self) -> Vec<usize> {
        match self {
            Operand::Uniform(_) => Vec::new(),
            Operand::Index(axis) => vec![*axis],
            Operand::Repeated(_, axes) => axes.iter().flatten().copied().collect(),
        }
    }
}

fn narrowed(graph: &mut Graph, value: &Value) -> Option<ValueId> {
    let operands: Vec<Operand> = value.args.iter().map(|&arg| operand(graph, arg)).collect::<Option<_>>()?;
    let mut axes: Vec<usize> = operands.iter().flat_map(Operand::axes).collect();
    axes.sort_unstable();
    axes.dedup();
    let unit = Dim::constant(1);
    if (0..value.shape.len()).all(|axis| axes.contains(&axis) || value.shape[axis] == unit) {
        return None;
    }
    let shape: Vec<Dim> = axes.iter().map(|&axis| value.shape[axis].clone()).collect();
    let place = |axis: usize| axes.iter().position(|&other| other == axis).expect("the axes are the union");
    let args = value.args.clone().into_iter().zip(operands).map(|(arg, operand)| {
        let dtype = graph.value(arg).dtype;
        let op = match operand {
            Operand::Uniform(op) => op,
            Operand::Index(axis) => Op::Index { axis: place(axis) },
            Operand::Repeated(source, read) => {
                let read: Vec<Affine> = read
                    .iter()
                    .map(|axis| axis.map_or(Affine::constant(0), |axis| Affine::index(place(axis))))
                    .collect();
                return repeated(graph, source, read, &shape, value);
            }
        };
        graph.push(Value { op, args: Vec::new(), shape: shape.clone(), dtype, span: value.span })
    });
    let args: Vec<ValueId> = args.collect();
    let narrow = graph.push(Value { args, shape: shape.clone(), ..value.clone() });
    let read = axes.into_iter().map(Affine::index).collect();
    Some(repeated(graph, narrow, read, &value.shape.clone(), value))
}

/// `source` read at `read` over `shape`; itself where that changes nothing.
fn repeated(graph: &mut Graph, source: ValueId, read: Vec<Affine>, shape: &[Dim], like: &Value) -> ValueId {
    let output = crate::graph::build::identity_access(shape.len());
    if read == output {
        return source;
    }
    graph.contract(Contract { domain: shape.to_vec(), operands: vec![read], output }, &[source], shape, like.span)
}

fn operand(graph: &Graph, id: ValueId) -> Option<Operand> {
    let value = graph.value(id);
    match &value.op {
        Op::Const(_) | Op::Size(_) => Some(Operand::Uniform(value.op.clone())),
        Op::Index { axis } => Some(Operand::Index(*axis)),
        Op::Contract(_) => {
            let view = as_view(graph, id)?;
            let sizes = graph.shape(view.source);
            let (unit, zero) = (Dim::constant(1), Affine::constant(0));
            let moving: Vec<usize> =
                (0..sizes.len()).filter(|&m| !(sizes[m] == unit && view.read[m] == zero)).collect();
            let read = moving.iter().map(|&m| view.read[m].clone()).collect();
            let extents: Vec<Dim> = moving.iter().map(|&m| sizes[m].clone()).collect();
            is_plain(&read, &value.shape, &extents)
                .then(|| Operand::Repeated(view.source, view.read.iter().map(Affine::as_index).collect()))
        }
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) | Op::Random { .. } => None,
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast | Op::Detach => None,
        Op::Reshape | Op::ReduceMax { .. } | Op::ArgMax { .. } | Op::Gather(_) | Op::Scatter(_) => None,
    }
}
