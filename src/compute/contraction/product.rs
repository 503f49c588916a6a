//! Products: `C[m, n] (+)= Σ_k A[m, k] · B[k, n]` over affine loops, in independent parts.
//!
//! Input: a [`kernel::Product`] with its buffers' places. Output: a plan that is run part by part, by any threads.
//! Invariants: the parts and the order of k within an element of C follow from sizes and strides alone, and each element
//! belongs to one part, so results are the same bits however the parts are divided among threads. Between levels, bits
//! may differ.
//!
//! A part is one block of rows and columns of one product of the batch. Neighbouring blocks of rows that one call runs
//! are one piece of work. For each block of k, it copies its block of B into panels as wide as a tile (unless few rows
//! would use them), then walks over tiles of rows, and for each over the panels. This is the order of Goto and van de
//! Geijn, "Anatomy of high-performance matrix multiplication" (2008), with the roles of L1 and L2 of BLIS: a tile's rows
//! of A stay in L1, the block of B in L2.
#![allow(unsafe_op_in_unsafe_fn)]

pub use super::place::Place;
pub use super::shape::Cut;
use super::shape::{Operands, Orientation, Shape, choose, operands, shape};
use super::thin::ThinPlan;
use crate::kernel;
use crate::machine::{Level, at_level};
use crate::primitives::axis::{Axis, Run};
use crate::primitives::pack::{KBlock, MAX_TILES, SPARE, pack, pack_tiles, panel_elements};
use crate::primitives::tile::{MAX_DIRECT_ROWS, MAX_ROWS, Tile, Tiles, full_panel, next_panel};
use std::ops::Range;

/// Bytes in a cache line; scratch areas start at multiples of it.
const LINE: usize = 64;

/// A product made ready to run.
#[derive(Debug)]
pub struct ProductPlan {
    level: Level,
    orientation: Orientation,
    operands: Operands,
    shape: Shape,
    a: Place,
    b: Place,
    c: Place,
    accumulate: bool,
    /// The other way, where one side is thin.
    thin: Option<ThinPlan>,
}

/// The first elements of the operands, after orientation.
#[derive(Clone, Copy)]
struct Pointers {
    a: *const f32,
    b: *const f32,
    c: *mut f32,
}

/// The places of the operands' first elements from those of their buffers.
fn firsts(product: &kernel::Product, [a, b, c]: [Place; 3]) -> [Place; 3] {
    [a.at(product.a.1), b.at(product.b.1), c.at(product.c.1)]
}

impl ProductPlan {
    /// A plan for `product` whose buffers start at the given byte offsets from the base pointer of [`ProductPlan::run`].
    pub fn new(product: &kernel::Product, a_byte: usize, b_byte: usize, c_byte: usize, level: Level) -> ProductPlan {
        let places = [a_byte, b_byte, c_byte].map(Place::in_arena);
        ProductPlan::sliced(product, places, 0, level, choose(product, 0, level))
    }

    /// A plan whose parts stay in the order of the first `slices` batch loops: equal ranges of parts are equal ranges of
    /// those loops' iterations. `places` are those of the buffers of A, B and C. Where a side is thin, the cut has no say.
    pub fn sliced(product: &kernel::Product, places: [Place; 3], slices: usize, level: Level, cut: Cut) -> ProductPlan {
        let thin = ThinPlan::new(product, firsts(product, places), slices, level);
        ProductPlan { thin, ..Self::cut(product, places, slices, level, cut) }
    }

    /// As [`ProductPlan::sliced`], by tiles whatever the sides.
    pub fn tiled(product: &kernel::Product, places: [Place; 3], slices: usize, level: Level) -> ProductPlan {
        Self::cut(product, places, slices, level, choose(product, slices, level))
    }

    /// As [`ProductPlan::tiled`], cut in this way.
    pub fn cut(product: &kernel::Product, places: [Place; 3], slices: usize, level: Level, cut: Cut) -> ProductPlan {
        let [a, b, c] = firsts(product, places);
        let orientation = cut.orientation;
        let operands = operands(product, slices, orientation);
        let shape = shape(&operands, cut, level);
        let (a, b) = match orientation {
            Orientation::Given => (a, b),
            Orientation::Swapped => (b, a),
        };
        ProductPlan { level, orientation, operands, shape, a, b, c, accumulate: product.accumulate, thin: None }
    }

    /// The number of independent parts; depends on sizes and strides alone.
    pub fn parts(&self) -> usize {
        let tiled = || self.batch_count() * self.shape.row_blocks * self.shape.column_blocks.count();
        self.thin.as_ref().map_or_else(tiled, ThinPlan::parts)
    }

    /// Bytes of scratch that a thread needs, to be aligned to 64.
    pub fn scratch_bytes(&self) -> usize {
        if self.thin.is_some() { 0 } else { self.scratch_layout().bytes }
    }

    /// Nominal work: multiply-adds of the whole product.
    pub fn multiply_adds(&self) -> usize {
        self.batch_count() * self.operands.m[0].extent() * self.operands.n[0].extent() * self.operands.k[0].extent()
    }

    /// Runs the parts of a range, in order.
    ///
    /// # Safety
    /// The plan's level is available. Every element that the product names, at the plan's places, is valid; C overlaps neither A nor B, and nobody else touches the elements of C of these parts. `scratch` is
    /// valid for [`ProductPlan::scratch_bytes`], aligned to 64 bytes and used by this call alone.
    /// `parts.end` is at most [`ProductPlan::parts`].
    pub unsafe fn run(&self, base: *mut u8, scratch: *mut u8, parts: Range<usize>) {
        if let Some(thin) = &self.thin {
            return thin.run(self.level, [base, scratch], parts);
        }
        let [a, b, c] = [self.a, self.b, self.c].map(|place| place.pointer(base, scratch));
        self.run_at(Pointers { a, b, c }, scratch, parts);
    }

    /// As [`ProductPlan::run`] of a plan by tiles, with the given product's operands at these places.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn run_on(&self, [a, b]: [*const f32; 2], c: *mut f32, scratch: *mut u8, parts: Range<usize>) {
        let (a, b) = match self.orientation {
            Orientation::Given => (a, b),
            Orientation::Swapped => (b, a),
        };
        self.run_at(Pointers { a, b, c }, scratch, parts);
    }

    unsafe fn run_at(&self, pointers: Pointers, scratch: *mut u8, parts: Range<usize>) {
        debug_assert!(parts.end <= self.parts());
        let run = at_level!(
            self.level,
            fn(plan: &ProductPlan, pointers: Pointers, scratch: *mut u8, parts: Range<usize>),
            V => run_parts::<V>(plan, pointers, scratch, parts)
        );
        run(self, pointers, scratch, parts);
    }

    fn batch_count(&self) -> usize {
        self.operands.batch.iter().map(|(extent, _)| extent).product()
    }

    fn scratch_layout(&self) -> ScratchLayout {
        let shape = &self.shape;
        let mut bytes = 0usize;
        let mut area = |elements: usize, size: usize| {
            let start = bytes;
            bytes = (bytes + elements * size).next_multiple_of(LINE);
            start
        };
        let float = size_of::<f32>();
        ScratchLayout {
            b: area(if shape.pack_b { shape.k_block * shape.max_columns + SPARE } else { 0 }, float),
            a: area(if shape.pack_a { MAX_TILES * panel_elements(shape.k_block, MAX_ROWS) } else { 0 }, float),
            stage: area(if shape.may_stage { shape.max_rows * shape.max_columns } else { 0 }, float),
            a_offsets: area(shape.k_block, size_of::<isize>()),
            b_offsets: area(shape.k_block, size_of::<isize>()),
            a_runs: area(shape.k_block + 1, size_of::<Run>()),
            b_runs: area(shape.k_block + 1, size_of::<Run>()),
            bytes,
        }
    }
}

/// Byte offsets of the areas of a thread's scratch.
struct ScratchLayout {
    /// Panels of B.
    b: usize,
    /// The rows of A of a few tiles.
    a: usize,
    /// A part's block of C, where C's columns are not neighbours in memory.
    stage: usize,
    a_offsets: usize,
    b_offsets: usize,
    a_runs: usize,
    b_runs: usize,
    bytes: usize,
}

/// Rows that go from the stage to C at a time: a few cache lines of each column where C is transposed, for single lines
/// of many columns defeat the prefetchers.
const UNSTAGED_ROWS: usize = 64;

/// One part at work: its block and its pointers.
struct Part<'a> {
    plan: &'a ProductPlan,
    rows: Range<usize>,
    columns: Range<usize>,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    scratch: Scratch,
}

impl Part<'_> {
    /// The vectors of a full panel. Where a band leaves out tiles, three rather than four: less lies in tiles that it cuts.
    #[inline(always)]
    fn full_panel<V: Tiles>(&self) -> usize {
        let most = if self.plan.operands.bands.leave_out_tiles() { V::MAX_VECTORS.min(3) } else { V::MAX_VECTORS };
        full_panel(self.columns.len().div_ceil(V::COUNT), most)
    }
}

/// Pointers to the areas of a thread's scratch.
#[derive(Clone, Copy)]
struct Scratch {
    b: *mut f32,
    a: *mut f32,
    stage: *mut f32,
    offsets: [*mut isize; 2],
    runs: [*mut Run; 2],
}

#[inline(always)]
unsafe fn run_parts<V: Tiles>(plan: &ProductPlan, pointers: Pointers, scratch: *mut u8, parts: Range<usize>) {
    let layout = plan.scratch_layout();
    let scratch = Scratch {
        b: scratch.add(layout.b).cast(),
        a: scratch.add(layout.a).cast(),
        stage: scratch.add(layout.stage).cast(),
        offsets: [scratch.add(layout.a_offsets).cast(), scratch.add(layout.b_offsets).cast()],
        runs: [scratch.add(layout.a_runs).cast(), scratch.add(layout.b_runs).cast()],
    };
    let shape = &plan.shape;
    let column_blocks = shape.column_blocks.count();
    let one_k_block = plan.operands.k[0].extent() <= shape.k_block;
    let rows = |block: usize| shape.rows(block, plan.operands.m[0].extent());
    let mut packed_for = None;
    let mut next = parts.start;
    while next < parts.end {
        let (row_block, rest) = (next % shape.row_blocks, next / shape.row_blocks);
        let (column_block, batch) = (rest % column_blocks, rest / column_blocks);
        let [a, b, c] = plan.operands.batch_offsets(batch);
        // Neighbouring blocks of rows share the panels of B; what is staged must fit the stage, and tiles that leave out
        // summands must not depend on which blocks a thread runs.
        let one_by_one = shape.may_stage || !plan.operands.bands.is_empty();
        let blocks = if one_by_one { 1 } else { (shape.row_blocks - row_block).min(parts.end - next) };
        next += blocks;
        let part = Part {
            plan,
            rows: rows(row_block).start..rows(row_block + blocks - 1).end,
            columns: shape.column_blocks.columns(column_block),
            a: pointers.a.offset(a),
            b: pointers.b.offset(b),
            c: pointers.c.offset(c),
            scratch,
        };
        let b_is_packed = one_k_block && packed_for == Some(rest);
        run_part::<V>(&part, b_is_packed);
        packed_for = Some(rest);
    }
}

/// Writes the runs and offsets of one operand's range of k to scratch.
#[inline(always)]
unsafe fn k_block(axis: &Axis, range: Range<usize>, runs: *mut Run, offsets: *mut isize) -> KBlock<'static> {
    let (step, length) = (axis.step(), range.len());
    let mut count = 0;
    for run in axis.runs(range) {
        runs.add(count).write(run);
        count += 1;
        for i in 0..run.length {
            offsets.add(run.position + i).write(run.offset + i as isize * step);
        }
    }
    KBlock { runs: std::slice::from_raw_parts(runs, count), step, offsets: std::slice::from_raw_parts(offsets, length) }
}

#[inline(always)]
unsafe fn run_part<V: Tiles>(part: &Part<'_>, b_is_packed: bool) {
    let (operands, shape) = (&part.plan.operands, &part.plan.shape);
    let staged = !operands.n[1].is_contiguous(part.columns.clone());
    let depth = operands.k[0].extent();
    let stage_width = part.columns.len().next_multiple_of(V::COUNT);
    let mut first = 0;
    loop {
        let range = first..(first + shape.k_block).min(depth);
        let a_block = k_block(&operands.k[0], range.clone(), part.scratch.runs[0], part.scratch.offsets[0]);
        let b_block = k_block(&operands.k[1], range.clone(), part.scratch.runs[1], part.scratch.offsets[1]);
        if shape.pack_b && !b_is_packed {
            pack_panels::<V>(part, b_block);
        }
        let accumulate = first > 0 || (part.plan.accumulate && !staged);
        let target = match staged {
            true => Target::Stage { width: stage_width, is_final: range.end == depth },
            false => Target::Memory,
        };
        multiply::<V>(part, range.clone(), a_block, b_block, target, accumulate);
        first = range.end;
        if first >= depth {
            break;
        }
    }
}

/// Where tiles are written.
#[derive(Clone, Copy)]
enum Target {
    /// To C.
    Memory,
    /// To the stage, in rows of so many elements. After the final block of k, rows go on to C as soon as a few are
    /// ready: so their stores run beside the next tiles' arithmetic.
    Stage { width: usize, is_final: bool },
}

#[inline(always)]
unsafe fn pack_panels<V: Tiles>(part: &Part<'_>, k: KBlock<'_>) {
    let (operands, shape) = (&part.plan.operands, &part.plan.shape);
    let full = part.full_panel::<V>();
    let mut to = part.scratch.b;
    let mut start = part.columns.start;
    while start < part.columns.end {
        let left = (part.columns.end - start).div_ceil(V::COUNT);
        let width = next_panel(left, full) * V::COUNT;
        let end = (start + width).min(part.columns.end);
        pack::<V>(shape.copy_b, part.b, &operands.n[0], start..end, k, to, width);
        to = to.add(width * k.offsets.len());
        start = end;
    }
}

#[inline(always)]
unsafe fn multiply<V: Tiles>(
    part: &Part<'_>,
    k: Range<usize>,
    a_block: KBlock<'_>,
    b_block: KBlock<'_>,
    target: Target,
    accumulate: bool,
) {
    let (operands, shape) = (&part.plan.operands, &part.plan.shape);
    let most = V::max_packed_rows(part.full_panel::<V>());
    let most = if shape.pack_a { most } else { most.min(MAX_DIRECT_ROWS) };
    let tiles = part.rows.len().div_ceil(most);
    let mut tile = Tile {
        a: [part.a; MAX_DIRECT_ROWS],
        a_offsets: a_block.offsets.as_ptr(),
        depth: a_block.offsets.len(),
        b: part.b,
        b_step: b_block.step,
        b_last: V::COUNT,
        c: [part.c; MAX_ROWS],
        column: 0,
        c_last: V::COUNT,
        accumulate,
    };
    let rows_of = |index: usize| {
        part.rows.start + part.rows.len() * index / tiles..part.rows.start + part.rows.len() * (index + 1) / tiles
    };
    let mut unstaged = part.rows.start;
    let mut panel = part.scratch.a;
    let mut packed = 0;
    let mut packed_k = 0..k.len();
    for index in 0..tiles {
        let rows = rows_of(index);
        let height = rows.len();
        if shape.pack_a {
            if index == packed {
                let count = MAX_TILES.min(tiles - index);
                let ranges: [Range<usize>; MAX_TILES] = std::array::from_fn(|i| rows_of(index + i));
                packed_k = operands.bands.needed(&(rows.start..ranges[count - 1].end), &part.columns, &k);
                let mut run = None;
                let a_block = a_block.within(packed_k.clone(), &mut run);
                pack_tiles::<V>(shape.copy_a, part.a, &operands.m[0], &ranges[..count], a_block, part.scratch.a);
                packed = index + count;
                panel = part.scratch.a;
            }
            // Where k = 0 would lie.
            tile.a[0] = panel.wrapping_sub(packed_k.start * height);
            panel = panel.add(panel_elements(packed_k.len(), height));
        } else {
            fill_rows(&operands.m[0], rows.clone(), |i, offset| tile.a[i] = part.a.offset(offset));
        }
        match target {
            Target::Memory => fill_rows(&operands.m[1], rows.clone(), |i, offset| tile.c[i] = part.c.offset(offset)),
            Target::Stage { width, .. } => {
                let first = rows.start - part.rows.start;
                for i in 0..height {
                    tile.c[i] = part.scratch.stage.add((first + i) * width);
                }
            }
        }
        row_of_tiles::<V>(part, &mut tile, rows.clone(), k.clone(), [a_block, b_block], target);
        if let Target::Stage { width, is_final: true } = target {
            while rows.end - unstaged >= UNSTAGED_ROWS || (rows.end == part.rows.end && unstaged < rows.end) {
                let end = (unstaged + UNSTAGED_ROWS).min(rows.end);
                unstage::<V>(part, unstaged..end, width);
                unstaged = end;
            }
        }
    }
}

/// All tiles of a tile's rows; `tile` has the rows' places for the first k.
#[inline(always)]
unsafe fn row_of_tiles<V: Tiles>(
    part: &Part<'_>,
    tile: &mut Tile,
    rows: Range<usize>,
    k: Range<usize>,
    [a_block, b_block]: [KBlock<'_>; 2],
    target: Target,
) {
    let (operands, shape) = (&part.plan.operands, &part.plan.shape);
    let full = part.full_panel::<V>();
    let mut panel = part.scratch.b as *const f32;
    let rows_a = tile.a;
    let mut start = part.columns.start;
    while start < part.columns.end {
        let left = (part.columns.end - start).div_ceil(V::COUNT);
        let vectors = next_panel(left, full);
        let width = vectors * V::COUNT;
        let end = (start + width).min(part.columns.end);
        let last = end - start - (vectors - 1) * V::COUNT;
        let needed = operands.bands.needed(&rows, &(start..end), &k);
        if shape.pack_b {
            tile.b = panel.add(needed.start * width);
            tile.b_step = width as isize;
            panel = panel.add(width * b_block.offsets.len());
        } else {
            let column = operands.n[0].runs(start..end).next().map_or(0, |run| run.offset);
            let k = b_block.offsets.get(needed.start).copied().unwrap_or(0);
            tile.b = part.b.offset(column + k);
            tile.b_last = last;
        }
        if shape.pack_a {
            tile.a[0] = rows_a[0].wrapping_add(needed.start * rows.len());
        } else {
            tile.a_offsets = a_block.offsets.as_ptr().add(needed.start);
        }
        tile.depth = needed.len();
        tile.column = match target {
            Target::Memory => operands.n[1].runs(start..end).next().map_or(0, |run| run.offset),
            Target::Stage { .. } => (start - part.columns.start) as isize,
        };
        tile.c_last = match target {
            Target::Memory => last,
            Target::Stage { .. } => V::COUNT,
        };
        let body =
            if shape.pack_a { V::tile::<true>(rows.len(), vectors) } else { V::tile::<false>(rows.len(), vectors) };
        if tile.depth > 0 || !tile.accumulate {
            body(tile);
        }
        start = end;
    }
}

/// Calls `set` with the position and offset of each row of a tile.
#[inline(always)]
unsafe fn fill_rows(axis: &Axis, rows: Range<usize>, mut set: impl FnMut(usize, isize)) {
    for run in axis.runs(rows) {
        for i in 0..run.length {
            set(run.position + i, run.offset + i as isize * axis.step());
        }
    }
}

/// Copies, or adds, rows of a part's stage to C.
#[inline(always)]
unsafe fn unstage<V: Tiles>(part: &Part<'_>, rows: Range<usize>, width: usize) {
    let first = rows.start - part.rows.start;
    let [_, m] = &part.plan.operands.m;
    let [_, n] = &part.plan.operands.n;
    let accumulate = part.plan.accumulate;
    for row in m.runs(rows) {
        let from = part.scratch.stage.add((first + row.position) * width).cast_const();
        for run in n.runs(part.columns.clone()) {
            let (from, to) = (from.add(run.position), part.c.offset(row.offset + run.offset));
            if n.step() == 1 {
                for i in 0..row.length {
                    copy_run::<V>(from.add(i * width), to.offset(i as isize * m.step()), run.length, accumulate);
                }
            } else if m.step() == 1 {
                let size = [row.length, run.length];
                copy_transposed::<V>(from, width, to, n.step(), size, accumulate);
            } else {
                for i in 0..row.length {
                    for j in 0..run.length {
                        let element = to.offset(i as isize * m.step() + j as isize * n.step());
                        let value = *from.add(i * width + j);
                        *element = if accumulate { *element + value } else { value };
                    }
                }
            }
        }
    }
}

/// `to[j · stride + i] (+)= from[i · width + j]` for `i < size[0]` ≤ [`UNSTAGED_ROWS`], `j < size[1]`.
#[inline(always)]
unsafe fn copy_transposed<V: Tiles>(
    from: *const f32,
    width: usize,
    to: *mut f32,
    stride: isize,
    size: [usize; 2],
    accumulate: bool,
) {
    let mut block = [0.0f32; 16 * UNSTAGED_ROWS];
    for j in (0..size[1]).step_by(V::COUNT) {
        let columns = (size[1] - j).min(V::COUNT);
        for i in (0..size[0]).step_by(V::COUNT) {
            let sources: [*const f32; 16] = std::array::from_fn(|r| from.wrapping_add((i + r) * width + j));
            let used = (size[0] - i).min(V::COUNT);
            V::transpose(&sources[..used], columns, block.as_mut_ptr().add(i), UNSTAGED_ROWS);
        }
        for c in 0..columns {
            let target = to.offset((j + c) as isize * stride);
            copy_run::<V>(block.as_ptr().add(c * UNSTAGED_ROWS), target, size[0], accumulate);
        }
    }
}

#[inline(always)]
unsafe fn copy_run<V: Tiles>(from: *const f32, to: *mut f32, length: usize, accumulate: bool) {
    let mut j = 0;
    while j + V::COUNT <= length {
        let value = V::load(from.add(j));
        let value = if accumulate { V::load(to.add(j)).add(value) } else { value };
        value.store(to.add(j));
        j += V::COUNT;
    }
    if j < length {
        let count = length - j;
        let value = V::load_first(from.add(j), count);
        let value = if accumulate { V::load_first(to.add(j), count).add(value) } else { value };
        value.store_first(to.add(j), count);
    }
}

#[cfg(test)]
#[path = "product_tests.rs"]
mod tests;
