//! A nest with fewer loops and guards and the same meaning.
//!
//! Input: a nest of the schedule. Output: a nest without loops of one iteration, with adjacent loops merged where all
//! addresses allow it, and without guards that always hold. Invariant: points keep their row-major order.

use crate::kernel::{Linear, Location, Nest, NodeOp, Phase};

/// The simpler nest.
pub(super) fn simplify(nest: &Nest) -> Nest {
    let mut nest = nest.clone();
    drop_single_outer(&mut nest);
    merge_outer(&mut nest);
    for phase in 0..nest.phases.len() {
        simplify_inner(&mut nest, phase);
    }
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
