//! Trains from a file that holds a run and its machine code, with no model file and no compiler.
//!
//! `train FILE LEVEL THREADS OUTPUT` reads an artifact and its codes, trains to the end of the run, and writes all tensors by
//! name. What it links is what a trainer needs.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;

use ansatz_compute::machine::Level;
use ansatz_program::artifact::{Artifact, Purpose};
use ansatz_run::cpu::{Code, Cpu, found_in};
use ansatz_run::runtime::data::{self, Plan};
use ansatz_run::runtime::trainer::{Extent, Trainer};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, level, threads, output] = arguments.as_slice() else {
        return Err("expected FILE LEVEL THREADS OUTPUT".into());
    };
    let (artifact, codes): (Vec<u8>, Vec<Code>) = postcard::from_bytes(&std::fs::read(file)?)?;
    let artifact = Artifact::from_bytes(&artifact)?;
    let level = Level::parse(level).ok_or("no such level")?;
    let threads = threads.parse()?;
    let dataset = data::open(&artifact.training.data, artifact.training.seed)?;
    dataset.hold(&artifact.training.data, &artifact.ranges)?;
    let extent = Extent::of(&artifact.training, dataset.train.len());
    let plan = Plan::of_run(&artifact.training);
    // SAFETY: whoever starts this program vouches for the file.
    let device = unsafe { Cpu::new(level, threads, found_in(codes, level)) }?;
    let mut trainer = Trainer::new(artifact, Box::new(device), extent, threads, &[Purpose::Train])?;
    for batch in dataset.train.batches(plan, 0, extent.total_steps)? {
        if trainer.position().step.is_multiple_of(extent.steps_per_epoch) {
            trainer.reset_metrics();
        }
        trainer.step(&batch);
    }
    let tensors = trainer.tensors(false).into_iter();
    let bytes: BTreeMap<String, Vec<u8>> = tensors.map(|(name, tensor)| (name, tensor.bytes.into_owned())).collect();
    Ok(std::fs::write(output, postcard::to_stdvec(&bytes)?)?)
}
