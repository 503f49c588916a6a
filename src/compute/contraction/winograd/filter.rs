//! The transform of the taps, once for all parts of a product.
//!
//! Input: taps anywhere. Output: `filter[point][row][summed]`, the summed index contiguous. Invariant: a part is one row.
#![allow(unsafe_op_in_unsafe_fn)]

use super::transform::{Tile, taps_to_points};
use super::{Job, dispatch, offsets, places};
use crate::kernel::{self, winograd::SHORT};
use crate::machine::Level;
use crate::primitives::tile::Tiles;
use std::ops::Range;

/// The transform of a [`kernel::Winograd`]'s taps, ready to run.
#[derive(Debug)]
pub struct FilterPlan {
    level: Level,
    tile: usize,
    taps_byte: isize,
    filter_byte: usize,
    /// Offsets of the rows and of the summed index in the taps.
    rows: Vec<isize>,
    summed: Vec<isize>,
    /// Strides of the windows in the taps.
    strides: [isize; 2],
}

impl FilterPlan {
    /// A plan for a product whose buffers, and the filter's, start at the given byte offsets.
    ///
    /// # Panics
    /// If the product is no correlation: a bug of `schedule`.
    pub fn new(winograd: &kernel::Winograd, bytes: [usize; 3], filter_byte: usize, level: Level) -> Self {
        let geometry = winograd.geometry();
        let [_, taps_byte, _] = places(&geometry, bytes);
        Self {
            level,
            tile: winograd.tile,
            taps_byte,
            filter_byte,
            rows: offsets(&geometry.rows, |dim| dim.tap),
            summed: offsets(&geometry.summed, |dim| dim.tap),
            strides: geometry.windows.map(|window| window.tap as isize),
        }
    }

    /// The number of independent parts.
    pub fn parts(&self) -> usize {
        self.rows.len()
    }

    /// Nominal work: elements written.
    pub fn elements(&self) -> usize {
        (self.tile + SHORT - 1).pow(2) * self.rows.len() * self.summed.len()
    }

    /// Runs the parts of a range, in order.
    ///
    /// # Safety
    /// The plan's level is available, the taps are readable and the filter writable at their offsets from `base`, and
    /// nobody else touches the rows of these parts.
    pub unsafe fn run(&self, base: *mut u8, parts: Range<usize>) {
        for row in parts {
            dispatch(self.level, self.tile, FilterRow { plan: self, base, row });
        }
    }
}

#[derive(Clone, Copy)]
struct FilterRow<'a> {
    plan: &'a FilterPlan,
    base: *mut u8,
    row: usize,
}

impl Job for FilterRow<'_> {
    #[inline(always)]
    unsafe fn run<V: Tiles, T: Tile>(self) {
        let plan = self.plan;
        let depth = plan.summed.len();
        let taps = self.base.offset(plan.taps_byte).cast::<f32>().cast_const().offset(plan.rows[self.row]);
        let to = self.base.add(plan.filter_byte).cast::<f32>().add(self.row * depth);
        let plane = plan.rows.len() * depth;
        for first in (0..depth).step_by(V::COUNT) {
            let used = (depth - first).min(V::COUNT);
            let vectors = load_taps::<V>(plan, taps, &plan.summed[first..first + used]);
            let points = taps_to_points::<V, T>(&vectors);
            for p in 0..T::POINTS {
                for q in 0..T::POINTS {
                    points[p][q].store_first(to.add((p * T::POINTS + q) * plane + first), used);
                }
            }
        }
    }
}

/// The taps at these offsets, `[i][j]`, one in each lane.
#[inline(always)]
unsafe fn load_taps<V: Tiles>(plan: &FilterPlan, taps: *const f32, offsets: &[isize]) -> [[V; SHORT]; SHORT] {
    const TAPS: usize = SHORT * SHORT;
    let mut lanes = [0.0f32; TAPS * 16];
    let [down, across] = plan.strides;
    let is_dense = across.abs() == 1 && down == across * SHORT as isize;
    // The taps of a window are neighbours, first to last or last to first.
    let first = if across < 0 { down * 2 + across * 2 } else { 0 };
    if is_dense {
        let mut sources = [taps; 16];
        for (source, offset) in sources.iter_mut().zip(offsets) {
            *source = taps.offset(offset + first);
        }
        for done in (0..TAPS).step_by(V::COUNT) {
            let sources = sources.map(|source| source.wrapping_add(done));
            let length = (TAPS - done).min(V::COUNT);
            V::transpose(&sources[..offsets.len()], length, lanes.as_mut_ptr().add(done * V::COUNT), V::COUNT);
        }
    } else {
        for (lane, offset) in offsets.iter().enumerate() {
            for tap in 0..TAPS {
                let (i, j) = ((tap / SHORT) as isize, (tap % SHORT) as isize);
                lanes[tap * V::COUNT + lane] = *taps.offset(offset + i * down + j * across);
            }
        }
    }
    let mut vectors = [[V::splat(0.0); SHORT]; SHORT];
    for tap in 0..TAPS {
        let place = if is_dense && across < 0 { TAPS - 1 - tap } else { tap };
        vectors[tap / SHORT][tap % SHORT] = V::load(lanes.as_ptr().add(place * V::COUNT));
    }
    vectors
}
