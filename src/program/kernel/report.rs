//! What a program will do, before it runs: for `ansatz plan` and for assertions on memory.
//!
//! Input: a [`Program`]. Output: bytes by kind, and for each kernel its place in the model, its arithmetic and its traffic.
//! Invariant: `arena_bytes` and, for each slice in progress, `local_bytes` are all the memory of tensors that a step needs.

use std::fmt::{self, Write};

use crate::kernel::print::bands_text;
use crate::kernel::{Buffer, KernelKind, Nest, NodeOp, Product, Program, Role, Winograd};
use crate::source::SourceMap;

/// A program in numbers.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// Bytes of all tensors in the arena.
    pub arena_bytes: usize,
    /// Bytes of the tensors outside it, which hold one slice of a group.
    pub local_bytes: usize,
    /// Bytes of parameters.
    pub param_bytes: usize,
    /// Bytes of states: running statistics, the optimizer's memory, metrics.
    pub state_bytes: usize,
    /// Bytes of inputs, host scalars and outputs.
    pub exchange_bytes: usize,
    /// Bytes of temporaries, which share memory.
    pub temporary_bytes: usize,
    /// Bytes that temporaries would take if none shared memory.
    pub unshared_bytes: usize,
    /// All buffers in the order of their offsets.
    pub buffers: Vec<BufferReport>,
    /// Kernels in order.
    pub kernels: Vec<KernelReport>,
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BufferReport {
    /// What it holds, in JSON as text: `param:fc1.weight`, `temp:3`, ….
    #[serde(rename = "name", serialize_with = "as_text")]
    pub role: Role,
    /// Byte offset in the arena, or among the tensors of a slice (`local:…`).
    pub offset: usize,
    /// How large it is.
    pub bytes: usize,
    /// First and last kernel that touches it; none where no kernel does.
    pub life: Option<(usize, usize)>,
}

/// One kernel.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct KernelReport {
    /// `product`, `sum`, `map`, …
    pub name: String,
    /// `models/mlp.ansatz:4:10`, where known.
    pub place: String,
    /// Arithmetic operations; a function such as `exp` counts as one.
    pub flops: u64,
    /// Bytes of the buffers that it reads and writes.
    pub bytes: u64,
    /// Its loops.
    pub shape: String,
    /// The slices of the group that it belongs to.
    pub slices: Option<usize>,
}

fn as_text<S: serde::Serializer>(role: &Role, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(role)
}

/// The numbers of a program.
pub fn report(program: &Program, sources: &SourceMap) -> Report {
    let lives = program.lives();
    let mut buffers: Vec<BufferReport> = program
        .buffers
        .iter()
        .zip(lives)
        .map(|(buffer, life)| BufferReport {
            role: buffer.role.clone(),
            offset: buffer.offset,
            bytes: buffer.bytes(),
            life,
        })
        .collect();
    buffers.sort_by_key(|buffer| (matches!(buffer.role, Role::Local(_)), buffer.offset, buffer.bytes));
    let of = |is_meant: fn(&Role) -> bool| {
        program.buffers.iter().filter(|buffer| is_meant(&buffer.role)).map(Buffer::bytes).sum()
    };
    let is_temporary = |buffer: &&BufferReport| matches!(buffer.role, Role::Temporary(_));
    let start = buffers.iter().find(is_temporary).map_or(program.arena_bytes, |buffer| buffer.offset);
    Report {
        arena_bytes: program.arena_bytes,
        local_bytes: program.local_bytes,
        param_bytes: of(|role| matches!(role, Role::Param(_))),
        state_bytes: of(|role| matches!(role, Role::State(_))),
        exchange_bytes: of(|role| matches!(role, Role::Input(_) | Role::Scalar(_) | Role::Output(_))),
        temporary_bytes: program.arena_bytes - start,
        unshared_bytes: of(|role| matches!(role, Role::Temporary(_))),
        buffers,
        kernels: (0..program.kernels.len()).map(|kernel| kernel_report(program, kernel, sources)).collect(),
    }
}

fn kernel_report(program: &Program, position: usize, sources: &SourceMap) -> KernelReport {
    let kernel = &program.kernels[position];
    let group = program.group_of(position);
    let place = if sources.get(kernel.span.file).is_some() { sources.location(kernel.span) } else { String::new() };
    let (flops, shape) = match &kernel.kind {
        KernelKind::Nest(nest) => (nest_flops(nest), nest_shape(nest)),
        KernelKind::Product(product) | KernelKind::Winograd(Winograd { product, .. }) => product_numbers(product),
        KernelKind::Filter(winograd) => (0, format!("tiles of {}", winograd.tile)),
        KernelKind::Zero(buffer) => (0, format!("{:?}", program.buffer(*buffer).sizes)),
        KernelKind::Copy { from, .. } => (0, format!("{:?}", program.buffer(*from).sizes)),
    };
    // A local buffer is written or read anew in every slice.
    let slices = group.map(|group| group.slices);
    let times = |buffer| if program.is_local(buffer) { slices.unwrap_or(1) as u64 } else { 1 };
    let bytes = kernel.buffers().into_iter().map(|buffer| program.buffer(buffer).bytes() as u64 * times(buffer)).sum();
    KernelReport { name: kernel.name.clone(), place, flops, bytes, shape, slices }
}

fn nest_flops(nest: &Nest) -> u64 {
    let rows: u64 = nest.outer.iter().map(|&extent| extent as u64).product();
    let per_row = nest.phases.iter().map(|phase| {
        let points: u64 = phase.inner.iter().map(|&extent| extent as u64).product();
        let is_given =
            |op: &NodeOp| matches!(op, NodeOp::Const(_) | NodeOp::Index(_) | NodeOp::Load(_) | NodeOp::Reduced { .. });
        let nodes = phase.nodes.iter().filter(|node| !is_given(&node.op)).count();
        points * (nodes + phase.reductions.len()) as u64
    });
    rows * per_row.sum::<u64>()
}

fn nest_shape(nest: &Nest) -> String {
    let phases: Vec<String> = nest.phases.iter().map(|phase| format!("{:?}", phase.inner)).collect();
    format!("{:?} x {}", nest.outer, phases.join(" "))
}

fn product_numbers(product: &Product) -> (u64, String) {
    let extent = |loops: &[crate::kernel::ProductLoop]| loops.iter().map(|each| each.extent as u64).product::<u64>();
    let (batch, m, n, k) = (extent(&product.batch), extent(&product.m), extent(&product.n), extent(&product.k));
    let bands = bands_text(product);
    let only = if bands.is_empty() { String::new() } else { format!(" where {}", bands.join(", ")) };
    (2 * batch * m * n * k, format!("{batch} x [{m}, {n}, {k}]{only}"))
}

/// `1.5 MiB`.
fn bytes_text(bytes: usize) -> String {
    match bytes as f64 {
        few if few < 1024.0 => format!("{bytes} B"),
        some if some < 1024.0 * 1024.0 => format!("{:.1} KiB", some / 1024.0),
        many if many < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", many / (1024.0 * 1024.0)),
        most => format!("{:.2} GiB", most / (1024.0 * 1024.0 * 1024.0)),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (name, bytes) in [
            ("parameters", self.param_bytes),
            ("states", self.state_bytes),
            ("inputs, outputs", self.exchange_bytes),
            ("temporaries", self.temporary_bytes),
            ("all", self.arena_bytes),
        ] {
            let _ = writeln!(text, "{name:<16} {:>12}", bytes_text(bytes));
        }
        if self.local_bytes > 0 {
            let _ = writeln!(text, "{:<16} {:>12}", "and each thread", bytes_text(self.local_bytes));
        }
        let _ = writeln!(text, "temporaries without sharing: {}\n", bytes_text(self.unshared_bytes));
        for buffer in &self.buffers {
            let life = buffer.life.map_or(String::from("unused"), |(first, last)| format!("kernels {first} to {last}"));
            let _ = writeln!(text, "{:>12} {:>12}  {}, {life}", buffer.offset, bytes_text(buffer.bytes), buffer.role);
        }
        let flops: u64 = self.kernels.iter().map(|kernel| kernel.flops).sum();
        let _ = writeln!(text, "\n{} kernels, {:.3} Gflop", self.kernels.len(), flops as f64 / 1e9);
        for (number, kernel) in self.kernels.iter().enumerate() {
            let slices = kernel.slices.map_or(String::new(), |slices| format!("  in {slices} slices"));
            let _ = writeln!(
                text,
                "{number:>4} {:<8} {:>10.3} Mflop {:>12}  {}  {}{slices}",
                kernel.name,
                kernel.flops as f64 / 1e6,
                bytes_text(kernel.bytes as usize),
                kernel.shape,
                kernel.place
            );
        }
        f.write_str(&text)
    }
}
