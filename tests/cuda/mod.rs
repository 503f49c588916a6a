//! The CUDA back end without a GPU: its text compiled by g++ and run by a driver of ours, through the real host side.

mod graphs;
mod host;
mod layers;
mod mutations;
mod nvrtc;
mod shim;
