//! Metrics: figures of merit, with or without sums that live through a pass.
//!
//! Input: the `metrics` line of a `train` item and the tensors of a step. Output: an output `metric:NAME` of the step
//! graph, or metric states, their updates, and a graph that finishes them.
//! Rules: a metric's tensor parameters are those without default. The first is the model's output (the one of its name
//! among several); the others are fields: those given, else of the parameter's name, else those of the loss in order, else
//! the only one that the model does not take. Bare names that mean nothing else are option texts (`recall(macro)`).
//! What stands after the last `<-` of a metric is computed from its states, in f64, when figures are asked for.

use std::collections::BTreeMap;

use super::Resolved;
use super::item::{TrainItem, model_name};
use super::literal::{figure_name, items};
use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{Binary, DType, Graph, Input, Output, OutputName, StateKind, ValueId, Variable};
use crate::model::expand::{ModelUse, low_name, used_model};
use crate::model::expander::{Expander, Given, Inputs, Meaning, Mode, Outcome, Reported, Scope};
use crate::model::project::Definition;
use crate::settings::MetricSpec;
use crate::source::Span;
use crate::syntax::ast::{self, DefinitionKind, Expr, ExprKind, Ident, Statement, StatementKind};

/// The tensors that losses and metrics are about.
pub(super) struct Bound {
    /// The model's results by name.
    pub outputs: Vec<(String, ValueId)>,
    /// The data's fields by name.
    pub fields: Vec<(String, ValueId)>,
    /// The fields that the model takes in.
    pub taken: Vec<String>,
    /// The fields that the loss names, in order.
    pub targets: Vec<String>,
}

impl Bound {
    pub fn field(&self, name: &str) -> Option<ValueId> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value)
    }
}

/// One metric of a `metrics` line.
pub(super) struct MetricUse {
    /// As shown.
    pub name: String,
    definition: Definition,
    arguments: Vec<ast::Argument>,
    span: Span,
}

impl MetricUse {
    fn spec(&self, finish: Option<Graph>) -> MetricSpec {
        let direction = self.definition.ast.better.map(|better| better.direction);
        MetricSpec { name: self.name.clone(), finish, direction }
    }

    /// How many statements belong to the step; none for a metric without states.
    fn step_statements(&self) -> Option<usize> {
        let body = &self.definition.ast.body;
        let has_state = body.iter().any(|each| each.contains(&|kind| matches!(kind, StatementKind::State(_))));
        let update = |each: &Statement| each.contains(&|kind| matches!(kind, StatementKind::Update { .. }));
        has_state.then(|| body.iter().rposition(update).map_or(0, |last| last + 1))
    }
}

pub(super) fn metric_uses(expander: &mut Expander<'_>, item: &TrainItem) -> Outcome<Vec<MetricUse>> {
    let mut uses: Vec<MetricUse> = Vec::new();
    for expr in item.get("metrics").map_or(&[][..], items) {
        let arguments = expr.as_call().1.to_vec();
        let word = model_name(expr);
        let name = match figure_name(expr) {
            Ok(name) if !word.is_empty() => name,
            Ok(_) | Err(_) => {
                let diagnostic = Diagnostic::error("bad-value", expr.span, "this names no metric");
                return expander.fail(diagnostic.hint("write `accuracy`, or `top(5)`"));
            }
        };
        let definition = match expander.project.find(item.file, word) {
            Some(definition) if definition.ast.kind == DefinitionKind::Metric => definition,
            Some(_) | None => return expander.unknown_item(item.file, word, expr.span, DefinitionKind::Metric),
        };
        if uses.iter().any(|other| other.name == name) {
            return expander.refuse("duplicate-name", expr.span, format!("`{name}` is named twice"));
        }
        uses.push(MetricUse { name, definition, arguments, span: expr.span });
    }
    Ok(uses)
}

/// Names and finishing graphs of the item's metrics, from the sizes that the data item declares, or else from the
/// model's symbolic sizes.
pub(super) fn metric_specs(training: &Resolved) -> Result<Vec<MetricSpec>, Vec<Diagnostic>> {
    let item = &training.item;
    let mut expander = Expander::new(&training.project, Mode::Eval);
    let Ok(uses) = metric_uses(&mut expander, item) else { return Err(expander.diagnostics) };
    if uses.iter().all(|metric| metric.step_statements().is_none()) {
        return Ok(uses.iter().map(|metric| metric.spec(None)).collect());
    }
    let declared = training.settings.data.declared();
    let first =
        specs_from(&mut expander, &uses, |expander| expander.model_on_fields(item, training.settings.batch, &declared));
    let Err(Reported) = first else { return first.map_err(|Reported| Vec::new()) };
    let mut free = Expander::new(&training.project, Mode::Eval);
    let second = specs_from(&mut free, &uses, |expander| {
        let span = item.model.span;
        let (definition, given) = used_model(expander, &ModelUse { file: item.file, model: &item.model })?;
        let outputs = expander.model(&definition, given, Inputs::Free(BTreeMap::new()), span)?;
        let rows = outputs.first().and_then(|(_, value)| expander.graph.shape(*value).first().cloned());
        let mut bound = Bound { outputs, fields: Vec::new(), taken: Vec::new(), targets: Vec::new() };
        for field in &declared {
            let rows = rows.clone().unwrap_or_else(|| Dim::from(training.settings.batch));
            let shape = std::iter::once(rows).chain(field.sizes.iter().map(|size| Dim::from(*size))).collect();
            let value = expander.graph.input(Input { name: field.name.clone(), shape, dtype: field.dtype, span });
            bound.fields.push((field.name.clone(), value));
        }
        Ok(bound)
    });
    second.map_err(|Reported| expander.diagnostics)
}

fn specs_from(
    expander: &mut Expander<'_>,
    uses: &[MetricUse],
    bind: impl FnOnce(&mut Expander<'_>) -> Outcome<Bound>,
) -> Outcome<Vec<MetricSpec>> {
    let bound = bind(expander)?;
    let mut specs = Vec::new();
    for metric in uses {
        let finish = expander.step_metric(metric, &bound)?;
        let constant =
            |graph: &Graph| graph.inputs.iter().all(|input| input.shape.iter().all(|d| d.as_const().is_some()));
        if let Some(graph) = &finish
            && !constant(graph)
        {
            let message = format!("the sizes of `{}` are not known from the data item", metric.name);
            return expander.refuse("undecided", metric.span, message);
        }
        specs.push(metric.spec(finish));
    }
    Ok(specs)
}

impl Expander<'_> {
    /// Adds a metric to the step: an output, or states with updates and the graph that finishes them.
    pub(super) fn step_metric(&mut self, metric: &MetricUse, bound: &Bound) -> Outcome<Option<Graph>> {
        let given = self.metric_arguments(metric, bound)?;
        let definition = metric.definition.clone();
        let arguments = self.bind_arguments(&definition, given, metric.span)?;
        self.nested(&definition, &arguments, metric.span, |this| {
            let mut scope = Scope::new(definition.file, metric.name.clone());
            scope.pure = Some(definition.ast.name.name.clone());
            for parameter in &definition.ast.parameters {
                let Some(meaning) = arguments.get(&parameter.name.name) else { continue };
                if let (Some(ty), Meaning::Tensor(value)) = (&parameter.ty, meaning) {
                    this.bind_type(&mut scope, ty, *value, metric.span)?;
                }
                scope.bind(&parameter.name, meaning.clone());
            }
            let body = &definition.ast.body;
            let Some(count) = metric.step_statements() else {
                let value = this.statements(&mut scope, body)?;
                let value = this.figure(value, metric.span)?;
                let value = this.graph.cast(value, DType::F32, metric.span);
                if !this.graph.shape(value).is_empty() {
                    let message =
                        format!("`{}` gives {}, not one number", metric.name, this.describe(&Meaning::Tensor(value)));
                    return this.refuse("bad-metric", metric.span, message);
                }
                this.graph.outputs.push(Output { name: OutputName::Metric(metric.name.clone()), value });
                return Ok(None);
            };
            scope.state_kind = Some(StateKind::Metric);
            this.statements(&mut scope, &body[..count])?;
            this.finish_metric(metric, &scope, &body[count..]).map(Some)
        })
    }

    fn figure(&mut self, result: Option<Meaning>, span: Span) -> Outcome<ValueId> {
        match result {
            Some(meaning @ (Meaning::Tensor(_) | Meaning::Number(_) | Meaning::Size(_))) => {
                self.as_tensor(&meaning, DType::F32, &[], span)
            }
            Some(other) => {
                self.refuse("bad-metric", span, format!("a metric gives numbers, not {}", self.describe(&other)))
            }
            None => self.refuse("missing-return", span, "the metric returns nothing"),
        }
    }

    /// The graph from a metric's states to its value.
    fn finish_metric(&mut self, metric: &MetricUse, step: &Scope, body: &[Statement]) -> Outcome<Graph> {
        let mut inner = Expander::new(self.project, self.mode);
        inner.facts = self.facts.clone();
        let mut scope = step.clone();
        scope.state_kind = None;
        scope.names.retain(|_, meaning| !matches!(meaning, Meaning::Tensor(_) | Meaning::Tuple(_)));
        let mut targets: Vec<(&String, u32)> = step
            .targets
            .iter()
            .filter_map(|(name, target)| match target {
                Variable::State(id) => Some((name, id.0)),
                Variable::Param(_) => None,
            })
            .collect();
        targets.sort_by_key(|(_, id)| *id);
        for (name, id) in targets {
            let state = &self.graph.states[id as usize];
            let (shape, dtype, span) = (state.shape.clone(), state.dtype, state.span);
            let mut input = |name: String| {
                let shape = shape.clone();
                inner.graph.input(Input { name, shape, dtype, span })
            };
            let mut value = input(state.name.clone());
            let low = low_name(&state.name);
            if self.states.contains_key(&low) {
                let low = input(low);
                value = inner.graph.binary(Binary::Add, value, low, span);
            }
            scope.bind(&Ident { name: name.clone(), span }, Meaning::Tensor(value));
        }
        let result = inner.statements(&mut scope, body).and_then(|result| inner.figure(result, metric.span));
        self.diagnostics.append(&mut inner.diagnostics);
        let value = inner.graph.cast(result?, DType::F32, metric.span);
        inner.graph.outputs.push(Output { name: "value".into(), value });
        Ok(inner.graph)
    }

    /// The arguments of a metric, each under its parameter's name.
    fn metric_arguments(&mut self, metric: &MetricUse, bound: &Bound) -> Outcome<Vec<Given>> {
        let parameters = &metric.definition.ast.parameters;
        let mut tensors: Vec<&Ident> = parameters.iter().filter(|p| p.default.is_none()).map(|p| &p.name).collect();
        let mut options = parameters.iter().filter(|p| p.default.is_some()).map(|p| &p.name);
        let (mut given, mut values) = (Vec::new(), Vec::new());
        for argument in &metric.arguments {
            let value = self.option(&argument.value, metric, bound)?;
            let span = argument.value.span;
            match (&argument.name, &value) {
                (Some(name), _) => {
                    tensors.retain(|tensor| tensor.name != name.name);
                    given.push(Given { name: Some(name.clone()), value, span });
                }
                (None, Meaning::Tensor(_)) => values.push((value, span)),
                (None, _) => match options.next() {
                    Some(name) => given.push(Given { name: Some(name.clone()), value, span }),
                    None => {
                        let message = format!("`{}` takes no further option", metric.definition.ast.name.name);
                        return self.refuse("too-many-arguments", span, message);
                    }
                },
            }
        }
        let skip = usize::from(values.len() < tensors.len());
        let mut targets = bound.targets.iter();
        for (position, name) in tensors.iter().enumerate() {
            let explicit = position.checked_sub(skip).and_then(|place| values.get(place));
            let (value, span) = match explicit {
                Some((value, span)) => (value.clone(), *span),
                None if position == 0 => (Meaning::Tensor(self.metric_output(&name.name, bound, metric)?), metric.span),
                None => {
                    let named = bound.field(&name.name);
                    let found = named.or_else(|| targets.next().and_then(|target| bound.field(target)));
                    let found = found.or_else(|| only_target(bound));
                    let Some(found) = found else {
                        let message = format!("nothing says which field is `{}` of `{}`", name.name, metric.name);
                        let hint = format!("name it: `{}(FIELD)`", metric.definition.ast.name.name);
                        return self.fail(Diagnostic::error("missing-argument", metric.span, message).hint(hint));
                    };
                    (Meaning::Tensor(found), metric.span)
                }
            };
            given.push(Given { name: Some((*name).clone()), value, span });
        }
        Ok(given)
    }

    fn metric_output(&mut self, name: &str, bound: &Bound, metric: &MetricUse) -> Outcome<ValueId> {
        let named = bound.outputs.iter().find(|(output, _)| output == name);
        match named.or(bound.outputs.first()) {
            Some((_, value)) => Ok(*value),
            None => self.refuse("missing-argument", metric.span, "the model gives no output"),
        }
    }

    /// An argument: a field or an output by name, a constant, or a bare word.
    fn option(&mut self, expr: &Expr, metric: &MetricUse, bound: &Bound) -> Outcome<Meaning> {
        if let ExprKind::Name(name) = &expr.kind {
            self.refuse_ambiguous(name, bound, expr.span)?;
            let tensor = bound.fields.iter().chain(&bound.outputs).find(|(known, _)| known == name);
            if let Some((_, value)) = tensor {
                return Ok(Meaning::Tensor(*value));
            }
            if self.project.find(metric.span.file, name).is_none() {
                return Ok(Meaning::Text(name.clone()));
            }
        }
        let mut scope = Scope::new(metric.span.file, String::new());
        self.expression(&mut scope, expr)
    }
}

/// The only field that the model does not take.
fn only_target(bound: &Bound) -> Option<ValueId> {
    let mut others = bound.fields.iter().filter(|(name, _)| !bound.taken.contains(name));
    match (others.next(), others.next()) {
        (Some((_, value)), None) => Some(*value),
        _ => None,
    }
}
