//! Every derivative, on one page.
//!
//! Input: a value `y = op(args)`, the position of one argument and the gradient `g` of the root by `y`.
//! Output: the gradient's part for that argument, or none where it is zero everywhere.
//! Invariant: the formulas are those stated at the variants of [`Op`]; the match names every variant.

use crate::dim::Dim;
use crate::graph::{Affine, Binary, Compare, Contract, DType, Graph, Op, Unary, ValueId};
use crate::source::Span;

/// The part of argument `position` of `y` when the gradient by `y` is `g`.
pub(super) fn gradient(graph: &mut Graph, y: ValueId, position: usize, g: ValueId) -> Option<ValueId> {
    let value = graph.value(y).clone();
    let (args, span) = (value.args, value.span);
    match value.op {
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => None,
        Op::Const(_) | Op::Size(_) | Op::Index { .. } | Op::Random { .. } => None,
        Op::Unary(op) => unary(&mut Rule { graph, span, g }, op, args[0], y),
        Op::Binary(op) => binary(&mut Rule { graph, span, g }, op, args[0], args[1], y, position),
        Op::Compare(_) => None,
        Op::Select => {
            let rule = &mut Rule { graph, span, g };
            let zero = rule.constant(0.0);
            match position {
                0 => None,
                1 => Some(rule.graph.select(args[0], g, zero, span)),
                _ => Some(rule.graph.select(args[0], zero, g, span)),
            }
        }
        Op::Cast => (graph.value(args[0]).dtype == DType::F32).then_some(g),
        Op::Detach => None,
        Op::Reshape => {
            let shape = graph.shape(args[0]).to_vec();
            Some(graph.reshape(g, &shape, span))
        }
        Op::Contract(Contract { domain, mut operands, output }) => {
            let output = std::mem::replace(&mut operands[position], output);
            let shape = graph.shape(args[position]).to_vec();
            let mut args = args;
            args[position] = g;
            Some(graph.contract(Contract { domain, operands, output }, &args, &shape, span))
        }
        Op::ReduceMax { axes } => Some(reduce_max(graph, args[0], &axes, g, span)),
        Op::ArgMax { .. } => None,
        Op::Gather(indirect) => (position == 0).then(|| {
            let shape = graph.shape(args[0]).to_vec();
            let mut args = args;
            args[0] = g;
            graph.scatter(indirect, &args, &shape, span)
        }),
        Op::Scatter(indirect) => (position == 0).then(|| {
            let mut args = args;
            args[0] = g;
            graph.gather(indirect, &args, span)
        }),
    }
}

/// Shorthand for the elementwise rules: all values have the shape of `g`.
struct Rule<'g> {
    graph: &'g mut Graph,
    span: Span,
    g: ValueId,
}

impl Rule<'_> {
    fn constant(&mut self, value: f64) -> ValueId {
        let shape = self.graph.shape(self.g).to_vec();
        self.graph.constant(value, &shape, DType::F32, self.span)
    }

    fn unary(&mut self, op: Unary, x: ValueId) -> ValueId {
        self.graph.unary(op, x, self.span)
    }

    fn mul(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.graph.binary(Binary::Mul, a, b, self.span)
    }

    fn div(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.graph.binary(Binary::Div, a, b, self.span)
    }

    fn sub(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.graph.binary(Binary::Sub, a, b, self.span)
    }

    /// `op(a, b) ? then : otherwise`.
    fn choose(&mut self, op: Compare, a: ValueId, b: ValueId, then: ValueId, otherwise: ValueId) -> ValueId {
        let condition = self.graph.compare(op, a, b, self.span);
        self.graph.select(condition, then, otherwise, self.span)
    }
}

fn unary(rule: &mut Rule, op: Unary, x: ValueId, y: ValueId) -> Option<ValueId> {
    let g = rule.g;
    let factor = match op {
        Unary::Neg => return Some(rule.unary(Unary::Neg, g)),
        Unary::Abs => {
            let zero = rule.constant(0.0);
            let negative = rule.unary(Unary::Neg, g);
            let below = rule.choose(Compare::Lt, x, zero, negative, zero);
            return Some(rule.choose(Compare::Gt, x, zero, g, below));
        }
        Unary::Exp => y,
        Unary::Log => return Some(rule.div(g, x)),
        Unary::Sqrt => {
            let two = rule.constant(2.0);
            let twice = rule.mul(two, y);
            return Some(rule.div(g, twice));
        }
        Unary::Sin => rule.unary(Unary::Cos, x),
        Unary::Cos => {
            let sine = rule.unary(Unary::Sin, x);
            rule.unary(Unary::Neg, sine)
        }
        Unary::Tanh => {
            let one = rule.constant(1.0);
            let square = rule.mul(y, y);
            rule.sub(one, square)
        }
        Unary::Sigmoid => {
            let one = rule.constant(1.0);
            let rest = rule.sub(one, y);
            rule.mul(y, rest)
        }
        Unary::Erf => {
            let square = rule.mul(x, x);
            let negative = rule.unary(Unary::Neg, square);
            let bell = rule.unary(Unary::Exp, negative);
            let scale = rule.constant(std::f64::consts::FRAC_2_SQRT_PI);
            rule.mul(scale, bell)
        }
        Unary::Floor | Unary::Not => return None,
    };
    Some(rule.mul(g, factor))
}

fn binary(rule: &mut Rule, op: Binary, a: ValueId, b: ValueId, y: ValueId, position: usize) -> Option<ValueId> {
    let g = rule.g;
    let part = match (op, position) {
        (Binary::Add, _) | (Binary::Sub, 0) | (Binary::Rem, 0) => g,
        (Binary::Sub, _) => rule.unary(Unary::Neg, g),
        (Binary::Mul, 0) => rule.mul(g, b),
        (Binary::Mul, _) => rule.mul(g, a),
        (Binary::Div, 0) => rule.div(g, b),
        (Binary::Div, _) => {
            let slope = rule.div(y, b);
            let part = rule.mul(g, slope);
            rule.unary(Unary::Neg, part)
        }
        (Binary::Rem, _) => {
            let quotient = rule.div(a, b);
            let whole = rule.unary(Unary::Floor, quotient);
            let part = rule.mul(g, whole);
            rule.unary(Unary::Neg, part)
        }
        (Binary::Pow, 0) => return power_by_base(rule, a, b),
        (Binary::Pow, _) => {
            let zero = rule.constant(0.0);
            let logarithm = rule.unary(Unary::Log, a);
            let slope = rule.mul(y, logarithm);
            let part = rule.mul(g, slope);
            rule.choose(Compare::Eq, a, zero, zero, part)
        }
        (Binary::Max, 0) => extremum(rule, Compare::Lt, a, b),
        (Binary::Max, _) => extremum(rule, Compare::Lt, b, a),
        (Binary::Min, 0) => extremum(rule, Compare::Gt, a, b),
        (Binary::Min, _) => extremum(rule, Compare::Gt, b, a),
        (Binary::And | Binary::Or, _) => return None,
    };
    Some(part)
}

/// g·b·aᵇ⁻¹; for a constant exponent its predecessor is a constant too, and for 0 there is no gradient.
fn power_by_base(rule: &mut Rule, a: ValueId, b: ValueId) -> Option<ValueId> {
    let g = rule.g;
    let less = if let Op::Const(exponent) = rule.graph.value(b).op {
        if exponent == 0.0 {
            return None;
        }
        rule.constant(exponent - 1.0)
    } else {
        let one = rule.constant(1.0);
        rule.sub(b, one)
    };
    let power = rule.graph.binary(Binary::Pow, a, less, rule.span);
    let slope = rule.mul(b, power);
    Some(rule.mul(g, slope))
}

/// 0 where `mine` loses against `other`, half of g at a tie, else g: also where one of them is not a number.
fn extremum(rule: &mut Rule, loses: Compare, mine: ValueId, other: ValueId) -> ValueId {
    let (zero, half) = (rule.constant(0.0), rule.constant(0.5));
    let shared = rule.mul(rule.g, half);
    let kept = rule.choose(Compare::Eq, mine, other, shared, rule.g);
    rule.choose(loses, mine, other, zero, kept)
}

/// g at the first maximal element, else 0: the element's row-major index within `axes` is compared with [`Op::ArgMax`].
fn reduce_max(graph: &mut Graph, x: ValueId, axes: &[usize], g: ValueId, span: Span) -> ValueId {
    let shape = graph.shape(x).to_vec();
    let kept: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
    let mut own = graph.constant(0.0, &shape, DType::I32, span);
    for (place, &axis) in axes.iter().enumerate() {
        let index = graph.index(axis, &shape, span);
        if place == 0 {
            own = index;
            continue;
        }
        let size = graph.size(shape[axis].clone(), &shape, DType::I32, span);
        let before = graph.binary(Binary::Mul, own, size, span);
        own = graph.binary(Binary::Add, before, index, span);
    }
    let first = graph.arg_max(x, axes, span);
    let first = spread(graph, first, &shape, &kept, span);
    let wide = spread(graph, g, &shape, &kept, span);
    let chosen = graph.compare(Compare::Eq, own, first, span);
    let zero = graph.constant(0.0, &shape, DType::F32, span);
    graph.select(chosen, wide, zero, span)
}

/// Repeats `x`, whose axes are the `kept` ones of `shape`, over `shape`; an axis of size 1 stays plain.
fn spread(graph: &mut Graph, x: ValueId, shape: &[Dim], kept: &[usize], span: Span) -> ValueId {
    let read = kept.iter().copied().map(Affine::index).collect();
    let output = crate::graph::build::identity_access(shape.len());
    graph.contract(Contract { domain: shape.to_vec(), operands: vec![read], output }, &[x], shape, span)
}
