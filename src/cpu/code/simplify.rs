//! A nest with fewer loops and guards and the same meaning.
//!
//! Input: a nest of the schedule. Output: a nest without loops of one iteration, with adjacent loops merged where all
//! addresses allow it, without guards that always hold, and with lanes that fill a vector where they can. Invariant: points keep their row-major order.

use crate::cpu::code::emit::LANES;
use crate::kernel::{Lanes, Nest, NodeId, Phase};

/// Most nodes of a phase after unrolling.
const UNROLLED_NODES: usize = 48;

/// The simpler nest.
pub(super) fn simplify(nest: &Nest) -> Nest {
    let mut nest = nest.clone();
    drop_single_loops(&mut nest);
    nest.join_loops();
    unroll_short_lanes(&mut nest);
    drop_true_guards(&mut nest);
    nest
}

/// One inner loop always stays where there were some, since a reduction over loops of one iteration is still a reduction.
fn drop_single_loops(nest: &mut Nest) {
    for number in (0..nest.outer.len()).rev() {
        if nest.outer[number] == 1 {
            nest.remove_outer(number);
        }
    }
    let first = nest.outer.len();
    for phase in &mut nest.phases {
        for position in (0..phase.inner.len()).rev() {
            if phase.inner[position] == 1 && phase.inner.len() > 1 {
                phase.linears_mut().for_each(|linear| linear.remove(first + position));
                phase.inner.remove(position);
            }
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
    copy.linears_mut().for_each(|linear| linear.fix(number, point));
    let moved = |id: &mut NodeId| id.0 += (point * nodes) as u32;
    copy.nodes.iter_mut().flat_map(|node| node.op.operands_mut()).for_each(moved);
    copy.stores.iter_mut().flat_map(|store| store.operands_mut()).for_each(moved);
    copy
}

fn drop_true_guards(nest: &mut Nest) {
    for phase in &mut nest.phases {
        let extents: Vec<usize> = nest.outer.iter().chain(&phase.inner).copied().collect();
        for location in phase.locations_mut() {
            location.guards.retain(|(linear, extent)| !linear.is_within(&extents, *extent));
        }
    }
}
