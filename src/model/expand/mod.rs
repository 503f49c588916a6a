//! Expansion of a whole model: the way in for `check`, `summary`, `dump` and training.
//!
//! Input: a project, a model's name, its arguments, a mode, and sizes for some names. Output: [`Expanded`].
//! Invariant: an [`Expanded`] comes without error diagnostics; its graph passes the verifier.

mod apply;
mod arguments;
mod declare;
mod names;
mod shape;
mod stage;
mod statement;
mod total;

use std::collections::{BTreeMap, HashMap};

use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{Graph, Output, ValueId, verify};
use crate::model::expander::{Expander, Given, Inputs, LayerCall, Meaning, Mode, Outcome, Reported, Scope, with_room};
use crate::model::project::{Definition, Project};
use crate::source::{FileId, Span};
use crate::syntax::ast::{self, DefinitionKind, Expr};

pub(crate) use names::{names_read, sizes_read};
pub(crate) use shape::{MAX_ELEMENTS, is_any, show};
pub(crate) use total::low_name;

/// A model expanded to core operations.
#[derive(Clone, Debug)]
pub struct Expanded {
    /// The graph. Its inputs are the model's; its outputs are named after the returned names
    /// (`output` where the returned expression has none; `output0`, `output1`, … for several).
    pub graph: Graph,
    /// The stages in order of execution, for `summary` and pictures.
    pub layers: Vec<LayerCall>,
}

/// A model of a file, with arguments as a `train` or `assert` item writes them.
#[derive(Clone, Debug)]
pub struct ModelUse<'a> {
    /// The file whose names are seen.
    pub file: FileId,
    /// The model: a name, or a call with arguments.
    pub model: &'a Expr,
}

/// Expands `model` of `file` with its default arguments replaced by `arguments`.
/// Sizes that occur in `sizes` are bound to these numbers; other named sizes of the inputs stay symbolic.
///
/// # Errors
/// The diagnostics, at least one of which is an error.
pub fn expand(
    project: &Project,
    file: FileId,
    model: &str,
    arguments: &[(String, f64)],
    mode: Mode,
    sizes: &BTreeMap<String, i64>,
) -> Result<(Expanded, Vec<Diagnostic>), Vec<Diagnostic>> {
    with_room(|| {
        let mut expander = Expander::new(project, mode);
        let outcome = find_model(&mut expander, file, model, Span::new(file, 0, 0)).and_then(|definition| {
            let span = definition.ast.name.span;
            let given = arguments.iter().map(|(name, value)| Given {
                name: Some(ast::Ident { name: name.clone(), span }),
                value: number(*value),
                span,
            });
            let given = given.collect();
            expander.model(&definition, given, Inputs::Free(sizes.clone()), span)
        });
        finish(expander, outcome)
    })
}

/// Expands the model of a `train` or `assert` item.
///
/// # Errors
/// As [`expand`].
pub fn expand_use(
    project: &Project,
    used: &ModelUse<'_>,
    mode: Mode,
    sizes: &BTreeMap<String, i64>,
) -> Result<(Expanded, Vec<Diagnostic>), Vec<Diagnostic>> {
    with_room(|| {
        let mut expander = Expander::new(project, mode);
        let outcome = used_model(&mut expander, used).and_then(|(definition, given)| {
            expander.model(&definition, given, Inputs::Free(sizes.clone()), used.model.span)
        });
        finish(expander, outcome)
    })
}

fn number(value: f64) -> Meaning {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        Meaning::Size(Dim::constant(value as i64))
    } else {
        Meaning::Number(value)
    }
}

/// The definition and the arguments of a model as an item writes them.
pub(crate) fn used_model(expander: &mut Expander<'_>, used: &ModelUse<'_>) -> Outcome<(Definition, Vec<Given>)> {
    let (callee, arguments) = used.model.as_call();
    let Some(name) = callee.as_name() else {
        return expander.refuse("unknown-name", callee.span, "the name of a model is needed here");
    };
    let definition = find_model(expander, used.file, name, callee.span)?;
    let mut scope = Scope::new(used.file, String::new());
    let given = expander.given(&mut scope, arguments)?;
    Ok((definition, given))
}

fn find_model(expander: &mut Expander<'_>, file: FileId, name: &str, span: Span) -> Outcome<Definition> {
    let project = expander.project;
    if project.is_broken(file, name) {
        return Err(Reported);
    }
    if let Some(definition) = project.find(file, name) {
        if matches!(definition.ast.kind, DefinitionKind::Model | DefinitionKind::Layer) {
            return Ok(definition);
        }
        return expander.fail(
            Diagnostic::error("not-a-model", span, format!("`{name}` is not a model"))
                .label(definition.ast.name.span, "defined here"),
        );
    }
    let models = project
        .visible_names(file)
        .into_iter()
        .filter(|name| project.find(file, name).is_some_and(|definition| definition.ast.kind == DefinitionKind::Model));
    let diagnostic = Diagnostic::error("unknown-name", span, format!("there is no model `{name}`"));
    let diagnostic = match crate::diagnostics::suggest::nearest(name, models) {
        Some(other) => diagnostic.hint(format!("did you mean `{other}`?")).fix(span, other),
        None => diagnostic,
    };
    expander.fail(diagnostic)
}

fn finish(
    expander: Expander<'_>,
    outcome: Outcome<Vec<(String, ValueId)>>,
) -> Result<(Expanded, Vec<Diagnostic>), Vec<Diagnostic>> {
    let Expander { mut graph, layers, diagnostics, .. } = expander;
    match outcome {
        Ok(outputs) if !diagnostics.iter().any(Diagnostic::is_error) => {
            graph.outputs.extend(outputs.into_iter().map(|(name, value)| Output { name: name.into(), value }));
            debug_assert_eq!(verify::verify(&graph), Ok(()), "an expanded graph passes the verifier");
            Ok((Expanded { graph, layers }, diagnostics))
        }
        Ok(_) => Err(diagnostics),
        Err(Reported) => {
            assert!(diagnostics.iter().any(Diagnostic::is_error), "a failed expansion has reported an error");
            Err(diagnostics)
        }
    }
}

impl Expander<'_> {
    /// Expands a model's body at the top of the graph; gives its results by name. What flows in carries the names of the
    /// model's inputs, or none and then comes in the order of its `input` lines.
    pub(crate) fn model(
        &mut self,
        definition: &Definition,
        given: Vec<Given>,
        inputs: Inputs,
        span: Span,
    ) -> Outcome<Vec<(String, ValueId)>> {
        let arguments: HashMap<String, Meaning> = self.bind_arguments(definition, given, span)?;
        let mut scope = Scope::new(definition.file, String::new()).with_buffers();
        scope.bind_parameters(definition, &arguments);
        scope.inputs = inputs;
        let result = self.nested(definition, &arguments, span, |this| this.body(&mut scope, definition, span))?;
        match result {
            Meaning::Tensor(value) => {
                let name = scope.returned.first().cloned().flatten();
                Ok(vec![(name.unwrap_or_else(|| "output".into()), value)])
            }
            Meaning::Tuple(results) => Ok(results),
            other => {
                let what = self.describe(&other);
                let name = &definition.ast.name;
                let message = format!("`{}` must return tensors", name.name);
                self.fail(Diagnostic::error("not-a-tensor", name.span, message).at(format!("it returns {what}")))
            }
        }
    }
}
