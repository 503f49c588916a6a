//! The CPU's tensor primitives: tiles of products, functions of vectors, random numbers, written once per instruction set.
//!
//! Input: raw tiles. Output: results in place. Invariant: each primitive gives the same bits for the same element
//! whatever tile, tail or thread it falls to. The instruction set is chosen once, at load.
#![allow(unsafe_code)]

pub mod axis;
pub mod normal;
pub mod pack;
pub mod random;
pub mod tile;
pub mod vector;
