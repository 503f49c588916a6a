//! The CPU as a back end: loop nests become machine code through Cranelift, one step function over one arena.
//!
//! Input: a [`crate::kernel::Program`]. Output: a device that runs it. Invariant: results are the same bits at any number
//! of threads.
//!
//! [`Lowering`] has the numbers that `schedule` asks for, and the forms of kernels that the CPU alone wants;
//! [`code`] makes plain bytes from a program and knows no machine but the level that it was asked for; [`run`] loads such
//! bytes and executes them, and needs no code generator.

pub mod code;
mod lower;

pub use ansatz_run::cpu as run;
pub use lower::Lowering;
