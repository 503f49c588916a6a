//! Making stages: calls, pipelines, labels, and the dotted names of weights.
//!
//! Input: stage expressions and a scope. Output: [`Stage`] values, and what flows out of pipelines.
//!
//! Names of weights: a label or a bound name (`conv1: Conv(…)`, `wte = Embedding(…)`) names the stage. An unlabelled
//! stage that owns weights is named after its layer in snake case, with `_2`, `_3`, … from the second on.
//! `chain` and `repeat` number all their members from 0, as PyTorch's `Sequential` does; a label replaces the number.
//! A label may be a number itself, which names the stages of a model that is a `Sequential` on its own: `0.weight`.
//! `{ … }` and `residual { … }` add a level only when they are labelled, and name their stages as a body does.
//!
//! Invariant: within one body every child has its own name, so two weights share a dotted name exactly when they
//! belong to the same bound stage.

use std::rc::Rc;

use crate::diagnostics::Diagnostic;
use crate::model::expander::{Expander, Given, LayerInstance, Meaning, Outcome, Scope, Stage};
use crate::model::expression::has_entries;
use crate::model::project::Definition;
use crate::source::Span;
use crate::syntax::ast::{self, Argument, Expr, ExprKind, Ident};

/// The largest count of a `repeat`.
const MAX_REPEAT: i64 = 10_000;
/// The reductions over named axes.
const OVER: &[(&str, &str)] = &[("mean_over", "mean"), ("max_over", "max"), ("sum_over", "sum")];

/// How a new stage gets its name.
#[derive(Clone, Copy)]
pub(crate) enum Naming<'a> {
    /// A label or bound name.
    Label(&'a Ident),
    /// Snake case of the layer's name, made unique.
    Auto,
    /// Position in a `chain` or `repeat`.
    Number(usize),
}

/// `path.name`, or `name` at the top.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// `LayerNorm` → `layer_norm`, `LSTM` → `lstm`, `Conv2d` → `conv2d`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut previous = '_';
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && (previous.is_ascii_lowercase() || previous.is_ascii_digit()) {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
        previous = letter;
    }
    snake
}

impl Expander<'_> {
    /// A call outside an equation.
    pub(crate) fn call(
        &mut self,
        scope: &mut Scope,
        callee: &Expr,
        arguments: &[Argument],
        span: Span,
    ) -> Outcome<Meaning> {
        if self.is_stage_word(scope, callee) {
            let stage = self.call_stage(scope, callee, arguments, span, Naming::Auto)?;
            return Ok(Meaning::Stage(stage));
        }
        let target = self.expression(scope, callee)?;
        let Meaning::Stage(stage) = target else {
            let what = self.describe(&target);
            return self.fail(
                Diagnostic::error("not-callable", callee.span, "this cannot be called").at(format!("it is {what}")),
            );
        };
        if let Stage::Template(definition) = &*stage {
            let name = callee.as_name().unwrap_or(&definition.ast.name.name).to_owned();
            let given = self.given(scope, arguments)?;
            let made = self.instantiate(scope, definition.clone(), given, &name, span, Naming::Auto)?;
            return Ok(Meaning::Stage(made));
        }
        let given = self.given(scope, arguments)?;
        self.apply(&stage, given, span)
    }

    /// True for a callee that makes a stage rather than a value: `chain`, `mean_over`, …
    fn is_stage_word(&self, scope: &Scope, callee: &Expr) -> bool {
        let ExprKind::Name(name) = &callee.kind else { return false };
        let is_word = name == "chain" || OVER.iter().any(|(word, _)| word == name);
        is_word && !scope.names.contains_key(name) && self.project.find(scope.file, name).is_none()
    }

    /// Evaluates arguments.
    pub(crate) fn given(&mut self, scope: &mut Scope, arguments: &[Argument]) -> Outcome<Vec<Given>> {
        let mut given = Vec::with_capacity(arguments.len());
        for argument in arguments {
            if let Some(label) = &argument.label {
                return self.fail(
                    Diagnostic::error("misplaced-label", label.span, "a label names a stage, and this is an argument")
                        .hint(format!("to name the argument, write `{} = …`", label.name)),
                );
            }
            let value = if scope.entry.is_none() && has_entries(&argument.value) {
                Meaning::List(self.entries(scope, &argument.value)?)
            } else {
                self.expression(scope, &argument.value)?
            };
            given.push(Given { name: argument.name.clone(), value, span: argument.value.span });
        }
        Ok(given)
    }

    /// True where an expression by itself is a stage that `x = …` binds, not a value.
    pub(crate) fn is_stage(&self, scope: &Scope, expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Name(name) => match scope.names.get(name) {
                Some(Meaning::Stage(stage)) => matches!(&**stage, Stage::Template(_)),
                Some(_) => false,
                None => self.names_layer(scope, name),
            },
            ExprKind::Call { callee, .. } => {
                self.is_stage_word(scope, callee)
                    || matches!(&callee.kind, ExprKind::Name(_)) && self.is_stage(scope, callee)
            }
            ExprKind::Residual(_) | ExprKind::Repeat { .. } => true,
            ExprKind::Pipeline { head: None, .. } => true,
            ExprKind::Pipeline { head: Some(head), .. } => self.is_stage(scope, head),
            _ => false,
        }
    }

    fn names_layer(&self, scope: &Scope, name: &str) -> bool {
        self.project.find(scope.file, name).is_some_and(|definition| {
            matches!(definition.ast.kind, ast::DefinitionKind::Layer | ast::DefinitionKind::Model)
        })
    }

    /// `head -> stage -> …`, `{ … }`, `residual { … }`, `repeat(n) …` as expressions.
    pub(crate) fn pipeline(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Meaning> {
        match &expr.kind {
            ExprKind::Pipeline { head: Some(head), stages } if !self.is_stage(scope, head) => {
                let value = self.expression(scope, head)?;
                if let Meaning::Stage(_) = value {
                    return Ok(Meaning::Stage(self.stage(scope, expr, Naming::Auto)?));
                }
                self.flow(scope, value, stages)
            }
            _ => Ok(Meaning::Stage(self.stage(scope, expr, Naming::Auto)?)),
        }
    }

    /// Lets a value flow through stages written in place; waypoints bind names for the stages behind them.
    fn flow(&mut self, scope: &mut Scope, value: Meaning, stages: &[ast::Stage]) -> Outcome<Meaning> {
        let mut value = value;
        for stage in stages {
            value = self.flow_stage(scope, value, stage)?;
        }
        Ok(value)
    }

    fn flow_stage(&mut self, scope: &mut Scope, value: Meaning, stage: &ast::Stage) -> Outcome<Meaning> {
        let span = stage.value.span;
        match (&stage.value.kind, &stage.label) {
            (ExprKind::List(dims), _) => {
                self.spend(span)?;
                let tensor = self.expect_tensor(&Given { name: None, value, span })?;
                self.bind_dims(scope, dims, span, tensor, span)?;
                Ok(Meaning::Tensor(tensor))
            }
            (ExprKind::Residual(stages), None) => {
                let result = self.flow(scope, value.clone(), stages)?;
                self.residual_sum(&value, &result, span)
            }
            (ExprKind::Pipeline { head: None, stages }, None) => self.flow(scope, value, stages),
            (ExprKind::Conditional { then, condition, otherwise }, label) => {
                let branch = if self.decided(scope, condition)? { then } else { otherwise };
                self.flow_stage(scope, value, &ast::Stage { label: label.clone(), value: (**branch).clone() })
            }
            (_, label) => {
                let naming = label.as_ref().map_or(Naming::Auto, Naming::Label);
                let made = self.stage(scope, &stage.value, naming)?;
                self.apply_recorded(scope, &made, value, label.as_ref(), span)
            }
        }
    }

    /// Applies a stage of a pipeline; pure ones get an entry among the layers here, layers make their own.
    fn apply_recorded(
        &mut self,
        scope: &Scope,
        stage: &Rc<Stage>,
        value: Meaning,
        label: Option<&Ident>,
        span: Span,
    ) -> Outcome<Meaning> {
        let name = match &**stage {
            Stage::Function(definition) => Some(definition.ast.name.name.clone()),
            Stage::Builtin(name) => Some((*name).to_owned()),
            Stage::Partial { callee, .. } => match &**callee {
                Stage::Function(definition) => Some(definition.ast.name.name.clone()),
                Stage::Builtin(name) => Some((*name).to_owned()),
                _ => None,
            },
            Stage::Over { reduction, .. } => Some(format!("{reduction}_over")),
            Stage::Template(_) | Stage::Layer(_) | Stage::Sequence { .. } | Stage::Waypoint { .. } => None,
        };
        let given = self.flowing(value, span);
        let Some(name) = name else { return self.apply(stage, given, span) };
        let path = join(&scope.path, label.map_or(&name, |label| &label.name));
        let entry = self.open_entry(path, name, span);
        let result = self.apply(stage, given, span)?;
        self.close_entry(entry, &result);
        Ok(result)
    }

    /// What flows in, as arguments: a tuple gives one each.
    pub(crate) fn flowing(&self, value: Meaning, span: Span) -> Vec<Given> {
        match value {
            Meaning::Tuple(results) => results
                .into_iter()
                .map(|(_, value)| Given { name: None, value: Meaning::Tensor(value), span })
                .collect(),
            value => vec![Given { name: None, value, span }],
        }
    }

    /// Makes a stage of an expression in stage position.
    pub(crate) fn stage(&mut self, scope: &mut Scope, expr: &Expr, naming: Naming) -> Outcome<Rc<Stage>> {
        self.spend(expr.span)?;
        match &expr.kind {
            ExprKind::Call { callee, arguments } => self.call_stage(scope, callee, arguments, expr.span, naming),
            ExprKind::List(dims) => self.waypoint(scope, dims, expr.span),
            ExprKind::Residual(stages) => self.sequence(scope, stages, true, expr.span, naming),
            ExprKind::Pipeline { head: None, stages } => self.sequence(scope, stages, false, expr.span, naming),
            ExprKind::Pipeline { head: Some(head), stages } => {
                let mut all = vec![ast::Stage { label: None, value: (**head).clone() }];
                all.extend(stages.iter().cloned());
                self.sequence(scope, &all, false, expr.span, naming)
            }
            ExprKind::Repeat { count, body } => self.repeat(scope, count, body, expr.span, naming),
            ExprKind::Conditional { then, condition, otherwise } => {
                let branch = if self.decided(scope, condition)? { then } else { otherwise };
                self.stage(scope, branch, naming)
            }
            _ => {
                let meaning = self.expression(scope, expr)?;
                let Meaning::Stage(stage) = meaning else {
                    return self.misfit("not-a-stage", expr.span, "nothing can flow through this", &meaning);
                };
                let Stage::Template(definition) = &*stage else { return Ok(stage) };
                let name = expr.as_name().unwrap_or(&definition.ast.name.name).to_owned();
                self.instantiate(scope, definition.clone(), Vec::new(), &name, expr.span, naming)
            }
        }
    }

    fn call_stage(
        &mut self,
        scope: &mut Scope,
        callee: &Expr,
        arguments: &[Argument],
        span: Span,
        naming: Naming,
    ) -> Outcome<Rc<Stage>> {
        if self.is_stage_word(scope, callee) {
            return match callee.as_name() {
                Some("chain") => self.chain(scope, arguments, span, naming),
                word => {
                    let entry = OVER.iter().find(|(name, _)| Some(*name) == word);
                    let reduction = entry.expect("is_stage_word knows the words").1;
                    self.over(scope, reduction, arguments, span)
                }
            };
        }
        let target = self.expression(scope, callee)?;
        let Meaning::Stage(stage) = target else {
            return self.misfit("not-a-stage", span, "nothing can flow through this", &target);
        };
        let given = self.given(scope, arguments)?;
        if let Stage::Template(definition) = &*stage {
            let name = callee.as_name().unwrap_or(&definition.ast.name.name).to_owned();
            return self.instantiate(scope, definition.clone(), given, &name, span, naming);
        }
        if given.is_empty() {
            return Ok(stage);
        }
        Ok(Rc::new(Stage::Partial { callee: stage, arguments: given, span }))
    }

    /// A layer with its arguments under a new name.
    fn instantiate(
        &mut self,
        scope: &mut Scope,
        definition: Definition,
        given: Vec<Given>,
        written: &str,
        span: Span,
        naming: Naming,
    ) -> Outcome<Rc<Stage>> {
        if let Some(function) = &scope.pure {
            let message = format!("`{function}` is a function, and `{}` may own weights", definition.ast.name.name);
            return self.fail(Diagnostic::error("weights-in-function", span, message).hint("make it a `layer`"));
        }
        let arguments = self.bind_arguments(&definition, given, span)?;
        let path = self.child_path(scope, written, naming, span)?;
        Ok(Rc::new(Stage::Layer(LayerInstance { definition, path, arguments, span })))
    }

    /// Gives out the dotted name of a new child.
    fn child_path(&mut self, scope: &mut Scope, written: &str, naming: Naming, span: Span) -> Outcome<String> {
        let name = match naming {
            Naming::Label(label) => {
                if let Some(first) = scope.children.get(&label.name) {
                    let message = format!("`{}` already names a stage or a weight of this body", label.name);
                    return self
                        .fail(Diagnostic::error("duplicate-name", label.span, message).label(*first, "first use"));
                }
                label.name.clone()
            }
            Naming::Number(number) => {
                let name = number.to_string();
                if let Some(first) = scope.children.get(&name) {
                    let message = format!("the stage at place {name} has the name of a labelled one");
                    let diagnostic = Diagnostic::error("duplicate-name", span, message).label(*first, "labelled here");
                    return self.fail(diagnostic.hint("label all stages of the row, or number them by their places"));
                }
                name
            }
            Naming::Auto => {
                let base = snake_case(written);
                let mut name = base.clone();
                let mut ordinal = 1;
                while scope.children.contains_key(&name) {
                    ordinal += 1;
                    name = format!("{base}_{ordinal}");
                }
                name
            }
        };
        let path = join(&scope.path, &name);
        scope.children.insert(name, span);
        Ok(path)
    }

    /// Runs `make` with `path` as the place for new names.
    fn within<T>(&mut self, scope: &mut Scope, path: String, make: impl FnOnce(&mut Self, &mut Scope) -> T) -> T {
        let outer_path = std::mem::replace(&mut scope.path, path);
        let outer_children = std::mem::take(&mut scope.children);
        let made = make(self, scope);
        scope.path = outer_path;
        scope.children = outer_children;
        made
    }

    fn waypoint(&mut self, scope: &mut Scope, dims: &[Expr], span: Span) -> Outcome<Rc<Stage>> {
        let mut checked = Vec::with_capacity(dims.len());
        for expr in dims {
            match &expr.kind {
                ExprKind::Name(name) if !scope.names.contains_key(name) => checked.push(Err(name.clone())),
                _ => checked.extend(self.dims(scope, std::slice::from_ref(expr))?.into_iter().map(Ok)),
            }
        }
        Ok(Rc::new(Stage::Waypoint { dims: checked, span }))
    }

    /// `{ … }` and `residual { … }` that are bound, labelled or members.
    fn sequence(
        &mut self,
        scope: &mut Scope,
        stages: &[ast::Stage],
        residual: bool,
        span: Span,
        naming: Naming,
    ) -> Outcome<Rc<Stage>> {
        let make = |this: &mut Self, scope: &mut Scope| {
            let mut members = Vec::with_capacity(stages.len());
            for stage in stages {
                let naming = stage.label.as_ref().map_or(Naming::Auto, Naming::Label);
                let name = stage.label.as_ref().map_or_else(String::new, |label| label.name.clone());
                members.push((name, this.stage(scope, &stage.value, naming)?));
            }
            Ok(members)
        };
        let (path, members) = match naming {
            Naming::Auto => (scope.path.clone(), make(self, scope)?),
            Naming::Label(_) | Naming::Number(_) => {
                let path = self.child_path(scope, "block", naming, span)?;
                (path.clone(), self.within(scope, path, make)?)
            }
        };
        Ok(Rc::new(Stage::Sequence { path, members, residual, span }))
    }

    /// `chain(a, label: b, …)`.
    fn chain(&mut self, scope: &mut Scope, arguments: &[Argument], span: Span, naming: Naming) -> Outcome<Rc<Stage>> {
        let path = self.child_path(scope, "chain", naming, span)?;
        let members = self.within(scope, path.clone(), |this, scope| {
            let mut members = Vec::with_capacity(arguments.len());
            for (index, argument) in arguments.iter().enumerate() {
                if let Some(name) = &argument.name {
                    return this.fail(
                        Diagnostic::error("unknown-argument", name.span, "`chain` takes stages only")
                            .hint(format!("to label a stage, write `{}: …`", name.name)),
                    );
                }
                let naming = argument.label.as_ref().map_or(Naming::Number(index), Naming::Label);
                let name = argument.label.as_ref().map_or_else(|| index.to_string(), |label| label.name.clone());
                members.push((name, this.stage(scope, &argument.value, naming)?));
            }
            Ok(members)
        })?;
        Ok(Rc::new(Stage::Sequence { path, members, residual: false, span }))
    }

    /// `repeat(n) stage`.
    fn repeat(
        &mut self,
        scope: &mut Scope,
        count: &Expr,
        body: &Expr,
        span: Span,
        naming: Naming,
    ) -> Outcome<Rc<Stage>> {
        let meaning = self.expression(scope, count)?;
        let times = match meaning.as_number() {
            Some(times) if times.fract() == 0.0 && times >= 0.0 => times,
            _ => {
                return self.misfit(
                    "not-static",
                    count.span,
                    "`repeat` needs a whole number, 0 or more, that is known here",
                    &meaning,
                );
            }
        };
        if times > MAX_REPEAT as f64 {
            return self.refuse("too-large", count.span, format!("`repeat` goes up to {MAX_REPEAT}"));
        }
        let written = match &body.kind {
            ExprKind::Call { callee, .. } => callee.as_name(),
            _ => body.as_name(),
        };
        let path = self.child_path(scope, written.unwrap_or("repeat"), naming, span)?;
        let members = self.within(scope, path.clone(), |this, scope| {
            (0..times as usize)
                .map(|index| Ok((index.to_string(), this.stage(scope, body, Naming::Number(index))?)))
                .collect::<Outcome<Vec<_>>>()
        })?;
        Ok(Rc::new(Stage::Sequence { path, members, residual: false, span }))
    }

    /// `mean_over(H, W)`: the axes at which these sizes were first bound.
    fn over(
        &mut self,
        scope: &mut Scope,
        reduction: &'static str,
        arguments: &[Argument],
        span: Span,
    ) -> Outcome<Rc<Stage>> {
        let mut axes = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let axis = match &argument.value.kind {
                ExprKind::Name(name) => scope.axes.get(name).copied(),
                _ => None,
            };
            let Some(axis) = axis.filter(|_| argument.name.is_none() && argument.label.is_none()) else {
                let known: Vec<String> = scope.axes.keys().map(|name| format!("`{name}`")).collect();
                return self.fail(
                    Diagnostic::error("not-an-axis", argument.value.span, "the name of an axis is needed here").hint(
                        format!(
                            "axes are named where a shape binds their sizes; here {}",
                            if known.is_empty() {
                                "none is".into()
                            } else {
                                format!("these are: {}", sorted(known).join(", "))
                            }
                        ),
                    ),
                );
            };
            if axes.contains(&axis) {
                return self.refuse("not-an-axis", argument.value.span, format!("axis {axis} is named twice"));
            }
            axes.push(axis);
        }
        if axes.is_empty() {
            return self
                .fail(Diagnostic::error("missing-argument", span, "which axes?").hint("name them: `mean_over(H, W)`"));
        }
        axes.sort_unstable();
        Ok(Rc::new(Stage::Over { reduction, axes, span }))
    }

    /// `wte.weight`, `encoder.layer1.weight`, a named result.
    pub(crate) fn field(&mut self, scope: &mut Scope, base: &Expr, name: &Ident, span: Span) -> Outcome<Meaning> {
        let mut members = vec![name];
        let mut root = base;
        while let ExprKind::Field { base, name } = &root.kind {
            members.push(name);
            root = base;
        }
        members.reverse();
        let owner = self.expression(scope, root)?;
        let unknown =
            |what: &str| Diagnostic::error("unknown-member", name.span, format!("{what} has no `{}`", name.name));
        match &owner {
            Meaning::Tuple(results) if members.len() == 1 => {
                match results.iter().find(|(result, _)| *result == name.name) {
                    Some((_, value)) => Ok(Meaning::Tensor(*value)),
                    None => {
                        let known: Vec<String> = results.iter().map(|(result, _)| format!("`{result}`")).collect();
                        self.fail(unknown("this").hint(format!("its results are {}", known.join(", "))))
                    }
                }
            }
            Meaning::Stage(stage) => {
                let path = match &**stage {
                    Stage::Layer(layer) => &layer.path,
                    Stage::Sequence { path, .. } => path,
                    _ => return self.fail(unknown("this stage")),
                };
                let full = members.iter().fold(path.clone(), |path, member| join(&path, &member.name));
                if let Some(value) = self.params.get(&full) {
                    return Ok(Meaning::Tensor(*value));
                }
                if let Some((_, value)) = self.states.get(&full) {
                    return Ok(Meaning::Tensor(*value));
                }
                let prefix = format!("{path}.");
                let mut known: Vec<String> = self
                    .params
                    .keys()
                    .chain(self.states.keys())
                    .filter_map(|known| known.strip_prefix(&prefix))
                    .map(|known| format!("`{known}`"))
                    .collect();
                known.sort();
                let hint = if known.is_empty() {
                    "a stage gets its weights at its first use; use it above this line".to_owned()
                } else {
                    format!("its weights are {}", known.join(", "))
                };
                self.fail(unknown("this stage").hint(hint))
            }
            other => {
                let what = self.describe(other);
                self.refuse("unknown-member", span, format!("{what} has no members"))
            }
        }
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}
