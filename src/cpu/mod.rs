//! Machine code for the CPU: every loop nest through Cranelift, one step function over one arena.
//!
//! Input: a [`crate::kernel::Program`]. Output: an [`Executable`]. Only this module names Cranelift.
//! Invariant: results are the same bits at any number of threads.
//!
//! Each nest becomes one function over a range of its parallel loops; innermost loops run four lanes wide.
//! Transcendental functions and random numbers are computed on strips of [`plan::STRIP`] elements by
//! [`crate::primitives`]; products are primitives too. The step function runs all kernels in order on every thread:
//! each thread takes its share of a kernel's points, small kernels stay on thread 0, and the threads meet only between
//! kernels that touch the same bytes.
#![allow(unsafe_code)]

mod arena;
mod context;
mod device;
mod emit;
mod expr;
mod jit;
mod memory;
mod nest;
mod plan;
mod reduce;
mod simplify;
mod step;
#[cfg(test)]
mod tests;
mod wide;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::default_libcall_names;

pub use arena::Arena;
pub use device::Cpu;

pub use crate::device::StepInput;

use crate::kernel::{BufferId, KernelKind, Nest, Product, Program};
use crate::primitives::Level;
use crate::primitives::contraction::Contraction;
use crate::primitives::float_mode;
use crate::primitives::pool::Pool;
use crate::primitives::product::{Place, ProductPlan};
use crate::primitives::tuning::Tuning;
use context::{Clock, Context};
use step::{BYTE_GRAIN, Body, GroupWork, Steps, Thresholds, Work};

/// Address space reserved for code, so that calls between functions reach 32 bits far; pages are taken as needed.
const CODE_BYTES: usize = 256 << 20;

/// How a program is compiled.
#[derive(Clone, Debug)]
pub struct Options {
    /// The instruction set.
    pub level: Level,
    /// Measure each kernel; costs a barrier per kernel.
    pub profile: bool,
    /// Measured cuts of products; they change times alone.
    pub tuning: Arc<Tuning>,
}

/// Code generation failed: a compiler bug or an unsupported machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodegenError {
    /// The kernel's name.
    pub kernel: Option<String>,
    /// What went wrong.
    pub message: String,
}

impl fmt::Display for CodegenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kernel {
            Some(kernel) => write!(f, "no machine code for kernel `{kernel}`: {}", self.message),
            None => write!(f, "no machine code: {}", self.message),
        }
    }
}

impl std::error::Error for CodegenError {}

/// A program in machine code.
pub struct Executable {
    step: jit::StepFn,
    contractions: Vec<Contraction>,
    scratch_bytes: usize,
    local_bytes: usize,
    arena_bytes: usize,
    kernels: usize,
    /// Whether any kernel is divided among threads.
    divided: bool,
    options: Options,
    clock: Mutex<Option<Clock>>,
    /// Owns the code; `None` only while dropping.
    module: Mutex<Option<JITModule>>,
}

/// A program's kernels, ready for emission.
struct Prepared {
    jobs: Vec<jit::NestJob>,
    works: Vec<Work>,
    groups: Vec<GroupWork>,
    contractions: Vec<Contraction>,
    scratch_bytes: usize,
}

impl Prepared {
    fn contraction(&mut self, plan: Contraction, thresholds: Thresholds) -> Work {
        let body = Body::Contraction(self.contractions.len());
        let work = Work::new(body, plan.parts(), 1, plan.multiply_adds(), thresholds.product);
        self.scratch_bytes = self.scratch_bytes.max(plan.scratch_bytes());
        self.contractions.push(plan);
        work
    }
}

fn prepare(program: &Program, options: &Options, thresholds: Thresholds) -> Prepared {
    let level = options.level;
    let mut prepared = Prepared {
        jobs: Vec::new(),
        works: Vec::new(),
        groups: Vec::new(),
        contractions: Vec::new(),
        scratch_bytes: 0,
    };
    let buffer = |id: BufferId| &program.buffers[id.0 as usize];
    for (position, kernel) in program.kernels.iter().enumerate() {
        let work = match &kernel.kind {
            KernelKind::Nest(nest) => {
                let plan = nest_plan(program, position, nest, level);
                let body = Body::Nest(prepared.jobs.len());
                let work = Work::new(body, plan.total, plan.grain, plan.work, thresholds.nest);
                prepared.scratch_bytes = prepared.scratch_bytes.max(plan.scratch_bytes);
                prepared.jobs.push(jit::NestJob { kernel: position, plan });
                work
            }
            KernelKind::Product(product) => {
                let plan = Box::new(product_plan(program, position, product, options));
                prepared.contraction(Contraction::Product(plan), thresholds)
            }
            // Only nests and products are in groups and touch the threads' own memory.
            KernelKind::Winograd(winograd) => {
                let plan = Contraction::winograd(winograd, &|id| buffer(id).offset, level);
                prepared.contraction(plan, thresholds)
            }
            KernelKind::Filter(winograd) => {
                let plan = Contraction::filter(winograd, &|id| buffer(id).offset, level);
                prepared.contraction(plan, thresholds)
            }
            KernelKind::Zero(id) => {
                let bytes = buffer(*id).bytes();
                Work::new(Body::Zero(buffer(*id).offset), bytes, BYTE_GRAIN, bytes, thresholds.bytes)
            }
            KernelKind::Copy { from, to } => {
                let (body, bytes) =
                    (Body::Copy { from: buffer(*from).offset, to: buffer(*to).offset }, buffer(*to).bytes());
                Work::new(body, bytes, BYTE_GRAIN, bytes, thresholds.bytes)
            }
        };
        prepared.works.push(work);
    }
    let groups = program.groups.iter().map(|group| {
        let split = prepared.works[group.kernels.clone()].iter().any(|work| work.split);
        GroupWork { kernels: group.kernels.clone(), slices: group.slices, split }
    });
    prepared.groups = groups.collect();
    prepared
}

fn nest_plan(program: &Program, position: usize, nest: &Nest, level: Level) -> plan::NestPlan {
    let dtype = |id: BufferId| program.buffer(id).dtype;
    // Strip functions are called by the System V convention.
    let wide = level == Level::Avx512 && cfg!(all(target_arch = "x86_64", unix));
    let wide = wide.then_some(&dtype as &dyn Fn(BufferId) -> crate::graph::DType);
    let Some(group) = program.group_of(position) else { return plan::plan(nest, wide) };
    let plan = plan::plan_sliced(nest, wide);
    assert_eq!(plan.total, group.slices, "the parallel loops of a grouped nest number the slices");
    plan
}

fn product_plan(program: &Program, position: usize, product: &Product, options: &Options) -> ProductPlan {
    let place = |id: BufferId| match (program.is_local(id), program.buffer(id).offset) {
        // A thread's own memory ends where its scratch begins.
        (true, offset) => Place { byte: offset as isize - program.local_bytes as isize, from_scratch: true },
        (false, offset) => Place::in_arena(offset),
    };
    let places = [product.a, product.b, product.c].map(|(buffer, _)| place(buffer));
    ProductPlan::sliced(product, places, kept_loops(program, position, product), options.level, &options.tuning)
}

/// How many batch loops of a product must stay outermost: those that number the slices of its group.
fn kept_loops(program: &Program, position: usize, product: &Product) -> usize {
    program.group_of(position).map_or(0, |group| {
        product.slice_loops(group.slices).expect("the leading batch loops of a grouped product number the slices")
    })
}

/// The products of a program that are run as such, with their kernels and the number of batch loops that stay outermost:
/// what [`crate::primitives::tuning::measure`] asks for.
pub fn products(program: &Program) -> impl Iterator<Item = (usize, &Product, usize)> {
    program.kernels.iter().enumerate().filter_map(|(position, kernel)| {
        let product = kernel.kind.product()?;
        Some((position, product, kept_loops(program, position, product)))
    })
}

impl Executable {
    /// Compiles a program for this machine.
    ///
    /// # Errors
    /// Where the machine lacks the level or Cranelift refuses a function.
    pub fn load(program: &Program, options: &Options) -> Result<Executable, CodegenError> {
        Self::load_dividing(program, options, Thresholds::MEASURED)
    }

    fn load_dividing(program: &Program, options: &Options, thresholds: Thresholds) -> Result<Executable, CodegenError> {
        if !options.level.is_available() {
            let message = format!("this machine has no {} instructions", options.level);
            return Err(CodegenError { kernel: None, message });
        }
        let prepared = prepare(program, options, thresholds);
        let actions = step::actions(program, &prepared.works, &prepared.groups, options.profile);
        let isa = jit::isa(options.level, false)?;
        let memory = ArenaMemoryProvider::new_with_size(CODE_BYTES)
            .map_err(|error| CodegenError { kernel: None, message: error.to_string() })?;
        let mut builder = JITBuilder::with_isa(isa.clone(), default_libcall_names());
        builder.memory_provider(Box::new(memory));
        let mut module = JITModule::new(builder);
        let (works, groups) = (&prepared.works[..], &prepared.groups[..]);
        let steps = Steps { works, groups, actions: &actions, profile: options.profile };
        let step = jit::define(&mut module, program, &prepared.jobs, &steps, &isa)?;
        let finished = module.finalize_definitions();
        finished.map_err(|error| CodegenError { kernel: None, message: error.to_string() })?;
        let code = module.get_finalized_function(step);
        Ok(Executable {
            // SAFETY: `define` gives the step function this signature in the C calling convention.
            step: unsafe { std::mem::transmute::<*const u8, jit::StepFn>(code) },
            contractions: prepared.contractions,
            scratch_bytes: prepared.scratch_bytes,
            local_bytes: program.local_bytes,
            arena_bytes: program.arena_bytes,
            kernels: program.kernels.len(),
            divided: prepared.works.iter().any(|work| work.split),
            options: options.clone(),
            clock: Mutex::new(None),
            module: Mutex::new(Some(module)),
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
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = if self.options.profile {
            let clock = clock.get_or_insert_with(|| Clock { nanoseconds: vec![0; self.kernels], last: Instant::now() });
            clock.last = Instant::now();
            std::ptr::from_mut(clock)
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
            uniform: crate::primitives::random::uniform(self.options.level),
            functions: context::functions(self.options.level),
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
        if self.divided || self.options.profile {
            pool.run(&job)
        } else {
            job(0)
        }
        exceptional.into_inner()
    }

    /// Nanoseconds per kernel, summed over the runs since loading; empty without [`Options::profile`].
    pub fn profile(&self) -> Vec<u64> {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.as_ref().map_or_else(Vec::new, |clock| clock.nanoseconds.clone())
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        if let Some(module) = self.module.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // SAFETY: no run is in progress since `self` is borrowed mutably, and the code pointer dies with `self`.
            unsafe { module.free_memory() }
        }
    }
}

impl fmt::Debug for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executable").field("kernels", &self.kernels).field("options", &self.options).finish()
    }
}

/// Cranelift's IR of a kernel; `None` for kernels that are not nests.
///
/// # Errors
/// As [`Executable::load`].
pub fn dump_clif(program: &Program, kernel: usize, level: Level) -> Result<Option<String>, CodegenError> {
    Ok(text(program, kernel, level)?.map(|text| text.clif))
}

/// Machine code of a kernel; `None` for kernels that are not nests.
///
/// # Errors
/// As [`Executable::load`].
pub fn dump_asm(program: &Program, kernel: usize, level: Level) -> Result<Option<String>, CodegenError> {
    Ok(text(program, kernel, level)?.map(|text| text.assembly))
}

fn text(program: &Program, kernel: usize, level: Level) -> Result<Option<jit::Text>, CodegenError> {
    let Some(KernelKind::Nest(nest)) = program.kernels.get(kernel).map(|kernel| &kernel.kind) else {
        return Ok(None);
    };
    let job = jit::NestJob { kernel, plan: nest_plan(program, kernel, nest, level) };
    jit::text(program, &job, &jit::isa(level, false)?).map(Some)
}
