//! The transform of the taps, once for all parts of a product.
//!
//! Input: taps anywhere. Output: `filter[point][row][summed]`, the summed index contiguous. Invariant: a part is one row.
#![allow(unsafe_op_in_unsafe_fn)]

use super::transform::{Tile, taps_to_points};
use super::{Job, dispatch, filter_byte, offsets, places};
use crate::contraction::Plan;
use crate::kernel::{self, BufferId, winograd::SHORT};
use crate::machine::Level;
use crate::primitives::tile::Tiles;
use std::ops::Range;

/// The transform of a [`kernel::Winograd`]'s taps, ready to run.
#[derive(Debug)]
pub(super) struct FilterPlan {
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
    pub(super) fn new(winograd: &kernel::Winograd, place: &dyn Fn(BufferId) -> usize, level: Level) -> Self {
        let geometry = winograd.geometry();
        let [_, taps_byte, _] = places(winograd, &geometry, place);
        Self {
            level,
            tile: winograd.tile,
            taps_byte,
            filter_byte: filter_byte(winograd, place),
            rows: offsets(&geometry.rows, |dim| dim.tap),
            summed: offsets(&geometry.summed, |dim| dim.tap),
            strides: geometry.windows.map(|window| window.tap as isize),
        }
    }
}

impl Plan for FilterPlan {
    fn parts(&self) -> usize {
        self.rows.len()
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn multiply_adds(&self) -> usize {
        (self.tile + SHORT - 1).pow(2) * self.rows.len() * self.summed.len()
    }

    unsafe fn run(&self, base: *mut u8, _: *mut u8, parts: Range<usize>) {
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
