//! The half that makes code: every kernel as CUDA C, and what a step launches.
//!
//! Input: a [`Program`]. Output: a [`Text`]. Invariant: the text depends on the program alone, is without headers and names
//! no address; kernels that differ in their buffers' places alone are one function.

mod expr;
mod linear;
mod nest;
mod panel;
mod scatter;
mod simt;
mod teams;
mod tensor;
mod writer;

use std::collections::BTreeMap;

use super::run::{Action, Launch, function_name};
use crate::device::DeviceError;
use crate::graph::DType;
use crate::kernel::{BufferId, Kernel, KernelKind, Program, Role};
use crate::source::SourceMap;
pub use tensor::Factors;
use writer::Writer;

/// What every kernel is written with.
const PRELUDE: &str = include_str!("prelude.cu");

/// Most bytes of shared memory that every GPU gives a block unasked.
const SHARED_BYTES: usize = 48 << 10;

/// Most buffers that are arguments: they fit into the 4 KiB that every GPU takes. A kernel of more is told where the arena
/// begins; so many are hardly the same in two layers.
const MOST_ARGUMENTS: usize = 128;

/// A program in CUDA C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The source of one module.
    pub source: String,
    /// How many functions it has.
    pub functions: usize,
    /// What a step does, an action a kernel, in order.
    pub actions: Vec<Action>,
}

/// The body of a function and how it is launched.
struct Function {
    body: String,
    blocks: usize,
    threads: usize,
    shared_bytes: usize,
}

impl Function {
    fn new(body: Writer, blocks: usize, threads: usize, shared_bytes: usize) -> Function {
        Function { body: body.into_text(), blocks, threads, shared_bytes }
    }
}

/// The arguments of a function: its buffers in the order of their first use by the kernel.
struct Names<'p> {
    program: &'p Program,
    buffers: Vec<BufferId>,
}

impl<'p> Names<'p> {
    fn of(program: &'p Program, kernel: &Kernel) -> Names<'p> {
        let buffers = [kernel.writes(), kernel.reads()].concat();
        let mut names = Names { program, buffers: Vec::new() };
        for buffer in buffers {
            if !names.buffers.contains(&buffer) {
                names.buffers.push(buffer);
            }
        }
        names
    }

    fn buffer(&self, id: BufferId) -> String {
        let place = self.buffers.iter().position(|each| *each == id).expect("a kernel names its buffers");
        if self.are_arguments() {
            return format!("b{place}");
        }
        let buffer = self.program.buffer(id);
        format!("(({}*)(arena + {}ULL))", expr::type_name(buffer.dtype), buffer.offset)
    }

    fn are_arguments(&self) -> bool {
        self.buffers.len() <= MOST_ARGUMENTS
    }

    /// Offsets of what the arguments point to.
    fn offsets(&self) -> Vec<usize> {
        if !self.are_arguments() {
            return vec![0];
        }
        self.buffers.iter().map(|id| self.program.buffer(*id).offset).collect()
    }

    /// A store of an element: what outlives the step is watched, be it that it is copied there.
    fn store(&self, id: BufferId, pointer: &str, value: &str) -> String {
        let lasts = |id: BufferId| {
            let role = &self.program.buffer(id).role;
            matches!(role, Role::Param(_) | Role::State(_) | Role::Output(_))
        };
        let is_copied =
            |kernel: &Kernel| matches!(kernel.kind, KernelKind::Copy { from, to } if from == id && lasts(to));
        let is_float = self.program.buffer(id).dtype == DType::F32;
        let watched = is_float && (lasts(id) || self.program.kernels.iter().any(is_copied));
        if watched { format!("store_watched(run, {pointer}, {value});") } else { format!("store({pointer}, {value});") }
    }

    /// `Run* run, float* b0, int* b1`.
    fn arguments(&self) -> String {
        if !self.are_arguments() {
            return "Run* run, unsigned char* arena".to_string();
        }
        let typed = |(place, id): (usize, &BufferId)| {
            let dtype: DType = self.program.buffer(*id).dtype;
            format!(", {}* b{place}", expr::type_name(dtype))
        };
        self.buffers.iter().enumerate().map(typed).fold("Run* run".to_string(), |text, each| text + &each)
    }
}

/// A program in CUDA C; with `sources`, functions say which lines of the model they stem from.
///
/// # Errors
/// A kernel of more points than a GPU can count.
pub fn text(program: &Program, sources: Option<&SourceMap>) -> Result<Text, DeviceError> {
    let mut bodies: BTreeMap<String, usize> = BTreeMap::new();
    let mut functions: Vec<(String, Vec<String>)> = Vec::new();
    let mut actions = Vec::new();
    for (position, kernel) in program.kernels.iter().enumerate() {
        let names = Names::of(program, kernel);
        let function = match &kernel.kind {
            KernelKind::Nest(nest) => nest::nest(nest, &names),
            KernelKind::Product(product) => {
                let factors = Factors::of(program.precision);
                let on_cores = factors.and_then(|factors| tensor::product(product, &names, factors));
                on_cores.unwrap_or_else(|| simt::product(product, &names))
            }
            KernelKind::Winograd(_) | KernelKind::Filter(_) => {
                return Err(DeviceError("the step was planned for another kind of device".into()));
            }
            KernelKind::Zero(id) => {
                let buffer = program.buffer(*id);
                actions.push(Action::Zero { offset: buffer.offset, bytes: buffer.bytes() });
                continue;
            }
            KernelKind::Copy { from, to } => {
                let [from, to] = [from, to].map(|id| program.buffer(*id));
                actions.push(Action::Copy { from: from.offset, to: to.offset, bytes: to.bytes() });
                continue;
            }
        };
        let too_many = || DeviceError(format!("kernel `{}` has more points than a GPU can count", kernel.name));
        let blocks = i32::try_from(function.blocks).map_err(|_| too_many())? as u32;
        debug_assert!(function.shared_bytes <= SHARED_BYTES && function.threads <= 1024);
        let head = format!("KERNEL({}) NAME({})", function.threads, names.arguments());
        let whole = format!("{head} {{\n{}}}\n", function.body);
        let number = *bodies.entry(whole).or_insert_with_key(|whole| {
            functions.push((whole.clone(), Vec::new()));
            functions.len() - 1
        });
        let place = sources.filter(|sources| sources.get(kernel.span.file).is_some());
        let place = place.map(|sources| sources.location(kernel.span)).unwrap_or_default();
        functions[number].1.push(format!("kernel {position}, {} {place}", kernel.name).trim_end().to_string());
        actions.push(Action::Launch(Launch {
            function: number,
            blocks,
            threads: function.threads as u32,
            shared_bytes: function.shared_bytes as u32,
            buffers: names.offsets(),
        }));
    }
    let mut source = PRELUDE.to_string();
    for (number, (whole, places)) in functions.iter().enumerate() {
        source.push('\n');
        if sources.is_some() {
            places.iter().for_each(|place| source.push_str(&format!("// {place}\n")));
        }
        source.push_str(&whole.replacen("NAME", &function_name(number), 1));
    }
    Ok(Text { source, functions: functions.len(), actions })
}
