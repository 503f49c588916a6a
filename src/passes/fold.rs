//! Constants and identities.
//!
//! Input and output: a graph. Rules, by op: an op on constants is a constant; neutral and absorbing elements vanish;
//! powers with small constant exponents become products and roots; a division by a constant becomes a product;
//! signs cancel; selections with one possible outcome, casts that change nothing, reshapes of reshapes and
//! [`Op::Detach`] vanish.
//! Invariant: each rule holds for every finite operand and keeps what is not a number: `0 · x` is 0 only where x cannot be
//! infinite. Constants stand right of commutative ops.

use crate::graph::scalar::{binary, binary_integer, compare, truth, unary};
use crate::graph::{Binary, Compare, DType, Graph, Op, Unary, Value, ValueId};

/// Runs the pass.
pub fn run(graph: &mut Graph) {
    super::rewrite(graph, |new, _, value| match value.op {
        Op::Unary(op) => fold_unary(new, op, value),
        Op::Binary(op) => fold_binary(new, op, value),
        Op::Compare(op) => fold_compare(new, op, value),
        Op::Select => fold_select(new, value),
        Op::Cast => fold_cast(new, value),
        Op::Detach => value.args[0],
        Op::Reshape => fold_reshape(new, value),
        Op::Size(ref dim) => match dim.as_const() {
            Some(size) => constant(new, &value, size as f64),
            None => new.push(value),
        },
        Op::Index { axis } if value.shape[axis].as_const() == Some(1) => constant(new, &value, 0.0),
        Op::ReduceMax { ref axes } if axes.is_empty() => value.args[0],
        Op::ArgMax { ref axes } if axes.is_empty() => constant(new, &value, 0.0),
        Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => new.push(value),
        Op::Const(_) | Op::Index { .. } | Op::Random { .. } => new.push(value),
        Op::Contract(_) | Op::ReduceMax { .. } | Op::ArgMax { .. } => new.push(value),
        Op::Gather(_) | Op::Scatter(_) => new.push(value),
    });
}

/// A constant of the shape and type of `like`.
fn constant(graph: &mut Graph, like: &Value, number: f64) -> ValueId {
    graph.constant(number, &like.shape, like.dtype, like.span)
}

/// The number that a value is everywhere.
fn number(graph: &Graph, id: ValueId) -> Option<f64> {
    let Op::Const(number) = graph.value(id).op else { return None };
    Some(number)
}

/// True if every element is a finite number whatever the step reads.
fn is_finite(graph: &Graph, id: ValueId) -> bool {
    let value = graph.value(id);
    value.dtype != DType::F32
        || match value.op {
            Op::Const(number) => number.is_finite(),
            Op::Size(_) | Op::Index { .. } | Op::Random { .. } => true,
            Op::Cast => is_finite(graph, value.args[0]),
            Op::Input(_) | Op::Param(_) | Op::State(_) | Op::Scalar(_) => false,
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Detach | Op::Reshape => false,
            Op::Contract(_) | Op::ReduceMax { .. } | Op::ArgMax { .. } | Op::Gather(_) | Op::Scatter(_) => false,
        }
}

/// The operand of a value that is `op` of one.
fn operand_of(graph: &Graph, op: Unary, id: ValueId) -> Option<ValueId> {
    let value = graph.value(id);
    (value.op == Op::Unary(op)).then(|| value.args[0])
}

fn fold_unary(graph: &mut Graph, op: Unary, value: Value) -> ValueId {
    let x = value.args[0];
    if let Some(number) = number(graph, x) {
        return constant(graph, &value, unary(op, number));
    }
    if let (Unary::Neg | Unary::Not, Some(inner)) = (op, operand_of(graph, op, x)) {
        return inner;
    }
    if op == Unary::Neg
        && graph.value(x).op == Op::Binary(Binary::Mul)
        && let [a, b] = graph.value(x).args[..]
        && let Some(factor) = number(graph, b)
    {
        let factor = constant(graph, &value, -factor);
        return graph.push(Value { op: Op::Binary(Binary::Mul), args: vec![a, factor], ..value });
    }
    graph.push(value)
}

fn fold_binary(graph: &mut Graph, op: Binary, mut value: Value) -> ValueId {
    let commutes = matches!(op, Binary::Add | Binary::Mul | Binary::And | Binary::Or);
    if commutes && number(graph, value.args[0]).is_some() {
        value.args.swap(0, 1);
    }
    let (a, b) = (value.args[0], value.args[1]);
    match (number(graph, a), number(graph, b)) {
        (Some(left), Some(right)) => {
            let result = match value.dtype {
                DType::I32 => f64::from(binary_integer(op, left as i32, right as i32)),
                DType::F32 | DType::Bool => binary(op, left, right),
            };
            constant(graph, &value, result)
        }
        (Some(left), None) => constant_left(graph, op, left, value),
        (None, Some(right)) => constant_right(graph, op, right, value),
        (None, None) => signs(graph, op, value),
    }
}

fn constant_left(graph: &mut Graph, op: Binary, left: f64, value: Value) -> ValueId {
    if op == Binary::Sub && left == 0.0 {
        return graph.unary(Unary::Neg, value.args[1], value.span);
    }
    graph.push(value)
}

/// `x op right`.
fn constant_right(graph: &mut Graph, op: Binary, right: f64, value: Value) -> ValueId {
    let x = value.args[0];
    match op {
        Binary::Add | Binary::Sub if right == 0.0 => x,
        Binary::Mul | Binary::Div if right == 1.0 => x,
        Binary::Mul if right == 0.0 && is_finite(graph, x) => constant(graph, &value, 0.0),
        Binary::Mul if right == -1.0 => graph.unary(Unary::Neg, x, value.span),
        Binary::Mul if value.dtype == DType::F32 => scale(graph, right, value),
        Binary::Div if value.dtype == DType::F32 && right != 0.0 && right.is_finite() => {
            let factor = constant(graph, &value, 1.0 / right);
            let product = Value { op: Op::Binary(Binary::Mul), args: vec![x, factor], ..value };
            scale(graph, 1.0 / right, product)
        }
        Binary::Pow => power(graph, right, value),
        Binary::And => {
            if right != 0.0 {
                x
            } else {
                constant(graph, &value, 0.0)
            }
        }
        Binary::Or => {
            if right != 0.0 {
                constant(graph, &value, 1.0)
            } else {
                x
            }
        }
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Div => graph.push(value),
        Binary::Rem | Binary::Max | Binary::Min => graph.push(value),
    }
}

/// `value = x · factor`; a factor of x and a sign of x join it.
fn scale(graph: &mut Graph, factor: f64, value: Value) -> ValueId {
    let x = value.args[0];
    if let Some(inner) = operand_of(graph, Unary::Neg, x) {
        let factor = constant(graph, &value, -factor);
        return graph.push(Value { args: vec![inner, factor], ..value });
    }
    if graph.value(x).op == Op::Binary(Binary::Mul)
        && let [inner, other] = graph.value(x).args[..]
        && let Some(first) = number(graph, other)
    {
        let factor = constant(graph, &value, first * factor);
        return graph.push(Value { args: vec![inner, factor], ..value });
    }
    graph.push(value)
}

/// `x ^ exponent` without the general power where a few cheaper ops do.
fn power(graph: &mut Graph, exponent: f64, value: Value) -> ValueId {
    let (x, span) = (value.args[0], value.span);
    let one = |graph: &mut Graph| constant(graph, &value, 1.0);
    if exponent == 0.0 {
        return one(graph);
    }
    if exponent == 1.0 {
        return x;
    }
    if exponent == 2.0 || exponent == 3.0 {
        let square = graph.binary(Binary::Mul, x, x, span);
        return if exponent == 2.0 { square } else { graph.binary(Binary::Mul, square, x, span) };
    }
    if exponent == 0.5 {
        return graph.unary(Unary::Sqrt, x, span);
    }
    if exponent == -1.0 || exponent == -0.5 {
        let base = if exponent == -1.0 { x } else { graph.unary(Unary::Sqrt, x, span) };
        let one = one(graph);
        return graph.binary(Binary::Div, one, base, span);
    }
    if exponent == -2.0 {
        let square = graph.binary(Binary::Mul, x, x, span);
        let one = one(graph);
        return graph.binary(Binary::Div, one, square, span);
    }
    graph.push(value)
}

/// `a ± (−b)`, `(−a) · (−b)` and `a + a`, neither a constant.
fn signs(graph: &mut Graph, op: Binary, value: Value) -> ValueId {
    let (a, b) = (value.args[0], value.args[1]);
    if op == Binary::Add && a == b && value.dtype == DType::F32 {
        let two = constant(graph, &value, 2.0);
        return scale(graph, 2.0, Value { op: Op::Binary(Binary::Mul), args: vec![a, two], ..value });
    }
    let (left, right) = (operand_of(graph, Unary::Neg, a), operand_of(graph, Unary::Neg, b));
    let (op, args) = match (op, left, right) {
        (Binary::Add, _, Some(right)) => (Binary::Sub, vec![a, right]),
        (Binary::Add, Some(left), None) => (Binary::Sub, vec![b, left]),
        (Binary::Sub, _, Some(right)) => (Binary::Add, vec![a, right]),
        (Binary::Mul | Binary::Div, Some(left), Some(right)) => (op, vec![left, right]),
        (Binary::Max | Binary::Min | Binary::And | Binary::Or, _, _) if a == b => return a,
        (op, _, _) => (op, vec![a, b]),
    };
    graph.push(Value { op: Op::Binary(op), args, ..value })
}

fn fold_compare(graph: &mut Graph, op: Compare, value: Value) -> ValueId {
    match (number(graph, value.args[0]), number(graph, value.args[1])) {
        (Some(a), Some(b)) => constant(graph, &value, truth(compare(op, a, b))),
        (Some(_), None) | (None, Some(_)) | (None, None) => graph.push(value),
    }
}

fn fold_select(graph: &mut Graph, value: Value) -> ValueId {
    let [condition, then, otherwise] = value.args[..] else { return graph.push(value) };
    let equal = match (number(graph, then), number(graph, otherwise)) {
        (Some(a), Some(b)) => a.to_bits() == b.to_bits(),
        (Some(_), None) | (None, Some(_)) | (None, None) => then == otherwise,
    };
    if equal {
        return then;
    }
    if let Some(number) = number(graph, condition) {
        return if number != 0.0 { then } else { otherwise };
    }
    if let Some(inner) = operand_of(graph, Unary::Not, condition) {
        return graph.push(Value { args: vec![inner, otherwise, then], ..value });
    }
    graph.push(value)
}

fn fold_cast(graph: &mut Graph, value: Value) -> ValueId {
    let x = graph.value(value.args[0]);
    if x.dtype == value.dtype {
        return value.args[0];
    }
    let result = match (x.op.clone(), x.dtype, value.dtype) {
        (Op::Const(number), DType::F32, DType::I32) => f64::from(number as i32),
        (Op::Const(number), _, DType::Bool) => truth(number != 0.0),
        (Op::Const(number), DType::Bool, _) => truth(number != 0.0),
        (Op::Const(number), _, _) => number,
        _ => return graph.push(value),
    };
    constant(graph, &value, result)
}

fn fold_reshape(graph: &mut Graph, value: Value) -> ValueId {
    let mut x = value.args[0];
    if graph.value(x).op == Op::Reshape {
        x = graph.value(x).args[0];
    }
    if graph.shape(x) == value.shape {
        return x;
    }
    if let Some(number) = number(graph, x) {
        return constant(graph, &value, number);
    }
    graph.push(Value { args: vec![x], ..value })
}
