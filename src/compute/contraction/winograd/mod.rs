//! Products over two windows of three by minimal filtering: convolutions, their input gradients and weight gradients.
//!
//! Input: a [`kernel::Winograd`] with its buffers' places. Output: a plan that is run part by part, by any threads. Invariants:
//! as for [`super::product`]: parts, and the order of sums within an element, follow from sizes and strides alone.
//!
//! A part transforms a block of tiles to points, multiplies point by point with [`ProductPlan`], and transforms back, all in
//! a thread's scratch, so that neither the points of the data nor those of the result go through memory.
#![allow(unsafe_op_in_unsafe_fn)]

mod filter;
mod gradient;
mod transform;
mod windows;

pub use filter::FilterPlan;
pub use gradient::GradientPlan;
pub use windows::WindowsPlan;

use super::product::{Place, ProductPlan};
use crate::kernel::winograd::{Dim, Kind};
use crate::kernel::{self, Product, ProductLoop};
use crate::machine::{Level, at_level};
use crate::primitives::pack;
use crate::primitives::tile::Tiles;

/// A [`kernel::Winograd`] made ready to run.
#[derive(Debug)]
pub enum WinogradPlan {
    /// Three taps.
    Windows(WindowsPlan),
    /// Three outputs.
    Gradient(GradientPlan),
}

impl WinogradPlan {
    /// A plan for a product whose buffers, and the filter's, start at the given byte offsets.
    ///
    /// # Panics
    /// If the product is no correlation, or of three taps without a filter: bugs of `schedule`.
    pub fn new(winograd: &kernel::Winograd, bytes: [usize; 3], filter_byte: usize, level: Level) -> Self {
        let geometry = winograd.geometry();
        match geometry.kind {
            Kind::Taps => Self::Windows(WindowsPlan::new(winograd, &geometry, bytes, filter_byte, level)),
            Kind::Outputs => Self::Gradient(GradientPlan::new(winograd, &geometry, bytes, level)),
        }
    }

    /// The number of independent parts.
    pub fn parts(&self) -> usize {
        match self {
            Self::Windows(plan) => plan.parts(),
            Self::Gradient(plan) => plan.parts(),
        }
    }

    /// Bytes of scratch that a thread needs, to be aligned to 64.
    pub fn scratch_bytes(&self) -> usize {
        match self {
            Self::Windows(plan) => plan.scratch_bytes(),
            Self::Gradient(plan) => plan.scratch_bytes(),
        }
    }

    /// Runs the parts of a range, in order.
    ///
    /// # Safety
    /// As for [`ProductPlan::run`].
    pub unsafe fn run(&self, base: *mut u8, scratch: *mut u8, parts: std::ops::Range<usize>) {
        match self {
            Self::Windows(plan) => plan.run(base, scratch, parts),
            Self::Gradient(plan) => plan.run(base, scratch, parts),
        }
    }
}

/// The offsets of all points of some loops, in row-major order, in one tensor.
fn offsets(dims: &[Dim], stride: fn(&Dim) -> i64) -> Vec<isize> {
    dims.iter().fold(vec![0], |starts: Vec<isize>, dim| {
        let step = stride(dim) as isize;
        starts.iter().flat_map(|start| (0..dim.extent as isize).map(move |i| start + i * step)).collect()
    })
}

/// The byte offsets of data, taps and output.
fn places(geometry: &kernel::winograd::Geometry, [a, b, c]: [usize; 3]) -> [isize; 3] {
    let (data, taps) = if geometry.data_is_a { (a, b) } else { (b, a) };
    let place = |byte: usize, element: i64| byte as isize + element as isize * size_of::<f32>() as isize;
    [place(data, geometry.starts[0]), place(taps, geometry.starts[1]), place(c, geometry.starts[2])]
}

/// A product point by point within scratch: `(extent, a, b, c)` for points, m, n and k.
fn inner_product(loops: [(usize, [i64; 3]); 4], accumulate: bool, level: Level) -> ProductPlan {
    let [batch, m, n, k] = loops.map(|(extent, [a, b, c])| vec![ProductLoop { extent, a, b, c }]);
    let start = |buffer| (kernel::BufferId(buffer), 0);
    let product = Product { batch, m, n, k, a: start(0), b: start(1), c: start(2), accumulate, bands: Vec::new() };
    ProductPlan::tiled(&product, [Place::in_arena(0); 3], 0, level)
}

/// Work that is written once for all vectors and tiles.
trait Job: Copy {
    unsafe fn run<V: Tiles, T: transform::Tile>(self);
}

/// Runs a job on the vectors of a level with tiles of 2 or 4.
unsafe fn dispatch<J: Job>(level: Level, tile: usize, job: J) {
    at_level!(level, fn<J: Job>(tile: usize, job: J), V => match tile {
        2 => job.run::<V, transform::Two>(),
        _ => job.run::<V, transform::Four>(),
    })(tile, job);
}

/// Elements between areas of scratch, so that whole vectors may be written at an area's end.
const SPARE: usize = pack::SPARE;

/// Consecutive areas of a thread's scratch.
#[derive(Default)]
struct Areas {
    bytes: usize,
}

impl Areas {
    /// The byte offset of a new area for so many floats and [`SPARE`] more.
    fn take(&mut self, elements: usize) -> usize {
        let start = self.bytes;
        self.bytes = (start + (elements + SPARE) * size_of::<f32>()).next_multiple_of(64);
        start
    }
}

#[cfg(test)]
mod tests;
