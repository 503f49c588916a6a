//! A machine as the schedule sees it: every number that is about one stands here, and nowhere else in this folder.
//!
//! Input: filled by a back end. Output: read by the steps of the schedule. Invariant: plain data, so the same graph and
//! the same target give the same program wherever the compiler runs.

use crate::graph::Precision;
use crate::kernel::Program;

/// A machine, and the forms of kernels that it alone wants.
pub trait Backend {
    /// Its numbers.
    fn target(&self) -> &Target;

    /// Its own rewrites of a program whose kernels are complete and whose temporaries have no places yet. Buffers that it
    /// adds are temporaries; results stay the same, up to rounding where the precision allows it.
    fn lower(&self, _program: &mut Program, _precision: Precision) {}
}

/// A machine without rewrites of its own.
impl Backend for Target {
    fn target(&self) -> &Target {
        self
    }
}

/// The numbers of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Elements that it computes side by side, at most.
    pub width: usize,
    /// Independent pieces of work that keep all of it busy.
    pub tasks: usize,
    /// Points of a nest that are not worth dividing into tasks.
    pub small_work: usize,
    /// Bytes that stay near a task from one pass over them to the next.
    pub near_bytes: usize,
    /// Where code without loops is better than loops.
    pub unrolled: Unrolled,
    /// Where computing again is better than storing.
    pub costs: Costs,
    /// What is a product.
    pub products: Products,
}

/// How much is written out as straight-line code in the place of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrolled {
    /// Points of a row of a tensor; as a loop it would be shorter than a vector.
    pub row: usize,
    /// Points of a reduction that is no row: windows of pooling, taps, leaves.
    pub points: usize,
    /// Nodes of a reduction.
    pub nodes: usize,
    /// Nodes of a reduction over at most a row, such as the windows that meet in an element of an overlapping pool.
    pub row_nodes: usize,
    /// Nodes of a phase whose last loop is a row.
    pub phase_nodes: usize,
}

/// What it costs to compute an element, in additions, and up to which costs a value has no memory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// An exponential and its like, or a division of integers; a power takes two.
    pub function: u32,
    /// A random number.
    pub random: u32,
    /// A square root.
    pub root: u32,
    /// A division of floats.
    pub division: u32,
    /// Most of a value that is computed again at each of its readers.
    pub again: u32,
    /// Most of one that is computed again for every element of a larger reader.
    pub repeated: u32,
}

/// Where a contraction becomes a product, and how that is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Products {
    /// Multiplications under which it is a plain nest that fuses with its neighbours.
    pub least: usize,
    /// Least rows and columns, the smaller first, and least depth. With fewer on the first side a product is thin.
    pub sides: [usize; 3],
    /// How many times `least` multiplications a batch of thin ones has at least.
    pub thin: usize,
    /// How often the elements of a thin one's larger operand are read at least, on average.
    pub reuse: usize,
    /// Summed elements that a leaf of a split product keeps at least.
    pub leaf: usize,
    /// Results from which there is enough independent work without a split.
    pub many_results: usize,
    /// A cut into residues of a stride saves at least one multiplication in so many.
    pub residue_saving: usize,
    /// The same for a cut at an image's border.
    pub border_saving: usize,
    /// Windows of at most so many taps stay whole at the border; those that minimal filtering takes.
    pub filtered_taps: usize,
}
