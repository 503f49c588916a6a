//! What can be wrong with data: the item in the model file, or a file that it names.
//!
//! Output: [`DataError`], which turns into diagnostics. Invariant: a [`FileError`] names the file, the place in it
//! where there is one (record, row and column, counted from 1), and where possible the way out.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::diagnostics::Diagnostic;
use crate::source::Span;

/// The way out where a file or a folder is missing, unless somebody knows a better one.
pub const RELATIVE: &str = "relative paths start at the folder of the model file";

/// Why data cannot be opened.
#[derive(Clone, Debug)]
pub enum DataError {
    /// Findings about the `data` item itself; at least one.
    Spec(Vec<Diagnostic>),
    /// A file that cannot be read as the item says.
    File {
        /// The entry that names the file.
        span: Span,
        /// What is wrong.
        error: FileError,
    },
}

impl DataError {
    /// One finding about the item.
    pub(super) fn spec(diagnostic: Diagnostic) -> Self {
        DataError::Spec(vec![diagnostic])
    }

    /// As diagnostics, for the renderers.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        match self {
            DataError::Spec(diagnostics) => diagnostics,
            DataError::File { span, error } => {
                let diagnostic = Diagnostic::error("data-file", span, error.headline()).at("read because of this");
                vec![match error.hint {
                    Some(hint) => diagnostic.hint(hint),
                    None => diagnostic,
                }]
            }
        }
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataError::Spec(diagnostics) => {
                let messages: Vec<&str> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
                out.write_str(&messages.join("; "))
            }
            DataError::File { error, .. } => error.fmt(out),
        }
    }
}

impl std::error::Error for DataError {}

/// Something wrong in a file.
#[derive(Clone, Debug)]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// `record 12`, `row 3, column 5`, …; empty where the whole file is meant.
    pub place: String,
    /// What is wrong; lower case, no final period.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

impl FileError {
    /// An error about the whole file.
    pub(super) fn new(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), place: String::new(), message: message.into(), hint: None }
    }

    /// Sets the place.
    pub(super) fn at(mut self, place: impl Into<String>) -> Self {
        self.place = place.into();
        self
    }

    /// Sets the way out.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn headline(&self) -> String {
        match self.place.is_empty() {
            true => format!("{}: {}", self.path.display(), self.message),
            false => format!("{}: {}: {}", self.path.display(), self.place, self.message),
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.headline())?;
        match &self.hint {
            Some(hint) => write!(out, " (help: {hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FileError {}

/// What the readers of sources return: errors about files get the span of the entry later.
#[derive(Clone, Debug)]
pub(super) enum ReadError {
    /// About the item.
    Spec(Box<Diagnostic>),
    /// About a file.
    File(FileError),
}

impl From<FileError> for ReadError {
    fn from(error: FileError) -> Self {
        ReadError::File(error)
    }
}

impl From<Diagnostic> for ReadError {
    fn from(diagnostic: Diagnostic) -> Self {
        ReadError::Spec(Box::new(diagnostic))
    }
}

impl ReadError {
    /// Completes the error with the entry that led to the file.
    pub(super) fn with_span(self, span: Span) -> DataError {
        match self {
            ReadError::Spec(diagnostic) => DataError::spec(*diagnostic),
            ReadError::File(error) => DataError::File { span, error },
        }
    }
}
