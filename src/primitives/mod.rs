//! The CPU's tensor primitives: tiles of products, functions of vectors, random numbers, written once per instruction set.
//!
//! Input: raw tiles. Output: results in place. Invariant: each primitive gives the same bits for the same element
//! whatever tile, tail or thread it falls to. The instruction set is chosen once, at load.
#![allow(unsafe_code)]

pub(crate) mod axis;
pub mod normal;
pub(crate) mod pack;
pub mod random;
pub(crate) mod tile;
pub mod vector;
