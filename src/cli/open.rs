//! What the commands share: reading projects, printing findings.

use std::io::IsTerminal;
use std::path::Path;

use crate::diagnostics::{Diagnostic, render};
use crate::model::{Project, unread};
use crate::source::{FileId, SourceMap, visible};
use crate::workspace;

use super::Failure;

/// `code` where standard error is a terminal that wants colours.
pub(super) fn style(code: &'static str) -> &'static str {
    if colors() { code } else { "" }
}

/// A path as it may be printed within a line.
pub(super) fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}

/// Whether findings may be coloured: a terminal, and `NO_COLOR` unset or empty.
pub(super) fn colors() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

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

/// Prints findings to standard error; an error among them ends the command.
pub(super) fn report(diagnostics: &[Diagnostic], sources: &SourceMap) -> Result<(), Failure> {
    if !diagnostics.is_empty() {
        eprint!("{}", render::human(diagnostics, sources, colors()));
    }
    if diagnostics.iter().any(Diagnostic::is_error) { Err(Failure::Findings) } else { Ok(()) }
}

/// The value, or its findings printed.
pub(super) fn unwrap<T>(result: Result<T, Vec<Diagnostic>>, sources: &SourceMap) -> Result<T, Failure> {
    match result {
        Ok(value) => Ok(value),
        Err(diagnostics) => {
            report(&diagnostics, sources)?;
            Err(Failure::Problem("the compiler stopped without saying why; please report this".into()))
        }
    }
}
