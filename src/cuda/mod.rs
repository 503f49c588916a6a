//! CUDA as a back end: loop nests and products become CUDA C, which NVRTC compiles for a GPU.
//!
//! Input: a [`crate::kernel::Program`]. Output: a device that runs it. Invariant: on one architecture results are the same
//! bits from run to run.
//!
//! [`Lowering`] has the numbers that `schedule` asks for; [`code`] makes text from a program; [`nvrtc`] makes images of that
//! text, and needs NVIDIA's compiler library where it runs, nothing where it is built; [`run`] loads such images and
//! executes them, and needs a driver alone.

pub mod code;
pub mod compile;
pub mod limits;
mod lower;
pub mod nvrtc;
pub mod usage;

pub use ansatz_run::cuda as run;
pub use lower::Lowering;
