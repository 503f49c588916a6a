//! The loop IR between schedule and machine code: what runs, in which order, over which bytes.
//!
//! Input: built by `schedule` from a graph with bound sizes, rewritten by a back end. Output: read by that back end.
//! Invariant: every load and store of a nest lies inside its buffer for every point of its domain,
//! unless it carries a guard that says otherwise. Buffers are offsets from one base pointer. [`verify`] lists
//! all rules and checks them.
//!
//! Everything except contraction tiles is a [`Nest`]. A nest has outer loops (one point = one or more results)
//! and a list of phases that run in order at each outer point; a phase with inner loops reduces or maps over them.
//! A softmax row is one nest: a max phase, a sum-of-exp phase and a store phase.

pub mod access;
pub mod interpret;
pub mod linear;
pub mod persistent;
pub mod print;
pub mod report;
pub mod verify;
pub mod winograd;

use std::fmt;

use crate::graph::{Binary, Compare, DType, OutputName, Precision, Unary};
use crate::source::Span;
pub use persistent::Persistent;
pub use winograd::Winograd;

/// A whole step, ready for code generation.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Program {
    /// All buffers; kernels name them by position.
    pub buffers: Vec<Buffer>,
    /// Kernels in execution order. A kernel may read what earlier ones wrote.
    pub kernels: Vec<Kernel>,
    /// Runs of kernels that are executed slice by slice, in order; no kernel is in two.
    pub groups: Vec<Group>,
    /// Buffers of one slice, in ascending order: their offsets count from a memory that each thread has for itself.
    pub locals: Vec<BufferId>,
    /// Bytes of the arena that the offsets of all other buffers lie in.
    pub arena_bytes: usize,
    /// Bytes of each thread's own memory, a multiple of 64.
    pub local_bytes: usize,
    /// Which roundings its products may have; a device that has no such ones computes them in f32.
    pub precision: Precision,
}

/// Kernels of which slice b runs through all before slice b + 1 starts, on one thread, without barriers.
///
/// Slice b of a nest is iteration b of its parallel loops taken as one, and those have as many iterations as there are
/// slices; slice b of a product is part b of its batch, cut in order into equal parts. A slice reads, of what the group
/// writes, only what the same slice wrote, and no two slices write the same element; so slices may run in any order and
/// at the same time. What a local buffer holds means nothing at the beginning of a slice.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Group {
    /// Positions of its kernels in [`Program::kernels`].
    pub kernels: std::ops::Range<usize>,
    /// How many slices.
    pub slices: usize,
}

/// A range of the arena.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Buffer {
    /// What it holds.
    pub role: Role,
    /// Element type.
    pub dtype: DType,
    /// Dims in memory order, row-major.
    pub sizes: Vec<usize>,
    /// Byte offset in the arena (of a local buffer: in a thread's own memory), a multiple of 64.
    pub offset: usize,
}

/// What a buffer holds. Each is shown as its kind and its name: `param:fc1.weight`, `temp:12`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// A trained tensor, by name.
    Param(String),
    /// Another tensor that lives from step to step, by name.
    State(String),
    /// A tensor fed from outside, by name.
    Input(String),
    /// A number of the host, by name.
    Scalar(String),
    /// A result.
    Output(OutputName),
    /// What lives within a step.
    Temporary(String),
    /// What lives within a slice of a group.
    Local(String),
}

impl Role {
    /// Which result it is, if it is one.
    pub fn output(&self) -> Option<&OutputName> {
        if let Role::Output(name) = self { Some(name) } else { None }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Role::Param(name) => ("param", name),
            Role::State(name) => ("state", name),
            Role::Input(name) => ("input", name),
            Role::Scalar(name) => ("scalar", name),
            Role::Output(name) => return write!(f, "output:{name}"),
            Role::Temporary(name) => ("temp", name),
            Role::Local(name) => ("local", name),
        };
        write!(f, "{kind}:{name}")
    }
}

/// Position in [`Program::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct BufferId(pub u32);

/// One kernel with its place in the model file.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Kernel {
    /// What it does.
    pub kind: KernelKind,
    /// A short name for dumps and profiles (`product`, `sum+relu`).
    pub name: String,
    /// The line of the model it stems from.
    pub span: Span,
}

/// The kinds of kernels.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub enum KernelKind {
    /// Loops compiled to machine code.
    Nest(Nest),
    /// A contraction by the product primitive.
    Product(Product),
    /// The same by minimal filtering.
    Winograd(Winograd),
    /// Writes the transformed taps of a [`Winograd`] that has a filter. By itself it changes no other result, so the
    /// interpreter, which computes products from their definition, has nothing to do.
    Filter(Winograd),
    /// Fills a buffer with zero bytes.
    Zero(BufferId),
    /// Copies the bytes of `from` to `to`; equal sizes.
    Copy {
        /// Source.
        from: BufferId,
        /// Destination.
        to: BufferId,
    },
}

/// `Σ coefficient · loop index + offset`, in elements. Loop indices are numbered: the nest's outer loops first,
/// then the inner loops of the phase at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Linear {
    /// (loop, coefficient ≠ 0), sorted by loop, each loop once.
    pub terms: Vec<(usize, i64)>,
    /// The constant part.
    pub offset: i64,
}

/// A loop nest. See the module's text.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Nest {
    /// Extents of the outer loops, outermost first; every extent ≥ 1; may be empty (one point).
    pub outer: Vec<usize>,
    /// How many leading outer loops may be divided among threads in any way without a race. The stores of
    /// different iterations of these loops never touch the same element.
    pub parallel: usize,
    /// Which loop becomes vector lanes.
    pub lanes: Lanes,
    /// Run in order at each outer point.
    pub phases: Vec<Phase>,
}

/// The loop of a nest that is vectorised. The schedule chooses it so that most loads are contiguous along it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Lanes {
    /// None: the loops run one point at a time (points may meet in the same element).
    None,
    /// The last inner loop of each phase; phases without inner loops are scalar code.
    /// Reductions combine a fixed number of lanes at the end of the phase.
    Inner,
    /// The last outer loop, in every phase: each lane is another outer point, and inner loops run in lockstep.
    /// Different points of that loop never store to the same element.
    Outer,
}

/// Straight-line scalar code inside optional inner loops.
///
/// All loads of a point happen before its stores. A load may read a buffer that the same nest stores:
/// in the same phase only the very element that this point stores (an update in place, the old value is read);
/// in another phase what is stored at the same outer point (by earlier phases: the new value is read; by later ones: the
/// old one). Everything else that a phase loads is not written during the nest.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Phase {
    /// Extents of the inner loops, outermost first, every extent ≥ 1; empty: once per outer point.
    pub inner: Vec<usize>,
    /// Scalar code in topological order, evaluated at each inner point.
    pub nodes: Vec<Node>,
    /// Reductions of nodes over all inner loops, in row-major order of the inner index with a fixed number of lanes;
    /// the result does not depend on threads. In a phase without inner loops the result is the node's value itself
    /// (that is how later phases read a row's scalars).
    pub reductions: Vec<Reduction>,
    /// Stores at each inner point (after the nodes).
    pub stores: Vec<Store>,
}

/// Position in [`Phase::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct NodeId(pub u32);

/// A scalar computation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Node {
    /// What it computes.
    pub op: NodeOp,
    /// Its type.
    pub dtype: DType,
}

/// Scalar operations; the meaning of arithmetic is that of the graph's ops.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum NodeOp {
    /// A number.
    Const(f64),
    /// The value of an affine function of the loop indices, as I32.
    Index(Linear),
    /// An element of a buffer; 0 where a guard fails.
    Load(Location),
    /// U[0, 1) from Philox with this stream and the element number given by the function.
    Random {
        /// The stream.
        stream: u32,
        /// The element's number.
        element: Linear,
    },
    /// The result of reduction `index` of the earlier phase `phase`.
    Reduced {
        /// Position in [`Nest::phases`].
        phase: usize,
        /// Position in [`Phase::reductions`].
        index: usize,
    },
    /// Function of one node.
    Unary(Unary, NodeId),
    /// Function of two.
    Binary(Binary, NodeId, NodeId),
    /// Comparison; Bool.
    Compare(Compare, NodeId, NodeId),
    /// Condition, then, otherwise.
    Select(NodeId, NodeId, NodeId),
    /// Conversion to the node's dtype.
    Cast(NodeId),
}

/// An element of a buffer.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Location {
    /// The buffer.
    pub buffer: BufferId,
    /// Element offset from the buffer's start, before `indirect` is added.
    pub index: Linear,
    /// Conditions `0 ≤ linear < extent`; when one fails a load gives 0 and a store does nothing.
    pub guards: Vec<(Linear, i64)>,
    /// Data-dependent parts: `stride · node`, guarded by `0 ≤ node < extent`. The node is I32.
    pub indirect: Vec<IndirectTerm>,
}

/// One data-dependent part of a [`Location`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct IndirectTerm {
    /// The I32 node.
    pub node: NodeId,
    /// Elements per unit.
    pub stride: i64,
    /// The guarded extent.
    pub extent: i64,
}

/// A reduction of one node over a phase's inner loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reduction {
    /// How.
    pub kind: ReductionKind,
    /// Of what.
    pub node: NodeId,
}

/// Kinds of reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ReductionKind {
    /// Sum (F32).
    Sum,
    /// Maximum (F32 or I32), not a number where an element is none; of nothing: −∞.
    Max,
    /// Row-major inner index of the first maximum, or of the first that is not a number; I32.
    ArgMax,
}

/// A store of one node.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Store {
    /// Where.
    pub location: Location,
    /// What.
    pub value: NodeId,
    /// Add to the element in memory (F32) instead of replacing it. Points that meet the same element
    /// are added in row-major order of the loops.
    pub accumulate: bool,
}

/// `C[m, n] (+)= Σ_k A[m, k] · B[k, n]` over a batch; every tensor is addressed by affine strides, so convolutions
/// without padding are products too: m, n and k are tuples of loops, and an element's address is the sum of
/// stride · index over the loops.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Product {
    /// Loops of independent products.
    pub batch: Vec<ProductLoop>,
    /// Loops of the rows of A and C (`b` strides are 0).
    pub m: Vec<ProductLoop>,
    /// Loops of the columns of B and C (`a` strides are 0).
    pub n: Vec<ProductLoop>,
    /// Summed loops (`c` strides are 0).
    pub k: Vec<ProductLoop>,
    /// Left operand: buffer and element offset.
    pub a: (BufferId, i64),
    /// Right operand.
    pub b: (BufferId, i64),
    /// Result.
    pub c: (BufferId, i64),
    /// Add to C instead of replacing it.
    pub accumulate: bool,
    /// Functions of the indices of the m, n and k loops, numbered in this order. Where one is negative, a summand may be
    /// left out or not: an operand is zero there, or whoever reads the result there does not depend on it.
    pub bands: Vec<Linear>,
}

/// One loop of a [`Product`] with its strides in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProductLoop {
    /// Trip count.
    pub extent: usize,
    /// Stride in A.
    pub a: i64,
    /// Stride in B.
    pub b: i64,
    /// Stride in C.
    pub c: i64,
}

impl Product {
    /// All loops: batch, m, n, k.
    pub fn loops(&self) -> impl Iterator<Item = &ProductLoop> {
        self.batch.iter().chain(&self.m).chain(&self.n).chain(&self.k)
    }

    /// How many leading batch loops make so many slices.
    pub fn slice_loops(&self, slices: usize) -> Option<usize> {
        let mut counts = self.batch.iter().scan(1, |count, each| {
            *count *= each.extent;
            Some(*count)
        });
        counts.position(|count| count == slices).map(|last| last + 1)
    }
}

impl Buffer {
    /// How many elements it has.
    pub fn elements(&self) -> usize {
        self.sizes.iter().product()
    }

    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.elements() * interpret::element_bytes(self.dtype)
    }
}

impl Program {
    /// The buffer of this position.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// Whether the buffer lies in each thread's own memory.
    pub fn is_local(&self, id: BufferId) -> bool {
        self.locals.binary_search(&id).is_ok()
    }

    /// The bytes of a buffer, in a numbering in which a thread's own memory follows the arena.
    pub fn range(&self, id: BufferId) -> std::ops::Range<usize> {
        let buffer = self.buffer(id);
        let start = buffer.offset + if self.is_local(id) { self.arena_bytes } else { 0 };
        start..start + buffer.bytes()
    }

    /// The group that a kernel belongs to.
    pub fn group_of(&self, kernel: usize) -> Option<&Group> {
        self.groups.iter().find(|group| group.kernels.contains(&kernel))
    }

    /// The first and last kernel that touches each buffer.
    pub fn lives(&self) -> Vec<Option<(usize, usize)>> {
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; self.buffers.len()];
        for (number, kernel) in self.kernels.iter().enumerate() {
            for buffer in kernel.buffers() {
                let life = &mut lives[buffer.0 as usize];
                *life = Some((life.map_or(number, |(first, _)| first), number));
            }
        }
        lives
    }

    /// The buffer that holds this.
    pub fn find(&self, role: &Role) -> Option<&Buffer> {
        self.buffers.iter().find(|buffer| buffer.role == *role)
    }
}
