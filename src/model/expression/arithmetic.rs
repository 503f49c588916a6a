//! Operators on values: sizes, numbers, host scalars, flags and tensors.
//!
//! Input: evaluated operands. Output: the result as a [`Meaning`].
//! Rules: sizes stay sizes under `+ - * / %` (`/` rounds down; a written number that is divided counts as a number, see
//! `expression`), numbers are f64, a host scalar stays a formula until it
//! meets a tensor, a symbolic size that meets a real number becomes a tensor. Tensors align at the trailing dim;
//! only a dim that is the constant 1 is repeated, never a size that is not known. Truth values count as 0 and 1
//! in arithmetic; I32 with F32 gives F32; `/` of two I32 tensors rounds down.

use crate::diagnostics::Diagnostic;
use crate::dim::{Dim, Verdict};
use crate::graph::print::shape_text;
use crate::graph::{Affine, Binary, Compare, Contract, DType, Scalar, ScalarExpr, Unary, ValueId, scalar};
use crate::model::expander::{Expander, Meaning, Outcome};
use crate::source::Span;
use crate::syntax::ast::{BinaryOp, UnaryOp};

/// The comparison that an operator stands for.
pub(crate) fn comparison(op: BinaryOp) -> Option<Compare> {
    match op {
        BinaryOp::Lt => Some(Compare::Lt),
        BinaryOp::Le => Some(Compare::Le),
        BinaryOp::Gt => Some(Compare::Gt),
        BinaryOp::Ge => Some(Compare::Ge),
        BinaryOp::Eq => Some(Compare::Eq),
        BinaryOp::Ne => Some(Compare::Ne),
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div | BinaryOp::Rem | BinaryOp::Pow => None,
        BinaryOp::And | BinaryOp::Or => None,
    }
}

/// The elementwise function that an operator other than a comparison stands for.
fn function(op: BinaryOp) -> Option<Binary> {
    match op {
        BinaryOp::Add => Some(Binary::Add),
        BinaryOp::Sub => Some(Binary::Sub),
        BinaryOp::Mul => Some(Binary::Mul),
        BinaryOp::Div => Some(Binary::Div),
        BinaryOp::Rem => Some(Binary::Rem),
        BinaryOp::Pow => Some(Binary::Pow),
        BinaryOp::And => Some(Binary::And),
        BinaryOp::Or => Some(Binary::Or),
        BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => None,
    }
}

/// The operator as it is written.
pub(crate) fn symbol(op: BinaryOp) -> &'static str {
    match (function(op), comparison(op)) {
        (Some(function), _) => scalar::binary_symbol(function).unwrap_or("?"),
        (None, Some(compare)) => scalar::compare_symbol(compare),
        (None, None) => "?",
    }
}

/// A static number as a host formula.
pub(crate) fn as_formula(value: &Meaning) -> Option<ScalarExpr> {
    match value {
        Meaning::Scalar(formula) => Some(formula.clone()),
        Meaning::Number(_) | Meaning::Size(_) | Meaning::Flag(_) => as_number(value).map(ScalarExpr::Const),
        Meaning::Tensor(_) | Meaning::Text(_) | Meaning::List(_) | Meaning::Tuple(_) | Meaning::Stage(_) => None,
    }
}

/// A number that is known now.
pub(crate) fn as_number(value: &Meaning) -> Option<f64> {
    match value {
        Meaning::Number(number) => Some(*number),
        Meaning::Size(dim) => dim.as_const().map(|value| value as f64),
        Meaning::Flag(flag) => Some(scalar::truth(*flag)),
        Meaning::Scalar(ScalarExpr::Const(number)) => Some(*number),
        Meaning::Scalar(_) | Meaning::Tensor(_) | Meaning::Text(_) => None,
        Meaning::List(_) | Meaning::Tuple(_) | Meaning::Stage(_) => None,
    }
}

/// What came out of operands that need no tensor.
enum Folded {
    /// The result.
    Value(Meaning),
    /// A tensor is among them, or a symbolic size meets a real number.
    NeedsTensor,
    /// The operands have no such operator.
    Undefined,
}

impl Expander<'_> {
    /// `-x`, `not x`.
    pub(crate) fn prefix(&mut self, op: UnaryOp, value: &Meaning, span: Span) -> Outcome<Meaning> {
        let result = match (op, value) {
            (UnaryOp::Neg, Meaning::Size(dim)) => Some(Meaning::Size(-dim)),
            (UnaryOp::Neg, Meaning::Number(number)) => Some(Meaning::Number(-number)),
            (UnaryOp::Neg, Meaning::Scalar(formula)) => {
                Some(Meaning::Scalar(ScalarExpr::Unary(Unary::Neg, Box::new(formula.clone()))))
            }
            (UnaryOp::Not, Meaning::Flag(flag)) => Some(Meaning::Flag(!flag)),
            (UnaryOp::Not, Meaning::Scalar(formula)) => {
                Some(Meaning::Scalar(ScalarExpr::Unary(Unary::Not, Box::new(formula.clone()))))
            }
            (UnaryOp::Neg, Meaning::Tensor(id)) => {
                let id = self.number_operand(*id, span);
                Some(Meaning::Tensor(self.graph.unary(Unary::Neg, id, span)))
            }
            (UnaryOp::Not, Meaning::Tensor(id)) if self.graph.value(*id).dtype == DType::Bool => {
                Some(Meaning::Tensor(self.graph.unary(Unary::Not, *id, span)))
            }
            (UnaryOp::Neg | UnaryOp::Not, _) => None,
        };
        match result {
            Some(result) => Ok(result),
            None => {
                let word = if op == UnaryOp::Neg { "-" } else { "not" };
                self.refuse("type-mismatch", span, format!("`{word}` is not defined on {}", self.describe(value)))
            }
        }
    }

    /// `a op b` on values of any kind; `and` and `or` on flags that are both known.
    pub(crate) fn infix(
        &mut self,
        op: BinaryOp,
        a: (&Meaning, Span),
        b: (&Meaning, Span),
        span: Span,
    ) -> Outcome<Meaning> {
        match self.fold(op, a.0, b.0, span)? {
            Folded::Value(value) => Ok(value),
            Folded::NeedsTensor => self.tensors(op, a, b, span).map(Meaning::Tensor),
            Folded::Undefined => {
                let (left, right) = (self.describe(a.0), self.describe(b.0));
                self.refuse("type-mismatch", span, format!("`{}` is not defined on {left} and {right}", symbol(op)))
            }
        }
    }

    fn fold(&mut self, op: BinaryOp, a: &Meaning, b: &Meaning, span: Span) -> Outcome<Folded> {
        Ok(match (a, b) {
            (Meaning::Size(x), Meaning::Size(y)) => Folded::Value(self.sizes(op, x, y, span)?),
            (Meaning::Flag(x), Meaning::Flag(y)) => match op {
                BinaryOp::And => Folded::Value(Meaning::Flag(*x && *y)),
                BinaryOp::Or => Folded::Value(Meaning::Flag(*x || *y)),
                BinaryOp::Eq => Folded::Value(Meaning::Flag(x == y)),
                BinaryOp::Ne => Folded::Value(Meaning::Flag(x != y)),
                _ => Folded::Undefined,
            },
            (Meaning::Text(x), Meaning::Text(y)) => match op {
                BinaryOp::Eq => Folded::Value(Meaning::Flag(x == y)),
                BinaryOp::Ne => Folded::Value(Meaning::Flag(x != y)),
                _ => Folded::Undefined,
            },
            (Meaning::Text(_) | Meaning::List(_) | Meaning::Tuple(_) | Meaning::Stage(_), _)
            | (_, Meaning::Text(_) | Meaning::List(_) | Meaning::Tuple(_) | Meaning::Stage(_)) => Folded::Undefined,
            (Meaning::Tensor(_), _) | (_, Meaning::Tensor(_)) => Folded::NeedsTensor,
            (_, _) => self.numbers(op, a, b),
        })
    }

    fn sizes(&mut self, op: BinaryOp, a: &Dim, b: &Dim, span: Span) -> Outcome<Meaning> {
        if matches!(op, BinaryOp::Div | BinaryOp::Rem) && b.as_const() == Some(0) {
            return self.refuse("bad-operand", span, "a size is divided by zero");
        }
        let result = match op {
            BinaryOp::Add => a + b,
            BinaryOp::Sub => a - b,
            BinaryOp::Mul => a * b,
            BinaryOp::Div => a.floor_div(b),
            BinaryOp::Rem => a.rem(b),
            BinaryOp::Pow => match b.as_const() {
                Some(power @ 0..=64) => (0..power).fold(Dim::constant(1), |product, _| product * a),
                Some(power) if let Some(base) = a.as_const() => {
                    return Ok(Meaning::Number((base as f64).powf(power as f64)));
                }
                _ => return self.refuse("bad-operand", span, "the power of a size must be a number"),
            },
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge | BinaryOp::Eq | BinaryOp::Ne => {
                let relation = comparison(op).expect("these operators compare");
                return self.decide(relation, a, b, span).map(Meaning::Flag);
            }
            BinaryOp::And | BinaryOp::Or => {
                return self.refuse("type-mismatch", span, "sizes are not truth values");
            }
        };
        if result.is_overflow() {
            return self.refuse("size-overflow", span, "this size is too large");
        }
        Ok(Meaning::Size(result))
    }

    /// A comparison of sizes that must have the same answer for every admitted assignment.
    pub(crate) fn decide(&mut self, relation: Compare, a: &Dim, b: &Dim, span: Span) -> Outcome<bool> {
        if let Some(answer) = self.facts.always(relation, a, b) {
            return Ok(answer);
        }
        let claim = format!("{a} {} {b}", scalar::compare_symbol(relation));
        let mut diagnostic =
            Diagnostic::error("undecided", span, format!("`{claim}` holds for some sizes and not for others"));
        if let Verdict::Undecided = self.facts.prove(relation, a, b) {
            diagnostic.message = format!("cannot prove or refute `{claim}`");
        }
        self.fail(diagnostic.hint(format!("settle it by `require {claim}`")))
    }

    fn numbers(&mut self, op: BinaryOp, a: &Meaning, b: &Meaning) -> Folded {
        if let (Some(x), Some(y)) = (as_number(a), as_number(b))
            && !matches!((a, b), (Meaning::Scalar(_), _) | (_, Meaning::Scalar(_)))
        {
            return Folded::Value(match (function(op), comparison(op)) {
                (Some(Binary::And | Binary::Or), _) | (None, None) => return Folded::Undefined,
                (Some(op), _) => Meaning::Number(scalar::binary(op, x, y)),
                (None, Some(op)) => Meaning::Flag(scalar::compare(op, x, y)),
            });
        }
        let (Some(x), Some(y)) = (as_formula(a), as_formula(b)) else { return Folded::NeedsTensor };
        Folded::Value(Meaning::Scalar(match (function(op), comparison(op)) {
            (Some(op), _) => ScalarExpr::Binary(op, Box::new(x), Box::new(y)),
            (None, Some(op)) => ScalarExpr::Compare(op, Box::new(x), Box::new(y)),
            (None, None) => return Folded::Undefined,
        }))
    }

    fn tensors(&mut self, op: BinaryOp, a: (&Meaning, Span), b: (&Meaning, Span), span: Span) -> Outcome<ValueId> {
        if let (BinaryOp::Pow, Meaning::Tensor(base), Some(exponent)) = (op, a.0, as_number(b.0)) {
            return self.power(*base, exponent, span);
        }
        let (x, y) = match (a.0, b.0) {
            (Meaning::Tensor(x), Meaning::Tensor(y)) => self.common_shape(*x, *y, (a.1, b.1), span)?,
            (Meaning::Tensor(x), other) => (*x, self.filled_like(other, *x, b.1)?),
            (other, Meaning::Tensor(y)) => (self.filled_like(other, *y, a.1)?, *y),
            (x, y) => (self.as_tensor(x, DType::F32, &[], a.1)?, self.as_tensor(y, DType::F32, &[], b.1)?),
        };
        self.elementwise(op, x, y, span)
    }

    /// A number as a tensor of the shape of `like`, in the type that meets it without a conversion where possible.
    fn filled_like(&mut self, value: &Meaning, like: ValueId, span: Span) -> Outcome<ValueId> {
        let shape = self.graph.shape(like).to_vec();
        let dtype = number_type(value, self.graph.value(like).dtype);
        self.as_tensor(value, dtype, &shape, span)
    }

    /// A tensor of this shape; a number fills it. A tensor must have the shape already.
    pub(crate) fn as_tensor(&mut self, value: &Meaning, dtype: DType, shape: &[Dim], span: Span) -> Outcome<ValueId> {
        match value {
            Meaning::Tensor(id) => Ok(*id),
            Meaning::Number(number) => Ok(self.graph.constant(*number, shape, dtype, span)),
            Meaning::Flag(flag) => Ok(self.graph.constant(scalar::truth(*flag), shape, dtype, span)),
            Meaning::Size(dim) if dtype == DType::I32 && dim.as_const().is_some_and(|n| i32::try_from(n).is_err()) => {
                self.refuse("size-overflow", span, format!("{dim} does not fit an integer of 32 bits"))
            }
            Meaning::Size(dim) => Ok(match dim.as_const() {
                Some(number) => self.graph.constant(number as f64, shape, dtype, span),
                None => self.graph.size(dim.clone(), shape, dtype, span),
            }),
            Meaning::Scalar(formula) => {
                let id = self.host_scalar(formula, span);
                Ok(self.repeated(id, shape, span))
            }
            Meaning::Text(_) | Meaning::List(_) | Meaning::Tuple(_) | Meaning::Stage(_) => {
                let message = format!("expected a tensor or a number, found {}", self.describe(value));
                self.refuse("type-mismatch", span, message)
            }
        }
    }

    /// The host scalar of this formula, declared once per graph.
    fn host_scalar(&mut self, formula: &ScalarExpr, span: Span) -> ValueId {
        if let ScalarExpr::Const(number) = formula {
            return self.graph.constant(*number, &[], DType::F32, span);
        }
        match self.graph.scalars.iter().position(|scalar| scalar.expr == *formula) {
            Some(index) => self.graph.read_scalar(crate::graph::ScalarId(index as u32), span),
            None => {
                let name = format!("scalar{}", self.graph.scalars.len());
                self.graph.scalar(Scalar { name, expr: formula.clone() }, span)
            }
        }
    }

    /// A rank-0 tensor at every element of `shape`.
    pub(crate) fn repeated(&mut self, value: ValueId, shape: &[Dim], span: Span) -> ValueId {
        if shape.is_empty() { value } else { self.graph.broadcast(value, shape, &[], span) }
    }

    /// `a op b` for tensors of the same shape; types are promoted.
    pub(crate) fn elementwise(&mut self, op: BinaryOp, a: ValueId, b: ValueId, span: Span) -> Outcome<ValueId> {
        let types = (self.graph.value(a).dtype, self.graph.value(b).dtype);
        if let BinaryOp::And | BinaryOp::Or = op
            && types != (DType::Bool, DType::Bool)
        {
            let (left, right) = (self.describe(&Meaning::Tensor(a)), self.describe(&Meaning::Tensor(b)));
            let message = format!("`{}` needs truth values, found {left} and {right}", symbol(op));
            return self.refuse("type-mismatch", span, message);
        }
        let common = match (types, op) {
            ((DType::Bool, DType::Bool), BinaryOp::And | BinaryOp::Or | BinaryOp::Eq | BinaryOp::Ne) => DType::Bool,
            ((DType::I32, DType::I32), _) if op != BinaryOp::Pow => DType::I32,
            _ => DType::F32,
        };
        let (a, b) = (self.graph.cast(a, common, span), self.graph.cast(b, common, span));
        Ok(match (function(op), comparison(op)) {
            (Some(op), _) => self.graph.binary(op, a, b, span),
            (None, Some(op)) => self.graph.compare(op, a, b, span),
            (None, None) => unreachable!("every operator is a function or a comparison"),
        })
    }

    /// `x ^ exponent` for a known exponent: products for small integers, roots for halves.
    pub(crate) fn power(&mut self, x: ValueId, exponent: f64, span: Span) -> Outcome<ValueId> {
        let x = self.number_operand(x, span);
        let shape = self.graph.shape(x).to_vec();
        let dtype = self.graph.value(x).dtype;
        if exponent == 0.0 {
            return Ok(self.graph.constant(1.0, &shape, dtype, span));
        }
        if exponent.fract() == 0.0 && (1.0..=16.0).contains(&exponent) {
            return Ok(self.whole_power(x, exponent as u32, span));
        }
        let x = self.graph.cast(x, DType::F32, span);
        if exponent < 0.0 {
            let one = self.graph.constant(1.0, &shape, DType::F32, span);
            let positive = self.power(x, -exponent, span)?;
            return Ok(self.graph.binary(Binary::Div, one, positive, span));
        }
        if exponent == 0.5 {
            return Ok(self.graph.unary(Unary::Sqrt, x, span));
        }
        let exponent = self.graph.constant(exponent, &shape, DType::F32, span);
        Ok(self.graph.binary(Binary::Pow, x, exponent, span))
    }

    fn whole_power(&mut self, x: ValueId, exponent: u32, span: Span) -> ValueId {
        if exponent == 1 {
            return x;
        }
        let half = self.whole_power(x, exponent / 2, span);
        let square = self.graph.binary(Binary::Mul, half, half, span);
        if exponent.is_multiple_of(2) { square } else { self.graph.binary(Binary::Mul, square, x, span) }
    }

    /// Truth values as 0 and 1; numbers as they are.
    pub(crate) fn number_operand(&mut self, x: ValueId, span: Span) -> ValueId {
        match self.graph.value(x).dtype {
            DType::Bool => self.graph.cast(x, DType::F32, span),
            DType::F32 | DType::I32 => x,
        }
    }

    /// Both tensors in their common shape: aligned at the trailing dim, constant dims of 1 repeated.
    pub(crate) fn common_shape(
        &mut self,
        a: ValueId,
        b: ValueId,
        places: (Span, Span),
        span: Span,
    ) -> Outcome<(ValueId, ValueId)> {
        let (left, right) = (self.graph.shape(a).to_vec(), self.graph.shape(b).to_vec());
        if left == right {
            return Ok((a, b));
        }
        let rank = left.len().max(right.len());
        let one = Dim::constant(1);
        let mut shape = Vec::with_capacity(rank);
        for axis in 0..rank {
            let dim = |dims: &[Dim]| (axis + dims.len()).checked_sub(rank).map(|axis| dims[axis].clone());
            let merged = match (dim(&left), dim(&right)) {
                (Some(x), Some(y)) if x == y || y == one => x,
                (Some(x), Some(y)) if x == one => y,
                (Some(x), Some(y)) => match self.facts.prove_eq(&x, &y) {
                    Verdict::Proved => x,
                    verdict => return self.unequal((a, b), (&x, &y), verdict, places, span),
                },
                (Some(x), None) | (None, Some(x)) => x,
                (None, None) => unreachable!("the rank is that of one of the two"),
            };
            shape.push(merged);
        }
        Ok((self.onto(a, &shape, span), self.onto(b, &shape, span)))
    }

    fn unequal<T>(
        &mut self,
        values: (ValueId, ValueId),
        dims: (&Dim, &Dim),
        verdict: Verdict,
        places: (Span, Span),
        span: Span,
    ) -> Outcome<T> {
        let text = |id| shape_text(self.graph.shape(id));
        let (left, right) = (text(values.0), text(values.1));
        let mut diagnostic =
            Diagnostic::error("shape-mismatch", span, format!("{left} and {right} do not fit together"))
                .label(places.0, format!("this is {left}"))
                .label(places.1, format!("this is {right}"));
        for (value, shape) in [(values.0, &left), (values.1, &right)] {
            let born = self.birth(value);
            if born != places.0 && born != places.1 && born != span {
                diagnostic = diagnostic.label(born, format!("gives {shape}"));
            }
        }
        if let Some(example) = verdict.counterexample() {
            diagnostic = diagnostic.hint(format!("{} and {} differ at {example}", dims.0, dims.1));
        } else if verdict == Verdict::Undecided {
            diagnostic.code = "undecided";
            diagnostic.message = format!("cannot prove that {} equals {}", dims.0, dims.1);
            diagnostic = diagnostic.hint(format!("settle it by `require {} == {}`", dims.0, dims.1));
        }
        self.fail(diagnostic)
    }

    /// `x` repeated to `shape`; dims of `x` are 1 or provably those of `shape`, aligned at the end.
    fn onto(&mut self, x: ValueId, shape: &[Dim], span: Span) -> ValueId {
        let from = self.graph.shape(x).to_vec();
        if from == shape {
            return x;
        }
        let skip = shape.len() - from.len();
        let one = Dim::constant(1);
        let read = |(axis, dim): (usize, &Dim)| {
            if *dim == one && shape[axis + skip] != one { Affine::constant(0) } else { Affine::index(axis + skip) }
        };
        let operand = from.iter().enumerate().map(read).collect();
        let output = (0..shape.len()).map(Affine::index).collect();
        let contract = Contract { domain: shape.to_vec(), operands: vec![operand], output };
        self.graph.contract(contract, &[x], shape, span)
    }
}

/// The type a static number takes beside a tensor of type `other`.
pub(crate) fn number_type(value: &Meaning, other: DType) -> DType {
    match (value, other) {
        (Meaning::Flag(_), DType::Bool) => DType::Bool,
        (Meaning::Size(_), DType::I32) => DType::I32,
        (_, _) => DType::F32,
    }
}
