//! `ansatz new`: a small complete model file to start from.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, open};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The file to write, such as `first.ansatz`
    file: PathBuf,
}

const TEMPLATE: &str = include_str!("template.ansatz");

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let mut path = arguments.file.clone();
    if path.extension().is_none() {
        path.set_extension("ansatz");
    }
    if path.exists() {
        return Err(Failure::Problem(format!("{} exists already; choose another name", path.display())));
    }
    std::fs::write(&path, TEMPLATE).map_err(Failure::at(&path))?;
    println!("wrote {}", open::shown(&path));
    println!("next: ansatz train {}", open::shown(&path));
    Ok(())
}
