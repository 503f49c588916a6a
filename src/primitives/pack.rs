//! Packing: a block of an operand copied so that a tile reads it as one stream.
//!
//! Input: the block's columns (of B; rows, for A) and its k range as offsets. Output: `to[k · width + column]`, zero in
//! the columns that pad the last vector. The way of copying follows the operand's contiguous direction.
#![allow(unsafe_op_in_unsafe_fn)]

use super::axis::{Axis, Run};
use super::lanes::Lanes;
use super::tile::Tiles;
use std::ops::Range;

/// How an operand is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copying {
    /// Runs of neighbouring columns, for each k.
    Columns,
    /// Square blocks, transposed: neighbours in k are neighbours in memory.
    Transposed,
    /// Element by element.
    Gathered,
}

impl Copying {
    /// The cheapest way for an operand, and its cost in cycles per element (measured on Zen 4 with AVX-512).
    pub fn of(columns: &Axis, k: &Axis) -> (Copying, f64) {
        let along_columns = if columns.step() == 1 || columns.extent() == 1 {
            0.12 + 3.0 / columns.run() as f64
        } else {
            f64::INFINITY
        };
        let along_k = if k.step() == 1 || k.extent() == 1 { 0.3 + 4.0 / k.run() as f64 } else { f64::INFINITY };
        let gathered = 1.5;
        if along_columns <= along_k && along_columns < gathered {
            (Copying::Columns, along_columns)
        } else if along_k < gathered {
            (Copying::Transposed, along_k)
        } else {
            (Copying::Gathered, gathered)
        }
    }
}

/// A range of k as one operand sees it.
#[derive(Clone, Copy)]
pub(crate) struct KBlock<'a> {
    /// Its runs.
    pub runs: &'a [Run],
    /// Offset between neighbours in a run.
    pub step: isize,
    /// The offset of each k.
    pub offsets: &'a [isize],
}

/// Copies the columns `range` of an operand over a k block to `to`, rows of `width` ≥ `range.len()` elements; the
/// elements of a row beyond the range become zero.
///
/// # Safety
/// The vector type's instruction set is there; `from` plus every column's plus every k's offset is readable; `to` holds
/// `width` elements for each k; `width` is at most `range.len()` rounded up to whole vectors.
#[inline(always)]
pub(crate) unsafe fn pack<V: Tiles>(
    copying: Copying,
    from: *const f32,
    columns: &Axis,
    range: Range<usize>,
    k: KBlock<'_>,
    to: *mut f32,
    width: usize,
) {
    match copying {
        Copying::Columns => pack_columns::<V>(from, columns, range, k, to, width),
        Copying::Transposed if width <= V::Narrow::COUNT => {
            pack_transposed::<V::Narrow>(from, columns, range, k, to, width)
        }
        Copying::Transposed => pack_transposed::<V>(from, columns, range, k, to, width),
        Copying::Gathered => pack_gathered(from, columns, range, k, to, width),
    }
}

#[inline(always)]
unsafe fn pack_columns<V: Lanes>(
    from: *const f32,
    columns: &Axis,
    range: Range<usize>,
    k: KBlock<'_>,
    to: *mut f32,
    width: usize,
) {
    let used = range.len();
    let mut runs = columns.runs(range.clone());
    let whole = match runs.next() {
        Some(run) if run.length == used => Some(run.offset),
        _ => None,
    };
    if let Some(offset) = whole {
        let source = from.offset(offset);
        let full = used / V::COUNT;
        let rest = used - full * V::COUNT;
        let rest_width = width - full * V::COUNT;
        for (row, &k_offset) in k.offsets.iter().enumerate() {
            let (source, row) = (source.offset(k_offset), to.add(row * width));
            for v in 0..full {
                V::load(source.add(v * V::COUNT)).store(row.add(v * V::COUNT));
            }
            if rest_width > 0 {
                V::load_first(source.add(full * V::COUNT), rest).store_first(row.add(full * V::COUNT), rest_width);
            }
        }
        return;
    }
    if used < width {
        for row in 0..k.offsets.len() {
            std::ptr::write_bytes(to.add(row * width + used), 0, width - used);
        }
    }
    for run in columns.runs(range) {
        let source = from.offset(run.offset);
        let to = to.add(run.position);
        let full = run.length / V::COUNT;
        let rest = run.length - full * V::COUNT;
        for (row, &k_offset) in k.offsets.iter().enumerate() {
            let (source, row) = (source.offset(k_offset), to.add(row * width));
            for v in 0..full {
                V::load(source.add(v * V::COUNT)).store(row.add(v * V::COUNT));
            }
            if rest > 0 {
                V::load_first(source.add(full * V::COUNT), rest).store_first(row.add(full * V::COUNT), rest);
            }
        }
    }
}

#[inline(always)]
unsafe fn pack_transposed<V: Lanes>(
    from: *const f32,
    columns: &Axis,
    range: Range<usize>,
    k: KBlock<'_>,
    to: *mut f32,
    width: usize,
) {
    let mut pointers = [from; 16];
    let mut start = 0;
    while start < width {
        let group = (width - start).min(V::COUNT);
        let used = group.min(range.len().saturating_sub(start));
        for run in columns.runs(range.start + start..range.start + start + used) {
            for i in 0..run.length {
                pointers[run.position + i] = from.offset(run.offset + i as isize * columns.step());
            }
        }
        for run in k.runs {
            let mut done = 0;
            while done < run.length {
                let length = (run.length - done).min(V::COUNT);
                let mut sources = pointers;
                for source in &mut sources[..used] {
                    *source = source.offset(run.offset + done as isize);
                }
                V::transpose(&sources[..used], length, to.add((run.position + done) * width + start), width, group);
                done += length;
            }
        }
        start += group;
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
    let used = range.len();
    for run in columns.runs(range) {
        for i in 0..run.length {
            let source = from.offset(run.offset + i as isize * columns.step());
            let column = to.add(run.position + i);
            for (row, &k_offset) in k.offsets.iter().enumerate() {
                *column.add(row * width) = *source.offset(k_offset);
            }
        }
    }
    for row in 0..k.offsets.len() {
        std::ptr::write_bytes(to.add(row * width + used), 0, width - used);
    }
}
