//! `ansatz check`: shapes proved for all sizes, promises held.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Failure, fmt, open};
use crate::cpu::Lowering;
use crate::diagnostics::{Diagnostic, render};
use crate::workspace::{self, check::check};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files, or folders searched for `.ansatz` files
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// How findings are printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// Treat warnings as errors
    #[arg(long)]
    deny_warnings: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text with source lines
    Human,
    /// One JSON object a line
    Json,
    /// Annotations of GitHub Actions
    Github,
}

pub(super) fn run(arguments: &Arguments) -> super::Outcome {
    let files = fmt::files(&arguments.paths)?;
    let mut failed = false;
    for path in &files {
        let (project, file, mut diagnostics) = workspace::project(path);
        if !diagnostics.iter().any(Diagnostic::is_error) {
            diagnostics.extend(check(&project, file, &Lowering::default()));
        }
        failed |= diagnostics.iter().any(|d| d.is_error() || arguments.deny_warnings);
        match arguments.format {
            Format::Human if diagnostics.is_empty() => println!("{}: ok", open::shown(path)),
            Format::Human => eprint!("{}", render::human(&diagnostics, &project.sources, open::colors())),
            Format::Json => print!("{}", render::json(&diagnostics, &project.sources)),
            Format::Github => print!("{}", render::github(&diagnostics, &project.sources)),
        }
    }
    if failed { Err(Failure::Findings) } else { Ok(()) }
}
