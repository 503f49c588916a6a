//! The CPU as the schedule sees it: its numbers, and the forms of kernels that it alone wants.
//!
//! Input: a program whose temporaries have no places yet. Output: the same results, by minimal filtering where that takes
//! fewer multiplications and depth first where that keeps near a core what kernels pass on.
//! Invariant: the choice follows from the program alone, never from the machine at hand or its threads.

mod slices;
mod winograd;

use crate::graph::Precision;
use crate::kernel::Program;
use crate::kernel::verify::{check, verify_kernels};
use crate::schedule::{Backend, Costs, Products, Target, Unrolled};

/// How programs become those of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lowering {
    /// The numbers.
    pub target: Target,
    /// Most outputs of a tile of minimal filtering along a dim, 2 or 4; 0: none.
    pub tile: usize,
    /// Fewest slices of a group of kernels: as many threads should find about equal work.
    pub slices: usize,
}

impl Default for Lowering {
    fn default() -> Self {
        let unrolled = Unrolled { row: 4, points: 16, nodes: 100, row_nodes: 160, phase_nodes: 320 };
        let costs = Costs { function: 16, random: 30, root: 5, division: 4, again: 8, repeated: 3 };
        let products = Products {
            least: 8192,
            sides: [4, 8, 4],
            thin: 8,
            reuse: 2,
            leaf: 4096,
            many_results: 1 << 16,
            residue_saving: 8,
            border_saving: 5,
            filtered_taps: 3,
        };
        let target = Target {
            // Lanes of the widest vectors.
            width: 16,
            tasks: 16,
            small_work: 16_384,
            // An L2.
            near_bytes: 1 << 20,
            unrolled,
            costs,
            products,
        };
        Self { target, tile: 4, slices: target.tasks }
    }
}

impl Backend for Lowering {
    fn target(&self) -> &Target {
        &self.target
    }

    fn lower(&self, program: &mut Program, precision: Precision) {
        // Larger tiles have larger rounding errors.
        let largest = match precision {
            Precision::Strict => self.tile.min(2),
            Precision::Fast | Precision::Tf32 | Precision::Bf16 => self.tile,
        };
        winograd::choose(program, largest);
        check("winograd", program, verify_kernels);
        slices::group(program, self.slices, &self.target);
        slices::localize(program);
        check("slices", program, verify_kernels);
    }
}
