//! `ansatz devices`: what this machine has to run on, and why not the rest.

use crate::cuda::nvrtc::Nvrtc;
use crate::cuda::run;
use crate::machine::{self, Level};
use crate::source::bytes_text;

pub(super) fn run() -> super::Outcome {
    let levels: Vec<String> = Level::available().map(|level| level.to_string()).collect();
    println!("cpu: {}, {} threads, {}", super::tuning::processor(), machine::threads(None), levels.join(", "));
    match run::devices() {
        Ok((version, found)) => {
            for (number, gpu) in found.iter().enumerate() {
                let used = if number == 0 { "" } else { " (not used)" };
                println!(
                    "cuda: {}, {}, {}, {} multiprocessors{used}",
                    gpu.name,
                    gpu.arch,
                    bytes_text(gpu.bytes),
                    gpu.multiprocessors
                );
            }
            println!("cuda: driver for CUDA {}.{}", version.0, version.1);
        }
        Err(error) => println!("cuda: {error}"),
    }
    match Nvrtc::open() {
        Ok(nvrtc) => {
            let known = nvrtc.architectures()?.iter().map(ToString::to_string).collect::<Vec<_>>();
            println!("cuda: NVRTC {}.{}, compiles for {}", nvrtc.version.0, nvrtc.version.1, known.join(", "));
        }
        Err(error) => println!("cuda: {error}"),
    }
    Ok(())
}
