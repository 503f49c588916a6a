//! Resolved equations: indices, affine places, and the tree of reads, reductions and elementwise parts.
//!
//! Input: built by `equation`. Output: read by `lowering` and `reduction`.
//! Invariant: [`Node::free`] lists exactly the indices that a node depends on, sorted.

use crate::dim::Dim;
use crate::graph::ValueId;
use crate::model::expander::{Meaning, Stage};
use crate::source::Span;
use crate::syntax::ast::{self, BinaryOp, UnaryOp};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Position in [`Indices::vars`]; the left side's indices come first.
pub(super) type Var = usize;

/// The size of a dim and where it is written, if it is known.
pub(super) type Known = Option<(Dim, Span)>;

/// One index of an equation.
#[derive(Clone, Debug)]
pub(super) struct Index {
    pub name: String,
    pub span: Span,
    /// Its range `0..extent` and the place that says so.
    pub extent: Option<(Dim, Span)>,
    /// Of an index that stands for a whole pack: the dims that it runs over, the fastest last, once they are known.
    pub dims: Option<Vec<Dim>>,
}

/// A name of an index, and what it stands for.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub name: String,
    /// Where it is bound.
    pub binder: Span,
    /// Bound with `..`.
    pub each: bool,
    /// The index; of a pack one for each entry, or one for the whole.
    pub vars: Vec<Var>,
    /// A pack that is one index over all of its dims.
    pub whole: bool,
}

/// The indices of one equation and those visible at the current place.
#[derive(Default)]
pub(super) struct Indices {
    pub vars: Vec<Index>,
    pub visible: Vec<Seen>,
    /// What is known of packs and groups before the equation is read.
    pub plan: Plan,
    /// The entry of packs that is being read.
    pub entry: Option<usize>,
}

impl Indices {
    pub fn find(&self, name: &str) -> Option<&Seen> {
        self.visible.iter().rev().find(|seen| seen.name == name)
    }

    /// All indices that are visible, each once.
    pub fn all(&self) -> Vec<Var> {
        let mut all: Vec<Var> = self.visible.iter().flat_map(|seen| seen.vars.iter().copied()).collect();
        all.sort_unstable();
        all
    }

    /// Makes an index visible; gives what it stands for.
    pub fn open(&mut self, bound: &ast::Bound) -> Vec<Var> {
        let ident = &bound.name;
        let length = if bound.each { self.plan.lengths.get(&ident.span).copied().unwrap_or(1) } else { 1 };
        let whole = bound.each && length != 1 && !self.plan.apart.contains(&ident.span);
        let first = self.vars.len();
        let count = if whole { 1 } else { length };
        for entry in 0..count {
            let name = if count > 1 { format!("{}.{entry}", ident.name) } else { ident.name.clone() };
            let empty = whole && length == 0;
            let extent = empty.then(|| (Dim::constant(1), ident.span));
            self.vars.push(Index { name, span: ident.span, extent, dims: empty.then(Vec::new) });
        }
        let vars: Vec<Var> = (first..self.vars.len()).collect();
        let (name, binder) = (ident.name.clone(), ident.span);
        self.visible.push(Seen { name, binder, each: bound.each, vars: vars.clone(), whole });
        vars
    }
}

/// How long packs are, which of them are read entry by entry, and ranges as far as shapes give them; by where an index is
/// bound.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub lengths: HashMap<Span, usize>,
    /// Packs whose entries stand alone somewhere; the others are one index over all of their dims.
    pub apart: HashSet<Span>,
    /// The range of an entry; entry 0 is an index that is no pack.
    pub extents: HashMap<(Span, usize), Dim>,
}

/// `Σ coefficient · index + offset`; coefficients are not 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AffineIndex {
    pub terms: Vec<(Var, i64)>,
    pub offset: Dim,
}

impl AffineIndex {
    /// `Some` for a plain index.
    pub fn plain(&self) -> Option<Var> {
        match self.terms.as_slice() {
            [(var, 1)] if self.offset.as_const() == Some(0) => Some(*var),
            _ => None,
        }
    }

    pub fn combine(&self, other: &AffineIndex, sign: i64) -> Option<AffineIndex> {
        let mut terms = self.terms.clone();
        for (var, coefficient) in &other.terms {
            let coefficient = coefficient.checked_mul(sign)?;
            match terms.iter_mut().find(|term| term.0 == *var) {
                Some(term) => term.1 = term.1.checked_add(coefficient)?,
                None => terms.push((*var, coefficient)),
            }
        }
        terms.retain(|term| term.1 != 0);
        terms.sort_unstable();
        Some(AffineIndex { terms, offset: &self.offset + Dim::constant(sign) * &other.offset })
    }

    pub fn scale(&self, factor: &Dim) -> Option<AffineIndex> {
        if self.terms.is_empty() {
            return Some(AffineIndex { terms: Vec::new(), offset: &self.offset * factor });
        }
        let number = factor.as_const()?;
        let scaled: Option<Vec<_>> = self.terms.iter().map(|(var, c)| Some((*var, c.checked_mul(number)?))).collect();
        let terms = scaled?.into_iter().filter(|term| term.1 != 0).collect();
        Some(AffineIndex { terms, offset: &self.offset * factor })
    }
}

/// One dim of a read.
#[derive(Clone, Debug)]
pub(super) enum Subscript {
    Affine(AffineIndex, Span),
    /// The value of an integer tensor.
    Value(Node),
}

/// Reductions by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    Sum,
    Mean,
    Prod,
    Max,
    Min,
    ArgMax,
    ArgMin,
    LogSumExp,
    Softmax,
    LogSoftmax,
}

impl Reduction {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sum" => Reduction::Sum,
            "mean" => Reduction::Mean,
            "prod" => Reduction::Prod,
            "max" => Reduction::Max,
            "min" => Reduction::Min,
            "argmax" => Reduction::ArgMax,
            "argmin" => Reduction::ArgMin,
            "logsumexp" => Reduction::LogSumExp,
            "softmax" => Reduction::Softmax,
            "log_softmax" => Reduction::LogSoftmax,
            _ => return None,
        })
    }

    /// Those that keep their indices normalise over an index of the surroundings.
    pub fn keeps_indices(self) -> bool {
        matches!(self, Reduction::Softmax | Reduction::LogSoftmax)
    }
}

/// An expression over indices.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub kind: NodeKind,
    pub span: Span,
    /// The indices it depends on, sorted.
    pub free: Vec<Var>,
}

#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    /// A value without indices: number, size, flag, host scalar.
    Static(Meaning),
    /// An index, or an affine function of indices, as an integer.
    Index(AffineIndex),
    /// A read; out of range it gives `guard`, and without a guard it must not be out of range.
    Read {
        tensor: ValueId,
        subscripts: Vec<Subscript>,
        guard: Option<Box<Node>>,
    },
    Prefix(UnaryOp, Box<Node>),
    Infix(BinaryOp, Box<Node>, Box<Node>),
    Select(Box<Node>, Box<Node>, Box<Node>),
    Reduce(Reduction, Vec<Var>, Box<Node>),
    /// An elementwise function.
    Call {
        callee: Rc<Stage>,
        arguments: Vec<(Option<ast::Ident>, Node)>,
    },
    /// A fresh draw for each point of these indices.
    Uniform,
}

impl Node {
    pub fn fixed(value: Meaning, span: Span) -> Node {
        Node { kind: NodeKind::Static(value), span, free: Vec::new() }
    }

    pub fn index(affine: AffineIndex, span: Span) -> Node {
        let free = affine.terms.iter().map(|term| term.0).collect();
        Node { kind: NodeKind::Index(affine), span, free }
    }

    /// A static size or an affine function as one.
    pub fn as_affine(&self) -> Option<AffineIndex> {
        match &self.kind {
            NodeKind::Index(affine) => Some(affine.clone()),
            NodeKind::Static(Meaning::Size(dim)) => Some(AffineIndex { terms: Vec::new(), offset: dim.clone() }),
            _ => None,
        }
    }
}

/// The indices that the parts depend on, sorted.
pub(super) fn union<'n>(parts: impl IntoIterator<Item = &'n Node>) -> Vec<Var> {
    let mut free: Vec<Var> = parts.into_iter().flat_map(|part| part.free.iter().copied()).collect();
    free.sort_unstable();
    free.dedup();
    free
}
