//! `ansatz fmt`: format model files in place.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, open};
use crate::model::is_model_file;
use crate::runtime::checkpoint;
use crate::source::SourceMap;
use crate::syntax;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files, or folders searched for `.ansatz` files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Change nothing; fail if something would change
    #[arg(long)]
    check: bool,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let mut unformatted = false;
    let mut broken = false;
    for path in files(&arguments.paths)? {
        let text = open::text(&path)?;
        let formatted = match syntax::format(&text) {
            Ok(formatted) => formatted,
            Err(diagnostics) => {
                let mut sources = SourceMap::default();
                sources.add(path.display().to_string(), text);
                broken |= open::report(&diagnostics, &sources).is_err();
                continue;
            }
        };
        if formatted == text {
            continue;
        }
        if arguments.check {
            println!("would format {}", open::shown(&path));
            unformatted = true;
        } else {
            checkpoint::rewrite(&path, formatted.as_bytes()).map_err(Failure::at(&path))?;
            println!("formatted {}", open::shown(&path));
        }
    }
    if broken || unformatted { Err(Failure::Findings) } else { Ok(()) }
}

/// The files named, and the `.ansatz` files below the folders named, sorted. Links inside the folders are not followed.
/// A folder without any is a problem, since nothing of it would be looked at.
pub(super) fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = found.len();
            walk(path, &mut found)?;
            if found.len() == before {
                return Err(Failure::Problem(format!("there is no `.ansatz` file in the folder {}", path.display())));
            }
        } else if path.exists() {
            found.push(path.clone());
        } else {
            return Err(Failure::Problem(format!("there is no file {}", path.display())));
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> super::Outcome {
    for entry in std::fs::read_dir(folder).map_err(Failure::at(folder))? {
        let path = entry.map_err(Failure::at(folder))?.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            walk(&path, found)?;
        } else if is_model_file(&path) {
            found.push(path);
        }
    }
    Ok(())
}
