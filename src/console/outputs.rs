//! Files that commands write, held apart from those that they read.
//!
//! Input: an option with its file, and what the command reads. Output: nothing, or a refusal. Invariant: what is written takes
//! the place of nothing that is read, by whatever name.

use std::path::{Path, PathBuf};

use crate::Failure;
use crate::runtime::data;
use crate::runtime::files::are_one;
use crate::session::Session;
use crate::settings::DataSpec;

/// Refuses an output that is one of these files, or one of the data.
///
/// # Errors
/// Words with the option and the file.
pub fn hold_apart(option: &str, output: &Path, read: &[PathBuf], spec: Option<&DataSpec>) -> crate::Outcome {
    // Nothing is listed for a file that is not there.
    if !output.is_file() {
        return Ok(());
    }
    let of_data = spec.map(data::files_of).unwrap_or_default();
    match read.iter().chain(&of_data).find(|path| are_one(path, output)) {
        None => Ok(()),
        Some(_) => Err(Failure::Problem(format!(
            "`{option} {}` would take the place of a file that this command reads; give it another file",
            output.display()
        ))),
    }
}

impl Session {
    /// Refuses an output that is a file of the model or of the data, or one of `others`.
    pub(crate) fn hold_apart(&self, option: &str, output: &Path, others: &[&PathBuf]) -> crate::Outcome {
        let others = others.iter().map(|path| path.to_path_buf());
        let read: Vec<PathBuf> = [self.path.clone()].into_iter().chain(self.network.files()).chain(others).collect();
        hold_apart(option, output, &read, Some(&self.settings().data))
    }
}
