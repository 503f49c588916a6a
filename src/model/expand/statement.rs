//! Statements of a body, in order, and the names they see.
//!
//! Input: the statements of a definition and its scope. Output: what `return` gives; bindings; updates of the graph.
//! Invariant: after a statement that fails, the names it would have bound are poisoned, so that one mistake gives
//! one diagnostic and independent mistakes give their own.

use std::rc::Rc;

use super::shape;
use super::stage::Naming;
use crate::diagnostics::Diagnostic;
use crate::diagnostics::suggest::nearest;
use crate::dim::Dim;
use crate::graph::{StateKind, Update, ValueId, Variable};
use crate::model::expander::{Expander, Meaning, Mode, Outcome, Reported, Scope, Stage};
use crate::model::expression::{BUILTINS, constant};
use crate::source::Span;
use crate::syntax::ast::{DefinitionKind, Expr, ExprKind, Ident, Place, Statement, StatementKind, TensorType};

/// How many values one graph may have.
const MAX_VALUES: usize = 2_000_000;
/// How many stages and functions one expansion may make and apply.
const MAX_WORK: u32 = 400_000;

impl Expander<'_> {
    /// What a name stands for: a local name, `training`, an item, a constant or a built-in function.
    pub(crate) fn resolve(&mut self, scope: &Scope, name: &str, span: Span) -> Outcome<Meaning> {
        if let Some(meaning) = scope.names.get(name) {
            return Ok(meaning.clone());
        }
        if scope.poisoned.contains(name) || self.project.is_broken(scope.file, name) {
            return Err(Reported);
        }
        if name == "training" {
            return Ok(Meaning::Flag(self.mode == Mode::Train));
        }
        if let Some(definition) = self.project.find(scope.file, name) {
            return match definition.ast.kind {
                DefinitionKind::Layer | DefinitionKind::Model => {
                    Ok(Meaning::Stage(Rc::new(Stage::Template(definition))))
                }
                DefinitionKind::Fn | DefinitionKind::Loss | DefinitionKind::Metric => {
                    Ok(Meaning::Stage(Rc::new(Stage::Function(definition))))
                }
                DefinitionKind::Optimizer | DefinitionKind::Schedule => {
                    self.refuse("not-a-value", span, format!("`{name}` belongs into a `train` block"))
                }
            };
        }
        if let Some(meaning) = constant(name) {
            return Ok(meaning);
        }
        if let Some(builtin) = BUILTINS.iter().find(|builtin| **builtin == name) {
            return Ok(Meaning::Stage(Rc::new(Stage::Builtin(builtin))));
        }
        let diagnostic = Diagnostic::error("unknown-name", span, format!("`{name}` is not defined"));
        let candidates = scope.names.keys().map(String::as_str);
        let candidates = candidates.chain(self.project.visible_names(scope.file)).chain(BUILTINS.iter().copied());
        let diagnostic = match nearest(name, candidates) {
            Some(other) => diagnostic.hint(format!("did you mean `{other}`?")).fix(span, other),
            None if name.starts_with(|first: char| first.is_ascii_uppercase()) => diagnostic.hint(format!(
                "a size is bound by an input's shape, by `let`, or by a shape that flows by: `-> [N, {name}]`"
            )),
            None => diagnostic,
        };
        self.fail(diagnostic)
    }

    /// Counts one stage made or applied, and bounds the whole expansion.
    pub(crate) fn spend(&mut self, span: Span) -> Outcome<()> {
        self.work += 1;
        if self.work > MAX_WORK || self.graph.len() > MAX_VALUES {
            // Once past the limit, every further stage fails silently.
            if self.work == u32::MAX {
                return Err(Reported);
            }
            self.work = u32::MAX - 1;
            return self.fail(
                Diagnostic::error("too-large", span, "the model expands to too many values")
                    .hint(format!("the limits are {MAX_WORK} uses of stages and functions and {MAX_VALUES} values")),
            );
        }
        Ok(())
    }

    /// Runs statements; gives the returned value, if a `return` was met.
    pub(crate) fn statements(&mut self, scope: &mut Scope, body: &[Statement]) -> Outcome<Option<Meaning>> {
        for statement in body {
            if let StatementKind::Return { values, shape: Some(shape) } = &statement.kind
                && let [Expr { kind: ExprKind::Name(name), .. }] = values.as_slice()
            {
                scope.declared.insert(name.clone(), shape.clone());
            }
        }
        let mut failed = false;
        for statement in body {
            match self.statement(scope, statement) {
                Ok(None) => {}
                Ok(Some(returned)) if !failed => return Ok(Some(returned)),
                Ok(Some(_)) => return Err(Reported),
                Err(Reported) => {
                    failed = true;
                    // What follows a broken precondition, or a branch that ended early, would fail as well.
                    let ends = matches!(
                        statement.kind,
                        StatementKind::Require { .. } | StatementKind::If { .. } | StatementKind::Return { .. }
                    );
                    if ends || self.work > MAX_WORK {
                        return Err(Reported);
                    }
                    poison(scope, &statement.kind);
                }
            }
        }
        if failed { Err(Reported) } else { Ok(None) }
    }

    fn statement(&mut self, scope: &mut Scope, statement: &Statement) -> Outcome<Option<Meaning>> {
        match &statement.kind {
            StatementKind::Input { names, ty } => self.input(scope, names, ty).map(|()| None),
            StatementKind::Param { names, ty, init } => self.param(scope, names, ty, init.as_ref()).map(|()| None),
            StatementKind::State(entries) => self.state(scope, entries).map(|()| None),
            StatementKind::Let { name, value } => self.let_line(scope, name, value).map(|()| None),
            StatementKind::Require { condition, message } => {
                self.require(scope, condition, message.as_deref(), statement.span).map(|()| None)
            }
            StatementKind::Bind { target, value } => self.bind(scope, target, value).map(|()| None),
            StatementKind::Unpack { names, value } => self.unpack(scope, names, value).map(|()| None),
            StatementKind::Equation { name, places, value, shape } => {
                let declared = scope.declared.get(&name.name).cloned();
                let shape = shape.as_ref().or(declared.as_ref());
                self.equation(scope, name, places, value, shape).map(|_| None)
            }
            StatementKind::Update { name, places, value } => self.update(scope, name, places, value).map(|()| None),
            StatementKind::Return { values, shape } => self.return_line(scope, values, shape.as_ref()).map(Some),
            StatementKind::If { condition, then, otherwise } => {
                let branch = if self.decided(scope, condition)? { then } else { otherwise };
                self.statements(scope, branch)
            }
            StatementKind::Expression { value, .. } => self.fail(
                Diagnostic::error("unused-value", value.span, "this value goes nowhere")
                    .hint("bind it to a name, or `return` it"),
            ),
            StatementKind::Field { name, .. } => self.fail(
                Diagnostic::error(
                    "misplaced-field",
                    name.span,
                    format!("`{}` is declared like a data field", name.name),
                )
                .hint(format!("write `input {}: …`, or `param {0}: … ~ …`", name.name)),
            ),
        }
    }

    fn let_line(&mut self, scope: &mut Scope, name: &Ident, value: &Expr) -> Outcome<()> {
        let meaning = self.expression(scope, value)?;
        if matches!(meaning, Meaning::Tensor(_) | Meaning::Tuple(_)) {
            return self.fail(
                Diagnostic::error("not-static", value.span, "`let` binds sizes and numbers, and this is a tensor")
                    .hint(format!("write `{} = …`", name.name)),
            );
        }
        scope.bind(name, meaning);
        Ok(())
    }

    fn bind(&mut self, scope: &mut Scope, target: &[Ident], value: &Expr) -> Outcome<()> {
        let [name] = target else {
            let span = target.first().map_or(value.span, |first| first.span);
            return self.refuse("misplaced-key", span, "a dotted key belongs into a `data` or `train` block");
        };
        if name.name == "training" {
            return self.refuse("duplicate-name", name.span, "`training` cannot be bound");
        }
        let chosen = self.choose(scope, value)?;
        let meaning = if self.is_stage(scope, chosen) {
            Meaning::Stage(self.stage(scope, chosen, Naming::Label(name))?)
        } else {
            self.expression(scope, chosen)?
        };
        let tensor = if let Meaning::Tensor(tensor) = &meaning { Some(*tensor) } else { None };
        scope.bind(name, meaning);
        // A value that flows through a shape at its end is divided as the shape says.
        if let (Some(tensor), ExprKind::Pipeline { stages, .. }) = (tensor, &chosen.kind)
            && let Some(ExprKind::List(dims)) = stages.last().map(|stage| &stage.value.kind)
        {
            self.divide(scope, name, dims, tensor)?;
        }
        Ok(())
    }

    /// `a, b = value`.
    fn unpack(&mut self, scope: &mut Scope, names: &[Ident], value: &Expr) -> Outcome<()> {
        let results = match self.expression(scope, value)? {
            Meaning::Tuple(results) => results,
            other => {
                let needed = format!("{} results are needed here", names.len());
                return self.misfit("not-several", value.span, &needed, &other);
            }
        };
        if results.len() != names.len() {
            let message = format!("this gives {} results, and there are {} names", results.len(), names.len());
            return self.refuse("not-several", value.span, message);
        }
        for (place, name) in names.iter().enumerate() {
            if let Some(first) = names[..place].iter().find(|other| other.name == name.name) {
                let message = format!("`{}` stands twice on the left", name.name);
                let diagnostic = Diagnostic::error("duplicate-name", name.span, message);
                return self.fail(diagnostic.label(first.span, "first here"));
            }
        }
        for (name, (_, result)) in names.iter().zip(results) {
            scope.bind(name, Meaning::Tensor(result));
        }
        Ok(())
    }

    /// The branch of a conditional whose condition is static and decided; other expressions as they are.
    fn choose<'e>(&mut self, scope: &mut Scope, expr: &'e Expr) -> Outcome<&'e Expr> {
        let ExprKind::Conditional { then, condition, otherwise } = &expr.kind else { return Ok(expr) };
        if !self.is_stage(scope, then) && !self.is_stage(scope, otherwise) {
            return Ok(expr);
        }
        let branch = if self.decided(scope, condition)? { then } else { otherwise };
        self.choose(scope, branch)
    }

    fn update(&mut self, scope: &mut Scope, name: &Ident, places: &[Place], value: &Expr) -> Outcome<()> {
        let Some(target) = scope.targets.get(&name.name).copied() else {
            let diagnostic = Diagnostic::error("not-a-state", name.span, format!("`{}` is not a state", name.name));
            let hint = format!("declare `state {} = 0` before", name.name);
            return self.fail(diagnostic.hint(hint));
        };
        let (shape, dtype, is_buffer) = match target {
            Variable::Param(id) => {
                let param = &self.graph.params[id.0 as usize];
                (param.shape.clone(), crate::graph::DType::F32, false)
            }
            Variable::State(id) => {
                let state = &self.graph.states[id.0 as usize];
                (state.shape.clone(), state.dtype, state.kind == StateKind::Buffer)
            }
        };
        let factors = scope.factors.get(&name.name).cloned().unwrap_or_default();
        let meaning = if places.is_empty() {
            self.expression(scope, value)?
        } else {
            // The places of sums are held to the dims of the state.
            let is_placed = places.iter().any(|place| matches!(place, Place::Affine(_)));
            let known: Vec<Dim> = if is_placed { shape.clone() } else { Vec::new() };
            Meaning::Tensor(self.equation_over(scope, name, places, value, &known)?)
        };
        let new = self.filled(&meaning, &shape, dtype, value.span)?;
        if is_buffer && self.mode == Mode::Eval {
            return Ok(());
        }
        let new = match target {
            Variable::State(id) if self.graph.states[id.0 as usize].kind == StateKind::Metric => self.total(id, new),
            Variable::State(_) | Variable::Param(_) => new,
        };
        self.record(target, new);
        if let Variable::State(id) = target {
            let path = self.graph.states[id.0 as usize].name.clone();
            self.states.insert(path, (id, new));
        }
        let made = scope.factors.get(&name.name).cloned().unwrap_or_default();
        self.agree_on_factors(&made, &factors, name.span)?;
        scope.bind(name, Meaning::Tensor(new));
        scope.divide(&name.name, factors);
        Ok(())
    }

    /// Records an update; a second one of the same target replaces the first, whose value it has read.
    pub(super) fn record(&mut self, target: Variable, value: ValueId) {
        match self.graph.updates.iter_mut().find(|update| update.target == target) {
            Some(update) => update.value = value,
            None => self.graph.updates.push(Update { target, value }),
        }
    }

    fn return_line(&mut self, scope: &mut Scope, values: &[Expr], shape: Option<&TensorType>) -> Outcome<Meaning> {
        scope.returned = values
            .iter()
            .map(|value| match &value.kind {
                ExprKind::Name(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        if let [value] = values {
            let meaning = self.expression(scope, value)?;
            if let Some(shape) = shape {
                let Meaning::Tensor(tensor) = meaning else {
                    return self.misfit("not-a-tensor", value.span, "a shape is declared for this", &meaning);
                };
                self.bind_type(scope, shape, tensor, shape.span)?;
            }
            return Ok(meaning);
        }
        let mut results = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let meaning = self.expression(scope, value)?;
            let Meaning::Tensor(tensor) = meaning else {
                return self.misfit("not-a-tensor", value.span, "several results must be tensors", &meaning);
            };
            let name = scope.returned[index].clone().unwrap_or_else(|| format!("output{index}"));
            if results.iter().any(|(other, _)| *other == name) {
                return self.refuse("duplicate-name", value.span, format!("two results are named `{name}`"));
            }
            results.push((name, tensor));
        }
        Ok(Meaning::Tuple(results))
    }

    /// `the tensor [N, 3]`, `the size C`, for messages.
    pub(crate) fn describe(&self, meaning: &Meaning) -> String {
        match meaning {
            Meaning::Tensor(value) => format!("a tensor of shape {}", shape::show(self.graph.shape(*value))),
            Meaning::Size(dim) => format!("the size `{dim}`"),
            Meaning::Number(value) => format!("the number {value}"),
            Meaning::Scalar(_) => "a number that changes from step to step".into(),
            Meaning::Flag(value) => format!("`{value}`"),
            Meaning::Text(_) => "a text".into(),
            Meaning::List(_) => "a list".into(),
            Meaning::Tuple(results) => format!("{} results", results.len()),
            Meaning::Stage(stage) => match &**stage {
                Stage::Function(definition) => format!("the function `{}`", definition.ast.name.name),
                Stage::Template(definition) => format!("the layer `{}`", definition.ast.name.name),
                Stage::Builtin(name) => format!("the function `{name}`"),
                Stage::Layer(layer) => format!("the layer `{}`", layer.definition.ast.name.name),
                Stage::Over { .. } | Stage::Sequence { .. } | Stage::Partial { .. } | Stage::Waypoint { .. } => {
                    "a stage".into()
                }
            },
        }
    }
}

/// Marks the names that a failed statement would have bound.
fn poison(scope: &mut Scope, statement: &StatementKind) {
    let mut names: Vec<&str> = Vec::new();
    match statement {
        StatementKind::Input { names: inputs, ty } => {
            names.extend(inputs.iter().map(|name| name.name.as_str()));
            waypoint_names(&ty.dims, &mut names);
        }
        StatementKind::Param { names: params, .. } => names.extend(params.iter().map(|name| name.name.as_str())),
        StatementKind::State(entries) => names.extend(entries.iter().map(|entry| entry.name.name.as_str())),
        StatementKind::Let { name, .. } | StatementKind::Equation { name, .. } | StatementKind::Update { name, .. } => {
            names.push(&name.name);
        }
        StatementKind::Unpack { names: targets, value } => {
            names.extend(targets.iter().map(|name| name.name.as_str()));
            bound_names(value, &mut names);
        }
        StatementKind::Bind { target, value } => {
            names.extend(target.iter().map(|name| name.name.as_str()));
            bound_names(value, &mut names);
        }
        _ => {}
    }
    for name in names {
        if !scope.names.contains_key(name) {
            scope.poisoned.insert(name.to_owned());
        }
    }
}

fn waypoint_names<'e>(dims: &'e [Expr], names: &mut Vec<&'e str>) {
    names.extend(dims.iter().filter_map(|dim| match &dim.kind {
        ExprKind::Name(name) => Some(name.as_str()),
        _ => None,
    }));
}

/// Names that the waypoints of a pipeline would have bound.
fn bound_names<'e>(expr: &'e Expr, names: &mut Vec<&'e str>) {
    match &expr.kind {
        ExprKind::Pipeline { stages, .. } | ExprKind::Residual(stages) => {
            for stage in stages {
                match &stage.value.kind {
                    ExprKind::List(dims) => waypoint_names(dims, names),
                    _ => bound_names(&stage.value, names),
                }
            }
        }
        ExprKind::Conditional { then, otherwise, .. } => {
            bound_names(then, names);
            bound_names(otherwise, names);
        }
        _ => {}
    }
}
