//! A nest with fewer loops and guards and the same meaning.
//!
//! Input: a nest of the schedule. Output: a nest without loops of one iteration, with adjacent loops merged where all
//! addresses allow it, and without guards that always hold. Invariant: points keep their row-major order.

use crate::kernel::Nest;

pub(super) fn simplify(nest: &Nest) -> Nest {
    let mut nest = nest.clone();
    drop_single_loops(&mut nest);
    nest.join_loops();
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

fn drop_true_guards(nest: &mut Nest) {
    for phase in &mut nest.phases {
        let extents: Vec<usize> = nest.outer.iter().chain(&phase.inner).copied().collect();
        for location in phase.locations_mut() {
            location.guards.retain(|(linear, extent)| !linear.is_within(&extents, *extent));
        }
    }
}
