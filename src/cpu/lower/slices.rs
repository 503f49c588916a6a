//! Depth first through kernels: runs of kernels that share their outermost parallel loop run slice by slice.
//!
//! Input: a program. Output: its [`Group`]s, the grouped kernels with the loop over slices outermost, and the buffers that
//! hold one slice at a time. Invariant: see [`Group`]; a kernel's results are the same bits in a group and alone.
//!
//! In attention the products and the softmax of one head touch that head's T × T matrices only. Kernel after kernel,
//! these matrices pass through memory; slice by slice they stay in a thread's cache, the threads meet once, and what
//! only the group touches needs room for one slice in each thread's own memory.

use std::collections::BTreeMap;

use crate::kernel::{
    BufferId, Group, Kernel, KernelKind, Lanes, Linear, Nest, Phase, Product, ProductLoop, Program, Role,
};
use crate::schedule::Target;
use crate::schedule::memory::{self, Request};

/// Which elements of a buffer slice b touches: some from `low + step · b` to `high + step · b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pattern {
    step: i64,
    low: i64,
    high: i64,
}

impl Pattern {
    /// The elements that both touch, if they move alike.
    fn joined(self, other: Pattern) -> Option<Pattern> {
        let (low, high) = (self.low.min(other.low), self.high.max(other.high));
        (self.step == other.step).then_some(Pattern { step: self.step, low, high })
    }

    /// Elements between a slice's first and last one, both included.
    fn elements(self) -> usize {
        (self.high - self.low + 1) as usize
    }

    /// No two slices touch the same element.
    fn is_disjoint(self) -> bool {
        self.high - self.low < self.step
    }
}

/// What a kernel in slices does to one buffer.
#[derive(Clone, Copy, Debug)]
struct Use {
    reads: bool,
    writes: bool,
    /// None: in slices that are no range of the buffer.
    pattern: Option<Pattern>,
}

impl Use {
    fn and(self, other: Use) -> Use {
        let pattern = self.pattern.zip(other.pattern).and_then(|(a, b)| a.joined(b));
        Use { reads: self.reads || other.reads, writes: self.writes || other.writes, pattern }
    }

    /// Slices keep to themselves.
    fn is_disjoint(self) -> bool {
        self.pattern.is_some_and(Pattern::is_disjoint)
    }
}

/// Finds the groups of at least `fewest` slices and puts the loop over slices outermost in their kernels.
pub(super) fn group(program: &mut Program, fewest: usize, target: &Target) {
    // What is read once needs room beside the slice.
    let near_bytes = target.near_bytes / 2;
    let kernels = &mut program.kernels;
    let mut first = 0;
    while first < kernels.len() {
        let candidates = counts(&kernels[first..], fewest).into_iter();
        let runs = candidates.filter_map(|slices| Some((run(&kernels[first..], slices, target.width)?, slices)));
        // The most kernels whose slices stay near; else the smallest slices from a product on.
        let begins = matches!(kernels[first].kind, KernelKind::Product(_));
        let runs = runs.filter(|(run, _)| begins || run.bytes <= near_bytes);
        let rank = |(run, slices): &(Run, usize)| match run.bytes <= near_bytes {
            true => (run.kinds.len(), *slices),
            false => (0, *slices),
        };
        let Some((run, slices)) = runs.max_by_key(rank) else {
            first += 1;
            continue;
        };
        let end = first + run.kinds.len();
        for (kernel, kind) in kernels[first..].iter_mut().zip(run.kinds) {
            kernel.kind = kind;
        }
        program.groups.push(Group { kernels: first..end, slices });
        first = end;
    }
}

/// Numbers of slices to try for a run from here on: the batches of the product that begins it.
fn counts(kernels: &[Kernel], fewest: usize) -> Vec<usize> {
    let product = kernels.iter().take(2).find_map(|kernel| kernel.kind.product());
    let Some(product) = product else { return Vec::new() };
    let prefixes = product.batch.iter().scan(1, |count, each| {
        *count *= each.extent;
        Some(*count)
    });
    prefixes.filter(|count| *count >= fewest).collect()
}

/// A group to be.
struct Run {
    /// Its kernels, cut.
    kinds: Vec<KernelKind>,
    /// Bytes that a slice writes and reads again.
    bytes: usize,
}

/// The longest group of so many slices that begins with the first kernel.
fn run(kernels: &[Kernel], slices: usize, width: usize) -> Option<Run> {
    let mut cuts = Vec::new();
    let mut seen: BTreeMap<BufferId, Use> = BTreeMap::new();
    let mut length = 0;
    let mut first_is_read = false;
    let mut first_writes: Vec<BufferId> = Vec::new();
    for kernel in kernels {
        let Some(cut) = cut(&kernel.kind, slices, width) else { break };
        let uses = uses(&cut, slices);
        let fits = uses.iter().all(|(buffer, own)| match seen.get(buffer) {
            Some(earlier) if earlier.writes || own.writes => earlier.and(*own).is_disjoint(),
            Some(_) | None => true,
        });
        if !fits {
            break;
        }
        if cuts.is_empty() {
            first_writes.extend(uses.iter().filter(|(_, own)| own.writes).map(|(buffer, _)| *buffer));
        }
        cuts.push(cut);
        for (buffer, own) in uses {
            let earlier = seen.get(&buffer).copied();
            if own.reads && earlier.is_some_and(|earlier| earlier.writes) {
                length = cuts.len();
                first_is_read |= first_writes.contains(&buffer);
            }
            seen.insert(buffer, earlier.map_or(own, |earlier| earlier.and(own)));
        }
    }
    cuts.truncate(length);
    let kept = seen.values().filter(|own| own.reads && own.writes && own.is_disjoint());
    // Elements take four bytes (flags take less).
    let bytes = kept.filter_map(|own| own.pattern).map(|pattern| 4 * pattern.elements()).sum();
    (first_is_read && length > 1).then_some(Run { kinds: cuts, bytes })
}

/// The kernel with loops over slices outermost; none where it has no such loops, or the loops inside would not fill vectors.
fn cut(kind: &KernelKind, slices: usize, width: usize) -> Option<KernelKind> {
    match kind {
        KernelKind::Nest(nest) => cut_nest(nest, slices, width).map(KernelKind::Nest),
        KernelKind::Product(product) => product.slice_loops(slices).map(|_| kind.clone()),
        KernelKind::Winograd(_) | KernelKind::Filter(_) | KernelKind::Zero(_) | KernelKind::Copy { .. } => None,
    }
}

fn cut_nest(nest: &Nest, slices: usize, width: usize) -> Option<Nest> {
    let mut nest = nest.clone();
    let mut count = 1;
    for number in 0..nest.parallel {
        let extent = nest.outer[number];
        let wanted = slices / count;
        if !extent.is_multiple_of(wanted) && !wanted.is_multiple_of(extent) {
            return None;
        }
        if extent > wanted {
            split_loop(&mut nest, number, wanted);
        }
        count *= nest.outer[number];
        if count == slices {
            nest.parallel = number + 1;
            let inside: usize = nest.outer[nest.parallel..].iter().product();
            return (nest.lanes != Lanes::Outer || inside >= width).then_some(nest);
        }
    }
    None
}

/// Makes two loops of loop `number`, the first of `count` iterations.
fn split_loop(nest: &mut Nest, number: usize, count: usize) {
    let rest = nest.outer[number] / count;
    for linear in nest.linears_mut() {
        *linear = linear.compose(|index| match index.cmp(&number) {
            std::cmp::Ordering::Less => Linear::index(index),
            std::cmp::Ordering::Equal => Linear::index(index).scaled(rest as i64).plus(&Linear::index(index + 1)),
            std::cmp::Ordering::Greater => Linear::index(index + 1),
        });
    }
    nest.outer[number] = count;
    nest.outer.insert(number + 1, rest);
    nest.parallel += 1;
}

/// What a cut kernel does to each buffer.
fn uses(kind: &KernelKind, slices: usize) -> BTreeMap<BufferId, Use> {
    let mut uses: BTreeMap<BufferId, Use> = BTreeMap::new();
    let mut add = |buffer: BufferId, reads: bool, writes: bool, pattern: Option<Pattern>| {
        let own = Use { reads, writes, pattern };
        uses.entry(buffer).and_modify(|earlier| *earlier = earlier.and(own)).or_insert(own);
    };
    match kind {
        KernelKind::Nest(nest) => {
            for phase in &nest.phases {
                let extents = [&nest.outer[..], &phase.inner[..]].concat();
                let loads = phase.loads().map(|at| (at, true, false));
                let stores = phase.stores.iter().map(|store| (&store.location, store.accumulate, true));
                for (at, reads, writes) in loads.chain(stores) {
                    let pattern = at.indirect.is_empty().then(|| pattern(&at.index, &extents, nest.parallel));
                    add(at.buffer, reads, writes, pattern.flatten());
                }
            }
        }
        KernelKind::Product(product) => {
            let loops = product.slice_loops(slices).expect("a cut product has loops over slices");
            let [a, b, c] = product.functions();
            let extents: Vec<usize> = product.loops().map(|each| each.extent).collect();
            add(product.a.0, true, false, pattern(&a, &extents, loops));
            add(product.b.0, true, false, pattern(&b, &extents, loops));
            add(product.c.0, product.accumulate, true, pattern(&c, &extents, loops));
        }
        KernelKind::Winograd(_) | KernelKind::Filter(_) | KernelKind::Zero(_) | KernelKind::Copy { .. } => {
            unreachable!("they are never cut")
        }
    }
    uses
}

/// The pattern of an address whose first `loops` loops number the slices.
fn pattern(linear: &Linear, extents: &[usize], loops: usize) -> Option<Pattern> {
    let mut step = None;
    let mut run = 1;
    for number in (0..loops).rev().filter(|number| extents[*number] > 1) {
        let coefficient = linear.coefficient(number);
        if *step.get_or_insert(coefficient) * run != coefficient {
            return None;
        }
        run *= extents[number] as i64;
    }
    let mut inside = extents.to_vec();
    inside[..loops].fill(1);
    let (low, high) = linear.range(&inside);
    Some(Pattern { step: step.unwrap_or(0), low, high })
}

/// Moves the buffers that one group alone touches, in slices that keep to themselves, to the threads' own memory, and
/// makes them as small as one slice. Declared buffers stay.
pub(super) fn localize(program: &mut Program) {
    let lives = program.lives();
    let Program { buffers, kernels, groups, locals, local_bytes, .. } = program;
    for group in groups.iter() {
        let mut all: BTreeMap<BufferId, Use> = BTreeMap::new();
        for kernel in &kernels[group.kernels.clone()] {
            for (buffer, own) in uses(&kernel.kind, group.slices) {
                all.entry(buffer).and_modify(|earlier| *earlier = earlier.and(own)).or_insert(own);
            }
        }
        let mut requests = Vec::new();
        let mut moved = BTreeMap::new();
        for (buffer, own) in all {
            let (first, last) = lives[buffer.0 as usize].expect("the group touches it");
            let inside = group.kernels.contains(&first) && group.kernels.contains(&last);
            let place = &mut buffers[buffer.0 as usize];
            let pattern = own.pattern.filter(|pattern| pattern.is_disjoint() && inside);
            let (Some(pattern), Role::Temporary(name)) = (pattern, &mut place.role) else { continue };
            place.role = Role::Local(std::mem::take(name));
            place.sizes = vec![pattern.elements()];
            requests.push(Request { bytes: place.bytes(), first, last });
            moved.insert(buffer, pattern.low);
        }
        let (offsets, total) = memory::place(&requests);
        for (buffer, offset) in moved.keys().zip(offsets) {
            buffers[buffer.0 as usize].offset = offset;
        }
        for kernel in &mut kernels[group.kernels.clone()] {
            move_accesses(&mut kernel.kind, group.slices, &moved);
        }
        locals.extend(moved.into_keys());
        *local_bytes = (*local_bytes).max(total);
    }
    locals.sort_unstable();
}

/// Addresses of moved buffers lose their slice; `moved` has the first element of slice 0 of each.
fn move_accesses(kind: &mut KernelKind, slices: usize, moved: &BTreeMap<BufferId, i64>) {
    match kind {
        KernelKind::Nest(nest) => {
            let parallel = nest.parallel;
            for location in nest.phases.iter_mut().flat_map(Phase::locations_mut) {
                if let Some(low) = moved.get(&location.buffer) {
                    location.index.terms.retain(|(number, _)| *number >= parallel);
                    location.index.offset -= low;
                }
            }
        }
        KernelKind::Product(product) => {
            let loops = product.slice_loops(slices).expect("a cut product has loops over slices");
            let Product { batch, a, b, c, .. } = product;
            let strides: [fn(&mut ProductLoop) -> &mut i64; 3] =
                [|each| &mut each.a, |each| &mut each.b, |each| &mut each.c];
            for ((buffer, offset), stride) in [a, b, c].into_iter().zip(strides) {
                if let Some(low) = moved.get(buffer) {
                    *offset -= low;
                    batch[..loops].iter_mut().for_each(|each| *stride(each) = 0);
                }
            }
        }
        KernelKind::Winograd(_) | KernelKind::Filter(_) | KernelKind::Zero(_) | KernelKind::Copy { .. } => {
            unreachable!("they are in no group")
        }
    }
}
