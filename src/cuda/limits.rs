//! What GPUs can do at most, by their data sheets.
//!
//! Input: a name. Output: its architecture and [`Limits`]. Source: NVIDIA's data sheets of the A100 80GB SXM, H100 SXM, H200
//! SXM, HGX B200 (an eighth of it), L4 and GeForce RTX 4090: single precision without sparsity or tensor cores, and the memory's bandwidth.

use super::run::Arch;
use crate::machine::limits::Limits;

/// A GPU that can be planned for.
#[derive(Clone, Copy, Debug)]
pub struct Gpu {
    /// What it is called here.
    pub name: &'static str,
    arch: [u32; 2],
    /// Operations a second in f32, a multiply-add is two.
    flops: f64,
    /// Bytes a second of its memory.
    bandwidth: f64,
}

/// Those that are known.
pub const GPUS: [Gpu; 6] = [
    Gpu { name: "a100", arch: [8, 0], flops: 19.5e12, bandwidth: 2039e9 },
    Gpu { name: "h100", arch: [9, 0], flops: 67e12, bandwidth: 3350e9 },
    Gpu { name: "h200", arch: [9, 0], flops: 67e12, bandwidth: 4800e9 },
    Gpu { name: "b200", arch: [10, 0], flops: 75e12, bandwidth: 7700e9 },
    Gpu { name: "l4", arch: [8, 9], flops: 30.3e12, bandwidth: 300e9 },
    Gpu { name: "rtx4090", arch: [8, 9], flops: 82.6e12, bandwidth: 1008e9 },
];

impl Gpu {
    /// The GPU of this name.
    pub fn find(name: &str) -> Option<Gpu> {
        GPUS.into_iter().find(|gpu| gpu.name == name)
    }

    /// Its compute capability.
    pub fn arch(&self) -> Arch {
        Arch { major: self.arch[0], minor: self.arch[1] }
    }

    /// Its greatest rates.
    pub fn limits(&self) -> Limits {
        Limits { flops: self.flops, bandwidths: vec![(usize::MAX, self.bandwidth)] }
    }
}
