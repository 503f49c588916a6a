//! Ansatz: a declarative model-definition compiler.
//!
//! The crate is a pipeline; each module is a stage and imports only earlier ones:
//!
//! 1. [`source`], [`diagnostics`]: texts, spans, findings.
//! 2. [`dim`]: symbolic sizes.
//! 3. [`graph`]: the tensor graph and its reference evaluator.
//! 4. [`settings`]: a `train` item as plain data.
//! 5. [`kernel`]: the loop IR.
//! 6. [`artifact`], [`device`]: a run as plain data, and what executes it.
//! 7. [`primitives`]: contraction tiles and vector functions.
//! 8. [`runtime`]: data, checkpoints, training.
//! 9. [`syntax`]: text → tree → text.
//! 10. [`model`]: names, shapes, expansion of layers; tree → graph.
//! 11. [`grad`]: graph → graph with gradients.
//! 12. [`passes`]: graph → equal, cheaper graph.
//! 13. [`schedule`]: graph → loop IR with a memory plan.
//! 14. [`pipeline`]: from a project to an artifact.
//! 15. [`cpu`]: loop IR → machine code.
//! 16. [`workspace`]: model files with what lies beside them.
//! 17. [`cli`]: the commands.

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
pub mod settings;
pub mod source;
pub mod syntax;
pub mod workspace;
