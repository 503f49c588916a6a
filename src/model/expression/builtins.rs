//! The built-in functions and constants: what the language cannot say in itself.
//!
//! Input: evaluated arguments. Output: the result as a [`Meaning`]; known numbers and host scalars stay what they are.
//! Invariant: each name of [`BUILTINS`] has exactly one arm in [`Expander::builtin`].

use super::arithmetic::{as_formula, as_number};
use crate::diagnostics::Diagnostic;
use crate::dim::{Dim, Verdict};
use crate::grad;
use crate::graph::print::shape_text;
use crate::graph::{Binary, DType, ScalarExpr, Unary, ValueId, scalar};
use crate::model::expander::{Expander, Given, Meaning, Outcome};
use crate::source::Span;
use crate::syntax::ast::BinaryOp;

/// The built-in functions:
///
/// | call | meaning |
/// |---|---|
/// | `exp log sqrt sin cos tanh sigmoid erf floor abs` of `x` | elementwise |
/// | `min(a, b)`, `max(a, b)`, `pow(a, b)` | elementwise |
/// | `stop_gradient(x)` | `x` without a gradient |
/// | `gradient(s, x)` | the derivative of the scalar `s` by each element of `x`, of the shape of `x` |
/// | `f32(x)`, `i32(x)` | conversion; to `i32` by truncation |
/// | `range(S)` | `0, 1, …, S - 1` as `i32[S]` |
/// | `uniform(like = x)` | U[0, 1) of the shape of `x`; in an equation `uniform()` draws one for each point |
/// | `reshape(x, [dims])` | the same elements, row-major |
/// | `flatten(x)` | `[N, rest]` |
/// | `concat(a, b, …, axis = 1)` | joined along an axis |
/// | `split(x, 3, axis = 1)`, `split(x, [12, 4])` | parts along an axis, as many as are said or of these sizes |
/// | `slice(x, from, to, axis = 1)` | the places `from` … `to - 1` of an axis |
/// | `vector(list)` | the list's numbers as `[n]` |
/// | `passed(list, x)` | how many numbers of the list are ≤ `x` |
/// | `within(x, S)` | integers as they are, held to 0 … S - 1 as indices of a dim of S places are |
/// | `size(x, axis)`, `rank(x)`, `shape(x)` | a dim, the number of dims (of a list 1, of a number 0), all dims |
pub(crate) const BUILTINS: &[&str] = &[
    "exp",
    "log",
    "sqrt",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "erf",
    "floor",
    "abs",
    "min",
    "max",
    "pow",
    "stop_gradient",
    "gradient",
    "f32",
    "i32",
    "range",
    "uniform",
    "reshape",
    "flatten",
    "concat",
    "split",
    "slice",
    "size",
    "rank",
    "shape",
    "vector",
    "passed",
    "within",
];

/// The built-in constants `pi` and `inf`.
pub(crate) fn constant(name: &str) -> Option<Meaning> {
    match name {
        "pi" => Some(Meaning::Number(std::f64::consts::PI)),
        "inf" => Some(Meaning::Number(f64::INFINITY)),
        _ => None,
    }
}

fn unary_function(name: &str) -> Option<Unary> {
    Some(match name {
        "exp" => Unary::Exp,
        "log" => Unary::Log,
        "sqrt" => Unary::Sqrt,
        "sin" => Unary::Sin,
        "cos" => Unary::Cos,
        "tanh" => Unary::Tanh,
        "sigmoid" => Unary::Sigmoid,
        "erf" => Unary::Erf,
        "floor" => Unary::Floor,
        "abs" => Unary::Abs,
        _ => return None,
    })
}

impl Expander<'_> {
    /// Applies the built-in `name`, one of [`BUILTINS`].
    pub(crate) fn builtin(&mut self, name: &'static str, arguments: Vec<Given>, span: Span) -> Outcome<Meaning> {
        if let Some(op) = unary_function(name) {
            let [x] = self.arguments(name, arguments, ["x"], span)?;
            return self.elementwise_function(op, &x, span);
        }
        match name {
            "min" | "max" | "pow" => {
                let [a, b] = self.arguments(name, arguments, ["a", "b"], span)?;
                match name {
                    "pow" => self.infix(BinaryOp::Pow, (&a.value, a.span), (&b.value, b.span), span),
                    "min" => self.extreme(Binary::Min, &a, &b, span),
                    _ => self.extreme(Binary::Max, &a, &b, span),
                }
            }
            "stop_gradient" => {
                let [x] = self.arguments(name, arguments, ["x"], span)?;
                match x.value {
                    Meaning::Tensor(id) => Ok(Meaning::Tensor(self.graph.detach(id, span))),
                    other => Ok(other),
                }
            }
            "gradient" => {
                let [of, x] = self.arguments(name, arguments, ["of", "x"], span)?;
                self.gradient(&of, &x, span)
            }
            "f32" | "i32" => {
                let [x] = self.arguments(name, arguments, ["x"], span)?;
                let dtype = if name == "f32" { DType::F32 } else { DType::I32 };
                self.conversion(&x, dtype, span)
            }
            "range" => {
                let [count] = self.arguments(name, arguments, ["count"], span)?;
                let count = self.size_of(&count)?;
                Ok(Meaning::Tensor(self.graph.index(0, &[count], span)))
            }
            "uniform" => {
                let [like] = self.arguments(name, arguments, ["like"], span)?;
                let like = self.expect_tensor(&like)?;
                let shape = self.graph.shape(like).to_vec();
                Ok(Meaning::Tensor(self.draw(&shape, span)))
            }
            "reshape" => {
                let [x, dims] = self.arguments(name, arguments, ["x", "dims"], span)?;
                let shape = self.shape_of(&dims)?;
                self.reshaped(&x, shape, span)
            }
            "flatten" => {
                let [x] = self.arguments(name, arguments, ["x"], span)?;
                let id = self.expect_tensor(&x)?;
                let shape = self.graph.shape(id);
                let Some((first, rest)) = shape.split_first() else {
                    return self.refuse("rank-mismatch", x.span, "a scalar cannot be flattened");
                };
                let flat = vec![first.clone(), Dim::product(rest)];
                if flat.as_slice() == shape {
                    return Ok(Meaning::Tensor(id));
                }
                Ok(Meaning::Tensor(self.graph.reshape(id, &flat, span)))
            }
            "concat" => self.concat(arguments, span),
            "split" => self.split(arguments, span),
            "slice" => self.slice(arguments, span),
            "vector" => {
                let [list] = self.arguments(name, arguments, ["list"], span)?;
                self.vector(&list, span)
            }
            "passed" => {
                let [list, x] = self.arguments(name, arguments, ["list", "x"], span)?;
                self.passed(&list, &x)
            }
            "within" => {
                let [x, extent] = self.arguments(name, arguments, ["x", "extent"], span)?;
                let (id, extent) = (self.expect_tensor(&x)?, self.size_of(&extent)?);
                self.hold_within(id, &extent, span)
            }
            "size" => {
                let [x, axis] = self.arguments(name, arguments, ["x", "axis"], span)?;
                let id = self.expect_tensor(&x)?;
                let axis = self.axis_of(&axis, self.graph.shape(id).len())?;
                Ok(Meaning::Size(self.graph.shape(id)[axis].clone()))
            }
            "shape" => {
                let [x] = self.arguments(name, arguments, ["x"], span)?;
                let id = self.expect_tensor(&x)?;
                Ok(Meaning::List(self.graph.shape(id).iter().cloned().map(Meaning::Size).collect()))
            }
            "rank" => {
                let [x] = self.arguments(name, arguments, ["x"], span)?;
                let rank = match &x.value {
                    Meaning::List(_) => 1,
                    Meaning::Size(_) | Meaning::Number(_) => 0,
                    _ => {
                        let id = self.expect_tensor(&x)?;
                        self.graph.shape(id).len()
                    }
                };
                Ok(Meaning::Size(Dim::from(rank)))
            }
            _ => unreachable!("`{name}` is in the table of built-ins"),
        }
    }

    /// A fresh draw of U[0, 1).
    pub(crate) fn draw(&mut self, shape: &[Dim], span: Span) -> ValueId {
        self.next_stream += 1;
        self.graph.random(self.next_stream - 1, shape, span)
    }

    /// Exactly these arguments, by position or by name.
    fn arguments<const N: usize>(
        &mut self,
        name: &str,
        given: Vec<Given>,
        names: [&str; N],
        span: Span,
    ) -> Outcome<[Given; N]> {
        let mut slots: [Option<Given>; N] = std::array::from_fn(|_| None);
        let mut next = 0;
        for argument in given {
            let slot = match &argument.name {
                Some(label) => names.iter().position(|name| *name == label.name),
                None => {
                    next += 1;
                    Some(next - 1)
                }
            };
            match slot {
                Some(slot) if slot < N && slots[slot].is_none() => slots[slot] = Some(argument),
                _ => {
                    let message = format!("`{name}` takes {}", listed(&names));
                    let diagnostic = Diagnostic::error("bad-argument", argument.span, message);
                    return self.fail(match names.last() {
                        Some(&"dims") => diagnostic.hint(format!("sizes stand in a list: `{name}([N, 2, 8])`")),
                        Some(_) | None => diagnostic,
                    });
                }
            }
        }
        if let Some(missing) = slots.iter().position(Option::is_none) {
            return self.refuse("bad-argument", span, format!("`{name}` needs the argument `{}`", names[missing]));
        }
        Ok(slots.map(|slot| slot.expect("every slot was filled")))
    }

    fn elementwise_function(&mut self, op: Unary, x: &Given, span: Span) -> Outcome<Meaning> {
        match &x.value {
            Meaning::Tensor(id) => {
                let keeps_integers = op == Unary::Abs && self.graph.value(*id).dtype == DType::I32;
                let id = if keeps_integers { *id } else { self.graph.cast(*id, DType::F32, span) };
                Ok(Meaning::Tensor(self.graph.unary(op, id, span)))
            }
            Meaning::Scalar(formula) => Ok(Meaning::Scalar(ScalarExpr::Unary(op, Box::new(formula.clone())))),
            Meaning::Size(dim) if dim.as_const().is_none() => {
                let id = self.graph.size(dim.clone(), &[], DType::F32, x.span);
                Ok(Meaning::Tensor(self.graph.unary(op, id, span)))
            }
            value => match as_number(value) {
                Some(number) => Ok(Meaning::Number(scalar::unary(op, number))),
                None => {
                    let message = format!("`{}` is not defined on {}", scalar::unary_name(op), self.describe(value));
                    self.refuse("type-mismatch", x.span, message)
                }
            },
        }
    }

    fn extreme(&mut self, op: Binary, a: &Given, b: &Given, span: Span) -> Outcome<Meaning> {
        if let (Meaning::Size(x), Meaning::Size(y)) = (&a.value, &b.value) {
            return Ok(Meaning::Size(if op == Binary::Min { x.min(y) } else { x.max(y) }));
        }
        if let (Some(x), Some(y)) = (as_number(&a.value), as_number(&b.value)) {
            return Ok(Meaning::Number(scalar::binary(op, x, y)));
        }
        if let (Some(x), Some(y)) = (as_formula(&a.value), as_formula(&b.value)) {
            return Ok(Meaning::Scalar(ScalarExpr::Binary(op, Box::new(x), Box::new(y))));
        }
        let (x, y) = self.operands(a, b, span)?;
        Ok(Meaning::Tensor(self.graph.binary(op, x, y, span)))
    }

    /// Two tensors of a common shape and number type.
    fn operands(&mut self, a: &Given, b: &Given, span: Span) -> Outcome<(ValueId, ValueId)> {
        let mut x = self.operand(a, &b.value)?;
        let mut y = self.operand(b, &a.value)?;
        if self.graph.value(x).dtype != self.graph.value(y).dtype {
            x = self.graph.cast(x, DType::F32, span);
            y = self.graph.cast(y, DType::F32, span);
        }
        self.common_shape(x, y, (a.span, b.span), span)
    }

    fn operand(&mut self, x: &Given, other: &Meaning) -> Outcome<ValueId> {
        let dtype = match other {
            Meaning::Tensor(id) => super::arithmetic::number_type(&x.value, self.graph.value(*id).dtype),
            _ => DType::F32,
        };
        let id = self.as_tensor(&x.value, dtype, &[], x.span)?;
        Ok(self.number_operand(id, x.span))
    }

    fn conversion(&mut self, x: &Given, dtype: DType, span: Span) -> Outcome<Meaning> {
        match &x.value {
            Meaning::Tensor(id) => Ok(Meaning::Tensor(self.graph.cast(*id, dtype, span))),
            Meaning::Size(dim) if dtype == DType::I32 => Ok(Meaning::Size(dim.clone())),
            Meaning::Size(dim) if dim.as_const().is_none() => {
                Ok(Meaning::Tensor(self.graph.size(dim.clone(), &[], dtype, span)))
            }
            Meaning::Scalar(formula) if dtype == DType::F32 => Ok(Meaning::Scalar(formula.clone())),
            value => match as_number(value) {
                Some(number) if dtype == DType::F32 => Ok(Meaning::Number(number)),
                Some(number) if number.abs() < 9e15 => Ok(Meaning::Size(Dim::constant(number.trunc() as i64))),
                _ => self.refuse("type-mismatch", x.span, format!("cannot convert {}", self.describe(value))),
            },
        }
    }

    /// A static size; whole numbers count.
    /// `gradient(of, x)`: a value like any other, whose own derivative is taken where a loss depends on it.
    fn gradient(&mut self, of: &Given, x: &Given, span: Span) -> Outcome<Meaning> {
        let (scalar, by) = (self.expect_tensor(of)?, self.expect_tensor(x)?);
        let value = self.graph.value(scalar);
        if !value.shape.is_empty() || value.dtype != DType::F32 {
            let found = Meaning::Tensor(scalar);
            let diagnostic = Diagnostic::error("not-a-scalar", of.span, "only one real number has a gradient");
            let diagnostic = diagnostic.at(format!("this is {}", self.describe(&found)));
            return self.fail(
                diagnostic.hint("sum it: `total = sum[n] y[n]`; the samples of a batch do not touch each other"),
            );
        }
        if self.graph.value(by).dtype != DType::F32 {
            return self.refuse("type-mismatch", x.span, "a gradient is taken by real numbers");
        }
        if !grad::depends(&self.graph, scalar, by) {
            let message = "this does not depend on it by a differentiable path";
            let diagnostic = Diagnostic::error("no-gradient", x.span, message).label(of.span, "this");
            return self.fail(diagnostic);
        }
        let made = self.graph.len();
        let gradient = grad::differentiate(&mut self.graph, scalar, &[by])[0];
        // What goes wrong in it is told at this line.
        self.graph.relocate(made, |_| span);
        Ok(Meaning::Tensor(gradient))
    }

    pub(crate) fn size_of(&mut self, x: &Given) -> Outcome<Dim> {
        match x.value.as_dim() {
            Some(dim) => Ok(dim),
            None => self.refuse("type-mismatch", x.span, format!("expected a size, found {}", self.describe(&x.value))),
        }
    }

    fn shape_of(&mut self, x: &Given) -> Outcome<Vec<Dim>> {
        match &x.value {
            Meaning::List(items) => items
                .clone()
                .into_iter()
                .map(|value| self.size_of(&Given { name: None, value, span: x.span }))
                .collect(),
            other => {
                let message = format!("expected a shape such as `[N, C]`, found {}", self.describe(other));
                self.refuse("type-mismatch", x.span, message)
            }
        }
    }

    /// An axis below `rank`; negative ones count from the end.
    pub(super) fn axis_of(&mut self, x: &Given, rank: usize) -> Outcome<usize> {
        let axis = self.size_of(x)?;
        let rank = rank as i64;
        match axis.as_const() {
            Some(axis) if (-rank..rank).contains(&axis) => Ok(axis.rem_euclid(rank) as usize),
            _ => self.refuse("bad-argument", x.span, format!("axis {axis} is not one of the {rank} axes")),
        }
    }

    fn reshaped(&mut self, x: &Given, shape: Vec<Dim>, span: Span) -> Outcome<Meaning> {
        let id = self.expect_tensor(x)?;
        let from = self.graph.shape(id).to_vec();
        let verdict = self.facts.prove_eq(&Dim::product(&from), &Dim::product(&shape));
        if verdict.is_proved() {
            return Ok(Meaning::Tensor(if from == shape { id } else { self.graph.reshape(id, &shape, span) }));
        }
        let (before, after) = (Dim::product(&from), Dim::product(&shape));
        let (from, to) = (shape_text(&from), shape_text(&shape));
        if let Some(size) = shape.iter().filter_map(Dim::as_const).find(|size| *size < 1) {
            let diagnostic =
                Diagnostic::error("bad-size", span, format!("a size must be at least 1, and `{size}` is not"));
            return self.fail(diagnostic.hint("no size is left to be found: write each, such as `size(x, 1) / 2`"));
        }
        let diagnostic = match &verdict {
            Verdict::Undecided => {
                let message = format!("not proved: {from} has as many elements as {to}");
                let hint = format!("add `require {before} == {after}` to the model");
                Diagnostic::error("undecided", span, message).hint(hint)
            }
            Verdict::Refuted(_) | Verdict::Proved => {
                Diagnostic::error("shape-mismatch", span, format!("{from} cannot be reshaped to {to}"))
            }
        };
        let diagnostic = diagnostic.label(x.span, format!("has {before} elements"));
        self.fail(match verdict.counterexample() {
            Some(example) => diagnostic.hint(format!("the element counts differ at {example}")),
            None => diagnostic,
        })
    }

    fn list_of(&mut self, x: &Given) -> Outcome<Vec<Meaning>> {
        match &x.value {
            Meaning::List(items) if !items.is_empty() => Ok(items.clone()),
            other => {
                let message = format!("expected a list of numbers, found {}", self.describe(other));
                self.refuse("type-mismatch", x.span, message)
            }
        }
    }

    /// `[a, b, …]` as a tensor: a choice by position.
    fn vector(&mut self, list: &Given, span: Span) -> Outcome<Meaning> {
        let items = self.list_of(list)?;
        let shape = [Dim::from(items.len())];
        let mut sum: Option<ValueId> = None;
        let index = self.graph.index(0, &shape, span);
        for (position, item) in items.iter().enumerate() {
            let value = self.as_tensor(item, DType::F32, &shape, list.span)?;
            sum = Some(match sum {
                None => value,
                Some(before) => {
                    let here = self.graph.constant(position as f64, &shape, DType::I32, span);
                    let here = self.graph.compare(crate::graph::Compare::Ge, index, here, span);
                    self.graph.select(here, value, before, span)
                }
            });
        }
        Ok(Meaning::Tensor(sum.expect("the list is not empty")))
    }

    fn passed(&mut self, list: &Given, x: &Given) -> Outcome<Meaning> {
        let mut count = Meaning::Size(Dim::constant(0));
        for item in self.list_of(list)? {
            let reached = match self.infix(BinaryOp::Ge, (&x.value, x.span), (&item, list.span), list.span)? {
                Meaning::Flag(flag) => Meaning::Size(Dim::constant(i64::from(flag))),
                other => other,
            };
            count = self.infix(BinaryOp::Add, (&count, list.span), (&reached, list.span), list.span)?;
        }
        Ok(count)
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
