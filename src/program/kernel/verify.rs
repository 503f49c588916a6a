//! The verifier of the loop IR: every rule that a program obeys, checked without running it.
//!
//! Input: a [`Program`]. Output: nothing, or each broken rule with its kernel. Invariant: on a program that passes, no
//! access leaves its buffer, no result depends on the order of parallel points, and no value is overwritten before its
//! last read. What cannot be proved counts as broken.
//!
//! The rules:
//! - *Form.* Sizes can be counted in bytes; every id names something; extents are at least 1; operands precede their users; `NodeOp::Reduced` names a
//!   reduction of an earlier phase; linear functions are sorted and name loops that exist.
//! - *Types.* Those of the graph's ops; a load and a store have their buffer's type; sums and what is added are F32,
//!   positions and data-dependent indices I32.
//! - *Bounds.* An access lies in its buffer at every point at which its guards hold (`domain`), for every number that its
//!   data-dependent parts may take; products and Winograd's filters over all their loops.
//! - *Races.* Points that differ in the parallel loops never store the same element, nor do points that differ in the
//!   lanes of `Lanes::Outer`; nor two elements of a product. What a phase loads of a buffer that its nest stores is as
//!   the text of `Phase` allows.
//! - *Groups.* They are disjoint runs of nests and products in as many slices as their loops make; of what one kernel of a
//!   group writes and another touches, a slice touches a range of its own; a local buffer belongs to one group and has no slices.
//! - *Memory.* Inputs and scalars are never written; outputs, temporaries and local buffers are read after a write, local
//!   ones after a write of the same group. Bytes of two buffers that are alive together never overlap: from the first to
//!   the last touch, for those of a group as long as it runs, for declared buffers always. Offsets are multiples of 64
//!   and buffers end within the arena, or within the threads' own memory.

mod domain;
mod memory;
mod nest;

use std::collections::BTreeMap;

use super::print::kernel_text;
use super::winograd::{Geometry, Kind};
use super::{
    Buffer, BufferId, Group, Kernel, KernelKind, Lanes, Linear, Nest, Phase, Product, Program, Winograd, interpret,
};
use crate::graph::DType;
use crate::graph::verify::{Checked, ensure};
use domain::Access;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Position of the kernel, where it is one's fault.
    pub kernel: Option<usize>,
    /// Which rule, and what breaks it.
    pub message: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kernel {
            Some(kernel) => write!(f, "kernel {kernel}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Checks a complete program.
///
/// # Errors
/// All rules that it breaks; of a program whose form is broken, the kernels that break it.
pub fn verify(program: &Program) -> Result<(), Vec<Violation>> {
    let mut found = verify_kernels(program).err().unwrap_or_default();
    if !found.is_empty() {
        return Err(found);
    }
    let groups = check_groups(program).err().map(|message| Violation { kernel: None, message });
    found.extend(groups);
    found.extend(memory::check_order(program));
    found.extend(memory::check_places(program));
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Checks each kernel by itself: form, types, bounds and races. Groups and places of buffers may be missing.
///
/// # Errors
/// The first broken rule of each kernel.
pub fn verify_kernels(program: &Program) -> Result<(), Vec<Violation>> {
    if let Err(message) = check_sizes(program) {
        return Err(vec![Violation { kernel: None, message }]);
    }
    let check = |(position, kernel): (usize, &Kernel)| {
        let message = check_kernel(program, kernel).err()?;
        Some(Violation { kernel: Some(position), message: format!("{}: {message}", kernel.name) })
    };
    let found: Vec<Violation> = program.kernels.iter().enumerate().filter_map(check).collect();
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Buffers have sizes that can be counted, in types of the machine and in those of linear functions.
fn check_sizes(program: &Program) -> Checked {
    let bytes = |buffer: &Buffer| {
        let elements = buffer.sizes.iter().try_fold(1_usize, |count, size| count.checked_mul(*size))?;
        let end = elements.checked_mul(interpret::element_bytes(buffer.dtype))?.checked_add(buffer.offset)?;
        end.checked_add(program.arena_bytes).filter(|end| isize::try_from(*end).is_ok())
    };
    let endless = program.buffers.iter().find(|buffer| bytes(buffer).is_none());
    ensure(endless.is_none(), || format!("{:?} has more bytes than can be counted", endless.map(|each| &each.role)))
}

/// Holds what a rewrite has made against these rules, in debug builds.
///
/// # Panics
/// Where the rewrite has broken one.
pub fn check(rewrite: &str, program: &Program, verify: fn(&Program) -> Result<(), Vec<Violation>>) {
    if cfg!(debug_assertions)
        && let Err(found) = verify(program)
    {
        let kernel = |position: usize| kernel_text(program, &program.kernels[position]);
        let found = found.iter().map(|each| format!("{each}\n{}", each.kernel.map(kernel).unwrap_or_default()));
        panic!("`{rewrite}` has broken rules of the loop IR:\n{}", found.collect::<Vec<_>>().join("\n"));
    }
}

/// Whether points of a phase that differ in its inner loops never store the same element, so that threads may share them.
pub fn inner_stores_are_apart(nest: &Nest, phase: &Phase) -> bool {
    let extents = [&nest.outer[..], &phase.inner[..]].concat();
    stores_are_apart(&[(phase, extents.clone())], nest.outer.len()..extents.len(), |linear| linear.clone())
}

/// Whether points that differ in the last outer loop never store the same element wherever the other loops that are not
/// parallel stand, so that threads may share it.
pub fn last_outer_is_apart(nest: &Nest) -> bool {
    let (parallel, last) = (nest.parallel, nest.outer.len() - 1);
    // The last loop before the others that are not parallel.
    let moved = |number: usize| match number {
        number if number == last => parallel,
        number if (parallel..last).contains(&number) => number + 1,
        number => number,
    };
    let mut outer = nest.outer.clone();
    outer[parallel..].rotate_right(1);
    let phases: Vec<_> = nest.phases.iter().map(|phase| (phase, [&outer[..], &phase.inner[..]].concat())).collect();
    stores_are_apart(&phases, parallel..parallel + 1, |linear| linear.compose(|number| Linear::index(moved(number))))
}

/// Whether stores of the same buffer are apart in these loops, for functions as `place` gives them.
fn stores_are_apart(
    phases: &[(&Phase, Vec<usize>)],
    loops: std::ops::Range<usize>,
    place: impl Fn(&Linear) -> Linear,
) -> bool {
    let mut accesses: BTreeMap<BufferId, Vec<Access>> = BTreeMap::new();
    for (phase, extents) in phases {
        for store in &phase.stores {
            let mut location = store.location.clone();
            location.linears_mut().for_each(|linear| *linear = place(linear));
            accesses.entry(location.buffer).or_default().push(Access::of(&location, extents));
        }
    }
    accesses.values().all(|own| domain::is_apart(&own.iter().collect::<Vec<_>>(), loops.clone()))
}

fn check_kernel(program: &Program, kernel: &Kernel) -> Checked {
    let exists = |id: BufferId| ensure((id.0 as usize) < program.buffers.len(), || format!("no buffer {}", id.0));
    match &kernel.kind {
        KernelKind::Nest(nest) => {
            nest.phases.iter().flat_map(|phase| phase.locations()).try_for_each(|location| exists(location.buffer))?;
            nest::check(program, nest)
        }
        KernelKind::Product(product) => {
            [product.a.0, product.b.0, product.c.0].into_iter().try_for_each(exists)?;
            check_product(program, product)
        }
        KernelKind::Winograd(winograd) | KernelKind::Filter(winograd) => {
            let Winograd { product, filter, .. } = winograd;
            [product.a.0, product.b.0, product.c.0].into_iter().chain(*filter).try_for_each(exists)?;
            check_product(program, product)?;
            check_winograd(program, winograd)?;
            let is_filter = matches!(kernel.kind, KernelKind::Filter(_));
            ensure(filter.is_some() || !is_filter, || "a transform of taps into no filter".into())
        }
        KernelKind::Zero(buffer) => exists(*buffer),
        KernelKind::Copy { from, to } => {
            exists(*from)?;
            exists(*to)?;
            let (from_buffer, to_buffer) = (program.buffer(*from), program.buffer(*to));
            ensure(from_buffer.dtype == to_buffer.dtype, || "the types of a copy differ".into())?;
            let alike = from_buffer.elements() == to_buffer.elements() && from != to;
            ensure(alike, || "a copy is between two buffers of one size".into())
        }
    }
}

fn check_product(program: &Program, product: &Product) -> Checked {
    ensure(product.loops().all(|each| each.extent > 0), || "a loop without iterations".into())?;
    let strides = product.m.iter().all(|each| each.b == 0)
        && product.n.iter().all(|each| each.a == 0)
        && product.k.iter().all(|each| each.c == 0);
    ensure(strides, || "rows move no right operand, columns no left one, summed loops no result".into())?;
    ensure(![product.a.0, product.b.0].contains(&product.c.0), || "a product writes its own operand".into())?;
    let extents: Vec<usize> = product.loops().map(|each| each.extent).collect();
    let functions = product.functions();
    for ((name, (buffer, _)), index) in
        [("left", product.a), ("right", product.b), ("result", product.c)].into_iter().zip(&functions)
    {
        let buffer = program.buffer(buffer);
        ensure(buffer.dtype == DType::F32, || format!("{} of a product is {:?}", buffer.role, buffer.dtype))?;
        let inside = index.is_within(&extents, buffer.elements() as i64);
        ensure(inside, || format!("the {name} tensor of a product leaves {} {:?}", buffer.role, buffer.sizes))?;
    }
    let outputs = extents.len() - product.k.len();
    let result = Access::plain(functions[2].clone(), &extents[..outputs]);
    // Slices of a group have no part in a local result.
    let same = product.batch.iter().take_while(|each| each.c == 0 && program.is_local(product.c.0)).count();
    ensure(domain::is_apart(&[&result], same..outputs), || "two elements of a product may be one".into())?;
    let loops = outputs + product.k.len() - product.batch.len();
    let named = product.bands.iter().flat_map(|band| &band.terms).all(|(number, _)| *number < loops);
    ensure(named, || "a band names a loop that does not exist".into())
}

fn check_winograd(program: &Program, winograd: &Winograd) -> Checked {
    let geometry = Geometry::of(&winograd.product).ok_or("minimal filtering of what is no correlation")?;
    ensure(matches!(winograd.tile, 2 | 4), || format!("tiles of {}", winograd.tile))?;
    let has_filter = winograd.filter.is_some();
    ensure(has_filter == (geometry.kind == Kind::Taps), || "a filter belongs to short taps".into())?;
    let Some(filter) = winograd.filter.map(|filter| program.buffer(filter)) else { return Ok(()) };
    ensure(filter.dtype == DType::F32, || format!("the filter is {:?}", filter.dtype))?;
    let (needed, elements) = (geometry.filter_elements(winograd.tile), filter.elements());
    ensure(needed <= elements, || format!("a filter of {needed} elements in {} of {elements}", filter.role))
}

/// The rules of groups and local buffers.
fn check_groups(program: &Program) -> Checked {
    let ascends = program.locals.is_sorted_by(|a, b| a < b);
    ensure(ascends, || "local buffers are in ascending order".into())?;
    let exists = program.locals.last().is_none_or(|last| (last.0 as usize) < program.buffers.len());
    ensure(exists, || "a local buffer does not exist".into())?;
    let mut end = 0;
    for group in &program.groups {
        let range = &group.kernels;
        let fits = end <= range.start && range.start < range.end && range.end <= program.kernels.len();
        ensure(fits, || format!("group {range:?} is no run of kernels behind the one before"))?;
        end = range.end;
        check_group(program, group).map_err(|message| format!("group {range:?}: {message}"))?;
    }
    let mut owners: BTreeMap<BufferId, Option<usize>> = BTreeMap::new();
    for (position, kernel) in program.kernels.iter().enumerate() {
        let owner = program.groups.iter().position(|group| group.kernels.contains(&position));
        for buffer in kernel.buffers().into_iter().filter(|buffer| program.is_local(*buffer)) {
            let only = owner.is_some() && *owners.entry(buffer).or_insert(owner) == owner;
            ensure(only, || format!("{} is touched outside its group", program.buffer(buffer).role))?;
        }
    }
    Ok(())
}

fn check_group(program: &Program, group: &Group) -> Checked {
    let mut touched: BTreeMap<BufferId, Vec<(usize, Access, usize)>> = BTreeMap::new();
    for position in group.kernels.clone() {
        for (buffer, access, loops) in sliced_accesses(&program.kernels[position].kind, group.slices)? {
            touched.entry(buffer).or_default().push((position, access, loops));
        }
    }
    let written: Vec<BufferId> = program.kernels[group.kernels.clone()].iter().flat_map(Kernel::writes).collect();
    for (buffer, accesses) in touched.into_iter().filter(|(buffer, _)| written.contains(buffer)) {
        if !program.is_local(buffer) && accesses.iter().all(|(position, ..)| *position == accesses[0].0) {
            // Points of one kernel's parallel loops are apart already.
            continue;
        }
        let role = &program.buffer(buffer).role;
        let parts = accesses.iter().map(|(_, access, loops)| access.slices(*loops).ok_or(()));
        let parts: Vec<(i64, i64, i64)> =
            parts.collect::<Result<_, _>>().map_err(|()| format!("slices of {role} are no ranges"))?;
        let steps = |step: i64| parts.iter().all(|(each, _, _)| *each == step);
        if program.is_local(buffer) {
            ensure(steps(0), || format!("a slice of the local {role} depends on its number"))?;
            continue;
        }
        let (step, low, high) = parts[0];
        let low = parts.iter().fold(low, |least, (_, low, _)| least.min(*low));
        let high = parts.iter().fold(high, |most, (_, _, high)| most.max(*high));
        let alone = group.slices == 1 || steps(step) && high - low < step.abs();
        ensure(alone, || format!("slices share elements of {role}"))?;
    }
    Ok(())
}

/// What a kernel of a group touches, each with the number of leading loops that number the slices.
fn sliced_accesses(kind: &KernelKind, slices: usize) -> Result<Vec<(BufferId, Access, usize)>, String> {
    match kind {
        KernelKind::Nest(nest) => {
            let mut parallel = nest.outer[..nest.parallel].iter();
            let count = parallel.try_fold(1_usize, |count, extent| count.checked_mul(*extent));
            ensure(count == Some(slices), || format!("the parallel loops do not have the points of {slices} slices"))?;
            let lanes = nest.lanes != Lanes::Outer || nest.parallel < nest.outer.len();
            ensure(lanes, || "lanes of a nest are other slices".into())?;
            let phases = nest.phases.iter();
            let accesses = phases.flat_map(|phase| {
                let extents = [&nest.outer[..], &phase.inner[..]].concat();
                phase.locations().map(move |location| (location.buffer, Access::of(location, &extents), nest.parallel))
            });
            Ok(accesses.collect())
        }
        KernelKind::Product(product) => {
            let loops = product.slice_loops(slices).ok_or("the batch of a product is not cut into the slices")?;
            let extents: Vec<usize> = product.loops().map(|each| each.extent).collect();
            let buffers = [product.a.0, product.b.0, product.c.0].into_iter();
            let access = |(buffer, index)| (buffer, Access::plain(index, &extents), loops);
            Ok(buffers.zip(product.functions()).map(access).collect())
        }
        KernelKind::Winograd(_) | KernelKind::Filter(_) | KernelKind::Zero(_) | KernelKind::Copy { .. } => {
            Err("only nests and products go in slices".into())
        }
    }
}
