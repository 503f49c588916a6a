//! Scalar expressions of nests as C, one line a node.
//!
//! Input: the nodes of a phase. Output: declarations of variables `v0`, `v1`, …. Invariant: the meaning of arithmetic is that
//! of the graph's ops (`graph/scalar.rs`); what C or a GPU does otherwise goes through a function of the prelude.

use super::Names;
use super::linear::linear_text;
use crate::graph::scalar::compare_symbol;
use crate::graph::{Binary, DType, Unary};
use crate::kernel::{Linear, Location, Node, NodeId, NodeOp};

/// The C type of an element.
pub(super) fn type_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::I32 => "int",
        DType::Bool => "bool",
    }
}

/// The variable of a reduction's result.
pub(super) fn reduced_name(phase: usize, index: usize) -> String {
    format!("r{phase}_{index}")
}

/// The variable of a node.
fn value(id: NodeId) -> String {
    format!("v{}", id.0)
}

/// A number as a literal.
pub(super) fn constant(number: f64, dtype: DType) -> String {
    match dtype {
        DType::Bool => (number != 0.0).to_string(),
        // Rust's conversion saturates; INT_MIN has no literal.
        DType::I32 if number as i32 == i32::MIN => "(-2147483647 - 1)".to_string(),
        DType::I32 => (number as i32).to_string(),
        DType::F32 => match number as f32 {
            nan if nan.is_nan() => "NOT_A_NUMBER".to_string(),
            f32::INFINITY => "INFINITE".to_string(),
            f32::NEG_INFINITY => "(-INFINITE)".to_string(),
            negative if negative.is_sign_negative() => format!("({negative:?}f)"),
            number => format!("{number:?}f"),
        },
    }
}

/// The conditions under which an access happens; empty where it always does.
fn conditions(location: &Location, extents: &[usize]) -> Vec<String> {
    let within = |(guard, extent): &(Linear, i64)| {
        let (low, high) = guard.range(extents);
        let text = linear_text(guard, extents);
        let below = (high >= *extent).then(|| format!("{text} < {extent}"));
        let above = (low < 0).then(|| format!("{text} >= 0"));
        above.into_iter().chain(below)
    };
    let indirect = location.indirect.iter().map(|term| {
        let node = value(term.node);
        format!("{node} >= 0 && {node} < {}", term.extent)
    });
    location.guards.iter().flat_map(within).chain(indirect).collect()
}

/// The pointer to an element and the condition under which it may be touched.
pub(super) fn element(location: &Location, names: &Names<'_>, extents: &[usize]) -> (String, Option<String>) {
    let mut index = linear_text(&location.index, extents);
    for term in &location.indirect {
        index.push_str(&format!(" + {}LL * {}", term.stride, value(term.node)));
    }
    let pointer = format!("{} + ({index})", names.buffer(location.buffer));
    let conditions = conditions(location, extents);
    (pointer, (!conditions.is_empty()).then(|| conditions.join(" && ")))
}

/// The declaration of a node's variable.
pub(super) fn declaration(number: usize, node: &Node, names: &Names<'_>, extents: &[usize]) -> String {
    format!("{} v{number} = {};", type_name(node.dtype), expression(node, names, extents))
}

fn expression(node: &Node, names: &Names<'_>, extents: &[usize]) -> String {
    let dtype = node.dtype;
    match &node.op {
        NodeOp::Const(number) => constant(*number, dtype),
        NodeOp::Index(linear) => format!("(int)({})", linear_text(linear, extents)),
        NodeOp::Load(location) => {
            let (pointer, condition) = element(location, names, extents);
            match condition {
                Some(condition) => format!("{condition} ? load({pointer}) : {}", constant(0.0, dtype)),
                None => format!("load({pointer})"),
            }
        }
        NodeOp::Random { stream, element } => {
            format!("uniform(run, {stream}u, (u64)({}))", linear_text(element, extents))
        }
        NodeOp::Reduced { phase, index } => reduced_name(*phase, *index),
        NodeOp::Unary(op, x) => unary(*op, dtype, &value(*x)),
        NodeOp::Binary(op, a, b) => binary(*op, dtype, &value(*a), &value(*b)),
        NodeOp::Compare(op, a, b) => format!("{} {} {}", value(*a), compare_symbol(*op), value(*b)),
        NodeOp::Select(condition, then, otherwise) => {
            format!("{} ? {} : {}", value(*condition), value(*then), value(*otherwise))
        }
        NodeOp::Cast(x) => match dtype {
            DType::F32 => format!("(float){}", value(*x)),
            DType::I32 => format!("to_int({})", value(*x)),
            DType::Bool => format!("{} != 0", value(*x)),
        },
    }
}

fn unary(op: Unary, dtype: DType, x: &str) -> String {
    match (op, dtype) {
        (Unary::Neg, DType::I32) => format!("sub_int(0, {x})"),
        (Unary::Abs, DType::I32) => format!("abs_int({x})"),
        (Unary::Neg, _) => format!("-{x}"),
        (Unary::Abs, _) => format!("fabsf({x})"),
        (Unary::Exp, _) => format!("expf({x})"),
        (Unary::Log, _) => format!("logf({x})"),
        (Unary::Sqrt, _) => format!("sqrtf({x})"),
        (Unary::Sin, _) => format!("sinf({x})"),
        (Unary::Cos, _) => format!("cosf({x})"),
        (Unary::Tanh, _) => format!("tanhf({x})"),
        (Unary::Sigmoid, _) => format!("1.0f / (1.0f + expf(-{x}))"),
        (Unary::Erf, _) => format!("erff({x})"),
        (Unary::Floor, _) => format!("floorf({x})"),
        (Unary::Not, _) => format!("!{x}"),
    }
}

fn binary(op: Binary, dtype: DType, a: &str, b: &str) -> String {
    match (op, dtype) {
        (Binary::Add, DType::I32) => format!("add_int({a}, {b})"),
        (Binary::Sub, DType::I32) => format!("sub_int({a}, {b})"),
        (Binary::Mul, DType::I32) => format!("mul_int({a}, {b})"),
        (Binary::Div, DType::I32) => format!("div_int({a}, {b})"),
        (Binary::Rem, DType::I32) => format!("rem_int({a}, {b})"),
        (Binary::Max, DType::I32) => format!("{b} > {a} ? {b} : {a}"),
        (Binary::Min, DType::I32) => format!("{b} < {a} ? {b} : {a}"),
        (Binary::Add, _) => format!("{a} + {b}"),
        (Binary::Sub, _) => format!("{a} - {b}"),
        (Binary::Mul, _) => format!("{a} * {b}"),
        (Binary::Div, _) => format!("{a} / {b}"),
        (Binary::Rem, _) => format!("{a} - {b} * floorf({a} / {b})"),
        (Binary::Pow, _) => format!("powf({a}, {b})"),
        (Binary::Max, _) => format!("max_of({a}, {b})"),
        (Binary::Min, _) => format!("min_of({a}, {b})"),
        (Binary::And, _) => format!("{a} && {b}"),
        (Binary::Or, _) => format!("{a} || {b}"),
    }
}
