//! From a program to bytes: Cranelift's settings, functions compiled by several threads, one block of code.
//!
//! Input: a program's nests and its step. Output: their functions one after another. Invariant: the bytes depend on the
//! program and the level, not on the machine that makes them, and hold no addresses.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, FuncRef, Function, InstBuilder, Signature, UserExternalName, UserFuncName,
};
use cranelift_codegen::isa::{OwnedTargetIsa, lookup_by_name};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, FinalizedRelocTarget};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use super::CodegenError;
use super::emit::Emitter;
use super::nest::NestEmitter;
use super::plan::NestPlan;
use super::step::{Steps, accesses, emit};
use crate::cpu::run::Code;
use crate::kernel::{BufferId, Program};
use crate::machine::Level;

/// Parameters of a nest's function: base, scratch, context, lo, hi.
const NEST_PARAMETERS: usize = 5;
/// Parameters of the step function: context, thread.
const STEP_PARAMETERS: usize = 2;
/// Parameters of a strip function: table, count.
const STRIP_PARAMETERS: usize = 2;

/// Texts of one function, for `ansatz dump`.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// Cranelift's IR before optimisation.
    pub clif: String,
    /// Machine code.
    pub assembly: String,
}

/// One compiled function.
#[derive(Default)]
struct Compiled {
    bytes: Vec<u8>,
    /// Where the distance to another function is to be written, and what is to be added to it.
    calls: Vec<(usize, u32, i64)>,
}

/// The functions of one nest, by their numbers in the block.
struct Names {
    /// Its own.
    nest: u32,
    /// Strip functions by phase.
    strips: Vec<Option<u32>>,
}

/// A nest with what emission needs.
pub(super) struct NestJob {
    /// Position among the program's kernels.
    pub kernel: usize,
    /// How it runs.
    pub plan: NestPlan,
}

fn failed(message: impl ToString) -> CodegenError {
    CodegenError { kernel: None, message: message.to_string() }
}

/// The instructions of a level on this system, whatever this machine has.
pub(super) fn isa(level: Level) -> Result<OwnedTargetIsa, CodegenError> {
    let mut flags = settings::builder();
    let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
    let chosen = [
        ("opt_level", "speed"),
        ("enable_verifier", verifier),
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
    ];
    for (name, value) in chosen {
        flags.set(name, value).map_err(failed)?;
    }
    let system = if cfg!(windows) { "x86_64-pc-windows-msvc" } else { "x86_64-unknown-linux-gnu" };
    let mut builder = lookup_by_name(system).map_err(failed)?;
    let portable = ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"].as_slice();
    let avx2 = ["has_avx", "has_avx2", "has_fma", "has_bmi1", "has_bmi2", "has_lzcnt"].as_slice();
    let avx512 = ["has_avx512f", "has_avx512dq", "has_avx512vl"].as_slice();
    let extensions = match level {
        Level::Portable => &[portable][..],
        Level::Avx2 => &[portable, avx2],
        Level::Avx512 => &[portable, avx2, avx512],
    };
    for name in extensions.iter().copied().flatten() {
        builder.enable(name).map_err(failed)?;
    }
    builder.finish(settings::Flags::new(flags)).map_err(failed)
}

fn signature(parameters: usize, isa: &OwnedTargetIsa) -> Signature {
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params.extend((0..parameters).map(|_| AbiParam::new(I64)));
    signature
}

/// A function of so many parameters to be filled.
fn function(number: u32, parameters: usize, isa: &OwnedTargetIsa) -> Function {
    Function::with_name_signature(UserFuncName::user(0, number), signature(parameters, isa))
}

/// The code of all nests and of the step, and where the step begins.
pub(super) fn define(
    program: &Program,
    jobs: &[NestJob],
    steps: &Steps<'_>,
    isa: &OwnedTargetIsa,
) -> Result<(Vec<u8>, usize), CodegenError> {
    let mut count = 0..;
    let mut next = || count.next().expect("fewer functions than numbers");
    let names: Vec<Names> = jobs
        .iter()
        .map(|job| {
            let strips = job.plan.phases.iter().map(|phase| phase.wide.as_ref().map(|_| next())).collect();
            Names { strips, nest: next() }
        })
        .collect();
    let number = next();
    let mut step = Context::for_function(function(number, STEP_PARAMETERS, isa));
    let nests: Vec<_> = names.iter().map(|names| import(&mut step.func, names.nest, NEST_PARAMETERS, isa)).collect();
    let mut builder_context = FunctionBuilderContext::new();
    let (mut e, parameters) = begin(&mut step.func, &mut builder_context, isa, 0);
    emit(&mut e, parameters[1], steps, &nests);
    finish(e, isa);
    let mut compiled = compile_all(program, jobs, &names, step, isa)?.into_iter();
    let mut functions = Vec::with_capacity(number as usize + 1);
    for job in jobs {
        let strips = job.plan.phases.iter().filter_map(|phase| phase.wide.as_ref());
        functions.extend(strips.map(|strip| Compiled { bytes: strip.bytes.clone(), ..Compiled::default() }));
        functions.extend(compiled.next());
    }
    functions.extend(compiled);
    Ok(join(&functions))
}

/// Functions one after another, and where the last begins.
fn join(functions: &[Compiled]) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let mut starts = Vec::with_capacity(functions.len());
    for function in functions {
        bytes.resize(usize::next_multiple_of(bytes.len(), Code::ALIGNMENT), 0);
        starts.push(bytes.len());
        bytes.extend(&function.bytes);
    }
    for (function, start) in functions.iter().zip(&starts) {
        for (place, callee, addend) in &function.calls {
            let place = start + place;
            let distance = starts[*callee as usize] as i64 - place as i64 + addend;
            let distance = i32::try_from(distance).expect("a step's code is shorter than 2 GiB");
            bytes[place..place + size_of::<i32>()].copy_from_slice(&distance.to_le_bytes());
        }
    }
    (bytes, starts.last().copied().unwrap_or(0))
}

/// Compiles the nests, and last in the result the step, on all cores where there are many.
fn compile_all(
    program: &Program,
    jobs: &[NestJob],
    names: &[Names],
    step: Context,
    isa: &OwnedTargetIsa,
) -> Result<Vec<Compiled>, CodegenError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len().div_ceil(4)).max(1);
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<Compiled, CodegenError>>>> = (0..=jobs.len()).map(|_| Mutex::new(None)).collect();
    // The longest function comes first.
    let step = Mutex::new(Some(step));
    let work = || {
        let taken = step.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut context) = taken {
            let result = compile(&mut context, isa).map_err(failed);
            *done[jobs.len()].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
        let mut worker = Worker { context: Context::new(), builder: FunctionBuilderContext::new() };
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(position) else { break };
            let result = worker.compile(program, job, &names[position], isa);
            *done[position].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        // Without a further thread, this one does all the work.
        (1..threads).for_each(|_| drop(std::thread::Builder::new().spawn_scoped(scope, work)));
        work();
    });
    done.into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner).expect("every job was taken"))
        .collect()
}

/// Allocations that serve one function after another.
struct Worker {
    context: Context,
    builder: FunctionBuilderContext,
}

impl Worker {
    fn compile(
        &mut self,
        program: &Program,
        job: &NestJob,
        names: &Names,
        isa: &OwnedTargetIsa,
    ) -> Result<Compiled, CodegenError> {
        self.context.clear();
        self.context.func = function(names.nest, NEST_PARAMETERS, isa);
        build_nest(&mut self.context.func, &mut self.builder, program, (job, &names.strips), isa);
        compile(&mut self.context, isa)
            .map_err(|message| CodegenError { kernel: Some(program.kernels[job.kernel].name.clone()), message })
    }
}

fn compile(context: &mut Context, isa: &OwnedTargetIsa) -> Result<Compiled, String> {
    let code = context.compile(&**isa, &mut ControlPlane::default()).map_err(|error| format!("{:?}", error.inner))?;
    assert!(code.buffer.alignment as usize <= Code::ALIGNMENT, "constants are aligned as the functions are");
    let (bytes, relocations) = (code.code_buffer().to_vec(), code.buffer.relocs().to_vec());
    let names = context.func.params.user_named_funcs();
    let call = |relocation: &cranelift_codegen::FinalizedMachReloc| match (relocation.kind, &relocation.target) {
        (Reloc::X86CallPCRel4, FinalizedRelocTarget::ExternalName(ExternalName::User(name))) => {
            Ok((relocation.offset as usize, names[*name].index, relocation.addend))
        }
        // Helpers are called through the context, and the instructions of every level do without library calls.
        (kind, target) => Err(format!("a relocation {kind:?} of {target:?}")),
    };
    let calls = relocations.iter().map(call).collect::<Result<_, _>>()?;
    Ok(Compiled { bytes, calls })
}

/// The texts of one nest.
pub(super) fn text(program: &Program, job: &NestJob, isa: &OwnedTargetIsa) -> Result<Text, CodegenError> {
    let failed = |message: String| CodegenError { kernel: Some(program.kernels[job.kernel].name.clone()), message };
    let mut context = Context::for_function(function(job.kernel as u32, NEST_PARAMETERS, isa));
    let strips: Vec<Option<u32>> =
        (0..).zip(&job.plan.phases).map(|(phase, plan)| plan.wide.as_ref().map(|_| phase)).collect();
    build_nest(&mut context.func, &mut FunctionBuilderContext::new(), program, (job, &strips), isa);
    let clif = context.func.display().to_string();
    context.set_disasm(true);
    let code =
        context.compile(&**isa, &mut ControlPlane::default()).map_err(|error| failed(format!("{:?}", error.inner)))?;
    Ok(Text { clif, assembly: code.vcode.clone().unwrap_or_default() })
}

/// An emitter in a function's first block, with the parameters.
fn begin<'a>(
    function: &'a mut Function,
    builder: &'a mut FunctionBuilderContext,
    isa: &OwnedTargetIsa,
    context: usize,
) -> (Emitter<'a>, Vec<cranelift_codegen::ir::Value>) {
    let mut b = FunctionBuilder::new(function, builder);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let parameters = b.block_params(entry).to_vec();
    (Emitter::new(b, parameters[context], isa.default_call_conv()), parameters)
}

fn finish(mut e: Emitter<'_>, isa: &OwnedTargetIsa) {
    e.b.ins().return_(&[]);
    e.b.finalize(isa.frontend_config());
}

/// Another function of the block, for calls.
fn import(function: &mut Function, number: u32, parameters: usize, isa: &OwnedTargetIsa) -> FuncRef {
    let signature = function.import_signature(signature(parameters, isa));
    let name = function.declare_imported_user_function(UserExternalName { namespace: 0, index: number });
    function.import_function(ExtFuncData {
        name: ExternalName::user(name),
        signature,
        colocated: true,
        patchable: false,
    })
}

fn build_nest(
    function: &mut Function,
    builder: &mut FunctionBuilderContext,
    program: &Program,
    (job, strips): (&NestJob, &[Option<u32>]),
    isa: &OwnedTargetIsa,
) {
    let strips = strips.iter().map(|strip| strip.map(|strip| import(function, strip, STRIP_PARAMETERS, isa))).collect();
    let (e, parameters) = begin(function, builder, isa, 2);
    let written = written(program, job.kernel);
    let mut nest = NestEmitter::new(e, program, &job.plan, parameters[0], parameters[1], written, strips);
    nest.rows(parameters[3], parameters[4]);
    finish(nest.e, isa);
}

/// Per buffer: whether the kernel may write some of its bytes.
fn written(program: &Program, kernel: usize) -> Vec<bool> {
    let (_, writes) = accesses(program, &program.kernels[kernel]);
    (0..program.buffers.len())
        .map(|buffer| {
            let bytes = program.range(BufferId(buffer as u32));
            writes.iter().any(|range| range.start < bytes.end && bytes.start < range.end)
        })
        .collect()
}
