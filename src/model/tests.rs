//! Tests of expansion: rules one by one, and the models of the design whole.

mod check;
mod declarations;
mod indices;
mod layers;
mod limits;
mod models;
mod projects;
mod stages;

use std::collections::BTreeMap;

use super::{Expanded, Mode, Project, expand};
use crate::diagnostics::Diagnostic;

/// Loads a text that has no syntax errors.
fn project(text: &str) -> (Project, crate::source::FileId) {
    let (project, file, found) = Project::from_text("test.ansatz", text);
    assert!(found.is_empty(), "{found:#?}");
    (project, file)
}

/// Expands the model `M` with free sizes while training.
fn symbolic(text: &str) -> Result<Expanded, Vec<Diagnostic>> {
    let (project, file) = project(text);
    expand(&project, file, "M", &[], Mode::Train, &BTreeMap::new()).map(|(expanded, _)| expanded)
}

/// Expands the model `M` with bound sizes.
fn bound(text: &str, sizes: &[(&str, i64)], mode: Mode) -> Expanded {
    let (project, file) = project(text);
    let sizes = sizes.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect();
    match expand(&project, file, "M", &[], mode, &sizes) {
        Ok((expanded, _)) => expanded,
        Err(errors) => panic!("{errors:#?}"),
    }
}

/// The expansion, or a panic with its errors.
fn good(text: &str) -> Expanded {
    symbolic(text).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// The codes and primary texts of the errors of a model that must not expand.
fn errors(text: &str) -> Vec<(&'static str, String)> {
    let (project, file) = project(text);
    let found = match expand(&project, file, "M", &[], Mode::Train, &BTreeMap::new()) {
        Ok(_) => panic!("the model expands"),
        Err(found) => found,
    };
    found
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .map(|diagnostic| {
            let span = diagnostic.span();
            let text = &project.sources.file(span.file).text[span.start as usize..span.end as usize];
            (diagnostic.code, text.to_owned())
        })
        .collect()
}

/// The only error of a model: its code and the text at its primary place.
#[track_caller]
fn one_error(text: &str, code: &str, place: &str) {
    assert_eq!(errors(text), [(code, place.to_owned())].map(|(code, place)| (leak(code), place)));
}

fn leak(code: &str) -> &'static str {
    Box::leak(code.to_owned().into_boxed_str())
}

/// The dotted names of the parameters.
fn param_names(expanded: &Expanded) -> Vec<&str> {
    expanded.graph.params.iter().map(|param| param.name.as_str()).collect()
}

/// The shape of the only output, as text.
fn output_shape(expanded: &Expanded) -> String {
    super::expand::show(expanded.graph.shape(expanded.graph.outputs[0].value))
}
