//! The layout of machine code and of trainers' files, as a number.
//!
//! Input: the sources of the crates that say it. Output: `ANSATZ_LAYOUT`, another number after every change of one of them.

use std::path::{Path, PathBuf};

/// Folders beside this one: what a run is, what code calls, what calls code, and how both lie in a file.
const CRATES: [&str; 4] = ["program", "compute", "run", "trainer"];

fn main() -> std::io::Result<()> {
    let mut files = Vec::new();
    CRATES.iter().try_for_each(|name| sources(&Path::new("..").join(name), &mut files))?;
    files.sort();
    // FNV-1a, which is the same everywhere.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add =
        |bytes: &[u8]| bytes.iter().for_each(|byte| hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
        let bytes = std::fs::read(file)?;
        add(&(bytes.len() as u64).to_le_bytes());
        add(&bytes);
    }
    println!("cargo::rustc-env=ANSATZ_LAYOUT={hash:016x}");
    Ok(())
}

/// The Rust files of a folder.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
