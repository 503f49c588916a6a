//! What executes runs: data, checkpoints and the training loop, and machine code on the CPU.
//!
//! A run is an [`artifact::Artifact`]; neither parser nor compiler nor code generator is linked.

pub mod cpu;
pub mod cuda;
pub mod runtime;

use ansatz_compute::{contraction, machine, primitives};
use ansatz_program::{artifact, device, diagnostics, dim, graph, kernel, settings, source};
