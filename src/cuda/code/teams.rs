//! How the points of a nest are divided among threads.
//!
//! Input: a nest. Output: a [`Division`]. Invariant: it follows from the nest alone, so the order of every sum does too.
//!
//! Points of the parallel loops are independent. Either each is a thread, or a team of threads shares the inner loops of
//! one: where rows are long, or too few to keep a GPU busy. A team's neighbours in a warp are its own members where the
//! inner loops walk through memory (rows), and those of other teams where the outer ones do (columns).

use crate::kernel::verify::inner_stores_are_apart;
use crate::kernel::{Lanes, Nest};

/// Threads of a block of independent threads.
const BLOCK: usize = 256;
/// Inner points from which a team is worth its sums over members.
const LEAST_SHARED: usize = 16;
/// Points that keep a GPU busy without teams, where the outer loops walk through memory.
const MANY_POINTS: usize = 1 << 15;
/// Inner points that a team of one warp takes alone.
const WARP_POINTS: usize = 2048;
/// Rows from which a warp each keeps a GPU busy.
const MANY_ROWS: usize = 1 << 12;
/// Lanes of a warp.
pub(super) const WARP: usize = 32;

/// Who takes what of a nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Division {
    /// A thread takes a point of the parallel loops, and of the last outer loop where its points are lanes.
    Points {
        /// Threads of a block.
        block: usize,
    },
    /// A team takes a point of the parallel loops; its members share the inner loops of each phase.
    Teams(Teams),
}

/// The teams of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Teams {
    /// Threads of a team.
    pub members: usize,
    /// Teams of a block.
    pub teams: usize,
    /// Neighbouring threads are members of one team; else of neighbouring teams.
    pub members_first: bool,
}

impl Teams {
    /// Whether every team lies within a warp.
    pub fn is_warp(&self) -> bool {
        self.members_first && self.members <= WARP
    }
}

/// The division of a nest.
pub(super) fn division(nest: &Nest) -> Division {
    let points = Division::Points { block: BLOCK };
    let inner = nest.phases.iter().map(|phase| phase.inner.iter().product::<usize>()).max().unwrap_or(1);
    let parallel: usize = nest.outer[..nest.parallel].iter().product();
    let has_sequence = nest.parallel < nest.outer.len();
    let outer_lanes = nest.lanes == Lanes::Outer;
    let is_shared = nest.phases.iter().all(|phase| inner_stores_are_apart(nest, phase));
    if inner < LEAST_SHARED || !is_shared || outer_lanes && has_sequence {
        return points;
    }
    if outer_lanes || nest.lanes == Lanes::None {
        if parallel >= MANY_POINTS {
            return points;
        }
        // A member has at least 8 points of its own.
        let members = (inner / 8).next_power_of_two().clamp(2, 16);
        return Division::Teams(Teams { members, teams: WARP, members_first: false });
    }
    let is_long = inner > WARP_POINTS || inner > 4 * WARP && parallel < MANY_ROWS;
    let members = if is_long { (inner / 4).next_power_of_two().clamp(2 * WARP, 512) } else { WARP };
    // Members of several warps meet in shared memory, where a block has room for one team.
    let teams = if members > WARP { 1 } else { BLOCK / members };
    Division::Teams(Teams { members, teams, members_first: true })
}
