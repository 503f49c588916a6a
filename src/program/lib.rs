//! What Ansatz programs are, as plain data: graphs, the loop IR, runs, and the boundary to what executes them.
//!
//! Neither the compiler that makes them nor a machine that runs them is known here.

pub mod artifact;
pub mod device;
pub mod diagnostics;
pub mod dim;
pub mod graph;
pub mod kernel;
pub mod settings;
pub mod source;
