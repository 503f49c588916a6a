//! Which nodes are functions of their own, and what is known of a node's value.
//!
//! Input: nodes of a phase. Output: the strip function behind one; which operand is a number. Invariant: what is not known
//! counts as anything.

use crate::graph::{Binary, DType, Unary};
use crate::kernel::{Node, NodeId, NodeOp};
use crate::primitives::vector::VectorFunction;

/// A function that is called on whole strips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Call {
    /// In place.
    Vector(VectorFunction),
    /// Base in the first slot, exponent in the second.
    Pow,
    /// Fills a slot.
    Random,
}

/// The strip function behind a node.
pub(super) fn call_of(op: &NodeOp) -> Option<Call> {
    match op {
        NodeOp::Random { .. } => Some(Call::Random),
        NodeOp::Binary(Binary::Pow, ..) => Some(Call::Pow),
        NodeOp::Unary(unary, _) => match unary {
            Unary::Exp => Some(Call::Vector(VectorFunction::Exp)),
            Unary::Log => Some(Call::Vector(VectorFunction::Log)),
            Unary::Sin => Some(Call::Vector(VectorFunction::Sin)),
            Unary::Cos => Some(Call::Vector(VectorFunction::Cos)),
            Unary::Tanh => Some(Call::Vector(VectorFunction::Tanh)),
            Unary::Sigmoid => Some(Call::Vector(VectorFunction::Sigmoid)),
            Unary::Erf => Some(Call::Vector(VectorFunction::Erf)),
            Unary::Neg | Unary::Abs | Unary::Sqrt | Unary::Floor | Unary::Not => None,
        },
        _ => None,
    }
}

/// The operands of a maximum or minimum of floats in an order in which the second is known to be a number, if one is.
pub(super) fn extremum_operands(nodes: &[Node], x: NodeId, y: NodeId) -> (NodeId, NodeId, bool) {
    if is_number(nodes, x) { (y, x, true) } else { (x, y, is_number(nodes, y)) }
}

/// True if a node is known not to be NaN.
fn is_number(nodes: &[Node], id: NodeId) -> bool {
    let node = &nodes[id.0 as usize];
    node.dtype != DType::F32
        || match node.op {
            NodeOp::Const(number) => !number.is_nan(),
            NodeOp::Index(_) | NodeOp::Random { .. } => true,
            NodeOp::Cast(x) => is_number(nodes, x),
            NodeOp::Load(_) | NodeOp::Reduced { .. } => false,
            NodeOp::Unary(..) | NodeOp::Binary(..) | NodeOp::Compare(..) | NodeOp::Select(..) => false,
        }
}
