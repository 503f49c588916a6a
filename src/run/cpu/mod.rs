//! The half that runs: memory, threads, and programs in machine code.
//!
//! Input: programs and their [`Code`]. Output: results in an [`Arena`]. Invariant: results are the same bits at any number
//! of threads. Nothing here makes code.

#![allow(unsafe_code)]

mod arena;
mod code;
pub mod context;
mod contractions;
mod device;
mod executable;

pub use arena::{Arena, PADDING};
pub use code::Code;
pub use contractions::{contractions, products};
pub use device::{Compile, Cpu, found_in};
pub use executable::Executable;
