//! What the commands share: reading projects.

use std::path::Path;

use super::Failure;
pub(super) use crate::console::findings::{colors, report, shown, unwrap};
use crate::model::{Project, unread};
use crate::source::FileId;
use crate::workspace;

/// Reads a model file and all it uses; prints findings.
pub(super) fn project(path: &Path) -> Result<(Project, FileId), Failure> {
    if !path.exists() {
        return Err(Failure::Problem(format!("there is no file {}", path.display())));
    }
    let (project, file, diagnostics) = workspace::project(path);
    report(&diagnostics, &project.sources)?;
    Ok((project, file))
}

/// The text of one model file, without what it uses.
pub(super) fn text(path: &Path) -> Result<String, Failure> {
    let bytes = workspace::read_model(path).map_err(|error| Failure::Problem(unread(path, &error)))?;
    String::from_utf8(bytes).map_err(|_| Failure::Problem(format!("`{}` is not UTF-8", path.display())))
}
