//! What executes runs: data, checkpoints and the training loop, and machine code on the CPU.
//!
//! A run is an [`artifact::Artifact`]; neither parser nor compiler nor code generator is linked.

pub mod cpu;
pub mod cuda;
pub mod runtime;

/// What code and the files of trainers are made for: the version and a hash of the sources that say how both are laid out.
pub const LAYOUT: &str = concat!(env!("CARGO_PKG_VERSION"), " ", env!("ANSATZ_LAYOUT"));

use ansatz_compute::{contraction, machine, primitives};
use ansatz_program::{artifact, device, diagnostics, dim, graph, kernel, settings, source};
