//! Nests under construction: scalar code over form values, before buffers are known.
//!
//! Input: filled by `inline` and `draft`, joined by `merge`. Output: read by `emit`.
//! Invariant: equal nodes of one [`Code`] exist once; loop indices are numbered outer loops first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::form::{Guard, Id};
use crate::graph::{Binary, Compare, DType, Unary};
use crate::kernel::{Linear, NodeId, ReductionKind};
use crate::source::Span;

/// One coordinate of an element.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Coord {
    Linear(Linear),
    /// An I32 node; the access is void where it is out of range.
    Node(NodeId),
}

/// Which element of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// One coordinate per dim.
    Dims(Vec<Coord>),
    /// The row-major number of the element.
    Flat(Linear),
}

/// An element of a value in memory; 0 where a guard fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Element {
    pub value: Id,
    pub at: At,
    pub guards: Vec<Guard>,
}

/// Scalar operations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CodeOp {
    /// The bits of an f64.
    Const(u64),
    Index(Linear),
    Load(Element),
    Random {
        stream: u32,
        element: Linear,
    },
    /// The result of the reduction that makes this value, at the outer point.
    Reduced(Id),
    Unary(Unary, NodeId),
    Binary(Binary, NodeId, NodeId),
    Compare(Compare, NodeId, NodeId),
    Select(NodeId, NodeId, NodeId),
    Cast(NodeId),
}

impl CodeOp {
    /// The nodes that it reads.
    pub fn operands(&self) -> Vec<NodeId> {
        match self {
            CodeOp::Const(_) | CodeOp::Index(_) | CodeOp::Random { .. } | CodeOp::Reduced(_) => Vec::new(),
            CodeOp::Load(element) => element.at.nodes(),
            CodeOp::Unary(_, x) | CodeOp::Cast(x) => vec![*x],
            CodeOp::Binary(_, a, b) | CodeOp::Compare(_, a, b) => vec![*a, *b],
            CodeOp::Select(condition, then, otherwise) => vec![*condition, *then, *otherwise],
        }
    }

    /// The element that it loads.
    pub fn element(&self) -> Option<&Element> {
        if let CodeOp::Load(element) = self { Some(element) } else { None }
    }

    /// The same operation on other nodes.
    pub fn renamed(&self, name: &impl Fn(NodeId) -> NodeId) -> CodeOp {
        match self {
            CodeOp::Const(_) | CodeOp::Index(_) | CodeOp::Random { .. } | CodeOp::Reduced(_) => self.clone(),
            CodeOp::Load(element) => CodeOp::Load(Element {
                value: element.value,
                at: element.at.renamed(name),
                guards: element.guards.clone(),
            }),
            CodeOp::Unary(op, x) => CodeOp::Unary(*op, name(*x)),
            CodeOp::Cast(x) => CodeOp::Cast(name(*x)),
            CodeOp::Binary(op, a, b) => CodeOp::Binary(*op, name(*a), name(*b)),
            CodeOp::Compare(op, a, b) => CodeOp::Compare(*op, name(*a), name(*b)),
            CodeOp::Select(condition, then, otherwise) => {
                CodeOp::Select(name(*condition), name(*then), name(*otherwise))
            }
        }
    }
}

impl At {
    /// The nodes of data-dependent coordinates.
    pub fn nodes(&self) -> Vec<NodeId> {
        let node = |coord: &Coord| match coord {
            Coord::Node(node) => Some(*node),
            Coord::Linear(_) => None,
        };
        match self {
            At::Dims(coords) => coords.iter().filter_map(node).collect(),
            At::Flat(_) => Vec::new(),
        }
    }

    /// The same place with other nodes.
    pub fn renamed(&self, name: &impl Fn(NodeId) -> NodeId) -> At {
        let rename = |coord: &Coord| match coord {
            Coord::Node(node) => Coord::Node(name(*node)),
            Coord::Linear(linear) => Coord::Linear(linear.clone()),
        };
        match self {
            At::Dims(coords) => At::Dims(coords.iter().map(rename).collect()),
            At::Flat(linear) => At::Flat(linear.clone()),
        }
    }
}

/// Scalar code in topological order.
#[derive(Clone, Debug, Default)]
pub(super) struct Code {
    pub nodes: Vec<(CodeOp, DType)>,
    known: HashMap<(CodeOp, DType), NodeId>,
}

impl Code {
    pub fn push(&mut self, op: CodeOp, dtype: DType) -> NodeId {
        match self.known.entry((op, dtype)) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                self.nodes.push(entry.key().clone());
                *entry.insert(NodeId(self.nodes.len() as u32 - 1))
            }
        }
    }

    /// Forgets all nodes but the first `count`.
    pub fn truncate(&mut self, count: usize) {
        for node in self.nodes.drain(count..) {
            self.known.remove(&node);
        }
    }

    /// Every element that is loaded.
    pub fn loads(&self) -> impl Iterator<Item = &Element> {
        loads(&self.nodes)
    }

    pub fn dtype(&self, node: NodeId) -> DType {
        self.nodes[node.0 as usize].1
    }
}

/// Every element that some of the nodes load.
pub(super) fn loads(nodes: &[(CodeOp, DType)]) -> impl Iterator<Item = &Element> {
    nodes.iter().filter_map(|(op, _)| op.element())
}

/// Where a store goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Dest {
    /// The memory of a form value.
    Value(Id),
    /// The target of an update, by position.
    Update(usize),
    /// An output that no value lives in, by position.
    Output(usize),
}

#[derive(Clone, Debug)]
pub(super) struct CodeStore {
    pub dest: Dest,
    pub at: At,
    pub guards: Vec<Guard>,
    pub value: NodeId,
    pub accumulate: bool,
}

#[derive(Clone, Debug)]
pub(super) struct CodeReduction {
    pub kind: ReductionKind,
    pub node: NodeId,
    /// The value that it makes, for [`CodeOp::Reduced`].
    pub value: Id,
}

#[derive(Clone, Debug, Default)]
pub(super) struct CodePhase {
    pub inner: Vec<usize>,
    pub code: Code,
    pub reductions: Vec<CodeReduction>,
    pub stores: Vec<CodeStore>,
}

/// A nest under construction.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub outer: Vec<usize>,
    /// Leading outer loops whose points never store to the same element.
    pub parallel: usize,
    pub phases: Vec<CodePhase>,
    /// A value to fill with zeros before.
    pub zero: Option<Id>,
    /// Points of the loops behind `parallel` may meet in one element, except those of the last loop where it is true.
    pub scatter: Option<bool>,
    /// What it computes, for names.
    pub title: &'static str,
    pub span: Span,
}

impl Draft {
    /// Every element that is loaded.
    pub fn loads(&self) -> impl Iterator<Item = &Element> {
        self.phases.iter().flat_map(|phase| phase.code.loads())
    }

    /// Every store.
    pub fn stores(&self) -> impl Iterator<Item = &CodeStore> {
        self.phases.iter().flat_map(|phase| &phase.stores)
    }
}
