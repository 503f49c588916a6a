//! The forward half of a step: the model on the data's fields, the loss, the metrics.
//!
//! Input: a `train` item's settings and the fields with bound sizes. Output: [`Forward`].
//! Rules: a model's input takes the field of its name. Where the loss is one call of a `loss` that lacks tensors, the
//! model's first output flows in first. Outputs and fields are visible by name in the loss.
//! Invariant: the loss is one F32 number; the graph passes the verifier.

use super::item::{self, TrainItem};
use super::metric::{Bound, MetricUse, metric_uses};
use super::{Demands, Forward, Resolved};
use crate::artifact::Reading;
use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{DType, Graph, IndirectIndex, Input, Op, Output, OutputName, ValueId, verify};
use crate::model::expand::{MAX_ELEMENTS, ModelUse, show, used_model};
use crate::model::expander::demand::Demand;
use crate::model::expander::{Expander, Given, Inputs, Meaning, Mode, Outcome, Reported, Scope, Stage, with_room};
use crate::model::project::Definition;
use crate::settings::{FieldInfo, FieldRange};
use crate::source::Span;
use crate::syntax::ast::{self, DefinitionKind, Expr, ExprKind, Ident, StatementKind};

/// Expands model, loss and metrics on a batch of `fields`.
///
/// # Errors
/// A model input without a field, fields that do not fit (`data-mismatch`), and whatever is wrong with the model, the loss
/// or a metric for these sizes.
pub fn forward(
    training: &Resolved,
    batch: usize,
    mode: Mode,
    fields: &[FieldInfo],
) -> Result<Forward, Vec<Diagnostic>> {
    let (graph, demands, loss) = expanded(training, mode, |expander| expander.step(&training.item, batch, fields))?;
    Ok(Forward { graph, loss, demands })
}

/// The graph of half a step with its demands on the data, and what `expand` gives.
fn expanded<T: Send>(
    training: &Resolved,
    mode: Mode,
    expand: impl FnOnce(&mut Expander<'_>) -> Outcome<T> + Send,
) -> Result<(Graph, Demands, T), Vec<Diagnostic>> {
    with_room(|| {
        let mut expander = Expander::new(&training.project, mode);
        let outcome = expand(&mut expander);
        let demands = expander.field_demands();
        let Expander { mut graph, diagnostics, .. } = expander;
        match outcome {
            Ok(result) if !diagnostics.iter().any(Diagnostic::is_error) => {
                debug_assert_eq!(verify::verify(&graph), Ok(()), "an expanded graph passes the verifier");
                graph.precision = training.settings.precision;
                Ok((graph, demands, result))
            }
            Ok(_) | Err(Reported) => Err(diagnostics),
        }
    })
}

/// What a trained model predicts.
#[derive(Clone, Debug)]
pub struct Predicted {
    /// Inputs are the fields that the model takes; outputs are the model's, and what is predicted if the loss says how.
    pub graph: Graph,
    /// What it asks of the data.
    pub demands: Demands,
    /// How its outputs are read.
    pub reading: Reading,
}

/// Expands the model for inference on `fields`, without loss and metrics; fields that it does not take are left aside.
/// A loss of one call that `predicts` by a function adds that function of the model's output.
///
/// # Errors
/// As [`forward`], but for what is wrong with loss and metrics.
pub fn prediction(training: &Resolved, batch: usize, fields: &[FieldInfo]) -> Result<Predicted, Vec<Diagnostic>> {
    let (graph, demands, reading) =
        expanded(training, Mode::Eval, |expander| expander.predicted(training, batch, fields))?;
    Ok(Predicted { graph, demands, reading })
}

impl Expander<'_> {
    fn predicted(&mut self, training: &Resolved, batch: usize, fields: &[FieldInfo]) -> Outcome<Reading> {
        let item = &training.item;
        let (definition, _) = used_model(self, &ModelUse { file: item.file, model: &item.model })?;
        let taken: Vec<String> = model_inputs(&definition).iter().map(|(name, _)| name.name.clone()).collect();
        let fields: Vec<FieldInfo> = fields.iter().filter(|field| taken.contains(&field.name)).cloned().collect();
        let bound = self.model_on_fields(item, batch, &fields)?;
        self.name_outputs(&bound.outputs);
        let mut named = Vec::new();
        item.get("loss").iter().for_each(|loss| names_of(loss, &mut named));
        let declared = |name: &&String| training.settings.data.fields.iter().any(|field| field.name == **name);
        let output = named.iter().find_map(|name| bound.outputs.iter().find(|(output, _)| output == name));
        let output = output.or(bound.outputs.first()).cloned();
        let mut reading = Reading {
            fields: taken,
            output: output.as_ref().map(|(name, _)| name.as_str().into()),
            predicted: None,
            target: named.iter().find(declared).cloned(),
        };
        if let (Some(loss), Some((name, value))) = (item.get("loss"), output)
            && let Some((definition, function)) = self.reading(item, loss, &bound)
        {
            let given = Given { name: None, value: Meaning::Tensor(value), span: loss.span };
            let scope = Scope::new(definition.file, String::new());
            let Meaning::Stage(stage) = self.resolve(&scope, &function.name, function.span)? else {
                let message = format!("`{}` is no function of the model's output", function.name);
                return self.refuse("bad-loss", function.span, message);
            };
            let read = self.nested(&definition, &std::collections::HashMap::new(), loss.span, |this| {
                this.apply(&stage, vec![given], loss.span)
            })?;
            let value = self.expect_tensor(&Given { name: None, value: read, span: loss.span })?;
            let name = OutputName::Predicted(name);
            self.graph.outputs.push(Output { name: name.clone(), value });
            reading.predicted = Some(name);
        }
        Ok(reading)
    }

    /// The loss and how it reads the model's output, where the line is one call whose tensors are bare names: what flows
    /// in is then the output itself.
    fn reading(&self, item: &TrainItem, loss: &Expr, bound: &Bound) -> Option<(Definition, Ident)> {
        let (callee, arguments) = loss.as_call();
        let name = callee.as_name()?;
        let mentions_output = |argument: &ast::Argument| {
            let mut names = Vec::new();
            names_of(&argument.value, &mut names);
            !matches!(argument.value.kind, ExprKind::Name(_))
                && names.iter().any(|name| bound.outputs.iter().any(|(output, _)| output == name))
        };
        if arguments.iter().any(mentions_output) {
            return None;
        }
        let definition = self.project.find(item.file, name)?;
        let function = definition.ast.predicts.clone()?;
        Some((definition, function))
    }

    pub(super) fn step(&mut self, item: &TrainItem, batch: usize, fields: &[FieldInfo]) -> Outcome<ValueId> {
        let mut bound = self.model_on_fields(item, batch, fields)?;
        self.name_outputs(&bound.outputs);
        let before = self.diagnostics.len();
        let loss = self.loss(item, &mut bound);
        self.explain_loss(before, item, &bound, fields);
        let uses: Outcome<Vec<MetricUse>> = metric_uses(self, item);
        for metric in uses? {
            self.step_metric(&metric, &bound)?;
        }
        let loss = loss?;
        self.graph.outputs.push(Output { name: OutputName::Loss, value: loss });
        self.check_classes(item, fields)?;
        self.check_values(batch)?;
        Ok(loss)
    }

    /// Makes results of the model outputs of the graph.
    fn name_outputs(&mut self, outputs: &[(String, ValueId)]) {
        self.graph
            .outputs
            .extend(outputs.iter().map(|(name, value)| Output { name: name.as_str().into(), value: *value }));
    }

    /// Refuses values that no machine holds, so that no later count of bytes overflows.
    fn check_values(&mut self, batch: usize) -> Outcome<()> {
        let elements = |shape: &[Dim]| shape.iter().try_fold(1i64, |product, dim| product.checked_mul(dim.as_const()?));
        let large = self.graph.values().find(|(_, value)| elements(&value.shape).is_none_or(|n| n > MAX_ELEMENTS));
        let Some((_, value)) = large else { return Ok(()) };
        let message = format!("a tensor of shape {} is too large", show(&value.shape));
        let diagnostic = Diagnostic::error("too-large", value.span, message);
        let by_batch = value.shape.first().and_then(Dim::as_const) == i64::try_from(batch).ok();
        self.fail(if by_batch { diagnostic.hint("take a smaller `train.batch`") } else { diagnostic })
    }

    /// The model with the fields flowing into its inputs.
    pub(super) fn model_on_fields(&mut self, item: &TrainItem, batch: usize, fields: &[FieldInfo]) -> Outcome<Bound> {
        let span = item.model.span;
        let (definition, given) = used_model(self, &ModelUse { file: item.file, model: &item.model })?;
        let mut bound = Bound { outputs: Vec::new(), fields: Vec::new(), taken: Vec::new(), targets: Vec::new() };
        for field in fields {
            let shape = std::iter::once(batch).chain(field.sizes.iter().copied()).map(Dim::from).collect();
            let place = item.field_place(&field.name).unwrap_or(span);
            let input = Input { name: field.name.clone(), shape, dtype: field.dtype, span: place };
            let value = self.graph.input(input);
            bound.fields.push((field.name.clone(), value));
        }
        let mut inputs = Vec::new();
        for (name, ty) in model_inputs(&definition) {
            let Some(value) = bound.field(&name.name) else {
                let message = format!("the data has no field `{}` for the model's input", name.name);
                let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                let hint = format!("the fields of `{}` are `{}`", item.data.1.name.name, known.join("`, `"));
                let diagnostic = Diagnostic::error("data-mismatch", span, message).label(name.span, "the input");
                return self.fail(diagnostic.hint(hint));
            };
            self.check_field(name, ty, value, span)?;
            bound.taken.push(name.name.clone());
            inputs.push(Given { name: Some(name.clone()), value: Meaning::Tensor(value), span });
        }
        bound.outputs = self.model(&definition, given, Inputs::Flow(inputs.into()), span)?;
        Ok(bound)
    }

    /// A field's rank, type and constant sizes against the input that takes it.
    fn check_field(&mut self, name: &Ident, ty: &ast::TensorType, value: ValueId, span: Span) -> Outcome<()> {
        if ty.dims.is_empty() && ty.element.is_none() {
            return Ok(());
        }
        let node = self.graph.value(value);
        let integers = ty.element.as_ref().is_some_and(|element| element.name == "i32" || element.name == "class");
        let fits = node.shape.len() == ty.dims.len()
            && (node.dtype == DType::I32) == integers
            && ty.dims.iter().zip(&node.shape).all(|(written, size)| match &written.kind {
                ExprKind::Number { value, .. } => size.as_const().is_none_or(|size| size as f64 == *value),
                _ => true,
            });
        if fits {
            return Ok(());
        }
        let field = self.describe(&Meaning::Tensor(value));
        let message = format!("the field `{}` does not fit the model's input", name.name);
        let diagnostic = Diagnostic::error("data-mismatch", span, message)
            .label(node_place(self, value), format!("the field is {field}, batch first"))
            .label(ty.span, "the input wants this");
        self.fail(diagnostic)
    }

    /// Names for the loss: fields, then outputs.
    fn loss_scope(&self, item: &TrainItem, bound: &Bound) -> Scope {
        let mut scope = Scope::new(item.file, String::new());
        for (name, value) in bound.fields.iter().chain(&bound.outputs) {
            if !scope.names.contains_key(name) {
                scope.bind(&Ident { name: name.clone(), span: item.model.span }, Meaning::Tensor(*value));
            }
        }
        scope
    }

    fn loss(&mut self, item: &TrainItem, bound: &mut Bound) -> Outcome<ValueId> {
        let Some(expr) = item.get("loss") else {
            return self.refuse("missing-key", item.model.span, "the `train` item says no `loss`");
        };
        let mut scope = self.loss_scope(item, bound);
        let mut named = Vec::new();
        names_of(expr, &mut named);
        for name in &named {
            self.refuse_ambiguous(name, bound, expr.span)?;
        }
        bound.targets = named.into_iter().filter(|name| bound.field(name).is_some()).collect();
        let meaning = match self.loss_call(&mut scope, expr, bound)? {
            Some(meaning) => meaning,
            None => self.expression(&mut scope, expr)?,
        };
        match meaning {
            Meaning::Tensor(value)
                if self.graph.shape(value).is_empty() && self.graph.value(value).dtype == DType::F32 =>
            {
                Ok(value)
            }
            other => {
                let message = format!("a loss is one number, and this is {}", self.describe(&other));
                let diagnostic = Diagnostic::error("bad-loss", expr.span, message);
                self.fail(diagnostic.hint("average over the batch: `mean[n] …`"))
            }
        }
    }

    /// Refuses a name that a field and an output share, where it stands for one of them.
    pub(super) fn refuse_ambiguous(&mut self, name: &str, bound: &Bound, span: Span) -> Outcome<()> {
        let output = bound.outputs.iter().find(|(output, _)| output == name).map(|(_, value)| *value);
        let field = bound.field(name);
        let (Some(output), Some(field)) = (output.filter(|output| Some(*output) != field), field) else {
            return Ok(());
        };
        let message = format!("`{name}` is a field of the data and an output of the model");
        let diagnostic = Diagnostic::error("ambiguous-name", span, message).at("which of them is meant?");
        let diagnostic =
            diagnostic.label(node_place(self, output), "the output").label(node_place(self, field), "the field");
        self.fail(
            diagnostic.hint(format!("return the output under another name: `{name}_out = …`, `return {name}_out`")),
        )
    }

    /// One call of a `loss` that lacks tensors: the model's output flows in first.
    fn loss_call(&mut self, scope: &mut Scope, expr: &Expr, bound: &Bound) -> Outcome<Option<Meaning>> {
        let (callee, arguments) = expr.as_call();
        let Some(name) = callee.as_name() else { return Ok(None) };
        if scope.names.contains_key(name) {
            return Ok(None);
        }
        let Some(definition) = self.project.find(scope.file, name) else {
            return self.unknown_item(scope.file, name, callee.span, DefinitionKind::Loss);
        };
        if !matches!(definition.ast.kind, DefinitionKind::Loss | DefinitionKind::Fn) {
            return Ok(None);
        }
        let mut given = self.given(scope, arguments)?;
        let wanted = definition.ast.parameters.iter().filter(|parameter| parameter.default.is_none()).count();
        let tensors = given.iter().filter(|given| matches!(given.value, Meaning::Tensor(_))).count();
        if tensors < wanted
            && let Some((_, output)) = bound.outputs.first()
        {
            given.insert(0, Given { name: None, value: Meaning::Tensor(*output), span: callee.span });
        }
        let stage = std::rc::Rc::new(Stage::Function(definition));
        self.apply(&stage, given, expr.span).map(Some)
    }

    /// Reports a name that should be a `loss`, `metric`, `optimizer` or `schedule`.
    pub(super) fn unknown_item<T>(
        &mut self,
        file: crate::source::FileId,
        name: &str,
        span: Span,
        kind: DefinitionKind,
    ) -> Outcome<T> {
        let word = match kind {
            DefinitionKind::Loss => "loss",
            DefinitionKind::Metric => "metric",
            DefinitionKind::Optimizer => "optimizer",
            DefinitionKind::Schedule => "schedule",
            DefinitionKind::Fn | DefinitionKind::Layer | DefinitionKind::Model => "definition",
        };
        let known: Vec<&str> = self
            .project
            .visible_names(file)
            .into_iter()
            .filter(|name| self.project.find(file, name).is_some_and(|found| found.ast.kind == kind))
            .collect();
        let diagnostic = Diagnostic::error("unknown-name", span, format!("there is no {word} `{name}`"));
        let diagnostic = item::suggest(diagnostic, name, span, &known);
        self.fail(diagnostic)
    }

    /// Labels index a dim of as many places as they have classes.
    fn check_classes(&mut self, item: &TrainItem, fields: &[FieldInfo]) -> Outcome<()> {
        let mut wrong = None;
        for (_, value) in self.graph.values() {
            let Op::Gather(indirect) = &value.op else { continue };
            for (axis, index) in indirect.index.iter().enumerate() {
                let IndirectIndex::Tensor { arg, .. } = index else { continue };
                let Some(name) = self.origin(value.args[*arg]) else { continue };
                let classes = fields.iter().find(|field| field.name == name).and_then(|field| field.classes);
                let dim = self.graph.shape(value.args[0])[axis].clone();
                if let (Some(classes), Some(places)) = (classes, dim.as_const())
                    && places != classes as i64
                {
                    wrong = Some((name, classes, places, value.span));
                }
            }
        }
        let Some((name, classes, places, span)) = wrong else { return self.check_class_ranges(item, fields) };
        let place = item.get("loss").map_or(item.model.span, |loss| loss.span);
        let message = format!("`{name}` has {classes} classes, and the dim that it indexes has {places} places");
        let mut diagnostic = Diagnostic::error("data-mismatch", place, message);
        if !self.project.is_library(span.file) {
            diagnostic = diagnostic.label(span, "indexed here");
        }
        if let Some(declared) = item.field_place(&name) {
            diagnostic = diagnostic.label(declared, "declared here");
        }
        self.fail(diagnostic)
    }

    /// All classes of a field stand every read at its values.
    fn check_class_ranges(&mut self, item: &TrainItem, fields: &[FieldInfo]) -> Outcome<()> {
        for (_, range) in self.field_demands() {
            let classes = fields.iter().find(|field| field.name == range.field).and_then(|field| field.classes);
            let Some(outside) = classes.and_then(|classes| (0..classes as i64).find(|class| !range.admits(*class)))
            else {
                continue;
            };
            let FieldRange { field, low, high, span, .. } = range;
            let message =
                format!("class {outside} of `{field}` leaves the range of an index: {low} to {high} stay inside");
            let place = if self.project.is_library(span.file) { item.model.span } else { span };
            let diagnostic = Diagnostic::error("data-mismatch", place, message).at("read at the class here");
            let declared = item.field_place(&field).unwrap_or(place);
            return self.fail(diagnostic.label(declared, "declared here").hint("guard the read: `(x[…] else 0)`"));
        }
        Ok(())
    }

    /// The demands on the data, with the value that relies on each.
    fn field_demands(&self) -> Demands {
        let end = |end: &Option<Dim>, open: i64| end.as_ref().map_or(Some(open), Dim::as_const);
        let range = |demand: &Demand| {
            let range = FieldRange {
                field: self.graph.inputs[demand.input.0 as usize].name.clone(),
                low: end(&demand.range.low, i64::MIN)?,
                high: end(&demand.range.high, i64::MAX)?,
                except: demand.range.except.iter().filter_map(Dim::as_const).collect(),
                span: self.graph.value(demand.reader).span,
            };
            Some((demand.reader, range))
        };
        self.demands.iter().filter_map(range).collect()
    }

    /// The input that a value copies, if it does.
    fn origin(&self, mut value: ValueId) -> Option<String> {
        loop {
            let node = self.graph.value(value);
            match (&node.op, node.args.as_slice()) {
                (Op::Input(id), _) => return Some(self.graph.inputs[id.0 as usize].name.clone()),
                (Op::Reshape | Op::Contract(_) | Op::Detach, [one]) => value = *one,
                _ => return None,
            }
        }
    }
}

fn node_place(expander: &Expander<'_>, value: ValueId) -> Span {
    expander.graph.value(value).span
}

/// The inputs of a model's body with their types.
fn model_inputs(definition: &Definition) -> Vec<(&Ident, &ast::TensorType)> {
    let inputs = definition.ast.body.iter().filter_map(|statement| match &statement.kind {
        StatementKind::Input { names, ty } => Some(names.iter().map(move |name| (name, ty))),
        _ => None,
    });
    inputs.flatten().collect()
}

/// The names in an expression, in order of appearance.
fn names_of(expr: &Expr, names: &mut Vec<String>) {
    match &expr.kind {
        ExprKind::Name(name) if !names.contains(name) => names.push(name.clone()),
        ExprKind::Call { arguments, .. } => arguments.iter().for_each(|argument| names_of(&argument.value, names)),
        ExprKind::Residual(_) | ExprKind::Repeat { .. } => {}
        _ => expr.parts().into_iter().for_each(|part| names_of(part, names)),
    }
}
