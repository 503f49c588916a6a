//! The transform of the taps, once for all parts of a product.
//!
//! Input: taps anywhere. Output: `filter[point][row][summed]`, the summed index contiguous. Invariant: a part is one row.
#![allow(unsafe_op_in_unsafe_fn)]

use super::transform::{Tile, taps_to_points};
use super::{Job, dispatch, offsets, places};
use crate::kernel::{self, winograd::SHORT};
use crate::primitives::Level;
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
            let mut lanes = [[[0.0f32; 16]; SHORT]; SHORT];
            for (lane, offset) in plan.summed[first..first + used].iter().enumerate() {
                for i in 0..SHORT {
                    for j in 0..SHORT {
                        let place = offset + i as isize * plan.strides[0] + j as isize * plan.strides[1];
                        lanes[i][j][lane] = *taps.offset(place);
                    }
                }
            }
            let mut vectors = [[V::splat(0.0); SHORT]; SHORT];
            for i in 0..SHORT {
                for j in 0..SHORT {
                    vectors[i][j] = V::load(lanes[i][j].as_ptr());
                }
            }
            let points = taps_to_points::<V, T>(&vectors);
            for p in 0..T::POINTS {
                for q in 0..T::POINTS {
                    points[p][q].store_first(to.add((p * T::POINTS + q) * plane + first), used);
                }
            }
        }
    }
}
