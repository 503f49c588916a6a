//! What a run is made from, as its checkpoints and its folder note it.
//!
//! Input: a session's settings. Output: a [`Recipe`], plain data. Invariant: nothing in it says where files lie or which
//! machine ran, but for the instruction set, on which the bits of results depend.

use serde::{Deserialize, Serialize};

/// What fixes a run; two runs with equal recipes have equal bits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// A hash of what the model file means.
    pub model: String,
    /// Settings of the command line.
    pub settings: Vec<(String, String)>,
    /// Of initialisation, shuffling, splits, augmentation and dropout.
    pub seed: u64,
    /// The samples keep their order.
    pub no_shuffle: bool,
    /// The instruction set: `avx512`, `avx2` or `portable`.
    pub level: String,
}
