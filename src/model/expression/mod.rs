//! Expressions outside equations: sizes, numbers, flags, lists, whole tensors.
//!
//! Input: a scope and a syntax tree. Output: a [`Meaning`]. Reads with indices and reductions are handed to
//! `equation`, calls and pipelines to `stage`.
//! Invariant: of a condition that is known now, only the chosen side is expanded.

mod arithmetic;
mod builtins;
mod condition;
mod entries;
mod joins;

use crate::diagnostics::Diagnostic;
use crate::dim::Dim;
use crate::graph::{Binary, Clock, Compare, DType, ScalarExpr, ValueId};
use crate::model::expander::{Expander, Meaning, Outcome, Scope};
use crate::source::Span;
use crate::syntax::ast::{BinaryOp, Expr, ExprKind, Suffix};
pub(crate) use arithmetic::{as_formula, as_number, comparison, number_type};
pub(crate) use builtins::{BUILTINS, constant};
pub(crate) use entries::{entry_names, has_entries};

impl Expander<'_> {
    /// The value of any expression outside an equation.
    pub(crate) fn expression(&mut self, scope: &mut Scope, expr: &Expr) -> Outcome<Meaning> {
        match &expr.kind {
            ExprKind::Number { value, suffix, text } => self.number(*value, *suffix, text, expr.span),
            ExprKind::Text(text) => Ok(Meaning::Text(text.clone())),
            ExprKind::Bool(flag) => Ok(Meaning::Flag(*flag)),
            ExprKind::Name(name) => self.resolve(scope, name, expr.span),
            ExprKind::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for item in items {
                    if has_entries(item) {
                        list.extend(self.entries(scope, item)?);
                    } else {
                        list.push(self.expression(scope, item)?);
                    }
                }
                Ok(Meaning::List(list))
            }
            ExprKind::Each(inner) => self.entry_of(scope, inner, expr.span),
            ExprKind::Group(_) => self.refuse(
                "misplaced-group",
                expr.span,
                "`(a b)` stands for a dim of a tensor or of a shape, and this is neither",
            ),
            ExprKind::Call { callee, arguments } => self.call(scope, callee, arguments, expr.span),
            ExprKind::Field { base, name } => self.field(scope, base, name, expr.span),
            ExprKind::Pipeline { .. } | ExprKind::Residual(_) | ExprKind::Repeat { .. } => self.pipeline(scope, expr),
            ExprKind::Index { .. } | ExprKind::Guard { .. } | ExprKind::Reduce { .. } => self.point(scope, expr),
            ExprKind::Unary(op, operand) => {
                let value = self.expression(scope, operand)?;
                self.prefix(*op, &value, expr.span)
            }
            ExprKind::Binary(op, a, b) => self.binary_expression(scope, *op, (a, b), expr.span),
            ExprKind::Conditional { then, condition, otherwise } => match self.expression(scope, condition)? {
                Meaning::Flag(true) => self.expression(scope, then),
                Meaning::Flag(false) => self.expression(scope, otherwise),
                known => {
                    let then = (self.expression(scope, then)?, then.span);
                    let otherwise = (self.expression(scope, otherwise)?, otherwise.span);
                    self.choice((known, condition.span), then, otherwise, expr.span)
                }
            },
        }
    }

    /// The value of a number as written: a size where it is whole and has no decimal point, exponent or unit of its own.
    pub(crate) fn number(&mut self, value: f64, suffix: Option<Suffix>, text: &str, span: Span) -> Outcome<Meaning> {
        let scaled = |factor: f64| {
            let product = value * factor;
            if product.fract() == 0.0 { Meaning::Size(Dim::constant(product as i64)) } else { Meaning::Number(product) }
        };
        let whole = !text.contains(['.', 'e', 'E']);
        if whole && value.abs() > 9e15 {
            return self.refuse("size-overflow", span, "this number is too large to be exact");
        }
        Ok(match suffix {
            None if whole => Meaning::Size(Dim::constant(value as i64)),
            None => Meaning::Number(value),
            Some(Suffix::Steps) => Meaning::Number(value),
            Some(Suffix::Epochs) => Meaning::Scalar(ScalarExpr::Binary(
                Binary::Mul,
                Box::new(ScalarExpr::Const(value)),
                Box::new(ScalarExpr::Clock(Clock::StepsPerEpoch)),
            )),
            Some(Suffix::Minutes) => {
                let diagnostic = Diagnostic::error("bad-value", span, "minutes are known to no model");
                return self.fail(diagnostic.hint("only `save` in a `train` item takes them"));
            }
            Some(Suffix::Deg) => Meaning::Number(value.to_radians()),
            Some(Suffix::Percent) => Meaning::Number(value / 100.0),
            Some(suffix) => scaled(suffix_factor(suffix).unwrap_or(1.0)),
        })
    }

    fn binary_expression(
        &mut self,
        scope: &mut Scope,
        op: BinaryOp,
        sides: (&Expr, &Expr),
        span: Span,
    ) -> Outcome<Meaning> {
        let (a, b) = sides;
        let left = self.expression(scope, a)?;
        match (op, &left) {
            (BinaryOp::And, Meaning::Flag(false)) => return Ok(Meaning::Flag(false)),
            (BinaryOp::Or, Meaning::Flag(true)) => return Ok(Meaning::Flag(true)),
            (BinaryOp::And | BinaryOp::Or, Meaning::Flag(_)) => return self.expression(scope, b),
            _ => {}
        }
        let right = self.expression(scope, b)?;
        match (op, &right) {
            (BinaryOp::And, Meaning::Flag(false)) => return Ok(Meaning::Flag(false)),
            (BinaryOp::Or, Meaning::Flag(true)) => return Ok(Meaning::Flag(true)),
            (BinaryOp::And | BinaryOp::Or, Meaning::Flag(_)) => return Ok(left),
            _ => {}
        }
        if op == BinaryOp::Div && is_literal(a) {
            return self.literal_quotient(&left, &right, (a.span, b.span), span);
        }
        self.infix(op, (&left, a.span), (&right, b.span), span)
    }

    /// `1 / 255`, `1 / C`: a written number is not rounded when it is divided, since nobody means 0. Whole quotients
    /// of numbers that are known stay sizes.
    pub(crate) fn literal_quotient(
        &mut self,
        a: &Meaning,
        b: &Meaning,
        places: (Span, Span),
        span: Span,
    ) -> Outcome<Meaning> {
        let divisor = match b {
            Meaning::Size(dim) => dim.as_const(),
            _ => None,
        };
        let a = match (as_number(a), divisor) {
            (Some(_), Some(0)) | (None, _) => a.clone(),
            (Some(number), Some(divisor)) if number % divisor as f64 == 0.0 => a.clone(),
            (Some(number), _) => Meaning::Number(number),
        };
        self.infix(BinaryOp::Div, (&a, places.0), (b, places.1), span)
    }

    /// `then if condition else otherwise` where the condition is not known now.
    pub(crate) fn choice(
        &mut self,
        condition: (Meaning, Span),
        then: (Meaning, Span),
        otherwise: (Meaning, Span),
        span: Span,
    ) -> Outcome<Meaning> {
        if let (Meaning::Scalar(condition), Some(then), Some(otherwise)) =
            (&condition.0, as_formula(&then.0), as_formula(&otherwise.0))
        {
            let parts = (condition.clone(), then, otherwise);
            return Ok(Meaning::Scalar(ScalarExpr::Select(Box::new(parts.0), Box::new(parts.1), Box::new(parts.2))));
        }
        let mask = self.mask(&condition.0, condition.1)?;
        let like = |value: &Meaning, other: &Meaning, graph: &crate::graph::Graph| match other {
            Meaning::Tensor(id) => number_type(value, graph.value(*id).dtype),
            _ => DType::F32,
        };
        let then_type = like(&then.0, &otherwise.0, &self.graph);
        let otherwise_type = like(&otherwise.0, &then.0, &self.graph);
        let a = self.as_tensor(&then.0, then_type, &[], then.1)?;
        let b = self.as_tensor(&otherwise.0, otherwise_type, &[], otherwise.1)?;
        let (a, b) = self.common_shape(a, b, (then.1, otherwise.1), span)?;
        let (mask, a) = self.common_shape(mask, a, (condition.1, then.1), span)?;
        let (a, b) = self.common_shape(a, b, (then.1, otherwise.1), span)?;
        Ok(Meaning::Tensor(self.select(mask, a, b, span)))
    }

    /// A condition as a Bool tensor.
    pub(crate) fn mask(&mut self, condition: &Meaning, span: Span) -> Outcome<ValueId> {
        match condition {
            Meaning::Tensor(id) if self.graph.value(*id).dtype == DType::Bool => Ok(*id),
            Meaning::Flag(_) => self.as_tensor(condition, DType::Bool, &[], span),
            Meaning::Scalar(_) => {
                let value = self.as_tensor(condition, DType::F32, &[], span)?;
                let zero = self.graph.constant(0.0, &[], DType::F32, span);
                Ok(self.graph.compare(Compare::Ne, value, zero, span))
            }
            other => {
                self.refuse("type-mismatch", span, format!("expected a condition, found {}", self.describe(other)))
            }
        }
    }

    /// Select over equal shapes; the sides get a common type.
    pub(crate) fn select(&mut self, mask: ValueId, a: ValueId, b: ValueId, span: Span) -> ValueId {
        if self.graph.value(a).dtype == self.graph.value(b).dtype {
            return self.graph.select(mask, a, b, span);
        }
        let (a, b) = (self.graph.cast(a, DType::F32, span), self.graph.cast(b, DType::F32, span));
        self.graph.select(mask, a, b, span)
    }
}

/// A number without names in it: digits, and arithmetic on them.
pub(crate) fn is_literal(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Number { .. } => true,
        ExprKind::Unary(_, operand) => is_literal(operand),
        ExprKind::Binary(_, a, b) => is_literal(a) && is_literal(b),
        _ => false,
    }
}

/// What a suffix multiplies a number by; `None` for durations of training.
pub(crate) fn suffix_factor(suffix: Suffix) -> Option<f64> {
    Some(match suffix {
        Suffix::Kilo | Suffix::KB => 1e3,
        Suffix::Mega | Suffix::MB => 1e6,
        Suffix::Giga | Suffix::GB => 1e9,
        Suffix::Tera => 1e12,
        Suffix::KiB => 1024.0,
        Suffix::MiB => 1024.0 * 1024.0,
        Suffix::GiB => 1024.0 * 1024.0 * 1024.0,
        Suffix::B => 1.0,
        Suffix::Deg => std::f64::consts::PI / 180.0,
        Suffix::Percent => 0.01,
        Suffix::Steps | Suffix::Epochs | Suffix::Minutes => return None,
    })
}
