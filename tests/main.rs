//! The integration tests, one binary.

mod architecture;
mod bands;
mod cli;
mod data;
mod equations;
mod grad;
mod indices;
mod levels;
mod library;
mod machine_code;
mod metrics;
mod models;
mod not_a_number;
mod ops;
mod parity;
mod passes;
mod programs;
mod random_graphs;
mod schedule;
mod shapes;
mod slices;
mod stages;
mod strangers;
mod support;
mod train;
mod ui;
