//! What GPUs can do at most, by their data sheets.
//!
//! Input: a name. Output: its architecture and [`Limits`]. Source: NVIDIA's data sheets of the A100 80GB SXM, H100 SXM, H200
//! SXM, HGX B200 (an eighth of it), L4 and GeForce RTX 4090: single precision, tensor cores without sparsity,
//! and the memory's bandwidth.

use super::run::Arch;
use crate::graph::Precision;
use crate::machine::limits::Limits;

/// A GPU that can be planned for.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    /// What it is called here.
    pub name: &'static str,
    arch: [u32; 2],
    /// Operations a second in f32, a multiply-add is two.
    flops: f64,
    /// The same of tensor cores for factors in TF32 and in bfloat16.
    tensor_flops: [f64; 2],
    /// Bytes a second of its memory.
    bandwidth: f64,
}

/// Those that are known.
pub const SHEETS: [Sheet; 6] = [
    Sheet { name: "a100", arch: [8, 0], flops: 19.5e12, tensor_flops: [156e12, 312e12], bandwidth: 2039e9 },
    Sheet { name: "h100", arch: [9, 0], flops: 67e12, tensor_flops: [494e12, 989e12], bandwidth: 3350e9 },
    Sheet { name: "h200", arch: [9, 0], flops: 67e12, tensor_flops: [494e12, 989e12], bandwidth: 4800e9 },
    Sheet { name: "b200", arch: [10, 0], flops: 75e12, tensor_flops: [1100e12, 2250e12], bandwidth: 7700e9 },
    Sheet { name: "l4", arch: [8, 9], flops: 30.3e12, tensor_flops: [60e12, 121e12], bandwidth: 300e9 },
    Sheet { name: "rtx4090", arch: [8, 9], flops: 82.6e12, tensor_flops: [82.6e12, 165e12], bandwidth: 1008e9 },
];

impl Sheet {
    /// The GPU of this name.
    pub fn find(name: &str) -> Option<Sheet> {
        SHEETS.into_iter().find(|gpu| gpu.name == name)
    }

    /// Its compute capability.
    pub fn arch(&self) -> Arch {
        Arch { major: self.arch[0], minor: self.arch[1] }
    }

    /// Its greatest rates with what a precision allows; of tensor cores for all arithmetic, so a floor stays one.
    pub fn limits(&self, precision: Precision) -> Limits {
        let flops = match precision {
            Precision::Strict | Precision::Fast => self.flops,
            Precision::Tf32 => self.tensor_flops[0],
            Precision::Bf16 => self.tensor_flops[1],
        };
        Limits { flops, bandwidths: vec![(usize::MAX, self.bandwidth)] }
    }
}
