//! A program in machine code, in memory that runs it.
//!
//! Input: a program and its [`Code`]. Output: steps over an [`Arena`]. Invariant: memory is written before it becomes
//! executable and never again; which thread runs what does not change results.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use memmap2::{Mmap, MmapMut};

use super::context::{Context, KernelTimes, functions};
use super::contractions::{contractions, products};
use super::{Arena, Code};
use crate::contraction::Contraction;
use crate::device::{DeviceError, StepInput};
use crate::kernel::Program;
use crate::machine::Level;
use crate::machine::float_mode;
use crate::machine::pool::Pool;
use crate::primitives::random;

/// The step function: context, thread.
type StepFn = unsafe extern "C" fn(*const Context, usize);

/// See the module's text.
pub struct Executable {
    step: StepFn,
    /// Holds the code.
    _memory: Mmap,
    contractions: Vec<Contraction>,
    level: Level,
    scratch_bytes: usize,
    local_bytes: usize,
    arena_bytes: usize,
    kernels: usize,
    divided: bool,
    profiles: bool,
    times: Mutex<Option<KernelTimes>>,
}

impl Executable {
    /// Loads the code of a program.
    ///
    /// # Errors
    /// Where the machine lacks the level or memory, or the code is another program's.
    ///
    /// # Safety
    /// The program is one that [`verify`](crate::kernel::verify::verify) accepts, as those of the compiler are. The code is what
    /// the compiler made for it, and nobody has changed it since.
    pub unsafe fn load(program: &Program, code: &Code) -> Result<Executable, DeviceError> {
        let level = code.level;
        if !level.runs_code() {
            return Err(DeviceError(format!("this machine has no {level} instructions")));
        }
        if code.form != Code::FORM {
            return Err(DeviceError(format!("the machine code is of {}, not of {}", code.form, Code::FORM)));
        }
        let mut cuts = code.cuts.iter();
        let mut cut_fits = |product, kept| cuts.next().is_some_and(|cut| cut.is_of(product, kept, level));
        let fits = code.program == program.fingerprint()
            && code.step < code.bytes.len()
            && products(program).all(|(_, product, kept)| cut_fits(product, kept));
        if !fits || cuts.next().is_some() {
            return Err(DeviceError("the machine code is not this program's".to_string()));
        }
        let mut cuts = code.cuts.iter();
        let contractions = contractions(program, level, |_, _| *cuts.next().expect("as many as there are products"));
        let scratch = contractions.iter().map(Contraction::scratch_bytes).max().unwrap_or(0);
        let no_memory = |error: std::io::Error| DeviceError(error.to_string());
        let mut memory = MmapMut::map_anon(code.bytes.len()).map_err(no_memory)?;
        memory.copy_from_slice(&code.bytes);
        let memory = memory.make_exec().map_err(no_memory)?;
        let step = memory[code.step..].as_ptr();
        Ok(Executable {
            // SAFETY: by the caller's word these are functions, the one at this place a step function in the C calling
            // convention, and the machine has their instructions; they lie at a multiple of a page.
            step: unsafe { std::mem::transmute::<*const u8, StepFn>(step) },
            _memory: memory,
            contractions,
            level,
            scratch_bytes: code.scratch_bytes.max(scratch),
            local_bytes: program.local_bytes,
            arena_bytes: program.arena_bytes,
            kernels: program.kernels.len(),
            divided: code.divided,
            profiles: code.profiles,
            times: Mutex::new(None),
        })
    }

    /// Bytes beside the arena that a run on so many threads takes: their own memory and their scratch.
    pub fn scratch_bytes(&self, threads: usize) -> usize {
        self.thread_bytes() * threads
    }

    /// Each thread has its own memory and behind it its scratch.
    fn thread_bytes(&self) -> usize {
        (self.local_bytes + self.scratch_bytes).next_multiple_of(4096)
    }

    /// Runs one step on the threads of the pool, on the calling one alone where no kernel is worth dividing. False if no
    /// operation made an infinity or what is not a number out of finite numbers, see [`float_mode::Guard::is_exceptional`].
    ///
    /// # Panics
    /// If the arena is not the program's, or there is no memory for scratch (see [`Arena::grow_scratch`]).
    pub fn run(&self, arena: &mut Arena, pool: &Pool, run: StepInput) -> bool {
        assert!(arena.bytes() >= self.arena_bytes, "the arena holds the program");
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = if self.profiles {
            let times =
                times.get_or_insert_with(|| KernelTimes { nanoseconds: vec![0; self.kernels], last: Instant::now() });
            times.last = Instant::now();
            std::ptr::from_mut(times)
        } else {
            std::ptr::null_mut()
        };
        let stride = self.thread_bytes();
        let scratch = arena.scratch(self.scratch_bytes(pool.threads())).wrapping_add(self.local_bytes);
        let context = Context {
            base: arena.base(),
            scratch,
            scratch_stride: stride as u64,
            threads: pool.threads() as u64,
            seed: run.seed,
            step: run.step,
            barrier: pool.barrier(),
            contractions: self.contractions.as_ptr(),
            profile,
            uniform: random::uniform(self.level),
            functions: functions(self.level),
        };
        let context = &context;
        let exceptional = AtomicBool::new(false);
        let job = |thread: usize| {
            let mode = float_mode::Guard::new();
            // SAFETY: the code was compiled for this level, whose instructions the machine has; the arena is as
            // large as the program asks and borrowed mutably for the whole run; the context outlives the run.
            unsafe { (self.step)(context, thread) }
            if mode.is_exceptional() {
                exceptional.store(true, Ordering::Relaxed);
            }
        };
        // A small step runs whole on thread 0, without barriers: the other threads may sleep on.
        if self.divided || self.profiles {
            pool.run(&job)
        } else {
            job(0)
        }
        exceptional.into_inner()
    }

    /// Nanoseconds per kernel, summed over the runs since loading; empty for code that does not measure.
    pub fn profile(&self) -> Vec<u64> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.as_ref().map_or_else(Vec::new, |times| times.nanoseconds.clone())
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executable").field("kernels", &self.kernels).field("level", &self.level).finish()
    }
}
