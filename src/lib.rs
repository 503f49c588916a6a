//! Ansatz: a declarative model-definition compiler.
//!
//! The crate is a pipeline; each module is a stage and imports only earlier ones. `docs/architecture.md` gives their order,
//! and what each takes, gives and holds; [`pipeline`] is the whole as one function per purpose.

pub mod artifact;
pub mod cli;
pub mod contraction;
pub mod cpu;
pub mod device;
pub mod diagnostics;
pub mod dim;
pub mod grad;
pub mod graph;
pub mod kernel;
pub mod machine;
pub mod model;
pub mod passes;
pub mod pipeline;
pub mod primitives;
pub mod runtime;
pub mod schedule;
pub mod settings;
pub mod source;
pub mod syntax;
pub mod workspace;
