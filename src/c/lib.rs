//! Runs for other programs: what `ansatz build --emit obj` writes, stepped through a C interface or as a Rust value.
//!
//! Input: a run's contents in memory, and batches that the program gives. Output: losses, figures, predictions and files.
//! Invariants: the steps, the clock and the bits are those of `ansatz train` on the same level and batches; sizes are held
//! against the model before memory of the caller is read or written; no panic leaves the library.
//!
//! `ansatz.h` is the interface in words; `abi` has the same functions in the same order.

#![allow(unsafe_code)]

mod abi;
mod batch;
mod describe;
mod run;

pub use abi::*;
pub use describe::{Entry, Tables};
pub use run::{Kind, Options, Problem, Run, Stepped};
