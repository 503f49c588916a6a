//! A GPU as the schedule sees it: its numbers.
//!
//! Input: none. Output: a [`Target`]. Invariant: a program for GPUs runs on every one; the numbers are those of a large one,
//! and a smaller one runs its blocks in more turns.

use crate::schedule::{Backend, Costs, Products, Target, Unrolled};

/// How programs become those of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lowering {
    /// The numbers.
    pub target: Target,
}

impl Default for Lowering {
    fn default() -> Self {
        let unrolled = Unrolled { row: 4, points: 16, nodes: 100, row_nodes: 160, phase_nodes: 160 };
        // Memory is far and arithmetic is wide: much is computed again before it is stored.
        let costs = Costs { function: 8, random: 30, root: 4, division: 4, again: 24, repeated: 6 };
        let products = Products {
            least: 8192,
            sides: [4, 8, 4],
            thin: 8,
            reuse: 2,
            leaf: 1024,
            // About a hundred tiles.
            many_results: 1 << 19,
            residue_saving: 8,
            border_saving: 5,
            filtered_taps: 0,
        };
        let target = Target {
            // A warp.
            width: 32,
            tasks: 64,
            small_work: 1 << 14,
            // A guess, as all of these until a GPU measures them: some of an L2 that many blocks share.
            near_bytes: 1 << 20,
            unrolled,
            costs,
            products,
        };
        Self { target }
    }
}

impl Backend for Lowering {
    fn target(&self) -> &Target {
        &self.target
    }
}
