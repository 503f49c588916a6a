//! Paths that model files name.
//!
//! Input: a path as written. Output: a path below the project's folder, or why it is none.
//! Invariant: no file is touched, so links may still lead elsewhere.

use std::path::{Component, Path, PathBuf};

/// Why a path in a model file names nothing below the project's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathRefusal {
    /// It has no characters.
    Empty,
    /// It holds a NUL character, which no system's paths do.
    Nul,
    /// It holds backslashes.
    NotPlain,
    /// It starts at the root of the system.
    Absolute,
    /// `..` climbs above the folder.
    Leaves,
    /// A folder or the file begins with a dot, as do the places of passwords and of `.git`.
    Hidden,
}

impl PathRefusal {
    /// What is wrong, to stand behind the path.
    pub fn words(self) -> &'static str {
        match self {
            PathRefusal::Empty => "names no file",
            PathRefusal::Nul => "holds a NUL character",
            PathRefusal::NotPlain => "is not a plain path",
            PathRefusal::Absolute => "is absolute",
            PathRefusal::Leaves => "leaves the project",
            PathRefusal::Hidden => "is hidden: a part of it begins with a dot",
        }
    }
}

/// The path relative to the root that `written` means in a file of `folder`, which is relative to the root too.
/// Touches no file, so links may still lead elsewhere.
///
/// # Errors
/// What [`PathRefusal`] lists.
pub fn below(folder: &Path, written: &str) -> Result<PathBuf, PathRefusal> {
    let path = Path::new(written);
    if written.is_empty() {
        Err(PathRefusal::Empty)
    } else if written.contains('\0') {
        Err(PathRefusal::Nul)
    } else if written.contains('\\') {
        Err(PathRefusal::NotPlain)
    } else if path.is_absolute() || written.as_bytes().get(1) == Some(&b':') {
        Err(PathRefusal::Absolute)
    } else {
        let target = normalise(&folder.join(path)).ok_or(PathRefusal::Leaves)?;
        if is_hidden(&target) { Err(PathRefusal::Hidden) } else { Ok(target) }
    }
}

/// Whether a part of a path begins with a dot.
pub fn is_hidden(path: &Path) -> bool {
    path.components().any(|part| matches!(part, Component::Normal(name) if name.as_encoded_bytes().starts_with(b".")))
}

/// Folds `.` and `..` without touching the disk; `None` where `..` climbs above the start.
pub fn normalise(path: &Path) -> Option<PathBuf> {
    let mut folded = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !folded.pop() {
                    return None;
                }
            }
            Component::Normal(part) => folded.push(part),
            Component::RootDir | Component::Prefix(_) => folded.push(component),
        }
    }
    Some(folded)
}
