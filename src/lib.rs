//! Ansatz: a declarative model-definition compiler.
//!
//! The crate is a pipeline; each module is a stage and imports only earlier ones. `docs/architecture.md` gives their order,
//! and what each takes, gives and holds; [`pipeline`] is the whole as one function per purpose.

// With the macros that print.
#[macro_use]
pub extern crate ansatz_console as console;

pub mod cli;
pub mod cpu;
pub mod cuda;
pub mod grad;
pub mod model;
pub mod passes;
pub mod pipeline;
pub mod schedule;
pub mod syntax;
pub mod workspace;

pub use ansatz_compute::{contraction, machine, primitives};
pub use ansatz_program::{artifact, device, diagnostics, dim, graph, kernel, settings, source};
pub use ansatz_run::runtime;
