//! The shape of a product's execution: which operand is packed, how C is cut into parts, how far k is blocked.
//!
//! Input: a [`kernel::Product`] and a level. Output: a [`Shape`] with the operands' axes. Invariant: everything here
//! follows from extents, strides and the level, never from the number of threads.

use super::Level;
use super::axis::Axis;
use super::pack::Copying;
use super::product::Operands;
use super::tile::{MAX_ROWS, next_panel};
use crate::kernel;
use std::ops::Range;

/// Longest block of k: a tile's rows of A (8 × 320 × 4 = 10 KiB) stay in L1 beside the passing panel of B.
const MAX_K_BLOCK: usize = 320;
/// Most columns of a part: the block of B (320 × 512 × 4 = 640 KiB) stays in an L2 of 1 MiB.
const MAX_COLUMNS: usize = 512;
/// Columns of a part if C's runs of columns are at least so long: parts then follow the runs.
const MIN_RUN: usize = 192;
/// Fewer rows than this do not repay a copy of B.
const MIN_ROWS_TO_PACK_B: usize = 16;
/// Cycles that a part costs besides its work.
const PART_COST: f64 = 600.0;
/// Products of fewer cycles are one part.
const MIN_CYCLES_TO_DIVIDE: f64 = 8000.0;

/// Which operand gives the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orientation {
    /// A gives the rows of C.
    Given,
    /// B does: Cᵀ = Bᵀ·Aᵀ.
    Swapped,
}

/// How a product is executed.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
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
pub(crate) struct ColumnBlocks {
    extent: usize,
    segment: usize,
    per_segment: usize,
    lanes: usize,
}

impl ColumnBlocks {
    /// Number of blocks.
    pub fn count(&self) -> usize {
        if self.segment == 0 { 0 } else { self.extent / self.segment * self.per_segment }
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
}

fn machine(level: Level) -> Machine {
    match level {
        Level::Portable => Machine { lanes: 8, max_vectors: 1 },
        Level::Avx2 => Machine { lanes: 8, max_vectors: 2 },
        Level::Avx512 => Machine { lanes: 16, max_vectors: 3 },
    }
}

/// The cheaper orientation of a product, with its operands and shape.
pub(crate) fn choose(product: &kernel::Product, level: Level) -> (Orientation, Operands, Shape) {
    let [given, swapped] = [Orientation::Given, Orientation::Swapped].map(|orientation| {
        let operands = operands(product, orientation);
        let (shape, cost) = shape(&operands, level);
        (orientation, operands, shape, cost)
    });
    let (orientation, operands, shape, _) = if swapped.3 < given.3 { swapped } else { given };
    (orientation, operands, shape)
}

/// A loop with strides in A, B and C after orientation.
type Loop = (usize, [i64; 3]);

fn operands(product: &kernel::Product, orientation: Orientation) -> Operands {
    let convert = |loops: &[kernel::ProductLoop]| -> Vec<Loop> {
        let strides = |l: &kernel::ProductLoop| match orientation {
            Orientation::Given => [l.a, l.b, l.c],
            Orientation::Swapped => [l.b, l.a, l.c],
        };
        loops.iter().filter(|l| l.extent != 1).map(|l| (l.extent, strides(l))).collect()
    };
    let (m, n) = match orientation {
        Orientation::Given => (&product.m, &product.n),
        Orientation::Swapped => (&product.n, &product.m),
    };
    let (mut batch, mut m, mut n, mut k) = (convert(&product.batch), convert(m), convert(n), convert(&product.k));
    // A batch loop that one operand does not see is a loop of the other's rows or columns.
    batch.retain(|&(extent, strides)| match strides {
        [0, b, _] if b != 0 => {
            n.push((extent, strides));
            false
        }
        [a, 0, _] if a != 0 => {
            m.push((extent, strides));
            false
        }
        _ => true,
    });
    // Long strides outermost: C's for the columns, for they decide how tiles are written; A's for the rows.
    m.sort_by_key(|&(_, [a, _, c])| std::cmp::Reverse((a.abs(), c.abs())));
    n.sort_by_key(|&(_, [_, b, c])| std::cmp::Reverse((c.abs(), b.abs())));
    k.sort_by_key(|&(_, [a, b, _])| std::cmp::Reverse(a.abs() + b.abs()));
    let axis = |loops: &[Loop], operand: usize| Axis::new(loops.iter().map(|&(extent, s)| (extent, s[operand])));
    Operands {
        batch: batch.iter().map(|&(extent, s)| (extent, s.map(|s| s as isize))).collect(),
        m: [axis(&m, 0), axis(&m, 2)],
        n: [axis(&n, 1), axis(&n, 2)],
        k: [axis(&k, 0), axis(&k, 1)],
    }
}

/// The cheapest shape of an orientation, and its estimated cycles on two threads.
fn shape(operands: &Operands, level: Level) -> (Shape, f64) {
    let machine = machine(level);
    let (m, n, k) = (operands.m[0].extent(), operands.n[0].extent(), operands.k[0].extent());
    let k_block = k.div_ceil(k.div_ceil(MAX_K_BLOCK).max(1)).max(1);
    let (copy_a, cost_a) = Copying::of(&operands.m[0], &operands.k[0]);
    let (copy_b, cost_b) = Copying::of(&operands.n[0], &operands.k[1]);
    // C's runs, if long, are the segments that columns are cut into.
    let run = operands.n[1].run();
    let segment = if run >= MIN_RUN || run == n { run } else { n };
    let batch: usize = operands.batch.iter().map(|(extent, _)| extent).product();
    let b_is_direct = operands.n[0].run() >= segment
        && operands.n[0].run() % segment.max(1) == 0
        && (operands.n[0].step() == 1 || n == 1)
        && operands.k[1].run() == k;
    let estimate = Estimate { m, n, k, batch, segment, cost_a, cost_b, machine: &machine };
    let mut best: Option<(f64, usize, usize)> = None;
    let segment_vectors = segment.div_ceil(machine.lanes).max(1);
    let fewest = segment.div_ceil(MAX_COLUMNS).max(1);
    let divide = estimate.cycles() >= MIN_CYCLES_TO_DIVIDE;
    let most_columns = if divide { (segment_vectors / machine.max_vectors).clamp(fewest, fewest + 32) } else { fewest };
    let most_rows = if divide { (m / (2 * MAX_ROWS)).clamp(1, 64) } else { 1 };
    for per_segment in fewest..=most_columns {
        for row_blocks in 1..=most_rows {
            let score = estimate.score(row_blocks, per_segment);
            if best.is_none_or(|(least, ..)| score < least) {
                best = Some((score, row_blocks, per_segment));
            }
        }
    }
    let (score, row_blocks, per_segment) = best.unwrap_or((0.0, 1, 1));
    let max_rows = m.div_ceil(row_blocks.max(1));
    let max_columns = segment_vectors.div_ceil(per_segment) * machine.lanes;
    let contiguous = (run >= segment && (operands.n[1].step() == 1 || n == 1)) || n <= 1;
    let pack_b = !(b_is_direct && max_rows < MIN_ROWS_TO_PACK_B);
    let a_is_direct = operands.k[0].step() == 1 && operands.k[0].run() >= 8.min(k);
    let pack_a = !(a_is_direct || max_columns <= 2 * machine.lanes && operands.k[0].run() == k);
    let stage_cost =
        if contiguous { 0.0 } else { (m * n * batch) as f64 * if operands.n[1].step() == 1 { 0.3 } else { 2.0 } };
    let column_blocks = ColumnBlocks { extent: n, segment, per_segment, lanes: machine.lanes };
    let shape = Shape {
        row_blocks,
        max_rows,
        column_blocks,
        max_columns,
        k_block,
        pack_a,
        copy_a,
        pack_b,
        copy_b,
        may_stage: !contiguous,
    };
    (shape, score + stage_cost / 2.0)
}

/// The cost model: cycles of a product cut in a given way, where one vector's multiply-add takes one cycle.
struct Estimate<'a> {
    m: usize,
    n: usize,
    k: usize,
    batch: usize,
    segment: usize,
    /// Cycles to copy an element of A, of B.
    cost_a: f64,
    cost_b: f64,
    machine: &'a Machine,
}

impl Estimate<'_> {
    /// Multiply-adds of the whole product in vectors.
    fn cycles(&self) -> f64 {
        (self.batch * self.m * self.k) as f64 * self.n.div_ceil(self.machine.lanes) as f64
    }

    /// Cycles on two threads, and with less weight on eight, of `row_blocks` × `per_segment` parts a segment.
    fn score(&self, row_blocks: usize, per_segment: usize) -> f64 {
        let segments = self.n / self.segment.max(1);
        let parts = self.batch * row_blocks * segments * per_segment;
        let vectors = self.segment.div_ceil(self.machine.lanes).div_ceil(per_segment);
        let rows = self.m.div_ceil(row_blocks);
        let mut tile_cost = 0.0;
        let mut left = vectors;
        while left > 0 {
            let panel = next_panel(left, self.machine.max_vectors);
            let penalty = if panel == 1 { 0.15 } else { 0.03 * (self.machine.max_vectors - panel) as f64 };
            tile_cost += panel as f64 * (1.0 + penalty);
            left -= panel;
        }
        let k = self.k as f64;
        let columns = (vectors * self.machine.lanes) as f64;
        let part = rows as f64 * k * (tile_cost + self.cost_a) + columns * k * self.cost_b + PART_COST;
        let on = |threads: usize| parts.div_ceil(threads) as f64 * part;
        0.8 * on(2) + 0.8 * on(8)
    }
}
