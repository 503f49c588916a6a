//! What executes steps: the boundary between a run and a back end.
//!
//! Input: planned programs that share one arena, and the host's tensors. Output: results in buffers. Invariant: a run's
//! bits depend on the programs, the tensors and the [`StepInput`] alone, not on how a device divides the work.

use std::borrow::Cow;

pub use crate::diagnostics::Refusal as DeviceError;
use crate::kernel::{Buffer, Program};

/// What differs from step to step besides the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepInput {
    /// The run's seed.
    pub seed: u64,
    /// The step's number; random numbers depend on it.
    pub step: u64,
}

/// A program that a device has loaded, in order of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded(pub usize);

/// One device with the memory of one run. All elements start as zero; buffers of programs that were loaded keep what they
/// hold when another is.
pub trait Device {
    /// What results depend on beside the programs: the instruction set, or the kind of the device.
    fn level(&self) -> String;

    /// Bytes that the device holds for the programs loaded so far.
    fn bytes(&self) -> u64;

    /// Bytes that it would hold for a program alone.
    fn bytes_for(&self, program: &Program) -> u64;

    /// Bytes that it can still take, where it has memory of its own; else the host's memory says it.
    fn room(&self) -> Option<u64> {
        None
    }

    /// Makes the program's code and room for it.
    ///
    /// # Errors
    /// No code, or no memory; what was loaded before is untouched.
    fn load(&mut self, program: &Program) -> Result<Loaded, DeviceError>;

    /// Runs a step. False if nothing that outlives it became an infinity or what is not a number by it.
    ///
    /// # Errors
    /// The device has failed; what it holds is lost.
    fn run(&mut self, step: Loaded, input: StepInput) -> Result<bool, DeviceError>;

    /// Nanoseconds spent in each kernel of a step so far, where the device was asked to measure.
    fn profile(&self, step: Loaded) -> Vec<u64>;

    /// The elements of an F32 buffer.
    ///
    /// # Errors
    /// As [`Device::run`], here and below.
    fn read_f32(&self, buffer: &Buffer) -> Result<Cow<'_, [f32]>, DeviceError>;

    /// The bytes of a buffer of any type.
    ///
    /// # Errors
    /// As above.
    fn read_bytes(&self, buffer: &Buffer) -> Result<Cow<'_, [u8]>, DeviceError>;

    /// Sets the elements of an F32 buffer.
    ///
    /// # Errors
    /// As above.
    fn write_f32(&mut self, buffer: &Buffer, values: &[f32]) -> Result<(), DeviceError>;

    /// Sets the elements of an I32 buffer.
    ///
    /// # Errors
    /// As above.
    fn write_i32(&mut self, buffer: &Buffer, values: &[i32]) -> Result<(), DeviceError>;

    /// Sets the bytes of a buffer of any type.
    ///
    /// # Errors
    /// As above.
    fn write_bytes(&mut self, buffer: &Buffer, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Lets somebody write the elements of an F32 buffer, whose values before mean nothing.
    ///
    /// # Errors
    /// As above.
    fn write_with(&mut self, buffer: &Buffer, write: &mut dyn FnMut(&mut [f32])) -> Result<(), DeviceError>;

    /// Sets all elements of a buffer to a number of its type.
    ///
    /// # Errors
    /// As above.
    fn fill(&mut self, buffer: &Buffer, value: f64) -> Result<(), DeviceError>;
}
