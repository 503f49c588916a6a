//! Elementwise work on repeated elements is done before they are repeated.
//!
//! Input and output: a graph.
//! 1. `op(broadcast a, broadcast b, constant)` becomes `broadcast op(a', b', constant)` over the axes along which at
//!    least one operand varies, where some axis is left out.
//! 2. A quotient by repeated elements becomes a product with their repeated reciprocals (one rounding more).
//! 3. In a chain of products the repeated factors and the constants come last, and those that repeat alike are
//!    multiplied before they are repeated.
//!
//! Invariant: an elementwise op never computes more elements than before.

use std::collections::HashSet;

use super::access::{as_view, is_plain};
use crate::dim::Dim;
use crate::graph::{Affine, Binary, Contract, DType, Graph, Op, Value, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    let uses = super::uses(graph);
    // Values of the new graph that have one reader.
    let mut single: HashSet<ValueId> = HashSet::new();
    super::rewrite(graph, |new, (old, _), value| {
        let before = new.len();
        let id = rewritten(new, value, &single);
        if uses[old.0 as usize] == 1 && id.0 as usize >= before {
            single.insert(id);
        }
        id
    });
}

fn rewritten(new: &mut Graph, value: Value, single: &HashSet<ValueId>) -> ValueId {
    match value.op {
        Op::Binary(Binary::Div) if value.dtype == DType::F32 => quotient(new, value, single),
        Op::Binary(Binary::Mul) if value.dtype == DType::F32 => product(new, &value, single),
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast | Op::Detach => {
            narrowed(new, &value).unwrap_or_else(|| new.push(value))
        }
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => new.push(value),
        Op::Const(_) | Op::Size(_) | Op::Index { .. } | Op::Random { .. } => new.push(value),
        Op::Reshape | Op::Contract(_) | Op::ReduceMax { .. } | Op::ArgMax { .. } => new.push(value),
        Op::Gather(_) | Op::Scatter(_) => new.push(value),
    }
}

/// `a / repeated(b)` as `a · repeated(1 / b)`.
fn quotient(graph: &mut Graph, value: Value, single: &HashSet<ValueId>) -> ValueId {
    if let Some(narrow) = narrowed(graph, &value) {
        return narrow;
    }
    let (a, b) = (value.args[0], value.args[1]);
    if !matches!(operand(graph, b), Some(Operand::Repeated(..))) {
        return graph.push(value);
    }
    let one = graph.constant(1.0, &value.shape, DType::F32, value.span);
    let reciprocal = Value { args: vec![one, b], ..value.clone() };
    match narrowed(graph, &reciprocal) {
        Some(reciprocal) => {
            product(graph, &Value { op: Op::Binary(Binary::Mul), args: vec![a, reciprocal], ..value }, single)
        }
        None => graph.push(value),
    }
}

/// The product, its chain of factors in order: full ones, repeated ones, constant.
fn product(graph: &mut Graph, value: &Value, single: &HashSet<ValueId>) -> ValueId {
    if let Some(narrow) = narrowed(graph, value) {
        return narrow;
    }
    let mut factors = Vec::new();
    value.args.iter().for_each(|&arg| chain(graph, arg, single, &mut factors));
    let mut constant = 1.0;
    let (mut full, mut repeated): (Vec<ValueId>, Vec<(Vec<usize>, ValueId)>) = (Vec::new(), Vec::new());
    for factor in factors {
        if let Op::Const(number) = graph.value(factor).op {
            constant *= number;
            continue;
        }
        let axes = operand(graph, factor).filter(|operand| matches!(operand, Operand::Repeated(..)));
        let Some(axes) = axes.map(|operand| operand.axes()) else {
            full.push(factor);
            continue;
        };
        let wide = (0..value.shape.len()).all(|axis| axes.contains(&axis) || value.shape[axis] == Dim::constant(1));
        match repeated.iter_mut().find(|(other, _)| *other == axes) {
            _ if wide => full.push(factor),
            Some((_, other)) => *other = times(graph, *other, factor, value),
            None => repeated.push((axes, factor)),
        }
    }
    if constant != 1.0 {
        let number = graph.constant(constant, &value.shape, DType::F32, value.span);
        match repeated.first_mut() {
            Some((_, factor)) => *factor = times(graph, *factor, number, value),
            None => full.push(number),
        }
    }
    let all = full.into_iter().chain(repeated.into_iter().map(|(_, factor)| factor));
    let all: Vec<ValueId> = all.collect();
    all.into_iter().reduce(|a, b| times(graph, a, b, value)).expect("a product has factors")
}

/// The factors of a value: of products that nobody else reads, their factors.
fn chain(graph: &Graph, id: ValueId, single: &HashSet<ValueId>, factors: &mut Vec<ValueId>) {
    let value = graph.value(id);
    if value.op == Op::Binary(Binary::Mul) && single.contains(&id) && factors.len() < MAX_FACTORS {
        value.args.iter().for_each(|&arg| chain(graph, arg, single, factors));
    } else {
        factors.push(id);
    }
}

/// Longer chains of products keep their order.
const MAX_FACTORS: usize = 16;

/// `a · b`, narrow where both repeat.
fn times(graph: &mut Graph, a: ValueId, b: ValueId, like: &Value) -> ValueId {
    let value = Value { op: Op::Binary(Binary::Mul), args: vec![a, b], ..like.clone() };
    narrowed(graph, &value).unwrap_or_else(|| graph.push(value))
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
