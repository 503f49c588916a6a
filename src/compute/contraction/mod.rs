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

use std::fmt;
use std::ops::Range;

/// A primitive kernel made ready to run.
pub type Contraction = Box<dyn Plan>;

/// How a primitive kernel runs: in independent parts.
pub trait Plan: fmt::Debug + Send + Sync {
    /// The number of independent parts; depends on sizes and strides alone.
    fn parts(&self) -> usize;

    /// Bytes of scratch that a thread needs, to be aligned to 64.
    fn scratch_bytes(&self) -> usize;

    /// Nominal work: the multiply-adds of the direct sum, or the elements that are written where nothing is summed.
    fn multiply_adds(&self) -> usize;

    /// Runs the parts of a range, in order.
    ///
    /// # Safety
    /// The plan's level is available. Every element that the kernel names, at the plan's places, is valid; what is written
    /// overlaps nothing that is read, and nobody else touches the elements that these parts write. `scratch` is valid for
    /// [`Plan::scratch_bytes`], aligned to 64 bytes and used by this call alone. `parts.end` is at most [`Plan::parts`].
    unsafe fn run(&self, base: *mut u8, scratch: *mut u8, parts: Range<usize>);
}
