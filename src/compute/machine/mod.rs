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
pub use level::{Level, detect};
