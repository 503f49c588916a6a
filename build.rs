//! The stub of trainers, packed into the compiler.
//!
//! This program is both the build script and the stub: it links the trainer's crate and nothing of the compiler. As a
//! script it packs its own file where the compiler includes it; with a run behind it, which `ansatz build` puts there, it is
//! that run's trainer. So every way of building the compiler also builds the stub, from the very crates that the compiler
//! links.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(code) = ansatz_trainer::main_of_trainer() {
        return Ok(code);
    }
    let [own_system, target, folder] = ["HOST", "TARGET", "OUT_DIR"].map(std::env::var_os);
    let (Some(own_system), Some(target), Some(folder)) = (own_system, target, folder) else {
        // Cargo sets them all, so this was a trainer.
        eprintln!("error: the run of this trainer is missing or cut; build it or copy it again");
        return Ok(ExitCode::from(2));
    };
    // A stub for another system than the compiler's would be of no use.
    let own = own_system == target;
    let stub = if own { std::fs::read(std::env::current_exe()?)? } else { Vec::new() };
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&stub)?;
    std::fs::write(PathBuf::from(folder).join("stub"), packed.finish()?)?;
    println!("cargo::rerun-if-changed=build.rs");
    Ok(ExitCode::SUCCESS)
}
