//! `ansatz tune`: measures how to cut the products of a training step and of inference, for later runs on this machine.

use clap::Args;
use indicatif::ProgressBar;

use super::Failure;
use super::compiled::ModelFile;
use super::outline::Outline;
use super::tuning::Cache;
use crate::console::Platform;
use crate::console::options::Machine;
use crate::console::progress;
use crate::contraction::tuning;
use crate::cpu;
use crate::kernel::{Product, Program};
use crate::machine::Level;
use crate::machine::pool::Pool;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelFile,
    /// Measure again what has been measured before
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    machine: Machine,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let outline = Outline::open(&arguments.model)?;
    let (level, threads) = (arguments.machine.level(&Level::ALL)?, arguments.machine.threads());
    let cache = Cache::of_user()
        .ok_or_else(|| Failure::Problem("no folder for measurements: set ANSATZ_CACHE to one".to_string()))?;
    let mut known = cache.load(level, threads);
    let programs = [outline.program(false, Platform::Cpu)?, outline.program(true, Platform::Cpu)?];
    let mut todo: Vec<(&Program, usize, &Product, usize)> = Vec::new();
    for program in &programs {
        for (kernel, product, kept) in cpu::run::products(program) {
            let seen = todo.iter().any(|(_, _, other, of_other)| same_loops(product, other) && kept == *of_other);
            if !seen && (arguments.again || !known.knows(product, kept, level)) {
                todo.push((program, kernel, product, kept));
            }
        }
    }
    let pool = Pool::new(threads);
    let bar = progress::bar(todo.len() as u64, "{bar:24} {pos}/{len}  {msg}").unwrap_or_else(ProgressBar::hidden);
    println!("{:>12}  {:>12}  {:<16}  kernel", "estimate ms", "measured ms", "cut");
    let mut measured = 0;
    for (program, kernel, product, kept) in &todo {
        let kernel = &program.kernels[*kernel];
        bar.set_message(kernel.name.clone());
        if let Some(found) = tuning::measure(product, *kept, level, &pool) {
            measured += 1;
            known.insert(product, *kept, level, found.cut);
            let (estimated, tuned) = (found.estimated * 1e3, found.tuned * 1e3);
            let cut = if found.tuned < found.estimated { found.cut.to_string() } else { "as estimated".to_string() };
            let place = outline.sources().location(kernel.span);
            bar.suspend(|| println!("{estimated:>12.4}  {tuned:>12.4}  {cut:<16}  {}  {place}", kernel.name));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    cache.save(level, threads, &known).map_err(Failure::at(&cache.path(level, threads)))?;
    println!("{measured} products measured; {} known in {}", known.len(), cache.path(level, threads).display());
    Ok(())
}

fn same_loops(a: &Product, b: &Product) -> bool {
    a.batch == b.batch && a.m == b.m && a.n == b.n && a.k == b.k && a.accumulate == b.accumulate && a.bands == b.bands
}
