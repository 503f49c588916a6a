//! The half that makes machine code: every loop nest through Cranelift, and a step function that runs all kernels.
//!
//! Input: a [`Program`] and [`Options`]. Output: [`Code`]. Only this module names Cranelift. Invariant: the code depends on
//! the program and the options, not on the machine at hand.
//!
//! Each nest becomes one function over a range of its parallel loops; innermost loops run four lanes wide.
//! Transcendental functions and random numbers are computed on strips of [`plan::STRIP`] elements by
//! [`crate::primitives`]; products are primitives too. The step function runs all kernels in order on every thread:
//! each thread takes its share of a kernel's points, small kernels stay on thread 0, and the threads meet only between
//! kernels that touch the same bytes.

#![allow(unsafe_code)]

mod calls;
mod emit;
mod expr;
mod functions;
mod memory;
mod nest;
mod plan;
mod reduce;
mod simplify;
mod step;
mod strips;
#[cfg(test)]
mod tests;
mod wide;

use std::fmt;

use super::run::{Code, Cpu, Executable, contractions};
use crate::contraction::Contraction;
use crate::contraction::tuning::Tuning;
use crate::device::DeviceError;
use crate::graph::DType;
use crate::kernel::{BufferId, KernelKind, Nest, Program};
use crate::machine::Level;
use functions::{NestJob, Text};
use step::{BYTE_GRAIN, Body, GroupWork, Steps, Thresholds, Work};

/// How a program is compiled.
#[derive(Clone, Debug)]
pub struct Options {
    /// The instruction set.
    pub level: Level,
    /// Measure each kernel; costs a barrier per kernel.
    pub profile: bool,
    /// Measured cuts of products; they change times alone.
    pub tuning: Tuning,
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

impl From<CodegenError> for DeviceError {
    fn from(error: CodegenError) -> Self {
        DeviceError(error.to_string())
    }
}

/// A device that compiles the programs that it loads. They must be ones that
/// [`verify`](crate::kernel::verify::verify) accepts, as those of `pipeline` are: others touch memory that is not theirs.
///
/// # Errors
/// No memory at all.
pub fn device(options: Options, threads: usize) -> Result<Cpu, DeviceError> {
    let level = options.level;
    let compile = move |program: &Program| Ok(compile(program, &options)?);
    // SAFETY: what it gives is made for the program.
    unsafe { Cpu::new(level, threads, Box::new(compile)) }
}

/// A program in machine code of this process; see [`device`] for which programs.
///
/// # Errors
/// Where there is no code, or the machine lacks the level or memory.
pub fn load(program: &Program, options: &Options) -> Result<Executable, DeviceError> {
    load_dividing(program, options, Thresholds::MEASURED)
}

fn load_dividing(program: &Program, options: &Options, thresholds: Thresholds) -> Result<Executable, DeviceError> {
    let code = compile_dividing(program, options, thresholds)?;
    // SAFETY: the code is made for the program.
    unsafe { Executable::load(program, &code) }
}

/// The code of a program.
///
/// # Errors
/// Where Cranelift refuses a function.
pub fn compile(program: &Program, options: &Options) -> Result<Code, CodegenError> {
    compile_dividing(program, options, Thresholds::MEASURED)
}

fn compile_dividing(program: &Program, options: &Options, thresholds: Thresholds) -> Result<Code, CodegenError> {
    let level = options.level;
    let mut cuts = Vec::new();
    let contractions = contractions(program, level, |product, kept| {
        cuts.push(options.tuning.choose(product, kept, level));
        cuts[cuts.len() - 1]
    });
    let mut jobs = Vec::new();
    let works = works(program, level, &contractions, thresholds, &mut jobs);
    let group = |group: &crate::kernel::Group| {
        let split = works[group.kernels.clone()].iter().any(|work| work.split);
        GroupWork { kernels: group.kernels.clone(), slices: group.slices, split }
    };
    let groups: Vec<GroupWork> = program.groups.iter().map(group).collect();
    let actions = step::actions(program, &works, &groups, options.profile);
    let steps = Steps { works: &works, groups: &groups, actions: &actions, profile: options.profile };
    let (bytes, step) = functions::define(program, &jobs, &steps, &functions::isa(level)?)?;
    Ok(Code {
        form: Code::FORM.to_string(),
        program: program.fingerprint(),
        level,
        bytes,
        step,
        cuts,
        scratch_bytes: jobs.iter().map(|job| job.plan.scratch_bytes).max().unwrap_or(0),
        divided: works.iter().any(|work| work.split),
        profiles: options.profile,
    })
}

/// How each kernel runs; nests are added to `jobs`.
fn works(
    program: &Program,
    level: Level,
    contractions: &[Contraction],
    thresholds: Thresholds,
    jobs: &mut Vec<NestJob>,
) -> Vec<Work> {
    let mut contractions = contractions.iter().enumerate();
    let bytes = |body: Body, bytes: usize| Work::new(body, bytes, BYTE_GRAIN, bytes, thresholds.bytes);
    let work = |(position, kernel): (usize, &crate::kernel::Kernel)| match &kernel.kind {
        KernelKind::Nest(nest) => {
            let plan = nest_plan(program, position, nest, level);
            let work = Work::new(Body::Nest(jobs.len()), plan.total, plan.grain, plan.work, thresholds.nest);
            jobs.push(NestJob { kernel: position, plan });
            work
        }
        KernelKind::Product(_) | KernelKind::Winograd(_) | KernelKind::Filter(_) => {
            let (number, plan) = contractions.next().expect("a plan for each contraction");
            Work::new(Body::Contraction(number), plan.parts(), 1, plan.multiply_adds(), thresholds.product)
        }
        KernelKind::Zero(id) => bytes(Body::Zero(program.buffer(*id).offset), program.buffer(*id).bytes()),
        KernelKind::Copy { from, to } => {
            let [from, to] = [from, to].map(|id| program.buffer(*id));
            bytes(Body::Copy { from: from.offset, to: to.offset }, to.bytes())
        }
    };
    program.kernels.iter().enumerate().map(work).collect()
}

fn nest_plan(program: &Program, position: usize, nest: &Nest, level: Level) -> plan::NestPlan {
    let dtype = |id: BufferId| program.buffer(id).dtype;
    // Strip functions are called by the System V convention.
    let wide = (level == Level::Avx512 && cfg!(unix)).then_some(&dtype as &dyn Fn(BufferId) -> DType);
    let Some(group) = program.group_of(position) else { return plan::plan(nest, wide) };
    let plan = plan::plan_sliced(nest, wide);
    assert_eq!(plan.total, group.slices, "the parallel loops of a grouped nest number the slices");
    plan
}

/// Cranelift's IR of a kernel; `None` for kernels that are not nests.
///
/// # Errors
/// As [`compile`].
pub fn dump_clif(program: &Program, kernel: usize, level: Level) -> Result<Option<String>, CodegenError> {
    Ok(text(program, kernel, level)?.map(|text| text.clif))
}

/// Machine code of a kernel; `None` for kernels that are not nests.
///
/// # Errors
/// As [`compile`].
pub fn dump_asm(program: &Program, kernel: usize, level: Level) -> Result<Option<String>, CodegenError> {
    Ok(text(program, kernel, level)?.map(|text| text.assembly))
}

fn text(program: &Program, kernel: usize, level: Level) -> Result<Option<Text>, CodegenError> {
    let Some(KernelKind::Nest(nest)) = program.kernels.get(kernel).map(|kernel| &kernel.kind) else {
        return Ok(None);
    };
    let job = NestJob { kernel, plan: nest_plan(program, kernel, nest, level) };
    functions::text(program, &job, &functions::isa(level)?).map(Some)
}
