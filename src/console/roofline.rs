//! Kernels beside what the machine can do at most (the roofline of Williams, Waterman and Patterson 2009).
//!
//! Input: a program's report and the machine's measured limits. Output: text for `plan --roofline`, columns for
//! `train --profile`. Invariant: the least time of a kernel is the longer of its arithmetic at the greatest rate of
//! multiply-adds and its bytes at the greatest rate of the memory that holds them.

use std::fmt::Write;

use crate::kernel::report::{KernelReport, Report};
use crate::machine::limits::{Bound, Limits};

/// Milliseconds that a kernel takes at least, and why.
pub fn least(limits: &Limits, kernel: &KernelReport) -> (f64, &'static str) {
    let (seconds, bound) = limits.least_seconds(kernel.flops, kernel.bytes);
    let words = match bound {
        Bound::Arithmetic => "arithmetic",
        Bound::Memory => "memory",
    };
    (seconds * 1e3, words)
}

/// One line with the limits of what is called so.
pub fn machine(name: &str, limits: &Limits) -> String {
    let within = |(bytes, rate): &(usize, f64)| match *bytes {
        usize::MAX => format!("{:.1} GB/s", rate / 1e9),
        bytes => format!("{:.1} GB/s within {} MiB", rate / 1e9, bytes >> 20),
    };
    let memory: Vec<String> = limits.bandwidths.iter().map(within).collect();
    format!("{name}: {:.1} Gflop/s, {}", limits.flops / 1e9, memory.join(", "))
}

/// A line for each kernel in order, and their sum.
pub fn table(report: &Report, name: &str, limits: &Limits) -> String {
    let mut text = format!("{}\n\n", machine(name, limits));
    let _ = writeln!(text, "{:>9}  {:<10}  {:>10}  {:>9}  kernel", "least ms", "limit", "Mflop", "MB");
    let (mut sum, mut arithmetic) = (0.0, 0.0);
    for (number, kernel) in report.kernels.iter().enumerate() {
        let (time, bound) = least(limits, kernel);
        sum += time;
        arithmetic += kernel.flops as f64 / limits.flops * 1e3;
        let (flops, bytes) = (kernel.flops as f64 / 1e6, kernel.bytes as f64 / 1e6);
        let (name, shape, place) = (&kernel.name, &kernel.shape, &kernel.place);
        let _ =
            writeln!(text, "{time:>9.4}  {bound:<10}  {flops:>10.3}  {bytes:>9.3}  {number} {name} {shape}  {place}");
    }
    let _ = writeln!(text, "\nat least {sum:.3} ms a step, kernel by kernel; {arithmetic:.3} ms of arithmetic alone");
    text
}
