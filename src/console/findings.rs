//! How findings, paths and problems are printed.

use std::io::IsTerminal;
use std::path::Path;

use crate::Failure;
use crate::diagnostics::{Diagnostic, render};
use crate::source::{SourceMap, visible};

/// `code` where standard error is a terminal that wants colours.
pub fn style(code: &'static str) -> &'static str {
    if colors() { code } else { "" }
}

/// A path as it may be printed within a line.
pub fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    match text.chars().all(is_plain) && !text.starts_with('-') {
        true => text,
        false if text.starts_with('-') => format!("'./{}'", text.replace('\'', "'\\''")),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// Whether findings may be coloured: a terminal, and `NO_COLOR` unset or empty.
pub fn colors() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints findings to standard error.
///
/// # Errors
/// An error among them.
pub fn report(diagnostics: &[Diagnostic], sources: &SourceMap) -> Result<(), Failure> {
    if !diagnostics.is_empty() {
        eprint!("{}", render::human(diagnostics, sources, colors()));
    }
    if diagnostics.iter().any(Diagnostic::is_error) { Err(Failure::Findings) } else { Ok(()) }
}

/// The value, or its findings printed.
///
/// # Errors
/// Where there are findings in its place.
pub fn unwrap<T>(result: Result<T, Vec<Diagnostic>>, sources: &SourceMap) -> Result<T, Failure> {
    match result {
        Ok(value) => Ok(value),
        Err(diagnostics) => {
            report(&diagnostics, sources)?;
            Err(Failure::Problem("the compiler stopped without saying why; please report this".into()))
        }
    }
}
