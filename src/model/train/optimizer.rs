//! The optimizer's body, expanded once per parameter, and the schedule of its learning rate.
//!
//! Input: a step graph with gradients. Output: updates of the parameters and of the optimizer's states (`PARAM.m`).
//! In the body, `grad`, `param` and `step` (the number of this optimizer step, from 1) are bound; a name that `<-` has given
//! a new value has it from there on. Numbers and `step` stay host formulas in f64 until they meet a tensor.
//!
//! Learning rate: the argument `lr` times the schedule's factor, under the host scalar `lr`. At optimizer step t the factor is
//! taken after t − 1 completed steps, as with PyTorch's LambdaLR, whose first step uses the factor of 0.
//! A schedule is a row of stages. Each takes the stretch that its argument `length` says (0, the default of the library's:
//! the rest); only the last may take the rest. In a stage's body `step` counts completed steps of its stretch, `epoch` is
//! that in epochs, and `progress` is `step / length` within [0, 1].

use std::collections::HashMap;

use super::Resolved;
use super::item::{TrainItem, model_name};
use crate::diagnostics::Diagnostic;
use crate::graph::{
    Binary, Clock, Compare, Graph, Op, ParamId, Scalar, ScalarExpr, StateKind, ValueId, Variable, verify,
};
use crate::model::expander::{Expander, Given, Meaning, Mode, Outcome, Reported, Scope, with_room};
use crate::model::expression::as_formula;
use crate::model::project::Definition;
use crate::source::Span;
use crate::syntax::ast::{self, DefinitionKind, Expr, ExprKind, Ident};

/// The name of the learning rate: an optimizer's argument, and the host scalar that runs record.
const LR: &str = "lr";

/// The learning rate of a `train` item.
pub(super) struct Rate {
    pub formula: ScalarExpr,
    /// Where the optimizer is named.
    pub span: Span,
    /// Where each stage of the schedule stands, and after how many steps it ends.
    pub stages: Vec<(Span, ScalarExpr)>,
}

/// Adds the updates of the training's optimizer to `graph`.
///
/// # Errors
/// What is wrong with the optimizer, its arguments or the schedule.
pub fn apply_optimizer(
    training: &Resolved,
    graph: &mut Graph,
    gradients: &[(ParamId, ValueId)],
) -> Result<(), Vec<Diagnostic>> {
    with_room(|| {
        let mut expander = Expander::new(&training.project, Mode::Train);
        expander.graph = std::mem::take(graph);
        let outcome = expander.optimize(&training.item, gradients);
        *graph = expander.graph;
        match outcome {
            Ok(()) if !expander.diagnostics.iter().any(Diagnostic::is_error) => {
                debug_assert_eq!(verify::verify(graph), Ok(()), "an optimizer's graph passes the verifier");
                Ok(())
            }
            Ok(()) | Err(Reported) => Err(expander.diagnostics),
        }
    })
}

fn binary(op: Binary, a: ScalarExpr, b: ScalarExpr) -> ScalarExpr {
    if let (ScalarExpr::Const(a), ScalarExpr::Const(b)) = (&a, &b) {
        return ScalarExpr::Const(crate::graph::scalar::binary(op, *a, *b));
    }
    ScalarExpr::Binary(op, Box::new(a), Box::new(b))
}

/// A call by name, or a name, with its arguments.
fn called(expr: &Expr) -> (&str, &[ast::Argument]) {
    let (callee, arguments) = expr.as_call();
    (model_name(callee), arguments)
}

impl Expander<'_> {
    fn optimize(&mut self, item: &TrainItem, gradients: &[(ParamId, ValueId)]) -> Outcome<()> {
        let Some(expr) = item.get("optimizer") else {
            return self.refuse("missing-key", item.model.span, "the `train` item says no `optimizer`");
        };
        let (definition, given) = self.called_item(item, expr, DefinitionKind::Optimizer)?;
        let mut arguments = self.bind_arguments(&definition, given, expr.span)?;
        if let Some(rate) = self.rate_of(item, expr, &definition, &arguments)? {
            self.graph.scalars.push(Scalar { name: LR.into(), expr: rate.formula.clone() });
            let meaning = match rate.formula {
                ScalarExpr::Const(number) => Meaning::Number(number),
                formula => Meaning::Scalar(formula),
            };
            arguments.insert(LR.into(), meaning);
        }
        let mut reads: HashMap<ParamId, ValueId> = HashMap::new();
        for (id, value) in self.graph.values() {
            if let Op::Param(param) = value.op {
                reads.entry(param).or_insert(id);
            }
        }
        for (param, gradient) in gradients {
            let read = reads.get(param).copied();
            self.update_parameter(&definition, &arguments, (*param, read), *gradient, expr.span)?;
        }
        Ok(())
    }

    /// The learning rate of an item; none where its optimizer has none.
    pub(super) fn rate(&mut self, item: &TrainItem) -> Outcome<Option<Rate>> {
        let Some(expr) = item.get("optimizer") else { return Ok(None) };
        let (definition, given) = self.called_item(item, expr, DefinitionKind::Optimizer)?;
        let arguments = self.bind_arguments(&definition, given, expr.span)?;
        self.rate_of(item, expr, &definition, &arguments)
    }

    fn rate_of(
        &mut self,
        item: &TrainItem,
        expr: &Expr,
        definition: &Definition,
        arguments: &HashMap<String, Meaning>,
    ) -> Outcome<Option<Rate>> {
        let schedule = item.get("schedule").map(|schedule| self.schedule(item, schedule)).transpose()?;
        let Some(rate) = arguments.get(LR) else {
            if schedule.is_none() {
                return Ok(None);
            }
            let name = &definition.ast.name.name;
            let message = format!("`{name}` has no argument `lr` for the schedule to act on");
            return self.refuse("unknown-argument", expr.span, message);
        };
        let Some(base) = as_formula(rate) else {
            let message = format!("the learning rate is a number, not {}", self.describe(rate));
            return self.refuse("type-mismatch", expr.span, message);
        };
        let (formula, stages) = match schedule {
            Some((factor, stages)) => (binary(Binary::Mul, base, factor), stages),
            None => (base, Vec::new()),
        };
        Ok(Some(Rate { formula, span: expr.span, stages }))
    }

    pub(crate) fn update_parameter(
        &mut self,
        definition: &Definition,
        arguments: &HashMap<String, Meaning>,
        (param, read): (ParamId, Option<ValueId>),
        gradient: ValueId,
        span: Span,
    ) -> Outcome<()> {
        let declared = self.graph.params[param.0 as usize].clone();
        let value = read.unwrap_or_else(|| self.graph.read_param(param, declared.span));
        self.nested(definition, arguments, span, |this| {
            let mut scope = Scope::new(definition.file, declared.name.clone());
            scope.pure = Some(definition.ast.name.name.clone());
            scope.bind_parameters(definition, arguments);
            let name = |name: &str| Ident { name: name.into(), span };
            scope.bind(&name("grad"), Meaning::Tensor(gradient));
            scope.bind(&name("param"), Meaning::Tensor(value));
            scope.bind(&name("step"), Meaning::Scalar(ScalarExpr::Clock(Clock::Step)));
            scope.targets.insert("param".into(), Variable::Param(param));
            scope.state_kind = Some(StateKind::Optimizer(param));
            scope.state_shape = declared.shape.clone();
            this.statements(&mut scope, &definition.ast.body).map(|_| ())
        })
    }

    /// The definition that a line calls, with its evaluated arguments.
    fn called_item(
        &mut self,
        item: &TrainItem,
        expr: &Expr,
        kind: DefinitionKind,
    ) -> Outcome<(Definition, Vec<Given>)> {
        let (name, arguments) = called(expr);
        let definition = match self.project.find(item.file, name) {
            Some(definition) if definition.ast.kind == kind => definition,
            Some(_) | None => return self.unknown_item(item.file, name, expr.span, kind),
        };
        let mut scope = Scope::new(item.file, String::new());
        let given = self.given(&mut scope, arguments)?;
        Ok((definition, given))
    }

    /// The factor on the learning rate as a formula over the clock, and the end of each stage.
    fn schedule(&mut self, item: &TrainItem, expr: &Expr) -> Outcome<(ScalarExpr, Vec<(Span, ScalarExpr)>)> {
        let stages: Vec<&Expr> = match &expr.kind {
            ExprKind::Pipeline { head, stages } => {
                head.iter().map(AsRef::as_ref).chain(stages.iter().map(|stage| &stage.value)).collect()
            }
            _ => vec![expr],
        };
        // Completed steps: one less than the number of this step.
        let done = binary(Binary::Sub, ScalarExpr::Clock(Clock::Step), ScalarExpr::Const(1.0));
        let mut start = ScalarExpr::Const(0.0);
        let mut parts: Vec<(ScalarExpr, ScalarExpr)> = Vec::new();
        for (position, stage) in stages.iter().enumerate() {
            let last = position + 1 == stages.len();
            let (definition, given) = self.called_item(item, stage, DefinitionKind::Schedule)?;
            let arguments = self.bind_arguments(&definition, given, stage.span)?;
            let stretch = arguments.get("length").and_then(as_formula);
            let length = match stretch {
                Some(length) if length != ScalarExpr::Const(0.0) => length,
                Some(_) | None if last => binary(Binary::Sub, ScalarExpr::Clock(Clock::TotalSteps), start.clone()),
                Some(_) | None => {
                    let message = "only the last stage of a schedule may take the rest";
                    let diagnostic = Diagnostic::error("missing-argument", stage.span, message);
                    return self.fail(diagnostic.hint("say how long it lasts: `length = 500 steps`"));
                }
            };
            let local = binary(Binary::Sub, done.clone(), start.clone());
            let value = self.schedule_stage(&definition, arguments, &local, &length, stage.span)?;
            start = binary(Binary::Add, start, length);
            parts.push((start.clone(), value));
        }
        let ends = stages.iter().zip(&parts).map(|(stage, (end, _))| (stage.span, end.clone())).collect();
        let Some((_, mut factor)) = parts.pop() else {
            return self.refuse("bad-value", expr.span, "this is no schedule");
        };
        for (end, value) in parts.into_iter().rev() {
            let before = ScalarExpr::Compare(Compare::Lt, Box::new(done.clone()), Box::new(end));
            factor = ScalarExpr::Select(Box::new(before), Box::new(value), Box::new(factor));
        }
        Ok((factor, ends))
    }

    pub(crate) fn schedule_stage(
        &mut self,
        definition: &Definition,
        mut arguments: std::collections::HashMap<String, Meaning>,
        local: &ScalarExpr,
        length: &ScalarExpr,
        span: Span,
    ) -> Outcome<ScalarExpr> {
        let floor = binary(Binary::Max, length.clone(), ScalarExpr::Const(1.0));
        let ratio = binary(Binary::Div, local.clone(), floor);
        let progress = binary(Binary::Min, binary(Binary::Max, ratio, ScalarExpr::Const(0.0)), ScalarExpr::Const(1.0));
        let epoch = binary(Binary::Div, local.clone(), ScalarExpr::Clock(Clock::StepsPerEpoch));
        arguments.insert("length".into(), Meaning::Scalar(length.clone()));
        let result = self.nested(definition, &arguments, span, |this| {
            let mut scope = Scope::new(definition.file, String::new());
            scope.pure = Some(definition.ast.name.name.clone());
            let bound = [("progress", progress), ("epoch", epoch), ("step", local.clone())];
            for (name, formula) in bound {
                scope.bind(&Ident { name: name.into(), span }, Meaning::Scalar(formula));
            }
            for (name, meaning) in &arguments {
                scope.bind(&Ident { name: name.clone(), span }, meaning.clone());
            }
            this.statements(&mut scope, &definition.ast.body)
        })?;
        match result.as_ref().and_then(as_formula) {
            Some(formula) => Ok(formula),
            None => {
                let found = result.map_or_else(|| "nothing".into(), |found| self.describe(&found));
                let message = format!("a schedule gives a factor on the learning rate, not {found}");
                self.refuse("type-mismatch", span, message)
            }
        }
    }
}
