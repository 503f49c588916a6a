//! The CPU as a device: an arena, a pool of threads, and the programs loaded so far.
//!
//! Input: programs, where their code comes from, and tensors. Output: results in the arena. Invariant: as [`crate::device`]'s.

use std::borrow::Cow;

use super::{Arena, Code, Executable};
use crate::device::{Device, DeviceError, Loaded, StepInput};
use crate::graph::DType;
use crate::kernel::{Buffer, Program};
use crate::machine::Level;
use crate::machine::pool::Pool;

/// Where the machine code of a program comes from: a compiler, or a file.
pub type Compile = Box<dyn Fn(&Program) -> Result<Code, DeviceError>>;

/// See the module's text.
pub struct Cpu {
    level: Level,
    compile: Compile,
    arena: Arena,
    pool: Pool,
    executables: Vec<Executable>,
}

impl Cpu {
    /// A device of so many threads, without memory yet, for code of one level.
    ///
    /// # Errors
    /// No memory at all.
    ///
    /// # Safety
    /// Programs are those of the compiler, read back at most, and `compile` gives what it made for them.
    pub unsafe fn new(level: Level, threads: usize, compile: Compile) -> Result<Self, DeviceError> {
        let arena = Arena::with_bytes(0).map_err(|error| DeviceError(error.to_string()))?;
        Ok(Self { level, compile, arena, pool: Pool::new(threads), executables: Vec::new() })
    }
}

/// The codes of a file, for the programs and the level that they were made for.
pub fn found_in(codes: Vec<Code>, level: Level) -> Compile {
    Box::new(move |program| {
        let wanted = program.fingerprint();
        let code = codes.iter().find(|code| code.level == level && code.program == wanted).cloned();
        code.ok_or_else(|| DeviceError(format!("no machine code for {level} is at hand")))
    })
}

impl Device for Cpu {
    fn level(&self) -> String {
        self.level.to_string()
    }

    fn bytes(&self) -> u64 {
        self.arena.bytes() as u64
    }

    fn bytes_for(&self, program: &Program) -> u64 {
        program.arena_bytes as u64 + (program.local_bytes * self.pool.threads()) as u64
    }

    fn load(&mut self, program: &Program) -> Result<Loaded, DeviceError> {
        let failed = |error: &dyn std::fmt::Display| DeviceError(error.to_string());
        let code = (self.compile)(program)?;
        if code.level != self.level {
            return Err(DeviceError(format!("the machine code is for {}, not for {}", code.level, self.level)));
        }
        // SAFETY: the code is this program's, as whoever made the device has promised.
        let executable = unsafe { Executable::load(program, &code) }?;
        let scratch = executable.scratch_bytes(self.pool.threads());
        self.arena.grow(program.arena_bytes).map_err(|error| failed(&error))?;
        self.arena.grow_scratch(scratch).map_err(|error| failed(&error))?;
        self.executables.push(executable);
        Ok(Loaded(self.executables.len() - 1))
    }

    fn run(&mut self, step: Loaded, input: StepInput) -> Result<bool, DeviceError> {
        Ok(self.executables[step.0].run(&mut self.arena, &self.pool, input))
    }

    fn profile(&self, step: Loaded) -> Vec<u64> {
        self.executables[step.0].profile()
    }

    fn read_f32(&self, buffer: &Buffer) -> Result<Cow<'_, [f32]>, DeviceError> {
        Ok(self.arena.f32(buffer).into())
    }

    fn read_bytes(&self, buffer: &Buffer) -> Result<Cow<'_, [u8]>, DeviceError> {
        Ok(self.arena.raw(buffer).into())
    }

    fn write_f32(&mut self, buffer: &Buffer, values: &[f32]) -> Result<(), DeviceError> {
        self.arena.f32_mut(buffer).copy_from_slice(values);
        Ok(())
    }

    fn write_i32(&mut self, buffer: &Buffer, values: &[i32]) -> Result<(), DeviceError> {
        self.arena.i32_mut(buffer).copy_from_slice(values);
        Ok(())
    }

    fn write_bytes(&mut self, buffer: &Buffer, bytes: &[u8]) -> Result<(), DeviceError> {
        self.arena.raw_mut(buffer).copy_from_slice(bytes);
        Ok(())
    }

    fn write_with(&mut self, buffer: &Buffer, write: &mut dyn FnMut(&mut [f32])) -> Result<(), DeviceError> {
        write(self.arena.f32_mut(buffer));
        Ok(())
    }

    fn fill(&mut self, buffer: &Buffer, value: f64) -> Result<(), DeviceError> {
        match buffer.dtype {
            DType::F32 => self.arena.f32_mut(buffer).fill(value as f32),
            DType::I32 => self.arena.i32_mut(buffer).fill(value as i32),
            DType::Bool => self.arena.raw_mut(buffer).fill(u8::from(value != 0.0)),
        }
        Ok(())
    }
}
