//! The integration tests, one binary.

mod grad;
mod ops;
mod passes;
mod random_graphs;
mod support;
