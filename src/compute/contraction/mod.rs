//! Contractions on the CPU: the kernels of the loop IR that are primitives, behind one face for machine code.
//!
//! Input: a kernel and the places of its buffers. Output: a plan run part by part, by any threads.
//! Invariant: parts follow from sizes, strides and the cut alone, and which parts a thread runs does not change results.
#![allow(unsafe_code)]
#![allow(unsafe_op_in_unsafe_fn)]

mod band;
pub mod place;
pub mod product;
pub mod shape;
pub mod thin;
pub mod tuning;
pub mod winograd;

use std::ops::Range;

use crate::kernel::{BufferId, Winograd};
use crate::machine::Level;
use product::ProductPlan;
use winograd::{FilterPlan, WinogradPlan};

/// A primitive kernel made ready to run.
#[derive(Debug)]
pub enum Contraction {
    /// A product as it is.
    Product(Box<ProductPlan>),
    /// A product by minimal filtering.
    Winograd {
        /// How.
        plan: Box<WinogradPlan>,
        /// Nominal work.
        multiply_adds: usize,
    },
    /// The transform of the taps of a product by minimal filtering.
    Filter(FilterPlan),
}

/// Byte offsets of A, B and C, and of the filter, if there is one.
fn places(winograd: &Winograd, place: &dyn Fn(BufferId) -> usize) -> ([usize; 3], usize) {
    let Winograd { product, filter, .. } = winograd;
    ([product.a.0, product.b.0, product.c.0].map(place), filter.map_or(0, place))
}

impl Contraction {
    /// The plan of a product by minimal filtering whose buffers start at the byte offsets that `place` gives.
    pub fn winograd(winograd: &Winograd, place: &dyn Fn(BufferId) -> usize, level: Level) -> Contraction {
        let product = &winograd.product;
        let multiply_adds = product.loops().map(|each| each.extent).product();
        let (bytes, filter) = places(winograd, place);
        let plan = Box::new(WinogradPlan::new(winograd, bytes, filter, level));
        Contraction::Winograd { plan, multiply_adds }
    }

    /// The plan of the transform of its taps.
    pub fn filter(winograd: &Winograd, place: &dyn Fn(BufferId) -> usize, level: Level) -> Contraction {
        let (bytes, filter) = places(winograd, place);
        Contraction::Filter(FilterPlan::new(winograd, bytes, filter, level))
    }

    /// The number of independent parts; depends on sizes and strides alone.
    pub fn parts(&self) -> usize {
        match self {
            Contraction::Product(plan) => plan.parts(),
            Contraction::Winograd { plan, .. } => plan.parts(),
            Contraction::Filter(plan) => plan.parts(),
        }
    }

    /// Bytes of scratch that a thread needs, to be aligned to 64.
    pub fn scratch_bytes(&self) -> usize {
        match self {
            Contraction::Product(plan) => plan.scratch_bytes(),
            Contraction::Winograd { plan, .. } => plan.scratch_bytes(),
            Contraction::Filter(_) => 0,
        }
    }

    /// Nominal work: the multiply-adds of the direct sum.
    pub fn multiply_adds(&self) -> usize {
        match self {
            Contraction::Product(plan) => plan.multiply_adds(),
            Contraction::Winograd { multiply_adds, .. } => *multiply_adds,
            Contraction::Filter(plan) => plan.elements(),
        }
    }

    /// Runs the parts of a range, in order.
    ///
    /// # Safety
    /// As for [`ProductPlan::run`].
    pub unsafe fn run(&self, base: *mut u8, scratch: *mut u8, parts: Range<usize>) {
        match self {
            Contraction::Product(plan) => plan.run(base, scratch, parts),
            Contraction::Winograd { plan, .. } => plan.run(base, scratch, parts),
            Contraction::Filter(plan) => plan.run(base, parts),
        }
    }
}
