//! Losses, metrics, optimizers and schedules by themselves, before any `train` item uses them.
//!
//! Input: a definition. Output: its findings with symbolic sizes, as far as its declared arguments say what they are.
//! Rules: typed arguments are tensors of these types; an optimizer runs for one parameter of two symbolic dims; what has
//! neither type nor default gets a stand-in, and then only findings that no value could change are told.
//! Invariant: a definition that works for some use with these arguments and any sizes has no finding here.

use std::collections::{BTreeMap, HashMap};

use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{Clock, DType, Graph, Init, Input, Param, ScalarExpr, StateKind};
use crate::model::expand::{is_any, show};
use crate::model::expander::{Expander, Given, Inputs, Meaning, Mode, Outcome, Scope, with_room};
use crate::model::expression::has_entries;
use crate::model::project::{Definition, Project};
use crate::source::FileId;
use crate::syntax::ast::{self, DefinitionKind};

/// The findings of one definition that a `train` item can name; of others, none.
pub(super) fn check(project: &Project, file: FileId, definition: &ast::Definition) -> Vec<Diagnostic> {
    let Some(found) = project.find(file, &definition.name.name) else { return Vec::new() };
    let is_open = definition.parameters.iter().any(|parameter| {
        let typed = parameter.ty.as_ref().is_some_and(is_fixed);
        parameter.default.is_none() && !typed
    });
    with_room(|| {
        let mut expander = Expander::new(project, Mode::Train);
        // Whatever fails has left its finding.
        let _ = match definition.kind {
            DefinitionKind::Loss | DefinitionKind::Metric => expander.figure_alone(&found),
            DefinitionKind::Optimizer => expander.optimizer_alone(&found),
            DefinitionKind::Schedule => expander.schedule_alone(&found),
            DefinitionKind::Fn | DefinitionKind::Layer | DefinitionKind::Model => Ok(()),
        };
        let invented = definition.kind == DefinitionKind::Optimizer;
        let holds = |diagnostic: &Diagnostic| match diagnostic.code {
            "unknown-name" => true,
            "require-failed" | "undecided" => !is_open && !invented,
            _ => !is_open,
        };
        expander.diagnostics.into_iter().filter(holds).collect()
    })
}

/// True for a type that says how many dims there are.
fn is_fixed(ty: &ast::TensorType) -> bool {
    !is_any(ty) && !ty.dims.iter().any(has_entries)
}

impl Expander<'_> {
    /// A loss or a metric on tensors of its declared types.
    fn figure_alone(&mut self, definition: &Definition) -> Outcome<()> {
        let name = &definition.ast.name;
        let mut scope = Scope::new(definition.file, name.name.clone());
        scope.inputs = Inputs::Free(BTreeMap::new());
        let mut given = Vec::new();
        for parameter in definition.ast.parameters.iter().filter(|parameter| parameter.default.is_none()) {
            let value = match parameter.ty.as_ref().filter(|ty| is_fixed(ty)) {
                Some(ty) => self.free_input(&mut scope, &parameter.name, ty)?,
                None => self.stand_in(&parameter.name),
            };
            let span = parameter.name.span;
            given.push(Given { name: Some(parameter.name.clone()), value: Meaning::Tensor(value), span });
        }
        let arguments = self.bind_arguments(definition, given, name.span)?;
        scope.pure = Some(name.name.clone());
        if definition.ast.kind == DefinitionKind::Metric {
            scope.state_kind = Some(StateKind::Metric);
        }
        scope.bind_parameters(definition, &arguments);
        let result =
            self.nested(definition, &arguments, name.span, |this| this.body(&mut scope, definition, name.span))?;
        match (definition.ast.kind, &result) {
            (DefinitionKind::Loss, Meaning::Tensor(value))
                if self.graph.shape(*value).is_empty() && self.graph.value(*value).dtype == DType::F32 =>
            {
                Ok(())
            }
            (DefinitionKind::Loss, other) => {
                let message = format!("a loss is one number, and this gives {}", self.describe(other));
                let diagnostic = Diagnostic::error("bad-loss", name.span, message);
                self.fail(diagnostic.hint("average over the batch: `mean[n] …`"))
            }
            _ => Ok(()),
        }
    }

    /// An optimizer's body for one parameter.
    fn optimizer_alone(&mut self, definition: &Definition) -> Outcome<()> {
        let span = definition.ast.name.span;
        let arguments = self.stand_in_arguments(definition)?;
        let shape = vec![Dim::var("A"), Dim::var("B")];
        let parameter = Param { name: "param".into(), shape: shape.clone(), init: Init::Constant(0.0), span };
        self.graph.param(parameter);
        let gradient = self.graph.input(Input { name: "grad".into(), shape, dtype: DType::F32, span });
        self.update_parameter(definition, &arguments, (crate::graph::ParamId(0), None), gradient, span)
    }

    /// A schedule's factor over a stretch of its own.
    fn schedule_alone(&mut self, definition: &Definition) -> Outcome<()> {
        let arguments = self.stand_in_arguments(definition)?;
        let (done, length) = (ScalarExpr::Clock(Clock::Step), ScalarExpr::Clock(Clock::TotalSteps));
        self.schedule_stage(definition, arguments, &done, &length, definition.ast.name.span).map(|_| ())
    }

    /// The arguments with their defaults; 1 for those without.
    fn stand_in_arguments(&mut self, definition: &Definition) -> Outcome<HashMap<String, Meaning>> {
        let missing = definition.ast.parameters.iter().filter(|parameter| parameter.default.is_none());
        let given = missing.map(|parameter| Given {
            name: Some(parameter.name.clone()),
            value: Meaning::Number(1.0),
            span: parameter.name.span,
        });
        self.bind_arguments(definition, given.collect(), definition.ast.name.span)
    }

    /// A tensor in the place of an argument of any kind.
    fn stand_in(&mut self, name: &ast::Ident) -> crate::graph::ValueId {
        let shape = vec![Dim::var("N"), Dim::var("C")];
        self.graph.input(Input { name: name.name.clone(), shape, dtype: DType::F32, span: name.span })
    }
}

/// Weights and states that only one of the two modes has, or has otherwise: training would not know them.
pub fn modes_agree(training: &Graph, inference: &Graph) -> Vec<Diagnostic> {
    let params = |graph: &Graph| -> Vec<_> {
        graph.params.iter().map(|param| ("parameter", param.name.clone(), param.shape.clone(), param.span)).collect()
    };
    let states = |graph: &Graph| -> Vec<_> {
        graph.states.iter().map(|state| ("state", state.name.clone(), state.shape.clone(), state.span)).collect()
    };
    let mut found = Vec::new();
    for entries in [params as fn(&Graph) -> Vec<_>, states] {
        let known = entries(training);
        for (what, name, shape, span) in entries(inference) {
            let Some((_, _, trained, _)) = known.iter().find(|(_, other, _, _)| *other == name) else {
                let message =
                    format!("the {what} `{name}` exists only where `training` is false, so nothing trains it");
                let diagnostic = Diagnostic::error("untrained", span, message);
                found.push(diagnostic.hint("declare it before the `if`, for both sides"));
                continue;
            };
            if *trained != shape {
                let (trained, shape) = (show(trained), show(&shape));
                let message = format!("the {what} `{name}` is {trained} while training and {shape} otherwise");
                found.push(Diagnostic::error("untrained", span, message).hint("give it one shape, before the `if`"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::ast::ItemKind;

    /// The codes and words of the findings of each definition of a text.
    fn found(text: &str) -> Vec<String> {
        let (project, file, problems) = Project::from_text("test.ansatz", text);
        assert!(problems.is_empty(), "{problems:#?}");
        findings(&project, file).1
    }

    fn findings(project: &Project, file: FileId) -> (usize, Vec<String>) {
        let definitions = project.tree(file).items.iter().filter_map(|item| match &item.kind {
            ItemKind::Definition(definition) => Some(definition),
            ItemKind::Use(_) | ItemKind::Data(_) | ItemKind::Train(_) | ItemKind::Assert(_) => None,
        });
        let definitions: Vec<_> = definitions.collect();
        let all = definitions.iter().flat_map(|definition| check(project, file, definition));
        (definitions.len(), all.map(|finding| format!("{}: {}", finding.code, finding.message)).collect())
    }

    #[test]
    fn the_librarys_definitions_stand_by_themselves() {
        let (project, _, _) = Project::from_text("test.ansatz", "");
        let mut count = 0;
        for file in (0..).map(FileId).take_while(|file| project.is_library(*file)) {
            let (definitions, found) = findings(&project, file);
            assert_eq!(found, [""; 0]);
            count += definitions;
        }
        assert!(count > 60, "{count} definitions");
    }

    #[test]
    fn a_broken_optimizer_is_found_without_a_training() {
        let found =
            found("optimizer o(lr = 0.1) {\n  state m = 0\n  m <- 0.9 * m + grads\n  param <- param - lr * m\n}\n");
        assert_eq!(found, ["unknown-name: `grads` is not defined"]);
    }

    #[test]
    fn a_broken_schedule_is_found_without_a_training() {
        assert_eq!(
            found("schedule s(to = 0.0, length = 0) = to + progres\n"),
            ["unknown-name: `progres` is not defined"]
        );
        assert_eq!(
            found("schedule s(rate, length = 0) = rate * progres\n"),
            ["unknown-name: `progres` is not defined"]
        );
        let text = found("schedule s(length = 0) = \"cosine\"\n");
        assert_eq!(text, ["type-mismatch: a schedule gives a factor on the learning rate, not a text"]);
    }

    #[test]
    fn a_broken_loss_or_metric_is_found_for_all_sizes() {
        let loss = "loss l(y: [N, C], t: [N, D]) = mean[n, c] (y[n, c] - t[n, c])^2\n";
        assert_eq!(found(loss), ["shape-mismatch: the index `c` runs over C and over D"]);
        let body = "loss l(y: [N, C], t: [N, D]) {\n  require C == D\n  return mean[n, c] (y[n, c] - t[n, c])^2\n}\n";
        assert_eq!(found(body), [""; 0]);
        let open = "loss l(y, t) {\n  require rank(t) == 1\n  return mean[n] (y[n] - u[n])^2\n}\nloss k(y) = mean[n, c] z[n, c]\n";
        assert_eq!(found(open), ["unknown-name: `z` is not defined"]);
        let vector = found("loss l(y: [N, C]) {\n  d[n] = mean[c] y[n, c]\n  return d\n}\n");
        assert_eq!(vector, ["bad-loss: a loss is one number, and this gives a tensor of shape [N]"]);
        let metric = "metric m(y: [N, C], t: i32[N]) {\n  state hit = 0\n  hit <- hit + sum[n] (y[n, t[n]] > treshold)\n  return hit\n}\n";
        assert_eq!(found(metric), ["unknown-name: `treshold` is not defined"]);
    }
}
