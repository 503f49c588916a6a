//! The rules of one nest: form, types, bounds, races.
//!
//! Input: a nest and the buffers that it names, which exist. Output: the first broken rule. Invariant: see [`super`].

use super::domain::{Access, is_apart};
use super::{Checked, ensure};
use crate::graph::DType;
use crate::kernel::{
    Lanes, Linear, Location, Nest, Node, NodeId, NodeOp, Phase, Program, Reduction, ReductionKind, Store,
};

pub(super) fn check(program: &Program, nest: &Nest) -> Checked {
    ensure(nest.parallel <= nest.outer.len(), || "parallel loops are outer loops".into())?;
    let inner = nest.phases.iter().flat_map(|phase| &phase.inner);
    ensure(nest.outer.iter().chain(inner).all(|extent| *extent > 0), || "a loop without iterations".into())?;
    for (number, phase) in nest.phases.iter().enumerate() {
        let checked = check_form(nest, phase)
            .and_then(|()| check_types(program, nest, number))
            .and_then(|()| check_bounds(program, nest, phase));
        checked.map_err(|message| format!("phase {number}: {message}"))?;
    }
    check_stores(program, nest)?;
    (0..nest.phases.len()).try_for_each(|phase| check_loads(program, nest, phase))
}

fn check_form(nest: &Nest, phase: &Phase) -> Checked {
    for (number, node) in phase.nodes.iter().enumerate() {
        let precedes = node.op.operands().iter().all(|operand| (operand.0 as usize) < number);
        ensure(precedes, || format!("%{number} uses what does not precede it"))?;
    }
    let stored = phase.stores.iter().flat_map(|store| {
        let indirect = store.location.indirect.iter().map(|term| term.node);
        indirect.chain([store.value])
    });
    let exists = |id: NodeId| (id.0 as usize) < phase.nodes.len();
    let mut used = phase.reductions.iter().map(|reduction| reduction.node).chain(stored);
    ensure(used.all(exists), || "a store or reduction of no node".into())?;
    let loops = nest.outer.len() + phase.inner.len();
    let well_formed = |linear: &Linear| {
        let named = linear.terms.iter().all(|&(number, coefficient)| number < loops && coefficient != 0);
        named && linear.terms.is_sorted_by(|a, b| a.0 < b.0)
    };
    ensure(phase.linears().all(well_formed), || "a function of a loop that does not exist, or unsorted".into())
}

fn dtype(phase: &Phase, id: NodeId) -> DType {
    phase.nodes[id.0 as usize].dtype
}

/// The type of a reduction's result.
fn reduced(phase: &Phase, reduction: &Reduction) -> DType {
    match reduction.kind {
        ReductionKind::Sum | ReductionKind::Max => dtype(phase, reduction.node),
        ReductionKind::ArgMax => DType::I32,
    }
}

fn check_types(program: &Program, nest: &Nest, number: usize) -> Checked {
    let phase = &nest.phases[number];
    for (place, node) in phase.nodes.iter().enumerate() {
        check_node(program, nest, number, node).map_err(|message| format!("%{place}: {message}"))?;
    }
    for reduction in phase.reductions.iter().filter(|_| !phase.inner.is_empty()) {
        let allowed: &[DType] = match reduction.kind {
            ReductionKind::Sum => &[DType::F32],
            ReductionKind::Max | ReductionKind::ArgMax => &[DType::F32, DType::I32],
        };
        let own = dtype(phase, reduction.node);
        ensure(allowed.contains(&own), || format!("a reduction {:?} of {own:?}", reduction.kind))?;
    }
    for store in &phase.stores {
        check_location(phase, &store.location)?;
        let (buffer, value) = (program.buffer(store.location.buffer), dtype(phase, store.value));
        ensure(buffer.dtype == value, || format!("a store of {value:?} to {}, {:?}", buffer.role, buffer.dtype))?;
        ensure(!store.accumulate || value == DType::F32, || format!("{value:?} is added to {}", buffer.role))?;
    }
    Ok(())
}

fn check_node(program: &Program, nest: &Nest, number: usize, node: &Node) -> Checked {
    let phase = &nest.phases[number];
    let is = |allowed: &[DType]| ensure(allowed.contains(&node.dtype), || format!("it is {:?}", node.dtype));
    let all = |operands: &[NodeId], expected: DType| {
        let wrong = operands.iter().find(|operand| dtype(phase, **operand) != expected);
        ensure(wrong.is_none(), || format!("an operand of {:?} is not {expected:?}", node.op))
    };
    match &node.op {
        NodeOp::Const(_) | NodeOp::Cast(_) => Ok(()),
        NodeOp::Index(_) => is(&[DType::I32]),
        NodeOp::Random { .. } => is(&[DType::F32]),
        NodeOp::Load(location) => {
            check_location(phase, location)?;
            is(&[program.buffer(location.buffer).dtype])
        }
        NodeOp::Reduced { phase: earlier, index } => {
            let earlier = nest.phases.get(*earlier).filter(|_| *earlier < number);
            let found = earlier.and_then(|earlier| Some((earlier, earlier.reductions.get(*index)?)));
            let (earlier, reduction) = found.ok_or("no such reduction of an earlier phase")?;
            is(&[reduced(earlier, reduction)])
        }
        NodeOp::Unary(op, x) => {
            all(&[*x], node.dtype)?;
            is(op.dtypes())
        }
        NodeOp::Binary(op, a, b) => {
            all(&[*a, *b], node.dtype)?;
            is(op.dtypes())
        }
        NodeOp::Compare(_, a, b) => {
            is(&[DType::Bool])?;
            all(&[*b], dtype(phase, *a))
        }
        NodeOp::Select(condition, then, otherwise) => {
            all(&[*condition], DType::Bool)?;
            all(&[*then, *otherwise], node.dtype)
        }
    }
}

fn check_location(phase: &Phase, location: &Location) -> Checked {
    let whole = location.indirect.iter().all(|term| dtype(phase, term.node) == DType::I32);
    ensure(whole, || "a data-dependent index is not I32".into())
}

fn extents(nest: &Nest, phase: &Phase) -> Vec<usize> {
    [&nest.outer[..], &phase.inner[..]].concat()
}

fn check_bounds(program: &Program, nest: &Nest, phase: &Phase) -> Checked {
    let extents = extents(nest, phase);
    for location in phase.locations() {
        let buffer = program.buffer(location.buffer);
        let inside = Access::of(location, &extents).is_within(buffer.elements());
        ensure(inside, || {
            let reach = Access::of(location, &extents).range();
            format!("elements {} to {} of {} {:?}", reach.0, reach.1, buffer.role, buffer.sizes)
        })?;
    }
    Ok(())
}

/// Stores of different points of the parallel loops, and of the lanes, are apart.
fn check_stores(program: &Program, nest: &Nest) -> Checked {
    let of_phase = |phase: &'_ Phase| {
        let extents = extents(nest, phase);
        phase.stores.iter().map(move |store| access(store, &extents)).collect::<Vec<_>>()
    };
    let stores: Vec<_> = nest.stores().zip(nest.phases.iter().flat_map(of_phase)).collect();
    let mut buffers: Vec<_> = stores.iter().map(|(store, _)| store.location.buffer).collect();
    buffers.sort_unstable();
    buffers.dedup();
    for buffer in buffers {
        let own = stores.iter().filter(|(store, _)| store.location.buffer == buffer);
        let own: Vec<&Access> = own.map(|(_, access)| access).collect();
        let role = &program.buffer(buffer).role;
        // A local buffer serves one slice at a time.
        let apart = program.is_local(buffer) || is_apart(&own, 0..nest.parallel);
        ensure(apart, || format!("parallel points may store the same element of {role}"))?;
        if nest.lanes == Lanes::Outer && nest.parallel < nest.outer.len() {
            let last = nest.outer.len() - 1;
            ensure(is_apart(&own, last..last + 1), || format!("lanes may store the same element of {role}"))?;
        }
    }
    Ok(())
}

fn access(store: &Store, extents: &[usize]) -> Access {
    Access::of(&store.location, extents)
}

/// What a phase loads of the buffers that its nest stores.
fn check_loads(program: &Program, nest: &Nest, number: usize) -> Checked {
    let phase = &nest.phases[number];
    let own_extents = extents(nest, phase);
    for location in phase.loads() {
        let role = &program.buffer(location.buffer).role;
        let load = Access::of(location, &own_extents);
        for (other, stored) in nest.phases.iter().enumerate() {
            let stores = stored.stores.iter().filter(|store| store.location.buffer == location.buffer);
            let stores: Vec<Access> = stores.map(|store| access(store, &extents(nest, stored))).collect();
            if stores.is_empty() {
                continue;
            }
            let slices = if program.is_local(location.buffer) { nest.parallel } else { 0 };
            let loops = if other == number { own_extents.len() } else { nest.outer.len() };
            let all: Vec<&Access> = stores.iter().chain([&load]).collect();
            let allowed = is_apart(&all, slices..loops);
            ensure(allowed, || {
                format!("phase {number} loads of {role} what phase {other} may store at another point")
            })?;
        }
    }
    Ok(())
}
