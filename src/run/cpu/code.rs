//! A program in machine code, as plain data.
//!
//! Input: made by the half that makes code. Output: loaded by an [`Executable`](super::Executable), here or elsewhere.
//! Invariant: the bytes hold no addresses: functions call each other by distance, and all else through the
//! [`Context`](super::context::Context). They belong to the one program that they were made for.

use crate::contraction::product::Cut;
use crate::machine::Level;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Code {
    /// The layout and the system whose calling convention it has: [`Code::FORM`] of whoever made it.
    pub form: String,
    /// What it was made from, see [`Program::fingerprint`](crate::kernel::Program::fingerprint).
    pub program: String,
    /// The instruction set.
    pub level: Level,
    /// Functions with their constants, to be loaded at a multiple of [`Code::ALIGNMENT`].
    pub bytes: Vec<u8>,
    /// Where the step function begins.
    pub step: usize,
    /// How each product is cut, in the order of kernels. The step function's shares are parts of these cuts.
    pub cuts: Vec<Cut>,
    /// Bytes of scratch that a thread needs.
    pub scratch_bytes: usize,
    /// Whether any kernel is divided among threads.
    pub divided: bool,
    /// Whether it measures each kernel.
    pub profiles: bool,
}

impl Code {
    /// The most that any function asks for.
    pub const ALIGNMENT: usize = 64;

    /// What code must have been made for, so that it fits this build's [`Context`](super::context::Context) and this system:
    /// [`LAYOUT`](crate::LAYOUT) and the system's convention.
    pub const FORM: &str = if cfg!(windows) {
        concat!(env!("CARGO_PKG_VERSION"), " ", env!("ANSATZ_LAYOUT"), " windows")
    } else {
        concat!(env!("CARGO_PKG_VERSION"), " ", env!("ANSATZ_LAYOUT"), " system-v")
    };
}
