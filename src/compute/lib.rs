//! How a CPU computes: the processor, its primitives, and contractions of the loop IR over them.

pub mod contraction;
pub mod machine;
pub mod primitives;

use ansatz_program::kernel;
