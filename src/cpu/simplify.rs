//! A nest with fewer loops and guards and the same meaning.
//!
//! Input: a nest of the schedule. Output: a nest without loops of one iteration, with adjacent loops merged where all
//! addresses allow it, without guards that always hold, and with lanes that fill a vector where they can. Invariant: points keep their row-major order.

use crate::cpu::plan::LANES;
use crate::kernel::{Lanes, Linear, Location, Nest, NodeId, NodeOp, Phase};

/// Most nodes of a phase after unrolling.
const UNROLLED_NODES: usize = 48;

/// The simpler nest.
pub(super) fn simplify(nest: &Nest) -> Nest {
    let mut nest = nest.clone();
    drop_single_outer(&mut nest);
    merge_outer(&mut nest);
    for phase in 0..nest.phases.len() {
        simplify_inner(&mut nest, phase);
    }
    unroll_short_lanes(&mut nest);
    drop_true_guards(&mut nest);
    nest
}

/// Calls `visit` with every affine function of a phase.
fn each_linear(phase: &mut Phase, visit: &mut dyn FnMut(&mut Linear)) {
    let location = |location: &mut Location, visit: &mut dyn FnMut(&mut Linear)| {
        visit(&mut location.index);
        location.guards.iter_mut().for_each(|(linear, _)| visit(linear));
    };
    for node in &mut phase.nodes {
        match &mut node.op {
            NodeOp::Index(linear) | NodeOp::Random { element: linear, .. } => visit(linear),
            NodeOp::Load(place) => location(place, visit),
            NodeOp::Const(_)
            | NodeOp::Reduced { .. }
            | NodeOp::Unary(..)
            | NodeOp::Binary(..)
            | NodeOp::Compare(..)
            | NodeOp::Select(..)
            | NodeOp::Cast(_) => {}
        }
    }
    for store in &mut phase.stores {
        location(&mut store.location, visit);
    }
}

/// Forgets loop `number` (whose index is 0, or whose part another loop has taken over) and renumbers the later ones.
fn remove_loop(phases: &mut [Phase], number: usize) {
    for phase in phases {
        each_linear(phase, &mut |linear| {
            linear.terms.retain(|(found, _)| *found != number);
            for (found, _) in &mut linear.terms {
                if *found > number {
                    *found -= 1;
                }
            }
        });
    }
}

/// True if, in all affine functions, loop `number` steps as far as a whole run of the loop after it.
fn mergeable(phases: &mut [Phase], number: usize, next_extent: usize) -> bool {
    let mut all = true;
    for phase in phases {
        each_linear(phase, &mut |linear| {
            all &= linear.coefficient(number) == linear.coefficient(number + 1) * next_extent as i64;
        });
    }
    all
}

fn drop_single_outer(nest: &mut Nest) {
    for number in (0..nest.outer.len()).rev() {
        if nest.outer[number] == 1 {
            remove_loop(&mut nest.phases, number);
            nest.outer.remove(number);
            nest.parallel -= usize::from(number < nest.parallel);
        }
    }
}

fn merge_outer(nest: &mut Nest) {
    for number in (0..nest.outer.len().saturating_sub(1)).rev() {
        let alike = (number < nest.parallel) == (number + 1 < nest.parallel);
        if alike && mergeable(&mut nest.phases, number, nest.outer[number + 1]) {
            nest.outer[number + 1] *= nest.outer[number];
            remove_loop(&mut nest.phases, number);
            nest.outer.remove(number);
            nest.parallel -= usize::from(number < nest.parallel);
        }
    }
}

/// Both steps for a phase's inner loops. One loop always stays where there were some, since a reduction over loops
/// of one iteration is still a reduction.
fn simplify_inner(nest: &mut Nest, phase: usize) {
    let first = nest.outer.len();
    let phase = &mut nest.phases[phase];
    for position in (0..phase.inner.len()).rev() {
        if phase.inner[position] == 1 && phase.inner.len() > 1 {
            remove_loop(std::slice::from_mut(phase), first + position);
            phase.inner.remove(position);
        }
    }
    for position in (0..phase.inner.len().saturating_sub(1)).rev() {
        let next = phase.inner[position + 1];
        if mergeable(std::slice::from_mut(phase), first + position, next) {
            phase.inner[position + 1] *= phase.inner[position];
            remove_loop(std::slice::from_mut(phase), first + position);
            phase.inner.remove(position);
        }
    }
}

/// Writes the points of a last outer loop that is shorter than a vector one after another, so that the loop before it
/// becomes the lanes. Only for elementwise nests whose threads may divide that loop: then its points are as distinct.
fn unroll_short_lanes(nest: &mut Nest) {
    let Some(last) = nest.outer.len().checked_sub(1).filter(|last| *last > 0) else { return };
    let (extent, before) = (nest.outer[last], nest.outer[last - 1]);
    let [phase] = nest.phases.as_slice() else { return };
    let plain = phase.inner.is_empty() && phase.reductions.is_empty();
    let short = extent < LANES && before >= LANES && extent * phase.nodes.len() <= UNROLLED_NODES;
    if nest.lanes != Lanes::Outer || nest.parallel < last || !plain || !short {
        return;
    }
    let mut copies: Vec<Phase> = (0..extent).map(|point| phase_at(phase, last, point, phase.nodes.len())).collect();
    let nodes = copies.iter_mut().flat_map(|copy| std::mem::take(&mut copy.nodes)).collect();
    let stores = (0..phase.stores.len()).flat_map(|store| copies.iter().map(move |copy| copy.stores[store].clone()));
    let stores = stores.collect();
    nest.phases = vec![Phase { inner: Vec::new(), nodes, reductions: Vec::new(), stores }];
    nest.outer.pop();
    nest.parallel = nest.parallel.min(last);
}

/// A phase with one loop's index fixed, its nodes behind those of the points before it.
fn phase_at(phase: &Phase, number: usize, point: usize, nodes: usize) -> Phase {
    let mut copy = phase.clone();
    each_linear(&mut copy, &mut |linear| {
        linear.offset += linear.coefficient(number) * point as i64;
        linear.terms.retain(|(found, _)| *found != number);
    });
    let moved = |id: &mut NodeId| id.0 += (point * nodes) as u32;
    for node in &mut copy.nodes {
        match &mut node.op {
            NodeOp::Const(_) | NodeOp::Index(_) | NodeOp::Random { .. } | NodeOp::Reduced { .. } => {}
            NodeOp::Load(location) => location.indirect.iter_mut().for_each(|term| moved(&mut term.node)),
            NodeOp::Unary(_, a) | NodeOp::Cast(a) => moved(a),
            NodeOp::Binary(_, a, b) | NodeOp::Compare(_, a, b) => [a, b].into_iter().for_each(moved),
            NodeOp::Select(a, b, c) => [a, b, c].into_iter().for_each(moved),
        }
    }
    for store in &mut copy.stores {
        moved(&mut store.value);
        store.location.indirect.iter_mut().for_each(|term| moved(&mut term.node));
    }
    copy
}

fn drop_true_guards(nest: &mut Nest) {
    for phase in &mut nest.phases {
        let extents: Vec<usize> = nest.outer.iter().chain(&phase.inner).copied().collect();
        let keep = |location: &mut Location| {
            location.guards.retain(|(linear, extent)| !linear.is_within(&extents, *extent));
        };
        for node in &mut phase.nodes {
            if let NodeOp::Load(location) = &mut node.op {
                keep(location);
            }
        }
        phase.stores.iter_mut().for_each(|store| keep(&mut store.location));
    }
}
