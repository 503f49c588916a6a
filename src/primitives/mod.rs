//! The CPU's tensor primitives: contraction tiles and vector functions, written once per instruction set.
//!
//! Input: raw tiles. Output: results in place. Invariant: each primitive gives the same bits for the same element
//! whatever tile, tail or thread it falls to. The instruction set is chosen once, at load.

/// An instruction-set level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL, DQ, BW.
    Avx512,
}
