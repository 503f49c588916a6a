//! What touches files and clocks: data, checkpoints, the training loop.
//!
//! Input: a compiled `train` item and the user's files. Output: a run folder with weights, figures and pictures.
//! Invariant: a run depends on the model file, the data and the seed, and on nothing else.

pub mod about;
pub mod checkpoint;
pub mod curve;
pub mod data;
pub mod events;
mod exact;
pub mod figures;
pub mod files;
pub mod folder;
pub mod init;
pub mod keep;
pub mod memory;
mod packed;
mod places;
pub mod recipe;
pub mod record;
pub mod report;
pub mod saver;
mod spikes;
pub mod train;
pub mod trainer;
