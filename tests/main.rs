//! The integration tests, one binary.

mod architecture;
mod data;
mod equations;
mod grad;
mod library;
mod machine_code;
mod models;
mod ops;
mod passes;
mod programs;
mod random_graphs;
mod schedule;
mod support;
mod ui;
