//! The shape of a product's execution: which operand is packed, how C is cut into parts, how far k is blocked.
//!
//! Input: a [`kernel::Product`] and a level. Output: a [`Shape`] with the operands' axes. Invariant: everything here
//! follows from extents, strides and the level, never from the number of threads.

use super::band::{Bands, Loop};
use crate::kernel;
use crate::machine::{Level, at_level};
use crate::primitives::axis::Axis;
use crate::primitives::pack::Copying;
use crate::primitives::tile::{MAX_DIRECT_ROWS, Tiles, full_panel, next_panel};
use std::ops::{Range, RangeInclusive};

/// Longest block of k: a tile's rows of A (8 × 512 × 4 = 16 KiB) stay in L1 beside the passing panel of B.
const MAX_K_BLOCK: usize = 512;
/// Most elements of the block of B: 640 KiB stay in an L2 of 1 MiB.
const MAX_BLOCK: usize = 160 << 10;
/// Most columns of a part.
const MAX_COLUMNS: usize = 512;
/// Columns of a part if C's runs of columns are at least so long: parts then follow the runs.
const MIN_RUN: usize = 192;
/// Bytes of an operand that stay in L2 from one part to the next.
const MAX_RESIDENT: usize = 512 << 10;
/// Bytes of a stage that stay in L2 beside the block of B.
const MAX_STAGE: usize = 256 << 10;
/// Fewest rows of a part.
const MIN_ROWS: usize = 8;
/// Fewer rows than this do not repay a copy of B.
const MIN_ROWS_TO_PACK_B: usize = 16;
/// Elements between rows of B up to which a copy gains nothing: a panel's.
const MAX_PANEL: usize = 64;
/// Cycles that a part costs besides its work.
const PART_COST: f64 = 600.0;
/// Products of fewer cycles are one part.
const MIN_CYCLES_TO_DIVIDE: f64 = 12000.0;

/// Which operand gives the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Orientation {
    /// A gives the rows of C.
    Given,
    /// B does: Cᵀ = Bᵀ·Aᵀ.
    Swapped,
}

/// How a product is executed.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Blocks of rows.
    pub row_blocks: usize,
    /// Rows of the largest block.
    pub max_rows: usize,
    /// Blocks of columns.
    pub column_blocks: ColumnBlocks,
    /// Columns of the largest block, rounded up to whole vectors.
    pub max_columns: usize,
    /// Positions of k in a block, at least 1.
    pub k_block: usize,
    /// Whether a tile's rows of A are copied first, and how.
    pub pack_a: bool,
    /// See `pack_a`.
    pub copy_a: Copying,
    /// Whether a part's block of B is copied first, and how; if not, B's columns are neighbours and k has one run.
    pub pack_b: bool,
    /// See `pack_b`.
    pub copy_b: Copying,
    /// Whether some part's columns of C are not neighbours.
    pub may_stage: bool,
}

/// The columns, cut first into equal segments and each segment into blocks of whole vectors.
#[derive(Clone, Debug)]
pub struct ColumnBlocks {
    extent: usize,
    segment: usize,
    per_segment: usize,
    lanes: usize,
}

impl ColumnBlocks {
    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.extent.checked_div(self.segment).map_or(0, |segments| segments * self.per_segment)
    }

    /// The columns of a block.
    pub fn columns(&self, block: usize) -> Range<usize> {
        let (segment, inside) = (block / self.per_segment, block % self.per_segment);
        let vectors = self.segment.div_ceil(self.lanes);
        let cut = |i: usize| segment * self.segment + (vectors * i / self.per_segment * self.lanes).min(self.segment);
        cut(inside)..cut(inside + 1)
    }
}

impl Shape {
    /// The rows of a block.
    pub fn rows(&self, block: usize, extent: usize) -> Range<usize> {
        extent * block / self.row_blocks..extent * (block + 1) / self.row_blocks
    }
}

/// What a level's tiles look like.
struct Machine {
    lanes: usize,
    max_vectors: usize,
    /// The most rows of a packed tile of so many vectors.
    max_rows: fn(usize) -> usize,
}

fn machine(level: Level) -> Machine {
    fn of<V: Tiles>() -> Machine {
        Machine { lanes: V::COUNT, max_vectors: V::MAX_VECTORS, max_rows: V::max_packed_rows }
    }
    // SAFETY: no instruction of the level is in it.
    unsafe { at_level!(level, fn() -> Machine, V => of::<V>())() }
}

/// A way to cut a product. Every way gives the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cut {
    /// Which operand gives the rows.
    pub orientation: Orientation,
    /// Blocks of rows.
    pub row_blocks: usize,
    /// Blocks of columns in each of C's runs of columns.
    pub column_blocks: usize,
}

impl Cut {
    /// Whether this cut, of whatever origin, is one of the product's.
    pub fn is_of(self, product: &kernel::Product, kept: usize, level: Level) -> bool {
        let machine = machine(level);
        let operands = operands(product, kept, self.orientation);
        let (rows, columns) = Estimate::new(&operands, &machine).choices();
        let fits = rows.contains(&self.row_blocks) && columns.contains(&self.column_blocks);
        // To an accumulating product the orientation may matter: see `cuts`.
        fits && (!product.accumulate || self.orientation == choose(product, kept, level).orientation)
    }
}

/// The cut of a product that the cost model finds cheapest. The first `kept` batch loops stay outermost.
pub fn choose(product: &kernel::Product, kept: usize, level: Level) -> Cut {
    let mut best: Option<(f64, Cut)> = None;
    for_each_cut(product, kept, level, |cycles, cut| {
        if best.is_none_or(|(least, _)| cycles < least) {
            best = Some((cycles, cut));
        }
    });
    best.expect("one part is a cut").1
}

/// All cuts of a product with their estimated cycles, cheapest first.
pub fn cuts(product: &kernel::Product, kept: usize, level: Level) -> Vec<(f64, Cut)> {
    let mut cuts: Vec<(f64, Cut)> = Vec::new();
    for_each_cut(product, kept, level, |cycles, cut| cuts.push((cycles, cut)));
    cuts.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Sums from a stage are added to C as a whole, others block by block of k, and one orientation alone may stage.
    let orientation = cuts[0].1.orientation;
    cuts.retain(|(_, cut)| !product.accumulate || cut.orientation == orientation);
    cuts
}

/// Calls `visit` with each cut's estimated cycles.
fn for_each_cut(product: &kernel::Product, kept: usize, level: Level, mut visit: impl FnMut(f64, Cut)) {
    let machine = machine(level);
    for orientation in [Orientation::Given, Orientation::Swapped] {
        let operands = operands(product, kept, orientation);
        let estimate = Estimate::new(&operands, &machine);
        let (rows, columns) = estimate.choices();
        for column_blocks in columns {
            for row_blocks in rows.clone() {
                let cut = Cut { orientation, row_blocks, column_blocks };
                visit(estimate.score(row_blocks, column_blocks), cut);
            }
        }
    }
}

/// The dimensions of a product as its operands see them, after orientation.
#[derive(Debug)]
pub struct Operands {
    /// `(extent, strides in A, B, C)`, outermost first.
    pub batch: Vec<(usize, [isize; 3])>,
    /// Rows of A and of C.
    pub m: [Axis; 2],
    /// Columns of B and of C.
    pub n: [Axis; 2],
    /// Sum index in A and in B.
    pub k: [Axis; 2],
    /// What rows and columns need of k.
    pub bands: Bands,
}

impl Operands {
    /// Element offsets of A, B and C for one product of the batch.
    pub fn batch_offsets(&self, mut index: usize) -> [isize; 3] {
        let mut offsets = [0; 3];
        for (extent, strides) in self.batch.iter().rev() {
            let i = (index % extent) as isize;
            index /= extent;
            for (offset, stride) in offsets.iter_mut().zip(strides) {
                *offset += i * stride;
            }
        }
        offsets
    }
}

/// The loops of a product by their roles, as an orientation sees them. The first `kept` batch loops stay outermost.
pub fn operands(product: &kernel::Product, kept: usize, orientation: Orientation) -> Operands {
    let convert = |loops: &[kernel::ProductLoop], first: Option<usize>| -> Vec<Loop> {
        let strides = |l: &kernel::ProductLoop| match orientation {
            Orientation::Given => [l.a, l.b, l.c],
            Orientation::Swapped => [l.b, l.a, l.c],
        };
        let number = |place: usize| first.map(|first| first + place);
        let each = |(place, l): (usize, &kernel::ProductLoop)| Loop {
            extent: l.extent,
            strides: strides(l),
            number: number(place),
        };
        loops.iter().enumerate().map(each).filter(|l| l.extent != 1).collect()
    };
    let (given_m, given_n) = (convert(&product.m, Some(0)), convert(&product.n, Some(product.m.len())));
    let (mut m, mut n) = match orientation {
        Orientation::Given => (given_m, given_n),
        Orientation::Swapped => (given_n, given_m),
    };
    let mut k = convert(&product.k, Some(product.m.len() + product.n.len()));
    let (mut slices, mut batch) = (convert(&product.batch[..kept], None), convert(&product.batch[kept..], None));
    // A batch loop that one operand does not see is a loop of the other's rows or columns.
    batch.retain(|each| match each.strides {
        [0, b, _] if b != 0 => {
            n.push(*each);
            false
        }
        [a, 0, _] if a != 0 => {
            m.push(*each);
            false
        }
        _ => true,
    });
    slices.append(&mut batch);
    // Long strides outermost: C's for the columns, for they decide how tiles are written; A's for the rows.
    m.sort_by_key(|&Loop { strides: [a, _, c], .. }| std::cmp::Reverse((a.abs(), c.abs())));
    n.sort_by_key(|&Loop { strides: [_, b, c], .. }| std::cmp::Reverse((c.abs(), b.abs())));
    k.sort_by_key(|&Loop { strides: [a, b, _], .. }| std::cmp::Reverse(a.abs() + b.abs()));
    let axis = |loops: &[Loop], operand: usize| Axis::new(loops.iter().map(|l| (l.extent, l.strides[operand])));
    Operands {
        batch: slices.iter().map(|l| (l.extent, l.strides.map(|s| s as isize))).collect(),
        m: [axis(&m, 0), axis(&m, 2)],
        n: [axis(&n, 1), axis(&n, 2)],
        k: [axis(&k, 0), axis(&k, 1)],
        bands: Bands::new(&product.bands, [&m, &n, &k]),
    }
}

/// The shape that a cut gives a product with these operands.
pub fn shape(operands: &Operands, cut: Cut, level: Level) -> Shape {
    let machine = machine(level);
    let estimate = Estimate::new(operands, &machine);
    let Cut { row_blocks, column_blocks: per_segment, .. } = cut;
    let segment_vectors = estimate.segment.div_ceil(machine.lanes).max(1);
    let max_rows = estimate.m.div_ceil(row_blocks);
    let max_columns = segment_vectors.div_ceil(per_segment) * machine.lanes;
    Shape {
        row_blocks,
        max_rows,
        column_blocks: ColumnBlocks {
            extent: estimate.n,
            segment: estimate.segment,
            per_segment,
            lanes: machine.lanes,
        },
        max_columns,
        k_block: estimate.k_block(),
        pack_a: estimate.packs_a(max_columns),
        copy_a: estimate.copy_a.0,
        pack_b: estimate.packs_b(max_rows),
        copy_b: estimate.copy_b.0,
        may_stage: estimate.stage > 0.0,
    }
}

/// The cost model: cycles of a product cut in a given way, where one vector's multiply-add takes one cycle.
struct Estimate<'a> {
    m: usize,
    n: usize,
    k: usize,
    batch: usize,
    segment: usize,
    copy_a: (Copying, f64),
    copy_b: (Copying, f64),
    /// Neighbours in k are neighbours in A.
    a_along_k: bool,
    /// A's elements of a row lie in one run.
    a_in_one_run: bool,
    b_is_direct: bool,
    /// B's rows are as near each other as those of a panel.
    b_is_panel: bool,
    /// Cycles to write an element of C over a stage; 0: written directly.
    stage: f64,
    machine: &'a Machine,
}

impl<'a> Estimate<'a> {
    fn new(operands: &Operands, machine: &'a Machine) -> Estimate<'a> {
        let Operands { m: [m_a, m_c], n: [n_b, n_c], k: [k_a, k_b], batch, .. } = operands;
        let (n, k) = (n_b.extent(), k_a.extent());
        // C's runs, if long, are the segments that columns are cut into.
        let segment = if n_c.run() >= MIN_RUN || n_c.run() == n { n_c.run() } else { n };
        let contiguous = n <= 1 || (n_c.run() >= segment && n_c.step() == 1);
        let stage = match (contiguous, n_c.step(), m_c.step()) {
            (true, ..) => 0.0,
            (false, 1, _) => 0.4 + 3.0 / n_c.run() as f64,
            (false, _, 1) => 1.4,
            (false, ..) => 2.5,
        };
        let b_is_direct = (n <= 1 || (n_b.step() == 1 && n_b.run() % segment.max(1) == 0)) && k_b.run() == k;
        Estimate {
            m: m_a.extent(),
            n,
            k,
            batch: batch.iter().map(|(extent, _)| extent).product(),
            segment,
            copy_a: Copying::of(m_a, k_a),
            copy_b: Copying::of(n_b, k_b),
            a_along_k: k_a.step().abs() == 1 && k_a.run() >= 4.min(k),
            a_in_one_run: k_a.run() == k,
            b_is_direct,
            b_is_panel: b_is_direct && k_b.step().unsigned_abs() <= MAX_PANEL,
            stage,
            machine,
        }
    }

    /// Positions of k in a block.
    fn k_block(&self) -> usize {
        self.k.div_ceil(self.k.div_ceil(MAX_K_BLOCK).max(1)).max(1)
    }

    /// The numbers of blocks of rows, and of columns in a segment, that are worth a thought.
    fn choices(&self) -> (RangeInclusive<usize>, RangeInclusive<usize>) {
        let segment_vectors = self.segment.div_ceil(self.machine.lanes).max(1);
        let fewest = self.segment.div_ceil(MAX_COLUMNS.min(MAX_BLOCK / self.k_block())).max(1);
        let divide = self.multiply_adds() >= MIN_CYCLES_TO_DIVIDE;
        let most_columns = if divide { (segment_vectors / 3).clamp(fewest, fewest + 32) } else { fewest };
        let most_rows = if divide { (self.m / MIN_ROWS).clamp(1, 64) } else { 1 };
        (1..=most_rows, fewest..=most_columns)
    }

    /// Multiply-adds of the whole product in vectors.
    fn multiply_adds(&self) -> f64 {
        (self.batch * self.m * self.k) as f64 * self.n.div_ceil(self.machine.lanes) as f64
    }

    /// Whether parts of so many columns copy A: not if it streams in place, or if one panel alone reads it.
    fn packs_a(&self, columns: usize) -> bool {
        let vectors = columns.div_ceil(self.machine.lanes);
        let one_panel = vectors <= full_panel(vectors, self.machine.max_vectors);
        !self.a_along_k && (!self.a_in_one_run || !one_panel)
    }

    /// Whether parts of so many rows copy B: not if it is as near as a copy, or if few rows in sequence would use it.
    fn packs_b(&self, rows: usize) -> bool {
        // Blocks of rows that a thread runs one after another share the panels of B; of two threads each runs half.
        let rows = if self.stage == 0.0 { rows.max(self.m / 2) } else { rows };
        !(self.b_is_panel || (self.b_is_direct && rows < MIN_ROWS_TO_PACK_B))
    }

    /// Cycles on two threads and, with little weight, on more, of `row_blocks` × `per_segment` parts a segment.
    fn score(&self, row_blocks: usize, per_segment: usize) -> f64 {
        let parts = self.batch * row_blocks * per_segment * (self.n / self.segment.max(1));
        let vectors = self.segment.div_ceil(self.machine.lanes).div_ceil(per_segment);
        let rows = self.m.div_ceil(row_blocks);
        let columns = vectors * self.machine.lanes;
        let (k, elements) = (self.k as f64, (rows * columns) as f64);
        let copy_a = match (self.packs_a(columns), self.a_along_k) {
            (true, _) => self.copy_a.1,
            (false, true) => 0.05,
            (false, false) => 0.3,
        };
        let stage_fits = rows * columns * size_of::<f32>() <= MAX_STAGE;
        let stage = if self.stage == 0.0 || stage_fits { self.stage } else { self.stage + 1.0 };
        // What a part reads of A comes from L3 if it does not fit L2.
        let copy_a = if rows * self.k * size_of::<f32>() > MAX_RESIDENT { copy_a + 0.25 } else { copy_a };
        let copy_b = if self.packs_b(rows) { self.copy_b.1 } else { 0.1 };
        let part = self.tiles(rows, vectors) + k * copy_a * rows as f64 + elements * (stage + 0.1) + PART_COST;
        let panels = k * copy_b * columns as f64;
        let on = |threads: usize| {
            let each = parts.div_ceil(threads);
            // Blocks of rows that a thread runs one after another share the panels of B.
            let copies = if self.stage == 0.0 { each.div_ceil(row_blocks) } else { each };
            threads as f64 * (each as f64 * part + copies as f64 * panels)
        };
        on(2) + 0.03 * on(8) + 0.003 * on(32)
    }

    /// Cycles of a part's tiles. A tile takes at least the latency of a multiply-add.
    fn tiles(&self, rows: usize, vectors: usize) -> f64 {
        const LATENCY: f64 = 4.0;
        /// A tile's calls and its registers' way to memory, per vector of C.
        const PER_VECTOR: f64 = 4.0;
        let full = full_panel(vectors.max(1), self.machine.max_vectors);
        let most = (self.machine.max_rows)(full);
        let most = if self.packs_a(vectors * self.machine.lanes) { most } else { most.min(MAX_DIRECT_ROWS) };
        let tiles = rows.div_ceil(most).max(1) as f64;
        let height = rows as f64 / tiles;
        let k_blocks = self.k.div_ceil(MAX_K_BLOCK) as f64;
        let mut cycles = 0.0;
        let mut left = vectors;
        while left > 0 {
            let panel = next_panel(left, full);
            // The loads of B and half of those of A do not hide behind the multiply-adds of a narrow tile.
            let multiply_add = (height * panel as f64 + 0.1 * (height + panel as f64)).max(LATENCY);
            cycles += multiply_add * self.k as f64 + PER_VECTOR * height * panel as f64 * k_blocks;
            left -= panel;
        }
        tiles * cycles
    }
}
