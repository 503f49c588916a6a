//! The processor: its levels and vectors, its threads, how it rounds, and what it can do at most.
//!
//! Input: a level. Output: vectors of that level, a pool of threads, measured rates. Invariant: nothing here knows what is
//! computed.
#![allow(unsafe_code)]

pub mod float_mode;
pub mod lanes;
mod level;
pub mod limits;
pub mod pool;

pub(crate) use level::at_level;
pub use level::{Level, choose, detect};

/// Threads to run on: so many, or one for each core.
pub fn threads(asked: Option<usize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.unwrap_or_else(cores).clamp(1, MAX_THREADS)
}

/// Most threads that a run has.
const MAX_THREADS: usize = 256;
