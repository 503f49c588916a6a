//! The integration tests, one binary.

mod grad;
mod ops;
mod random_graphs;
mod support;
