//! The step function: all kernels in order, as one thread runs them.
//!
//! Input: the program's kernels with their costs and memory. Output: a list of [`Action`]s and its machine code
//! `fn(context, thread)`. Invariant: two kernels that touch the same bytes, one of them writing, have a barrier between
//! them unless thread 0 runs both or they are one group's; which points a thread runs does not change their results.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{FuncRef, InstBuilder, Value};

use crate::cpu::code::emit::Emitter;
use crate::cpu::run::context::{Helper, field};
use crate::kernel::{BufferId, Kernel, Program};

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

/// A run of kernels that goes slice by slice.
#[derive(Clone, Debug)]
pub(super) struct GroupWork {
    /// Positions of the kernels. Each has the same number of points or parts in every slice.
    pub kernels: std::ops::Range<usize>,
    /// How many slices.
    pub slices: usize,
    /// Whether threads share them; otherwise thread 0 runs all.
    pub split: bool,
}

/// What a thread does next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// Run a share of the kernel of this position.
    Run(usize),
    /// Run a share of the slices of the group of this position.
    Group(usize),
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

/// The bytes that a kernel reads and those that it writes, numbered as by [`Program::range`].
pub(super) fn accesses(program: &Program, kernel: &Kernel) -> (Vec<Bytes>, Vec<Bytes>) {
    let ranges = |buffers: Vec<BufferId>| buffers.into_iter().map(|buffer| program.range(buffer)).collect();
    (ranges(kernel.reads()), ranges(kernel.writes()))
}

/// The bytes that kernels read and those that they write, without the threads' own memory.
fn shared_accesses(program: &Program, kernels: std::ops::Range<usize>) -> (Vec<Bytes>, Vec<Bytes>) {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for kernel in &program.kernels[kernels] {
        let (read, written) = accesses(program, kernel);
        reads.extend(read);
        writes.extend(written);
    }
    let is_shared = |bytes: &Bytes| bytes.start < program.arena_bytes;
    reads.retain(is_shared);
    writes.retain(is_shared);
    (reads, writes)
}

/// The order of kernels and barriers. With a profile there is a barrier behind each kernel and group.
pub(super) fn actions(program: &Program, works: &[Work], groups: &[GroupWork], profile: bool) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut since: Vec<(bool, Vec<Bytes>, Vec<Bytes>)> = Vec::new();
    let mut position = 0;
    while position < works.len() {
        let group = groups.iter().position(|group| group.kernels.start == position);
        let (action, kernels, split) = match group {
            Some(group) => (Action::Group(group), groups[group].kernels.clone(), groups[group].split),
            None => (Action::Run(position), position..position + 1, works[position].split),
        };
        position = kernels.end;
        let (reads, writes) = shared_accesses(program, kernels);
        let waits = since.iter().any(|(earlier_split, earlier_reads, earlier_writes)| {
            let alone = !earlier_split && !split;
            let touch =
                overlap(earlier_writes, &reads) || overlap(earlier_writes, &writes) || overlap(earlier_reads, &writes);
            !alone && touch
        });
        if waits {
            actions.push(Action::Barrier);
            since.clear();
        }
        actions.push(action);
        since.push((split, reads, writes));
        if profile {
            actions.push(Action::Barrier);
            since.clear();
        }
    }
    actions
}

/// What the step consists of.
pub(super) struct Steps<'a> {
    /// The kernels.
    pub works: &'a [Work],
    /// The groups among them.
    pub groups: &'a [GroupWork],
    /// Kernels, groups and barriers in order.
    pub actions: &'a [Action],
    /// Whether times are taken.
    pub profile: bool,
}

/// Emits the step into the current block of `e`. `nests` are the nests' functions.
pub(super) fn emit(e: &mut Emitter<'_>, thread: Value, steps: &Steps<'_>, nests: &[FuncRef]) {
    let base = e.field(I64, field::BASE);
    let threads = e.field(I64, field::THREADS);
    let stride = e.field(I64, field::SCRATCH_STRIDE);
    let first = e.field(I64, field::SCRATCH);
    let own = e.b.ins().imul(stride, thread);
    let scratch = e.b.ins().iadd(first, own);
    let memory = Memory { base, scratch };
    let mut ended = None;
    for action in steps.actions {
        match action {
            Action::Barrier => {
                let context = e.context;
                e.call(Helper::Barrier, &[context, thread]);
                if let Some(kernel) = ended.take().filter(|_| steps.profile) {
                    on_first(e, thread, |e| mark(e, kernel));
                }
            }
            Action::Run(position) => {
                ended = Some(*position);
                let work = steps.works[*position];
                in_shares(e, (thread, threads), (work.total, work.grain, work.split), |e, lo, hi| {
                    run(e, work.body, memory, lo, hi, nests);
                });
            }
            Action::Group(group) => {
                let group = &steps.groups[*group];
                ended = Some(group.kernels.end - 1);
                in_shares(e, (thread, threads), (group.slices, 1, group.split), |e, lo, hi| {
                    slices(e, thread, steps, group, memory, (lo, hi), nests);
                });
            }
        }
    }
}

/// Where a thread's bytes lie.
#[derive(Clone, Copy)]
struct Memory {
    base: Value,
    scratch: Value,
}

/// The slices of a range, one after another through all kernels. Thread 0 takes the time of its own.
fn slices(
    e: &mut Emitter<'_>,
    thread: Value,
    steps: &Steps<'_>,
    group: &GroupWork,
    memory: Memory,
    (lo, hi): (Value, Value),
    nests: &[FuncRef],
) {
    let open = e.begin(lo, hi, 1);
    for position in group.kernels.clone() {
        let work = steps.works[position];
        let each = (work.total / group.slices) as i64;
        let from = e.scaled(open.index, each);
        let to = e.b.ins().iadd_imm_s(from, each);
        run(e, work.body, memory, from, to, nests);
        if steps.profile {
            on_first(e, thread, |e| mark(e, position));
        }
    }
    e.end(open);
}

/// Attributes the time since the last mark to a kernel.
fn mark(e: &mut Emitter<'_>, kernel: usize) {
    let kernel = e.i64(kernel as i64);
    e.call(Helper::Mark, &[e.context, kernel]);
}

/// Code for this thread's share of `total` points in multiples of `grain`; for all of them on thread 0 if the work is
/// not `split`.
fn in_shares(
    e: &mut Emitter<'_>,
    (thread, threads): (Value, Value),
    (total, grain, split): (usize, usize, bool),
    body: impl FnOnce(&mut Emitter<'_>, Value, Value),
) {
    if split {
        let (lo, hi) = share(e, total, grain, thread, threads);
        let some = e.b.ins().icmp(IntCC::UnsignedLessThan, lo, hi);
        let after = e.begin_if(some);
        body(e, lo, hi);
        e.end_if(after);
    } else {
        on_first(e, thread, |e| {
            let (lo, hi) = (e.i64(0), e.i64(total as i64));
            body(e, lo, hi);
        });
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
fn share(e: &mut Emitter<'_>, total: usize, grain: usize, thread: Value, threads: Value) -> (Value, Value) {
    let units = total.div_ceil(grain) as i64;
    let total = e.i64(total as i64);
    let bound = |e: &mut Emitter<'_>, thread: Value| {
        let part = e.scaled(thread, units);
        let part = e.b.ins().udiv(part, threads);
        let bound = e.scaled(part, grain as i64);
        e.b.ins().smin(bound, total)
    };
    let next = e.b.ins().iadd_imm_s(thread, 1);
    (bound(e, thread), bound(e, next))
}

fn run(e: &mut Emitter<'_>, body: Body, memory: Memory, lo: Value, hi: Value, nests: &[FuncRef]) {
    let (Memory { base, scratch }, context) = (memory, e.context);
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
