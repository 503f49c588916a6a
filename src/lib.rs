//! Ansatz: a declarative model-definition compiler.
//!
//! The crate is a pipeline; each module is a stage and imports only earlier ones:
//!
//! 1. [`source`], [`diagnostics`]: texts, spans, findings.
//! 2. [`syntax`]: text → tree → text.
//! 3. [`dim`]: symbolic sizes.
//! 4. [`graph`]: the tensor graph and its reference evaluator.
//! 5. [`model`]: names, shapes, expansion of layers; tree → graph.
//! 6. [`grad`]: graph → graph with gradients.
//! 7. [`passes`]: graph → equal, cheaper graph.
//! 8. [`kernel`]: the loop IR.
//! 9. [`schedule`]: graph → loop IR with a memory plan.
//! 10. [`primitives`]: contraction tiles and vector functions.
//! 11. [`cpu`]: loop IR → machine code.
//! 12. [`pipeline`]: all of the above in order.
//! 13. [`runtime`]: data, checkpoints, training.
//! 14. [`cli`]: the commands.

pub mod artifact;
pub mod cli;
pub mod cpu;
pub mod device;
pub mod diagnostics;
pub mod dim;
pub mod grad;
pub mod graph;
pub mod kernel;
pub mod model;
pub mod passes;
pub mod pipeline;
pub mod primitives;
pub mod runtime;
pub mod schedule;
pub mod source;
pub mod syntax;
