//! The step function: all kernels in order, as one thread runs them.
//!
//! Input: the program's kernels with their costs and memory. Output: a list of [`Action`]s and its machine code
//! `fn(context, thread)`. Invariant: two kernels that touch the same bytes, one of them writing, have a barrier between
//! them unless thread 0 runs both; which points a thread runs does not change their results.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{FuncRef, InstBuilder, Value};

use crate::cpu::context::{Helper, field};
use crate::cpu::emit::Emitter;
use crate::kernel::{Buffer, BufferId, KernelKind, Location, NodeOp, Program, Winograd};

/// From which size on a kernel is worth a barrier.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thresholds {
    /// Cost of a nest: some 20 node evaluations of four lanes a nanosecond.
    pub nest: usize,
    /// Bytes copied or zeroed.
    pub bytes: usize,
    /// Multiply-adds of a product.
    pub product: usize,
}

impl Thresholds {
    /// A few microseconds each.
    pub(super) const MEASURED: Self = Self { nest: 128 * 1024, bytes: 128 * 1024, product: 256 * 1024 };
    /// Everything that can be divided is.
    #[cfg(test)]
    pub(super) const NONE: Self = Self { nest: 0, bytes: 0, product: 0 };
}

/// Bytes that copies are divided by.
pub(super) const BYTE_GRAIN: usize = 4096;

/// What a kernel's code is called with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// The function of this number among the nests, over points.
    Nest(usize),
    /// The contraction of this number, over parts.
    Contraction(usize),
    /// Zero bytes from this offset.
    Zero(usize),
    /// Bytes `from` to `to`.
    Copy {
        /// Offset of the source.
        from: usize,
        /// Offset of the destination.
        to: usize,
    },
}

/// One kernel of the step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// What runs.
    pub body: Body,
    /// Points, parts or bytes.
    pub total: usize,
    /// Shares are multiples of this.
    pub grain: usize,
    /// Whether threads share it; otherwise thread 0 runs it whole.
    pub split: bool,
}

/// What a thread does next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// Run a share of the kernel of this position.
    Run(usize),
    /// Meet the others.
    Barrier,
}

impl Work {
    /// The work of `total` points, parts or bytes, divided among threads if its cost reaches the threshold.
    pub(super) fn new(body: Body, total: usize, grain: usize, cost: usize, threshold: usize) -> Self {
        Self { body, total, grain, split: total > grain && cost >= threshold }
    }
}

/// A byte range of the arena.
type Bytes = std::ops::Range<usize>;

fn overlap(a: &[Bytes], b: &[Bytes]) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.start < b.end && b.start < a.end))
}

/// The bytes that a kernel reads and those that it writes.
pub(super) fn accesses(program: &Program, kind: &KernelKind) -> (Vec<Bytes>, Vec<Bytes>) {
    let range = |id: BufferId| {
        let buffer: &Buffer = &program.buffers[id.0 as usize];
        buffer.offset..buffer.offset + buffer.bytes()
    };
    match kind {
        KernelKind::Nest(nest) => {
            let loads = nest.phases.iter().flat_map(|phase| &phase.nodes).filter_map(|node| match &node.op {
                NodeOp::Load(Location { buffer, .. }) => Some(range(*buffer)),
                NodeOp::Const(_)
                | NodeOp::Index(_)
                | NodeOp::Random { .. }
                | NodeOp::Reduced { .. }
                | NodeOp::Unary(..)
                | NodeOp::Binary(..)
                | NodeOp::Compare(..)
                | NodeOp::Select(..)
                | NodeOp::Cast(_) => None,
            });
            let stores = nest.phases.iter().flat_map(|phase| &phase.stores).map(|store| range(store.location.buffer));
            (loads.collect(), stores.collect())
        }
        KernelKind::Product(product) => (vec![range(product.a.0), range(product.b.0)], vec![range(product.c.0)]),
        KernelKind::Winograd(Winograd { product, filter, .. }) => {
            let read = [product.a.0, product.b.0].into_iter().chain(*filter);
            (read.map(range).collect(), vec![range(product.c.0)])
        }
        KernelKind::Filter(winograd) => {
            (vec![range(winograd.taps())], winograd.filter.into_iter().map(range).collect())
        }
        KernelKind::Zero(buffer) => (Vec::new(), vec![range(*buffer)]),
        KernelKind::Copy { from, to } => (vec![range(*from)], vec![range(*to)]),
    }
}

/// The order of kernels and barriers. With a profile there is a barrier behind each kernel.
pub(super) fn actions(program: &Program, works: &[Work], profile: bool) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut since: Vec<(usize, Vec<Bytes>, Vec<Bytes>)> = Vec::new();
    for (position, kernel) in program.kernels.iter().enumerate() {
        let (reads, writes) = accesses(program, &kernel.kind);
        let waits = since.iter().any(|(earlier, earlier_reads, earlier_writes)| {
            let alone = !works[*earlier].split && !works[position].split;
            let touch =
                overlap(earlier_writes, &reads) || overlap(earlier_writes, &writes) || overlap(earlier_reads, &writes);
            !alone && touch
        });
        if waits {
            actions.push(Action::Barrier);
            since.clear();
        }
        actions.push(Action::Run(position));
        since.push((position, reads, writes));
        if profile {
            actions.push(Action::Barrier);
            since.clear();
        }
    }
    actions
}

/// Emits the step into the current block of `e`. `nests` are the nests' functions.
pub(super) fn emit(
    e: &mut Emitter<'_>,
    thread: Value,
    works: &[Work],
    actions: &[Action],
    profile: bool,
    nests: &[FuncRef],
) {
    let base = e.field(I64, field::BASE);
    let threads = e.field(I64, field::THREADS);
    let stride = e.field(I64, field::SCRATCH_STRIDE);
    let first = e.field(I64, field::SCRATCH);
    let own = e.b.ins().imul(stride, thread);
    let scratch = e.b.ins().iadd(first, own);
    let mut ended = None;
    for action in actions {
        match action {
            Action::Barrier => {
                let context = e.context;
                e.call(Helper::Barrier, &[context, thread]);
                if let Some(kernel) = ended.take().filter(|_| profile) {
                    on_first(e, thread, |e| {
                        let kernel = e.i64(kernel);
                        e.call(Helper::Mark, &[e.context, kernel]);
                    });
                }
            }
            Action::Run(position) => {
                ended = Some(*position as i64);
                let work = works[*position];
                if work.split {
                    let (lo, hi) = share(e, work, thread, threads);
                    let some = e.b.ins().icmp(IntCC::UnsignedLessThan, lo, hi);
                    let after = e.begin_if(some);
                    run(e, work.body, base, scratch, lo, hi, nests);
                    e.end_if(after);
                } else {
                    on_first(e, thread, |e| {
                        let (lo, hi) = (e.i64(0), e.i64(work.total as i64));
                        run(e, work.body, base, scratch, lo, hi, nests);
                    });
                }
            }
        }
    }
}

/// Code for thread 0 alone.
fn on_first(e: &mut Emitter<'_>, thread: Value, body: impl FnOnce(&mut Emitter<'_>)) {
    let first = e.b.ins().icmp_imm_s(IntCC::Equal, thread, 0);
    let after = e.begin_if(first);
    body(e);
    e.end_if(after);
}

/// This thread's share, a range of `0..total`.
fn share(e: &mut Emitter<'_>, work: Work, thread: Value, threads: Value) -> (Value, Value) {
    let units = work.total.div_ceil(work.grain) as i64;
    let total = e.i64(work.total as i64);
    let bound = |e: &mut Emitter<'_>, thread: Value| {
        let part = e.scaled(thread, units);
        let part = e.b.ins().udiv(part, threads);
        let bound = e.scaled(part, work.grain as i64);
        e.b.ins().smin(bound, total)
    };
    let next = e.b.ins().iadd_imm_s(thread, 1);
    (bound(e, thread), bound(e, next))
}

fn run(e: &mut Emitter<'_>, body: Body, base: Value, scratch: Value, lo: Value, hi: Value, nests: &[FuncRef]) {
    let context = e.context;
    match body {
        Body::Nest(number) => {
            e.b.ins().call(nests[number], &[base, scratch, context, lo, hi]);
        }
        Body::Contraction(number) => {
            let number = e.i64(number as i64);
            e.call(Helper::Contraction, &[context, number, scratch, lo, hi]);
        }
        Body::Zero(offset) => {
            let count = e.b.ins().isub(hi, lo);
            let to = e.b.ins().iadd_imm_s(base, offset as i64);
            let to = e.b.ins().iadd(to, lo);
            e.call(Helper::Zero, &[to, count]);
        }
        Body::Copy { from, to } => {
            let count = e.b.ins().isub(hi, lo);
            let start = e.b.ins().iadd(base, lo);
            let to = e.b.ins().iadd_imm_s(start, to as i64);
            let from = e.b.ins().iadd_imm_s(start, from as i64);
            e.call(Helper::Copy, &[to, from, count]);
        }
    }
}
