//! How a nest becomes vector code: which nodes vary along the lanes, and which strips of values pass through scratch.
//!
//! Input: a simplified nest. Output: a [`NestPlan`] that emission follows blindly.
//! Invariant: every call of a vector function has its own strip slots, and its arguments lie at a lower level.

use crate::cpu::code::calls::{Call, call_of};
use crate::cpu::code::emit::LANES;
use crate::cpu::code::simplify::simplify;
use crate::cpu::code::wide;
use crate::graph::{Binary, DType};
use crate::kernel::{BufferId, Lanes, Linear, Location, Nest, NodeId, NodeOp, Phase};

/// Points of the lane loop that pass through scratch together. A strip of 2 KiB per value stays in L1.
pub(super) const STRIP: usize = 512;
/// Bytes between strip slots: a strip and one cache line, so that slots fall to different sets.
pub(super) const SLOT_BYTES: usize = STRIP * 4 + 64;
/// Points of the leading loops that are enough to divide among threads; loops behind them stay whole.
const ENOUGH_POINTS: usize = 64;
/// Shares of threads are multiples of this many points where the lane loop itself is divided.
pub(super) const GRAIN: usize = 16;

/// What a nest's emission needs to know.
pub(super) struct NestPlan {
    /// The simplified nest.
    pub nest: Nest,
    /// Per phase.
    pub phases: Vec<PhasePlan>,
    /// The last outer loop runs in lanes.
    pub outer_lanes: bool,
    /// Strips run over at most [`STRIP`] points; false: the lane loop runs whole.
    pub strips: bool,
    /// Points of the parallel loops.
    pub total: usize,
    /// Shares are multiples of this many points (or end at `total`).
    pub grain: usize,
    /// A rough cost: node evaluations.
    pub work: usize,
    pub scratch_bytes: usize,
    /// Where the table of strip functions lies in scratch.
    pub table: usize,
}

/// What a phase's emission needs to know.
pub(super) struct PhasePlan {
    /// The lane loop's number.
    pub lane: Option<usize>,
    /// Per node: does it differ along the lanes?
    pub varying: Vec<bool>,
    /// Per node: the call that gives it.
    pub calls: Vec<Option<Call>>,
    /// Per node: the slot of a call's result (the next slot is a second argument's).
    pub slots: Vec<usize>,
    /// Varying calls by level; a level's arguments use only results of earlier levels.
    pub levels: Vec<Vec<NodeId>>,
    /// Per reduction: the slot of its results (and the next one's of its values, for `ArgMax`), with outer lanes.
    pub reduced: Vec<usize>,
    /// Vectors per iteration of the lane loop.
    pub unroll: usize,
    /// The phase's function over strips of 16 lanes, in the place of all vectors of four.
    pub wide: Option<wide::Strip>,
}

/// The types of buffers, where the machine runs strip functions.
pub(super) type Wide<'a> = Option<&'a dyn Fn(BufferId) -> DType>;

/// Analyses a nest.
pub(super) fn plan(nest: &Nest, wide: Wide<'_>) -> NestPlan {
    let mut nest = simplify(nest);
    nest.parallel = divided_loops(&nest);
    analyse(nest, wide)
}

/// Analyses a nest whose parallel loops run over the slices of a group: all of them are divided.
pub(super) fn plan_sliced(nest: &Nest, wide: Wide<'_>) -> NestPlan {
    analyse(simplify(nest), wide)
}

fn analyse(nest: Nest, wide: Wide<'_>) -> NestPlan {
    let outer_lanes = nest.lanes == Lanes::Outer && !nest.outer.is_empty();
    // The first two slots hold the arguments of calls outside the lane loop.
    let mut slot = 2;
    let phases: Vec<PhasePlan> =
        (0..nest.phases.len()).map(|phase| plan_phase(&nest, phase, outer_lanes, &mut slot, wide)).collect();
    let calls = phases.iter().any(|phase| !phase.levels.is_empty());
    let reduces = outer_lanes && nest.phases.iter().any(|phase| !phase.reductions.is_empty());
    let total = nest.outer[..nest.parallel].iter().product();
    let lanes_divided = outer_lanes && nest.parallel == nest.outer.len();
    let work = work(&nest);
    NestPlan {
        outer_lanes,
        strips: calls || reduces,
        total,
        grain: if lanes_divided { GRAIN } else { 1 },
        work,
        table: slot * SLOT_BYTES,
        scratch_bytes: slot * SLOT_BYTES + wide::TABLE_BYTES,
        phases,
        nest,
    }
}

/// The fewest leading parallel loops that give enough points; a loop that is not divided costs no divisions.
fn divided_loops(nest: &Nest) -> usize {
    let mut points = 1;
    for (number, extent) in nest.outer[..nest.parallel].iter().enumerate() {
        points *= extent;
        if points >= ENOUGH_POINTS {
            return number + 1;
        }
    }
    nest.parallel
}

fn plan_phase(nest: &Nest, number: usize, outer_lanes: bool, slot: &mut usize, wide: Wide<'_>) -> PhasePlan {
    let phase = &nest.phases[number];
    let lane = if outer_lanes {
        Some(nest.outer.len() - 1)
    } else if nest.lanes != Lanes::None && !phase.inner.is_empty() {
        Some(nest.outer.len() + phase.inner.len() - 1)
    } else {
        None
    };
    let mut take = |count: usize| {
        *slot += count;
        *slot - count
    };
    let calls: Vec<Option<Call>> = phase.nodes.iter().map(|node| call_of(&node.op)).collect();
    let mut varying: Vec<bool> = Vec::with_capacity(phase.nodes.len());
    let mut depth: Vec<usize> = Vec::with_capacity(phase.nodes.len());
    let mut slots = vec![0; phase.nodes.len()];
    let mut levels: Vec<Vec<NodeId>> = Vec::new();
    for (index, node) in phase.nodes.iter().enumerate() {
        let reads = node.op.operands();
        let own = lane.is_some_and(|lane| own_lane(&node.op, lane, outer_lanes));
        let varies = own || reads.iter().any(|read| varying[read.0 as usize]);
        let below = reads.iter().map(|read| depth[read.0 as usize]).max().unwrap_or(0);
        varying.push(varies);
        match calls[index].filter(|_| varies) {
            None => depth.push(below),
            Some(call) => {
                depth.push(below + 1);
                slots[index] = take(if call == Call::Pow { 2 } else { 1 });
                levels.resize_with(levels.len().max(below + 1), Vec::new);
                levels[below].push(NodeId(index as u32));
            }
        }
    }
    let reduced = phase.reductions.iter().map(|_| if outer_lanes { take(2) } else { 0 }).collect();
    let unroll = unroll(phase, &varying, lane);
    let strip = wide.zip(lane).and_then(|(dtype, lane)| {
        let extent = nest.outer.iter().chain(&phase.inner).nth(lane).copied()?;
        let (phase, lane) = ((phase, number), (lane, extent));
        wide::strip(&wide::Facts { phase, lane, outer_lanes, varying: &varying, dtype })
    });
    if strip.is_some() {
        // Its functions are inline.
        levels.clear();
    }
    PhasePlan { lane, varying, calls, slots, levels, reduced, unroll, wide: strip }
}

/// True if the node itself, not only its operands, differs along the lane loop.
fn own_lane(op: &NodeOp, lane: usize, outer_lanes: bool) -> bool {
    let moves = op.linears().iter().any(|linear| linear.coefficient(lane) != 0);
    moves || outer_lanes && matches!(op, NodeOp::Reduced { .. })
}

/// More vectors per iteration for small bodies; large ones fill the machine by themselves and cost compile time.
fn unroll(phase: &Phase, varying: &[bool], lane: Option<usize>) -> usize {
    let Some(lane) = lane else { return 1 };
    let contiguous = |linear: &Linear| matches!(linear.coefficient(lane), 0 | 1);
    let weigh = |location: &Location| if location.guards.is_empty() && contiguous(&location.index) { 1 } else { 8 };
    let nodes: usize = phase
        .nodes
        .iter()
        .zip(varying)
        .filter(|(_, varies)| **varies)
        .map(|(node, _)| {
            let divides = matches!(node.op, NodeOp::Binary(Binary::Div | Binary::Rem, ..)) && node.dtype == DType::I32;
            node.op.location().map_or(if divides { 16 } else { 1 }, weigh)
        })
        .sum();
    let stores: usize = phase.stores.iter().map(|store| weigh(&store.location)).sum();
    match nodes + stores {
        0..=14 => 4,
        15..=32 => 2,
        _more => 1,
    }
}

/// Node evaluations, with calls counted tenfold, and fourfold where points run one at a time.
fn work(nest: &Nest) -> usize {
    let outer: usize = nest.outer.iter().product();
    let inner: usize = nest
        .phases
        .iter()
        .map(|phase| {
            let nodes: usize = phase.nodes.iter().map(|node| if call_of(&node.op).is_some() { 10 } else { 1 }).sum();
            (nodes + phase.stores.len()) * phase.inner.iter().product::<usize>()
        })
        .sum();
    let lanes = match nest.lanes {
        Lanes::None => LANES,
        Lanes::Inner | Lanes::Outer => 1,
    };
    outer.saturating_mul(inner).saturating_mul(lanes)
}
