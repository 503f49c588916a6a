//! Machine code for the CPU: every loop nest through Cranelift, one step function over one arena.
//!
//! Input: a [`crate::kernel::Program`]. Output: an [`Executable`]. Only this module names Cranelift.
//! Invariant: results are the same bits at any number of threads.
