//! Applying stages to values: layers, functions, sequences, waypoints.
//!
//! Input: a [`Stage`] and what flows into it. Output: what flows out; entries of [`super::Expanded::layers`].
//! Invariant: an error inside a library definition carries, as its primary place, the line of the user's file
//! that uses the definition; so do the values that the library makes.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::names::names_read;
use super::shape::show;
use crate::diagnostics::{Diagnostic, Label};
use crate::dim::Dim;
use crate::graph::{Binary, DType, ValueId};
use crate::model::expander::{
    Active, Expander, Given, Inputs, LayerCall, LayerInstance, Meaning, Outcome, Scope, Stage, has_room,
};
use crate::model::project::Definition;
use crate::source::Span;
use crate::syntax::ast::{Bound, Expr, ExprKind, Ident, Place};

/// How deep definitions may nest.
pub(crate) const MAX_DEPTH: usize = 48;

impl Expander<'_> {
    /// Applies a stage or function to values.
    pub(crate) fn apply(&mut self, stage: &Rc<Stage>, given: Vec<Given>, span: Span) -> Outcome<Meaning> {
        self.spend(span)?;
        match &**stage {
            Stage::Builtin(name) => self.builtin(name, given, span),
            Stage::Function(definition) => self.call_function(definition, given, span),
            Stage::Layer(layer) => self.layer(layer, given, span),
            Stage::Template(definition) => {
                let name = &definition.ast.name.name;
                self.fail(
                    Diagnostic::error(
                        "not-callable",
                        span,
                        format!("`{name}` is a layer that has no place for its weights here"),
                    )
                    .hint(format!("bind it first: `stage = {name}`")),
                )
            }
            Stage::Partial { callee, arguments, .. } => {
                let mut all = given;
                all.extend(arguments.iter().cloned());
                self.apply(callee, all, span)
            }
            Stage::Sequence { members, residual, .. } => {
                let mut values = given.clone();
                for (_, member) in members {
                    let site = member_span(member).unwrap_or(span);
                    let site = if site.file == span.file { site } else { span };
                    let value = self.apply(member, values, site)?;
                    values = self.flowing(value, site);
                }
                let result = self.single(values, span)?;
                if *residual {
                    let start = self.single(given, span)?;
                    return self.residual_sum(&start, &result, span);
                }
                Ok(result)
            }
            Stage::Waypoint { dims, span: declared } => {
                let value = self.one_tensor(given, span)?;
                let actual = self.graph.shape(value).to_vec();
                if actual.len() != dims.len() {
                    let message = format!("this needs {} dims and gets {}", dims.len(), actual.len());
                    let diagnostic = self.mismatch("shape-mismatch", *declared, message, *declared, value);
                    return self.fail(diagnostic);
                }
                let wanted: Vec<Dim> =
                    dims.iter().zip(actual).map(|(dim, actual)| dim.clone().unwrap_or(actual)).collect();
                self.prove_shape(&wanted, *declared, value, *declared)?;
                Ok(Meaning::Tensor(value))
            }
            Stage::Over { reduction, axes, span: written } => {
                let value = self.one_tensor(given, span)?;
                self.reduce_over(reduction, axes, value, *written)
            }
        }
    }

    /// The only value of a flow.
    fn single(&mut self, mut given: Vec<Given>, span: Span) -> Outcome<Meaning> {
        match given.pop() {
            Some(last) if given.is_empty() => Ok(last.value),
            Some(last) => {
                let mut results = Vec::with_capacity(given.len() + 1);
                for (index, given) in given.into_iter().chain([last]).enumerate() {
                    results.push((format!("output{index}"), self.expect_tensor(&given)?));
                }
                Ok(Meaning::Tuple(results))
            }
            None => self.refuse("missing-input", span, "nothing flows into this stage"),
        }
    }

    fn one_tensor(&mut self, given: Vec<Given>, span: Span) -> Outcome<ValueId> {
        let value = self.single(given, span)?;
        self.expect_tensor(&Given { name: None, value, span })
    }

    /// What flowed in plus what came out; the shapes must be equal.
    pub(crate) fn residual_sum(&mut self, start: &Meaning, result: &Meaning, span: Span) -> Outcome<Meaning> {
        let start = self.expect_tensor(&Given { name: None, value: start.clone(), span })?;
        let result = self.expect_tensor(&Given { name: None, value: result.clone(), span })?;
        let (before, after) = (self.graph.value(start).clone(), self.graph.value(result).clone());
        let equal = before.shape.len() == after.shape.len()
            && before.shape.iter().zip(&after.shape).all(|(a, b)| self.facts.prove_eq(a, b).is_proved());
        if !equal || before.dtype != after.dtype {
            let diagnostic = Diagnostic::error("shape-mismatch", span, "the residual sum needs equal shapes")
                .at(format!("{} flows in", show(&before.shape)))
                .label(self.birth(result), format!("gives {}", show(&after.shape)));
            return self.fail(diagnostic);
        }
        if before.dtype == DType::Bool {
            return self.refuse("type-mismatch", span, "truth values cannot be added");
        }
        let result = self.conform(result, &before.shape, span);
        Ok(Meaning::Tensor(self.graph.binary(Binary::Add, start, result, span)))
    }

    /// A reduction over axes, written as the equation that it is: `y[a, b] = mean[c, d] x[a, b, c, d]`.
    fn reduce_over(&mut self, reduction: &str, axes: &[usize], value: ValueId, span: Span) -> Outcome<Meaning> {
        let rank = self.graph.shape(value).len();
        if let Some(axis) = axes.iter().find(|axis| **axis >= rank) {
            let born = self.birth(value);
            let shape = show(self.graph.shape(value));
            let message = format!("the named axis is dim {axis}, and {rank} dims flow in");
            return self.fail(Diagnostic::error("shape-mismatch", span, message).label(born, format!("gives {shape}")));
        }
        let ident = |name: String| Ident { name, span };
        let index = |axis: usize| ident(format!("axis{axis}"));
        let name_of = |ident: &Ident| Expr { span, kind: ExprKind::Name(ident.name.clone()) };
        let input = ident("x".into());
        let read = Expr {
            span,
            kind: ExprKind::Index {
                base: Box::new(name_of(&input)),
                indices: (0..rank).map(|axis| name_of(&index(axis))).collect(),
            },
        };
        let body = Expr {
            span,
            kind: ExprKind::Reduce {
                op: ident(reduction.to_owned()),
                indices: axes.iter().map(|axis| Bound { name: index(*axis), each: false }).collect(),
                body: Box::new(read),
            },
        };
        let place = |axis: usize| Place::Index(Bound { name: index(axis), each: false });
        let kept: Vec<Place> = (0..rank).filter(|axis| !axes.contains(axis)).map(place).collect();
        let mut scope = Scope::new(span.file, String::new());
        scope.bind(&input, Meaning::Tensor(value));
        Ok(Meaning::Tensor(self.equation(&mut scope, &ident("y".into()), &kept, &body, None)?))
    }

    /// Runs `body` as one level of nesting inside `definition`, whose arguments these are. A definition may use itself with
    /// other arguments.
    pub(crate) fn nested<T>(
        &mut self,
        definition: &Definition,
        arguments: &HashMap<String, Meaning>,
        span: Span,
        body: impl FnOnce(&mut Self) -> Outcome<T>,
    ) -> Outcome<T> {
        let name = &definition.ast.name.name;
        let arguments = self.static_arguments(arguments);
        let entered = self.active.iter().any(|active| active.name == *name && active.arguments == arguments);
        if entered && self.reaches_itself(definition) {
            let chain: Vec<String> = self
                .active
                .iter()
                .skip_while(|active| active.name != *name)
                .map(|active| &active.name)
                .chain([name])
                .map(|name| format!("`{name}`"))
                .collect();
            let message = format!("definitions use each other in a circle: {}", chain.join(" uses "));
            let diagnostic = Diagnostic::error("recursive-layer", span, message);
            let hint = "a definition may use itself with other sizes or numbers, and ends it by an `if` on them";
            return self.fail(diagnostic.hint(hint));
        }
        if self.active.len() >= MAX_DEPTH {
            let diagnostic =
                Diagnostic::error("too-deep", span, format!("definitions nest deeper than {MAX_DEPTH} levels"));
            let uses = self.active.iter().filter(|active| active.name == *name).count();
            return self.fail(if uses > 1 {
                diagnostic.hint(format!("`{name}` uses itself {uses} times over: an `if` must end that"))
            } else {
                diagnostic
            });
        }
        if !has_room() {
            let message = format!(
                "this process may not take the memory that definitions {} levels deep need",
                self.active.len() + 1
            );
            let diagnostic = Diagnostic::error("too-deep", span, message);
            return self.fail(diagnostic.hint("raise the limit on its address space (`ulimit -v`)"));
        }
        let (before, values) = (self.diagnostics.len(), self.graph.len());
        self.active.push(Active { name: name.clone(), arguments });
        let result = body(self);
        self.active.pop();
        if self.project.is_library(definition.file) && !self.project.is_library(span.file) {
            let project = self.project;
            self.graph.relocate(values, |old| if project.is_library(old.file) { span } else { old });
            // The lines of a library definition fail together; the first says why.
            if let Some(first) = self.diagnostics[before..].iter().position(Diagnostic::is_error) {
                self.diagnostics.truncate(before + first + 1);
            }
            for diagnostic in &mut self.diagnostics[before..] {
                if self.project.is_library(diagnostic.labels[0].span.file) {
                    let text = format!("in this use of `{name}`");
                    diagnostic.labels.insert(0, Label { span, text });
                }
            }
        }
        result
    }

    /// Arguments that are known now, in words, by name.
    fn static_arguments(&self, arguments: &HashMap<String, Meaning>) -> Vec<(String, String)> {
        let is_static =
            |meaning: &Meaning| !matches!(meaning, Meaning::Tensor(_) | Meaning::Tuple(_) | Meaning::Stage(_));
        let known = arguments.iter().filter(|(_, meaning)| is_static(meaning));
        let mut known: Vec<(String, String)> =
            known.map(|(name, meaning)| (name.clone(), format!("{meaning:?}"))).collect();
        known.sort();
        known
    }

    /// True where a definition's text names itself, directly or through others.
    fn reaches_itself(&self, definition: &Definition) -> bool {
        let key = |definition: &Definition| (definition.file, definition.ast.name.name.clone());
        let start = key(definition);
        let mut seen = HashSet::new();
        let mut open = vec![definition.clone()];
        while let Some(next) = open.pop() {
            for name in names_read(&next.ast) {
                let Some(found) = self.project.find(next.file, name) else { continue };
                if key(&found) == start {
                    return true;
                }
                if seen.insert(key(&found)) {
                    open.push(found);
                }
            }
        }
        false
    }

    /// Starts an entry for a stage; parents come before their children.
    pub(crate) fn open_entry(&mut self, path: String, layer: String, span: Span) -> usize {
        let start = self.graph.len() as u32;
        let depth = self.active.len().saturating_sub(1);
        self.layers.push(LayerCall { path, layer, depth, output: ValueId(u32::MAX), values: start..start, span });
        self.layers.len() - 1
    }

    /// Completes an entry with what the stage gives; a stage that gives no tensor keeps no entry.
    pub(crate) fn close_entry(&mut self, entry: usize, result: &Meaning) {
        let output = match result {
            Meaning::Tensor(value) => Some(*value),
            Meaning::Tuple(results) => results.last().map(|(_, value)| *value),
            _ => None,
        };
        match output {
            Some(output) => {
                self.layers[entry].output = output;
                self.layers[entry].values.end = self.graph.len() as u32;
            }
            None => {
                self.layers.remove(entry);
            }
        }
    }

    fn layer(&mut self, layer: &LayerInstance, given: Vec<Given>, span: Span) -> Outcome<Meaning> {
        let name = layer.definition.ast.name.name.clone();
        let entry = self.open_entry(layer.path.clone(), name, span);
        let result = self.nested(&layer.definition, &layer.arguments, span, |this| {
            let mut scope = Scope::new(layer.definition.file, layer.path.clone()).with_buffers();
            scope.bind_parameters(&layer.definition, &layer.arguments);
            scope.inputs = Inputs::Flow(given.into());
            this.body(&mut scope, &layer.definition, span)
        });
        match result {
            Ok(result) => {
                self.close_entry(entry, &result);
                Ok(result)
            }
            Err(reported) => {
                self.layers.truncate(entry);
                Err(reported)
            }
        }
    }

    /// Runs a layer's or a model's statements; what flows in must have been taken by its inputs.
    pub(crate) fn body(&mut self, scope: &mut Scope, definition: &Definition, span: Span) -> Outcome<Meaning> {
        let result = self.statements(scope, &definition.ast.body)?;
        let name = &definition.ast.name;
        if let Inputs::Flow(rest) = &scope.inputs
            && let Some(extra) = rest.front()
        {
            let message = match &extra.name {
                Some(argument) => format!("`{}` has no input `{}`", name.name, argument.name),
                None => format!("more flows into `{}` than it has inputs", name.name),
            };
            return self
                .fail(Diagnostic::error("too-many-inputs", extra.span, message).label(name.span, "defined here"));
        }
        match result {
            Some(meaning) => Ok(meaning),
            None => {
                let message = format!("`{}` returns nothing", name.name);
                let diagnostic = Diagnostic::error("missing-return", name.span, message);
                self.fail(if span == name.span { diagnostic } else { diagnostic.label(span, "used here") })
            }
        }
    }

    fn call_function(&mut self, definition: &Definition, given: Vec<Given>, span: Span) -> Outcome<Meaning> {
        let sites: Vec<(Option<String>, Span)> =
            given.iter().map(|given| (given.name.as_ref().map(|name| name.name.clone()), given.span)).collect();
        let arguments = self.bind_arguments(definition, given, span)?;
        self.nested(definition, &arguments, span, |this| {
            let mut scope = Scope::new(definition.file, String::new());
            scope.pure = Some(definition.ast.name.name.clone());
            for (position, parameter) in definition.ast.parameters.iter().enumerate() {
                let name = &parameter.name;
                let meaning = arguments[&name.name].clone();
                if let Some(ty) = &parameter.ty {
                    let named = sites.iter().find(|(site, _)| site.as_ref() == Some(&name.name));
                    let positional = sites.get(position).filter(|(site, _)| site.is_none());
                    let site = named.or(positional).map_or(span, |(_, site)| *site);
                    let value = this.expect_tensor(&Given { name: None, value: meaning.clone(), span: site })?;
                    this.bind_type(&mut scope, ty, value, site)?;
                }
                scope.bind(name, meaning);
                if let Some((ty, found)) = parameter.ty.as_ref().zip(tensor_of(&scope, &name.name)) {
                    this.divide(&mut scope, name, &ty.dims, found)?;
                }
                if parameter.each {
                    scope.packs.push(name.name.clone());
                }
            }
            this.spread_first(&mut scope, definition.ast.parameters.iter().filter_map(|each| each.ty.as_ref()))?;
            this.body(&mut scope, definition, span)
        })
    }
}

fn member_span(stage: &Stage) -> Option<Span> {
    match stage {
        Stage::Layer(layer) => Some(layer.span),
        Stage::Sequence { span, .. }
        | Stage::Partial { span, .. }
        | Stage::Waypoint { span, .. }
        | Stage::Over { span, .. } => Some(*span),
        Stage::Function(_) | Stage::Builtin(_) | Stage::Template(_) => None,
    }
}

fn tensor_of(scope: &Scope, name: &str) -> Option<ValueId> {
    match scope.names.get(name) {
        Some(Meaning::Tensor(value)) => Some(*value),
        _ => None,
    }
}
