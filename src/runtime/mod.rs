//! What touches files and clocks: data, checkpoints, the training loop.

pub mod data;
