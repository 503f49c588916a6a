//! The kernels that are primitives, behind one face for machine code.
//!
//! Input: a [`KernelKind`] and the places of buffers. Output: a plan run part by part, by any threads.
//! Invariant: which parts a thread runs does not change results.
#![allow(unsafe_op_in_unsafe_fn)]

use std::ops::Range;

use super::Level;
use super::product::ProductPlan;
use super::winograd::{FilterPlan, WinogradPlan};
use crate::kernel::{BufferId, KernelKind, Product, Winograd};

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

impl Contraction {
    /// The plan of a kernel whose buffers start at the byte offsets that `place` gives; `None` for nests, zeros and copies.
    pub fn new(kind: &KernelKind, place: &dyn Fn(BufferId) -> usize, level: Level) -> Option<Contraction> {
        let bytes = |product: &Product| [product.a.0, product.b.0, product.c.0].map(place);
        let filter = |winograd: &Winograd| winograd.filter.map_or(0, place);
        Some(match kind {
            KernelKind::Product(product) => {
                let [a, b, c] = bytes(product);
                Contraction::Product(Box::new(ProductPlan::new(product, a, b, c, level)))
            }
            KernelKind::Winograd(winograd) => {
                let product = &winograd.product;
                let loops = product.batch.iter().chain(&product.m).chain(&product.n).chain(&product.k);
                let multiply_adds = loops.map(|each| each.extent).product();
                let plan = Box::new(WinogradPlan::new(winograd, bytes(product), filter(winograd), level));
                Contraction::Winograd { plan, multiply_adds }
            }
            KernelKind::Filter(winograd) => {
                Contraction::Filter(FilterPlan::new(winograd, bytes(&winograd.product), filter(winograd), level))
            }
            KernelKind::Nest(_) | KernelKind::Zero(_) | KernelKind::Copy { .. } => return None,
        })
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
