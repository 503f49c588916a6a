//! What machine code is handed at run time: one record per run and the helper functions it calls through it.
//!
//! Input: an arena, a pool, a step's numbers. Output: a [`Context`] at a stable address.
//! Invariant: the field offsets in [`field`] are those of the `repr(C)` record; emitted code reads nothing else,
//! so code needs no relocations for helpers and is the same in memory and in a file.

use std::time::Instant;

use crate::contraction::Contraction;
use crate::graph::philox;
use crate::machine::Level;
use crate::machine::pool::Barrier;
use crate::primitives::random;
use crate::primitives::vector::{self, VectorFunction};

/// The functions that emitted code may call. Arguments are 64 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// `fn(x, n)`: a vector function in place.
    Vector(VectorFunction),
    /// `fn(x, y, n)`: x = xʸ.
    Pow,
    /// `fn(context, stream, first element, stride, x, n)`: uniform numbers.
    Random,
    /// `fn(context, thread)`: all threads meet.
    Barrier,
    /// `fn(context, contraction, scratch, first part, end)`.
    Contraction,
    /// `fn(to, from, n)`: copies bytes.
    Copy,
    /// `fn(to, n)`: zeroes bytes.
    Zero,
    /// `fn(context, kernel)`: the kernel has ended; on thread 0 only.
    Mark,
}

/// How many slots [`Context::functions`] has.
pub const HELPERS: usize = VectorFunction::ALL.len() + 7;

impl Helper {
    /// Position in [`Context::functions`].
    pub fn slot(self) -> usize {
        let vectors = VectorFunction::ALL.len();
        match self {
            Helper::Vector(function) => {
                VectorFunction::ALL.iter().position(|known| *known == function).expect("ALL lists every function")
            }
            Helper::Pow => vectors,
            Helper::Random => vectors + 1,
            Helper::Barrier => vectors + 2,
            Helper::Contraction => vectors + 3,
            Helper::Copy => vectors + 4,
            Helper::Zero => vectors + 5,
            Helper::Mark => vectors + 6,
        }
    }
}

/// The record that every compiled function is handed.
#[repr(C)]
pub struct Context {
    /// The arena's base.
    pub base: *mut u8,
    /// The scratch of thread 0, behind its own memory for local buffers.
    pub scratch: *mut u8,
    /// Bytes from one thread's scratch to the next one's.
    pub scratch_stride: u64,
    /// Threads of this run.
    pub threads: u64,
    /// The run's seed.
    pub seed: u64,
    /// The step's number.
    pub step: u64,
    /// Where the threads meet.
    pub barrier: *const Barrier,
    /// The contractions by their position among the program's.
    pub contractions: *const Contraction,
    /// Times; null without a profile.
    pub profile: *mut KernelTimes,
    /// Uniform numbers of consecutive elements.
    pub uniform: random::UniformFn,
    /// Helpers by [`Helper::slot`].
    pub functions: [*const (); HELPERS],
}

// SAFETY: the pointers are to things that outlive the run; threads write disjoint parts between barriers, and only
// thread 0 touches the profile.
unsafe impl Sync for Context {}

/// Byte offsets of [`Context`]'s fields.
pub mod field {
    use super::{Context, Helper};
    use std::mem::offset_of;

    /// [`Context::base`].
    pub const BASE: i32 = offset_of!(Context, base) as i32;
    /// [`Context::scratch`].
    pub const SCRATCH: i32 = offset_of!(Context, scratch) as i32;
    /// [`Context::scratch_stride`].
    pub const SCRATCH_STRIDE: i32 = offset_of!(Context, scratch_stride) as i32;
    /// [`Context::threads`].
    pub const THREADS: i32 = offset_of!(Context, threads) as i32;

    /// A helper's slot.
    pub fn function(helper: Helper) -> i32 {
        (offset_of!(Context, functions) + helper.slot() * size_of::<*const ()>()) as i32
    }
}

/// Times of kernels, written by thread 0.
#[derive(Debug)]
pub struct KernelTimes {
    /// Nanoseconds per kernel, summed over runs.
    pub nanoseconds: Vec<u64>,
    /// When the last kernel ended.
    pub last: Instant,
}

/// The helper table of an instruction-set level.
pub fn functions(level: Level) -> [*const (); HELPERS] {
    let mut table = [std::ptr::null(); HELPERS];
    for function in VectorFunction::ALL {
        table[Helper::Vector(function).slot()] = vector::function(level, function) as *const ();
    }
    table[Helper::Pow.slot()] = vector::pow(level) as *const ();
    table[Helper::Random.slot()] = random_strip as *const ();
    table[Helper::Barrier.slot()] = barrier as *const ();
    table[Helper::Contraction.slot()] = contraction as *const ();
    table[Helper::Copy.slot()] = copy_bytes as *const ();
    table[Helper::Zero.slot()] = zero_bytes as *const ();
    table[Helper::Mark.slot()] = mark as *const ();
    table
}

/// U[0, 1) of the elements `first + i · stride` of a stream.
unsafe extern "C" fn random_strip(
    context: *const Context,
    stream: u64,
    first: u64,
    stride: u64,
    x: *mut f32,
    n: usize,
) {
    // SAFETY: emitted code passes the run's context.
    let context = unsafe { &*context };
    let stream = stream as u32;
    if stride == 1 {
        // SAFETY: emitted code passes a strip of n elements.
        return unsafe { (context.uniform)(x, n, context.seed, context.step, stream, first) };
    }
    for i in 0..n {
        let element = first.wrapping_add(stride.wrapping_mul(i as u64));
        // SAFETY: as above.
        unsafe { *x.add(i) = philox::uniform(context.seed, context.step, stream, element) }
    }
}

unsafe extern "C" fn barrier(context: *const Context, thread: usize) {
    // SAFETY: emitted code passes the run's context, whose barrier outlives the run.
    unsafe { (*(*context).barrier).wait(thread) }
}

unsafe extern "C" fn contraction(context: *const Context, number: usize, scratch: *mut u8, first: usize, end: usize) {
    // SAFETY: emitted code passes the run's context, a contraction's number and parts of it; different threads get
    // different parts and their own scratch.
    unsafe { (*(*context).contractions.add(number)).run((*context).base, scratch, first..end) }
}

unsafe extern "C" fn copy_bytes(to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: both ranges lie in the arena; different buffers of one copy do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from, to, n) }
}

unsafe extern "C" fn zero_bytes(to: *mut u8, n: usize) {
    // SAFETY: the range lies in the arena.
    unsafe { std::ptr::write_bytes(to, 0, n) }
}

unsafe extern "C" fn mark(context: *const Context, kernel: usize) {
    // SAFETY: emitted by profiled steps alone, whose context has times; only thread 0 calls it.
    let times = unsafe { &mut *(*context).profile };
    let now = Instant::now();
    times.nanoseconds[kernel] += now.duration_since(times.last).as_nanos() as u64;
    times.last = now;
}
