//! Packing: a block of an operand copied so that a tile reads it as one stream.
//!
//! Input: the block's columns (of B; rows, for A) and its k range as offsets. Output: `to[k · width + column]`; the
//! columns that pad the last vector have any value. The way of copying follows the operand's contiguous direction.
//! Rows are written as whole vectors in order of k, for masked stores are slow: a row's last vector runs into the next.
#![allow(unsafe_op_in_unsafe_fn)]

use super::axis::{Axis, Run};
use super::tile::Tiles;
use crate::machine::lanes::Lanes;
use std::ops::Range;

/// Elements that packing may write behind a block.
pub const SPARE: usize = 16;
/// The most tiles whose rows of A are copied together: with eight rows each, two cache lines of neighbouring rows.
pub const MAX_TILES: usize = 4;
/// The widest panel: four vectors of 16 lanes.
const MAX_PANEL: usize = 64;
/// How many rows of k ahead a copy asks for: about the latency of L3.
const ROWS_AHEAD: usize = 12;
/// How many elements ahead a transposing copy asks for in each of its streams.
const ELEMENTS_AHEAD: usize = 64;

/// How an operand is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// Runs of neighbouring columns, for each k.
    Columns,
    /// Square blocks, transposed: neighbours in k are neighbours in memory.
    Transposed,
    /// As `Columns`, where neighbouring columns are two elements apart: convolutions of stride 2.
    SecondColumns,
    /// As `Transposed`, where neighbours in k are two elements apart.
    SecondTransposed,
    /// Element by element.
    Gathered,
}

impl Copying {
    /// The cheapest way for an operand, and its cost in cycles per element (measured on Zen 4 with AVX-512, source
    /// and target in L2).
    pub fn of(columns: &Axis, k: &Axis) -> (Copying, f64) {
        let cost = |axis: &Axis, least: f64, run: f64| least + run / axis.run() as f64;
        let along = |axis: &Axis, step: isize| axis.step() == step || (step == 1 && axis.extent() == 1);
        let ways = [
            (Copying::Columns, along(columns, 1), cost(columns, 0.4, 3.0)),
            (Copying::Transposed, along(k, 1), cost(k, 0.6, 3.0)),
            (Copying::SecondColumns, along(columns, 2), cost(columns, 0.5, 4.0)),
            (Copying::SecondTransposed, along(k, 2), cost(k, 0.8, 4.0)),
        ];
        let mut best = (Copying::Gathered, 1.3);
        for (copying, fits, cost) in ways {
            if fits && cost < best.1 {
                best = (copying, cost);
            }
        }
        best
    }
}

/// A range of k as one operand sees it.
#[derive(Clone, Copy)]
pub struct KBlock<'a> {
    /// Its runs.
    pub runs: &'a [Run],
    /// Offset between neighbours in a run.
    pub step: isize,
    /// The offset of each k.
    pub offsets: &'a [isize],
}

impl<'a> KBlock<'a> {
    /// A range of its positions: all of them, none, or some of its only run. `run` gets the run.
    pub fn within<'b>(self, range: Range<usize>, run: &'b mut Option<Run>) -> KBlock<'b>
    where
        'a: 'b,
    {
        if range == (0..self.offsets.len()) {
            return self;
        }
        *run = self.offsets.get(range.start).map(|&offset| Run { position: 0, length: range.len(), offset });
        let runs = if range.is_empty() { &[] } else { run.as_slice() };
        KBlock { runs, step: self.step, offsets: &self.offsets[range] }
    }
}

/// Copies the columns `range` of an operand over a k block to `to`, rows of `width` ≥ `range.len()` elements.
///
/// # Safety
/// The vector type's instruction set is there; `from` plus every column's plus every k's offset is readable; `to` holds
/// `width` elements for each k and [`SPARE`] more; either `width` is a multiple of the lanes, or at most as many;
/// `width` ≤ [`MAX_PANEL`].
#[inline(always)]
pub unsafe fn pack<V: Tiles>(
    copying: Copying,
    from: *const f32,
    columns: &Axis,
    range: Range<usize>,
    k: KBlock<'_>,
    to: *mut f32,
    width: usize,
) {
    match copying {
        Copying::Columns => pack_columns::<V, 1>(from, columns, range, k, to, width),
        Copying::SecondColumns => pack_columns::<V, 2>(from, columns, range, k, to, width),
        Copying::Transposed if width <= V::Narrow::COUNT => {
            pack_transposed::<V::Narrow, 1>(from, columns, range, k, to, width)
        }
        Copying::Transposed => pack_transposed::<V, 1>(from, columns, range, k, to, width),
        Copying::SecondTransposed if width <= V::Narrow::COUNT => {
            pack_transposed::<V::Narrow, 2>(from, columns, range, k, to, width)
        }
        Copying::SecondTransposed => pack_transposed::<V, 2>(from, columns, range, k, to, width),
        Copying::Gathered => pack_gathered(from, columns, range, k, to, width),
    }
}

/// A piece of each row of k.
#[derive(Clone, Copy, Default)]
struct Piece {
    /// Where the first row's is written.
    to: usize,
    /// Elements from row to row of what is written.
    width: usize,
    /// Where it is read.
    from: isize,
    /// At most the lanes of a vector.
    length: usize,
}

/// Copies several neighbouring tiles' rows of A at once, each to a panel of its own, [`SPARE`] elements apart, as
/// [`pack`] would copy them one by one: so that where neighbouring rows are neighbours in memory, a cache line is read
/// once. `ranges`: the rows of at most [`MAX_TILES`] tiles.
///
/// # Safety
/// As for [`pack`], with as many panels.
#[inline(always)]
pub unsafe fn pack_tiles<V: Tiles>(
    copying: Copying,
    from: *const f32,
    rows: &Axis,
    ranges: &[Range<usize>],
    k: KBlock<'_>,
    to: *mut f32,
) {
    let mut pieces = [Piece::default(); MAX_TILES];
    let (mut start, mut one_run, mut narrow) = (0, copying == Copying::Columns && ranges.len() > 1, true);
    for (range, piece) in ranges.iter().zip(&mut pieces) {
        if let Some(run) = rows.runs(range.clone()).next() {
            one_run &= run.length == range.len() && run.length <= V::COUNT;
            narrow &= run.length <= V::Narrow::COUNT;
            *piece = Piece { to: start, width: range.len(), from: run.offset, length: run.length };
        }
        start += panel_elements(k.offsets.len(), range.len());
    }
    let pieces = &pieces[..ranges.len()];
    match (one_run, narrow) {
        (true, true) => pack_rows::<V::Narrow, 1>(from, pieces, k, to),
        (true, false) => pack_rows::<V, 1>(from, pieces, k, to),
        (false, _) => {
            for (range, piece) in ranges.iter().zip(pieces) {
                pack::<V>(copying, from, rows, range.clone(), k, to.add(piece.to), piece.width);
            }
        }
    }
}

/// Elements from one tile's panel of A to the next.
pub fn panel_elements(depth: usize, rows: usize) -> usize {
    depth * rows + SPARE
}

/// The first `count` lanes from elements `STEP` (1 or 2) apart.
#[inline(always)]
unsafe fn load<V: Lanes, const STEP: usize>(from: *const f32, count: usize) -> V {
    if STEP == 2 { V::load_second(from, count) } else { V::load_first(from, count) }
}

#[inline(always)]
unsafe fn pack_columns<V: Lanes, const STEP: usize>(
    from: *const f32,
    columns: &Axis,
    range: Range<usize>,
    k: KBlock<'_>,
    to: *mut f32,
    width: usize,
) {
    // Every piece is written as a whole vector, which the next piece or row then overwrites.
    let mut pieces = [Piece::default(); MAX_PANEL];
    let mut count = 0;
    for run in columns.runs(range) {
        for start in (0..run.length).step_by(V::COUNT) {
            let from = run.offset + (STEP * start) as isize;
            pieces[count] = Piece { to: run.position + start, width, from, length: (run.length - start).min(V::COUNT) };
            count += 1;
        }
    }
    pack_rows::<V, STEP>(from, &pieces[..count], k, to);
}

/// Copies these pieces of each row of k; the places of a few stay in registers.
#[inline(always)]
unsafe fn pack_rows<V: Lanes, const STEP: usize>(from: *const f32, pieces: &[Piece], k: KBlock<'_>, to: *mut f32) {
    match *pieces {
        [a] => pack_pieces::<V, STEP, 1>(from, [a], k, to),
        [a, b] => pack_pieces::<V, STEP, 2>(from, [a, b], k, to),
        [a, b, c] => pack_pieces::<V, STEP, 3>(from, [a, b, c], k, to),
        [a, b, c, d] => pack_pieces::<V, STEP, 4>(from, [a, b, c, d], k, to),
        ref pieces => {
            for (row, &k_offset) in k.offsets.iter().enumerate() {
                let source = from.offset(k_offset);
                for piece in pieces {
                    load::<V, STEP>(source.offset(piece.from), piece.length)
                        .store(to.add(piece.to + row * piece.width));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn pack_pieces<V: Lanes, const STEP: usize, const COUNT: usize>(
    from: *const f32,
    pieces: [Piece; COUNT],
    k: KBlock<'_>,
    to: *mut f32,
) {
    let last = k.offsets.len().saturating_sub(1);
    for (row, &k_offset) in k.offsets.iter().enumerate() {
        let ahead = from.wrapping_offset(k.offsets[(row + ROWS_AHEAD).min(last)]);
        let source = from.offset(k_offset);
        for piece in pieces {
            V::prefetch(ahead.wrapping_offset(piece.from));
            load::<V, STEP>(source.offset(piece.from), piece.length).store(to.add(piece.to + row * piece.width));
        }
    }
}

#[inline(always)]
unsafe fn pack_transposed<V: Lanes, const STEP: usize>(
    from: *const f32,
    columns: &Axis,
    range: Range<usize>,
    k: KBlock<'_>,
    to: *mut f32,
    width: usize,
) {
    let mut pointers = [from; 16];
    let mut dense = [0.0f32; 256];
    for start in (0..range.len()).step_by(V::COUNT) {
        let used = (range.len() - start).min(V::COUNT);
        for run in columns.runs(range.start + start..range.start + start + used) {
            for i in 0..run.length {
                pointers[run.position + i] = from.offset(run.offset + i as isize * columns.step());
            }
        }
        for run in k.runs {
            for done in (0..run.length).step_by(V::COUNT) {
                let length = (run.length - done).min(V::COUNT);
                let mut sources = pointers;
                for source in &mut sources[..used] {
                    *source = source.offset(run.offset + (STEP * done) as isize);
                    V::prefetch(source.wrapping_add(STEP * ELEMENTS_AHEAD));
                }
                if STEP == 2 {
                    // What is transposed lies side by side first.
                    for (source, row) in sources[..used].iter_mut().zip(dense.chunks_exact_mut(V::COUNT)) {
                        V::load_second(*source, length).store(row.as_mut_ptr());
                        *source = row.as_ptr();
                    }
                }
                V::transpose(&sources[..used], length, to.add((run.position + done) * width + start), width);
            }
        }
    }
}

#[inline(always)]
unsafe fn pack_gathered(
    from: *const f32,
    columns: &Axis,
    range: Range<usize>,
    k: KBlock<'_>,
    to: *mut f32,
    width: usize,
) {
    for run in columns.runs(range) {
        for i in 0..run.length {
            let source = from.offset(run.offset + i as isize * columns.step());
            let column = to.add(run.position + i);
            for (row, &k_offset) in k.offsets.iter().enumerate() {
                *column.add(row * width) = *source.offset(k_offset);
            }
        }
    }
}
