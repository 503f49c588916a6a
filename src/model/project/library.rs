//! The standard library: files of the language, compiled into the binary and parsed once per process.
//!
//! Input: `src/library/*.ansatz`. Output: [`files`], which every project starts with, in this order, so that
//! a library file has the same [`FileId`] in every project.
//! Invariant: the library parses without a diagnostic (a test holds it to that).

use std::sync::{Arc, OnceLock};

use super::file::Loaded;
use crate::diagnostics::Diagnostic;
use crate::source::FileId;

/// Display name and text of each library file.
pub(crate) const TEXTS: &[(&str, &str)] = &[
    ("library/activations.ansatz", include_str!("../../library/activations.ansatz")),
    ("library/layers.ansatz", include_str!("../../library/layers.ansatz")),
    ("library/convolution.ansatz", include_str!("../../library/convolution.ansatz")),
    ("library/pooling.ansatz", include_str!("../../library/pooling.ansatz")),
    ("library/losses.ansatz", include_str!("../../library/losses.ansatz")),
    ("library/optimizers.ansatz", include_str!("../../library/optimizers.ansatz")),
    ("library/schedules.ansatz", include_str!("../../library/schedules.ansatz")),
    ("library/metrics.ansatz", include_str!("../../library/metrics.ansatz")),
];

/// The parsed library.
pub(crate) fn files() -> &'static [Arc<Loaded>] {
    static FILES: OnceLock<Vec<Arc<Loaded>>> = OnceLock::new();
    FILES.get_or_init(|| parse().0)
}

/// Parses every library file; the diagnostics are empty unless the library is broken.
fn parse() -> (Vec<Arc<Loaded>>, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let files = TEXTS
        .iter()
        .enumerate()
        .map(|(index, (name, text))| {
            let (loaded, found) = Loaded::parse(FileId(index as u32), name.into(), text);
            diagnostics.extend(found);
            Arc::new(loaded)
        })
        .collect();
    (files, diagnostics)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_library_parses_without_a_diagnostic() {
        let (_, diagnostics) = super::parse();
        assert!(diagnostics.is_empty(), "{diagnostics:#?}");
    }

    #[test]
    fn no_name_is_defined_by_two_library_files() {
        let mut seen = std::collections::HashMap::new();
        for file in super::files() {
            for name in file.names() {
                if let Some(other) = seen.insert(name.to_owned(), file.path.clone()) {
                    panic!("{name} is defined in {} and {}", other.display(), file.path.display());
                }
            }
        }
        assert!(seen.len() > 20);
    }
}
