//! `ansatz report`: a page about a run, or several runs side by side.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::Failure;
use crate::runtime::checkpoint::write_atomically;
use crate::runtime::files;
use crate::runtime::report::comparison::{Comparison, compare};
use crate::runtime::report::{Run, page};
use crate::sweep;

/// What pages begin with.
const PAGE_HEAD: &[u8] = b"<!doctype html>";

/// Options of `report`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Run folders, or folders of sweeps
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Where the page goes: `report.html` in the folder of a run or a sweep by default, none for several folders
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Writes the page about one run, or compares several.
///
/// # Errors
/// A folder that is none of a run, that is damaged, or that cannot be written.
pub fn run(arguments: &Arguments) -> crate::Outcome {
    let output = arguments.output.as_deref();
    if let [one] = &arguments.runs[..]
        && !sweep::is_sweep(one)
    {
        let path = match output {
            None => page::write(one)?,
            Some(output) => put(output, &page::report(&Run::read(one)?))?,
        };
        println!("report: {}", path.display());
        return Ok(());
    }
    let mut folders = Vec::new();
    for folder in &arguments.runs {
        if sweep::is_sweep(folder) { folders.extend(sweep::runs_of(folder)?) } else { folders.push(folder.clone()) }
    }
    let folders = once(folders);
    let default = match &arguments.runs[..] {
        [one] => Some(one.join(page::NAME)),
        _ => None,
    };
    let title = match &arguments.runs[..] {
        [one] => one.file_name().unwrap_or(one.as_os_str()).to_string_lossy().into_owned(),
        many => format!("{} folders", many.len()),
    };
    side_by_side(&title, &folders, output.or(default.as_deref()))
}

/// Each folder once, by whatever name.
fn once(folders: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for folder in folders {
        match kept.iter().any(|known| files::are_one(known, &folder)) {
            true => eprintln!("note: {} is given twice and shown once", folder.display()),
            false => kept.push(folder),
        }
    }
    kept
}

/// Prints the table of these runs, and writes their page if it is to go anywhere.
pub(crate) fn side_by_side(title: &str, folders: &[PathBuf], output: Option<&Path>) -> crate::Outcome {
    let runs = folders.iter().map(|folder| Run::read(folder)).collect::<Result<Vec<Run>, _>>()?;
    if runs.is_empty() {
        return Err(Failure::Problem(format!("{title} has no run yet")));
    }
    let table: Comparison = compare(&runs);
    print!("{}", table.text());
    if let Some(output) = output {
        println!("report: {}", put(output, &table.page(title, &runs))?.display());
    }
    Ok(())
}

/// Writes a page where nothing is, or an older page.
fn put(path: &Path, html: &str) -> Result<PathBuf, Failure> {
    let head = files::head(path, PAGE_HEAD.len()).map_err(Failure::at(path))?;
    if !head.is_empty() && !head.eq_ignore_ascii_case(PAGE_HEAD) {
        return Err(Failure::Problem(format!("{}: not a page; give `--output` another file", path.display())));
    }
    write_atomically(path, html.as_bytes()).map_err(Failure::at(path))?;
    Ok(path.to_path_buf())
}
