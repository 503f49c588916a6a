//! The half that runs: NVIDIA's driver, memory, and programs in images.
//!
//! Input: programs and their [`Code`]. Output: results in a GPU's memory. Invariant: a machine without a driver, or whose
//! driver fails, gets words. Nothing here makes code. Only this module names cudarc.

#![allow(unsafe_code)]

mod code;
mod device;
mod driver;

pub use code::{Action, Arch, Code, Image, Kind, Launch, function_name};
pub use device::{Compile, Gpu, found_in};
pub use driver::{Found, devices};
