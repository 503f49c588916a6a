//! The lint `suspicious-equal-sizes`: sizes of different names that fit only because their numbers are equal.
//!
//! Input: a model that has been expanded without an error. Output: warnings.
//! Invariant: a model whose arguments have different numbers costs nothing; a `require` that ties two names together
//! silences the lint for them.

use std::collections::BTreeMap;

use crate::diagnostics::Diagnostic;
use crate::model::expand::expand;
use crate::model::expander::Mode;
use crate::model::project::Project;
use crate::source::FileId;
use crate::syntax::ast::{Definition, ExprKind, Parameter};

/// Makes each argument that shares its number with another twice as large, alone; a misfit of shapes that comes up
/// then was hidden by the equal numbers.
pub(super) fn lint(project: &Project, file: FileId, model: &Definition) -> Vec<Diagnostic> {
    let sizes: Vec<(&Parameter, f64)> =
        model.parameters.iter().filter_map(|parameter| Some((parameter, size(parameter)?))).collect();
    let mut found: Vec<Diagnostic> = Vec::new();
    for (parameter, size) in &sizes {
        let name = &parameter.name;
        let twins: Vec<&Parameter> = sizes
            .iter()
            .filter(|(other, value)| value == size && other.name != *name)
            .map(|(other, _)| *other)
            .collect();
        if twins.is_empty() {
            continue;
        }
        let changed = [(name.name.clone(), 2.0 * size)];
        let Err(errors) = expand(project, file, &model.name.name, &changed, Mode::Eval, &BTreeMap::new()) else {
            continue;
        };
        let Some(misfit) = errors.iter().find(|error| error.is_error()) else { continue };
        let is_new = found.iter().all(|warning| warning.span() != misfit.span());
        if misfit.code == "shape-mismatch" && is_new {
            let others: Vec<String> = twins.iter().map(|other| format!("`{}`", other.name.name)).collect();
            let others = others.join(" and ");
            let message = format!("this fits only while `{}` equals {others}", name.name);
            let diagnostic = Diagnostic::warning("suspicious-equal-sizes", misfit.span(), message)
                .at(format!("with `{}` = {}: {}", name.name, 2.0 * size, misfit.message))
                .label(name.span, format!("{size} here"));
            let diagnostic = twins
                .iter()
                .fold(diagnostic, |diagnostic, other| diagnostic.label(other.name.span, format!("and {size} here")));
            found.push(
                diagnostic.hint(format!(
                    "use one name for one size, or say `require {} == {}`",
                    name.name, twins[0].name.name
                )),
            );
        }
    }
    found
}

/// The number of an argument that can be a size: a whole number above 1 without a unit.
fn size(parameter: &Parameter) -> Option<f64> {
    match parameter.default.as_ref()?.kind {
        ExprKind::Number { value, suffix: None, .. } if value.fract() == 0.0 && value > 1.0 => Some(value),
        _ => None,
    }
}
