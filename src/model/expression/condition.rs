//! Static conditions: `if`, `require`, and what a model's `require` lets the proofs assume.
//!
//! Input: condition expressions and a scope. Output: truth, errors, assumptions in [`crate::dim::Facts`].
//! Invariant: a condition counts as true or false only when it is so for every admitted assignment of sizes.

use std::collections::BTreeSet;

use super::arithmetic::{comparison, symbol};
use crate::diagnostics::Diagnostic;
use crate::dim::{Compare, Dim, Facts, Verdict};
use crate::graph::scalar;
use crate::model::expander::{Comparison, Expander, Inputs, Meaning, Outcome, Scope};
use crate::source::Span;
use crate::syntax::ast::{BinaryOp, Expr, ExprKind, UnaryOp};

/// Among how many earlier preconditions the one is searched that a new one contradicts.
const MAX_PRECONDITIONS: usize = 64;

impl Expander<'_> {
    /// A static condition: `Some` where it is the same for every admitted size.
    pub(crate) fn truth(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Option<bool>> {
        match &expr.kind {
            ExprKind::Unary(UnaryOp::Not, inner) => Ok(self.truth(scope, inner)?.map(|truth| !truth)),
            ExprKind::Binary(BinaryOp::And, left, right) => match self.truth(scope, left)? {
                Some(false) => Ok(Some(false)),
                Some(true) => self.truth(scope, right),
                None => Ok(if self.truth(scope, right)? == Some(false) { Some(false) } else { None }),
            },
            ExprKind::Binary(BinaryOp::Or, left, right) => match self.truth(scope, left)? {
                Some(true) => Ok(Some(true)),
                Some(false) => self.truth(scope, right),
                None => Ok(if self.truth(scope, right)? == Some(true) { Some(true) } else { None }),
            },
            ExprKind::Binary(op, left, right) => match comparison(*op) {
                Some(relation) => self.comparison(scope, relation, left, right),
                None => self.flag(scope, expr),
            },
            ExprKind::Bool(value) => Ok(Some(*value)),
            _ => self.flag(scope, expr),
        }
    }

    /// An expression that must be a static truth value.
    fn flag(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Option<bool>> {
        match self.expression(scope, expr)? {
            Meaning::Flag(value) => Ok(Some(value)),
            other => self.fail(
                Diagnostic::error("not-static", expr.span, "a static condition is needed here")
                    .at(format!("this is {}", self.describe(&other)))
                    .hint("conditions compare sizes and numbers, or are `training`, `true` or `false`"),
            ),
        }
    }

    fn comparison(&mut self, scope: &mut Scope, relation: Compare, left: &Expr, right: &Expr) -> Outcome<Option<bool>> {
        let a = self.expression(scope, left)?;
        let b = self.expression(scope, right)?;
        if let (Some(a), Some(b)) = (a.as_dim(), b.as_dim()) {
            return Ok(self.facts.always(relation, &a, &b));
        }
        if let (Some(a), Some(b)) = (a.as_number(), b.as_number()) {
            return Ok(Some(scalar::compare(relation, a, b)));
        }
        let equal = match (&a, &b) {
            (Meaning::Flag(a), Meaning::Flag(b)) => Some(a == b),
            (Meaning::Text(a), Meaning::Text(b)) => Some(a == b),
            (Meaning::List(a), Meaning::List(b)) => self.lists_equal(a, b),
            (_, _) => {
                let (a, b) = (self.describe(&a), self.describe(&b));
                return self.fail(
                    Diagnostic::error(
                        "not-static",
                        left.span.to(right.span),
                        "these cannot be compared before run time",
                    )
                    .at(format!("{a} and {b}")),
                );
            }
        };
        match relation {
            Compare::Eq => Ok(equal),
            Compare::Ne => Ok(equal.map(|equal| !equal)),
            Compare::Ge | Compare::Gt | Compare::Le | Compare::Lt => {
                self.refuse("not-static", left.span.to(right.span), "only `==` and `!=` compare these")
            }
        }
    }

    fn lists_equal(&self, a: &[Meaning], b: &[Meaning]) -> Option<bool> {
        if a.len() != b.len() {
            return Some(false);
        }
        let mut all = Some(true);
        for (a, b) in a.iter().zip(b) {
            match (a.as_dim(), b.as_dim()) {
                (Some(a), Some(b)) => match self.facts.always(Compare::Eq, &a, &b) {
                    Some(true) => {}
                    Some(false) => return Some(false),
                    None => all = None,
                },
                (_, _) => all = None,
            }
        }
        all
    }

    /// A condition that must be decided before expansion can go on.
    pub(crate) fn decided(&mut self, scope: &mut Scope, condition: &Expr) -> Outcome<bool> {
        match self.truth(scope, condition)? {
            Some(truth) => Ok(truth),
            None => {
                let text = self.source_text(condition.span).to_owned();
                let values = self.values_text(scope, condition);
                self.fail(
                    Diagnostic::error("undecided", condition.span, "this condition differs from size to size")
                        .at(values)
                        .hint(format!("decide it by `require {text}`, or by giving the sizes as numbers")),
                )
            }
        }
    }

    /// `require condition, "message"`.
    pub(crate) fn require(
        &mut self,
        scope: &mut Scope,
        condition: &Expr,
        message: Option<&str>,
        span: Span,
    ) -> Outcome<()> {
        match self.truth(scope, condition)? {
            Some(true) => Ok(()),
            Some(false) => {
                let mut comparisons = Vec::new();
                let is_free = matches!(scope.inputs, Inputs::Free(_));
                if is_free && self.comparisons(scope, condition, &mut comparisons)? {
                    self.agree(&comparisons, span)?;
                }
                self.require_failed(scope, condition, message, None, span)
            }
            None if matches!(scope.inputs, Inputs::Free(_)) => self.assume(scope, condition, span),
            None => {
                let verdict = self.verdict(scope, condition)?;
                self.require_failed(scope, condition, message, Some(verdict), span)
            }
        }
    }

    fn require_failed<T>(
        &mut self,
        scope: &mut Scope,
        condition: &Expr,
        message: Option<&str>,
        verdict: Option<Verdict>,
        span: Span,
    ) -> Outcome<T> {
        let text = self.source_text(condition.span).to_owned();
        let why = message.map_or_else(|| format!("`{text}` does not hold"), str::to_owned);
        let values = self.values_text(scope, condition);
        let way_out = match self.in_sizes(scope, condition) {
            Some(claim) => format!("add `require {claim}` to the model, or change the sizes"),
            None => "require it in the model in terms of its input sizes".to_string(),
        };
        let diagnostic = match verdict {
            None => Diagnostic::error("require-failed", span, why),
            Some(verdict) => match verdict.counterexample() {
                Some(example) => {
                    Diagnostic::error("require-failed", span, format!("{why}: fails at {example}")).hint(way_out)
                }
                None => Diagnostic::error("undecided", span, format!("cannot prove that `{text}`")).hint(way_out),
            },
        };
        self.fail(diagnostic.at(values))
    }

    /// A comparison in terms of the model's sizes, `H >= 9`, with all numbers on the right.
    fn in_sizes(&mut self, scope: &mut Scope, condition: &Expr) -> Option<String> {
        let ExprKind::Binary(op, left, right) = &condition.kind else { return None };
        comparison(*op)?;
        let left = self.expression(scope, left).ok()?.as_dim()?;
        let right = self.expression(scope, right).ok()?.as_dim()?;
        let number = if right.as_const().is_some() { left.constant_term() } else { 0 };
        let number = Dim::constant(number);
        Some(format!("{} {} {}", left - &number, symbol(*op), right - number))
    }

    /// A counterexample to a condition on sizes that is not decided.
    fn verdict(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Verdict> {
        let ExprKind::Binary(op, left, right) = &expr.kind else { return Ok(Verdict::Undecided) };
        if *op == BinaryOp::And {
            return match self.verdict(scope, left)? {
                Verdict::Refuted(map) => Ok(Verdict::Refuted(map)),
                Verdict::Proved => self.verdict(scope, right),
                Verdict::Undecided => match self.verdict(scope, right)? {
                    Verdict::Refuted(map) => Ok(Verdict::Refuted(map)),
                    Verdict::Proved | Verdict::Undecided => Ok(Verdict::Undecided),
                },
            };
        }
        let Some(relation) = comparison(*op) else { return Ok(Verdict::Undecided) };
        let a = self.expression(scope, left)?.as_dim();
        let b = self.expression(scope, right)?.as_dim();
        Ok(match (a, b) {
            (Some(a), Some(b)) => self.facts.prove(relation, &a, &b),
            (_, _) => Verdict::Undecided,
        })
    }

    /// Lets the proofs use a model's own precondition, where some sizes fit it and the earlier ones.
    fn assume(&mut self, scope: &mut Scope, condition: &Expr, span: Span) -> Outcome<()> {
        let mut comparisons = Vec::new();
        if !self.comparisons(scope, condition, &mut comparisons)? {
            return self.fail(
                Diagnostic::error("undecided", condition.span, "this cannot be used as a precondition")
                    .hint("preconditions are comparisons of sizes joined by `and`"),
            );
        }
        let before = self.facts.clone();
        for (relation, a, b) in &comparisons {
            self.facts.assume(*relation, a, b);
        }
        if self.facts.contradict(&names(&comparisons)) {
            self.facts = before;
            self.agree(&comparisons, span)?;
            let diagnostic = Diagnostic::error("contradictory-require", span, "no sizes satisfy this");
            return self.fail(diagnostic.hint("change it so that some sizes do"));
        }
        self.preconditions.push((span, comparisons));
        Ok(())
    }

    /// The comparisons of sizes that `and` joins here; false where there is something else.
    fn comparisons(&mut self, scope: &mut Scope, expr: &Expr, found: &mut Vec<Comparison>) -> Outcome<bool> {
        let ExprKind::Binary(op, left, right) = &expr.kind else { return Ok(false) };
        if *op == BinaryOp::And {
            return Ok(self.comparisons(scope, left, found)? && self.comparisons(scope, right, found)?);
        }
        let Some(relation) = comparison(*op) else { return Ok(false) };
        let a = self.expression(scope, left)?.as_dim();
        let b = self.expression(scope, right)?.as_dim();
        let (Some(a), Some(b)) = (a, b) else { return Ok(false) };
        found.push((relation, a, b));
        Ok(true)
    }

    /// Reports the first earlier precondition that leaves no sizes to these comparisons.
    fn agree(&mut self, comparisons: &[Comparison], span: Span) -> Outcome<()> {
        let names = names(comparisons);
        let alone = assumed([comparisons]);
        if alone.contradict(&names) {
            return Ok(());
        }
        let mut facts = alone.clone();
        let clash = self.preconditions.iter().take(MAX_PRECONDITIONS).find(|(_, earlier)| {
            for (relation, a, b) in earlier {
                facts.assume(*relation, a, b);
            }
            facts.contradict(&names)
        });
        let Some((place, earlier)) = clash else { return Ok(()) };
        let message = match assumed([comparisons, earlier.as_slice()]).contradict(&names) {
            true => "no sizes satisfy both this and an earlier `require`",
            false => "no sizes satisfy this and the `require` lines above it",
        };
        let diagnostic = Diagnostic::error("contradictory-require", span, message)
            .label(*place, "the earlier one")
            .hint("drop one of them, or change a bound so that both can hold");
        self.fail(diagnostic)
    }

    /// `C = 100, heads = 12`: the sizes and numbers that an expression names.
    pub(crate) fn values_text(&self, scope: &Scope, expr: &Expr) -> String {
        let mut names = BTreeSet::new();
        collect_names(expr, &mut names);
        let shown = names.into_iter().filter_map(|name| {
            let meaning = scope.names.get(&name)?;
            let text = match meaning.as_dim() {
                Some(dim) => dim.to_string(),
                None => match meaning {
                    Meaning::Number(value) => value.to_string(),
                    Meaning::Flag(value) => value.to_string(),
                    Meaning::Text(value) => format!("{value:?}"),
                    Meaning::List(items) => {
                        let dims: Vec<String> =
                            items.iter().filter_map(|item| Some(item.as_dim()?.to_string())).collect();
                        format!("[{}]", dims.join(", "))
                    }
                    _ => return None,
                },
            };
            (text != name).then(|| format!("{name} = {text}"))
        });
        let shown: Vec<String> = shown.collect();
        if shown.is_empty() { String::new() } else { format!("here {}", shown.join(", ")) }
    }

    /// The text under a span.
    pub(crate) fn source_text(&self, span: Span) -> &str {
        let text = &self.project.sources.file(span.file).text;
        text.get(span.start as usize..span.end as usize).unwrap_or("")
    }
}

/// The sizes that comparisons name.
fn names(comparisons: &[Comparison]) -> BTreeSet<String> {
    comparisons.iter().flat_map(|(_, a, b)| a.vars().into_iter().chain(b.vars())).collect()
}

/// These comparisons and nothing else.
fn assumed<'c>(all: impl IntoIterator<Item = &'c [Comparison]>) -> Facts {
    let mut facts = Facts::new();
    for (relation, a, b) in all.into_iter().flatten() {
        facts.assume(*relation, a, b);
    }
    facts
}

/// The plain names of an arithmetic or logical expression.
fn collect_names(expr: &Expr, names: &mut BTreeSet<String>) {
    match &expr.kind {
        ExprKind::Name(name) => drop(names.insert(name.clone())),
        ExprKind::Call { arguments, .. } => arguments.iter().for_each(|part| collect_names(&part.value, names)),
        ExprKind::Unary(..) | ExprKind::Binary(..) | ExprKind::Conditional { .. } | ExprKind::List(_) => {
            expr.parts().into_iter().for_each(|part| collect_names(part, names));
        }
        _ => {}
    }
}

impl Meaning {
    /// A static integer.
    pub(crate) fn as_dim(&self) -> Option<Dim> {
        match self {
            Meaning::Size(dim) => Some(dim.clone()),
            Meaning::Number(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(Dim::constant(*value as i64)),
            _ => None,
        }
    }

    /// A static number.
    pub(crate) fn as_number(&self) -> Option<f64> {
        match self {
            Meaning::Number(value) => Some(*value),
            Meaning::Size(dim) => dim.as_const().map(|value| value as f64),
            _ => None,
        }
    }
}
