//! Model files where they lie: read with all they use, and held against the data and weights beside them.
//!
//! Input: paths that the user names. Output: projects and findings. Invariant: what a model file names lies below its
//! folder, and is opened through `runtime/files`.

pub mod check;

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::diagnostics::Diagnostic;
use crate::model::{MAX_BYTES, Project, is_model_file};
use crate::runtime::files::{self, Place};
use crate::source::FileId;

/// The text of a model file that the user names. It may be a link, but to a model file: findings show the text.
///
/// # Errors
/// As [`files::open`] and [`files::read_all`], and a link to a file of another kind.
pub fn read_model(path: &Path) -> io::Result<Vec<u8>> {
    if std::fs::symlink_metadata(path)?.is_symlink() && !is_model_file(&std::fs::canonicalize(path)?) {
        return Err(not_a_model());
    }
    files::read_all(files::open(path)?, MAX_BYTES)
}

/// The model file at `path`, which the user names, and the files that it uses, which lie below its folder.
/// The file has an identifier even where it cannot be read.
pub fn project(path: &Path) -> (Project, FileId, Vec<Diagnostic>) {
    let root = path.parent().unwrap_or(Path::new(""));
    Project::load(path, None, &|asked| match asked.strip_prefix(root) {
        Ok(below) if asked != path => read_place(&Place::at(root, below)),
        Ok(_) | Err(_) => read_model(path),
    })
}

/// The text of a model file that another names.
fn read_place(place: &Place) -> io::Result<Vec<u8>> {
    let (file, path) = place.open_resolved()?;
    if is_model_file(&path) { files::read_all(file, MAX_BYTES) } else { Err(not_a_model()) }
}

fn not_a_model() -> io::Error {
    io::Error::new(
        ErrorKind::Unsupported,
        "is a link to a file that is no model file: its name does not end in `.ansatz`",
    )
}
