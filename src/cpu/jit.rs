//! From a program to code: Cranelift's settings, functions compiled by several threads, one module.
//!
//! Input: a program. Output: its functions in any Cranelift module. Invariant: emission knows the module only through
//! `dyn Module`, so that memory and object files get the same code.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{
    AbiParam, ExtFuncData, ExternalName, FuncRef, Function, InstBuilder, Signature, UserExternalName, UserFuncName,
};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{FuncId, Linkage, Module, ModuleReloc};

use crate::cpu::CodegenError;
use crate::cpu::context::Context as RunContext;
use crate::cpu::emit::Emitter;
use crate::cpu::nest::NestEmitter;
use crate::cpu::plan::NestPlan;
use crate::cpu::step::{Steps, accesses, emit};
use crate::kernel::{BufferId, Program};
use crate::primitives::Level;

/// Parameters of a nest's function: base, scratch, context, lo, hi.
const NEST_PARAMETERS: usize = 5;
/// Parameters of the step function: context, thread.
const STEP_PARAMETERS: usize = 2;
/// Parameters of a strip function: table, count.
const STRIP_PARAMETERS: usize = 2;
/// The alignment of strip functions, and so of their constants.
const STRIP_ALIGNMENT: u64 = 64;

/// The step function of a loaded program.
pub(super) type StepFn = unsafe extern "C" fn(*const RunContext, usize);

/// Texts of one function, for `ansatz dump`.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// Cranelift's IR before optimisation.
    pub clif: String,
    /// Machine code.
    pub assembly: String,
}

/// One compiled function.
struct Compiled {
    bytes: Vec<u8>,
    alignment: u64,
    relocations: Vec<ModuleReloc>,
}

/// The functions of one nest.
struct Names {
    /// Its own.
    nest: FuncId,
    /// Strip functions by phase.
    strips: Vec<Option<FuncId>>,
}

/// A nest with what emission needs.
pub(super) struct NestJob {
    /// Position among the program's kernels.
    pub kernel: usize,
    /// How it runs.
    pub plan: NestPlan,
}

/// This machine's instruction set, cut down to a level. `pic` for object files.
pub(super) fn isa(level: Level, pic: bool) -> Result<OwnedTargetIsa, CodegenError> {
    let failed = |message: String| CodegenError { kernel: None, message };
    let mut flags = settings::builder();
    let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
    let chosen = [
        ("opt_level", "speed"),
        ("enable_verifier", verifier),
        ("is_pic", if pic { "true" } else { "false" }),
        ("use_colocated_libcalls", "false"),
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
    ];
    for (name, value) in chosen {
        flags.set(name, value).map_err(|error| failed(format!("setting `{name}`: {error}")))?;
    }
    let mut builder = cranelift_native::builder().map_err(|error| failed(error.to_string()))?;
    if cfg!(target_arch = "x86_64") {
        let avx512 = ["has_avx512bitalg", "has_avx512dq", "has_avx512vl", "has_avx512vbmi", "has_avx512f"].as_slice();
        let avx = ["has_avx", "has_avx2", "has_fma", "has_bmi1", "has_bmi2"].as_slice();
        let dropped: &[&[&str]] = match level {
            Level::Avx512 => &[],
            Level::Avx2 => &[avx512],
            Level::Portable => &[avx512, avx],
        };
        for name in dropped.iter().copied().flatten() {
            builder.set(name, "false").map_err(|error| failed(format!("setting `{name}`: {error}")))?;
        }
    }
    builder.finish(settings::Flags::new(flags)).map_err(|error| failed(error.to_string()))
}

fn signature(module: &dyn Module, parameters: usize) -> Signature {
    let mut signature = Signature::new(module.isa().default_call_conv());
    signature.params.extend((0..parameters).map(|_| AbiParam::new(I64)));
    signature
}

/// Defines all nests and the step in a module; returns the step.
pub(super) fn define(
    module: &mut dyn Module,
    program: &Program,
    jobs: &[NestJob],
    steps: &Steps<'_>,
    isa: &OwnedTargetIsa,
) -> Result<FuncId, CodegenError> {
    let failed =
        |kernel: Option<usize>| move |error: cranelift_module::ModuleError| module_error(program, kernel, &error);
    let nest_signature = signature(module, NEST_PARAMETERS);
    let strip_signature = signature(module, STRIP_PARAMETERS);
    let mut ids = Vec::with_capacity(jobs.len());
    let mut strips = Vec::with_capacity(jobs.len());
    for job in jobs {
        let mut of_job = vec![None; job.plan.phases.len()];
        for (phase, plan) in job.plan.phases.iter().enumerate() {
            let Some(strip) = &plan.wide else { continue };
            let name = format!("kernel{}strip{phase}", job.kernel);
            let id =
                module.declare_function(&name, Linkage::Local, &strip_signature).map_err(failed(Some(job.kernel)))?;
            module.define_function_bytes(id, STRIP_ALIGNMENT, &strip.bytes, &[]).map_err(failed(Some(job.kernel)))?;
            of_job[phase] = Some(id);
        }
        strips.push(of_job);
        let name = format!("kernel{}", job.kernel);
        let id = module.declare_function(&name, Linkage::Local, &nest_signature).map_err(failed(Some(job.kernel)))?;
        ids.push(id);
    }
    let step_signature = signature(module, STEP_PARAMETERS);
    let step = module.declare_function("step", Linkage::Export, &step_signature).map_err(failed(None))?;
    let name = UserFuncName::user(0, step.as_u32());
    let mut context = Context::for_function(Function::with_name_signature(name, step_signature));
    let nests: Vec<_> = ids.iter().map(|id| module.declare_func_in_func(*id, &mut context.func)).collect();
    let mut builder_context = FunctionBuilderContext::new();
    let (mut e, parameters) = begin(&mut context.func, &mut builder_context, isa, 0);
    emit(&mut e, parameters[1], steps, &nests);
    finish(e, isa);
    let names: Vec<Names> = ids.into_iter().zip(strips).map(|(nest, strips)| Names { nest, strips }).collect();
    let compiled = compile_all(program, jobs, &names, &nest_signature, (context, step), isa)?;
    let kernels = jobs.iter().map(|job| Some(job.kernel)).chain([None]);
    for ((kernel, id), code) in kernels.zip(names.iter().map(|names| names.nest).chain([step])).zip(compiled) {
        module.define_function_bytes(id, code.alignment, &code.bytes, &code.relocations).map_err(failed(kernel))?;
    }
    Ok(step)
}

fn module_error(program: &Program, kernel: Option<usize>, error: &cranelift_module::ModuleError) -> CodegenError {
    CodegenError { kernel: kernel.map(|kernel| program.kernels[kernel].name.clone()), message: error.to_string() }
}

/// Compiles the nests, and last in the result the step, on all cores where there are many.
fn compile_all(
    program: &Program,
    jobs: &[NestJob],
    names: &[Names],
    signature: &Signature,
    step: (Context, FuncId),
    isa: &OwnedTargetIsa,
) -> Result<Vec<Compiled>, CodegenError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(jobs.len().div_ceil(4)).max(1);
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<Compiled, CodegenError>>>> = (0..=jobs.len()).map(|_| Mutex::new(None)).collect();
    // The longest function comes first.
    let step = Mutex::new(Some(step));
    let work = || {
        let taken = step.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((mut context, id)) = taken {
            let result = compile(&mut context, isa, id).map_err(|message| CodegenError { kernel: None, message });
            *done[jobs.len()].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
        let mut worker = Worker { context: Context::new(), builder: FunctionBuilderContext::new() };
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(position) else { break };
            let result = worker.compile(program, job, &names[position], signature, isa);
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
        signature: &Signature,
        isa: &OwnedTargetIsa,
    ) -> Result<Compiled, CodegenError> {
        self.context.clear();
        let id = names.nest;
        self.context.func = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), signature.clone());
        build_nest(&mut self.context.func, &mut self.builder, program, (job, &names.strips), isa);
        compile(&mut self.context, isa, id)
            .map_err(|message| CodegenError { kernel: Some(program.kernels[job.kernel].name.clone()), message })
    }
}

fn compile(context: &mut Context, isa: &OwnedTargetIsa, id: FuncId) -> Result<Compiled, String> {
    let code = context.compile(&**isa, &mut ControlPlane::default()).map_err(|error| format!("{:?}", error.inner))?;
    let alignment =
        u64::from(code.buffer.alignment).max(u64::from(isa.function_alignment().minimum)).max(isa.symbol_alignment());
    let bytes = code.code_buffer().to_vec();
    let relocations = code.buffer.relocs().to_vec();
    let relocations =
        relocations.iter().map(|relocation| ModuleReloc::from_mach_reloc(relocation, &context.func, id)).collect();
    Ok(Compiled { bytes, alignment, relocations })
}

/// The texts of one nest.
pub(super) fn text(program: &Program, job: &NestJob, isa: &OwnedTargetIsa) -> Result<Text, CodegenError> {
    let failed = |message: String| CodegenError { kernel: Some(program.kernels[job.kernel].name.clone()), message };
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params.extend((0..NEST_PARAMETERS).map(|_| AbiParam::new(I64)));
    let function = Function::with_name_signature(UserFuncName::user(0, job.kernel as u32), signature);
    let mut context = Context::for_function(function);
    let strips: Vec<Option<FuncId>> = (0..job.plan.phases.len())
        .map(|phase| job.plan.phases[phase].wide.as_ref().map(|_| FuncId::from_u32(phase as u32)))
        .collect();
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

/// A strip function for calls, as [`Module::declare_func_in_func`] names it.
fn strip_function(function: &mut Function, id: FuncId, isa: &OwnedTargetIsa) -> FuncRef {
    let mut signature = Signature::new(isa.default_call_conv());
    signature.params.extend((0..STRIP_PARAMETERS).map(|_| AbiParam::new(I64)));
    let signature = function.import_signature(signature);
    let name = function.declare_imported_user_function(UserExternalName { namespace: 0, index: id.as_u32() });
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
    (job, strips): (&NestJob, &[Option<FuncId>]),
    isa: &OwnedTargetIsa,
) {
    let strips = strips.iter().map(|id| id.map(|id| strip_function(function, id, isa))).collect();
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
